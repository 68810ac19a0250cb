"""Measure models on random images, in alternating rounds: parameters, memory and speed."""
import math
import statistics
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from scripts.benchmarks.common.memory import inference_bytes, saved_bytes
from scripts.benchmarks.common.paper import PAPER
from scripts.benchmarks.common.report import error_text
from scripts.benchmarks.common.step import BF16, FP32, INFERENCE, MEMORY_FORMATS, MODES, PRECISIONS, TRAIN, step
from scripts.benchmarks.common.timing import alternate, seconds_of, times_as_fast

TIMING = """\
Everything runs in one process, on random images, with 10 classes. In each of {rounds} rounds, each model is timed once,
so a machine that slows down slows all models. Each model runs in its faster memory format, NCHW or channels_last, which
two warm-up steps of each decide. A training step is a forward and a backward pass, without the optimizer. Nothing is
compiled."""
MEMORY = """\
Memory is what the forward pass keeps for the backward pass, the largest part of what training takes: the bytes of every
storage that autograd saves. Parameters and buffers do not count."""
BUDGET = 16 * 2 ** 30  # bytes, the memory of the paper's GPU
MIN_SECONDS = 0.2  # of a timing; a step that takes less is repeated
CHECKPOINTED = 'set_grad_checkpointing'


class Case(NamedTuple):
    """A model at a batch size and an image size, and what is measured of it."""
    name: str
    model: nn.Module
    batch_size: int
    image_size: int
    precisions: Sequence[str] = PRECISIONS
    modes: Sequence[str] = MODES  # without TRAIN, the cost is not measured either
    references: Sequence[str] = ()  # names of cases that its speed is compared with

    def images(self) -> torch.Tensor:
        return torch.randn(self.batch_size, 3, self.image_size, self.image_size)


@dataclass
class Cost:
    """What a model needs, whatever the speed of the machine."""
    model: str
    batch_size: int
    image_size: int
    params: int = 0
    flops: int = 0  # of a forward pass of one image, a third of a training step's
    saved_bytes: Dict[str, int] = field(default_factory=dict)  # for a batch: in fp32, in bf16, and fp32 checkpointed
    peak_bytes: Dict[str, int] = field(default_factory=dict)  # of a GPU, by mode, in mixed precision
    largest_batch: Dict[str, int] = field(default_factory=dict)  # by mode: on a GPU in mixed precision, else in fp32
    error: str = ''


@dataclass
class Speed:
    """How fast one step of a model is, in the median of the rounds."""
    model: str
    batch_size: int
    image_size: int
    mode: str
    precision: str
    memory_format: str = ''
    images_per_second: Optional[float] = None
    times_as_fast: Dict[str, float] = field(default_factory=dict)  # by reference on the same batch, 'fp32' for itself
    error: str = ''

    def ratio(self, reference: str) -> Optional[float]:
        """How many times as fast as a reference it is. None if one of them was not measured."""
        if reference == self.model and not self.error:
            return 1.
        return self.times_as_fast.get(reference)


def error_kind(record: Union[Cost, Speed]) -> str:
    """What a table shows instead of a figure: 'out of memory', or '' if there is a figure."""
    return record.error.partition(':')[0]


@dataclass
class Results:
    """Measurements that belong together: taken in the same rounds."""
    costs: List[Cost]
    speeds: List[Speed]

    @classmethod
    def from_json(cls, results: Dict[str, Any]) -> 'Results':
        return cls([Cost(**cost) for cost in results['costs']], [Speed(**speed) for speed in results['speeds']])

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
        """The models of the paper's tables that were measured, without other implementations of them."""
        return [cost.model for cost in self.costs if cost.model in PAPER]


# Cost

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


def measure_costs(cases: Sequence[Case], device: torch.device, title: str) -> List[Cost]:
    """The costs of models that are trained, with an error in the cost of one that fails."""
    costs = []
    for case in tqdm([case for case in cases if TRAIN in case.modes], desc=f'{title}, memory', unit=' models'):
        cost = Cost(case.name, case.batch_size, case.image_size)
        try:
            measure_cost(case, cost, device)
        except (RuntimeError, MemoryError) as error:
            cost.error = error_text(error)
        costs.append(cost)
    return costs


# Speed

def step_seconds(case: Case, mode: str, precision: str, layout: str, device: torch.device, repeats: int = 1) -> float:
    """Time of one step in a memory format, the mean of its repeats."""
    model = case.model.train(mode == TRAIN).to(memory_format=MEMORY_FORMATS[layout])
    x = case.images().to(device, memory_format=MEMORY_FORMATS[layout])
    return seconds_of(partial(step, model, x, mode, precision), device, repeats)


def faster_format(
        case: Case, mode: str, precision: str, device: torch.device, step_limit: float) -> Tuple[str, int]:
    """The faster memory format, and how many repeats of a step a timing in it needs.

    Raises:
        TimeoutError: Not one step takes less than the limit.
    """
    seconds = {}
    for layout in MEMORY_FORMATS:
        first = step_seconds(case, mode, precision, layout, device)
        # the first step of all may be slow, so a second one counts, unless it would only take time
        seconds[layout] = first if first > step_limit else min(
            first, step_seconds(case, mode, precision, layout, device))
    best = min(seconds, key=seconds.get)
    if seconds[best] > step_limit:
        raise TimeoutError(f'a step takes {seconds[best]:.0f} s, more than {step_limit:g} s')
    return best, math.ceil(MIN_SECONDS / seconds[best])


def measure_speeds(
        cases: Sequence[Case], mode: str, rounds: int, device: torch.device, title: str, step_limit: float,
) -> List[Speed]:
    """The speeds of models in training or in inference, with an error in the speed of one that fails."""
    keys = {
        (case.name, case.batch_size, case.image_size, precision): case
        for case in cases if mode in case.modes for precision in case.precisions}
    chosen, errors = alternate(
        {key: partial(faster_format, case, mode, key[-1], device, step_limit) for key, case in keys.items()}, 1,
        f'{title}, {mode}, memory formats')
    seconds, more_errors = alternate(
        {key: partial(step_seconds, keys[key], mode, key[-1], layout, device, repeats)
         for key, [(layout, repeats)] in chosen.items()},
        rounds, f'{title}, {mode}')
    errors.update(more_errors)
    speeds = []
    for key, case in keys.items():
        name, *size, precision = key
        speed = Speed(name, *size, mode, precision)
        if key in errors:
            speed.error = error_text(errors[key])
        else:
            speed.memory_format, _ = chosen[key][0]
            speed.images_per_second = case.batch_size / statistics.median(seconds[key])
            references = {reference: (reference, *size, precision) for reference in case.references}
            if precision != FP32:
                references[FP32] = (name, *size, FP32)
            speed.times_as_fast = {
                reference: times_as_fast(seconds[key], seconds[other])
                for reference, other in references.items() if other in seconds}
        speeds.append(speed)
    return speeds


def measure(
        cases: Sequence[Case], rounds: int, device: torch.device, title: str, step_limit: float = math.inf) -> Results:
    """Measure models. One whose step takes longer than the limit, in seconds, is reported without figures."""
    costs = measure_costs(cases, device, title)
    return Results(costs, [
        speed for mode in MODES for speed in measure_speeds(cases, mode, rounds, device, title, step_limit)])
