"""Write a trained model as the file that a runtime reads.

    python scripts/export_model.py wavemix_16_5 onnx-int8 wavemix.onnx --calibration fashion_mnist/train

The file is made of the deployed form (`timm.utils.reparameterize_model`), for images of the size in the model's
pretrained_cfg, or of any size. docs/deploy.md tells which runtime is for which device. The runtimes:

RUNTIMES
"""
import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Optional

import timm
from timm.layers import set_layer_config
from torch import nn

import timm_wavemix  # noqa: F401  registers the models
from benchmarks.lib.report import output_file
from benchmarks.lib.runtimes import RUNTIMES, calibration_images, check_output, write, write_onnx
from timm_wavemix.checkpoints import load_checkpoint


def load(name: str, use_ema: bool = False) -> nn.Module:
    """A trained model, by a name of timm or by a checkpoint of its train.py.

    Raises:
        OSError, ValueError: It is no such checkpoint.
        OSError, RuntimeError: The Hub does not give the model.
        ValueError: The name is that of no model with weights, or there are no EMA weights for a name.
    """
    if Path(name).is_file():
        return load_checkpoint(Path(name), use_ema).eval()
    if use_ema:
        raise ValueError(f"'{name}' is no checkpoint: leave --use-ema out.")
    if name.startswith(('hf-hub:', 'local-dir:')):
        return timm.create_model(name, pretrained=True).eval()
    if not timm.is_model_pretrained(name):
        reason = 'has no weights' if timm.is_model(name) else 'is neither a model nor a file'
        raise ValueError(f"'{name}' {reason}: name a model with weights, or a checkpoint of train.py.")
    return timm.create_model(name, pretrained=True).eval()


def export(
        name: str, runtime: str, output: Path, calibration: Optional[Path] = None, use_ema: bool = False,
        dynamic_size: bool = False) -> None:
    """Write the file of a runtime, all of it or nothing.

    Raises:
        OSError, RuntimeError, ValueError: as `load`, `calibration_images` and `write`.
        ValueError: There are calibration images and the runtime takes none, or the other way round. The size is to be
            dynamic, in another runtime than 'onnx'.
        ImportError: A package is missing.
    """
    kind = RUNTIMES[runtime]
    if kind.missing:
        raise ImportError(
            f'{runtime} needs {", ".join(kind.missing)}: install what is missing with `pip install --group deploy`.')
    if kind.calibrated and calibration is None:
        raise ValueError(f'{runtime} needs images to measure ranges on: name training images with --calibration.')
    if calibration is not None and not kind.calibrated:
        raise ValueError(f'{runtime} measures nothing on images: leave --calibration out.')
    if dynamic_size:
        if runtime != 'onnx':
            raise ValueError(f'{runtime} holds for images of one size: leave --dynamic-size out, or take onnx.')
        kind = kind._replace(write=partial(write_onnx, dynamic_size=True))
    check_output(kind, output)
    with set_layer_config(exportable=kind.exportable):
        model = load(name, use_ema)
    write(kind, model, output, calibration_images(calibration, model) if calibration else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.replace(
            'RUNTIMES', '\n'.join(f'    {key:18} {r.title} ({r.suffix})' for key, r in RUNTIMES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'model', metavar='MODEL', help="a model with weights, hf-hub:ORG/NAME, or a checkpoint of timm's train.py")
    parser.add_argument('runtime', metavar='RUNTIME', choices=RUNTIMES, help='one of those above')
    parser.add_argument('output', metavar='FILE', type=output_file, help='file to write')
    parser.add_argument(
        '--calibration', metavar='DIR', type=Path, help='training images in folders of classes, for static int8')
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument('--dynamic-size', action='store_true', help='for images of any size, with onnx')
    args = parser.parse_args()
    try:
        export(args.model, args.runtime, args.output, args.calibration, args.use_ema, args.dynamic_size)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(f'{args.output}: {args.output.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
