"""How the benchmarks measure models: parameters, memory and speed, in alternating rounds.

Everything runs in one process, on random images, with 10 classes. Each round times every model once, so a machine that
slows down slows all models. A ratio of speeds is the median of the rounds' ratios. Each model runs in its faster memory
format, NCHW or channels_last, which two warm-up steps of each decide. A training step is a forward and a backward pass,
without the optimizer. Nothing is compiled. A model that runs out of memory or time is reported as such.

Memory is what the forward pass keeps for the backward pass, the largest part of what training takes: the bytes of every
storage that autograd saves. Parameters and buffers are left out; the bf16 copies of parameters that autocast makes are
not. No model recomputes activations unless a column says `set_grad_checkpointing`. GMACs are those of one image's
forward pass, half of what torch's FlopCounterMode counts: matrix products and convolutions, without the Fourier
transforms of the FNets.
"""
import math
import re
import statistics
import sys
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .published import INFERENCE, PAPER, TRAIN

METHOD = __doc__.split('\n\n', 1)[1].strip()  # for the reports
BUDGET = 16 * 2 ** 30  # bytes, the memory of the paper's GPU
MIN_SECONDS = 0.2  # of a timing; a step that takes less is repeated
MODES = TRAIN, INFERENCE
FP32, BF16 = PRECISIONS = 'fp32', 'bf16'
CHECKPOINTED = 'set_grad_checkpointing'
MEMORY_FORMATS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}


class Case(NamedTuple):
    """A model at a batch size and an image size, and what is measured of it."""
    name: str
    model: nn.Module
    batch_size: int
    image_size: int
    precisions: Sequence[str] = PRECISIONS
    modes: Sequence[str] = MODES  # without TRAIN, the cost is not measured either

    def images(self) -> torch.Tensor:
        return torch.randn(self.batch_size, 3, self.image_size, self.image_size)


@dataclass
class Cost:
    """What a model needs, whatever the speed of the machine."""
    model: str
    batch_size: int
    image_size: int
    params: int = 0
    flops: int = 0  # of a forward pass of one image, a third of those of a training step
    saved_bytes: Dict[str, int] = field(default_factory=dict)  # for a batch: in fp32, in bf16, and fp32 checkpointed
    peak_bytes: Dict[str, int] = field(default_factory=dict)  # of a GPU, by mode, in mixed precision
    largest_batch: Dict[str, int] = field(default_factory=dict)  # by mode: on a GPU in mixed precision, else in fp32
    error: str = ''


@dataclass
class Speed:
    """How long one step of a model takes, in every round."""
    model: str
    batch_size: int
    image_size: int
    mode: str
    precision: str
    memory_format: str = ''
    repeats: int = 1  # of a step in a timing, whose mean counts
    seconds: List[float] = field(default_factory=list)
    error: str = ''

    @property
    def images_per_second(self) -> Optional[float]:
        return None if self.error else self.batch_size / statistics.median(self.seconds)

    def ratio(self, other: Optional['Speed']) -> Optional[float]:
        """How many times as fast as the other on the same batch, round by round. None if one was not measured."""
        if other is None or self.error or other.error:
            return None
        return statistics.median(theirs / ours for ours, theirs in zip(self.seconds, other.seconds))


def error_kind(record: Union[Cost, Speed]) -> str:
    """What a table shows in place of a figure: 'out of memory', or '' if there is a figure."""
    return record.error.partition(':')[0]


@dataclass
class Results:
    """Measurements that belong together: taken in the same rounds."""
    costs: List[Cost]
    speeds: List[Speed]

    def cost(self, model: str) -> Optional[Cost]:
        return next((cost for cost in self.costs if cost.model == model), None)

    def speed(
            self, model: str, mode: str, precision: str = FP32, batch_size: Optional[int] = None) -> Optional[Speed]:
        """The speed of a model, at the batch size of the first cost if no other is given."""
        wanted = model, mode, precision, batch_size or self.costs[0].batch_size
        return next(
            (s for s in self.speeds if (s.model, s.mode, s.precision, s.batch_size) == wanted), None)

    @property
    def failed(self) -> List[Union[Cost, Speed]]:
        return [record for record in (*self.costs, *self.speeds) if record.error]

    @property
    def models(self) -> List[str]:
        """The models of the paper's tables that were measured, without peers."""
        return [cost.model for cost in self.costs if cost.model in PAPER]


def saved_bytes(model: nn.Module, x: torch.Tensor, precision: str = FP32) -> int:
    """Bytes that a forward pass in training mode keeps for the backward pass, parameters and buffers left out."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # holds it, so that no other storage gets its address
        return tensor.detach()  # itself, it would hold the graph that holds it, and neither would ever be freed

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(x.device, precision):
        model(x)
    for tensor in chain(model.parameters(), model.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in kept.values())


def tensors(tree: Any) -> List[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are made within it: `peak` is the most that lived at one time."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for tensor in tensors(result):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:  # a view, or an operation in place, makes none
                self.live += storage.nbytes()
                weakref.finalize(storage, self.release, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def release(self, count: int) -> None:
        self.live -= count


def inference_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """The most bytes that the tensors of a forward pass in inference take at one time, parameters and x left out."""
    model.eval()
    with torch.inference_mode(), PeakBytes() as counter:
        model(x)
    return counter.peak


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == BF16)


def step(model: nn.Module, x: torch.Tensor, mode: str, precision: str = FP32) -> None:
    with autocast(x.device, precision), torch.inference_mode(mode == INFERENCE):
        out = model(x)
    if mode == TRAIN:
        out.backward(torch.ones_like(out))
        model.zero_grad()


@contextmanager
def record_error(record: Union[Cost, Speed]) -> Iterator[None]:
    """Let the benchmark go on without a model that runs out of memory or time, or fails."""
    try:
        yield
    except (RuntimeError, MemoryError, TimeoutError) as error:
        message = str(error).partition('\n')[0]
        if isinstance(error, TimeoutError):
            reason = 'out of time'
        elif isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", message):
            reason = 'out of memory'
        else:
            reason = 'failed'
        record.error = f'{reason}: {message}'
        tqdm.write(f'{record.model} {record.error}', file=sys.stderr)


def largest_batch(fixed: float, per_image: float) -> int:
    """The largest batch within the budget, of 16, 32, 48, ... images as in the paper's tables, or 0."""
    return max(0, int((BUDGET - fixed) / per_image // 16 * 16))


def peak_bytes(case: Case, mode: str, device: torch.device, batch_size: int) -> int:
    """The most memory of a GPU that a step takes in mixed precision, with weights, and Adam's moments in training."""
    model = case.model.train(mode == TRAIN)
    x = case._replace(batch_size=batch_size).images().to(device)
    step(model, x, mode, BF16)  # cuDNN tries its algorithms, and their memory, in the first one
    weights = sum(t.nbytes for t in chain(model.parameters(), model.buffers()))
    others = torch.cuda.memory_allocated(device) - weights - x.nbytes  # models that are measured after this one
    moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2 * (mode == TRAIN))]  # noqa: F841
    torch.cuda.reset_peak_memory_stats(device)
    step(model, x, mode, BF16)
    return torch.cuda.max_memory_allocated(device) - others


def measure_cost(case: Case, cost: Cost, device: torch.device) -> None:
    """Fill in the cost."""
    model = case.model
    cost.params = sum(p.numel() for p in model.parameters())
    x = case.images().to(device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x[:1])
    cost.flops = counter.get_total_flops()

    for precision in case.precisions:
        cost.saved_bytes[precision] = saved_bytes(model, x, precision)
    if hasattr(model, 'set_grad_checkpointing'):
        model.set_grad_checkpointing()
        try:
            cost.saved_bytes[CHECKPOINTED] = saved_bytes(model, x)
        finally:  # speed is measured without it
            model.set_grad_checkpointing(False)

    if device.type == 'cuda' and BF16 in case.precisions:
        n = cost.batch_size
        for mode in MODES:
            cost.peak_bytes[mode] = peak_bytes(case, mode, device, n)
            per_image = (peak_bytes(case, mode, device, 2 * n) - cost.peak_bytes[mode]) / n
            cost.largest_batch[mode] = largest_batch(cost.peak_bytes[mode] - n * per_image, per_image)
    elif device.type != 'cuda':
        weights = 4 * cost.params
        cost.largest_batch = {  # training has gradients and the two moments of Adam
            TRAIN: largest_batch(4 * weights, cost.saved_bytes[FP32] / cost.batch_size),
            INFERENCE: largest_batch(weights, inference_bytes(model, x) / cost.batch_size)}


def step_seconds(case: Case, speed: Speed, device: torch.device) -> float:
    """Time of one step, in the speed's memory format, the mean of its repeats."""
    layout = MEMORY_FORMATS[speed.memory_format]
    model = case.model.train(speed.mode == TRAIN).to(memory_format=layout)
    x = case.images().to(device, memory_format=layout)
    wait = torch.get_device_module(device).synchronize
    wait()
    start = time.perf_counter()
    for _ in range(speed.repeats):
        step(model, x, speed.mode, speed.precision)
    wait()
    return (time.perf_counter() - start) / speed.repeats


def warm_up(case: Case, speed: Speed, device: torch.device, step_limit: float) -> None:
    """Choose the speed's memory format and its repeats.

    Raises:
        TimeoutError: Not one step takes less than the limit.
    """
    seconds = {}
    for speed.memory_format in MEMORY_FORMATS:
        first = step_seconds(case, speed, device)
        # the first step of all may be slow, a second one tells more, unless it would only take time
        seconds[speed.memory_format] = first if first > step_limit else min(first, step_seconds(case, speed, device))
    if min(seconds.values()) > step_limit:
        raise TimeoutError(f'a step takes {min(seconds.values()):.0f} s, more than {step_limit:g} s')
    speed.memory_format = min(seconds, key=seconds.get)
    speed.repeats = math.ceil(MIN_SECONDS / seconds[speed.memory_format])


def measure(
        cases: Sequence[Case],
        rounds: int,
        device: torch.device,
        title: str,
        step_limit: float = math.inf,
) -> Results:
    """Measure models, with at most so many seconds a step."""
    costs = [
        (case, Cost(case.name, case.batch_size, case.image_size)) for case in cases if TRAIN in case.modes]
    speeds = {
        mode: [
            (case, Speed(case.name, case.batch_size, case.image_size, mode, precision))
            for case in cases if mode in case.modes for precision in case.precisions]
        for mode in MODES}
    with tqdm(desc=title, total=len(costs) + (1 + rounds) * sum(map(len, speeds.values())), unit=' steps') as progress:
        for case, cost in costs:
            with record_error(cost):
                measure_cost(case, cost, device)
            progress.update()
        for mode in MODES:
            for case, speed in speeds[mode]:
                with record_error(speed):
                    warm_up(case, speed, device, step_limit)
                progress.update()
            for _ in range(rounds):
                for case, speed in speeds[mode]:
                    if not speed.error:
                        with record_error(speed):
                            speed.seconds.append(step_seconds(case, speed, device))
                    progress.update()
    return Results([cost for _, cost in costs], [speed for mode in MODES for _, speed in speeds[mode]])
