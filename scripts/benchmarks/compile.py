"""Measure torch.compile on every registered model: how long its first calls take, and what they bring.

Each model runs in a process of its own, with an empty cache, 10 classes and the image size of its pretrained_cfg. A
batch has about as many pixels as 64 images of 32x32. The model is compiled with fullgraph=True, which allows no graph
break, and with a dynamic batch size; another batch size that follows may not compile anything again. Eager and compiled
calls alternate, in channels_last. A ratio of images per second to eager is the median of the rounds' ratios. A training
step is a forward and a backward pass.
"""
import argparse
import os
import statistics
import time
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import List, NamedTuple

import timm
import torch
from torch import nn
from tqdm import tqdm

import timm_wavemix  # noqa: F401  registers the models
from lib.report import (
    add_device_argument,
    docstring_body,
    hardware_name,
    markdown_table,
    output_file,
    positive_int,
    report_header,
)

PIXELS = 64 * 32 * 32  # of a batch


class Mode(NamedTuple):
    """What compiling does in inference or training."""
    first_call: float  # seconds
    ratio: float  # of its images per second to those of eager


class Compiled(NamedTuple):
    """What was measured of a model."""
    name: str
    image_size: int
    batch_size: int
    inference: Mode
    training: Mode


def measure(name: str, device: torch.device, rounds: int) -> Compiled:
    """Compile one model, for inference and for training.

    Raises:
        torch._dynamo.exc.TorchDynamoException: The model breaks the graph, or another batch size compiles it again.
    """
    channels, height, width = timm.get_pretrained_cfg(name).input_size
    batch = max(2, PIXELS // (height * width))
    model = timm.create_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
    compiled = torch.compile(model, fullgraph=True)

    def images(size: int) -> torch.Tensor:
        x = torch.randn(size, channels, height, width, device=device).contiguous(memory_format=torch.channels_last)
        torch._dynamo.mark_dynamic(x, 0)
        return x

    def seconds(network: nn.Module, x: torch.Tensor) -> float:
        start = time.perf_counter()
        with torch.set_grad_enabled(model.training):
            y = network(x)
        if model.training:
            y.sum().backward()
            model.zero_grad()
        torch.get_device_module(device).synchronize()
        return time.perf_counter() - start

    modes = {}
    x = images(batch)
    with TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache
        for mode in ('inference', 'training'):
            model.train(mode == 'training')
            first_call = seconds(compiled, x)
            with torch.compiler.set_stance('fail_on_recompile'):
                seconds(compiled, images(batch + 1))
                seconds(model, x)
                ratios = [seconds(model, x) / seconds(compiled, x) for _ in range(rounds)]
            modes[mode] = Mode(first_call, statistics.median(ratios))
    return Compiled(name, height, batch, **modes)


def markdown(results: List[Compiled]) -> str:
    return markdown_table(
        ['model', 'batch', 'inference: first call (s)', '÷ eager', 'training: first step (s)', '÷ eager'],
        [
            [
                f'`{result.name}`',
                f'{result.batch_size} of {result.image_size}x{result.image_size}',
                *(text for mode in (result.inference, result.training)
                  for text in (f'{mode.first_call:.0f}', f'{mode.ratio:.2f}')),
            ]
            for result in results])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = timm.list_models(module='wavemix')
    parser.add_argument(
        '--models',
        nargs='+',
        choices=models,
        default=models,
        metavar='NAME',
        help=f'models to measure (default: all of {", ".join(models)})',
    )
    add_device_argument(parser)
    parser.add_argument(
        '--rounds', type=positive_int, default=5, help='of eager and compiled calls (default: %(default)s)')
    parser.add_argument('--output', metavar='MD', type=output_file, help='document to write')
    args = parser.parse_args()

    results = []
    for name in tqdm(args.models, unit=' models'):
        with get_context('spawn').Pool(1) as pool:  # nothing compiled before helps
            results.append(pool.apply(measure, (name, args.device, args.rounds)))
    print(markdown(results))
    if args.output:
        header = report_header('Compiled models', hardware_name(args.device))
        args.output.write_text(
            f'{header}\n\n{docstring_body(__doc__)}\n\n{markdown(results)}\n', encoding='utf-8')


if __name__ == '__main__':
    main()
