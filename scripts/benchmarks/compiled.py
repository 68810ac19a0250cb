"""Measure torch.compile on WaveMix models: how long its first calls take, and how much faster later ones are.

A model is compiled whole, and block by block.
"""
import argparse
import copy
import os
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional

import timm
import torch
from torch import nn
from tqdm import tqdm

import timm_wavemix  # noqa: F401  registers the models
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.step import INFERENCE, MODES, TRAIN
from scripts.benchmarks.common.timing import alternate, seconds_of, times_as_fast

NAME = 'compiled'
METHOD = """\
Each row has a process of its own, with an empty cache. Models have 10 classes and the image size of their
pretrained_cfg. A batch has about as many pixels as 64 images of 32x32. "whole" is `torch.compile(model)`, "blocks" is
`block.compile()` for each block: they share their code, and stem and head stay eager. fullgraph=True allows no graph
break. The batch size is dynamic; another batch size that follows must not compile anything again. Eager and compiled
calls alternate, in channels_last. A ratio of images per second to eager is the median of the rounds' ratios. A training
step is a forward and a backward pass."""
PIXELS = 64 * 32 * 32  # of a batch
WHOLE, BLOCKS = PARTS = 'whole', 'blocks'


@dataclass
class Mode:
    """What compiling does in inference or training."""
    first_call: float  # seconds
    times_as_fast: float  # as eager


@dataclass
class Compiled:
    """What was measured of a model."""
    model: str
    part: str  # that is compiled, of `PARTS`
    image_size: int
    batch_size: int
    inference: Mode
    train: Mode


@dataclass
class Report(report.Measured):
    results: List[Compiled]

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        return cls(**{**values, 'results': [
            Compiled(**{**result, **{mode: Mode(**result[mode]) for mode in MODES}}) for result in values['results']]})


def compile_parts(model: nn.Module, part: str, backend: str) -> nn.Module:
    """A copy, compiled whole or block by block."""
    compiled = copy.deepcopy(model)
    if part == WHOLE:
        compiled.compile(fullgraph=True, backend=backend)
        return compiled
    # the stem is eager: its maps do not inherit the dynamic dimension of its images
    compiled.stem.register_forward_hook(lambda stem, args, maps: torch._dynamo.mark_dynamic(maps, 0))
    for block in compiled.blocks:
        block.compile(fullgraph=True, backend=backend)
    return compiled


def measure(name: str, part: str, device: torch.device, rounds: int, backend: str = 'inductor') -> Compiled:
    """Compile one model, for inference and for training.

    Raises:
        torch._dynamo.exc.TorchDynamoException: The model breaks the graph, or another batch size compiles it again.
    """
    channels, height, width = timm.get_pretrained_cfg(name).input_size
    batch = max(2, PIXELS // (height * width))
    model = timm.create_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
    compiled = compile_parts(model, part, backend)

    def images(size: int) -> torch.Tensor:
        x = torch.randn(size, channels, height, width, device=device).contiguous(memory_format=torch.channels_last)
        torch._dynamo.mark_dynamic(x, 0)
        return x

    def call(network: nn.Module, x: torch.Tensor) -> None:
        with torch.set_grad_enabled(network.training):
            y = network(x)
        if network.training:
            y.sum().backward()
            network.zero_grad()

    modes = {}
    x = images(batch)
    with TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache
        for mode in INFERENCE, TRAIN:
            model.train(mode == TRAIN)
            compiled.train(mode == TRAIN)
            first_call = seconds_of(partial(call, compiled, x), device)
            with torch.compiler.set_stance('fail_on_recompile'):
                call(compiled, images(batch + 1))
                timers = {
                    network: partial(seconds_of, partial(call, network, x), device) for network in (model, compiled)}
                seconds, errors = alternate(timers, rounds, f'{name}, {part}, {mode}', warm_up=1)
                for error in errors.values():
                    raise error
            modes[mode] = Mode(first_call, times_as_fast(seconds[compiled], seconds[model]))
    return Compiled(name, part, height, batch, **modes)


COLUMNS = [
    ('model', lambda result: f'`{result.model}`'),
    ('compiled', lambda result: result.part),
    ('batch', lambda result: f'{result.batch_size} of {result.image_size}x{result.image_size}'),
    ('inference: first call (s)', lambda result: f'{result.inference.first_call:.0f}'),
    ('times as fast as eager', lambda result: f'{result.inference.times_as_fast:.2f}'),
    ('training: first step (s)', lambda result: f'{result.train.first_call:.0f}'),
    ('times as fast as eager', lambda result: f'{result.train.times_as_fast:.2f}'),
]


def markdown(results: Report, stem: Path) -> str:
    return report.pages([
        report.head('Compiled models', NAME, stem, results.command, results.machine, results.software),
        report.table(COLUMNS, results.results),
        f'## Method\n\n{METHOD}',
    ])


def measure_models(args: argparse.Namespace) -> Report:
    results = []
    for name, part in tqdm([*product(args.models, PARTS)], unit=' rows'):
        with get_context('spawn').Pool(1) as pool:  # nothing compiled before helps
            results.append(pool.apply(measure, (name, part, args.device, args.rounds)))
    return Report(command.command_line(NAME), report.hardware_name(args.device), report.SOFTWARE, results)


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    models = timm.list_models(module='wavemix')
    parser.add_argument(
        '--models',
        nargs='+',
        choices=models,
        default=models,
        metavar='NAME',
        help=f'models to measure (default: all of {", ".join(models)})',
    )
    command.add_rounds_argument(parser)
    command.add_device_argument(parser)
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure_models, markdown, None), argv)


if __name__ == '__main__':
    main()
