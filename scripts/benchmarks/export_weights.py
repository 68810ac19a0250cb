"""Turn a checkpoint of a training into the weight file that the package ships: its EMA weights.

The file is in half precision, from which timm builds models in single precision, unless that costs more than 0.02
points of accuracy on the images of validation/. Our recipes train on these images too, so this compares the two
precisions and says nothing about new images. The test images are read once, with the file that is shipped.
"""
import argparse
import hashlib
from pathlib import Path
from typing import Dict, List, Optional

import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

import timm_wavemix
from scripts.benchmarks.common import command
from scripts.benchmarks.common.images import accuracy, load_split
from scripts.demo import image_mode
from timm_wavemix.checkpoints import load_checkpoint

NAME = 'export_weights'
WEIGHTS = Path(timm_wavemix.__file__).parent / 'weights'
MAX_COST = 0.02  # points of top-1 accuracy


def measure(name: str, state_dict: Dict[str, torch.Tensor], data: Path) -> float:
    """Top-1 of weights in percent.

    Raises:
        RuntimeError: The model or tag is unknown, or the weights are of another one.
    """
    model = timm.create_model(name)
    model.load_state_dict(state_dict)
    transform = create_transform(**resolve_model_data_config(model))
    return accuracy(model, load_split(data, 'validation', transform=transform, input_img_mode=image_mode(model)))


def export(checkpoint: Path, name: str, data: Path) -> Path:
    """Write `timm_wavemix/weights/<name>.safetensors`, and print the accuracy in either precision.

    Args:
        checkpoint: Checkpoint of train_in_memory.py or timm's train.py.
        name: Model and tag, such as 'wavemix_16_5.fashion_mnist'.
        data: Folder with the split `validation`, to compare the precisions on.

    Raises:
        OSError: The checkpoint or the images are not there, or the file cannot be written.
        RuntimeError: The model or tag is unknown, or the weights are of another one.
        ValueError: The checkpoint is damaged, would run code, or has no EMA weights.
    """
    # safetensors takes contiguous tensors only, which a training with --channels-last does not leave
    single = {k: v.contiguous() for k, v in load_checkpoint(checkpoint, use_ema=True).state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in single.items()}
    top1, top1_half = measure(name, single, data), measure(name, half, data)
    keep_half = round(top1 - top1_half, 6) <= MAX_COST
    print(
        f'top-1 on {data / "validation"}: {top1:.2f} % in single precision, {top1_half:.2f} % in half precision, '
        f'so the file is in {"half" if keep_half else "single"} precision')
    WEIGHTS.mkdir(exist_ok=True)
    file = WEIGHTS / f'{name}.safetensors'
    save_file(half if keep_half else single, file)
    print(f'{file.stat().st_size} bytes, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}')
    return file


def work(args: argparse.Namespace) -> List[Path]:
    return [export(args.checkpoint, args.name, args.data)]


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument('checkpoint', type=Path, help='checkpoint of the training')
    parser.add_argument('name', help='model and tag, such as wavemix_16_5.fashion_mnist')
    parser.add_argument('data', metavar='DATA', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    command.run(parser, work, argv)


if __name__ == '__main__':
    main()
