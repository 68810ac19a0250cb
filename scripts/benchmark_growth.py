"""Measure how the cost of a pixel grows with the size of the images and of the batch, for WaveMix beside a ViT.

A batch of larger images has as many pixels as one of 32x32 images, if these are not fewer than one image has.
"""
import argparse
import json
import statistics
import sys
from dataclasses import asdict
from typing import Iterator, List, Optional, Tuple, Union

import timm
import torch
import torch.nn as nn

import measurements
import timm_wavemix  # noqa: F401  registers the models
from measurements import FP32, MODES, Contender, Cost, Results, Speed, measure
from reports import (
    SOFTWARE,
    add_device,
    command,
    details,
    digits,
    limit_memory,
    machine_name,
    positive,
    quotient,
    table,
    writable,
)

MODELS = 'wavemix_16_5', 'wavemix_lite_128_7', 'vit_tiny_patch4'
SIZES = 64, 128, 256  # images of this side, as many as have the pixels of one batch of 32x32
BATCHES = 1, 4, 16, 256  # of 32x32 images


def create(name: str, image_size: int) -> nn.Module:
    """One of `MODELS`."""
    if name == 'vit_tiny_patch4':
        return timm.create_model('vit_tiny_patch16_224', patch_size=4, img_size=image_size, num_classes=10)
    return timm.create_model(name, num_classes=10)


def list_points(batch_size: int, device: torch.device) -> List[Tuple[Contender, int, int]]:
    """Models at other image sizes with as many pixels as the batch of 32x32 images has, and at other batch sizes."""
    points = []
    for image_size in (32, *SIZES):
        batch_sizes = [max(1, batch_size * 32 ** 2 // image_size ** 2)]
        if image_size == 32:
            batch_sizes += [n for n in BATCHES if n != batch_size]
        for name in MODELS:
            contender = Contender(name, create(name, image_size).to(device), precisions=[FP32])
            points += [(contender, n, image_size) for n in batch_sizes]
    return points


def tables(growth: Results) -> Iterator[str]:
    """What a pixel takes, and how many times that of the first line it is."""
    def per_pixel(record: Union[Cost, Speed], total: Optional[float]) -> Tuple[Tuple[str, int, int], Optional[float]]:
        n, side = record.batch_size, record.image_size
        return (record.model, n, side), quotient(total, n * side ** 2)

    quantities = {'memory, bytes per pixel': dict(per_pixel(cost, cost.saved_bytes.get(FP32)) for cost in growth.costs)}
    for mode in MODES:
        quantities[f'{mode}, ns per pixel'] = dict(
            per_pixel(speed, None if speed.error else 1e9 * statistics.median(speed.seconds))
            for speed in growth.speeds if speed.mode == mode)

    batches = list(dict.fromkeys((cost.batch_size, cost.image_size) for cost in growth.costs))
    for quantity, values in quantities.items():
        rows = []
        for n, side in batches:
            row = [f'{n} of {side}x{side}']
            for model in MODELS:
                value, first = values[model, n, side], values[(model, *batches[0])]
                row.append(f'{digits(value)} ({digits(quotient(value, first))})')
            rows.append(row)
        yield table([quantity, *(f'`{model}`' for model in MODELS)], rows)


def markdown(machine: str, rounds: int, growth: Results) -> str:
    return '\n\n'.join([
        '# How cost grows',
        f'Measured in {rounds} rounds on {machine}, with {SOFTWARE}, by',
        f'```sh\n{command()}\n```',
        details(__doc__),
        details(measurements.__doc__),
        'In fp32. In brackets: how many times the first line.',
        *tables(growth),
        *(f'{record.model}: {record.error}' for record in growth.failed),
    ]) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=details(measurements.__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--batch-size', type=positive, default=64, help='32x32 images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=positive, default=5, help='alternating rounds (default: %(default)s)')
    add_device(parser)
    parser.add_argument('--json', metavar='JSON', type=writable, help='write every single measurement to this file')
    parser.add_argument(
        '--output', metavar='MD', type=writable, default='growth.md', help='tables (default: %(default)s)')
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    if args.device.type == 'cpu':
        limit_memory()
    growth = measure(list_points(args.batch_size, args.device), args.rounds, args.device, 'growth')
    try:
        if args.json:
            args.json.write_text(json.dumps(asdict(growth), indent=1), encoding='utf-8')
        args.output.write_text(markdown(machine_name(args.device), args.rounds, growth), encoding='utf-8')
    except OSError as error:
        sys.exit(f'{parser.prog}: {error.filename} cannot be written ({error.strerror}): name another file.')
    print(args.output)


if __name__ == '__main__':
    main()
