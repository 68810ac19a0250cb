"""Turn a checkpoint of timm's train.py into the weight file that the package ships, EMA weights where it has them.

The file is in half precision, from which timm builds models in single precision, unless that costs more than 0.02
points of accuracy on the validation images: the test images are read once, with the file that is shipped.

timm's clean_checkpoint.py cannot do it for a run with --channels-last: safetensors takes contiguous tensors only.
"""
import argparse
import hashlib
import sys
from pathlib import Path
from typing import Dict

import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import load_state_dict

import timm_wavemix
from benchmarks.lib.evaluate import accuracy, image_mode, load_split

WEIGHTS = Path(timm_wavemix.__file__).parent / 'weights'
MAX_COST = 0.02  # points of top-1 accuracy


def measure(name: str, state_dict: Dict[str, torch.Tensor], data: Path) -> float:
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=dict(state_dict=state_dict))
    transform = create_transform(**resolve_model_data_config(model))
    return accuracy(
        model, load_split(data, 'validation', transform=transform, input_img_mode=image_mode(model)))


def export(checkpoint: Path, name: str, data: Path) -> Path:
    """Write `timm_wavemix/weights/<name>.safetensors`, and print the accuracy in either precision.

    Args:
        checkpoint: Checkpoint of timm's train.py.
        name: Model and tag, such as 'wavemix_16_5.fashion_mnist'.
        data: Folder with the split `validation`, to compare the precisions on.

    Raises:
        OSError: The checkpoint or the images are not there, or the file cannot be written.
        RuntimeError: The checkpoint cannot be read without running code, or the model or tag is unknown.
        ValueError: The checkpoint is not one of this model.
    """
    single = {k: v.contiguous() for k, v in load_state_dict(str(checkpoint)).items()}
    classes, bias = timm.create_model(name).num_classes, single.get('head.fc.bias')
    if bias is not None and len(bias) != classes:
        raise ValueError(
            f"'{checkpoint}' has {len(bias)} classes, {name} has {classes}: name a checkpoint of that model and data.")
    half = {k: v.half() if v.is_floating_point() else v for k, v in single.items()}
    top1, top1_half = measure(name, single, data), measure(name, half, data)
    keep_half = round(top1 - top1_half, 6) <= MAX_COST
    print(
        f'top-1 on {data / "validation"}: {top1:.2f} % in single precision, {top1_half:.2f} % in half precision, '
        f'so the file is in {"half" if keep_half else "single"} precision')
    WEIGHTS.mkdir(exist_ok=True)
    file = WEIGHTS / f'{name}.safetensors'
    save_file(half if keep_half else single, file)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='checkpoint of train.py')
    parser.add_argument('name', help='model and tag, such as wavemix_16_5.fashion_mnist')
    parser.add_argument('data', metavar='DATA', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    args = parser.parse_args()
    if not args.checkpoint.is_file():
        parser.error(f"there is no file '{args.checkpoint}': name a checkpoint of train.py.")
    try:
        file = export(args.checkpoint, args.name, args.data)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(f'{file}: {file.stat().st_size} bytes, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}')


if __name__ == '__main__':
    main()
