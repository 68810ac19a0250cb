"""Measure how the cost per pixel grows with image size and batch size, for WaveMix beside a ViT."""
import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import timm
import torch
from torch import nn

import timm_wavemix  # noqa: F401  registers the models
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.measure import MEMORY, TIMING, Case, measure
from scripts.benchmarks.common.step import FP32, INFERENCE, TRAIN

NAME = 'growth'
MODELS = 'wavemix_16_5', 'wavemix_lite_128_7', 'vit_tiny_patch4'
SIZES = 64, 128, 256  # sides of images, in batches with the pixels of one batch of 32x32
BATCHES = 1, 4, 16, 256  # of 32x32 images


@dataclass
class Pixel:
    """What a pixel costs in a batch, in fp32. None where a model failed."""
    model: str
    batch_size: int
    image_size: int
    bytes: Optional[float] = None  # kept for the backward pass
    train_ns: Optional[float] = None
    inference_ns: Optional[float] = None
    error: str = ''


@dataclass
class Report(report.Measured):
    rounds: int
    pixels: List[Pixel]

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        return cls(**{**values, 'pixels': [Pixel(**pixel) for pixel in values['pixels']]})


QUANTITIES = {
    'memory, bytes per pixel': lambda pixel: pixel.bytes,
    'train, ns per pixel': lambda pixel: pixel.train_ns,
    'inference, ns per pixel': lambda pixel: pixel.inference_ns,
}


def create(name: str, image_size: int) -> nn.Module:
    """One of `MODELS`."""
    if name == 'vit_tiny_patch4':
        return timm.create_model('vit_tiny_patch16_224', patch_size=4, img_size=image_size, num_classes=10)
    return timm.create_model(name, num_classes=10)


def list_cases(batch_size: int, device: torch.device) -> List[Case]:
    """Models at other image sizes, with the pixels of the batch of 32x32 images, and at other batch sizes."""
    cases = []
    for image_size in (32, *SIZES):
        batch_sizes = [max(1, batch_size * 32 ** 2 // image_size ** 2)]
        if image_size == 32:
            batch_sizes += [n for n in BATCHES if n != batch_size]
        for name in MODELS:
            model = create(name, image_size).to(device)
            cases += [Case(name, model, n, image_size, precisions=[FP32]) for n in batch_sizes]
    return cases


def measure_pixels(args: argparse.Namespace) -> Report:
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    command.limit_memory(args.device)
    results = measure(list_cases(args.batch_size, args.device), args.rounds, args.device, NAME)
    speeds = {(s.model, s.batch_size, s.image_size, s.mode): s for s in results.speeds}
    pixels = []
    for cost in results.costs:
        key = cost.model, cost.batch_size, cost.image_size
        area = cost.image_size ** 2
        records = [speeds[(*key, mode)] for mode in (TRAIN, INFERENCE)]
        pixels.append(Pixel(
            *key,
            report.ratio(cost.saved_bytes.get(FP32), cost.batch_size * area),
            *(report.ratio(1e9 / area, speed.images_per_second) for speed in records),
            error='; '.join(filter(None, [cost.error, *(speed.error for speed in records)]))))
    return Report(
        command.command_line(NAME), report.hardware_name(args.device), report.SOFTWARE, args.rounds, pixels)


def tables(pixels: List[Pixel]) -> Iterator[str]:
    """What a pixel takes, and its ratio to the first line."""
    batches = list(dict.fromkeys((pixel.batch_size, pixel.image_size) for pixel in pixels))
    for title, quantity in QUANTITIES.items():
        values = {(p.model, p.batch_size, p.image_size): quantity(p) for p in pixels}

        def cell(batch: Tuple[int, int], model: str) -> str:
            value = values[(model, *batch)]  # noqa: B023  used before the next quantity
            first = values[(model, *batches[0])]  # noqa: B023
            return f'{report.three_digits(value)} ({report.three_digits(report.ratio(value, first))})'

        columns = [(title, lambda batch: f'{batch[0]} of {batch[1]}x{batch[1]}')]
        columns += [(f'`{model}`', lambda batch, model=model: cell(batch, model)) for model in MODELS]
        yield report.table(columns, batches)


def markdown(results: Report, stem: Path) -> str:
    return report.pages([
        report.head(
            'Cost per pixel against image size and batch size', NAME, stem, results.command, results.machine,
            results.software),
        'Batches of larger images hold a constant number of pixels, and at least one image. All is in fp32. In '
        'brackets: the ratio to the first line.',
        *tables(results.pixels),
        *(f'{pixel.model}: {pixel.error}' for pixel in results.pixels if pixel.error),
        '## Method', TIMING.format(rounds=results.rounds), MEMORY,
    ])


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--batch-size', type=command.positive_int, default=64, help='32x32 images in a batch (default: %(default)s)')
    command.add_rounds_argument(parser)
    command.add_device_argument(parser)
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure_pixels, markdown, None), argv)


if __name__ == '__main__':
    main()
