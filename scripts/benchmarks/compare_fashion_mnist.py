"""Train models of the WaveMix paper's comparison on one image folder, with equal updates and with equal time.

Every model gets two budgets. With equal updates it sees the same batches of the same images in the same order as all
others. With equal time it makes as many updates as fit in --seconds, by a step that was measured before, in the median
of five rounds over all models; reading the images is not in it. So nothing else should run while the steps are measured
(--dry-run), and later it does no harm.

For either budget a model gets a learning rate of its own: each of --lr is tried with the whole budget and the first
seed, and the one with the highest top-1 on images of validation/ is taken. With that rate it is trained for every seed:
the first seed's training is the one that was tried.

All train with AdamW and a weight decay of 0.02, on random crops and horizontal flips, with a cosine schedule after a
warm-up of one epoch, or a quarter of the training if that is shorter. There is no EMA, which would lag behind in short
trainings. No model has dropout. Training images are drawn from each class alike, others for each seed.

Accuracy is that of the last weights, on test images that are the same for every seed and choose nothing. Images per
second are those of the measured step, in training.

With --ablation, WaveMix is trained with something else in place of its Haar transform, at the same shapes, with
equal updates and one learning rate: other wavelets (`pip install -e '.[wavelets]'`), average pooling, which is the LL
band alone, four learned 2x2 filters of stride 2 for each channel ("learned"), and one dense 2x2 convolution of stride 2
in place of Haar and the 1x1 convolution after it ("dense"). The last is the control: it is the same layer as Haar's up
to an orthogonal change of its weights, on the same code path. "1_levels" to "3_levels" are the model with fewer levels
of Haar than its 4. The models of other libraries need `pip install --group baselines`.

A run that was cut off goes on from the last finished epoch when it is started again, to the same end.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
import torch.nn as nn
from timm.data import ImageDataset, create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

import lib.baselines  # noqa: F401  registers the models
import timm_wavemix  # noqa: F401  registers the models
from lib.ablation import TransformBlock, TransformLiteBlock, variants
from lib.evaluate import accuracy, balanced_subset, load_split
from lib.measure import BF16, PRECISIONS
from lib.published import FAMILIES, TOP1
from lib.report import (
    SOFTWARE,
    add_device_argument,
    command_line,
    docstring_body,
    hardware_name,
    limit_memory,
    markdown_table,
    marker_styles,
    number_or_all,
    output_file,
    positive_float,
    positive_int,
    report_header,
    require_matplotlib,
    three_digits,
    write_text_whole,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECIPE = dict(  # for all models; AdamW, as none of them was designed with another optimizer
    mean=(0.2860,) * 3, std=(0.3530,) * 3, crop_pct=1.0, scale=(0.75, 1.0), ratio=(0.85, 1.18), hflip=0.5,
    color_jitter=0.0, train_interpolation='bilinear', opt='adamw', weight_decay=0.02, sched='cosine', warmup_epochs=1,
    warmup_lr=1e-4, min_lr=1e-5)
BLOCKS = {'WaveMix': TransformBlock, 'WaveMix-Lite': TransformLiteBlock}  # of the ablation
ABLATION = 'wavemix_16_5', 'wavemix_lite_128_7'
DEFAULT = (  # the paper's own families, and one model each of the two best others
    *(name for family in ('WaveMix', 'WaveMix-Lite', '2-D FNet', '2-D MLP-Mixer') for name in FAMILIES[family]),
    'resnet18_3x3', 'convmixer_256_8')
EQUAL_UPDATES, EQUAL_TIME = BUDGETS = 'equal updates', 'equal time'


class Run(NamedTuple):
    """What is trained."""
    name: str
    model: str
    family: str
    kwargs: Dict[str, Any] = {}  # for `timm.create_model`


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
    top1: Optional[float] = None  # percent, of the last weights, if they are those of the chosen rate
    done: bool = False


@dataclass
class Row:
    """What came of a model with one budget."""
    name: str
    budget: str
    images_per_second: float = 0.  # of training, by the measured step
    tried: List[Result] = field(default_factory=list)  # with every learning rate, the first seed
    results: List[Result] = field(default_factory=list)  # with the chosen one, every seed
    error: str = ''

    @property
    def top1(self) -> List[float]:
        return [result.top1 for result in self.results]


# Data and models

def list_runs(models: Sequence[str], ablation: bool) -> List[Run]:
    """The models, or every variant of them."""
    runs = []
    for family, names in FAMILIES.items():
        for name in names:
            if name in models and not ablation:
                runs.append(Run(name, name, family))
            elif name in models:
                for variant, kwargs in variants(BLOCKS[family]).items():
                    # Haar's is the model itself, which the comparison may have trained already
                    runs.append(Run(f'{name}.{variant}' if kwargs else name, name, name, kwargs))
    return runs


def create(run: Run, num_classes: int, image_size: int) -> nn.Module:
    """The model, with random weights, for images of this size.

    Raises:
        ImportError: A library is missing.
    """
    kwargs = dict(run.kwargs, num_classes=num_classes)
    if timm.get_pretrained_cfg(run.model).fixed_input_size:
        kwargs['img_size'] = image_size
    return timm.create_model(run.model, **kwargs)


class Data(NamedTuple):
    """The images of a folder."""
    train: ImageDataset  # which are augmented
    validation: Optional[Subset]  # None where there is nothing to choose
    test: Subset


def load_data(
        data: Path,
        validation_images: Optional[int],
        test_images: Optional[int],
        image_size: int,
        validation: bool,
) -> Data:
    """Read the splits.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: A folder has no images.
        ValueError: A folder has too few images, or they do not have the same classes.
    """
    common = dict(input_size=image_size, **{key: RECIPE[key] for key in ('mean', 'std', 'crop_pct')})
    augmentation = {key: RECIPE[key] for key in ('scale', 'ratio', 'hflip', 'color_jitter')}
    train_set = load_split(data, 'train', transform=create_transform(
        is_training=True, interpolation=RECIPE['train_interpolation'], **augmentation, **common))
    others = {}
    for split in ('validation', 'test') if validation else ('test',):
        others[split] = load_split(data, split, transform=create_transform(**common))
        differing = set(train_set.reader.class_to_idx) ^ set(others[split].reader.class_to_idx)
        if differing:
            raise ValueError(
                f"'{data}' has no images of {', '.join(sorted(differing))} in one of train/ and {split}/: both need "
                'them all.')
    return Data(
        train_set,
        balanced_subset(others['validation'], validation_images, seed=0) if validation else None,
        balanced_subset(others['test'], test_images, seed=0))


# Training

def check_settings(folder: Path, settings: Settings) -> None:
    """Note in a folder the settings of its trainings.

    Raises:
        ValueError: Those that it holds have others.
    """
    file, values = folder / 'settings.json', json.loads(json.dumps(asdict(settings)))
    if file.exists():
        earlier = json.loads(file.read_text(encoding='utf-8'))
        changes = [f'{key} {earlier.get(key)}, not {values[key]}' for key in values if earlier.get(key) != values[key]]
        if changes:
            raise ValueError(
                f"the trainings in '{folder}' have {'; '.join(changes)}: repeat their options to go on with them, or "
                'name another folder with --output.')
    write_text_whole(file, json.dumps(values, indent=1))


def load_checkpoint(file: Path) -> Optional[Dict[str, Any]]:
    """What `train` wrote, or None if it has not.

    Raises:
        RuntimeError: The file cannot be read.
    """
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise RuntimeError(f"'{file}' is damaged, delete it to train the model anew ({error!r})") from error


def save_checkpoint(
        file: Path,
        result: Result,
        model: Optional[Dict[str, torch.Tensor]] = None,
        optimizer: Optional[torch.optim.Optimizer] = None,
) -> None:
    state = dict(result=asdict(result), model=model, optimizer=optimizer and optimizer.state_dict())
    write_whole(file, partial(torch.save, state))


def train_step(
        model: nn.Module,
        images: torch.Tensor,
        classes: torch.Tensor,
        criterion: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: str,
) -> float:
    """One update; its loss."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == BF16):
        logits = model(images)
    loss = criterion(logits.float(), classes)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()  # waits for the device


def train(
        training: Training,
        settings: Settings,
        data: Data,
        folder: Path,
        device: torch.device,
) -> Result:
    """Train a model to the end, from where its checkpoint in the folder has it.

    Raises:
        ImportError: A library is missing.
        OSError: An image cannot be read, or the checkpoint not written.
        RuntimeError: The loss is not finite, the checkpoint damaged, or the device out of memory.
    """
    run, seed = training.run, training.seed
    file = folder / training.file_name
    checkpoint = load_checkpoint(file)
    result = Result(**checkpoint['result']) if checkpoint else Result(
        run.name, training.budget, training.updates, training.lr, seed)
    if result.done:
        return result

    random_seed(seed)
    model = create(run, len(settings.classes), settings.image_size).to(device, memory_format=torch.channels_last)
    result.params = sum(p.numel() for p in model.parameters())
    train_set = balanced_subset(data.train, settings.images, seed)
    loader = DataLoader(train_set, settings.batch_size, shuffle=True, drop_last=True)
    optimizer = create_optimizer_v2(model, RECIPE['opt'], training.lr, RECIPE['weight_decay'])
    scheduler, _ = create_scheduler_v2(
        optimizer,
        RECIPE['sched'],
        num_epochs=1,  # the last one may be cut short: let the scheduler count updates alone
        min_lr=RECIPE['min_lr'],
        warmup_lr=RECIPE['warmup_lr'],
        warmup_epochs=min(RECIPE['warmup_epochs'] * len(loader) / training.updates, 1 / 4),
        step_on_epochs=False,
        updates_per_epoch=training.updates,
    )
    criterion = LabelSmoothingCrossEntropy()  # as much smoothing as timm's train.py has without an option
    if checkpoint:
        model.load_state_dict(checkpoint['model'])
        optimizer.load_state_dict(checkpoint['optimizer'])
        scheduler.step_update(len(result.losses) * len(loader))

    epochs = math.ceil(training.updates / len(loader))
    for epoch in range(len(result.losses), epochs):
        # so an epoch is the same whether this process ran those before it or not, whatever the model has drawn
        # and far from the seeds beside it, whose epochs are not to be the same images one epoch later
        random_seed(seed, 1000 * (1 + epoch))
        model.train()
        losses = []
        batches = tqdm(
            loader, f'epoch {epoch + 1} of {epochs}', min(len(loader), training.updates - epoch * len(loader)),
            unit=' batches', leave=False)
        for update, (images, classes) in enumerate(batches, 1 + epoch * len(loader)):
            if update > training.updates:
                break
            images, classes = images.to(device, memory_format=torch.channels_last), classes.to(device)
            losses.append(train_step(model, images, classes, criterion, optimizer, settings.precision))
            scheduler.step_update(update)
            if not math.isfinite(losses[-1]):
                raise RuntimeError(f'the loss in epoch {epoch + 1} is {losses[-1]}: give a smaller --lr')
        result.losses.append(statistics.mean(losses))
        save_checkpoint(file, result, model.state_dict(), optimizer)

    if data.validation is not None:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == BF16):
            result.validation_top1 = accuracy(model, data.validation, device)
    result.done = True
    save_checkpoint(file, result, model.state_dict())
    return result


def test(training: Training, settings: Settings, data: Data, folder: Path, device: torch.device) -> Result:
    """Measure a trained model on the test images, once."""
    file = folder / training.file_name
    checkpoint = load_checkpoint(file)
    result = Result(**checkpoint['result'])
    if result.top1 is None:
        model = create(training.run, len(settings.classes), settings.image_size)
        model.load_state_dict(checkpoint['model'])
        model.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == BF16):
            result.top1 = accuracy(model, data.test, device)
        save_checkpoint(file, result, checkpoint['model'])
    return result


def measure_steps(
        runs: Sequence[Run],
        settings: Settings,
        folder: Path,
        device: torch.device,
) -> Tuple[Dict[str, float], Dict[str, str]]:
    """Seconds of a training step of each model, as they were measured when the folder was begun, and what failed.

    Raises:
        OSError: The measurements cannot be written.
    """
    file = folder / 'steps.json'
    steps = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
    size = settings.image_size
    images = torch.randn(settings.batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    classes = torch.randint(len(settings.classes), (settings.batch_size,), device=device)
    models, seconds, errors = {}, {run.name: [] for run in runs if run.name not in steps}, {}
    rounds = [(i, run) for i in range(6) for run in runs if run.name in seconds]
    for i, run in tqdm(rounds, desc='measuring', unit=' steps', leave=False):
        if run.name in errors:
            continue
        try:
            if i == 0:
                model = create(run, len(settings.classes), size).to(device, memory_format=torch.channels_last).train()
                models[run.name] = model, create_optimizer_v2(model, RECIPE['opt'], 0., RECIPE['weight_decay'])
            model, optimizer = models[run.name]
            start = time.perf_counter()
            train_step(model, images, classes, nn.CrossEntropyLoss(), optimizer, settings.precision)
            if i > 0:  # the first round warms up
                seconds[run.name].append(time.perf_counter() - start)
        except Exception as error:  # the models are of four libraries, which raise what they like
            errors[run.name] = one_line(error)
    steps.update({name: statistics.median(values) for name, values in seconds.items() if name not in errors})
    write_text_whole(file, json.dumps(steps, indent=1))
    return steps, errors


def one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.partition('\n')[0]


def updates_of(budget: str, step: float, settings: Settings) -> int:
    return settings.updates if budget == EQUAL_UPDATES else max(1, round(settings.seconds / step))


def estimate(runs: Sequence[Run], budgets: Sequence[str], settings: Settings, steps: Dict[str, float]) -> float:
    """Seconds of all trainings and of reading all accuracies, from measured steps."""
    trainings = len(settings.lrs) + len(settings.seeds) - 1
    total = 0.
    for run in runs:
        step = steps.get(run.name)
        if step is None:
            continue
        images = settings.validation_images * trainings + settings.test_images * len(settings.seeds)
        forward = step / settings.batch_size / 3  # a third of a training step
        total += sum(updates_of(budget, step, settings) * step * trainings + images * forward for budget in budgets)
    return total


def train_all(
        runs: Sequence[Run],
        budgets: Sequence[str],
        steps: Dict[str, float],
        errors: Dict[str, str],
        settings: Settings,
        *args: Any,
) -> List[Row]:
    """`train` one after the other. What fails, or has, has an error in its row, and the rest goes on.

    Raises:
        OSError: An image cannot be read, or a checkpoint not written.
    """
    rows = [Row(run.name, budget) for budget in budgets for run in runs]
    with tqdm(list(zip(rows, [*runs] * len(budgets))), unit=' models') as progress:
        for row, run in progress:
            progress.set_description(run.name)
            if run.name in errors:
                row.error = errors[run.name]
                continue
            try:
                row.images_per_second = settings.batch_size / steps[run.name]
                updates = updates_of(row.budget, steps[run.name], settings)
                first = settings.seeds[0]
                for lr in settings.lrs:
                    result = train(Training(run, row.budget, updates, lr, first), settings, *args)
                    row.tried.append(replace(result, top1=None))  # where it was trained to the end before, it has one
                best = max(row.tried, key=lambda result: result.validation_top1 or 0.).lr
                for seed in settings.seeds:
                    training = Training(run, row.budget, updates, best, seed)
                    train(training, settings, *args)
                    row.results.append(test(training, settings, *args))
                tqdm.write(f'{run.name}, {row.budget}: {statistics.mean(row.top1):.2f} %', file=sys.stderr)
            except OSError:  # the next model would meet it too
                raise
            except Exception as error:  # the models are of four libraries, which raise what they like
                row.error = one_line(error)
                tqdm.write(f'{run.name}: {row.error}', file=sys.stderr)
    return rows


# Report

def standard_deviation(values: Sequence[float]) -> float:
    """Of a sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.


def same_order(ours: Dict[str, float], papers: Dict[str, float]) -> Tuple[int, int]:
    """How many pairs of models the two put in the same order, and how many there are."""
    pairs = list(combinations([name for name in ours if name in papers], 2))
    return sum((ours[a] - ours[b]) * (papers[a] - papers[b]) > 0 for a, b in pairs), len(pairs)


def result_table(rows: Sequence[Row], papers: Dict[str, float]) -> str:
    cells = []
    for row in rows:
        line = [f'`{row.name}`']
        if row.error:
            line += ['–', 'failed', '–', '–', '–', '–']
        else:
            result = row.results[0]
            spread = f' ± {standard_deviation(row.top1):.1f}' if len(row.top1) > 1 else ''
            line += [
                f'{result.params / 1e6:.2f}',
                f'{statistics.mean(row.top1):.1f}{spread}',
                f'{result.lr:g}',
                f'{result.updates}',
                three_digits(row.images_per_second),
                f'{statistics.mean(result.losses[-1] for result in row.results):.2f}',
            ]
        cells.append([*line, f'{papers[row.name]:.2f}' if row.name in papers else '–'] if papers else line)
    header = [
        'model', 'params (M)', 'top-1 (%)', 'learning rate', 'updates', 'training (images/s)', 'loss in the last epoch']
    return markdown_table([*header, "paper's CIFAR-10 (%)"] if papers else header, cells)


def markdown(
        title: str,
        settings: Settings,
        rows: Sequence[Row],
        picture: str,
        ablation: bool,
) -> str:
    """The report: how the models were trained, what came of it, and what that is worth."""
    papers = {} if ablation else {name: top1 for name, (top1, *_) in TOP1[1].items()}
    rates = ', '.join(f'{lr:g}' for lr in settings.lrs)
    chosen = f', the best of {rates} on {settings.validation_images:,} validation images' if len(settings.lrs) > 1 \
        else f' {rates}'
    parts = [
        report_header(title, settings.machine, settings.software),
        f'Images of {settings.image_size}x{settings.image_size} in {len(settings.classes)} classes, '
        f'{settings.images:,} of them for training; batches of {settings.batch_size}; learning rate{chosen}; seeds '
        f'{", ".join(map(str, settings.seeds))}; {settings.precision}. Top-1 is measured on {settings.test_images:,} '
        'test images: mean ± standard deviation of the seeds.',
    ]
    for budget in dict.fromkeys(row.budget for row in rows):
        some = [row for row in rows if row.budget == budget]
        amount = f'{settings.updates} updates' if budget == EQUAL_UPDATES else f'{settings.seconds:g} seconds'
        parts += [f'## {budget.capitalize()}: {amount}', result_table(some, papers)]
        means = {row.name: statistics.mean(row.top1) for row in some if not row.error}
        same, pairs = same_order(means, papers)
        if pairs:
            parts.append(
                f"{same} of the {pairs} pairs of models that the paper has are in the order of its CIFAR-10 column.")
    parts += [
        f'![Accuracy against parameters and against speed]({picture})',
        '## What this shows, and what not',
        "It shows how far each model comes with little training. It doesn't show how accurate a model gets when "
        'trained to the end, as in the paper: one that learns more slowly may end up better.',
        *(["The paper's column is of other images: its order is there to be compared, not its figures."] if papers
          else []),
        'The running averages of batch norms lag behind in a training of few updates, so the model is worse in '
        'evaluation than its loss says: after a dozen updates, it may be no better than chance.',
        'The standard deviation has the choice of weights and training images in it, not that of the test images, '
        f'whose standard error is up to {50 / math.sqrt(settings.test_images):.1f} points and the same images for all.',
        '## How it was done',
        docstring_body(__doc__),
        *(f'`{row.name}` failed: {row.error}' for row in rows if row.error),
    ]
    return '\n\n'.join(parts) + '\n'


def draw(runs: Sequence[Run], rows: Sequence[Row], settings: Settings) -> 'Figure':
    """Accuracies against parameters, and against images per second in training, a pair of charts for each budget."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
    budgets = list(dict.fromkeys(row.budget for row in rows))
    figure = Figure(figsize=(13, 5.5 * len(budgets)), dpi=150, layout='constrained')
    grid = figure.subplots(len(budgets), 2, sharey='row', squeeze=False)
    for budget, charts in zip(budgets, grid):
        left, right = charts
        some = [row for row in rows if row.budget == budget]
        for run, row, style in zip(runs, some, marker_styles([run.family for run in runs])):
            if not row.error:
                mean, deviation = statistics.mean(row.top1), standard_deviation(row.top1)
                for chart, x in (left, row.results[0].params / 1e6), (right, row.images_per_second):
                    chart.errorbar(x, mean, deviation, elinewidth=0.8, label=run.name, **style)
        left.set(xlabel='parameters (million)', ylabel='top-1 (%), ± standard deviation', title=budget)
        right.set(
            xlabel=f'training (images/s of {settings.image_size}x{settings.image_size}, {settings.precision})',
            title=budget)
        for chart in charts:
            chart.set(xscale='log')
            chart.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            chart.xaxis.set_major_formatter('{x:g}')
            chart.xaxis.set_minor_formatter('')  # in less than a decade, labels of the minor ticks overlap
            chart.grid(color='#dddddd')
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc='outside right center')
    return figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [name for names in FAMILIES.values() for name in names]
    parser.add_argument(
        '--data-dir',
        type=Path,
        default='fashion_mnist',
        metavar='FOLDER',
        help='train/ and test/ with a folder for each class, as of scripts/prepare_fashion_mnist.py '
             '(default: %(default)s)',
    )
    parser.add_argument(
        '--models',
        nargs='+',
        choices=models,
        metavar='NAME',
        help=f'models to train, of {", ".join(models)} (default: {", ".join(DEFAULT)}; with --ablation '
             f'{", ".join(ABLATION)})',
    )
    parser.add_argument('--ablation', action='store_true', help='train WaveMix with other transforms than Haar')
    parser.add_argument(
        '--updates',
        type=positive_int,
        metavar='N',
        help='updates of a training where they are equal (default: 150, with --ablation 500)',
    )
    parser.add_argument(
        '--seconds',
        type=positive_float,
        default=30.,
        metavar='N',
        help='length of a training where time is equal (default: %(default)s)',
    )
    for option, split, default in (
            ('--images', 'train', '10000'), ('--validation-images', 'validation', '500'),
            ('--test-images', 'test', '1000')):
        parser.add_argument(
            option,
            type=number_or_all,
            default=default,
            metavar='N',
            help=f"how many of {split}/, or 'all' (default: %(default)s)",
        )
    parser.add_argument(
        '--image-size',
        type=positive_int,
        default=28,
        metavar='PIXELS',
        help='side to resize to (default: %(default)s)',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=16, metavar='N', help='images in a batch (default: %(default)s)')
    parser.add_argument(
        '--lr',
        type=positive_float,
        nargs='+',
        metavar='RATE',
        help='highest learning rates to choose from (default: 0.001 0.003 0.01, with --ablation 0.003)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[42, 43, 44],
        metavar='N',
        help='of weights, images and order (default: 42 43 44)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default=BF16,
        help='bf16 is mixed precision; a processor or GPU that cannot do it is faster in fp32 (default: %(default)s)',
    )
    add_device_argument(parser)
    parser.add_argument('--dry-run', action='store_true', help='measure the steps, print the cost and end')
    parser.add_argument(
        '--output',
        type=Path,
        metavar='FOLDER',
        help='checkpoints and reports; finished models are not trained again (default: output/compare_fashion_mnist, '
             'with --ablation output/ablation)',
    )
    for option, metavar, content, file in (
            ('--json', 'JSON', 'results', 'results.json'),
            ('--markdown', 'MD', 'table', 'results.md'),
            ('--plot', 'PNG', 'picture', 'results.png')):
        parser.add_argument(
            option, type=output_file, metavar=metavar, help=f'{content} (default: {file} in the folder)')
    args = parser.parse_args()
    if args.ablation:
        foreign = [name for name in args.models or () if not any(name in FAMILIES[family] for family in BLOCKS)]
        if foreign:
            parser.error(f'--ablation is for the WaveMix models, not for {", ".join(foreign)}: leave those out.')
    args.models = args.models or (ABLATION if args.ablation else DEFAULT)
    args.updates = args.updates or (500 if args.ablation else 150)
    args.lr = args.lr or ([3e-3] if args.ablation else [1e-3, 3e-3, 1e-2])
    args.output = args.output or Path('output', 'ablation' if args.ablation else 'compare_fashion_mnist')
    args.json = args.json or args.output / 'results.json'
    args.markdown = args.markdown or args.output / 'results.md'
    args.plot = args.plot or args.output / 'results.png'
    return args


def main() -> None:
    args = parse_args()
    require_matplotlib()
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    warnings.filterwarnings('ignore', "Using padding='same' with even kernel lengths")  # by ConvMixer
    if args.device.type == 'cpu':
        limit_memory()
    runs = list_runs(args.models, args.ablation)
    budgets = (EQUAL_UPDATES,) if args.ablation else BUDGETS
    try:
        data = load_data(
            args.data_dir, args.validation_images, args.test_images, args.image_size, validation=len(args.lr) > 1)
        settings = Settings(
            classes=sorted(data.train.reader.class_to_idx),
            images=len(balanced_subset(data.train, args.images, seed=0)),
            validation_images=0 if data.validation is None else len(data.validation),
            test_images=len(data.test),
            image_size=args.image_size,
            batch_size=args.batch_size,
            updates=args.updates,
            seconds=args.seconds,
            lrs=args.lr,
            seeds=args.seeds,
            precision=args.precision,
            data=str(args.data_dir),
            machine=hardware_name(args.device),
            software=SOFTWARE,
        )
        if settings.images < settings.batch_size:
            raise ValueError(
                f'{settings.images} images do not fill a batch: give --batch-size {settings.images} or less.')
        args.output.mkdir(parents=True, exist_ok=True)
        check_settings(args.output, settings)
        steps, errors = measure_steps(runs, settings, args.output, args.device)
        minutes = estimate(runs, budgets, settings, steps) / 60
        tqdm.write(
            f'{minutes:.0f} minutes on {settings.machine}, less what is done already, and reading the images',
            file=sys.stderr)
        for name, error in errors.items():
            tqdm.write(f'{name}: {error}', file=sys.stderr)
        if args.dry_run:
            return
        rows = train_all(runs, budgets, steps, errors, settings, data, args.output, args.device)
        report = dict(command=command_line(), settings=asdict(settings), rows=list(map(asdict, rows)))
        picture = Path(os.path.relpath(args.plot, args.markdown.parent)).as_posix()
        title = 'Other transforms than Haar in WaveMix' if args.ablation else \
            'Models of the paper, with equal updates and with equal time'
        text = markdown(title, settings, rows, picture, args.ablation)
        write_text_whole(args.json, json.dumps(report, indent=1))
        write_text_whole(args.markdown, text)
        write_whole(
            args.plot, lambda unfinished: draw(runs, rows, settings).savefig(unfinished, format='png'))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"compare_fashion_mnist.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit('compare_fashion_mnist.py: interrupted; the same command goes on from the last finished epoch.')
    print(f'{args.json}, {args.markdown}, {args.plot}')


if __name__ == '__main__':
    main()
