"""Rerun the efficiency tables of the WaveMix paper on this machine: tables 1, 5 and 6 of arXiv 2203.03689.

WaveMix stands beside the paper's 2-D FNets and MLP-Mixers, the other models that it compares with
(scripts/baselines.py), among them ResNets with a 3x3 stem of stride 1 and no max-pool, and timm's ResNet-18 as it is;
their ratios next to the paper's own. Slower ways to write WaveMix (scripts/references.py) are timed with them. What
needs packages that are not installed is left out, and said so.
"""
import argparse
import json
import math
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
import torch.nn as nn

import baselines  # noqa: F401  registers them
import measurements
from measurements import (
    BF16,
    BUDGET,
    CHECKPOINTED,
    FP32,
    MEMORY_FORMATS,
    MODES,
    Contender,
    Results,
    failure,
    measure,
)
from paper import FAMILIES, INFERENCE, PAPER, TRAIN
from references import authors_model, plain_model
from reports import (
    BLUE,
    ORANGE,
    SOFTWARE,
    add_device,
    command,
    details,
    digits,
    limit_memory,
    machine_name,
    positive,
    positive_number,
    quotient,
    styles,
    table,
    writable,
)

try:
    from matplotlib.figure import Figure
except ImportError as error:
    sys.exit(f"benchmark_paper.py draws with matplotlib, which `pip install -e '.[demo]'` installs ({error}).")


class Goal(NamedTuple):
    """How many times as fast as a peer a model is meant to be, in fp32 at 32x32."""
    model: str
    peer: str
    train: Optional[float]
    inference: float


PLAIN = 'its block on pytorch_wavelets'
AUTHORS = "the authors' wavemix 0.2.4"
AUTHORS_NCHW = "the authors' wavemix 0.2.4 in NCHW"
UP_CONV = 'its ConvTranspose2d alone, FLOP/s'
GOALS = [
    Goal('wavemix_16_5', PLAIN, 3., 4.),
    Goal('wavemix_64_5', PLAIN, 2., 4.),
    Goal('wavemix_lite_128_7', AUTHORS, 1.5, 1.2),
    Goal('wavemix_lite_128_7', AUTHORS_NCHW, None, 2.),
    Goal('wavemix_lite_256_7', AUTHORS, 1.5, 1.2),
    Goal('wavemix_lite_256_7', AUTHORS_NCHW, None, 2.),
    Goal('wavemix_16_5', 'resnet18_3x3', 2.06, 1.25),
    Goal('wavemix_32_5', 'resnet18_3x3', 1.17, 1.11),
    Goal('wavemix_lite_128_7', 'resnet18_3x3', 0.55, 0.65),
    Goal('wavemix_lite_256_7', 'resnet18_3x3', 0.16, 0.17),
    Goal('wavemix_16_5', 'resnet18', 1., 1.),
    Goal('wavemix_lite_256_7', UP_CONV, 0.6, 0.7),
]


def peer_name(goal: Goal) -> str:
    """Name of the peer in the measurements."""
    return goal.peer if goal.peer in PAPER else f'{goal.model}: {goal.peer}'


# What is measured

def maps(batch_size: int, image_size: int) -> torch.Tensor:
    """What the transposed convolutions of wavemix_lite_256_7 take; within the model it gets a gradient."""
    return torch.randn(batch_size, 256, image_size // 2, image_size // 2, requires_grad=True)


def create(name: str, image_size: int) -> nn.Module:
    """One of `PAPER`, set up as in the paper for images of this size.

    Raises:
        ImportError: A package is not installed.
    """
    size = {'img_size': image_size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    return timm.create_model(name, num_classes=10, **size)


def create_all(models: Sequence[str], image_size: int, device: torch.device) -> Tuple[List[Contender], List[str]]:
    """These models, and a remark on each that cannot be created."""
    contenders, remarks = [], []
    for name in models:
        try:
            contenders.append(Contender(name, create(name, image_size).to(device)))
        except Exception as error:  # the models are of four libraries, which raise what they like
            remarks.append(f'Not measured at {image_size}x{image_size}: {name} ({error})')
    return contenders, remarks


def create_peer(goal: Goal, device: torch.device) -> Contender:
    """The peer of a goal that is not one of `PAPER`.

    Raises:
        ImportError: A package is not installed.
    """
    dim, depth = map(int, goal.model.split('_')[-2:])
    terms = dict(name=peer_name(goal), precisions=[FP32])
    if goal.peer == PLAIN:
        return Contender(model=plain_model(goal.model).to(device), **terms)
    if goal.peer == UP_CONV:
        return Contender(model=nn.ConvTranspose2d(dim, dim, 4, 2, 1).to(device), make_input=maps, **terms)
    memory_formats = ['NCHW'] if goal.peer == AUTHORS_NCHW else list(MEMORY_FORMATS)
    return Contender(model=authors_model(dim, depth, device), memory_formats=memory_formats, **terms)


def create_peers(models: Sequence[str], device: torch.device) -> Tuple[List[Contender], List[str]]:
    """The peers of these models, and a remark on each that cannot be created."""
    contenders, remarks = [], []
    for goal in GOALS:
        if goal.model in models and goal.peer not in PAPER:
            try:
                contenders.append(create_peer(goal, device))
            except ImportError as error:
                remarks.append(
                    f"Not measured: {peer_name(goal)}, for which `pip install -e '.[wavelets]' wavemix==0.2.4` is "
                    f'missing ({error}).')
    return contenders, remarks


# Report

MEASURED = 'Measured: a step of this batch runs in so much memory of the GPU, a step of 16 images more does not.'
CALCULATED = (
    'Calculated, in multiples of 16 images. Training: the memory in fp32 of the table above, as if all of it grew with '
    'the batch, weights, gradients and the two moments of Adam. Inference: weights, and the most that tensors take at '
    'one time.')


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
            digits(quotient(cost.params, reference and reference.params)),
            digits(quotient(paper.params, paper_reference.params)),
            digits(quotient(cost.flops, reference and reference.flops)),
            failure(cost) or digits(quotient(memory, reference and reference.saved_bytes.get(FP32))),
            digits(quotient(paper.memory.get(size), paper_reference.memory.get(size))),
        ]
        for mode in MODES:
            speed = results.speed(name, mode)
            row += [
                failure(speed) or digits(speed.ratio(results.speed('resnet18_3x3', mode))),
                digits(quotient(paper.speed[mode].get(size), paper_reference.speed[mode].get(size))),
            ]
        rows.append(row)
    return table(['model', 'params', 'paper', 'GMACs', 'memory', 'paper', 'train', 'paper', 'inference', 'paper'], rows)


def memory_table(results: Results, size: int) -> str:
    """Table 1 of the paper."""
    costs = {name: results.cost(name) for name in results.models}

    def saved(name: str, kind: str = FP32) -> Optional[int]:
        return costs[name].saved_bytes.get(kind) if name in costs else None

    def paper_ratio(name: str, reference: str) -> Optional[float]:
        return quotient(PAPER[name].memory.get(size), PAPER[reference].memory.get(size))

    rows = [
        [
            f'`{name}`',
            PAPER[name].name,
            f'{cost.params / 1e6:.2f}',
            digits(PAPER[name].params),
            digits(quotient(cost.flops, 2e9)),
            failure(cost) or digits(quotient(saved(name), 2 ** 20)),
            digits(quotient(saved(name), saved('resnet18_3x3'))),
            digits(paper_ratio(name, 'resnet18_3x3')),
            digits(quotient(saved(name), saved('resnet50_3x3'))),
            digits(paper_ratio(name, 'resnet50_3x3')),
            digits(quotient(saved(name, BF16), saved('resnet50_3x3', BF16))),
            digits(quotient(saved(name, CHECKPOINTED), saved('resnet50_3x3'))),
        ]
        for name, cost in costs.items()]
    return table(
        ['model', 'in the paper', 'params (M)', 'paper', 'GMACs', 'memory (MiB)', '÷ ResNet-18', 'paper',
         '÷ ResNet-50', 'paper', '÷ ResNet-50, both in bf16', '÷ ResNet-50, with `set_grad_checkpointing`'], rows)


def speed_table(results: Results, size: int, precision: str) -> str:
    """Table 5 of the paper in fp32, or what bf16 autocast makes of it."""
    rows = []
    for name in results.models:
        row, memory_formats = [f'`{name}`'], []
        for mode in MODES:
            speed = results.speed(name, mode, precision)
            if precision == FP32:
                beside = quotient(PAPER[name].speed[mode].get(size), PAPER['resnet18_3x3'].speed[mode].get(size))
            else:
                beside = speed.ratio(results.speed(name, mode))
            row += [
                failure(speed) or digits(speed.images_per_second),
                digits(speed.ratio(results.speed('resnet18_3x3', mode, precision))),
                digits(beside),
            ]
            memory_formats.append(speed.memory_format)
        rows.append([*row, ', '.join(memory_formats)])
    beside = 'paper' if precision == FP32 else '÷ its fp32'
    columns = [column for mode in MODES for column in (f'{mode}, images/s', '÷ ResNet-18', beside)]
    return table(['model', *columns, 'memory formats'], rows)


def batch_table(results: Results, size: int) -> str:
    """Table 6 of the paper."""
    largest = {name: results.cost(name).largest_batch for name in results.models}
    rows = []
    for name in largest:
        row = [f'`{name}`']
        for mode in MODES:
            ours, theirs = largest[name].get(mode), PAPER[name].largest_batch[mode].get(size)
            row += [
                '–' if ours is None else f'{ours:,}',
                digits(quotient(ours, largest.get('resnet50_3x3', {}).get(mode))),
                digits(quotient(theirs, PAPER['resnet50_3x3'].largest_batch[mode].get(size))),
            ]
        rows.append(row)
    columns = [column for mode in MODES for column in (mode, '÷ ResNet-50', 'paper')]
    return table(['model', *columns], rows)


def goal_table(results: Results) -> str:
    """How many times as fast as its peers each model is, beside the goal."""
    rows = []
    for goal in GOALS:
        if goal.model not in results.models:
            continue
        row = [f'`{goal.model}`', goal.peer]
        for mode, aim in ((TRAIN, goal.train), (INFERENCE, goal.inference)):
            ratio = results.speed(goal.model, mode).ratio(results.speed(peer_name(goal), mode))
            if ratio and goal.peer == UP_CONV:
                ratio *= results.cost(goal.model).flops / results.cost(peer_name(goal)).flops
            short = ratio and aim and ratio < aim
            row += [f'**{digits(ratio)}**' if short else digits(ratio), f'≥ {aim:g}' if aim else '–']
        rows.append(row)
    return table(['model', 'beside', 'train', 'goal', 'inference', 'goal'], rows)


def markdown(report: Report, picture: str) -> str:
    parts = [
        '# The efficiency tables of the paper, rerun',
        f'Measured in {report.rounds} rounds on {report.machine}, with {report.software}, by',
        f'```sh\n{report.command}\n```',
        details(__doc__),
        details(measurements.__doc__),
        f'![Memory and speed of the models]({picture})',
    ]
    for results in report.results:
        batch_size, size = results.costs[0].batch_size, results.costs[0].image_size
        parts += [
            f'## Batches of {batch_size} images of {size}x{size}',
            '"÷" heads the ratio to another model, and "paper" the figure of the paper for what is left of it. Of '
            'parameters, GMACs and memory less is better, of images per second and of the largest batch more is.',
            '### As ratios to ResNet-18, tables 1 and 5',
            'Parameters, GMACs, memory for the backward pass, and images per second in fp32. The paper measured memory '
            'and speed on a GPU, in mixed precision.',
            ratio_table(results, size),
            '### Parameters and memory, tables 1 and 4 of the paper',
            "The paper's memory is that of the GPU, weights and all, in mixed precision.",
            memory_table(results, size),
            '### Speed, table 5',
            speed_table(results, size, FP32),
            'In bf16 autocast:',
            speed_table(results, size, BF16),
            f'### Largest batch in {BUDGET >> 30} GiB, tables 6 and 4',
            report.batch_method,
            batch_table(results, size),
        ]
        if size == 32:
            parts += [
                '### Beside other ways to write WaveMix, and beside ResNet-18',
                'How many times as many images per second in fp32, and the goal that this package has set itself. What '
                'falls short of it is bold.',
                goal_table(results),
            ]
    failures = [f'{record.model}: {record.error}' for results in report.results for record in results.failed]
    return '\n\n'.join([*parts, *report.remarks, *failures]) + '\n'


def draw(results: Results, size: int) -> Figure:
    """Memory beside speed, and the ratios of speed to ResNet-18 beside the paper's."""
    figure = Figure(figsize=(17, 5.5), dpi=150, layout='constrained')
    scatter, *charts = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    families = [family for name in results.models for family, names in FAMILIES.items() if name in names]
    for name, style in zip(results.models, styles(families)):
        speed, memory = results.speed(name, TRAIN), results.cost(name).saved_bytes.get(FP32)
        if memory and not speed.error:
            scatter.plot(memory / 2 ** 20, speed.images_per_second, label=name, **style)
    scatter.set(
        xscale='log', yscale='log', xlabel='memory kept for the backward pass (MiB)', ylabel='training (images/s)',
        title='the best are top left')
    for mode, chart in zip(MODES, charts):
        for name in reversed(results.models):
            ratio = results.speed(name, mode).ratio(results.speed('resnet18_3x3', mode))
            paper = quotient(PAPER[name].speed[mode].get(size), PAPER['resnet18_3x3'].speed[mode].get(size))
            chart.plot(math.nan if ratio is None else ratio, name, 'o', color=BLUE)  # a failed one keeps its line
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
        epilog=details(measurements.__doc__),
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
        type=positive,
        default=[32],
        metavar='PIXELS',
        help='image sizes; those of the paper are 32 and 64 (default: 32)',
    )
    parser.add_argument('--batch-size', type=positive, default=64, help='images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=positive, default=5, help='alternating rounds (default: %(default)s)')
    parser.add_argument(
        '--step-limit',
        type=positive_number,
        default=60.,
        metavar='SECONDS',
        help='leave out a model of which one step takes longer (default: %(default)s)',
    )
    add_device(parser)
    parser.add_argument('--json', metavar='JSON', type=writable, help='write every single measurement to this file')
    parser.add_argument(
        '--output',
        metavar='MD',
        type=writable,
        default='benchmark.md',
        help='tables in Markdown, with a picture of the same name beside them (default: %(default)s)',
    )
    args = parser.parse_args()

    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    if args.device.type == 'cpu':
        limit_memory()
    results, remarks = [], []
    if 'resnet18_3x3' not in args.models:
        remarks.append('No ratios to ResNet-18: name resnet18_3x3 among the models too.')
    for size in args.sizes:
        contenders, missing = create_all(args.models, size, args.device)
        if size == 32:
            peers, missing_peers = create_peers(args.models, args.device)
            contenders += peers
            missing += missing_peers
        remarks += [remark for remark in missing if remark not in remarks]
        points = [(contender, args.batch_size, size) for contender in contenders]
        results.append(measure(points, args.rounds, args.device, f'{size}x{size}', args.step_limit))

    report = Report(
        command=command(),
        machine=machine_name(args.device),
        software=SOFTWARE,
        batch_method=MEASURED if args.device.type == 'cuda' else CALCULATED,
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
