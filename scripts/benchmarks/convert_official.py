"""Turn the authors' published weights into a folder in timm's format: model.safetensors, config.json and a card.

`timm.create_model('local-dir:FOLDER', pretrained=True)` loads it, `timm-wavemix push FOLDER` publishes it.
A pickle that would run code is refused.

With --verify, and where the Hub can be reached, each of the authors' files is downloaded and compared: its logits with
those of their package (`pip install wavemix`), the licence with the one that we state, and for CIFAR-10 its accuracy on
the test images, which are downloaded too, with the authors' figure. NAME limits it to one file.
"""
import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, Optional

import timm
import torch
from huggingface_hub import HfApi
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.datasets import CIFAR10

from scripts.benchmarks.common import command
from scripts.benchmarks.common.images import accuracy
from scripts.benchmarks.models.reference import authors_model
from timm_wavemix.checkpoints import load_source, read_weights, registered_cfg, weights_of
from timm_wavemix.hub.files import write_files
from timm_wavemix.hub.metadata import hub_configs, read_metadata
from timm_wavemix.hub.push import repo_id

NAME = 'convert_official'
MAX_LOGIT_ERROR = 1e-4  # of the norm of the authors' logits
MAX_TOP1_ERROR = 0.05  # points: their figure has two digits


def published() -> List[str]:
    """The models and tags whose weights the authors publish."""
    return [n for n in timm.list_models(module='wavemix', pretrained=True) if registered_cfg(n).hf_hub_id]


def _check_name(name: str) -> None:
    if name not in published():
        raise ValueError(f'The authors published no weights of {name}: choose from {", ".join(published())}.')


def convert(name: str, folder: Path, repo_id: str, checkpoint: Optional[Path] = None) -> None:
    """Write the folder of a model and tag, whole or not at all.

    Args:
        name: Model and tag, such as 'wavemix_192_16_l3_p4.in1k'.
        folder: Where to write, a new or empty folder.
        repo_id: Where you will push it, which the card's examples load it from.
        checkpoint: Local copy of the authors' file, fetched from the Hub if None.

    Raises:
        OSError: The file is not there, or the folder is, or it cannot be written.
        ValueError: The authors published no weights of this name, or the checkpoint is not one of this model, or cannot
            be read without running code.
    """
    _check_name(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}') as temporary:  # on the same disk
        written = Path(temporary, folder.name)
        written.mkdir()
        write_files(name, repo_id, written, weights=checkpoint)
        written.rename(folder)


def counterpart(model: nn.Module) -> nn.Module:
    """The model of the authors' package that one of ours is, with random weights."""
    convs = [module for module in model.stem if isinstance(module, nn.Conv2d)]
    stem = (
        dict(initial_conv='pachify', patch_size=convs[2].kernel_size[0]) if len(convs) == 3 else
        dict(initial_conv='strided', stride=convs[0].stride[0]))
    levels = len(getattr(model.blocks[0], 'mlps', 'x'))  # a Lite block has one, and no list of them
    return authors_model(
        torch.device('cpu'), num_classes=model.num_classes, depth=len(model.blocks), level=levels,
        final_dim=model.num_features, ff_channel=model.num_features, **stem)


def logit_error(model: nn.Module, file: Path) -> float:
    """Difference between our logits and those of the authors' package, as a share of the norm of theirs."""
    theirs = counterpart(model)
    weights = read_weights(file)
    theirs.load_state_dict(weights.get('state_dict', weights))
    images = torch.randn(2, *model.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs.eval()(images)
        return ((model(images) - expected).norm() / expected.norm()).item()


def verify(names: List[str], data: Path) -> bool:
    """Compare the authors' files with their package, their figures and their licence, and print a line for each.

    Args:
        names: Models and tags.
        data: Folder for CIFAR-10, which is downloaded if it is not there.

    Returns:
        Whether all are as they should be.

    Raises:
        OSError, RuntimeError, ValueError: A file cannot be fetched or is not of its model.
    """
    all_right = True
    for name in names:
        cfg, file = registered_cfg(name), weights_of(name)
        model = load_source(name).model
        error = logit_error(model, file)
        right = error <= MAX_LOGIT_ERROR
        line = f"{name}: logits {'are' if right else 'are NOT'} those of the authors' package (error {error:.1e})"
        if name.endswith('.cifar10'):
            transform = create_transform(**resolve_model_data_config(model))
            top1 = accuracy(model, CIFAR10(data, train=False, download=True, transform=transform))
            claim = float(read_metadata(hub_configs() / f'{name}.yaml')['metrics']['top1'])
            as_claimed = abs(top1 - claim) <= MAX_TOP1_ERROR
            line += f", top-1 {top1:.2f} % {'as' if as_claimed else 'is NOT'} the authors' {claim:.2f} %"
            right = right and as_claimed
        if f'license:{cfg.license}' not in (HfApi().model_info(str(cfg.hf_hub_id)).tags or []):
            line, right = f'{line}, their repository does NOT state the licence {cfg.license}', False
        print(line, flush=True)
        all_right = all_right and right
    return all_right


def work(args: argparse.Namespace) -> List[Path]:
    if args.verify and (args.folder or args.repo_id or args.checkpoint):
        raise argparse.ArgumentError(None, '--verify goes with NAME and --data-dir only.')
    if not args.verify and not (args.name and args.folder and args.repo_id):
        raise argparse.ArgumentError(
            None, 'the following arguments are required: name, folder, --repo-id (or --verify)')
    if args.checkpoint and not args.checkpoint.is_file():
        raise argparse.ArgumentError(None, f"--checkpoint: there is no file '{args.checkpoint}'.")
    if args.name:
        _check_name(args.name)
    if not args.verify:
        convert(args.name, args.folder, args.repo_id, args.checkpoint)
        return sorted(args.folder.iterdir())
    if not verify([args.name] if args.name else published(), args.data_dir):
        raise RuntimeError('not all files are as they should be')
    return []


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument('name', nargs='?', help='model and tag, such as wavemix_192_16_l3_p4.in1k')
    parser.add_argument('folder', nargs='?', type=Path, help='folder to write')
    parser.add_argument(
        '--repo-id', metavar='ORG/NAME', type=repo_id, help='where you will push it, for the examples on the card')
    parser.add_argument('--checkpoint', type=Path, help="local copy of the authors' .pth, instead of the Hub's")
    parser.add_argument('--verify', action='store_true', help="compare the authors' files, write nothing")
    parser.add_argument(
        '--data-dir', type=Path, default=Path(torch.hub.get_dir()) / 'datasets',
        help='folder for CIFAR-10 (default: %(default)s)')
    command.run(parser, work, argv)


if __name__ == '__main__':
    main()
