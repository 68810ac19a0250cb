"""How the benchmarks measure models: parameters, memory and speed, in rounds that alternate.

Everything runs in one process, on random images with 10 classes. Each round times every model once, one after the
other, so that a machine that slows down slows all of them. A ratio is the median of the rounds' ratios. A model runs in
the memory format that is faster for it, NCHW or channels_last, as two warm-up runs of each tell. A training step is the
forward and the backward pass, without the optimizer. Nothing is compiled. A model that does not fit in memory, or whose
step takes too long, is reported as such.

Memory is what the forward pass keeps for the backward pass, which is most of what training takes: the bytes of every
storage that autograd saves, parameters and buffers left out, but not the copies of parameters that autocast makes in
bf16. No model computes part of its forward pass again unless set_grad_checkpointing asks. GMACs are those of a forward
pass of one image, half of what torch's FlopCounterMode counts: matrix products and convolutions, not the Fourier transforms of the FNets.
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
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from paper import INFERENCE, PAPER, TRAIN

BUDGET = 16 * 2 ** 30  # bytes, the memory of the paper's GPU
MIN_SECONDS = 0.2  # of a timing; a step that takes less is repeated
MODES = TRAIN, INFERENCE
FP32, BF16 = PRECISIONS = 'fp32', 'bf16'
CHECKPOINTED = 'checkpointed'
MEMORY_FORMATS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}


def images(batch_size: int, image_size: int) -> torch.Tensor:
    return torch.randn(batch_size, 3, image_size, image_size)


class Contender(NamedTuple):
    """A model in the benchmark, and on what terms it runs."""
    name: str
    model: nn.Module
    make_input: Callable[[int, int], torch.Tensor] = images  # batch size, image size -> batch
    precisions: Sequence[str] = PRECISIONS
    memory_formats: Sequence[str] = tuple(MEMORY_FORMATS)


@dataclass
class Cost:
    """What a model needs, whatever the speed of the machine."""
    model: str
    batch_size: int
    image_size: int
    params: int = 0
    flops: int = 0  # of a forward pass of one image, a third of those of a training step
    saved_bytes: Dict[str, int] = field(default_factory=dict)  # for a batch: in fp32, in bf16, and fp32 checkpointed
    largest_batch: Dict[str, int] = field(default_factory=dict)  # by mode, in fp32
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


def failure(record: Union[Cost, Speed]) -> str:
    """What to show of it in a table in place of a figure, if it failed."""
    return record.error.partition(':')[0]


@dataclass
class Results:
    """Measurements that belong together: taken in the same rounds."""
    costs: List[Cost]
    speeds: List[Speed]

    def cost(self, model: str) -> Optional[Cost]:
        return next((cost for cost in self.costs if cost.model == model), None)

    def speed(self, model: str, mode: str, precision: str = FP32) -> Optional[Speed]:
        wanted = model, mode, precision
        return next((speed for speed in self.speeds if (speed.model, speed.mode, speed.precision) == wanted), None)

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
        x.grad = None
        model.zero_grad()


@contextmanager
def failure_noted(record: Union[Cost, Speed]) -> Iterator[None]:
    """Lets the benchmark go on without a model that does not fit in memory or time, or does not work here."""
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


def largest_batch(fits: Callable[[int], bool]) -> int:
    """The largest batch that fits, of 16, 32, 48, ... images as in the paper's tables, or 0."""
    fitting, too_large = 0, 1
    while fits(16 * too_large):
        fitting, too_large = too_large, 2 * too_large
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        if fits(16 * middle):
            fitting = middle
        else:
            too_large = middle
    return 16 * fitting


def fits_on_gpu(contender: Contender, mode: str, batch_size: int, image_size: int, device: torch.device) -> bool:
    """Whether a step of the model runs within the budget on a GPU, beside the two moments of Adam in training."""
    model = contender.model.train(mode == TRAIN)
    memory = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    others = torch.cuda.memory_allocated(device) - sum(t.nbytes for t in chain(model.parameters(), model.buffers()))
    torch.cuda.set_per_process_memory_fraction(min(1., (BUDGET + others) / memory), device)
    try:
        x = contender.make_input(batch_size, image_size).to(device)
        moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2 * (mode == TRAIN))]  # noqa: F841
        step(model, x, mode)
    except RuntimeError:  # out of memory, or more than 32-bit indices can reach
        return False
    finally:
        model.zero_grad()
        torch.cuda.set_per_process_memory_fraction(1., device)
    return True


def measure_cost(contender: Contender, cost: Cost, device: torch.device) -> None:
    """Fill in the cost."""
    model = contender.model
    cost.params = sum(p.numel() for p in model.parameters())
    x = contender.make_input(cost.batch_size, cost.image_size).to(device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x[:1].detach())
    cost.flops = counter.get_total_flops()

    for precision in contender.precisions:
        cost.saved_bytes[precision] = saved_bytes(model, x, precision)
    if hasattr(model, 'set_grad_checkpointing'):
        model.set_grad_checkpointing()
        try:
            cost.saved_bytes[CHECKPOINTED] = saved_bytes(model, x)
        finally:  # speed is measured without it
            model.set_grad_checkpointing(False)

    if device.type == 'cuda':
        for mode in MODES:
            cost.largest_batch[mode] = largest_batch(lambda n: fits_on_gpu(contender, mode, n, cost.image_size, device))
    else:
        weights = 4 * cost.params
        per_image = {TRAIN: cost.saved_bytes[FP32], INFERENCE: inference_bytes(model, x)}
        fixed = {TRAIN: 4 * weights, INFERENCE: weights}  # training has gradients and the two moments of Adam
        for mode in MODES:
            cost.largest_batch[mode] = largest_batch(
                lambda n: fixed[mode] + n * per_image[mode] / cost.batch_size <= BUDGET)


def step_seconds(contender: Contender, speed: Speed, device: torch.device) -> float:
    """Time of one step, in the speed's memory format, the mean of its repeats."""
    layout = MEMORY_FORMATS[speed.memory_format]
    model = contender.model.train(speed.mode == TRAIN).to(memory_format=layout)
    x = contender.make_input(speed.batch_size, speed.image_size)
    x = x.detach().to(device, memory_format=layout).requires_grad_(x.requires_grad)
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(speed.repeats):
        step(model, x, speed.mode, speed.precision)
    wait()
    return (time.perf_counter() - start) / speed.repeats


def warm_up(contender: Contender, speed: Speed, device: torch.device, step_limit: float) -> None:
    """Choose the speed's memory format and its repeats.

    Raises:
        TimeoutError: Not one step takes less than the limit.
    """
    seconds = {}
    for speed.memory_format in contender.memory_formats:
        first = step_seconds(contender, speed, device)
        # the first step of all may be slow, a second one tells more, unless it would only take time
        seconds[speed.memory_format] = first if first > step_limit else min(
            first, step_seconds(contender, speed, device))
    if min(seconds.values()) > step_limit:
        raise TimeoutError(f'a step takes {min(seconds.values()):.0f} s, more than {step_limit:g} s')
    speed.memory_format = min(seconds, key=seconds.get)
    speed.repeats = math.ceil(MIN_SECONDS / seconds[speed.memory_format])


def measure(
        points: Sequence[Tuple[Contender, int, int]],
        rounds: int,
        device: torch.device,
        title: str,
        step_limit: float = math.inf,
) -> Results:
    """Measure contenders, each at a batch size and an image size, with at most so many seconds a step."""
    costs = [(contender, Cost(contender.name, *point)) for contender, *point in points]
    speeds = {
        mode: [
            (contender, Speed(contender.name, *point, mode, precision))
            for contender, *point in points for precision in contender.precisions]
        for mode in MODES}
    with tqdm(desc=title, total=len(costs) + (1 + rounds) * sum(map(len, speeds.values())), unit=' steps') as progress:
        for contender, cost in costs:
            with failure_noted(cost):
                measure_cost(contender, cost, device)
            progress.update()
        for mode in MODES:
            for contender, speed in speeds[mode]:
                with failure_noted(speed):
                    warm_up(contender, speed, device, step_limit)
                progress.update()
            for _ in range(rounds):
                for contender, speed in speeds[mode]:
                    if not speed.error:
                        with failure_noted(speed):
                            speed.seconds.append(step_seconds(contender, speed, device))
                    progress.update()
    return Results([cost for _, cost in costs], [speed for mode in MODES for _, speed in speeds[mode]])
