"""Measure how the cost per pixel grows with image size and batch size, for WaveMix beside a ViT.

Batches of larger images hold a constant number of pixels, and at least one image.
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

import timm_wavemix  # noqa: F401  registers the models
from lib.measure import FP32, METHOD, MODES, Case, Cost, Results, Speed, measure
from lib.report import (
    add_device_argument,
    docstring_body,
    hardware_name,
    limit_memory,
    markdown_table,
    output_file,
    positive_int,
    ratio,
    report_header,
    three_digits,
)

MODELS = 'wavemix_16_5', 'wavemix_lite_128_7', 'vit_tiny_patch4'
SIZES = 64, 128, 256  # images of this side, as many as have the pixels of one batch of 32x32
BATCHES = 1, 4, 16, 256  # of 32x32 images


def create(name: str, image_size: int) -> nn.Module:
    """One of `MODELS`."""
    if name == 'vit_tiny_patch4':
        return timm.create_model('vit_tiny_patch16_224', patch_size=4, img_size=image_size, num_classes=10)
    return timm.create_model(name, num_classes=10)


def list_cases(batch_size: int, device: torch.device) -> List[Case]:
    """Models at other image sizes with as many pixels as the batch of 32x32 images has, and at other batch sizes."""
    cases = []
    for image_size in (32, *SIZES):
        batch_sizes = [max(1, batch_size * 32 ** 2 // image_size ** 2)]
        if image_size == 32:
            batch_sizes += [n for n in BATCHES if n != batch_size]
        for name in MODELS:
            model = create(name, image_size).to(device)
            cases += [Case(name, model, n, image_size, precisions=[FP32]) for n in batch_sizes]
    return cases


def tables(growth: Results) -> Iterator[str]:
    """What a pixel takes, and how many times that of the first line it is."""
    def per_pixel(record: Union[Cost, Speed], total: Optional[float]) -> Tuple[Tuple[str, int, int], Optional[float]]:
        n, side = record.batch_size, record.image_size
        return (record.model, n, side), ratio(total, n * side ** 2)

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
                row.append(f'{three_digits(value)} ({three_digits(ratio(value, first))})')
            rows.append(row)
        yield markdown_table([quantity, *(f'`{model}`' for model in MODELS)], rows)


def markdown(machine: str, rounds: int, growth: Results) -> str:
    return '\n\n'.join([
        report_header('How cost grows with images and batches', machine),
        docstring_body(__doc__),
        f'{METHOD} There are {rounds} rounds.',
        'In fp32. In brackets: the ratio to the first line.',
        *tables(growth),
        *(f'{record.model}: {record.error}' for record in growth.failed),
    ]) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=METHOD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=64, help='32x32 images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=positive_int, default=5, help='alternating rounds (default: %(default)s)')
    add_device_argument(parser)
    parser.add_argument('--json', metavar='JSON', type=output_file, help='write every single measurement to this file')
    parser.add_argument(
        '--output', metavar='MD', type=output_file, default='growth.md', help='tables (default: %(default)s)')
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    if args.device.type == 'cpu':
        limit_memory()
    growth = measure(list_cases(args.batch_size, args.device), args.rounds, args.device, 'growth')
    try:
        if args.json:
            args.json.write_text(json.dumps(asdict(growth), indent=1), encoding='utf-8')
        args.output.write_text(markdown(hardware_name(args.device), args.rounds, growth), encoding='utf-8')
    except OSError as error:
        sys.exit(f'{parser.prog}: {error.filename} cannot be written ({error.strerror}): name another file.')
    print(args.output)


if __name__ == '__main__':
    main()
