"""Rerun the efficiency tables of the WaveMix paper on this machine: tables 1, 4, 5 and 6 of arXiv 2203.03689.

Ratios to a ResNet stand beside the paper's own. The models are WaveMix, the paper's 2-D FNets and MLP-Mixers, the
models of other libraries that it compares with (lib/baselines.py), among them ResNets with a 3x3 stem of stride 1 and
no max-pool, and timm's ResNet-18 as it is. They are set up as in the paper: WaveMix has as many levels as bring the map
to 2x2, 4 for 32x32 and 5 for 64x64. Models that `timm.utils.reparameterize_model` changes are also timed in that form.
Two other implementations of WaveMix (lib/reference.py) are timed at 32x32. A model whose packages are not installed is
left out, with a remark.
"""
import argparse
import json
import math
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import timm
import torch
import torch.nn as nn
from timm.utils import reparameterize_model

from lib.baselines import size_kwargs  # importing it registers the models
from lib.measure import BF16, BUDGET, CHECKPOINTED, FP32, METHOD, MODES, Case, Results, error_kind, measure
from lib.published import FAMILIES, INFERENCE, PAPER, TRAIN
from lib.reference import authors_lite_model, plain_model
from lib.report import (
    BLUE,
    ORANGE,
    SOFTWARE,
    add_device_argument,
    command_line,
    docstring_body,
    hardware_name,
    limit_memory,
    markdown_table,
    marker_styles,
    output_file,
    positive_float,
    positive_int,
    ratio,
    report_header,
    require_matplotlib,
    three_digits,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PYTORCH_WAVELETS = 'section 3.2 line by line, on pytorch_wavelets'
AUTHORS = "the authors' package wavemix 0.2.4"
IMPLEMENTATIONS = [
    ('wavemix_16_5', PYTORCH_WAVELETS),
    ('wavemix_64_5', PYTORCH_WAVELETS),
    ('wavemix_lite_128_7', AUTHORS),
    ('wavemix_lite_256_7', AUTHORS),
]


# What is measured

def create(name: str, image_size: int) -> nn.Module:
    """One of `PAPER`, set up as in the paper for images of this size.

    Raises:
        ImportError: A package is not installed.
    """
    return timm.create_model(name, num_classes=10, **size_kwargs(name, image_size))


def create_cases(
        models: Sequence[str], batch_size: int, image_size: int, device: torch.device) -> Tuple[List[Case], List[str]]:
    """The models at the batch size and at 1, as they are and reparameterized, and a remark on each that fails."""
    cases, remarks = [], []
    for name in models:
        try:
            model = create(name, image_size).to(device)
        except Exception as error:  # the models are of four libraries, which raise what they like
            remarks.append(f'Not measured at {image_size}x{image_size}: {name} ({error})')
            continue
        cases.append(Case(name, model, batch_size, image_size))
        inference = Case(name, model, batch_size, image_size, precisions=[FP32], modes=[INFERENCE])
        if batch_size > 1:
            cases.append(inference._replace(batch_size=1))
        deployed = reparameterize_model(model.eval())
        if [type(module) for module in deployed.modules()] != [type(module) for module in model.modules()]:
            case = inference._replace(name=reparameterized(name), model=deployed)
            cases += [case._replace(batch_size=n) for n in sorted({batch_size, 1}, reverse=True)]
    return cases, remarks


def reparameterized(name: str) -> str:
    """The name of a model's other form in the measurements."""
    return f'{name} (reparameterized)'


def create_implementations(
        models: Sequence[str], batch_size: int, image_size: int, device: torch.device) -> Tuple[List[Case], List[str]]:
    """Other implementations of these models, and a remark on each that cannot be created."""
    cases, remarks = [], []
    for name, implementation in IMPLEMENTATIONS:
        if name not in models:
            continue
        dim, depth = map(int, name.split('_')[-2:])
        try:
            if implementation == AUTHORS:
                model = authors_lite_model(dim, depth, device)
            else:
                model = plain_model(name).to(device)
        except ImportError as error:
            remarks.append(
                f'Not measured: {name}, {implementation} ({error}). `pip install --group baselines` installs what it '
                'needs.')
        else:
            cases.append(Case(f'{name}: {implementation}', model, batch_size, image_size, precisions=[FP32]))
    return cases, remarks


# Report

PEAKS = (
    "Calculated, in multiples of 16 images, in mixed precision: from PyTorch's peaks on the GPU at this batch and at "
    'one twice as large, with the two moments of Adam in training.')
CALCULATED = (
    'Calculated, in multiples of 16 images. Training: weights, gradients, the two moments of Adam, and the memory '
    'without `set_grad_checkpointing` of the table above, in proportion to the batch. Inference: weights, and the most '
    'that tensors take at one time.')


@dataclass
class Report:
    command: str
    machine: str
    software: str
    batch_method: str  # how the largest batches were found
    rounds: int
    remarks: List[str]  # what is missing and why
    results: List[Results]  # one for each image size


def ratio_table(results: Results, size: int) -> str:
    """Everything as a ratio to ResNet-18, beside what the paper has of it: tables 1 and 5."""
    reference, rows = results.cost('resnet18_3x3'), []
    for name in results.models:
        cost, paper, paper_reference = results.cost(name), PAPER[name], PAPER['resnet18_3x3']
        memory = cost.saved_bytes.get(FP32)
        row = [
            f'`{name}`',
            three_digits(ratio(cost.params, reference and reference.params)),
            three_digits(ratio(paper.params, paper_reference.params)),
            three_digits(ratio(cost.flops, reference and reference.flops)),
            error_kind(cost) or three_digits(ratio(memory, reference and reference.saved_bytes.get(FP32))),
            three_digits(ratio(paper.memory.get(size), paper_reference.memory.get(size))),
        ]
        for mode in MODES:
            speed = results.speed(name, mode)
            row += [
                error_kind(speed) or three_digits(speed.ratio(results.speed('resnet18_3x3', mode))),
                three_digits(ratio(paper.speed[mode].get(size), paper_reference.speed[mode].get(size))),
            ]
        rows.append(row)
    return markdown_table(
        ['model', 'params', 'paper', 'GMACs', 'memory', 'paper', 'train', 'paper', 'inference', 'paper'], rows)


def memory_table(results: Results, size: int) -> str:
    """Table 1 of the paper."""
    costs = {name: results.cost(name) for name in results.models}

    def saved(name: str, kind: str = FP32) -> Optional[int]:
        return costs[name].saved_bytes.get(kind) if name in costs else None

    def mebibytes(name: str, kind: str = FP32) -> str:
        return three_digits(ratio(saved(name, kind), 2 ** 20))

    def paper_ratio(name: str, reference: str) -> Optional[float]:
        return ratio(PAPER[name].memory.get(size), PAPER[reference].memory.get(size))

    rows = [
        [
            f'`{name}`',
            PAPER[name].name,
            f'{cost.params / 1e6:.2f}',
            three_digits(PAPER[name].params),
            three_digits(ratio(cost.flops, 2e9)),
            error_kind(cost) or mebibytes(name),
            three_digits(ratio(saved(name), saved('resnet18_3x3'))),
            three_digits(paper_ratio(name, 'resnet18_3x3')),
            three_digits(ratio(saved(name), saved('resnet50_3x3'))),
            three_digits(paper_ratio(name, 'resnet50_3x3')),
            three_digits(ratio(saved(name, BF16), saved('resnet50_3x3', BF16))),
            mebibytes(name, CHECKPOINTED),
            three_digits(ratio(saved(name, CHECKPOINTED), saved('resnet50_3x3', CHECKPOINTED))),
        ]
        for name, cost in costs.items()]
    return markdown_table(
        ['model', 'in the paper', 'params (M)', 'paper', 'GMACs', 'memory (MiB)', '÷ ResNet-18', 'paper',
         '÷ ResNet-50', 'paper', '÷ ResNet-50, both in bf16', 'with `set_grad_checkpointing` (MiB)',
         '÷ ResNet-50, both with it'], rows)


def peak_table(results: Results, size: int) -> str:
    """Table 1's memory as the paper has it, of the GPU."""
    reference, rows = results.cost('resnet18_3x3'), []
    for name in results.models:
        peaks, papers = results.cost(name).peak_bytes, PAPER[name].memory.get(size)
        rows.append([
            f'`{name}`',
            *(error_kind(results.cost(name)) or three_digits(ratio(peaks.get(mode), 2 ** 30)) for mode in MODES),
            three_digits(papers),
            three_digits(ratio(peaks.get(TRAIN), reference and reference.peak_bytes.get(TRAIN))),
            three_digits(ratio(papers, PAPER['resnet18_3x3'].memory.get(size))),
        ])
    return markdown_table(
        ['model', 'training (GiB)', 'inference (GiB)', 'paper (GB)', 'training ÷ ResNet-18', 'paper'], rows)


def speed_table(results: Results, size: int, precision: str) -> str:
    """Table 5 of the paper in fp32, or what bf16 autocast makes of it."""
    rows = []
    for name in results.models:
        row, memory_formats = [f'`{name}`'], []
        for mode in MODES:
            speed = results.speed(name, mode, precision)
            if precision == FP32:
                beside = ratio(PAPER[name].speed[mode].get(size), PAPER['resnet18_3x3'].speed[mode].get(size))
            else:
                beside = speed.ratio(results.speed(name, mode))
            row += [
                error_kind(speed) or three_digits(speed.images_per_second),
                three_digits(speed.ratio(results.speed('resnet18_3x3', mode, precision))),
                three_digits(beside),
            ]
            memory_formats.append(speed.memory_format)
        rows.append([*row, ', '.join(memory_formats)])
    beside = 'paper' if precision == FP32 else '÷ its fp32'
    columns = [column for mode in MODES for column in (f'{mode}, images/s', '÷ ResNet-18', beside)]
    return markdown_table(['model', *columns, 'memory formats'], rows)


def inference_table(results: Results) -> str:
    """Inference at batch 1 and at the batch size, each model as it is and reparameterized."""
    batch_sizes = sorted({1, results.costs[0].batch_size})
    rows = []
    for plain_name, name in [(m, name) for m in results.models for name in (m, reparameterized(m))]:
        speeds = [results.speed(name, INFERENCE, batch_size=n) for n in batch_sizes]
        if None in speeds:
            continue  # it has no other form
        row = [f'`{name}`']
        for speed in speeds:
            plain = results.speed(plain_name, INFERENCE, batch_size=speed.batch_size)
            reference = results.speed('resnet18_3x3', INFERENCE, batch_size=speed.batch_size)
            row += [
                error_kind(speed) or three_digits(speed.images_per_second),
                three_digits(speed.ratio(reference)),
                three_digits(speed.ratio(plain)),
            ]
        rows.append(row)
    columns = [column for n in batch_sizes for column in (f'batch {n}, images/s', '÷ ResNet-18', '÷ as it is')]
    return markdown_table(['model', *columns], rows)


def batch_table(results: Results, size: int) -> str:
    """Table 6 of the paper."""
    largest = {name: results.cost(name).largest_batch for name in results.models}
    rows = []
    for name, batches in largest.items():
        row = [f'`{name}`']
        for mode in MODES:
            ours, theirs = batches.get(mode), PAPER[name].largest_batch[mode].get(size)
            row += [
                '–' if ours is None else f'{ours:,}',
                three_digits(ratio(ours, largest.get('resnet50_3x3', {}).get(mode))),
                three_digits(ratio(theirs, PAPER['resnet50_3x3'].largest_batch[mode].get(size))),
            ]
        rows.append(row)
    columns = [column for mode in MODES for column in (mode, '÷ ResNet-50', 'paper')]
    return markdown_table(['model', *columns], rows)


def implementation_table(results: Results) -> str:
    """How many times as fast as other implementations each model is."""
    rows = [
        [f'`{name}`', implementation, *(
            three_digits(results.speed(name, mode).ratio(results.speed(f'{name}: {implementation}', mode)))
            for mode in MODES)]
        for name, implementation in IMPLEMENTATIONS if name in results.models]
    return markdown_table(['model', 'other implementation', *MODES], rows)


def markdown(report: Report, picture: str) -> str:
    parts = [
        report_header('The efficiency tables of the paper, rerun', report.machine, report.software),
        docstring_body(__doc__),
        f'{METHOD} There are {report.rounds} rounds.',
        f'![Memory and speed of the models]({picture})',
    ]
    for results in report.results:
        batch_size, size = results.costs[0].batch_size, results.costs[0].image_size
        parts += [
            f'## Batches of {batch_size} images of {size}x{size}',
            'A column headed "÷" is a ratio to another model. A column "paper" has the paper\'s figure for the column '
            'to its left. Less is better for parameters, GMACs and memory, more is better for images per second and '
            'for the largest batch.',
            '### As ratios to ResNet-18, tables 1 and 5',
            'Parameters, GMACs, memory for the backward pass, and images per second in fp32. The paper measured memory '
            'and speed on a GPU, in mixed precision.',
            ratio_table(results, size),
            '### Parameters and memory, tables 1 and 4 of the paper',
            "The paper's memory is that of the GPU, weights and all, in mixed precision.",
            memory_table(results, size),
        ]
        if any(cost.peak_bytes for cost in results.costs):
            parts += [
                '### Memory of the GPU, table 1',
                'The peak of a step in bf16 autocast by `torch.cuda.max_memory_allocated`: with the weights, and with '
                'the two moments of Adam in training, but without what CUDA itself takes.',
                peak_table(results, size),
            ]
        parts += [
            '### Speed, table 5',
            speed_table(results, size, FP32),
            'In bf16 autocast:',
            speed_table(results, size, BF16),
            '### Inference, one image and a batch',
            'In fp32. "reparameterized" is the copy in eval mode that `timm.utils.reparameterize_model` makes.',
            inference_table(results),
            f'### Largest batch in {BUDGET >> 30} GiB, tables 6 and 4',
            report.batch_method,
            batch_table(results, size),
        ]
        if size == 32:
            parts += [
                '### Beside other implementations of WaveMix',
                'How many times as many images per second in fp32 our implementation runs.',
                implementation_table(results),
            ]
    errors = [f'{record.model}: {record.error}' for results in report.results for record in results.failed]
    return '\n\n'.join([*parts, *report.remarks, *errors]) + '\n'


def draw(results: Results, size: int) -> 'Figure':
    """Memory beside speed, and the ratios of speed to ResNet-18 beside the paper's."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(17, 5.5), dpi=150, layout='constrained')
    scatter, *charts = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    families = [family for name in results.models for family, names in FAMILIES.items() if name in names]
    for name, style in zip(results.models, marker_styles(families)):
        speed, memory = results.speed(name, TRAIN), results.cost(name).saved_bytes.get(FP32)
        if memory and not speed.error:
            scatter.plot(memory / 2 ** 20, speed.images_per_second, label=name, **style)
    scatter.set(
        xscale='log', yscale='log', xlabel='memory kept for the backward pass (MiB)', ylabel='training (images/s)',
        title='the best are top left')
    for mode, chart in zip(MODES, charts):
        for name in reversed(results.models):
            speed_ratio = results.speed(name, mode).ratio(results.speed('resnet18_3x3', mode))
            paper = ratio(PAPER[name].speed[mode].get(size), PAPER['resnet18_3x3'].speed[mode].get(size))
            # a model that failed keeps its line
            chart.plot(math.nan if speed_ratio is None else speed_ratio, name, 'o', color=BLUE)
            if paper:
                chart.plot(paper, name, 'D', color=ORANGE, fillstyle='none')
        chart.axvline(1., color='black', linewidth=0.8)
        chart.grid(axis='y', color='#dddddd')
        chart.set(xscale='log', title=f'{mode}, images/s ÷ ResNet-18', xlabel='blue: here, orange: in the paper')
    charts[1].tick_params(labelleft=False)
    figure.legend(*scatter.get_legend_handles_labels(), loc='outside left center')
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=METHOD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--models',
        nargs='+',
        choices=PAPER,
        default=list(PAPER),
        metavar='NAME',
        help=f'models to measure (default: all of {", ".join(PAPER)})',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=positive_int,
        default=[32],
        metavar='PIXELS',
        help='image sizes; those of the paper are 32 and 64 (default: 32)',
    )
    parser.add_argument('--batch-size', type=positive_int, default=64, help='images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=positive_int, default=5, help='alternating rounds (default: %(default)s)')
    parser.add_argument(
        '--step-limit',
        type=positive_float,
        default=60.,
        metavar='SECONDS',
        help='leave out a model of which one step takes longer (default: %(default)s)',
    )
    add_device_argument(parser)
    parser.add_argument('--json', metavar='JSON', type=output_file, help='write every single measurement to this file')
    parser.add_argument(
        '--output',
        metavar='MD',
        type=output_file,
        default='efficiency.md',
        help='tables in Markdown, with a picture of the same name beside them (default: %(default)s)',
    )
    args = parser.parse_args()
    require_matplotlib()

    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    if args.device.type == 'cpu':
        limit_memory()
    results, remarks = [], []
    if 'resnet18_3x3' not in args.models:
        remarks.append('No ratios to ResNet-18: name resnet18_3x3 among the models too.')
    for size in args.sizes:
        cases, missing = create_cases(args.models, args.batch_size, size, args.device)
        if size == 32:
            others, others_missing = create_implementations(args.models, args.batch_size, size, args.device)
            cases += others
            missing += others_missing
        remarks += [remark for remark in missing if remark not in remarks]
        if not cases:
            sys.exit(f'{parser.prog}: no model can be measured. {" ".join(remarks)}')
        results.append(measure(cases, args.rounds, args.device, f'{size}x{size}', args.step_limit))

    report = Report(
        command=command_line(),
        machine=hardware_name(args.device),
        software=SOFTWARE,
        batch_method=PEAKS if args.device.type == 'cuda' else CALCULATED,
        rounds=args.rounds,
        remarks=remarks,
        results=results,
    )
    try:
        if args.json:
            args.json.write_text(json.dumps(asdict(report), indent=1))
        picture = args.output.with_suffix('.png')
        args.output.write_text(markdown(report, picture.name), encoding='utf-8')
        draw(results[0], args.sizes[0]).savefig(picture)
    except OSError as error:
        sys.exit(f'{parser.prog}: {error.filename} cannot be written ({error.strerror}): name another file.')
    print(f'{args.output}, {picture}')


if __name__ == '__main__':
    main()
