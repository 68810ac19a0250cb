"""Train by a recipe of timm's train.py, with all images in the memory of the device.

A GPU crops, flips and erases small images faster, a batch at a time, than timm's data loaders prepare them one by one.
This script reads the same YAML, and writes `args.yaml`, `summary.csv`, and `last.pth.tar` after each epoch. What it
can't do, it refuses. Repeat the command to resume a training.

Crops are drawn as in train.py, except that a box that is too wide or too high is cut to the image, where timm draws
another. All images of a folder must have the size of the recipe's `input_size`.
"""
import argparse
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import timm
import torch
import yaml
from timm.utils import random_seed, update_summary
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from scripts.benchmarks.common import command
from scripts.benchmarks.common.augment import Normalize, crop_and_flip, erase
from scripts.benchmarks.common.images import load_split
from scripts.benchmarks.common.recipe import load_own_recipe
from scripts.benchmarks.common.step import BF16, FP32
from scripts.benchmarks.common.training import create_learner, evaluate, load_state, save_state
from timm_wavemix.checkpoints import load_checkpoint

NAME = 'train_in_memory'


def load_images(
        data: Path,
        split: str,
        input_size: Tuple[int, int, int],
        num_classes: int,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """All images of a split `(N, C, H, W)` in 0 to 255, and their classes.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
        ValueError: The images do not have this size, or are of another number of classes.
    """
    dataset = load_split(data, split, transform=pil_to_tensor, input_img_mode='L' if input_size[0] == 1 else 'RGB')
    found = len(dataset.reader.class_to_idx)
    if found != num_classes:
        raise ValueError(
            f"'{data / split}' has {found} classes, and the recipe's num_classes is {num_classes}: change one of them.")
    pairs = [dataset[i] for i in tqdm(range(len(dataset)), desc=split, unit=' images', leave=False)]
    wrong = next((image.shape[1:] for image, _ in pairs if image.shape[1:] != tuple(input_size[1:])), None)
    if wrong:
        raise ValueError(
            f"'{data / split}' has an image of {wrong[0]}x{wrong[1]}, and the recipe wants "
            f"{input_size[1]}x{input_size[2]}: use timm's train.py, which resizes.")
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def create_model(recipe: Dict[str, Any], initial: Optional[Path]) -> nn.Module:
    """The model of a recipe, with random weights, or the EMA weights of a checkpoint.

    Raises:
        ImportError: A module that registers models is missing.
        OSError, RuntimeError, ValueError: The checkpoint cannot be read, or is one of another model.
    """
    for module in recipe.get('device_modules', ()):  # they register models, as in train.py
        import_module(module)
    model = timm.create_model(
        recipe['model'], num_classes=recipe['num_classes'], in_chans=recipe['input_size'][0],
        **recipe.get('model_kwargs', {}))
    if initial:
        model.load_state_dict(load_checkpoint(initial, use_ema=True).state_dict())
    return model


def load_earlier(file: Path, recipe: Dict[str, Any]) -> Dict[str, Any]:
    """The state of an earlier run of the same training.

    Raises:
        ValueError: The file is of another one, or damaged.
    """
    state = load_state(file)
    if state.get('args') != recipe:
        raise ValueError(
            f"'{file.parent}' holds a training by another recipe: repeat that, or name another --experiment.")
    return state


def augmented_batches(
        recipe: Dict[str, Any], normalize: Normalize, images: torch.Tensor, labels: torch.Tensor,
) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
    """The full batches of an epoch, augmented."""
    batch_size = recipe['batch_size']
    order = torch.randperm(len(images), device=images.device)[:len(images) // batch_size * batch_size]
    for rows in order.split(batch_size):
        batch = crop_and_flip(normalize(images[rows]), recipe['scale'], recipe['ratio'], recipe['hflip'])
        batch = erase(batch, recipe['reprob'], recipe['remode'])
        yield batch.contiguous(memory_format=torch.channels_last), labels[rows]


def train(recipe: Dict[str, Any], data: Path, folder: Path, device: torch.device, initial: Optional[Path]) -> None:
    """Train to the end, from where `last.pth.tar` in the folder has it, else from the EMA weights of `initial`.

    Raises:
        ImportError: A module that registers models is missing.
        OSError: The images or the checkpoint cannot be read, or the folder not be written.
        RuntimeError: A folder has no images, or the loss is not finite.
        ValueError: The images do not fit the recipe or fill no batch, or the folder has another training.
    """
    random_seed(recipe['seed'])
    model = create_model(recipe, initial).to(device, memory_format=torch.channels_last)
    normalize = Normalize(recipe['mean'], recipe['std']).to(device)
    (images, labels), validation = (
        [t.to(device) for t in load_images(data, recipe[split], recipe['input_size'], recipe['num_classes'])]
        for split in ('train_split', 'val_split'))
    updates = len(images) // recipe['batch_size']  # of an epoch
    if not updates:
        raise ValueError(f'{len(images)} images do not fill a batch: give a batch_size of {len(images)} or less.')
    precision = BF16 if recipe['amp'] else FP32
    learner = create_learner(
        model, precision, recipe['opt'], recipe['lr'], recipe['weight_decay'], recipe['epochs'], updates,
        recipe['model_ema_decay'], **{key: recipe[key] for key in ('warmup_epochs', 'warmup_lr', 'min_lr')})
    file, start = folder / 'last.pth.tar', 0
    if file.exists():
        state = load_earlier(file, recipe)
        learner.load(state)
        start = state['epoch'] + 1
    command.write_text_whole(folder / 'args.yaml', yaml.safe_dump(recipe, sort_keys=False))

    def batches(epoch: int) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
        return augmented_batches(recipe, normalize, images, labels)

    def validation_batches() -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
        for batch, classes in zip(*(tensor.split(recipe['validation_batch_size']) for tensor in validation)):
            yield normalize(batch).contiguous(memory_format=torch.channels_last), classes

    began = time.perf_counter()
    for epoch, loss in learner.epochs(batches, start, recipe['epochs'], updates, recipe['seed']):
        metrics = evaluate(learner.ema.module, validation_batches(), precision)
        save_state(file, dict(learner.state(), epoch=epoch, arch=recipe['model'], args=recipe, version=2))
        update_summary(
            epoch, dict(loss=loss), metrics, folder / 'summary.csv', lr=learner.optimizer.param_groups[0]['lr'],
            write_header=epoch == 0)
        print(
            f'epoch {epoch}: loss {loss:.3f}, {recipe["val_split"]} top-1 {metrics["top1"]:.2f} % (EMA), '
            f'{time.perf_counter() - began:.1f} s', flush=True)
        began = time.perf_counter()


def work(args: argparse.Namespace) -> List[Path]:
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    recipe = load_own_recipe(args.config)
    folder = args.output / args.experiment
    folder.mkdir(parents=True, exist_ok=True)
    train(recipe, args.data_dir, folder, args.device, args.initial_checkpoint)
    return [folder / 'last.pth.tar']


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument('-c', '--config', type=Path, required=True, metavar='YAML', help='the recipe')
    parser.add_argument('--data-dir', type=Path, required=True, metavar='DIR', help='folder with its splits')
    parser.add_argument('--experiment', required=True, metavar='NAME', help='name of the training')
    parser.add_argument(
        '--output', type=Path, default='output/train', metavar='DIR', help='trainings (default: %(default)s)')
    parser.add_argument(
        '--initial-checkpoint', type=Path, metavar='FILE', help='last.pth.tar of another training, to start from')
    command.add_device_argument(parser)
    command.run(parser, work, argv, 'the same command goes on from the last finished epoch')


if __name__ == '__main__':
    main()
