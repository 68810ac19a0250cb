"""Train models of a table of the WaveMix paper by its protocol, and set the table beside it.

The recipes are in scripts/recipes/paper/, one for each data set. A model has a dropout of 0.5, and WaveMix-16/5 to 64/5
have enough levels to reduce the image to 2x2. Each is trained once for each seed. What it will cost is measured first,
on a few steps with random images, and printed; loading the images comes on top.

--protocol paper is section 4.3, by timm's train.py. --protocol authors is that of the authors' public scripts: AdamW
until 20 epochs bring nothing, then SGD from the best epoch, in fp32; the mean image of the training set is subtracted.

With --images, this many images of each split, drawn from its classes alike, are written as an image folder first, and
the rest of the recipe stays. The models that are not ours need `pip install --group baselines`. A run that was cut off
goes on from the last finished epoch when it is started again.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import torch
import yaml
from timm.utils import random_seed

from scripts.benchmarks.common import authors_protocol, command, report
from scripts.benchmarks.common.authors_protocol import Epoch, best_index
from scripts.benchmarks.common.paper import DATA_SETS, PAPER, TOP1, TOP5
from scripts.benchmarks.common.paper_recipes import (
    Recipe,
    create_model,
    load_paper_recipe,
    model_kwargs,
    write_part,
)
from scripts.benchmarks.common.step import BF16, FP32
from scripts.benchmarks.common.timing import alternate, seconds_of
from scripts.benchmarks.common.training import Learner

NAME = 'rerun_paper'
PROTOCOLS = {'paper': BF16, 'authors': FP32}  # with the precision of the forward pass
NOTES = {
    'paper': 'The best epoch has the highest top-1 on them; the last one does not depend on them.',
    'authors': 'The best epoch, the start of SGD and the end are chosen on them, so all figures are too high for new '
    'images.'}


@dataclass
class Result:
    """The trainings of a model on a data set."""
    data: str
    model: str
    trainings: List[List[Epoch]] = field(default_factory=list)  # of each seed

    @property
    def last(self) -> Epoch:
        """The last epoch of the best seed."""
        return max((epochs[-1] for epochs in self.trainings), key=lambda epoch: epoch.top1)

    @property
    def best(self) -> Epoch:
        """The best epoch of all seeds."""
        return max((epochs[best_index(epochs)] for epochs in self.trainings), key=lambda epoch: epoch.top1)


@dataclass
class Report(report.Measured):
    protocol: str
    table: int
    epochs: int
    images: Optional[int]  # of each split, None for all
    results: List[Result] = field(default_factory=list)


# Cost

def update_seconds(model: str, recipe: Recipe, precision: str, device: torch.device) -> float:
    """Median of three training steps on random images, after one to warm up."""
    s = recipe.settings
    net = create_model(model, recipe).to(device, memory_format=torch.channels_last).train()
    learner = Learner(net, torch.optim.Adam(net.parameters(), s['lr'], weight_decay=s['weight_decay']), precision)
    images = torch.randn(s['batch_size'], *s['input_size'], device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(s['num_classes'], (s['batch_size'],), device=device)
    seconds, errors = alternate(
        {model: partial(seconds_of, partial(learner.update, images, labels), device)}, 3, f'{model}, a step', warm_up=1)
    for error in errors.values():
        raise error
    return statistics.median(seconds[model])


def hours(step: float, recipe: Recipe, images: Tuple[int, int], epochs: int) -> float:
    """Of one training. The forward pass of the test takes a third of a step, as backward takes twice as long."""
    batches = images[0] / recipe.settings['batch_size'] + images[1] / recipe.settings['batch_size'] / 3
    return epochs * batches * step / 3600


def print_cost(recipes: List[Recipe], sizes: Dict[str, Tuple[int, int]], args: argparse.Namespace) -> None:
    rows, total = [], 0.
    for recipe in recipes:
        for model in args.models:
            step = update_seconds(model, recipe, PROTOCOLS[args.protocol], args.device)
            cost = hours(step, recipe, sizes[recipe.name], args.epochs)
            total += cost * args.seeds
            rows.append([recipe.name, PAPER[model].name, f'{step:.3f}', f'{cost:.2f}'])
    print(report.markdown_table(['data', 'model', 'seconds a step', 'hours a training'], rows))
    print(f'{args.seeds} trainings of each: {total:.2f} hours on {report.hardware_name(args.device)}', flush=True)


# Training

def train(model: str, recipe: Recipe, seed: int, args: argparse.Namespace) -> List[Epoch]:
    """Train to the end, from where the training has come to.

    Raises:
        RuntimeError: train.py fails, the loss is not finite, or the folder holds a training with other settings.
        ValueError: The state of the training is damaged.
    """
    experiment = args.output / f'{recipe.name}.{model}.seed{seed}'
    wanted = dict(
        protocol=args.protocol, settings=recipe.settings, model_kwargs=model_kwargs(model, recipe), epochs=args.epochs,
        images=args.images, device=args.device.type)
    note = experiment / 'rerun.json'
    if note.exists():
        if json.loads(note.read_text(encoding='utf-8')) != json.loads(json.dumps(wanted)):
            raise RuntimeError(
                f"'{experiment}' holds a training with other settings: repeat its options, or name another --output.")
    else:
        experiment.mkdir(parents=True, exist_ok=True)
        command.write_text_whole(note, json.dumps(wanted, indent=1))
    if args.protocol == 'authors':
        random_seed(seed)
        net = create_model(model, recipe).to(args.device, memory_format=torch.channels_last)
        batches = authors_protocol.load_batches(recipe, args.device, args.dataset_download)
        return authors_protocol.train(net, *batches, experiment / 'last.pth.tar', seed, args.epochs)
    if len(read_summary(experiment)) < args.epochs:
        run_train_script(model, recipe, seed, args, experiment)
    epochs = read_summary(experiment)
    if len(epochs) < args.epochs:
        raise RuntimeError(f"train.py has written no result of the last epoch: see '{experiment / 'train.log'}'.")
    return epochs


def run_train_script(
        model: str, recipe: Recipe, seed: int, args: argparse.Namespace, experiment: Path) -> None:
    """Let timm's train.py train.

    Raises:
        RuntimeError: It fails.
    """
    config, log_file = experiment / 'recipe.yaml', experiment / 'train.log'
    config.write_text(yaml.safe_dump(dict(
        recipe.settings, model=model, model_kwargs=model_kwargs(model, recipe), epochs=args.epochs, seed=seed,
        amp=recipe.settings['amp'] and args.device.type != 'cpu',  # bfloat16 slows down most CPUs
        device_modules=['timm_wavemix', 'scripts.benchmarks.models.baselines'])), encoding='utf-8')
    words = [
        sys.executable, '-m', 'timm_wavemix', str(args.timm / 'train.py'), '-c', str(config),
        '--data-dir', str(recipe.data_dir), '--output', str(args.output), '--experiment', experiment.name,
        '--device', str(args.device)]
    if args.device.type == 'cpu':
        words += ['--workers', '1']
    if (experiment / 'last.pth.tar').exists():
        words += ['--resume', str(experiment / 'last.pth.tar')]
    path = os.pathsep.join([str(command.ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    with open(log_file, 'a', encoding='utf-8') as log:
        status = subprocess.run(
            words, env=dict(os.environ, PYTHONPATH=path), stdout=log, stderr=subprocess.STDOUT).returncode
    if status:
        lines = [line for line in log_file.read_text(encoding='utf-8').splitlines() if line.strip()]
        reason = lines[-1] if lines else f'status {status}'
        raise RuntimeError(f"train.py failed ({reason}): '{log_file}' has the rest.")


def read_summary(experiment: Path) -> List[Epoch]:
    """The epochs that train.py has finished."""
    summary = experiment / 'summary.csv'
    if not summary.exists():
        return []
    with open(summary, newline='', encoding='utf-8') as file:
        # a training that was resumed writes its header again, and maybe an epoch
        rows = {int(row['epoch']): row for row in csv.DictReader(file) if row['epoch'] != 'epoch'}
    return [Epoch('Adam', float(row['eval_top1']), float(row['eval_top5'])) for _, row in sorted(rows.items())]


# Report

def paper_top1(table: int, result: Result) -> float:
    return TOP1[table][result.model][list(DATA_SETS[table]).index(result.data)]


def paper_top5(result: Result) -> str:
    value = TOP5.get(result.data, {}).get(result.model)
    return '–' if value is None else f'{value:.2f}'


def mean_text(result: Result) -> str:
    last = [epochs[-1].top1 for epochs in result.trainings]
    return f'{statistics.mean(last):.2f}{f" ± {statistics.stdev(last):.2f}" if len(last) > 1 else ""}'


def epochs_text(result: Result) -> str:
    """The epochs of each seed."""
    counts = [Counter(epoch.optimizer for epoch in epochs) for epochs in result.trainings]
    return '; '.join(' + '.join(f'{n} {optimizer}' for optimizer, n in count.items()) for count in counts)


def markdown(results: Report) -> str:
    part = f', {results.images:,} images of each split' if results.images else ''
    columns = [
        ('data', lambda result: DATA_SETS[results.table][result.data]),
        ('model', lambda result: f'`{result.model}`'),
        ('paper', lambda result: f'{paper_top1(results.table, result):.2f}'),
        ('best epoch', lambda result: f'{result.best.top1:.2f}'),
        ('last epoch', lambda result: f'{result.last.top1:.2f}'),
        ('last epoch, mean ± standard deviation', mean_text),
        ('top-5: paper', paper_top5),
        ('top-5: best epoch', lambda result: f'{result.best.top5:.2f}'),
        ('top-5: last epoch', lambda result: f'{result.last.top5:.2f}'),
        ('epochs of each seed', epochs_text),
    ]
    return report.pages([
        f'# Table {results.table} of the paper, trained again',
        f'On {results.machine}, with {results.software}, by\n\n```sh\n{results.command}\n```',
        f'Protocol {results.protocol}, at most {results.epochs} epoch{"s" * (results.epochs > 1)}{part}. Accuracies '
        f'are in percent of the test images, for the best seed. {NOTES[results.protocol]}',
        report.table(columns, results.results),
        'The paper gives the best of three runs of at most 120 epochs, and does not say of which epoch. Its authors\' '
        'scripts print the best.',
    ])


# The command

def prepare(args: argparse.Namespace) -> Tuple[List[Recipe], Dict[str, Tuple[int, int]]]:
    """The recipes, and the sizes of their splits, after all that can be wrong was checked.

    Raises:
        ValueError: Images are missing, or a model does not take them.
    """
    recipes = [load_paper_recipe(name, args.data_dir.resolve()) for name in args.data_sets]
    splits = {recipe.name: recipe.splits(args.dataset_download) for recipe in recipes}
    sizes = {name: tuple(map(len, both)) for name, both in splits.items()}
    for recipe in recipes:
        if args.images and min(sizes[recipe.name]) < args.images:
            train_images, test_images = sizes[recipe.name]
            raise ValueError(
                f'{recipe.name} has {train_images} training and {test_images} test images, not {args.images} of each: '
                'give fewer --images.')
        for model in args.models:
            create_model(model, recipe)
    if args.images:
        recipes = [
            write_part(r, splits[r.name], args.images, args.output / f'{r.name}.{args.images}_images') for r in recipes]
        sizes = dict.fromkeys(splits, (args.images, args.images))
    return recipes, sizes


def check_arguments(args: argparse.Namespace) -> None:
    """Fill in what depends on the table.

    Raises:
        argparse.ArgumentError: The table has no such model or data set, or there is no train.py.
    """
    columns, rows = DATA_SETS[args.table], TOP1[args.table]
    args.data_sets = args.data_sets or list(columns)
    args.models = args.models or [name for name in rows if name.startswith('wavemix')]
    for kind, names, known in ('data set', args.data_sets, columns), ('model', args.models, rows):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentError(
                None, f"table {args.table} has no {kind} {', '.join(unknown)}: name some of {', '.join(known)}.")
    if args.protocol == 'paper' and not args.dry_run and not (args.timm / 'train.py').is_file():
        raise argparse.ArgumentError(
            None, f"there is no '{args.timm / 'train.py'}': get it with `timm-wavemix clone-timm`, or give --timm.")
    args.output, args.timm = args.output.resolve(), args.timm.resolve()


def work(args: argparse.Namespace) -> List[Path]:
    check_arguments(args)
    recipes, sizes = prepare(args)
    print_cost(recipes, sizes, args)
    if args.dry_run:
        return []
    results = Report(
        command.command_line(NAME), report.hardware_name(args.device), report.SOFTWARE, args.protocol, args.table,
        args.epochs, args.images)
    files = [args.output / f'table_{args.table}{suffix}' for suffix in ('.json', '.md')]
    for recipe in recipes:
        for model in args.models:
            results.results.append(Result(recipe.name, model))
            for seed in range(42, 42 + args.seeds):
                epochs = train(model, recipe, seed, args)
                last, best = epochs[-1], epochs[best_index(epochs)]
                print(
                    f'{recipe.name}, {model}, seed {seed}: top-1 {last.top1:.2f} % and top-5 {last.top5:.2f} % after '
                    f'the last epoch, {best.top1:.2f} % and {best.top5:.2f} % after the best', flush=True)
                results.results[-1].trainings.append(epochs)
                command.write_text_whole(files[0], json.dumps(asdict(results), indent=1))
                command.write_text_whole(files[1], markdown(results))
    return files


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--protocol', choices=PROTOCOLS, default='paper', help="section 4.3, or the authors' scripts (default: paper)")
    parser.add_argument('--table', type=int, choices=DATA_SETS, required=True, help='table of the paper')
    parser.add_argument(
        '--data-sets', nargs='+', metavar='NAME', help='columns of the table (default: all), named as the recipes are')
    parser.add_argument(
        '--models', nargs='+', metavar='NAME', help='rows of the table (default: all WaveMix models)')
    parser.add_argument(
        '--seeds', type=command.positive_int, default=3, metavar='N', help='trainings (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=command.positive_int, default=120, metavar='N',
        help='of a training; with --protocol authors, at most this many (default: %(default)s)')
    parser.add_argument('--images', type=command.positive_int, metavar='N', help='of each split (default: all)')
    parser.add_argument(
        '--data-dir', type=Path, default='data', metavar='DIR',
        help='a folder with one for each data set (default: %(default)s)')
    parser.add_argument(
        '--dataset-download', action='store_true', help='let torchvision download CIFAR, MNIST, Fashion-MNIST')
    parser.add_argument(
        '--timm', type=Path, default='pytorch-image-models', metavar='DIR',
        help="timm's repository, from `timm-wavemix clone-timm` (default: %(default)s)")
    parser.add_argument(
        '--output', type=Path, default='output/rerun_paper', metavar='DIR',
        help='trainings and tables (default: %(default)s)')
    parser.add_argument('--dry-run', action='store_true', help='print the cost and end')
    command.add_device_argument(parser)
    command.run(parser, work, argv, 'the same command goes on from the last finished epoch')


if __name__ == '__main__':
    main()
