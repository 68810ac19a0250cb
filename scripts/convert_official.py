"""Turn the authors' published weights into a folder in timm's format: model.safetensors, config.json and a card.

`timm.create_model('local-dir:FOLDER', pretrained=True)` loads it, `python -m timm_wavemix push FOLDER` publishes it.
A pickle that would run code is refused.
"""
import argparse
import sys
from pathlib import Path
from typing import Optional

import timm
import yaml
from timm.models._hub import save_for_hf

from timm_wavemix.cards import hub_configs, make_card, read_facts


def convert(name: str, folder: Path, repo_id: str, checkpoint: Optional[Path] = None) -> None:
    """Write the folder of a model and tag.

    Args:
        name: Model and tag, such as 'wavemix_192_16_l3_p4.in1k'.
        folder: Where to write, made if need be.
        repo_id: Where you will push it, which the card's examples load it from.
        checkpoint: Local copy of the authors' file, fetched from the Hub if None.

    Raises:
        ValueError: The authors published no weights of this name, or the checkpoint is not one of this model.
        RuntimeError: The checkpoint cannot be read without running code.
    """
    published = [n for n in timm.list_models(module='wavemix', pretrained=True) if timm.get_pretrained_cfg(n).hf_hub_id]
    if name not in published:
        raise ValueError(f'The authors published no weights of {name}: choose from {", ".join(published)}.')
    overlay = {'file': str(checkpoint)} if checkpoint else None
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    save_for_hf(model, folder, safe_serialization=True)
    facts = yaml.safe_load((hub_configs() / f'{name}.yaml').read_text(encoding='utf-8'))
    make_card(model, repo_id, facts).save(folder / 'README.md')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='model and tag, such as wavemix_192_16_l3_p4.in1k')
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument(
        '--repo-id', metavar='ORG/NAME', required=True, help='where you will push it, for the examples on the card')
    parser.add_argument('--checkpoint', type=Path, help="local copy of the authors' .pth, in place of the Hub's")
    args = parser.parse_args()
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"--checkpoint: there is no file '{args.checkpoint}'.")
    try:
        convert(**vars(args))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(f'{args.folder}: {", ".join(sorted(path.name for path in args.folder.iterdir()))}')
