"""The comparison and the ablation: all models are trained alike, an interrupted run resumes, failures are reported."""
import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image

from conftest import markdown_rows, status_of
from scripts.benchmarks import ablation
from scripts.benchmarks import compare_fashion_mnist as script
from scripts.benchmarks.common import comparison, comparison_report, comparison_setup, costs, training
from scripts.benchmarks.common.images import balanced_subset, load_split

CLASSES = 'bright', 'dark', 'middling'
TINY = (  # three epochs of four updates
    '--updates', 12, '--images', 18, '--batch-size', 4, '--lr', 1e-3, '--seeds', 42, '--image-size', 8,
    '--precision', 'fp32', '--device', 'cpu', '--test-images', 'all', '--validation-images', 'all')
UPDATES, TIME = script.BUDGETS


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """An image folder of three shades of noise: 8 training, 4 validation and 4 test images of each."""
    folder = tmp_path_factory.mktemp('data')
    noise = np.random.default_rng(0)
    for split, images in ('train', 8), ('validation', 4), ('test', 4):
        for name, shade in zip(CLASSES, (200, 0, 100)):
            (folder / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = shade + noise.integers(0, 50, (10, 10), dtype=np.uint8)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f'{i}.png')
    return folder


@pytest.fixture(autouse=True)
def light(request, monkeypatch):
    """No limit of memory, which would hold for all tests, and no pictures, which take longer than tiny trainings."""
    monkeypatch.setattr(comparison_setup.command, 'limit_memory', lambda device: None)
    if 'picture' not in request.node.name:
        monkeypatch.setattr(comparison_report, 'draw', lambda *_: Figure((1, 1)))
        monkeypatch.setattr(ablation, 'draw', lambda *_: Figure((1, 1)))


@pytest.fixture
def run(data, tmp_path):
    """Run a command with tiny settings; its status or sentence, or the rows of a budget by model."""
    def run(*args, work='work', data=data, budget=UPDATES, command=script):
        args = [*TINY, '--data-dir', data, '--work', tmp_path / work, '--output', tmp_path / work, *args]
        if command is script:
            args = ['--seconds', 1e-9, *args]  # one update
        status = status_of(command.main, *args)
        if status:
            return status
        report = json.loads((tmp_path / f'{work}.json').read_text(encoding='utf-8'))
        return {row['name']: row for row in report['rows'] if row['budget'] == budget}
    return run


def file_name(name):
    return f'{name}.equal_updates.lr0.001.seed42.pth'


# What is compared

@pytest.mark.parametrize(
    'name', ['wavemix_16_5', 'wavemix_lite_128_7', 'fnet2d_64_5', 'mlp_mixer2d_64_5', 'cvt_128_4x4'])
def test_a_model_takes_the_size_and_the_classes_and_drops_nothing(name):
    if name.endswith('4x4'):
        pytest.importorskip('vit_pytorch')
    model = comparison.create(comparison.Run(name, name), 3, 12)
    assert model.eval()(torch.randn(1, 3, 12, 12)).shape == (1, 3)
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))


def test_the_ablation_trains_variants_and_measures_their_costs_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, 'ROUNDS', 1)
    args = '--variants', 'bilinear', 'no_conv_dw', '--updates', 1, '--images', 4, '--seeds', 1, 2
    rows = run(*args, command=ablation)
    names = ['wavemix_16_5', 'wavemix_16_5.bilinear', 'wavemix_16_5.no_conv_dw']
    assert list(rows) == names and not any(row['error'] for row in rows.values())
    assert len({row['results'][0]['losses'][0] for row in rows.values()}) == 3

    trained = json.loads((tmp_path / 'work.json').read_text())
    assert status_of(ablation.main, '--costs', '--device', 'cpu', '--output', tmp_path / 'work') == 0
    report = json.loads((tmp_path / 'work.json').read_text())
    assert trained['costs'] is None and {**report, 'costs': None} == trained
    costs_of = report['costs']['rows']
    assert list(costs_of) == names
    assert costs_of['wavemix_16_5.no_conv_dw']['saved_bytes'] < costs_of['wavemix_16_5']['saved_bytes']
    tables = markdown_rows((tmp_path / 'work.md').read_text())
    assert [[cell[0].strip('`') for cell in table[2:]] for table in tables] == [names, names]
    assert run('--variants', 'none', command=ablation) == 2


# What they are trained on

def test_subset_is_balanced_and_drawn_by_the_seed(data):
    dataset = load_split(data, 'train')
    subset = balanced_subset(dataset, 11, seed=1)
    counts = Counter(dataset.reader.samples[i][1] for i in subset.indices)
    assert sorted(counts.values()) == [3, 4, 4] and len(set(subset.indices)) == 11
    assert subset.indices == balanced_subset(dataset, 11, seed=1).indices
    assert set(subset.indices) != set(balanced_subset(dataset, 11, seed=2).indices)
    assert sorted(balanced_subset(dataset, None, seed=1).indices) == list(range(24))


@pytest.mark.parametrize('aug', [False, True])
def test_training_images_are_augmented_unless_they_are_not_to_be(data, aug):
    args = argparse.Namespace(
        data_dir=data, image_size=10, lr=[1e-3], validation_images=None, test_images=None, aug=aug)
    images = comparison_setup.load_data(args).train
    same = {torch.equal(images[0][0], images[0][0]) for _ in range(5)}
    assert same == {not aug}
    if not aug:
        pixels = np.asarray(Image.open(data / 'train/bright/0.png').convert('RGB')) / 255
        assert images[0][0].permute(1, 2, 0).numpy() == pytest.approx((pixels - 0.286) / 0.353, abs=1e-5)


def test_every_model_gets_the_same_images_in_the_same_order(run, monkeypatch):
    seen, create = [], comparison.create

    def watched(*args):
        batches = []
        seen.append(batches)
        model = create(*args)
        model.register_forward_pre_hook(lambda module, args: batches.append(args[0].clone()))
        torch.rand(len(seen))  # no two models draw as many random numbers for their weights
        return model

    monkeypatch.setattr(comparison, 'create', watched)
    run('--models', 'mlp_mixer2d_64_5', 'fnet2d_64_5')
    first, *others = [batches for batches in seen if len(batches) == 12]
    assert len(others) == 1 and {tuple(x.shape) for x in first} == {(4, 3, 8, 8)}
    for batches in others:
        assert all(torch.equal(a, b) for a, b in zip(first, batches, strict=True))
    assert not any(torch.equal(first[0], x) for x in first[1:])
    tests = [batches[0] for batches in seen if batches and batches[0].shape[0] == 12]
    assert len(tests) == 2 * 2 and all(torch.equal(tests[0], x) for x in tests)  # both budgets
    grey = 0.286 + 0.353 * tests[0]
    assert 0 <= grey.min() < 0.2 < 0.78 < grey.max() <= 1  # normalised as in the recipe


def test_learning_rate_rises_and_falls_over_the_updates():
    model = torch.nn.Linear(1, 1)
    recipe = comparison.RECIPE
    learner = training.create_learner(
        model, 'fp32', recipe['opt'], 2e-3, 0., 1, 32, warmup_epochs=1 / 4, warmup_lr=1e-4, min_lr=1e-5)
    rates = []
    learner.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]['lr']))
    batch = torch.ones(2, 1), torch.zeros(2, dtype=torch.long)
    list(learner.epochs(lambda epoch: [batch] * 8, 0, 4, 8, seed=0))
    top = rates.index(max(rates))
    assert len(rates) == 32 and rates[0] == pytest.approx(1e-4) and 6 <= top <= 9
    assert max(rates) == pytest.approx(2e-3, rel=0.15) and rates[-1] < 2e-4
    assert rates[:top + 1] == sorted(rates[:top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_bf16_is_mixed_precision_in_training_and_in_the_accuracy(run, monkeypatch):
    seen, create = [], comparison.create

    def watched(*args):
        model = create(*args)
        model.blocks[0].conv_dw.register_forward_hook(lambda conv, _, out: seen.append((conv.training, out.dtype)))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        return model

    monkeypatch.setattr(comparison, 'create', watched)
    run('--models', 'wavemix_16_5', '--precision', 'bf16', '--updates', 1)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}


def test_seeds_are_trained_on_other_images_with_other_weights(run, tmp_path, monkeypatch):
    seeds, random_seed = [], training.random_seed
    for module in comparison, training:
        monkeypatch.setattr(module, 'random_seed', lambda *args: seeds.append(sum(args)) or random_seed(*args))
    row = run('--models', 'fnet2d_64_5', '--seeds', 0, 1, 2)['fnet2d_64_5']
    assert len(set(seeds)) == 3 * (1 + 3)
    assert len({result['losses'][0] for result in row['results']}) == 3
    top1 = [result['top1'] for result in row['results']]
    cell = markdown_rows((tmp_path / 'work.md').read_text(encoding='utf-8'))[0][2][2]
    assert cell == f'{np.mean(top1):.1f} ± {np.std(top1, ddof=1):.1f}'


def test_the_rate_that_is_best_on_validation_images_is_taken_for_every_seed(run, monkeypatch):
    measured = iter([20., 90., 50.] + [0.] * 100)  # of the tried ones; what tests give does not matter

    def accuracy(model, dataset, device):
        return next(measured) if Path(dataset.dataset.reader.root).name == 'validation' else 10.

    monkeypatch.setattr(comparison, 'accuracy', accuracy)
    row = run('--models', 'fnet2d_64_5', '--lr', 1e-3, 2e-3, 4e-3, '--seeds', 1, 2, '--updates', 2)['fnet2d_64_5']
    assert [result['lr'] for result in row['tried']] == [1e-3, 2e-3, 4e-3]
    assert [(result['lr'], result['seed']) for result in row['results']] == [(2e-3, 1), (2e-3, 2)]
    assert [result['top1'] for result in row['tried']] == [None] * 3  # the test images chose nothing
    assert len({result['updates'] for result in row['tried'] + row['results']}) == 1  # at equal cost


def test_a_dry_run_measures_steps_and_equal_time_gives_the_updates_that_fit(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(comparison_setup, 'train_all', lambda *_: pytest.fail('trained'))
        with pytest.raises(FileNotFoundError, match=r'work\.json'):  # there is no report
            run('--models', 'fnet2d_64_5', '--dry-run', '--seconds', 1, '--updates', 1)
    assert json.loads((tmp_path / 'work' / 'steps.json').read_text())['fnet2d_64_5'] > 0
    (tmp_path / 'work' / 'steps.json').write_text('{"fnet2d_64_5": 0.25}')
    rows = run('--models', 'fnet2d_64_5', '--seconds', 1, '--updates', 1, budget=TIME)
    assert rows['fnet2d_64_5']['results'][0]['updates'] == 4


def test_cost_is_estimated_from_the_steps():
    settings = comparison.Settings(CLASSES, 1, 30, 60, 28, 10, 7, 2., [1, 2, 3], [1, 2], 'fp32', *['none'] * 3)
    runs = [comparison.Run('a', 'a')]
    # 3 rates and 1 more seed; 4 * 30 validation and 2 * 60 test images at a third of a step for each 10
    seconds = 0.5 * (4 * (7 + 4) + 2 * 240 / 10 / 3)
    assert comparison.estimate(runs, script.BUDGETS, settings, {'a': 0.5}) == pytest.approx(seconds)


def test_agreement_with_the_papers_order_counts_pairs():
    ours = {'a': 3, 'b': 2, 'c': 1, 'not there': 9}
    assert comparison_report.same_order(ours, {'a': 30, 'b': 10, 'c': 20, 'd': 0}) == (2, 3)


def test_a_model_learns_and_report_and_picture_have_what_came_of_it(run, tmp_path):
    result, = run('--models', 'fnet2d_64_5', '--updates', 72, '--images', 'all')['fnet2d_64_5']['results']
    assert result['top1'] >= 75 and result['losses'][-1] < 0.8 * result['losses'][0]
    table, _ = markdown_rows((tmp_path / 'work.md').read_text(encoding='utf-8'))
    model = timm.create_model('fnet2d_64_5', num_classes=3)
    assert table[2][:5] == [
        '`fnet2d_64_5`', f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}', f'{result["top1"]:.1f}', '0.001',
        '72']
    assert table[2][6:] == [f'{result["losses"][-1]:.2f}', '64.60'] and float(table[2][5].replace(',', '')) > 0
    assert Image.open(tmp_path / 'work.png').format == 'PNG'


# Being cut off

@pytest.mark.parametrize('updates', [2, 6])  # of 12: within the first and the second of three epochs
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(run, tmp_path, monkeypatch, updates):
    update, calls = training.Learner.update, []

    def power_cut(self, *args):
        if self.scheduler:  # not a step that is measured
            calls.append(None)
        if len(calls) > updates:
            raise KeyboardInterrupt
        return update(self, *args)

    whole = run('--models', 'fnet2d_64_5', work='whole')['fnet2d_64_5']['results'][0]
    with monkeypatch.context() as patch:
        patch.setattr(training.Learner, 'update', power_cut)
        assert 'interrupted' in run('--models', 'fnet2d_64_5', work='cut')
    torch.rand(7)
    resumed = run('--models', 'fnet2d_64_5', work='cut')['fnet2d_64_5']['results'][0]
    assert resumed['losses'] == whole['losses'] and resumed['top1'] == whole['top1']
    a, b = (
        torch.load(tmp_path / work / file_name('fnet2d_64_5'), weights_only=True)['state_dict']
        for work in ('whole', 'cut'))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_finished_models_are_kept_under_their_settings_only_and_a_damaged_state_is_named(run, tmp_path, monkeypatch):
    first = run('--models', 'fnet2d_64_5', '--updates', 1)
    created, create = [], comparison.create
    monkeypatch.setattr(comparison, 'create', lambda run, *args: created.append(run.name) or create(run, *args))
    second = run('--models', 'fnet2d_64_5', 'mlp_mixer2d_64_5', '--updates', 1)
    assert set(created) == {'mlp_mixer2d_64_5'} and second['fnet2d_64_5'] == first['fnet2d_64_5']
    message = run('--models', 'fnet2d_64_5', '--lr', 0.5, '--updates', 4)
    assert 'updates 1, not 4; lrs [0.001], not [0.5]' in message and '--work' in message and '\n' not in message
    file = tmp_path / 'work' / file_name('fnet2d_64_5')
    file.write_bytes(file.read_bytes()[:1000])
    assert str(file) in run('--models', 'fnet2d_64_5', '--updates', 1)['fnet2d_64_5']['error']


# What goes wrong

def test_a_model_that_fails_fails_alone(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'vit_pytorch', None)
    results = run('--models', 'vit_128_4x4', 'fnet2d_64_5', '--updates', 1)
    assert '--group baselines' in results['vit_128_4x4']['error'] and not results['vit_128_4x4']['results']
    assert not results['fnet2d_64_5']['error'] and results['fnet2d_64_5']['results'][0]['top1'] is not None
    text = (tmp_path / 'work.md').read_text(encoding='utf-8')
    assert re.search(r'^\| `vit_128_4x4` .*failed', text, re.MULTILINE) and '`pip install --group baselines`' in text


def test_a_loss_that_is_not_finite_ends_the_training(run):
    result = run('--models', 'fnet2d_64_5', '--lr', 1e38)['fnet2d_64_5']
    assert 'learning rate' in result['error'] and not result['results']


@pytest.mark.parametrize('args, words', [
    (['--images', '25'], ['24', '25']),
    (['--batch-size', '20'], ['18', '--batch-size']),
    (['--lr', '0'], 2),
    (['--output', 'nowhere/results'], 2),
    (['--output', 'results.json'], 2),
    (['--redraw', '--output', 'absent'], ['absent.json']),
])
def test_wrong_settings_end_in_one_sentence(run, args, words):
    message = run(*args)
    assert message == words or ('\n' not in message and all(word in message for word in words))


def test_wrong_folders_end_in_one_sentence(run, data, tmp_path):
    assert str(tmp_path / 'train') in run(data=tmp_path)
    for split in 'train', 'validation':
        (tmp_path / split).symlink_to(data / split)
    (tmp_path / 'test').mkdir()
    for name in CLASSES[:2]:
        (tmp_path / 'test' / name).symlink_to(data / 'test' / name)
    assert 'middling' in run(data=tmp_path)
