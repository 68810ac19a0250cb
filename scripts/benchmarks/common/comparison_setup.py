"""How a comparison of trainings begins: its arguments, its images, its settings, and what it will cost."""
import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Optional, Sequence

from timm.data import create_transform
from tqdm import tqdm

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.comparison import (
    RECIPE,
    Bench,
    Data,
    Report,
    Run,
    Settings,
    estimate,
    measure_steps,
    train_all,
)
from scripts.benchmarks.common.images import balanced_subset, load_split
from scripts.benchmarks.common.step import BF16, PRECISIONS


def load_data(args: argparse.Namespace) -> Data:
    """Read the splits.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: A folder has no images.
        ValueError: A folder has too few images, or they do not have the same classes.
    """
    common = dict(input_size=args.image_size, **{key: RECIPE[key] for key in ('mean', 'std', 'crop_pct')})
    augmentation = {key: RECIPE[key] for key in ('scale', 'ratio', 'hflip', 'color_jitter')}
    train_set = load_split(args.data_dir, 'train', transform=create_transform(
        is_training=True, no_aug=not args.aug, interpolation=RECIPE['train_interpolation'], **augmentation, **common))
    others = {}
    for split, images in ('validation', args.validation_images), ('test', args.test_images):
        if split == 'validation' and len(args.lr) == 1:
            continue  # there is nothing to choose
        dataset = load_split(args.data_dir, split, transform=create_transform(**common))
        differing = set(train_set.reader.class_to_idx) ^ set(dataset.reader.class_to_idx)
        if differing:
            raise ValueError(
                f"'{args.data_dir}' has no images of {', '.join(sorted(differing))} in one of train/ and {split}/: "
                'both need them all.')
        others[split] = balanced_subset(dataset, images, seed=0)
    return Data(train_set, others.get('validation'), others['test'])


def make_settings(args: argparse.Namespace, data: Data) -> Settings:
    """
    Raises:
        ValueError: There are too few images.
    """
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
        machine=report.hardware_name(args.device),
        software=report.SOFTWARE,
        no_aug=not args.aug,
    )
    if settings.images < settings.batch_size:
        raise ValueError(f'{settings.images} images do not fill a batch: give --batch-size {settings.images} or less.')
    return settings


def check_settings(folder: Path, settings: Settings) -> None:
    """Note in a folder the settings of its trainings.

    Raises:
        ValueError: It holds trainings with others.
    """
    file, values = folder / 'settings.json', json.loads(json.dumps(asdict(settings)))
    if file.exists():
        earlier = json.loads(file.read_text(encoding='utf-8'))
        changes = [f'{key} {earlier.get(key)}, not {values[key]}' for key in values if earlier.get(key) != values[key]]
        if changes:
            raise ValueError(
                f"the trainings in '{folder}' have {'; '.join(changes)}: repeat their options to go on with them, or "
                'name another folder with --work.')
    command.write_text_whole(file, json.dumps(values, indent=1))


def add_arguments(parser: argparse.ArgumentParser, updates: int, lrs: Sequence[float], name: str) -> None:
    """The arguments of both commands, with these defaults."""
    parser.add_argument(
        '--data-dir', type=Path, default='fashion_mnist', metavar='FOLDER',
        help='train/, test/ and, where there are learning rates to choose from, validation/, with a folder for each '
             'class, as scripts/prepare_fashion_mnist.py writes them (default: %(default)s)')
    parser.add_argument(
        '--updates', type=command.positive_int, default=updates, metavar='N',
        help='updates of a training where they are equal (default: %(default)s)')
    for option, split, default in (
            ('--images', 'train', '10000'), ('--validation-images', 'validation', '500'),
            ('--test-images', 'test', '1000')):
        parser.add_argument(
            option, type=command.number_or_all, default=default, metavar='N',
            help=f"how many of {split}/, or 'all' (default: %(default)s)")
    parser.add_argument(
        '--image-size', type=command.positive_int, default=28, metavar='PIXELS',
        help='side to resize to (default: %(default)s)')
    parser.add_argument(
        '--aug', action=argparse.BooleanOptionalAction, default=True,
        help='random crops and flips, which the paper does without (default: %(default)s)')
    parser.add_argument(
        '--batch-size', type=command.positive_int, default=16, metavar='N',
        help='images in a batch (default: %(default)s)')
    parser.add_argument(
        '--lr', type=command.positive_float, nargs='+', default=lrs, metavar='RATE',
        help=f'highest learning rates to choose from (default: {" ".join(map(str, lrs))})')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[42, 43, 44], metavar='N',
        help='of weights, images and order (default: 42 43 44)')
    parser.add_argument(
        '--precision', choices=PRECISIONS, default=BF16,
        help='bf16 is mixed precision; a processor or GPU that cannot do it is faster in fp32 (default: %(default)s)')
    command.add_device_argument(parser)
    parser.add_argument('--dry-run', action='store_true', help='measure the steps, print the cost and end')
    parser.add_argument(
        '--work', type=Path, default=Path('output', name), metavar='FOLDER',
        help='where trainings are kept; finished ones are not repeated (default: %(default)s)')
    command.add_output_arguments(parser, name)


def compare(name: str, runs: Sequence[Run], budgets: Sequence[str], args: argparse.Namespace) -> Optional[Report]:
    """Train these models as the arguments say; None after a dry run."""
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # by pytorch_wavelets
    warnings.filterwarnings('ignore', "Using padding='same' with even kernel lengths")  # by ConvMixer
    command.limit_memory(args.device)
    data = load_data(args)
    bench = Bench(make_settings(args, data), data, args.work, args.device)
    args.work.mkdir(parents=True, exist_ok=True)
    check_settings(args.work, bench.settings)
    steps, errors = measure_steps(runs, bench)
    minutes = estimate(runs, budgets, bench.settings, steps) / 60
    tqdm.write(
        f'{minutes:.0f} minutes on {bench.settings.machine}, less what is done already, and reading the images',
        file=sys.stderr)
    for model, error in errors.items():
        tqdm.write(f'{model}: {error}', file=sys.stderr)
    if args.dry_run:
        return None
    rows = train_all(runs, budgets, steps, errors, bench)
    return Report(command.command_line(name), bench.settings, rows)
