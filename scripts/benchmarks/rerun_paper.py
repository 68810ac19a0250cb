"""Train models of a table of the WaveMix paper by its protocol with timm's train.py, and set the table beside it.

The recipes are those in scripts/recipes/paper/, one for each data set. A model has a dropout of 0.5, and WaveMix-16/5
to 64/5 have as many levels as bring the image to 2x2. Each is trained once for each seed. What it will cost is measured
first, on a few steps with random images, and printed; loading the images comes on top.

Top-1 is that of the last epoch, so that the test images choose no epoch. "best" is the best seed's, as the paper
reports the best of three runs; mean and standard deviation (of the sample) of all seeds stand beside it. The paper does
not say which epoch it took.

With --images, as many images of each split, drawn from its classes alike, are written as an image folder first, and
the rest of the recipe stays. The models that are not ours need `pip install --group baselines`.

A run that was cut off goes on from the last finished epoch when it is started again.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).parent / 'benchmarks'))  # whose lib/ the benchmarks share

import timm
import torch
import torch.nn.functional as F
import yaml
from timm.data import create_dataset

from lib.baselines import size_kwargs  # importing it registers the models
from lib.evaluate import balanced_order
from lib.published import DATA_SETS, FAMILIES, PAPER, TOP1
from lib.report import (
    ROOT,
    SOFTWARE,
    add_device_argument,
    hardware_name,
    markdown_table,
    positive_int,
    report_header,
    write_text_whole,
)

RECIPES = ROOT / 'scripts/recipes/paper'
DROPOUT = 0.5
Split = Any  # a data set of timm's create_dataset


@dataclass
class Recipe:
    """A recipe, and its data where they were looked for."""
    name: str
    settings: Dict[str, Any]  # as in the YAML file
    data_dir: Path

    @property
    def file(self) -> Path:
        return RECIPES / f'{self.name}.yaml'

    def how_to_get_the_data(self) -> str:
        """What the head of the file says of it."""
        head = dict(line[2:].split(': ', 1) for line in self.file.read_text(encoding='utf-8').splitlines()[1:4])
        return f"get them from {head['Data']} ({head['Get it']}); '{self.data_dir}' is to hold {head['Layout']}"

    def splits(self, download: bool) -> Tuple[Split, Split]:
        """Training and test images, read as train.py reads them.

        Raises:
            ValueError: They are missing, damaged, or not what the recipe is for.
        """
        s = self.settings
        channels = s['input_size'][0]
        try:
            splits = tuple(create_dataset(
                s.get('dataset', ''), root=str(self.data_dir), split=s[key], download=download,
                class_map=s.get('class_map', ''), input_img_mode='RGB' if channels == 3 else 'L',
            ) for key in ('train_split', 'val_split'))
            image, _ = splits[0][0]
        except ImportError as error:
            raise ValueError(f'{self.name}: {error}: `pip install datasets`.') from error
        except Exception as error:  # each reader has its own
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise ValueError(
                f'{self.name} has no images that timm can read ({reason}): {self.how_to_get_the_data()}.') from error
        if s.get('dataset', '') == '' and _folder(splits[0]) == _folder(splits[1]):
            raise ValueError(f'{self.name} has no two splits: {self.how_to_get_the_data()}.')  # timm took the root
        if len(image.getbands()) != channels:
            raise ValueError(
                f"the images in '{self.data_dir}' have {len(image.getbands())} channels, and {self.file.name} takes "
                f'{channels}: change its input_size, mean and std.')
        return splits


def _folder(split: Split) -> str:
    return split.reader.root


def load_recipe(name: str, data_dir: Path) -> Recipe:
    settings = yaml.safe_load((RECIPES / f'{name}.yaml').read_text(encoding='utf-8'))
    return Recipe(name, settings, data_dir / name)


def model_kwargs(model: str, recipe: Recipe) -> Dict[str, Any]:
    """Arguments by which the paper's model for these images differs from the registered one."""
    family = next(family for family, names in FAMILIES.items() if model in names)
    if family in ('WaveMix', 'WaveMix-Lite', '2-D FNet', '2-D MLP-Mixer'):
        kwargs: Dict[str, Any] = dict(proj_drop_rate=DROPOUT)
    else:
        kwargs = dict(drop_rate=DROPOUT)
    if family == 'WaveMix-Lite' and 'stem_stride' in recipe.settings['model_kwargs']:
        kwargs['stem_stride'] = recipe.settings['model_kwargs']['stem_stride']
    return {**kwargs, **size_kwargs(model, recipe.settings['input_size'][1])}


def create_model(model: str, recipe: Recipe) -> torch.nn.Module:
    """As train.py creates it.

    Raises:
        ValueError: It takes images of other channels than the recipe's.
    """
    channels = recipe.settings['input_size'][0]
    result = timm.create_model(
        model, in_chans=channels, num_classes=recipe.settings['num_classes'], **model_kwargs(model, recipe))
    first = next((p for p in result.parameters() if p.dim() == 4), None)  # None in vit-pytorch's ViT
    if first is not None and first.shape[1] != channels:
        raise ValueError(
            f'{model} takes images of {first.shape[1]} channels, and {recipe.file.name} has {channels}: name a model '
            'that takes in_chans.')
    return result


# A part of the images

def targets(split: Split) -> List[int]:
    """Classes of all images, without reading them."""
    if hasattr(split, 'targets'):  # of torchvision
        return [int(target) for target in split.targets]
    if hasattr(split.reader, 'samples'):  # a folder
        return [target for _, target in split.reader.samples]
    return list(split.reader.dataset[split.reader.label_key])  # of the Hugging Face Hub


def write_part(recipe: Recipe, splits: Tuple[Split, Split], images: int, folder: Path) -> Recipe:
    """The recipe of an image folder with so many images of each split, drawn from its classes alike."""
    settings = {key: value for key, value in recipe.settings.items() if key != 'dataset'}
    classes = [f'{label:05d}' for label in range(settings['num_classes'])]
    class_map = folder / 'classes.txt'  # without it, classes of which no image was drawn would shift the others
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in zip(splits, ('train', 'test')):
        if (folder / name).is_dir():
            continue
        partial = folder / f'{name}.partial'
        for i in balanced_order(targets(split), seed=0)[:images]:
            image, label = split[i]
            (partial / classes[label]).mkdir(parents=True, exist_ok=True)
            image.save(partial / classes[label] / f'{i}.png')
        os.replace(partial, folder / name)
    class_map.write_text('\n'.join(classes), encoding='utf-8')
    settings.update(train_split='train', val_split='test', class_map=str(class_map.resolve()))
    return Recipe(recipe.name, settings, folder.resolve())


# Cost

def step_seconds(model: str, recipe: Recipe, device: torch.device) -> float:
    """Median of three training steps on random images in mixed precision, after one to warm up."""
    s = recipe.settings
    net = create_model(model, recipe).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), s['lr'], weight_decay=s['weight_decay'])
    images = torch.randn(s['batch_size'], *s['input_size'], device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(s['num_classes'], (s['batch_size'],), device=device)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16 if device.type == 'cpu' else torch.float16):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def hours(step: float, recipe: Recipe, images: Tuple[int, int], epochs: int) -> float:
    """Of one training. The forward pass of the test takes a third of a step, as backward takes twice as long."""
    batches = images[0] / recipe.settings['batch_size'] + images[1] / recipe.settings['batch_size'] / 3
    return epochs * batches * step / 3600


# Training

def train(model: str, recipe: Recipe, seed: int, args: argparse.Namespace) -> float:
    """Top-1 in percent after the last epoch, from where the training has come to.

    Raises:
        RuntimeError: train.py fails, or the folder holds a training with other settings.
    """
    experiment = args.output / f'{recipe.name}.{model}.seed{seed}'
    wanted = dict(
        settings=recipe.settings, model_kwargs=model_kwargs(model, recipe), epochs=args.epochs, images=args.images,
        device=args.device.type)
    note = experiment / 'rerun.json'
    if note.exists():
        if json.loads(note.read_text(encoding='utf-8')) != json.loads(json.dumps(wanted)):
            raise RuntimeError(
                f"'{experiment}' holds a training with other settings: repeat its options, or name another --output.")
    else:
        experiment.mkdir(parents=True, exist_ok=True)
        write_text_whole(note, json.dumps(wanted, indent=1))
    top1 = last_top1(experiment, args.epochs)
    if top1 is not None:
        return top1

    config = experiment / 'recipe.yaml'
    config.write_text(yaml.safe_dump(dict(
        recipe.settings, model=model, model_kwargs=wanted['model_kwargs'], epochs=args.epochs, seed=seed,
        device_modules=['timm_wavemix', 'lib.baselines'])), encoding='utf-8')
    command = [
        sys.executable, '-m', 'timm_wavemix', str(args.timm / 'train.py'), '-c', str(config),
        '--data-dir', str(recipe.data_dir), '--output', str(args.output), '--experiment', experiment.name,
        '--device', str(args.device)]
    if args.device.type == 'cpu':
        command += ['--amp-dtype', 'bfloat16', '--workers', '1']
    if (experiment / 'last.pth.tar').exists():
        command += ['--resume', str(experiment / 'last.pth.tar')]
    path = [str(ROOT), str(ROOT / 'scripts/benchmarks'), *filter(None, [os.environ.get('PYTHONPATH')])]
    with open(experiment / 'train.log', 'a', encoding='utf-8') as log:
        status = subprocess.run(
            command, env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)), stdout=log, stderr=subprocess.STDOUT
        ).returncode
    top1 = last_top1(experiment, args.epochs)
    if status or top1 is None:
        lines = [line for line in (experiment / 'train.log').read_text(encoding='utf-8').splitlines() if line.strip()]
        reason = lines[-1] if lines else f'status {status}'
        raise RuntimeError(f'train.py failed ({reason}): {experiment / "train.log"} has the rest.')
    return top1


def last_top1(experiment: Path, epochs: int) -> Optional[float]:
    """From what train.py writes after each epoch, or None before the last."""
    summary = experiment / 'summary.csv'
    if not summary.exists():
        return None
    with open(summary, newline='', encoding='utf-8') as file:
        # a training that was resumed writes its header again
        top1 = {int(row['epoch']): float(row['eval_top1']) for row in csv.DictReader(file) if row['epoch'] != 'epoch'}
    return top1.get(epochs - 1)


# Report

def markdown(args: argparse.Namespace, results: Dict[Tuple[str, str], List[float]]) -> str:
    rows = []
    for (name, model), top1 in results.items():
        published = TOP1[args.table][model][list(DATA_SETS[args.table]).index(name)]
        deviation = f' ± {statistics.stdev(top1):.2f}' if len(top1) > 1 else ''
        rows.append([
            DATA_SETS[args.table][name], f'`{model}`', f'{published:.2f}', f'{max(top1):.2f}',
            f'{statistics.mean(top1):.2f}{deviation}', str(len(top1))])
    part = f', {args.images:,} images of each split' if args.images else ''
    return '\n\n'.join([
        report_header(f'Table {args.table} of the paper, trained again', hardware_name(args.device)),
        f'{args.epochs} epoch{"s" * (args.epochs > 1)}{part}. Top-1 in percent after the last epoch.',
        markdown_table(['data', 'model', 'paper', 'best', 'mean ± standard deviation', 'seeds'], rows),
        'The paper gives the best of three runs of at most 120 epochs, and does not say of which epoch.',
    ]) + '\n'


def write_report(args: argparse.Namespace, results: Dict[Tuple[str, str], List[float]]) -> None:
    report = dict(
        table=args.table, epochs=args.epochs, images=args.images, machine=hardware_name(args.device),
        software=SOFTWARE, results=[
            dict(data=name, model=model, top1=top1) for (name, model), top1 in results.items()])
    write_text_whole(args.output / f'table_{args.table}.json', json.dumps(report, indent=1))
    write_text_whole(args.output / f'table_{args.table}.md', markdown(args, results))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', type=int, choices=DATA_SETS, required=True, help='table of the paper')
    parser.add_argument(
        '--data-sets', nargs='+', metavar='NAME', help='columns of the table (default: all), named as the recipes are')
    parser.add_argument(
        '--models', nargs='+', metavar='NAME', help='rows of the table (default: those of WaveMix)')
    parser.add_argument('--seeds', type=positive_int, default=3, metavar='N', help='trainings (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=positive_int, default=120, metavar='N', help='of a training (default: %(default)s)')
    parser.add_argument('--images', type=positive_int, metavar='N', help='of each split (default: all)')
    parser.add_argument(
        '--data-dir', type=Path, default='data', metavar='DIR',
        help='a folder with one for each data set (default: %(default)s)')
    parser.add_argument(
        '--dataset-download', action='store_true', help='let torchvision download CIFAR, MNIST, Fashion-MNIST')
    parser.add_argument(
        '--timm', type=Path, default='pytorch-image-models', metavar='DIR',
        help="timm's repository, of scripts/clone_timm.py (default: %(default)s)")
    parser.add_argument(
        '--output', type=Path, default='output/rerun_paper', metavar='DIR',
        help='trainings and tables (default: %(default)s)')
    parser.add_argument('--dry-run', action='store_true', help='print the cost and end')
    add_device_argument(parser)
    args = parser.parse_args()
    columns, rows = DATA_SETS[args.table], TOP1[args.table]
    args.data_sets = args.data_sets or list(columns)
    args.models = args.models or [name for name in rows if name.startswith('wavemix')]
    for kind, names, known in ('data set', args.data_sets, columns), ('model', args.models, rows):
        unknown = [name for name in names if name not in known]
        if unknown:
            parser.error(f"table {args.table} has no {kind} {', '.join(unknown)}: name some of {', '.join(known)}.")
    if not args.dry_run and not (args.timm / 'train.py').is_file():
        parser.error(f"there is no '{args.timm / 'train.py'}': get it with scripts/clone_timm.py, or give --timm.")
    args.output = args.output.resolve()
    args.timm = args.timm.resolve()
    return args


def main() -> None:
    args = parse_args()
    try:
        recipes = [load_recipe(name, args.data_dir.resolve()) for name in args.data_sets]
        splits = {recipe.name: recipe.splits(args.dataset_download) for recipe in recipes}
        sizes = {name: tuple(map(len, both)) for name, both in splits.items()}
        for recipe in recipes:  # all that can be wrong, before anything is computed
            if args.images and min(sizes[recipe.name]) < args.images:
                train_images, test_images = sizes[recipe.name]
                raise ValueError(
                    f'{recipe.name} has {train_images} training and {test_images} test images, not {args.images} of '
                    'each: give fewer --images.')
            for model in args.models:
                create_model(model, recipe)
        if args.images:
            recipes = [
                write_part(r, splits[r.name], args.images, args.output / f'{r.name}.{args.images}_images')
                for r in recipes]
            sizes = dict.fromkeys(splits, (args.images, args.images))

        rows, total = [], 0.
        for recipe in recipes:
            for model in args.models:
                step = step_seconds(model, recipe, args.device)
                cost = hours(step, recipe, sizes[recipe.name], args.epochs)
                total += cost * args.seeds
                rows.append([recipe.name, f'{PAPER[model].name}', f'{step:.3f}', f'{cost:.2f}'])
        print(markdown_table(['data', 'model', 'seconds a step', 'hours a training'], rows))
        print(f'{args.seeds} trainings of each: {total:.2f} hours on {hardware_name(args.device)}', flush=True)
        if args.dry_run:
            return

        results: Dict[Tuple[str, str], List[float]] = {}
        for recipe in recipes:
            for model in args.models:
                for seed in range(42, 42 + args.seeds):
                    top1 = train(model, recipe, seed, args)
                    print(f'{recipe.name}, {model}, seed {seed}: {top1:.2f} %', flush=True)
                    results.setdefault((recipe.name, model), []).append(top1)
                    write_report(args, results)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"rerun_paper.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit('rerun_paper.py: interrupted; the same command goes on from the last finished epoch.')
    print(args.output / f'table_{args.table}.md')


if __name__ == '__main__':
    main()
