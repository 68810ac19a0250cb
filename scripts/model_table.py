"""Print the README's table of models: parameters, GMACs and activations of one image at the model's own size.

GMACs and activations are counted by fvcore, as in timm's benchmark.py, over the operations that really run.
fvcore does not count the Fourier transforms of the FNets.
Accuracies are those of hub_configs/, marked where they are claims of others.
"""
import logging
from pathlib import Path

import timm
import torch
import yaml
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

import timm_wavemix  # noqa: F401  registers the models

HUB_CONFIGS = Path(__file__).parent.parent / 'hub_configs'


def row(name: str) -> str:
    """The line of one model, by its name with tag."""
    model = timm.create_model(name).eval()
    size = model.pretrained_cfg['input_size']
    x = torch.zeros(1, *size)
    params = sum(p.numel() for p in model.parameters()) / 1e6
    gmacs = FlopCountAnalysis(model, x).total() / 1e9
    activations = ActivationCountAnalysis(model, x).total() / 1e6
    config, top1 = HUB_CONFIGS / f'{name}.yaml', 'no weights'
    if config.exists():
        metrics = yaml.safe_load(config.read_text())['metrics']
        top1 = f"{metrics['top1']:.2f} %{' (claim)' if 'source' in metrics else ''}"
    name = name.removesuffix('.untrained')
    return f'| `{name}` | {params:.2f} | {gmacs:.3f} | {activations:.2f} | {"x".join(map(str, size))} | {top1} |'


def table() -> str:
    """The table in Markdown, a line for each registered model and tag."""
    lines = [
        '| model | params (M) | GMACs | activations (M) | input | top-1 |',
        '|---|---|---|---|---|---|',
    ]
    names = [name for module in ('wavemix', 'mixers') for name in timm.list_models(module=module, include_tags=True)]
    return '\n'.join(lines + [row(name) for name in names])


if __name__ == '__main__':
    logging.getLogger('fvcore').setLevel(logging.ERROR)  # it warns of each operation that counts as free
    print(table())
