"""scripts/benchmark_paper.py and its references: what is counted and compared is right. No test depends on a time."""
import json
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import timm
import torch
import torch.nn as nn
from PIL import Image

from timm_wavemix.wavemix import checkpoint_filter_fn

SCRIPTS = Path(__file__).parents[1] / 'scripts'
sys.path.insert(0, str(SCRIPTS))  # where the script finds its references, as when it is run
import benchmark_paper as script  # noqa: E402
import references  # noqa: E402

CPU = torch.device('cpu')


def rows(text):
    """The Markdown tables of a text: a list of rows, each a list of cells, for every table."""
    tables = re.findall(r'(?:^\|.*\|\n?)+', text, re.MULTILINE)
    return [[re.split(r' *\| *', line.strip('| ')) for line in table.splitlines()] for table in tables]


def with_statistics(model):
    """Batch norms that have something to do."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.)
    return model


def assert_same_logits(model, reference):
    x = torch.randn(2, 3, 32, 32)
    for training in (False, True):
        for net in (model, reference):
            net.train(training)
            for module in net.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
        torch.testing.assert_close(reference(x), model(x), rtol=1e-4, atol=1e-4)


# The references

@pytest.mark.parametrize('name', ['wavemix_16_5', 'wavemix_64_5'])
def test_plain_model_takes_our_weights_and_gives_our_logits(name):
    pytest.importorskip('pytorch_wavelets')
    model = with_statistics(timm.create_model(name, num_classes=10))
    reference = references.plain_model(name)
    reference.load_state_dict(model.state_dict())
    assert_same_logits(model, reference)


@pytest.mark.parametrize('dim', [16, 128])
def test_authors_model_gives_the_logits_of_ours(dim):
    reference = with_statistics(references.authors_model(dim, 7, CPU))
    model = timm.create_model('wavemix_lite_128_7', dim=dim, num_classes=10)
    model.load_state_dict(checkpoint_filter_fn(reference.state_dict(), model))
    assert_same_logits(model, reference)


def test_peers_that_are_not_installed_are_left_out_with_a_remark(monkeypatch):
    for package in ('pytorch_wavelets', 'wavemix'):
        monkeypatch.setitem(sys.modules, package, None)
    peers, remarks = script.create_peers(['wavemix_16_5', 'wavemix_lite_256_7'], CPU)
    assert [peer.name for peer in peers] == [f'wavemix_lite_256_7: {script.UP_CONV}']
    assert len(remarks) == 3 and all('pip install' in remark for remark in remarks)


# What is counted

def test_saved_bytes_are_those_of_hand_arithmetic():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 3, 5, 5)
    image, hidden = 2 * 3 * 25 * 4, 2 * 4 * 25 * 4
    statistics = 2 * 4 * 4  # mean and inverse deviation of the batch
    # inputs of the first convolution and of the batch norm; the output of the ReLU is the last one's input, counted once
    assert script.saved_bytes(model, x) == image + hidden + statistics + hidden


@pytest.mark.parametrize('name, mebibytes', [('resnet18', 287), ('resnet50', 1557)])
def test_resnets_save_at_batch_64_what_the_papers_stem_takes(name, mebibytes):
    model = script.create(name, 32)
    one, two = (script.saved_bytes(model, script.images(n, 32)) for n in (1, 2))
    assert 64 * (two - one) / 2 ** 20 == pytest.approx(mebibytes, abs=1)


def test_checkpointing_saves_less():
    model = script.create('wavemix_16_5', 32)
    x = script.images(2, 32)
    plain = script.saved_bytes(model, x)
    model.set_grad_checkpointing()
    assert script.saved_bytes(model, x) < plain / 2


def test_inference_bytes_are_the_most_that_live_at_one_time():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1), nn.Flatten())
    pixel = 2 * 5 * 5 * 4  # bytes of a channel of the batch
    assert script.inference_bytes(model, torch.randn(2, 3, 5, 5)) == (8 + 2) * pixel


@pytest.mark.parametrize('most, expected', [(15, 0), (16, 16), (100, 96), (112, 112), (2177, 2176)])
def test_largest_batch_is_found(most, expected):
    assert script.largest_batch(lambda n: n <= most) == expected


def test_figures_of_the_paper_are_those_it_draws_conclusions_from():
    paper = script.PAPER
    train, inference = (
        {name: paper[name].speed[mode][32] / paper['resnet18'].speed[mode][32] for name in paper if paper[name].speed[mode]}
        for mode in script.MODES)
    assert {name: round(ratio, 2) for name, ratio in train.items() if 'wavemix' in name} == {
        'wavemix_16_5': 2.06, 'wavemix_32_5': 1.17, 'wavemix_lite_128_7': 0.81, 'wavemix_lite_256_7': 0.32}
    assert {name: round(ratio, 2) for name, ratio in inference.items() if 'wavemix' in name} == {
        'wavemix_16_5': 1.25, 'wavemix_32_5': 1.11, 'wavemix_lite_128_7': 0.99, 'wavemix_lite_256_7': 0.30}
    memory = {name: round(paper[name].memory[32] / paper['resnet50'].memory[32], 2) for name in paper if 'wave' in name}
    assert memory == {
        'wavemix_16_5': 0.06, 'wavemix_32_5': 0.06, 'wavemix_64_5': 0.09, 'wavemix_lite_128_7': 0.39,
        'wavemix_lite_256_7': 0.70}
    assert paper['wavemix_lite_128_7'].largest_batch == {'train': {32: 768}, 'inference': {32: 2176}}


@pytest.mark.parametrize('name', [name for name in script.PAPER if name not in ('resnet50', script.AS_IN_TIMM)])
def test_parameter_counts_are_those_of_the_paper(name):  # ResNet-50 has 23.5 M, in the paper's table 2 too, not 25.2
    params = sum(p.numel() for p in script.create(name, 32).parameters()) / 1e6
    assert params == pytest.approx(script.PAPER[name].params, rel=0.04)


# How it is measured

class Logged(nn.Module):
    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        self.log.append(self.name)
        return self.fc(x.mean((2, 3)))


class TooLarge(nn.Module):
    def forward(self, x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.\nmore")


def test_rounds_alternate(monkeypatch):
    monkeypatch.setattr(script, 'MIN_SECONDS', 1e-9)
    log = []
    points = [(script.Contender(name, Logged(name, log), precisions=['fp32']), 1, 4) for name in 'abc']
    results = script.measure(points, 3, CPU, 'test')
    assert ''.join(name for name, _ in groupby(log)).endswith('abcabcabc')
    assert [len(speed.seconds) for speed in results.speeds] == [3] * 6


def test_a_model_that_does_not_fit_is_reported_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(script, 'MIN_SECONDS', 1e-9)
    points = [
        (script.Contender('resnet50', TooLarge()), 1, 4),
        (script.Contender('resnet18', Logged('resnet18', [])), 1, 4)]
    results = script.measure(points, 1, CPU, 'test')
    for mode in script.MODES:
        assert results.speed('resnet50', mode).error.startswith('out of memory: DefaultCPUAllocator')
        assert results.speed('resnet18', mode).ratio(results.speed('resnet18', mode)) == 1.
    (table,) = rows(script.speed_table(results, 32, 'fp32'))
    cells = {row[0]: row[1:] for row in table}
    assert cells['`resnet50`'][0] == 'out of memory' and cells['`resnet50`'][1] == '–'
    assert cells['`resnet18`'][1] == '1.00'
    assert rows(script.memory_table(results, 32))[0][2][4] == 'out of memory'


def test_growth_is_told_per_pixel():
    costs, speeds = [], []
    for model in script.GROWTH_MODELS:
        for n, size, total in [(4, 32, 4096), (1, 64, 8192)]:
            costs.append(script.Cost(model, n, size, saved_bytes={'fp32': total}))
            for mode in script.MODES:
                speeds.append(script.Speed(model, n, size, mode, 'fp32', seconds=[1e-9 * total]))
    speeds[-1].error = 'out of memory: so it goes'
    tables = [table for text in script.growth_tables(script.Results(costs, speeds)) for table in rows(text)]
    assert len(tables) == 3
    for table in tables[:2]:
        assert table[2:] == [['4 of 32x32', *['1.00 (1.00)'] * 3], ['1 of 64x64', *['2.00 (2.00)'] * 3]]
    assert tables[2][3][3] == '– (–)'


# The command

def run(*args, cwd):
    command = [sys.executable, str(SCRIPTS / 'benchmark_paper.py'), '--device', 'cpu', *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_tiny_run_writes_what_it_measured(tmp_path):
    models = ['resnet18', 'wavemix_16_5']
    done = run(
        '--models', *models, '--batch-size', '2', '--rounds', '1', '--json', 'b.json', '--output', 'b.md', cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    report = json.loads((tmp_path / 'b.json').read_text())
    (results,) = report['results']
    assert [cost['model'] for cost in results['costs'] if cost['model'] in script.PAPER] == models
    assert not any(record['error'] for record in results['costs'] + results['speeds'])
    speeds = {(s['model'], s['mode'], s['precision']): s for s in results['speeds']}
    assert len(speeds) >= len(models) * len(script.MODES) * len(script.PRECISIONS)
    assert all(len(s['seconds']) == 1 and s['memory_format'] in script.MEMORY_FORMATS for s in speeds.values())

    text = (tmp_path / 'b.md').read_text(encoding='utf-8')
    assert report['machine'] in text and report['command'] in text
    memory, speed, bf16, batch, goals = rows(text)
    assert [row[0] for row in memory[2:]] == [f'`{name}`' for name in models]
    assert memory[3][2] == '0.18'
    assert speed[2][2] == '1.00'
    seconds = {name: speeds[name, 'train', 'fp32']['seconds'][0] for name in models}
    assert float(speed[3][2]) == pytest.approx(seconds['resnet18'] / seconds['wavemix_16_5'], rel=0.01)
    assert len(bf16) == len(batch) == 4
    assert ['`wavemix_16_5`', 'resnet18'] in [row[:2] for row in goals]
    Image.open(tmp_path / 'b.png').verify()


@pytest.mark.parametrize('args, expected', [
    (['--models', 'resnet19'], 'resnet19'),
    (['--rounds', '0'], 'give 1 or more'),
    (['--output', 'nowhere/b.md'], 'make it, or name another file'),
    (['--device', 'gpu'], "torch cannot use 'gpu'"),
])
def test_wrong_arguments_are_told_before_anything_is_measured(tmp_path, args, expected):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr and 'Traceback' not in done.stderr
