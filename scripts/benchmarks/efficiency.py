"""Rerun the efficiency tables of the WaveMix paper on this machine: tables 1, 4, 5 and 6 of arXiv 2203.03689.

A model whose packages are not installed is left out, with a remark: `pip install --group baselines` installs them.
"""
import argparse
import math
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import timm
import torch
from timm.utils import reparameterize_model
from torch import nn

from scripts.benchmarks import efficiency_tables as tables
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.measure import BUDGET, MEMORY, TIMING, Case, Results, measure
from scripts.benchmarks.common.paper import PAPER, family
from scripts.benchmarks.common.step import BF16, FP32, INFERENCE, MODES, TRAIN
from scripts.benchmarks.efficiency_tables import AUTHORS, IMPLEMENTATIONS, RESNET18, reparameterized
from scripts.benchmarks.models.baselines import size_kwargs  # importing it registers the models
from scripts.benchmarks.models.reference import authors_lite_model, plain_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 'efficiency'
INTRODUCTION = """\
Ratios to a ResNet stand beside the paper's own. The models are WaveMix, the paper's 2-D FNets and MLP-Mixers, and the
models from other libraries that it compares with. Among them are ResNets with a 3x3 stem of stride 1 and no max-pool,
and timm's ResNet-18 as it is. They are set up as in the paper: WaveMix has enough levels to reduce the map to 2x2, 4
for 32x32 and 5 for 64x64. Models that `timm.utils.reparameterize_model` changes are also timed in that form. Two other
implementations of WaveMix are timed at 32x32."""
METHOD = """\
The bf16 copies of parameters that autocast makes count as memory. No model recomputes activations unless a column says
`set_grad_checkpointing`.

A ratio of speeds is the median of the rounds' ratios. GMACs are counted for the forward pass of one image: half of what
torch's FlopCounterMode counts, matrix products and convolutions, without the Fourier transforms of the FNets."""
PEAKS = (
    "Calculated, in multiples of 16 images, in mixed precision: from PyTorch's peaks on the GPU at this batch and at "
    'one twice as large, with the two moments of Adam in training.')
CALCULATED = (
    'Calculated, in multiples of 16 images. Training: weights, gradients, the two moments of Adam, and the memory '
    'without `set_grad_checkpointing` of the table above, in proportion to the batch. Inference: weights, and the most '
    'that tensors take at one time.')


@dataclass
class Report(report.Measured):
    rounds: int
    remarks: List[str]  # what is missing and why
    results: List[Results]  # one for each image size

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        return cls(**{**values, 'results': [Results.from_json(results) for results in values['results']]})


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
        others = [f'{name}: {implementation}' for ours, implementation in IMPLEMENTATIONS if ours == name]
        cases.append(Case(name, model, batch_size, image_size, references=[RESNET18, *others]))
        inference = Case(
            name, model, batch_size, image_size, precisions=[FP32], modes=[INFERENCE], references=[RESNET18])
        if batch_size > 1:
            cases.append(inference._replace(batch_size=1))
        deployed = reparameterize_model(model.eval())
        if [type(module) for module in deployed.modules()] != [type(module) for module in model.modules()]:
            case = inference._replace(name=reparameterized(name), model=deployed, references=[RESNET18, name])
            cases += [case._replace(batch_size=n) for n in sorted({batch_size, 1}, reverse=True)]
    return cases, remarks


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


def measure_sizes(args: argparse.Namespace) -> Report:
    """
    Raises:
        ValueError: No model can be measured.
    """
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    command.limit_memory(args.device)
    results: List[Results] = []
    remarks: List[str] = []
    if RESNET18 not in args.models:
        remarks.append(f'No ratios to ResNet-18: name {RESNET18} among the models too.')
    for size in args.sizes:
        cases, missing = create_cases(args.models, args.batch_size, size, args.device)
        if size == 32:
            others, others_missing = create_implementations(args.models, args.batch_size, size, args.device)
            cases += others
            missing += others_missing
        remarks += [remark for remark in missing if remark not in remarks]
        if not cases:
            raise ValueError(f'no model can be measured. {" ".join(remarks)}')
        results.append(measure(cases, args.rounds, args.device, f'{size}x{size}', args.step_limit))
    return Report(
        command.command_line(NAME), report.hardware_name(args.device), report.SOFTWARE, args.rounds, remarks, results)


# Report

def sections(results: Results) -> List[str]:
    """The tables of one image size."""
    batch_size, size = results.costs[0].batch_size, results.costs[0].image_size
    peaks = any(cost.peak_bytes for cost in results.costs)  # measured on a GPU
    parts = [
        f'## Batches of {batch_size} images of {size}x{size}',
        'A column headed "÷" is a ratio to another model. A column "paper" has the paper\'s figure for the column '
        'to its left. Less is better for parameters, GMACs and memory, more is better for images per second and '
        'for the largest batch.',
        '### As ratios to ResNet-18, tables 1 and 5',
        'Parameters, GMACs, memory for the backward pass, and images per second in fp32. The paper measured memory '
        'and speed on a GPU, in mixed precision.',
        tables.ratio_table(results, size),
        '### Parameters and memory, tables 1 and 4 of the paper',
        "The paper's memory is measured on the GPU, weights and all, in mixed precision.",
        tables.memory_table(results, size),
    ]
    if peaks:
        parts += [
            '### Memory of the GPU, table 1',
            'The peak of a step in bf16 autocast by `torch.cuda.max_memory_allocated`: with the weights, and with '
            'the two moments of Adam in training, but without what CUDA itself takes.',
            tables.peak_table(results, size),
        ]
    parts += [
        '### Speed, table 5',
        tables.speed_table(results, size, FP32),
        'In bf16 autocast:',
        tables.speed_table(results, size, BF16),
        '### Inference, one image and a batch',
        'In fp32. "reparameterized" is the copy in eval mode that `timm.utils.reparameterize_model` makes.',
        tables.inference_table(results),
        f'### Largest batch in {BUDGET >> 30} GiB, tables 6 and 4',
        PEAKS if peaks else CALCULATED,
        tables.batch_table(results, size),
    ]
    if size == 32:
        parts += [
            '### Beside other implementations of WaveMix',
            'How many times as fast our implementation is, in images per second in fp32.',
            tables.implementation_table(results),
        ]
    return parts


def markdown(results: Report, stem: Path) -> str:
    return report.pages([
        report.head(
            'The efficiency tables of the paper, rerun', NAME, stem, results.command, results.machine,
            results.software),
        INTRODUCTION,
        f'![Memory and speed of the models]({stem.name}.png)',
        *(part for one_size in results.results for part in sections(one_size)),
        *results.remarks,
        *(f'{record.model}: {record.error}' for one_size in results.results for record in one_size.failed),
        '## Method', TIMING.format(rounds=results.rounds), MEMORY, METHOD,
    ])


def draw(results: Report) -> 'Figure':
    """Memory beside speed, and the ratios of speed to ResNet-18 beside the paper's, at the first image size."""
    from matplotlib.figure import Figure
    first = results.results[0]
    size = first.costs[0].image_size
    figure = Figure(figsize=(17, 5.5), dpi=150, layout='constrained')
    scatter, *charts = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    for name, style in zip(first.models, report.marker_styles([family(name) for name in first.models])):
        speed, memory = first.speed(name, TRAIN), first.cost(name).saved_bytes.get(FP32)
        if memory and not speed.error:
            scatter.plot(memory / 2 ** 20, speed.images_per_second, label=name, **style)
    scatter.set(
        xscale='log', yscale='log', xlabel='memory kept for the backward pass (MiB)', ylabel='training (images/s)',
        title='the best are top left')
    for mode, chart in zip(MODES, charts):
        paper_speed = tables.paper_speed(mode, size)
        for name in reversed(first.models):
            speed_ratio = first.speed(name, mode).ratio(RESNET18)
            paper = report.ratio(paper_speed(name), paper_speed(RESNET18))
            # a model that failed keeps its line
            chart.plot(math.nan if speed_ratio is None else speed_ratio, name, 'o', color=report.BLUE)
            if paper:
                chart.plot(paper, name, 'D', color=report.ORANGE, fillstyle='none')
        chart.axvline(1., color='black', linewidth=0.8)
        chart.grid(axis='y', color='#dddddd')
        chart.set(xscale='log', title=f'{mode}, images/s ÷ ResNet-18', xlabel='blue: here, orange: in the paper')
    charts[1].tick_params(labelleft=False)
    figure.legend(*scatter.get_legend_handles_labels(), loc='outside left center')
    return figure


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
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
        type=command.positive_int,
        default=[32],
        metavar='PIXELS',
        help='image sizes; the paper has 32 and 64 (default: 32)',
    )
    parser.add_argument(
        '--batch-size', type=command.positive_int, default=64, help='images in a batch (default: %(default)s)')
    parser.add_argument(
        '--step-limit',
        type=command.positive_float,
        default=60.,
        metavar='SECONDS',
        help='leave out a model of which one step takes longer (default: %(default)s)',
    )
    command.add_rounds_argument(parser)
    command.add_device_argument(parser)
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure_sizes, markdown, draw), argv)


if __name__ == '__main__':
    main()
