"""Train all models of the WaveMix paper's comparison on one image folder, all alike, and compare their accuracies.

Every model sees the same training images, drawn from each class alike, in the same order with the same augmentation,
for as many updates, from one seed. Optimizer, augmentation and schedule are those of the recipe
scripts/recipes/wavemix_16_5.fashion_mnist.yaml; learning rate, batch size and epochs are options here, the warm-up
takes no more than a quarter of the training, and there is no EMA, which would lag behind in short trainings. No model
has dropout, and none has settings of its own. The default learning rate, 0.003, did better than 0.001 on validation
images for all five models that were tried: a WaveMix, an FNet, an MLP-Mixer, a ResNet and a transformer.

Accuracy is that of the weights after the last epoch, on test images that are the same for every seed. Images per second
are those of training steps in the median, without loading the images.

With --ablation, WaveMix is trained with something else in place of its Haar transform, at the same shapes: the wavelet
db2 (`pip install -e '.[wavelets]'`), average pooling, which is the LL band alone, four learned 2x2 filters of stride 2
for each channel ("learned"), and one dense 2x2 convolution of stride 2 in place of Haar and the 1x1 convolution after
it ("dense"). The last is the control: it is the same layer as Haar's up to an orthogonal change of its weights, on the
same code path. The others run unfused layers, so their speeds say nothing about the transforms. The models of other
libraries need `pip install --group baselines`.

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
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
import torch.nn as nn
import yaml
from timm.data import ImageDataset, create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

import lib.baselines  # noqa: F401  registers the models
import timm_wavemix  # noqa: F401  registers the models
from lib.ablation import TransformBlock, TransformLiteBlock, variants
from lib.evaluate import accuracy, load_split
from lib.measure import BF16, PRECISIONS
from lib.published import FAMILIES
from lib.report import (
    ROOT,
    SOFTWARE,
    add_device_argument,
    command_line,
    docstring_body,
    hardware_name,
    limit_memory,
    markdown_table,
    marker_styles,
    output_file,
    positive_float,
    positive_int,
    report_header,
    require_matplotlib,
    three_digits,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECIPE = yaml.safe_load((ROOT / 'scripts/recipes/wavemix_16_5.fashion_mnist.yaml').read_text(encoding='utf-8'))
BLOCKS = {'WaveMix': TransformBlock, 'WaveMix-Lite': TransformLiteBlock}  # of the ablation
ABLATION = 'wavemix_16_5', 'wavemix_lite_128_7'


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
    test_images: int
    image_size: int
    epochs: int
    batch_size: int
    lr: float
    seed: int
    precision: str
    data: str  # folder, as it was named
    machine: str  # without which speeds are not to be compared
    software: str


@dataclass
class Result:
    """What came of a training so far."""
    name: str
    params: int = 0
    losses: List[float] = field(default_factory=list)  # of every epoch, the mean of its batches
    images_per_second: List[float] = field(default_factory=list)  # of every epoch, the median of its batches
    top1: Optional[float] = None  # percent, after the last epoch
    error: str = ''


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


def balanced_subset(dataset: ImageDataset, images: Optional[int], seed: int) -> Subset:
    """So many images of a data set, drawn at random, as many of each class as there are, or all for None.

    Raises:
        ValueError: There are not so many.
    """
    targets = [target for _, target in dataset.reader.samples]
    if images is not None and images > len(targets):
        raise ValueError(
            f"'{dataset.reader.root}' has {len(targets)} images, not {images}: ask for no more, or for 'all'.")
    drawn, rank = Counter(), {}  # rank: how many of its class were drawn before an image
    for i in torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).tolist():
        rank[i] = drawn[targets[i]]
        drawn[targets[i]] += 1
    return Subset(dataset, sorted(rank, key=rank.get)[:images])


def load_data(
        data: Path,
        images: Optional[int],
        test_images: Optional[int],
        image_size: int,
        seed: int,
) -> Tuple[Subset, Subset]:
    """Training images, which are augmented, and test images.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: A folder has no images.
        ValueError: A folder has too few images, or the two do not have the same classes.
    """
    common = dict(input_size=image_size, **{key: RECIPE[key] for key in ('mean', 'std', 'crop_pct')})
    augmentation = {key: RECIPE[key] for key in ('scale', 'ratio', 'hflip', 'color_jitter')}
    train_set = load_split(data, 'train', transform=create_transform(
        is_training=True, interpolation=RECIPE['train_interpolation'], **augmentation, **common))
    test_set = load_split(data, 'test', transform=create_transform(**common))
    differing = set(train_set.reader.class_to_idx) ^ set(test_set.reader.class_to_idx)
    if differing:
        raise ValueError(
            f"'{data}' has no images of {', '.join(sorted(differing))} in one of train/ and test/: both need them all.")
    return balanced_subset(train_set, images, seed), balanced_subset(test_set, test_images, seed=0)


# Training

def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that is never seen half done."""
    unfinished = file.with_name(f'{file.name}.partial')
    write(unfinished)
    os.replace(unfinished, file)


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
    write_whole(file, lambda unfinished: unfinished.write_text(json.dumps(values, indent=1), encoding='utf-8'))


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
        file: Path, result: Result, model: nn.Module, optimizer: Optional[torch.optim.Optimizer] = None) -> None:
    state = dict(result=asdict(result), model=model.state_dict(), optimizer=optimizer and optimizer.state_dict())
    write_whole(file, partial(torch.save, state))


def train(
        run: Run,
        settings: Settings,
        train_set: Dataset,
        test_set: Dataset,
        folder: Path,
        device: torch.device,
) -> Result:
    """Train a model to the end, from where its checkpoint in the folder has it, and measure it.

    Raises:
        ImportError: A library is missing.
        OSError: An image cannot be read, or the checkpoint not written.
        RuntimeError: The loss is not finite, the checkpoint damaged, or the device out of memory.
    """
    file = folder / f'{run.name}.pth'
    checkpoint = load_checkpoint(file)
    result = Result(**checkpoint['result']) if checkpoint else Result(run.name)
    if result.top1 is not None:
        return result

    random_seed(settings.seed)
    model = create(run, len(settings.classes), settings.image_size).to(device, memory_format=torch.channels_last)
    result.params = sum(p.numel() for p in model.parameters())
    loader = DataLoader(train_set, settings.batch_size, shuffle=True, drop_last=True)
    optimizer = create_optimizer_v2(model, RECIPE['opt'], settings.lr, RECIPE['weight_decay'])
    scheduler, _ = create_scheduler_v2(
        optimizer,
        RECIPE['sched'],
        settings.epochs,
        min_lr=RECIPE['min_lr'],
        warmup_lr=RECIPE['warmup_lr'],
        warmup_epochs=min(RECIPE['warmup_epochs'], settings.epochs / 4),
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    criterion = LabelSmoothingCrossEntropy()  # as much smoothing as timm's train.py has without an option
    if checkpoint:
        model.load_state_dict(checkpoint['model'])
        optimizer.load_state_dict(checkpoint['optimizer'])

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == BF16)
    for epoch in range(len(result.losses), settings.epochs):
        # so an epoch is the same whether this process ran those before it or not, whatever the model has drawn
        # and far from the seeds beside it, whose epochs are not to be the same images one epoch later
        random_seed(settings.seed, 1000 * (1 + epoch))
        model.train()
        losses, seconds = [], []
        batches = tqdm(loader, desc=f'epoch {epoch + 1} of {settings.epochs}', unit=' batches', leave=False)
        for i, (images, classes) in enumerate(batches, 1 + epoch * len(loader)):
            start = time.perf_counter()
            images, classes = images.to(device, memory_format=torch.channels_last), classes.to(device)
            with autocast:
                logits = model(images)
            loss = criterion(logits.float(), classes)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())  # waits for the device
            seconds.append(time.perf_counter() - start)
            scheduler.step_update(i)
            if not math.isfinite(losses[-1]):
                raise RuntimeError(f'the loss in epoch {epoch + 1} is {losses[-1]}: give a smaller --lr')
        result.losses.append(statistics.mean(losses))
        result.images_per_second.append(settings.batch_size / statistics.median(seconds))
        save_checkpoint(file, result, model, optimizer)

    with autocast:
        result.top1 = accuracy(model, test_set, device)
    save_checkpoint(file, result, model)
    return result


def train_all(runs: Sequence[Run], *args: Any) -> List[Result]:
    """`train` one after the other. What fails has an error in its result, and the rest goes on.

    Raises:
        OSError: An image cannot be read, or a checkpoint not written.
    """
    results = []
    with tqdm(runs, unit=' models') as progress:
        for run in progress:
            progress.set_description(run.name)
            try:
                result = train(run, *args)
                tqdm.write(f'{run.name}: {result.top1:.2f} %', file=sys.stderr)
            except OSError:  # the next model would meet it too
                raise
            except Exception as error:  # the models are of four libraries, which raise what they like
                result = Result(run.name, error=f'{type(error).__name__}: {error}'.partition('\n')[0])
                tqdm.write(f'{run.name}: {result.error}', file=sys.stderr)
            results.append(result)
    return results


# Report

def standard_error(top1: float, images: int) -> float:
    """Of an accuracy in percent, for the choice of so many test images."""
    return math.sqrt(top1 * (100 - top1) / images)


def markdown(
        title: str,
        settings: Settings,
        results: Sequence[Result],
        picture: str,
) -> str:
    """The report: how the models were trained, what came of it, and what that is worth."""
    rows = []
    for result in results:
        row = [f'`{result.name}`']
        if result.error:
            row += ['–', 'failed', '–', '–']
        else:
            row += [
                f'{result.params / 1e6:.2f}',
                f'{result.top1:.1f} ± {standard_error(result.top1, settings.test_images):.1f}',
                three_digits(statistics.median(result.images_per_second)),
                f'{result.losses[-1]:.2f}',
            ]
        rows.append(row)
    updates = settings.epochs * (settings.images // settings.batch_size)
    return '\n\n'.join([
        report_header(title, settings.machine, settings.software),
        f'Each model: {settings.epochs} epochs of {settings.images:,} images of '
        f'{settings.image_size}x{settings.image_size} in {len(settings.classes)} classes, {updates} updates with '
        f'batches of {settings.batch_size}, learning rate {settings.lr:g}, seed {settings.seed}, {settings.precision}; '
        f'measured on {settings.test_images:,} test images.',
        markdown_table(['model', 'params (M)', 'top-1 (%)', 'training (images/s)', 'loss in the last epoch'], rows),
        f'![Accuracy against parameters and against speed]({picture})',
        '## What this shows, and what not',
        'It shows how far each model comes with the same images and updates, and with settings that suit some better '
        "than others. It doesn't show how accurate a model gets when trained to the end with settings of its own, "
        'as in the paper: one that learns more slowly may end up better.',
        'There is one seed. "±" is the standard error that comes with the number of test images; another seed, with '
        'other weights to begin with and other training images, moves each accuracy further. So models a few standard '
        'errors apart are not told apart.',
        '## How it was done',
        docstring_body(__doc__),
        *(f'`{result.name}` failed: {result.error}' for result in results if result.error),
    ]) + '\n'


def draw(runs: Sequence[Run], results: Sequence[Result], settings: Settings) -> 'Figure':
    """Accuracies against parameters, and against images per second in training."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
    figure = Figure(figsize=(13, 5.5), dpi=150, layout='constrained')
    charts = left, right = figure.subplots(1, 2, sharey=True)
    for run, result, style in zip(runs, results, marker_styles([run.family for run in runs])):
        if not result.error:
            error = standard_error(result.top1, settings.test_images)
            for chart, x in (left, result.params / 1e6), (right, statistics.median(result.images_per_second)):
                chart.errorbar(x, result.top1, error, elinewidth=0.8, label=run.name, **style)
    left.set(xlabel='parameters (million)', ylabel='top-1 (%), ± standard error', title='the best are top left')
    right.set(
        xlabel=f'training (images/s of {settings.image_size}x{settings.image_size}, {settings.precision})',
        title='the best are top right')
    for chart in charts:
        chart.set(xscale='log')
        chart.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        chart.xaxis.set_major_formatter('{x:g}')
        chart.xaxis.set_minor_formatter('')  # in less than a decade, labels of the minor ticks overlap
        chart.grid(color='#dddddd')
    figure.legend(*left.get_legend_handles_labels(), loc='outside right center')
    return figure


def number_or_all(text: str) -> Optional[int]:
    return None if text == 'all' else positive_int(text)


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
        help=f'models to train (default: all of {", ".join(models)}; with --ablation {", ".join(ABLATION)})',
    )
    parser.add_argument('--ablation', action='store_true', help='train WaveMix with other transforms than Haar')
    parser.add_argument(
        '--epochs',
        type=positive_int,
        default=2,
        metavar='N',
        help='times that each image is seen (default: %(default)s)',
    )
    for option, split, default in ('--images', 'train', '2500'), ('--test-images', 'test', '2000'):
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
        '--batch-size', type=positive_int, default=32, metavar='N', help='images in a batch (default: %(default)s)')
    parser.add_argument(
        '--lr', type=positive_float, default=3e-3, metavar='RATE', help='highest learning rate (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=42, metavar='N', help='of weights, images and order (default: %(default)s)')
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default=BF16,
        help='bf16 is mixed precision; a processor or GPU that cannot do it is faster in fp32 (default: %(default)s)',
    )
    add_device_argument(parser)
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
    args.models = args.models or (ABLATION if args.ablation else models)
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
    try:
        train_set, test_set = load_data(args.data_dir, args.images, args.test_images, args.image_size, args.seed)
        settings = Settings(
            classes=sorted(train_set.dataset.reader.class_to_idx),
            images=len(train_set),
            test_images=len(test_set),
            image_size=args.image_size,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
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
        results = train_all(runs, settings, train_set, test_set, args.output, args.device)
        report = dict(command=command_line(), settings=asdict(settings), results=list(map(asdict, results)))
        args.json.write_text(json.dumps(report, indent=1), encoding='utf-8')
        picture = Path(os.path.relpath(args.plot, args.markdown.parent)).as_posix()
        title = 'Other transforms than Haar in WaveMix' if args.ablation else 'The models of the paper, trained alike'
        args.markdown.write_text(markdown(title, settings, results, picture), encoding='utf-8')
        draw(runs, results, settings).savefig(args.plot, format='png')
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"compare_fashion_mnist.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit('compare_fashion_mnist.py: interrupted; the same command goes on from the last finished epoch.')
    print(f'{args.json}, {args.markdown}, {args.plot}')


if __name__ == '__main__':
    main()
