"""Train by a recipe of timm's train.py, with all images in the memory of the device.

Images of 28x28 are cropped, flipped and erased faster by a GPU, a batch at a time, than timm's data loaders bring them
one by one. This script reads the same YAML, and writes `summary.csv`, and `last.pth.tar` after each epoch. What it
can't do, it refuses. Repeat the command to resume a training.

Crops are drawn as in train.py, but a box that is too wide or too high is cut to the image, where timm draws another.
All images of a folder must have the size of the recipe's `input_size`.
"""
import argparse
import math
import pickle
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import timm
import torch
import torch.nn.functional as F
import yaml
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, random_seed, update_summary
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from benchmarks.lib.evaluate import load_split
from benchmarks.lib.report import add_device_argument, write_whole

# of train.py, with the only value that is done here
FIXED = dict(
    crop_pct=1.0, color_jitter=0.0, train_interpolation='bilinear', sched='cosine', sched_on_updates=True,
    model_ema=True, model_ema_warmup=True, channels_last=True, amp=True, amp_dtype='bfloat16')
NEEDED = (
    'model', 'num_classes', 'train_split', 'val_split', 'input_size', 'mean', 'std', 'batch_size',
    'validation_batch_size', 'scale', 'ratio', 'hflip', 'reprob', 'remode', 'epochs', 'opt', 'lr', 'weight_decay',
    'warmup_epochs', 'warmup_lr', 'min_lr', 'model_ema_decay', 'seed')
TEXTS = 'model', 'train_split', 'val_split', 'remode', 'opt'  # the others are numbers, or lists of numbers
OPTIONAL = 'device_modules', 'model_kwargs'
WITHOUT_EFFECT = 'workers', 'eval_metric', 'checkpoint_hist', 'recovery_interval', 'log_interval'
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)  # of timm's random erasing


def load_recipe(file: Path) -> Dict[str, Any]:
    """Read a recipe.

    Raises:
        OSError: It cannot be read.
        ValueError: It lacks a setting, or has one that this script can't do.
    """
    try:
        recipe = yaml.safe_load(file.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ValueError(f"'{file}' is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"'{file}' has no settings: name a recipe, such as one of scripts/recipes.")
    missing = [key for key in (*FIXED, *NEEDED) if key not in recipe]
    if missing:
        raise ValueError(f"'{file}' does not say {', '.join(missing)}: add it, or use timm's train.py.")
    texts = [f'{key}: {recipe[key]}' for key in NEEDED if isinstance(recipe[key], str) and key not in TEXTS]
    if texts:  # YAML takes 1e-3 for one
        raise ValueError(f"'{file}' has {', '.join(texts)}, which is no number to YAML: write it as 0.001.")
    foreign = [f'{key}: {value}' for key, value in recipe.items() if FIXED.get(key, value) != value
               or key not in (*FIXED, *NEEDED, *OPTIONAL, *WITHOUT_EFFECT)]
    if recipe['remode'] not in ('const', 'pixel'):
        foreign.append(f"remode: {recipe['remode']}")
    if foreign:
        raise ValueError(f"'{file}' has {', '.join(foreign)}, which this script can't do: use timm's train.py.")
    return recipe


# Images

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


class Normalize(nn.Module):
    """Images in 0 to 255 to those that the model takes."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for key, values in ('mean', mean), ('std', std):
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images / 255 - self.mean) / self.std


def uniform(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    """A number for each image of a batch."""
    return torch.empty(len(like), device=like.device).uniform_(low, high)


def random_box(area: Tuple[float, float], ratio: Tuple[float, float], images: torch.Tensor) -> Tuple[torch.Tensor, ...]:
    """Left, top, width and height in whole pixels of a random box in each image `(N, C, H, W)`, `(N,)` each.

    Args:
        area: Lowest and highest part of the image's area.
        ratio: Lowest and highest ratio of width to height.
        images: The images.
    """
    height, width = images.shape[2:]
    part, aspect = uniform(*area, images), uniform(math.log(ratio[0]), math.log(ratio[1]), images).exp()
    w = (width * (part * aspect).sqrt()).round().clamp(1, width)
    h = (height * (part / aspect).sqrt()).round().clamp(1, height)
    left, top = ((uniform(0, 1, images) * (side - part + 1)).floor() for side, part in ((width, w), (height, h)))
    return left, top, w, h


def crop_and_flip(
        images: torch.Tensor, scale: Tuple[float, float], ratio: Tuple[float, float], hflip: float) -> torch.Tensor:
    """A random box of each image, resized to the image's size, and mirrored with the probability `hflip`."""
    height, width = images.shape[2:]
    left, top, w, h = random_box(scale, ratio, images)
    mirror = 1 - 2 * (uniform(0, 1, images) < hflip).float()
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = mirror * w / width, (2 * left + w) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = h / height, (2 * top + h) / height - 1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode='border', align_corners=False)


def erase(images: torch.Tensor, probability: float, mode: str) -> torch.Tensor:
    """A random box of each normalized image becomes 0 ('const') or noise ('pixel'), with a probability."""
    left, top, w, h = (side.view(-1, 1, 1, 1) for side in random_box(ERASED_AREA, ERASED_RATIO, images))
    y = torch.arange(images.shape[2], device=images.device).view(-1, 1)
    x = torch.arange(images.shape[3], device=images.device)
    erased = (left <= x) & (x < left + w) & (top <= y) & (y < top + h)
    erased &= (uniform(0, 1, images) < probability).view(-1, 1, 1, 1)
    return torch.where(erased, torch.randn_like(images) if mode == 'pixel' else images.new_zeros(()), images)


# Training

@torch.inference_mode()
def evaluate(
        model: nn.Module, normalize: Normalize, images: torch.Tensor, labels: torch.Tensor, batch_size: int
) -> Dict[str, float]:
    """Loss, and top-1 and top-5 in percent."""
    logits = []
    for batch in images.split(batch_size):
        with torch.autocast(batch.device.type, torch.bfloat16):
            logits.append(model(normalize(batch).contiguous(memory_format=torch.channels_last)).float())
    logits = torch.cat(logits)
    hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    return dict(
        loss=F.cross_entropy(logits, labels).item(), top1=100 * hits[:, 0].float().mean().item(),
        top5=100 * hits.any(1).float().mean().item())


def resume(file: Path, recipe: Dict[str, Any], device: torch.device) -> Dict[str, Any]:
    """The checkpoint of an earlier run of the same training.

    Raises:
        ValueError: It is of another one.
    """
    try:
        checkpoint = torch.load(file, map_location=device, weights_only=True)
        same = checkpoint['args'] == recipe
    except (pickle.UnpicklingError, KeyError):  # of train.py, whose arguments are an argparse.Namespace
        same = False
    if not same:
        raise ValueError(
            f"'{file.parent}' holds a training by another recipe or script: repeat that, or name another --experiment.")
    return checkpoint


def train(recipe: Dict[str, Any], data: Path, folder: Path, device: torch.device, initial: Optional[Path]) -> None:
    """Train to the end, from where `last.pth.tar` in the folder has it, else from the EMA weights of `initial`.

    Raises:
        ImportError: A module that registers models is missing.
        OSError: The images or the checkpoint cannot be read, or the folder not be written.
        RuntimeError: A folder has no images, or the loss is not finite.
        ValueError: The images do not fit the recipe or fill no batch, or the folder has another training.
    """
    for module in recipe.get('device_modules', ()):  # they register models, as in train.py
        import_module(module)
    random_seed(recipe['seed'])
    model = timm.create_model(
        recipe['model'], num_classes=recipe['num_classes'], in_chans=recipe['input_size'][0],
        checkpoint_path=str(initial or ''), **recipe.get('model_kwargs', {}))
    model.to(device, memory_format=torch.channels_last)
    normalize = Normalize(recipe['mean'], recipe['std']).to(device)
    (images, labels), validation = (
        [t.to(device) for t in load_images(data, recipe[split], recipe['input_size'], recipe['num_classes'])]
        for split in ('train_split', 'val_split'))

    batch_size, epochs = recipe['batch_size'], recipe['epochs']
    updates = len(images) // batch_size  # of an epoch
    if not updates:
        raise ValueError(f'{len(images)} images do not fill a batch: give a batch_size of {len(images)} or less.')
    optimizer = create_optimizer_v2(model, recipe['opt'], recipe['lr'], recipe['weight_decay'])
    scheduler, _ = create_scheduler_v2(
        optimizer, 'cosine', epochs, min_lr=recipe['min_lr'], warmup_lr=recipe['warmup_lr'],
        warmup_epochs=recipe['warmup_epochs'], step_on_epochs=False, updates_per_epoch=updates)
    ema = ModelEmaV3(model, recipe['model_ema_decay'], use_warmup=True)
    criterion = LabelSmoothingCrossEntropy(0.1)  # as much as train.py's default
    file, start = folder / 'last.pth.tar', 0
    if file.exists():
        checkpoint = resume(file, recipe, device)
        model.load_state_dict(checkpoint['state_dict'])
        ema.module.load_state_dict(checkpoint['state_dict_ema'])
        optimizer.load_state_dict(checkpoint['optimizer'])
        start = checkpoint['epoch'] + 1
    scheduler.step_update(start * updates)

    for epoch in range(start, epochs):
        random_seed(recipe['seed'], 1000 * (1 + epoch))  # an epoch draws the same after a resumption
        began, total = time.perf_counter(), torch.zeros((), device=device)
        model.train()
        order = torch.randperm(len(images), device=device)[:updates * batch_size]
        for update, rows in enumerate(order.split(batch_size), 1 + epoch * updates):
            batch = crop_and_flip(normalize(images[rows]), recipe['scale'], recipe['ratio'], recipe['hflip'])
            batch = erase(batch, recipe['reprob'], recipe['remode']).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(batch)
            loss = criterion(logits.float(), labels[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model, step=update)
            scheduler.step_update(update)
            total += loss.detach()
        loss = total.item() / updates
        if not math.isfinite(loss):
            raise RuntimeError(f'the loss in epoch {epoch} is {loss}: give a smaller lr and another --experiment.')
        metrics = evaluate(ema.module, normalize, *validation, recipe['validation_batch_size'])
        state = dict(
            epoch=epoch, arch=recipe['model'], args=recipe, state_dict=model.state_dict(),
            state_dict_ema=ema.module.state_dict(), optimizer=optimizer.state_dict(), version=2)  # as train.py's
        write_whole(file, partial(torch.save, state))
        update_summary(
            epoch, dict(loss=loss), metrics, folder / 'summary.csv', lr=optimizer.param_groups[0]['lr'],
            write_header=epoch == 0)
        print(
            f'epoch {epoch}: loss {loss:.3f}, {recipe["val_split"]} top-1 {metrics["top1"]:.2f} % (EMA), '
            f'{time.perf_counter() - began:.1f} s', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-c', '--config', type=Path, required=True, metavar='YAML', help='the recipe')
    parser.add_argument('--data-dir', type=Path, required=True, metavar='DIR', help='folder with its splits')
    parser.add_argument('--experiment', required=True, metavar='NAME', help='name of the training')
    parser.add_argument(
        '--output', type=Path, default='output/train', metavar='DIR', help='trainings (default: %(default)s)')
    parser.add_argument(
        '--initial-checkpoint', type=Path, metavar='FILE', help='last.pth.tar of another training, to start from')
    add_device_argument(parser)
    args = parser.parse_args()
    if args.initial_checkpoint and not args.initial_checkpoint.is_file():
        parser.error(f"there is no file '{args.initial_checkpoint}': name a checkpoint.")
    torch.backends.cudnn.benchmark = True  # as timm's train.py
    try:
        recipe = load_recipe(args.config)
        folder = args.output / args.experiment
        folder.mkdir(parents=True, exist_ok=True)
        train(recipe, args.data_dir, folder, args.device, args.initial_checkpoint)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(f'{parser.prog}: interrupted; the same command goes on from the last finished epoch.')
    print(folder / 'last.pth.tar')


if __name__ == '__main__':
    main()
