"""The tables in timm's columns: of all our weights, with the figures of hub_configs/ and the models' own numbers."""
import csv
import fnmatch
import re
from pathlib import Path

import timm
import yaml

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'docs' / 'results'
OWN = {name for name in timm.list_models(module='wavemix', pretrained=True) if timm.get_pretrained_cfg(name).file}


def test_accuracies_are_those_of_hub_configs_and_the_rest_is_the_models():
    with open(RESULTS / 'results-fashion_mnist.csv', newline='') as file:
        rows = {row['model']: row for row in csv.DictReader(file)}
    assert rows.keys() == OWN
    for name, row in rows.items():
        assert list(row) == [
            'model', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'img_size', 'crop_pct', 'interpolation']
        metrics = yaml.safe_load((ROOT / 'hub_configs' / f'{name}.yaml').read_text())['metrics']
        for key in 'top1', 'top5':
            assert round(float(row[key]), 2) == metrics[key]
            assert round(float(row[key]) + float(row[f'{key}_err']), 4) == 100
        cfg, model = timm.get_pretrained_cfg(name), timm.create_model(name, device='meta')
        assert float(row['param_count']) == round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
        assert (int(row['img_size']), float(row['crop_pct'])) == (cfg.input_size[-1], cfg.crop_pct)
        assert row['interpolation'] == cfg.interpolation


def test_the_commands_name_all_our_weights():
    page = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
    patterns = re.findall(r"--model '(.+?\.fashion_mnist)'", page)
    colour, grey = ({name for name in OWN if fnmatch.fnmatch(name, pattern)} for pattern in patterns)
    assert colour | grey == OWN and not colour & grey
    assert {timm.get_pretrained_cfg(name).input_size[0] for name in colour} == {3}
    assert {timm.get_pretrained_cfg(name).input_size[0] for name in grey} == {1}


def test_speeds_are_of_the_models_that_their_command_names():
    page = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
    pattern, = re.findall(r"--bench infer --model '(.+?)'", page)
    with open(RESULTS / 'benchmark-infer-cpu.csv', newline='') as file:
        rows = {row['model']: row for row in csv.DictReader(file)}
    assert rows.keys() == set(timm.list_models(pattern))
    for name, row in rows.items():
        model = timm.create_model(name, device='meta')
        assert float(row['param_count']) == round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
