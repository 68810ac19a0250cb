"""Measure how accurate the models stay on Fashion-MNIST's test images under noise, blur and shift, in one table.

- noise σ: Gaussian noise of this standard deviation is added to the pixels, which range from 0 to 1. The sum is
  clipped.
- blur σ: the image is convolved with a Gaussian of this standard deviation in pixels.
- shift n: the image moves by up to n pixels in each direction, all (2n + 1)² shifts being equally likely. Black, the
  background, fills the gap.

The models are those that come with the package, and a checkpoint of timm's train.py if one is named. The seed is set
anew for each accuracy, so all models get the same images.
"""
import argparse
import math
import sys
from pathlib import Path
from typing import Dict, Optional

import timm
import torch
import torchvision
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.transforms import v2
from tqdm import tqdm

from lib.evaluate import accuracy, balanced_subset, load_split
from lib.report import (
    SOFTWARE,
    add_device_argument,
    docstring_body,
    hardware_name,
    markdown_table,
    number_or_all,
    output_file,
    report_header,
)
from timm_wavemix.checkpoints import load_checkpoint

SEED = 0
SIDE = 28  # pixels of an image
CLASSES = 10


def corruptions() -> Dict[str, nn.Module]:
    """What is done to the images: transforms of a grey image `(1, 28, 28)` from 0 to 1, by their names in the table."""
    return {
        'clean': nn.Identity(),
        **{f'noise {sigma}': v2.GaussianNoise(sigma=sigma) for sigma in (0.05, 0.1, 0.2)},
        # the kernel reaches three standard deviations
        **{f'blur {sigma}': v2.GaussianBlur(2 * math.ceil(3 * sigma) + 1, sigma) for sigma in (0.5, 1.0, 1.5)},
        **{f'shift {n}': v2.RandomCrop(SIDE, padding=n) for n in (1, 2, 4)},
    }


def corrupted_accuracy(
        model: nn.Module,
        corruption: nn.Module,
        data: Path,
        device: torch.device,
        images: Optional[int] = None,
        amp: bool = False,
) -> float:
    """Top-1 accuracy in percent on corrupted images of the folder `test` of `data`.

    Args:
        model: The model.
        corruption: What is done to the images.
        data: The folder.
        device: Where to run the model.
        images: How many, as many of each class, or all.
        amp: Run the model in bf16 autocast.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
    """
    config = resolve_model_data_config(model)
    transform = v2.Compose([
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        corruption,
        v2.Grayscale(config['input_size'][0]),  # as many equal channels
        create_transform(**config),
    ])
    dataset = balanced_subset(load_split(data, 'test', transform=transform, input_img_mode='L'), images, SEED)
    torch.manual_seed(SEED)
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        return accuracy(model, dataset, device)


def markdown(results: Dict[str, Dict[str, float]], images: int, device: torch.device, amp: bool = False) -> str:
    """The report: top-1 accuracies by model and corruption, and how they were measured."""
    columns = next(iter(results.values()))
    rows = [[f'`{name}`', *(f'{top1:.2f}' for top1 in results[name].values())] for name in results]
    return '\n\n'.join([
        report_header(
            'Accuracy under noise, blur and shift',
            hardware_name(device),
            f'torchvision {torchvision.__version__}, {SOFTWARE}',
        ),
        f'Top-1 accuracy in percent on {images:,} test images of Fashion-MNIST, seed {SEED}'
        f'{", in bf16 autocast" * amp}.',
        markdown_table(['model', *columns], rows),
        docstring_body(__doc__),
    ]) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', metavar='DATA', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        type=Path,
        help="checkpoint of timm's train.py to measure beside the models, such as that of a ResNet-18",
    )
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument(
        '--images', type=number_or_all, default='all', metavar='N',
        help="test images, as many of each class, or 'all' (default: %(default)s)")
    parser.add_argument('--amp', action='store_true', help='bf16 autocast, much faster on some processors and GPUs')
    add_device_argument(parser)
    parser.add_argument(
        '--output', metavar='MD', type=output_file, default='robustness.md', help='report (default: %(default)s)')
    args = parser.parse_args()
    if args.use_ema and not args.checkpoint:
        parser.error('--use-ema is of a --checkpoint: name one, or leave it out.')

    try:
        images = len(balanced_subset(load_split(args.data, 'test'), args.images, SEED))
        models = {
            name: timm.create_model(name, pretrained=True)
            for name in timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)}
        if args.checkpoint:
            model = load_checkpoint(args.checkpoint, args.use_ema)
            if model.num_classes != CLASSES:
                raise ValueError(
                    f"'{args.checkpoint}' tells {model.num_classes} classes apart: name one that was trained on the "
                    f'{CLASSES} of Fashion-MNIST.')
            models[model.pretrained_cfg['architecture']] = model
        results = {name: {} for name in models}
        with tqdm(total=len(models) * len(corruptions()), unit=' accuracies') as progress:
            for name, model in models.items():
                for title, corruption in corruptions().items():
                    progress.set_description(f'{name}, {title}')
                    results[name][title] = corrupted_accuracy(
                        model, corruption, args.data, args.device, images, args.amp)
                    progress.update()
        args.output.write_text(markdown(results, images, args.device, args.amp), encoding='utf-8')
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(args.output)


if __name__ == '__main__':
    main()
