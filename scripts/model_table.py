"""Print the README's two tables of models: ours, and those with the authors' weights.

GMACs are counted by fvcore for one image of the model's own size, without the Fourier transforms of the FNets. Top-1 of
our weights comes from docs/results/, all else from hub_configs/.
"""
import csv
import logging
from pathlib import Path
from typing import List

import timm
import torch
from fvcore.nn import FlopCountAnalysis

from timm_wavemix.hub.metadata import hub_configs, read_metadata

RESULTS = 'docs/results/results-fashion_mnist.csv'  # has timm's columns


def row(name: str) -> str:
    """The line of one model, by its name with tag."""
    model = timm.create_model(name).eval()
    size = model.pretrained_cfg['input_size']
    params = sum(p.numel() for p in model.parameters()) / 1e6
    gmacs = FlopCountAnalysis(model, torch.zeros(1, *size)).total() / 1e9
    file = hub_configs() / f'{name}.yaml'
    if file.exists():
        metadata = read_metadata(file)
        metrics = metadata['metrics']
        with open(Path(__file__).parents[1] / RESULTS, newline='') as results:
            measured = {result['model']: result['top1'] for result in csv.DictReader(results)}
        dataset, top1 = metadata['dataset']['name'], f'{float(measured.get(name) or metrics["top1"]):.2f}'
        source = metrics.get('source', f'[measured]({RESULTS}), [how](hub_configs/{file.name})')
        if 'note' in metrics:
            source += f', {metrics["note"].partition(";")[0]}'
    else:
        dataset, top1, source = '–', '–', 'no weights'
    name = name.removesuffix('.untrained')
    cells = f'`{name}`', f'{params:#.3g}', f'{gmacs:.3f}', 'x'.join(map(str, size)), dataset, top1, source
    return f'| {" | ".join(cells)} |'


def table(names: List[str]) -> str:
    """A table in Markdown, a line for each of these models."""
    header = '| model | params (M) | GMACs | input | data set | top-1 (%) | where the figure comes from |'
    return '\n'.join([header, '|---|---|---|---|---|---|---|', *map(row, names)])


def tables() -> List[str]:
    """The table of our models, and that of the authors' weights."""
    names = timm.list_models(module='wavemix', include_tags=True)
    names.sort(key=lambda name: not name.startswith('wavemix'))  # the baselines last
    official = {name for name in names if timm.get_pretrained_cfg(name).hf_hub_id}
    return [
        table([name for name in names if name not in official]),
        table([name for name in names if name in official]),
    ]


if __name__ == '__main__':
    logging.getLogger('fvcore').setLevel(logging.ERROR)  # it warns of each operation that counts as free
    print(*tables(), sep='\n\n')
