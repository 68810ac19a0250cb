"""Rerun the efficiency tables of the WaveMix paper on this machine: tables 1, 5 and 6 of arXiv 2203.03689.

WaveMix stands beside the ResNets as the paper ran them (a 3x3 stem of stride 1, no max-pool), timm's ResNet-18 as it
is, and ConvMixers, next to the paper's own ratios. Slower ways to write WaveMix (scripts/references.py) are timed with
them if the packages that they need are installed.

Everything runs in one process, on random images with 10 classes. The rounds alternate: each times every model once,
one after the other, so that a machine that slows down slows all of them. A ratio is the median of the rounds' ratios.
A model runs in the memory format that is faster for it, NCHW or channels_last, as two warm-up runs of each tell.
A training step is the forward and the backward pass, without the optimizer. Nothing is compiled.

Memory is what the forward pass keeps for the backward pass, which is most of what training takes: the bytes of every
storage that autograd saves, parameters and buffers left out.
"""
import argparse
import json
import math
import os
import platform
import re
import shlex
import statistics
import sys
import time
import warnings
import weakref
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import timm
import torch
import torch.nn as nn
from timm.models.convmixer import ConvMixer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import timm_wavemix
from references import authors_model, plain_model

try:
    from matplotlib.figure import Figure
except ImportError as error:
    sys.exit(f"benchmark_paper.py draws with matplotlib, which `pip install -e '.[demo]'` installs ({error}).")

BUDGET = 16 * 2 ** 30  # bytes, the memory of the paper's GPU
MIN_SECONDS = 0.2  # of a timing; a step that takes less is repeated
TRAIN, INFERENCE = MODES = 'train', 'inference'
FP32, BF16 = PRECISIONS = 'fp32', 'bf16'
CHECKPOINTED = 'checkpointed'
MEMORY_FORMATS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}
GROWTH_MODELS = 'wavemix_16_5', 'wavemix_lite_128_7', 'vit_tiny_patch4'
GROWTH_SIZES = 64, 128, 256  # images of this side, as many as have the pixels of one batch of 32x32
GROWTH_BATCHES = 1, 4, 16, 256  # of 32x32 images
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'  # colours that the colour-blind can tell apart


class Paper(NamedTuple):
    """What the paper says of a model: its name there, and figures by image size."""
    name: str
    params: Optional[float] = None  # million, table 1
    memory: Dict[int, float] = {}  # GB of GPU memory at batch 64, tables 1 and 4
    speed: Dict[str, Dict[int, int]] = {TRAIN: {}, INFERENCE: {}}  # images/s, table 5
    largest_batch: Dict[str, Dict[int, int]] = {TRAIN: {}, INFERENCE: {}}  # on a GPU of 16 GB, tables 6 and 4


AS_IN_TIMM = 'resnet18_as_in_timm'
PAPER = {  # the models of the benchmark
    AS_IN_TIMM: Paper('not in the paper'),
    'resnet18': Paper(
        'ResNet-18', 11.2, {32: 1.2, 64: 2.6},
        {TRAIN: {32: 1571, 64: 467}, INFERENCE: {32: 3436, 64: 1389}},
        {TRAIN: {64: 384}, INFERENCE: {}}),
    'resnet34': Paper('ResNet-34', 21.3, {32: 1.4, 64: 3.5}, largest_batch={TRAIN: {64: 288}, INFERENCE: {}}),
    'resnet50': Paper(
        'ResNet-50', 25.2, {32: 3.3, 64: 11.3}, largest_batch={TRAIN: {32: 320, 64: 96}, INFERENCE: {32: 960}}),
    'convmixer_256_8': Paper('ConvMixer-256/8', 0.67, {32: 3.7}),
    'convmixer_256_16': Paper(
        'ConvMixer-256/16', 1.3, {32: 7.0}, {TRAIN: {32: 166, 64: 120}, INFERENCE: {32: 451, 64: 445}}),
    'wavemix_16_5': Paper(
        'WaveMix-16/5', 0.18, {32: 0.2}, {TRAIN: {32: 3230, 64: 797}, INFERENCE: {32: 4310, 64: 2208}}),
    'wavemix_32_5': Paper(
        'WaveMix-32/5', 0.72, {32: 0.2}, {TRAIN: {32: 1834, 64: 460}, INFERENCE: {32: 3802, 64: 1623}}),
    'wavemix_64_5': Paper('WaveMix-64/5', 2.88, {32: 0.3}),
    'wavemix_lite_128_7': Paper(
        'WaveMix-128/7', 2.42, {32: 1.3},
        {TRAIN: {32: 1279, 64: 276}, INFERENCE: {32: 3401, 64: 488}},
        {TRAIN: {32: 768}, INFERENCE: {32: 2176}}),
    'wavemix_lite_256_7': Paper(
        'WaveMix-256/7', 9.62, {32: 2.3, 64: 9.0},
        {TRAIN: {32: 495, 64: 159}, INFERENCE: {32: 1028, 64: 408}},
        {TRAIN: {32: 448, 64: 112}, INFERENCE: {32: 768}}),
}


class Goal(NamedTuple):
    """How many times as fast as a peer a model is meant to be, in fp32 at 32x32."""
    model: str
    peer: str
    train: Optional[float]
    inference: float


PLAIN = 'its block on pytorch_wavelets'
AUTHORS = "the authors' wavemix 0.2.4"
AUTHORS_NCHW = "the authors' wavemix 0.2.4 in NCHW"
UP_CONV = 'its ConvTranspose2d alone, FLOP/s'
GOALS = [
    Goal('wavemix_16_5', PLAIN, 3., 4.),
    Goal('wavemix_64_5', PLAIN, 2., 4.),
    Goal('wavemix_lite_128_7', AUTHORS, 1.5, 1.2),
    Goal('wavemix_lite_128_7', AUTHORS_NCHW, None, 2.),
    Goal('wavemix_lite_256_7', AUTHORS, 1.5, 1.2),
    Goal('wavemix_lite_256_7', AUTHORS_NCHW, None, 2.),
    Goal('wavemix_16_5', 'resnet18', 2.06, 1.25),
    Goal('wavemix_32_5', 'resnet18', 1.17, 1.11),
    Goal('wavemix_lite_128_7', 'resnet18', 0.55, 0.65),
    Goal('wavemix_lite_256_7', 'resnet18', 0.16, 0.17),
    Goal('wavemix_16_5', AS_IN_TIMM, 1., 1.),
    Goal('wavemix_lite_256_7', UP_CONV, 0.6, 0.7),
]


def peer_name(goal: Goal) -> str:
    """Name of the peer in the measurements."""
    return goal.peer if goal.peer in PAPER else f'{goal.model}: {goal.peer}'


# What is measured

def images(batch_size: int, image_size: int) -> torch.Tensor:
    return torch.randn(batch_size, 3, image_size, image_size)


def maps(batch_size: int, image_size: int) -> torch.Tensor:
    """What the transposed convolutions of wavemix_lite_256_7 take; within the model it gets a gradient."""
    return torch.randn(batch_size, 256, image_size // 2, image_size // 2, requires_grad=True)


class Contender(NamedTuple):
    """A model in the benchmark, and on what terms it runs."""
    name: str
    model: nn.Module
    make_input: Callable[[int, int], torch.Tensor] = images  # batch size, image size -> batch
    precisions: Sequence[str] = PRECISIONS
    memory_formats: Sequence[str] = tuple(MEMORY_FORMATS)


def dim_and_depth(name: str) -> Tuple[int, int]:
    dim, depth = name.split('_')[-2:]
    return int(dim), int(depth)


def create(name: str, image_size: int) -> nn.Module:
    """One of `PAPER` or `GROWTH_MODELS`, set up as in the paper for images of this size."""
    if name.startswith('wavemix'):
        return timm.create_model(name, num_classes=10)
    if name.startswith('convmixer'):
        return ConvMixer(*dim_and_depth(name), kernel_size=8, patch_size=max(1, image_size // 32), num_classes=10)
    if name.startswith('vit'):
        return timm.create_model('vit_tiny_patch16_224', patch_size=4, img_size=image_size, num_classes=10)
    model = timm.create_model(name.split('_')[0], num_classes=10)
    if name != AS_IN_TIMM:
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


def create_peer(goal: Goal, device: torch.device) -> Contender:
    """The peer of a goal that is not one of `PAPER`.

    Raises:
        ImportError: A package is not installed.
    """
    dim, depth = dim_and_depth(goal.model)
    terms = dict(name=peer_name(goal), precisions=[FP32])
    if goal.peer == PLAIN:
        return Contender(model=plain_model(goal.model).to(device), **terms)
    if goal.peer == UP_CONV:
        return Contender(model=nn.ConvTranspose2d(dim, dim, 4, 2, 1).to(device), make_input=maps, **terms)
    memory_formats = ['NCHW'] if goal.peer == AUTHORS_NCHW else list(MEMORY_FORMATS)
    return Contender(model=authors_model(dim, depth, device), memory_formats=memory_formats, **terms)


def create_peers(models: Sequence[str], device: torch.device) -> Tuple[List[Contender], List[str]]:
    """The peers of these models, and a remark on each that cannot be created."""
    contenders, remarks = [], []
    for goal in GOALS:
        if goal.model in models and goal.peer not in PAPER:
            try:
                contenders.append(create_peer(goal, device))
            except ImportError as error:
                remarks.append(
                    f"Not measured: {peer_name(goal)}, for which `pip install -e '.[wavelets]' wavemix==0.2.4` is missing "
                    f'({error}).')
    return contenders, remarks


# Measurements

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
    def models(self) -> List[str]:
        """The models of the paper's tables that were measured, without peers."""
        return [cost.model for cost in self.costs if cost.model in PAPER]


def saved_bytes(model: nn.Module, x: torch.Tensor, precision: str = FP32) -> int:
    """Bytes that a forward pass in training mode keeps for the backward pass, parameters and buffers left out."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # holds it, so that no other storage gets its address
        return tensor

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
    """Lets the benchmark go on without a model that does not fit in memory, or does not work here."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = str(error).partition('\n')[0]
        no_memory = isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", message)
        record.error = f'{"out of memory" if no_memory else "failed"}: {message}'
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
    torch.cuda.set_per_process_memory_fraction(min(1., BUDGET / memory), device)
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
        cost.saved_bytes[CHECKPOINTED] = saved_bytes(model, x)
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


def warm_up(contender: Contender, speed: Speed, device: torch.device) -> None:
    """Choose the speed's memory format and its repeats."""
    seconds = {}
    for speed.memory_format in contender.memory_formats:
        seconds[speed.memory_format] = min(step_seconds(contender, speed, device) for _ in range(2))
    speed.memory_format = min(seconds, key=seconds.get)
    speed.repeats = math.ceil(MIN_SECONDS / seconds[speed.memory_format])


def measure(points: Sequence[Tuple[Contender, int, int]], rounds: int, device: torch.device, title: str) -> Results:
    """Measure contenders, each at a batch size and an image size."""
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
                    warm_up(contender, speed, device)
                progress.update()
            for _ in range(rounds):
                for contender, speed in speeds[mode]:
                    if not speed.error:
                        with failure_noted(speed):
                            speed.seconds.append(step_seconds(contender, speed, device))
                    progress.update()
    return Results([cost for _, cost in costs], [speed for mode in MODES for _, speed in speeds[mode]])


def growth_points(batch_size: int, device: torch.device) -> List[Tuple[Contender, int, int]]:
    """Models at other image sizes with as many pixels as the batch of 32x32 images has, and at other batch sizes."""
    points = []
    for image_size in (32, *GROWTH_SIZES):
        batch_sizes = [max(1, batch_size * 32 ** 2 // image_size ** 2)]
        if image_size == 32:
            batch_sizes += [n for n in GROWTH_BATCHES if n != batch_size]
        for name in GROWTH_MODELS:
            contender = Contender(name, create(name, image_size).to(device), precisions=[FP32])
            points += [(contender, n, image_size) for n in batch_sizes]
    return points


# Report

MEASURED = 'Measured: a step of this batch runs in so much memory of the GPU, a step of 16 images more does not.'
CALCULATED = (
    'Calculated, in multiples of 16 images. Training: the memory of the first table, weights, gradients and the two '
    'moments of Adam. Inference: weights, and the most that tensors take at one time.')


@dataclass
class Report:
    command: str
    machine: str
    software: str
    batch_method: str  # how the largest batches were found
    rounds: int
    remarks: List[str]  # what is missing and why
    results: List[Results]  # one for each image size
    growth: Optional[Results]


def machine_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        name = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text()).group(1)
    except (OSError, AttributeError):  # not Linux, or not x86
        name = platform.processor() or platform.machine()
    return f'{torch.get_num_threads()} cores of one {name} CPU ({torch.backends.cpu.get_cpu_capability()})'


def digits(value: Optional[float]) -> str:
    """The number with three digits, or a dash."""
    if value is None:
        return '–'
    return f'{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}'


def quotient(value: Optional[float], reference: Optional[float]) -> Optional[float]:
    return value / reference if value and reference else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows))


def memory_table(results: Results, size: int) -> str:
    """Table 1 of the paper."""
    costs = {name: results.cost(name) for name in results.models}

    def saved(name: str, kind: str = FP32) -> Optional[int]:
        return costs[name].saved_bytes.get(kind) if name in costs else None

    def paper_ratio(name: str, reference: str) -> Optional[float]:
        return quotient(PAPER[name].memory.get(size), PAPER[reference].memory.get(size))

    rows = [
        [
            f'`{name}`',
            PAPER[name].name,
            f'{cost.params / 1e6:.2f}',
            digits(PAPER[name].params),
            failure(cost) or digits(quotient(saved(name), 2 ** 20)),
            digits(quotient(saved(name), saved('resnet18'))),
            digits(paper_ratio(name, 'resnet18')),
            digits(quotient(saved(name), saved('resnet50'))),
            digits(paper_ratio(name, 'resnet50')),
            digits(quotient(saved(name, BF16), saved('resnet50', BF16))),
            digits(quotient(saved(name, CHECKPOINTED), saved('resnet50'))),
        ]
        for name, cost in costs.items()]
    return table(
        ['model', 'in the paper', 'params (M)', 'paper', 'memory (MiB)', '÷ ResNet-18', 'paper', '÷ ResNet-50', 'paper',
         '÷ ResNet-50, both in bf16', '÷ ResNet-50, with `set_grad_checkpointing`'], rows)


def speed_table(results: Results, size: int, precision: str) -> str:
    """Table 5 of the paper in fp32, or what bf16 autocast makes of it."""
    rows = []
    for name in results.models:
        row, memory_formats = [f'`{name}`'], []
        for mode in MODES:
            speed = results.speed(name, mode, precision)
            if precision == FP32:
                beside = quotient(PAPER[name].speed[mode].get(size), PAPER['resnet18'].speed[mode].get(size))
            else:
                beside = speed.ratio(results.speed(name, mode))
            row += [
                failure(speed) or digits(speed.images_per_second),
                digits(speed.ratio(results.speed('resnet18', mode, precision))),
                digits(beside),
            ]
            memory_formats.append(speed.memory_format)
        rows.append([*row, ', '.join(memory_formats)])
    beside = 'paper' if precision == FP32 else '÷ its fp32'
    columns = [column for mode in MODES for column in (f'{mode}, images/s', '÷ ResNet-18', beside)]
    return table(['model', *columns, 'memory formats'], rows)


def batch_table(results: Results, size: int) -> str:
    """Table 6 of the paper."""
    largest = {name: results.cost(name).largest_batch for name in results.models}
    rows = []
    for name in largest:
        row = [f'`{name}`']
        for mode in MODES:
            ours, theirs = largest[name].get(mode), PAPER[name].largest_batch[mode].get(size)
            row += [
                '–' if ours is None else f'{ours:,}',
                digits(quotient(ours, largest.get('resnet50', {}).get(mode))),
                digits(quotient(theirs, PAPER['resnet50'].largest_batch[mode].get(size))),
            ]
        rows.append(row)
    columns = [column for mode in MODES for column in (mode, '÷ ResNet-50', 'paper')]
    return table(['model', *columns], rows)


def goal_table(results: Results) -> str:
    """How many times as fast as its peers each model is, beside the goal."""
    rows = []
    for goal in GOALS:
        if goal.model not in results.models:
            continue
        row = [f'`{goal.model}`', goal.peer]
        for mode, aim in ((TRAIN, goal.train), (INFERENCE, goal.inference)):
            ratio = results.speed(goal.model, mode).ratio(results.speed(peer_name(goal), mode))
            if ratio and goal.peer == UP_CONV:
                ratio *= results.cost(goal.model).flops / results.cost(peer_name(goal)).flops
            row += [digits(ratio), f'≥ {aim:g}' if aim else '–']
        rows.append(row)
    return table(['model', 'beside', 'train', 'goal', 'inference', 'goal'], rows)


def growth_tables(growth: Results) -> Iterator[str]:
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
            for model in GROWTH_MODELS:
                value, first = values[model, n, side], values[(model, *batches[0])]
                row.append(f'{digits(value)} ({digits(quotient(value, first))})')
            rows.append(row)
        yield table([quantity, *(f'`{model}`' for model in GROWTH_MODELS)], rows)


def markdown(report: Report, picture: str) -> str:
    _, method = __doc__.split('\n\n', 1)
    parts = [
        '# The efficiency tables of the paper, rerun',
        f'Measured in {report.rounds} rounds on {report.machine}, with {report.software}, by',
        f'```sh\n{report.command}\n```',
        method.strip(),
        f'![Memory and speed of the models]({picture})',
    ]
    for results in report.results:
        batch_size, size = results.costs[0].batch_size, results.costs[0].image_size
        parts += [
            f'## Batches of {batch_size} images of {size}x{size}',
            '"÷" heads the ratio to another model, and "paper" the figure of the paper for what is left of it.',
            '### Parameters and memory, tables 1 and 4 of the paper',
            "The paper's memory is that of the GPU, weights and all, in mixed precision.",
            memory_table(results, size),
            '### Speed, table 5',
            speed_table(results, size, FP32),
            'In bf16 autocast:',
            speed_table(results, size, BF16),
            f'### Largest batch in {BUDGET >> 30} GiB, tables 6 and 4',
            report.batch_method,
            batch_table(results, size),
        ]
        if size == 32:
            parts += [
                '### Beside other ways to write WaveMix, and beside ResNet-18',
                'How many times as many images per second in fp32, and the goal that this package has set itself.',
                goal_table(results),
            ]
    if report.growth:
        parts += [
            '## How cost grows',
            'In fp32. In brackets: how many times the first line.',
            *growth_tables(report.growth),
        ]
    failures = [
        f'{record.model}: {record.error}'
        for results in (*report.results, *filter(None, [report.growth]))
        for record in (*results.costs, *results.speeds) if record.error]
    return '\n\n'.join([*parts, *report.remarks, *failures]) + '\n'


def draw(results: Results, size: int) -> Figure:
    """Memory beside speed, and the ratios of speed to ResNet-18 beside the paper's."""
    figure = Figure(figsize=(14, 5), dpi=150, layout='constrained')
    scatter, *charts = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    for name in results.models:
        speed, memory = results.speed(name, TRAIN), results.cost(name).saved_bytes.get(FP32)
        if memory and not speed.error:
            ours = name.startswith('wavemix')
            point = memory / 2 ** 20, speed.images_per_second
            scatter.plot(*point, 'o', color=BLUE if ours else GREY)
            # labels of ours go to the other side, so that they do not cover those of their neighbours
            scatter.annotate(
                name, point, xytext=(-5, -3) if ours else (5, 3), textcoords='offset points',
                ha='right' if ours else 'left', va='top' if ours else 'bottom')
    scatter.set(
        xscale='log', yscale='log', xlabel='memory of a training step (MiB)', ylabel='training (images/s)',
        title='the best are top left')
    scatter.margins(x=0.6, y=0.1)
    for mode, chart in zip(MODES, charts):
        for name in reversed(results.models):
            ratio = results.speed(name, mode).ratio(results.speed('resnet18', mode))
            paper = quotient(PAPER[name].speed[mode].get(size), PAPER['resnet18'].speed[mode].get(size))
            chart.plot(ratio, name, 'o', color=BLUE)  # a failed one keeps its line
            if paper:
                chart.plot(paper, name, 'D', color=ORANGE, fillstyle='none')
        chart.axvline(1., color='black', linewidth=0.8)
        chart.grid(axis='y', color='#dddddd')
        chart.set(xscale='log', title=f'{mode}, images/s ÷ ResNet-18', xlabel='blue: here, orange: in the paper')
    charts[1].tick_params(labelleft=False)
    return figure


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is too few: give 1 or more.')
    return number


def writable(text: str) -> Path:
    """A file to write after an hour of measuring: complain before."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder '{path.parent}': make it, or name another file.")
    return path


def working_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA fails an assertion
        raise argparse.ArgumentTypeError(f"torch cannot use '{name}' here ({error}): leave it out, or name 'cpu'.")
    return device


def limit_memory() -> None:
    """Let an allocation beyond the memory of the machine fail: Linux would end the process, and all its results."""
    if sys.platform == 'linux':
        import resource
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(0.95 * memory), hard_limit))


def main() -> None:
    description, details = __doc__.split('\n\n', 1)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--models',
        nargs='+',
        choices=PAPER,
        default=list(PAPER),
        metavar='NAME',
        help=f'models to measure (default: all of {", ".join(PAPER)})',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=positive,
        default=[32],
        metavar='PIXELS',
        help='image sizes; those of the paper are 32 and 64 (default: 32)',
    )
    parser.add_argument('--batch-size', type=positive, default=64, help='images in a batch (default: %(default)s)')
    parser.add_argument('--rounds', type=positive, default=5, help='alternating rounds (default: %(default)s)')
    parser.add_argument(
        '--growth',
        action='store_true',
        help='also measure how time and memory grow with the size of the images and of the batch, beside a ViT',
    )
    parser.add_argument(
        '--device',
        type=working_device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='torch device (default: cuda if there is one, else cpu)',
    )
    parser.add_argument('--json', metavar='JSON', type=writable, help='write every single measurement to this file')
    parser.add_argument(
        '--output',
        metavar='MD',
        type=writable,
        default='benchmark.md',
        help='tables in Markdown, with a picture of the same name beside them (default: %(default)s)',
    )
    args = parser.parse_args()

    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    if args.device.type == 'cpu':
        limit_memory()
    results, remarks = [], []
    for size in args.sizes:
        contenders = [Contender(name, create(name, size).to(args.device)) for name in args.models]
        if size == 32:
            peers, remarks = create_peers(args.models, args.device)
            contenders += peers
        points = [(contender, args.batch_size, size) for contender in contenders]
        results.append(measure(points, args.rounds, args.device, f'{size}x{size}'))
    growth = None
    if args.growth:
        growth = measure(growth_points(args.batch_size, args.device), args.rounds, args.device, 'growth')

    report = Report(
        command=shlex.join(['python', 'scripts/benchmark_paper.py', *sys.argv[1:]]),
        machine=machine_name(args.device),
        software=f'torch {torch.__version__}, timm {timm.__version__}, timm-wavemix {timm_wavemix.__version__}',
        batch_method=MEASURED if args.device.type == 'cuda' else CALCULATED,
        rounds=args.rounds,
        remarks=remarks,
        results=results,
        growth=growth,
    )
    try:
        if args.json:
            args.json.write_text(json.dumps(asdict(report), indent=1))
        picture = args.output.with_suffix('.png')
        args.output.write_text(markdown(report, picture.name), encoding='utf-8')
        draw(results[0], args.sizes[0]).savefig(picture)
    except OSError as error:
        sys.exit(f'{parser.prog}: {error.filename} cannot be written ({error.strerror}): name another file.')
    print(f'{args.output}, {picture}')


if __name__ == '__main__':
    main()
