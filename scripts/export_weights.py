"""Turn a checkpoint of timm's train.py into the weight file that the package ships, EMA weights where it has them.

timm's clean_checkpoint.py cannot do it for a run with --channels-last: safetensors takes contiguous tensors only.
"""
import argparse
import hashlib
from pathlib import Path

import timm
from safetensors.torch import save_file
from timm.models import load_state_dict

import timm_wavemix

WEIGHTS = Path(timm_wavemix.__file__).parent / 'weights'


def export(checkpoint: Path, name: str) -> Path:
    """Write `timm_wavemix/weights/<name>.safetensors`.

    Args:
        checkpoint: Checkpoint of timm's train.py.
        name: Model and tag, such as 'wavemix_16_5.fashion_mnist'.

    Raises:
        ValueError: The checkpoint is not one of this model.
    """
    state_dict = {k: v.contiguous() for k, v in load_state_dict(str(checkpoint)).items()}
    timm.create_model(name, pretrained=True, pretrained_cfg_overlay=dict(state_dict=state_dict))  # raises if it misfits
    WEIGHTS.mkdir(exist_ok=True)
    file = WEIGHTS / f'{name}.safetensors'
    save_file(state_dict, file)
    return file


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='checkpoint of train.py')
    parser.add_argument('name', help='model and tag, such as wavemix_16_5.fashion_mnist')
    args = parser.parse_args()
    file = export(args.checkpoint, args.name)
    print(f'{file}: {file.stat().st_size} bytes, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}')
