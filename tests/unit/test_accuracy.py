"""The picture of accuracies: the points are where the files say."""
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import accuracy as script
from lib.published import PAPER
from lib.report import ROOT

COSTS = [
    {'model': 'wavemix_16_5', 'batch_size': 64, 'image_size': 32, 'params': 180_000},
    {'model': 'resnet18', 'batch_size': 64, 'image_size': 32, 'params': 11_000_000},
]
SPEEDS = [
    {'model': model, 'batch_size': 64, 'image_size': 32, 'mode': mode, 'precision': precision, 'seconds': seconds}
    for model, factor in (('wavemix_16_5', 1), ('resnet18', 2))
    for mode, precision, seconds in (
        ('train', 'fp32', [9.]), ('inference', 'bf16', [9.]), ('inference', 'fp32', [9., 0.5 * factor, 0.1]))]


@pytest.fixture
def report(tmp_path):
    def report(costs=COSTS, speeds=SPEEDS):
        file = tmp_path / 'benchmark.json'
        # other sizes come after the first
        file.write_text(json.dumps({'results': [{'costs': costs, 'speeds': speeds}, {'costs': [], 'speeds': []}]}))
        return file

    return report


def test_points_are_at_the_models_parameters_speed_and_accuracy(report):
    figure = script.draw({'wavemix_16_5': 92., 'resnet18': 93.}, script.load_results(report()))
    left, right = [[tuple(line.get_xydata()[0]) for line in chart.lines] for chart in figure.axes]
    assert left == [pytest.approx((0.18, 92.)), pytest.approx((11., 93.))]
    assert right == [pytest.approx((128., 92.)), pytest.approx((64., 93.))]
    for chart in figure.axes:
        assert [text.get_text() for text in chart.texts] == ['wavemix_16_5', 'resnet18']


def test_accuracies_are_those_of_shipped_models_and_of_others_in_docs(tmp_path):
    for name, top1 in [
            ('hub_configs/wavemix_16_5.fashion_mnist', 92.5), ('hub_configs/wavemix_lite_144_7.cifar10', 94.58),
            ('docs/resnet18.fashion_mnist', 93.5)]:
        file = tmp_path / f'{name}.yaml'
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'metrics:\n  top1: {top1}\n')
    assert script.load_accuracies(tmp_path) == {'wavemix_16_5': 92.5, 'resnet18': 93.5}


def test_accuracies_of_the_repository_are_those_on_the_cards():
    accuracies = script.load_accuracies()
    card = yaml.safe_load((ROOT / 'hub_configs' / 'wavemix_16_5.fashion_mnist.yaml').read_text())
    assert accuracies['wavemix_16_5'] == card['metrics']['top1']
    assert set(accuracies) <= set(PAPER)  # names that the benchmark does not know would never be drawn


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['accuracy.py', *map(str, args)])
    try:
        return script.main()
    except SystemExit as error:
        return error.code


def test_picture_is_written(report, monkeypatch, tmp_path):
    monkeypatch.setattr(script, 'load_accuracies', lambda: {'wavemix_16_5': 92.})
    assert run(monkeypatch, report(), '--output', tmp_path / 'accuracy.png') is None
    assert min(Image.open(tmp_path / 'accuracy.png').size) > 500


@pytest.mark.parametrize('costs, speeds', [
    (COSTS[1:], SPEEDS),
    (COSTS, SPEEDS[3:]),
    (COSTS, [dict(speed, error='out of memory: so it goes') for speed in SPEEDS]),
], ids=['no cost', 'no speed', 'failed'])
def test_a_model_that_was_not_measured_is_named(report, monkeypatch, costs, speeds):
    monkeypatch.setattr(script, 'load_accuracies', lambda: {'wavemix_16_5': 92.})
    message = run(monkeypatch, report(costs, speeds), '--output', 'unused.png')
    assert re.fullmatch(r'accuracy.py: The report lacks wavemix_16_5: run .* with --models .*', message)
    assert not Path('unused.png').exists()


@pytest.mark.parametrize('text', ['not JSON', '{}', '{"results": [{"costs": [{"speed": 1}], "speeds": []}]}'])
def test_a_file_that_is_no_report_is_named(tmp_path, monkeypatch, text):
    (tmp_path / 'b.json').write_text(text)
    assert 'is no report: write it with' in run(monkeypatch, tmp_path / 'b.json', '--output', 'unused.png')
