"""A process that has one runtime and one model in its memory: common/process.py starts it.

It answers every line of JSON that it reads, an order, with one line: what it has measured.
"""
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from scripts.benchmarks.common.runtimes import LOADERS, Run

PYTORCH = {  # these have no file but the weights
    'eager': 'PyTorch, eager',
    'deployed': 'PyTorch, `reparameterize_model`',
    'compiled': 'PyTorch, `reparameterize_model` and `torch.compile`',
}


def load_pytorch(kind: str, model: str, weights: Path, threads: int) -> Run:
    """A model of timm of 10 classes, in the memory format that is fastest for WaveMix on CPUs."""
    import timm
    import torch

    import timm_wavemix  # noqa: F401  registers the models
    torch.set_num_threads(threads)
    network = timm.create_model(model, num_classes=10, checkpoint_path=weights).eval()
    if kind != 'eager':
        network = timm.utils.reparameterize_model(network)
    network = network.to(memory_format=torch.channels_last)
    if kind == 'compiled':
        network = torch.compile(network, dynamic=True)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

    return run


def peak_memory() -> Optional[int]:
    """The most bytes of memory that this process has had, None where the system does not say."""
    try:
        status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    except OSError:
        return None
    return 1024 * int(status['VmHWM'].split()[0])


def answer(run: Run, order: Dict[str, Any]) -> Any:
    if order['do'] == 'time':  # seconds of each of the calls
        images = np.random.default_rng(0).standard_normal(order['shape'], dtype=np.float32)
        run(images)  # after the turns of other processes
        seconds = []
        for _ in range(order['calls']):
            start = time.perf_counter()
            run(images)
            seconds.append(time.perf_counter() - start)
        return seconds
    if order['do'] == 'classify':  # the class of each image of a file, or of each `step`-th one
        images = np.load(order['images'], mmap_mode='r')[::order['step']]
        logits = [run(np.ascontiguousarray(images[i:i + 64])) for i in range(0, len(images), 64)]
        return np.concatenate(logits).argmax(axis=1).tolist()
    return peak_memory()


def main(runtime: str, model: str, file: str, threads: str) -> None:
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a runtime prints
        if runtime in PYTORCH:
            run = load_pytorch(runtime, model, Path(file), int(threads))
        else:
            run = LOADERS[runtime](Path(file), int(threads))
        for line in sys.stdin:
            print(json.dumps(answer(run, json.loads(line))), file=answers, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
