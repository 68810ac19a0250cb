"""Trainings of several models on one image folder that differ only in the model.

Their folder has steps.json with the seconds of a step of each model, and a state of each training, from which it goes
on.
"""
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.utils import random_seed
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import scripts.benchmarks.models.baselines  # noqa: F401  registers the models
import timm_wavemix  # noqa: F401  registers the models
from scripts.benchmarks.common import command
from scripts.benchmarks.common.images import ImageFolder, accuracy, balanced_subset
from scripts.benchmarks.common.report import error_text
from scripts.benchmarks.common.step import autocast
from scripts.benchmarks.common.timing import alternate, seconds_of
from scripts.benchmarks.common.training import Learner, create_learner, load_state, save_state
from scripts.benchmarks.models.variants import Variant

RECIPE = dict(  # for all models; AdamW, as none of them was designed with another optimizer
    mean=(0.2860,) * 3, std=(0.3530,) * 3, crop_pct=1.0, scale=(0.75, 1.0), ratio=(0.85, 1.18), hflip=0.5,
    color_jitter=0.0, train_interpolation='bilinear', opt='adamw', weight_decay=0.02, warmup_epochs=1,
    warmup_lr=1e-4, min_lr=1e-5)
EQUAL_UPDATES, EQUAL_TIME = BUDGETS = 'equal updates', 'equal time'


class Run(NamedTuple):
    """What is trained."""
    name: str
    model: str
    variant: Variant = Variant()


@dataclass(frozen=True)
class Settings:
    """What all trainings of a folder have in common."""
    classes: Sequence[str]
    images: int
    validation_images: int  # 0 where there is nothing to choose
    test_images: int
    image_size: int
    batch_size: int
    updates: int  # of the equal ones
    seconds: float  # of the equal time
    lrs: Sequence[float]
    seeds: Sequence[int]
    precision: str
    data: str  # folder, as it was named
    machine: str  # without which speeds are not to be compared
    software: str
    no_aug: bool = False  # without random crops and flips


class Training(NamedTuple):
    """One training of a model."""
    run: Run
    budget: str
    updates: int
    lr: float
    seed: int

    @property
    def file_name(self) -> str:
        return f'{self.run.name}.{self.budget.replace(" ", "_")}.lr{self.lr:g}.seed{self.seed}.pth'


@dataclass
class Result:
    """What came of a training so far."""
    name: str
    budget: str
    updates: int
    lr: float
    seed: int
    params: int = 0
    losses: List[float] = field(default_factory=list)  # of every epoch, the mean of its batches
    validation_top1: Optional[float] = None  # percent, of the last weights, if there was a rate to choose
    top1: Optional[float] = None  # percent, of the last weights, if they have the chosen rate
    done: bool = False


@dataclass
class Row:
    """What came of a model with one budget."""
    name: str
    model: str
    budget: str
    images_per_second: float = 0.  # of training, by the measured step
    tried: List[Result] = field(default_factory=list)  # with every learning rate, the first seed
    results: List[Result] = field(default_factory=list)  # with the chosen one, every seed
    error: str = ''

    @property
    def top1(self) -> List[float]:
        return [result.top1 for result in self.results]


@dataclass
class Report:
    command: str
    settings: Settings
    rows: List[Row]

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        rows = [
            Row(**{**row, **{key: [Result(**result) for result in row[key]] for key in ('tried', 'results')}})
            for row in values['rows']]
        return cls(values['command'], Settings(**values['settings']), rows)

    def row(self, name: str, budget: str = EQUAL_UPDATES) -> Optional[Row]:
        return next((row for row in self.rows if (row.name, row.budget) == (name, budget) and not row.error), None)


# Data and models

def create(run: Run, num_classes: int, image_size: int) -> nn.Module:
    """The model, with random weights, for images of this size.

    Raises:
        ImportError: A library is missing.
    """
    kwargs = dict(run.variant.kwargs, num_classes=num_classes)
    if timm.get_pretrained_cfg(run.model).fixed_input_size:
        kwargs['img_size'] = image_size
    model = timm.create_model(run.model, **kwargs)
    if run.variant.change:
        run.variant.change(model)
    return model


class Data(NamedTuple):
    """The images of a folder."""
    train: ImageFolder  # which are augmented
    validation: Optional[Subset]  # None where there is nothing to choose
    test: Subset


# Training

@dataclass
class Bench:
    """Where the trainings of a folder take place."""
    settings: Settings
    data: Data
    folder: Path
    device: torch.device

    def create(self, run: Run) -> nn.Module:
        model = create(run, len(self.settings.classes), self.settings.image_size)
        return model.to(self.device, memory_format=torch.channels_last)

    def accuracy(self, model: nn.Module, images: Subset) -> float:
        with autocast(self.device, self.settings.precision):
            return accuracy(model, images, self.device)

    def train(self, training: Training) -> Result:
        """Train a model to the end, from where its state in the folder has it.

        Raises:
            ImportError: A library is missing.
            OSError: An image cannot be read, or the state not written.
            RuntimeError: The loss is not finite, or the device out of memory.
            ValueError: The state is damaged.
        """
        run, settings, file = training.run, self.settings, self.folder / training.file_name
        state = load_state(file) if file.exists() else None
        result = Result(**state['result']) if state else Result(run.name, *training[1:])
        if result.done:
            return result
        random_seed(training.seed)
        model = self.create(run)
        result.params = sum(p.numel() for p in model.parameters())
        train_set = balanced_subset(self.data.train, settings.images, training.seed)
        loader = DataLoader(train_set, settings.batch_size, shuffle=True, drop_last=True)
        learner = create_learner(
            model, settings.precision, RECIPE['opt'], training.lr, RECIPE['weight_decay'], 1, training.updates,
            # of the whole training, which is one epoch to the schedule: the last real one may be cut short
            warmup_epochs=min(RECIPE['warmup_epochs'] * len(loader) / training.updates, 1 / 4),
            warmup_lr=RECIPE['warmup_lr'], min_lr=RECIPE['min_lr'])
        if state:
            learner.load(state)

        def batches(epoch: int) -> Iterable[Tuple[torch.Tensor, torch.Tensor]]:
            rest = min(len(loader), training.updates - epoch * len(loader))
            for images, classes in islice(loader, rest):
                yield images.to(self.device, memory_format=torch.channels_last), classes.to(self.device)

        epochs = math.ceil(training.updates / len(loader))
        for _, loss in learner.epochs(batches, len(result.losses), epochs, len(loader), training.seed):
            result.losses.append(loss)
            save_state(file, dict(learner.state(), result=asdict(result)))
        if self.data.validation is not None:
            result.validation_top1 = self.accuracy(model, self.data.validation)
        result.done = True
        save_state(file, dict(result=asdict(result), state_dict=model.state_dict()))
        return result

    def test(self, training: Training) -> Result:
        """Measure a trained model on the test images, once."""
        file = self.folder / training.file_name
        state = load_state(file)
        result = Result(**state['result'])
        if result.top1 is None:
            model = self.create(training.run)
            model.load_state_dict(state['state_dict'])
            result.top1 = self.accuracy(model, self.data.test)
            save_state(file, dict(state, result=asdict(result)))
        return result


def measure_steps(runs: Sequence[Run], bench: Bench) -> Tuple[Dict[str, float], Dict[str, str]]:
    """Seconds of a training step of each model, as they were measured when the folder was begun, and what failed.

    Raises:
        OSError: The measurements cannot be written.
    """
    file = bench.folder / 'steps.json'
    steps = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
    settings, device, size = bench.settings, bench.device, bench.settings.image_size
    images = torch.randn(settings.batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    classes = torch.randint(len(settings.classes), (settings.batch_size,), device=device)
    learners: Dict[str, Learner] = {}

    def timed(run: Run) -> float:
        if run.name not in learners:
            model = bench.create(run).train()
            optimizer = create_optimizer_v2(model, RECIPE['opt'], 0., RECIPE['weight_decay'])
            learners[run.name] = Learner(model, optimizer, settings.precision)
        return seconds_of(partial(learners[run.name].update, images, classes), device)

    seconds, errors = alternate(
        {run.name: partial(timed, run) for run in runs if run.name not in steps}, 5, 'measuring', warm_up=1)
    steps.update({name: statistics.median(values) for name, values in seconds.items()})
    command.write_text_whole(file, json.dumps(steps, indent=1))
    return steps, {name: error_text(error) for name, error in errors.items()}


def updates_of(budget: str, step: float, settings: Settings) -> int:
    return settings.updates if budget == EQUAL_UPDATES else max(1, round(settings.seconds / step))


def estimate(runs: Sequence[Run], budgets: Sequence[str], settings: Settings, steps: Dict[str, float]) -> float:
    """Seconds of all trainings and of reading all accuracies, from measured steps."""
    trainings = len(settings.lrs) + len(settings.seeds) - 1
    images = settings.validation_images * trainings + settings.test_images * len(settings.seeds)
    total = 0.
    for step in (steps[run.name] for run in runs if run.name in steps):
        forward = step / settings.batch_size / 3  # of an image: a third of a training step
        total += sum(updates_of(budget, step, settings) * step * trainings + images * forward for budget in budgets)
    return total


def train_row(row: Row, run: Run, step: float, bench: Bench) -> None:
    """Fill in what comes of a model with one budget."""
    settings = bench.settings
    row.images_per_second = settings.batch_size / step
    updates = updates_of(row.budget, step, settings)
    for lr in settings.lrs:
        result = bench.train(Training(run, row.budget, updates, lr, settings.seeds[0]))
        row.tried.append(replace(result, top1=None))  # where it was tested before, it has one
    best = max(row.tried, key=lambda result: result.validation_top1 or 0.).lr
    for seed in settings.seeds:
        training = Training(run, row.budget, updates, best, seed)
        bench.train(training)
        row.results.append(bench.test(training))
    tqdm.write(f'{run.name}, {row.budget}: {statistics.mean(row.top1):.2f} %', file=sys.stderr)


def train_all(
        runs: Sequence[Run], budgets: Sequence[str], steps: Dict[str, float], errors: Dict[str, str], bench: Bench,
) -> List[Row]:
    """Train one after the other. What fails, or has failed, has an error in its row, and the rest goes on.

    Raises:
        OSError: An image cannot be read, or a state not written.
    """
    rows = []
    for budget, run in tqdm([(budget, run) for budget in budgets for run in runs], unit=' models'):
        row = Row(run.name, run.model, budget, error=errors.get(run.name, ''))
        rows.append(row)
        if row.error:
            continue
        try:
            train_row(row, run, steps[run.name], bench)
        except OSError:  # the next model would meet it too
            raise
        except Exception as error:  # the models are of four libraries, which raise what they like
            row.error = error_text(error)
            tqdm.write(f'{run.name}: {row.error}', file=sys.stderr)
    return rows
