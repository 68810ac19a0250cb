"""Turn the authors' published weights into a folder in timm's format: model.safetensors, config.json and a card.

`timm.create_model('local-dir:FOLDER', pretrained=True)` loads it, `hf upload ORG/NAME FOLDER` puts it on the Hub.
A pickle that would run code is refused.
"""
import argparse
from pathlib import Path
from typing import Optional

import timm
import yaml
from timm.models._hub import generate_readme, save_for_hf

import timm_wavemix  # noqa: F401  registers the models

HUB_CONFIGS = Path(__file__).parent.parent / 'hub_configs'
USAGE = '''\
```python
import timm
import timm_wavemix  # registers the models

model = timm.create_model('{name}', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```'''


def card(name: str) -> str:
    """The README.md of converted weights."""
    cfg = timm.get_pretrained_cfg(name)
    config = yaml.safe_load((HUB_CONFIGS / f'{name}.yaml').read_text())
    assumed = '' if config['preprocessing']['input_known'] else ', assumed: the authors do not state it'
    return generate_readme({
        'license': config['weights']['license'],
        'description': f'The WaveMix authors\' weights `{cfg.hf_hub_filename}` of '
                       f'[{cfg.hf_hub_id}](https://huggingface.co/{cfg.hf_hub_id}), converted for timm-wavemix.',
        'details': {
            'Trained on': config['dataset']['name'],
            'Top-1': f"{config['metrics']['top1']:.2f} %, {config['metrics']['source']}, not measured by us",
            'Input': f'{"x".join(map(str, cfg.input_size))}, mean {cfg.mean}, std {cfg.std}{assumed}',
            'Paper': f'{cfg.paper_name}, {cfg.paper_ids}',
            'Original': cfg.origin_url,
            'Intended use': config['use']['intended'],
            'Limits': config['use']['limits'],
        },
        'usage': USAGE.format(name=name),
    }, name)


def convert(name: str, folder: Path, checkpoint: Optional[Path] = None) -> None:
    """Write the folder of a model and tag.

    Args:
        name: Model and tag, such as 'wavemix_192_16_l3_p4.in1k'.
        folder: Where to write, made if need be.
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
    (folder / 'README.md').write_text(card(name))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='model and tag, such as wavemix_192_16_l3_p4.in1k')
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument('--checkpoint', type=Path, help="local copy of the authors' .pth, in place of the Hub's")
    args = parser.parse_args()
    convert(args.name, args.folder, args.checkpoint)
    print(f'{args.folder}: {", ".join(sorted(path.name for path in args.folder.iterdir()))}')
