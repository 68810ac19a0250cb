"""Measure the accuracy on Fashion-MNIST's test images under noise, blur, shift and rotation.

The models are the ones that the package ships, and a checkpoint of timm's train.py if you name one.
"""
import argparse
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional

import timm
import torch
import torchvision
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.transforms import v2
from tqdm import tqdm

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.images import accuracy, balanced_subset, load_split
from scripts.benchmarks.common.step import BF16, FP32, autocast
from timm_wavemix.checkpoints import load_checkpoint

NAME = 'robustness'
KINDS = {
    'noise': """\
- noise σ: Gaussian noise of this standard deviation is added to the pixels, which range from 0 to 1. The sum is
  clipped.""",
    'blur': """\
- blur σ: the image is convolved with a Gaussian of this standard deviation in pixels.""",
    'shift': """\
- shift n: the image moves by up to n pixels in each direction; all (2n + 1)² shifts are equally likely. Black, the
  background, fills the gap.""",
    'rotation': """\
- rotation n: the image turns by n degrees about its centre, to the left or to the right with equal probability, with
  bilinear interpolation. Black, the background, fills the gap.""",
}
METHOD = """\
The same seed is set before each accuracy, so all models get the same images. The models have the weights that the
package ships{peer}."""
NO_PEER = """
There is no row of ResNet-18: `--checkpoint output/train/resnet18/last.pth.tar --use-ema` adds it, with the checkpoint
of a training by [its recipe](../../scripts/recipes/peers/resnet18.fashion_mnist.yaml)."""
SEED = 0
SIDE = 28  # pixels of an image
CLASSES = 10


@dataclass
class Report(report.Measured):
    images: int
    precision: str
    top1: Dict[str, Dict[str, float]]  # percent, by model and corruption

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        return cls(**values)


def rotation(degrees: float) -> nn.Module:
    return v2.RandomChoice([
        v2.RandomRotation((angle, angle), v2.InterpolationMode.BILINEAR) for angle in (-degrees, degrees)])


def corruptions() -> Dict[str, nn.Module]:
    """Transforms of a grey image `(1, 28, 28)` from 0 to 1, by their names in the table: kind and strength."""
    return {
        'clean': nn.Identity(),
        **{f'noise {sigma}': v2.GaussianNoise(sigma=sigma) for sigma in (0.05, 0.1, 0.2)},
        # the kernel reaches three standard deviations
        **{f'blur {sigma}': v2.GaussianBlur(2 * math.ceil(3 * sigma) + 1, sigma) for sigma in (0.5, 1.0, 1.5)},
        **{f'shift {n}': v2.RandomCrop(SIDE, padding=n) for n in (1, 2, 4)},
        **{f'rotation {degrees}': rotation(degrees) for degrees in range(5, 31, 5)},
    }


def corrupted_accuracy(
        model: nn.Module,
        corruption: nn.Module,
        data: Path,
        device: torch.device,
        images: Optional[int] = None,
        precision: str = FP32,
) -> float:
    """Top-1 accuracy in percent on corrupted images of the folder `test` of `data`.

    Args:
        model: The model.
        corruption: What is done to the images.
        data: The folder.
        device: Where to run the model.
        images: How many, of each class alike, or all.
        precision: Of the model's arithmetic.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: An image cannot be read.
        RuntimeError: The folder has no images.
    """
    config = resolve_model_data_config(model)
    transform = v2.Compose([
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        corruption,
        v2.Grayscale(config['input_size'][0]),  # repeats the grey channel
        create_transform(**config),
    ])
    dataset = balanced_subset(load_split(data, 'test', transform=transform, input_img_mode='L'), images, SEED)
    torch.manual_seed(SEED)
    with autocast(device, precision):
        return accuracy(model, dataset, device)


def list_shipped() -> List[str]:
    return timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)


def load_models(checkpoint: Optional[Path], use_ema: bool) -> Dict[str, nn.Module]:
    """The shipped models and the one in the checkpoint, by name.

    Raises:
        OSError, ValueError: The checkpoint cannot be used.
    """
    models = {name: timm.create_model(name, pretrained=True) for name in list_shipped()}
    if checkpoint:
        model = load_checkpoint(checkpoint, use_ema)
        if model.num_classes != CLASSES:
            raise ValueError(
                f"'{checkpoint}' has {model.num_classes} classes: name one that was trained on the {CLASSES} of "
                'Fashion-MNIST.')
        models[model.pretrained_cfg['architecture']] = model
    return models


def measure(args: argparse.Namespace) -> Report:
    if not args.data:
        raise argparse.ArgumentError(None, 'DATA is missing: name the folder of scripts/prepare_fashion_mnist.py.')
    if args.use_ema and not args.checkpoint:
        raise argparse.ArgumentError(None, '--use-ema needs --checkpoint.')
    images = len(balanced_subset(load_split(args.data, 'test'), args.images, SEED))
    precision = BF16 if args.amp else FP32
    top1: Dict[str, Dict[str, float]] = {}
    models = load_models(args.checkpoint, args.use_ema)
    chosen = {
        title: corruption for title, corruption in corruptions().items() if title.startswith(('clean', *args.kinds))}
    with tqdm(total=len(models) * len(chosen), unit=' accuracies') as progress:
        for name, model in models.items():
            top1[name] = {}
            for title, corruption in chosen.items():
                progress.set_description(f'{name}, {title}')
                top1[name][title] = corrupted_accuracy(model, corruption, args.data, args.device, images, precision)
                progress.update()
    return Report(
        command.command_line(NAME), report.hardware_name(args.device),
        f'torchvision {torchvision.__version__}, {report.SOFTWARE}', images, precision, top1)


def markdown(results: Report, stem: Path) -> str:
    shipped = list_shipped()
    has_peer = any(name not in shipped for name in results.top1)
    titles = next(iter(results.top1.values()))
    kinds = {kind: text for kind, text in KINDS.items() if any(title.startswith(kind) for title in titles)}
    columns = [('model', lambda name: f'`{name}`')]
    columns += [(title, lambda name, title=title: f'{results.top1[name][title]:.2f}') for title in titles]
    return report.pages([
        report.head(
            f'Accuracy under {", ".join(kinds)}', NAME, stem, results.command, results.machine, results.software),
        f'Top-1 accuracy in percent on {results.images:,} test images of Fashion-MNIST, seed {SEED}'
        f'{", in bf16 autocast" * (results.precision == BF16)}.',
        report.table(columns, results.top1),
        '\n'.join(kinds.values()),
        METHOD.format(peer=', and one trained for comparison' * has_peer) + NO_PEER * (not has_peer),
    ])


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        'data', metavar='DATA', nargs='?', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    parser.add_argument(
        '--checkpoint', metavar='FILE', type=Path, help="checkpoint of timm's train.py, such as one of a ResNet-18")
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument(
        '--images', type=command.number_or_all, default='all', metavar='N',
        help="test images, of each class alike, or 'all' (default: %(default)s)")
    parser.add_argument(
        '--kinds', nargs='+', choices=KINDS, default=[*KINDS], metavar='KIND',
        help=f'what is done to the images, of {", ".join(KINDS)} (default: all)')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast, much faster on some processors and GPUs')
    command.add_device_argument(parser)
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure, markdown, None), argv)


if __name__ == '__main__':
    main()
