"""Measure torch.compile on every registered model: how long its first calls take, and what they bring.

Each model runs in a process of its own with an empty cache, with 10 classes and, on the batch that has about as many
pixels as 64 images of 32x32, at the image size of its pretrained_cfg. It is compiled with fullgraph=True, which allows
no graph break, and with a batch size marked as dynamic; then another batch size comes, which may not compile anything
again. Eager and compiled calls alternate, in channels_last, and a ratio to eager, of images per second, is the median
of the rounds' ratios. A training step is the forward and the backward pass.
"""
import argparse
import os
import shlex
import statistics
import sys
import time
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Dict, List, Tuple

import timm
import torch
from torch import nn
from tqdm import tqdm

import timm_wavemix  # noqa: F401  registers the models
from benchmark_paper import machine_name, working_device, writable

PIXELS = 64 * 32 * 32  # of a batch


def measure(name: str, device: torch.device, rounds: int) -> Dict[str, float]:
    """Compile one model, for inference and for training.

    Returns:
        Image side and batch size, and for both modes the seconds of the first call, and how many times as many images
        per second as eager it then gives.

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
        if device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    result = dict(side=height, batch=batch)
    x = images(batch)
    with TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache
        for mode in ('inference', 'training'):
            model.train(mode == 'training')
            result[f'{mode}, first call'] = seconds(compiled, x)
            with torch.compiler.set_stance('fail_on_recompile'):
                seconds(compiled, images(batch + 1))
                seconds(model, x)
                ratios = [seconds(model, x) / seconds(compiled, x) for _ in range(rounds)]
            result[f'{mode}, ÷ eager'] = statistics.median(ratios)
    return result


def table(results: List[Tuple[str, Dict[str, float]]]) -> str:
    lines = [
        '| model | batch | inference: first call (s) | ÷ eager | training: first step (s) | ÷ eager |',
        '| --- | --- | --- | --- | --- | --- |']
    for name, r in results:
        lines.append(
            f"| `{name}` | {r['batch']} of {r['side']}x{r['side']} | {r['inference, first call']:.0f} | "
            f"{r['inference, ÷ eager']:.2f} | {r['training, first call']:.0f} | {r['training, ÷ eager']:.2f} |")
    return '\n'.join(lines)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=timm.list_models(module='wavemix'), metavar='MODEL')
    parser.add_argument('--device', type=working_device, default='cpu', help='torch device (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=5, help='of eager and compiled calls (default: 5)')
    parser.add_argument('--output', metavar='MD', type=writable, help='document to write')
    args = parser.parse_args()

    results = []
    for name in tqdm(args.models, unit='model'):
        with get_context('spawn').Pool(1) as pool:  # nothing compiled before helps
            results.append((name, pool.apply(measure, (name, args.device, args.rounds))))
    print(table(results))
    if args.output:
        command = shlex.join(['python', 'scripts/benchmark_compile.py', *sys.argv[1:]])
        what = __doc__.split('\n\n', 1)[1].strip()
        args.output.write_text(
            f'# Compiled models\n\nMeasured on {machine_name(args.device)}, with torch {torch.__version__}, by\n\n'
            f'```sh\n{command}\n```\n\n{what}\n\n{table(results)}\n', encoding='utf-8')
