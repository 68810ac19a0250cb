"""The comparison: all models are trained alike, an interrupted run resumes, failures are reported."""
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import compare_fashion_mnist as script

OURS = {
    'wavemix_16_5', 'wavemix_32_5', 'wavemix_64_5', 'wavemix_lite_128_7', 'wavemix_lite_256_7',
    'fnet2d_64_5', 'fnet2d_128_5', 'mlp_mixer2d_64_5', 'mlp_mixer2d_128_5',
}
BASELINES = {'resnet18', *timm.list_models(module='baselines')}
CLASSES = 'bright', 'dark', 'middling'
TINY = (  # three epochs of four updates, and a time that gives one update
    '--updates', 12, '--seconds', 1e-9, '--images', 18, '--batch-size', 4, '--lr', 1e-3, '--seeds', 42,
    '--image-size', 8, '--precision', 'fp32', '--device', 'cpu')
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


@pytest.fixture
def run(data, tmp_path, monkeypatch, capsys):
    """Run the script, with tiny settings if not told otherwise; its message, or the rows of the equal updates."""
    def run(*args, output='output', data=data, budget=UPDATES):
        folder = tmp_path / output
        monkeypatch.setattr(sys, 'argv', [
            'compare_fashion_mnist.py', *map(str, TINY), '--data-dir', str(data), '--test-images', 'all',
            '--validation-images', 'all', '--output', str(folder), *map(str, args)])
        try:
            script.main()
        except SystemExit as error:
            return capsys.readouterr().err.splitlines()[-1] if error.code == 2 else error.code
        report = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
        return {row['name']: row for row in report['rows'] if row['budget'] == budget}
    return run


def checkpoint(name, lr='0.001', seed=42):
    return f'{name}.equal_updates.lr{lr}.seed{seed}.pth'


def weights(folder, name):
    return torch.load(folder / checkpoint(name), weights_only=True)['model']


# What is compared

def test_all_models_of_the_comparison_are_trained_and_each_has_its_own_sign():
    runs = script.list_runs([name for names in script.FAMILIES.values() for name in names], ablation=False)
    assert {run.name for run in runs} == {run.model for run in runs} == OURS | BASELINES and len(runs) == 20
    result = script.Result('', UPDATES, 1, 1e-3, 42, 10 ** 6, [1.], [100.], top1=80.)
    rows = [script.Row(run.name, UPDATES, results=[result]) for run in runs]
    settings = script.Settings(CLASSES, 1, 1, 100, 28, 1, 1, 1., [1e-3], [42], 'fp32', *['none'] * 3)
    chart = script.draw(runs, rows, settings).axes[0]
    points = {bar.get_label(): bar.lines[0] for bar in chart.containers}
    assert set(points) == OURS | BASELINES
    assert len({(line.get_color(), line.get_marker()) for line in points.values()}) == 20


@pytest.mark.parametrize('name', sorted(OURS | BASELINES))
def test_every_model_takes_the_size_and_the_classes_and_drops_nothing(name):
    if name.endswith('4x4'):
        pytest.importorskip('vit_pytorch')
        pytest.importorskip('nystrom_attention')
    run, = script.list_runs([name], ablation=False)
    model = script.create(run, 3, 12)
    assert model.eval()(torch.randn(1, 3, 12, 12)).shape == (1, 3)
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))


def test_ablation_trains_each_model_with_haar_and_other_transforms_and_levels(run, tmp_path):
    pytest.importorskip('pywt')
    rows = run('--ablation', '--models', 'wavemix_16_5', '--updates', 1, '--images', 4)
    assert list(rows) == ['wavemix_16_5', *(f'wavemix_16_5.{variant}' for variant in (
        'db2', 'sym4', 'bior2.2', 'average_pooling', 'learned', 'dense', '1_levels', '2_levels', '3_levels'))]
    assert not any(row['error'] for row in rows.values())
    assert (tmp_path / 'output' / 'results.md').read_text().startswith('# Other transforms than Haar in WaveMix\n')
    assert len({row['results'][0]['losses'][0] for row in rows.values()}) == 10
    report = json.loads((tmp_path / 'output' / 'results.json').read_text(encoding='utf-8'))
    assert {row['budget'] for row in report['rows']} == {UPDATES}


def test_ablation_is_refused_for_models_without_a_wavelet(run):
    assert 'not for fnet2d_64_5' in run('--ablation', '--models', 'wavemix_16_5', 'fnet2d_64_5')


# What they are trained on

def test_subset_is_balanced_and_drawn_by_the_seed(data):
    dataset = script.load_split(data, 'train')
    subset = script.balanced_subset(dataset, 11, seed=1)
    counts = Counter(dataset.reader.samples[i][1] for i in subset.indices)
    assert sorted(counts.values()) == [3, 4, 4] and len(set(subset.indices)) == 11
    assert subset.indices == script.balanced_subset(dataset, 11, seed=1).indices
    assert set(subset.indices) != set(script.balanced_subset(dataset, 11, seed=2).indices)
    assert sorted(script.balanced_subset(dataset, None, seed=1).indices) == list(range(24))


def test_every_model_gets_the_same_images_in_the_same_order(run, monkeypatch):
    seen, create = [], script.create

    def watched(*args):
        batches = []
        seen.append(batches)
        model = create(*args)
        model.register_forward_pre_hook(lambda module, args: batches.append(args[0].clone()))
        torch.rand(len(seen))  # no two models draw as many random numbers for their weights
        return model

    monkeypatch.setattr(script, 'create', watched)
    run('--models', 'wavemix_16_5', 'fnet2d_64_5', 'resnet18_3x3')
    first, *others = [batches for batches in seen if len(batches) == 12]
    assert len(others) == 2 and {tuple(x.shape) for x in first} == {(4, 3, 8, 8)}
    for batches in others:
        assert all(torch.equal(a, b) for a, b in zip(first, batches, strict=True))
    assert not any(torch.equal(first[0], x) for x in first[1:])
    tests = [batches[0] for batches in seen if batches and batches[0].shape[0] == 12]
    assert len(tests) == 2 * 3 and all(torch.equal(tests[0], x) for x in tests)  # both budgets
    grey = 0.286 + 0.353 * tests[0]
    assert 0 <= grey.min() < 0.2 < 0.78 < grey.max() <= 1  # normalised as in the recipe


def test_learning_rate_rises_and_falls_over_the_updates(run, monkeypatch):
    rates, create_optimizer = [], script.create_optimizer_v2

    def watched(*args, **kwargs):
        optimizer = create_optimizer(*args, **kwargs)
        optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]['lr']))
        return optimizer

    monkeypatch.setattr(script, 'create_optimizer_v2', watched)
    run('--models', 'wavemix_16_5', '--updates', 32, '--lr', 2e-3, '--ablation')
    del rates[:next(i for i, rate in enumerate(rates) if rate > 0)]  # steps that are measured have none
    rates = rates[:32]
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(1e-4) and 2 <= top <= 5
    assert max(rates) == pytest.approx(2e-3, rel=0.1) and rates[-1] < 2e-4
    assert rates[:top + 1] == sorted(rates[:top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_bf16_is_mixed_precision_in_training_and_in_the_accuracy(run, monkeypatch):
    seen, create = [], script.create

    def watched(*args):
        model = create(*args)
        model.blocks[0].conv_dw.register_forward_hook(lambda conv, _, out: seen.append((conv.training, out.dtype)))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        return model

    monkeypatch.setattr(script, 'create', watched)
    run('--models', 'wavemix_16_5', '--precision', 'bf16', '--updates', 1)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}


def test_seeds_are_trained_on_other_images_with_other_weights(run, tmp_path, monkeypatch):
    seeds, random_seed = [], script.random_seed
    monkeypatch.setattr(script, 'random_seed', lambda *args: seeds.append(sum(args)) or random_seed(*args))
    row = run('--models', 'wavemix_16_5', '--seeds', 0, 1, 2)['wavemix_16_5']
    assert len(set(seeds)) == 3 * (1 + 3)
    assert len({result['losses'][0] for result in row['results']}) == 3
    text = (tmp_path / 'output' / 'results.md').read_text(encoding='utf-8')
    top1 = [result['top1'] for result in row['results']]
    assert f'| {np.mean(top1):.1f} ± {np.std(top1, ddof=1):.1f} |' in text


def test_the_rate_that_is_best_on_validation_images_is_taken_for_every_seed(run, tmp_path, monkeypatch):
    measured = iter([20., 90., 50.] + [0.] * 100)  # of the tried ones; what tests give does not matter

    def accuracy(model, dataset, device):
        return next(measured) if Path(dataset.dataset.reader.root).name == 'validation' else 10.

    monkeypatch.setattr(script, 'accuracy', accuracy)
    row = run('--models', 'wavemix_16_5', '--lr', 1e-3, 2e-3, 4e-3, '--seeds', 1, 2)['wavemix_16_5']
    assert [result['lr'] for result in row['tried']] == [1e-3, 2e-3, 4e-3]
    assert [(result['lr'], result['seed']) for result in row['results']] == [(2e-3, 1), (2e-3, 2)]
    assert [result['top1'] for result in row['tried']] == [None] * 3  # the test images chose nothing
    assert len({result['updates'] for result in row['tried'] + row['results']}) == 1  # at equal cost


def test_equal_time_gives_as_many_updates_as_fit(run, tmp_path):
    (tmp_path / 'output').mkdir()
    steps = {'wavemix_16_5': 0.5, 'fnet2d_64_5': 0.125}
    (tmp_path / 'output' / 'steps.json').write_text(json.dumps(steps), encoding='utf-8')
    rows = run('--models', 'wavemix_16_5', 'fnet2d_64_5', '--seconds', 1, budget=TIME)
    assert {name: row['results'][0]['updates'] for name, row in rows.items()} == {
        'wavemix_16_5': 2, 'fnet2d_64_5': 8}


def test_dry_run_measures_and_trains_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(script, 'train_all', lambda *_: pytest.fail('trained'))
    with pytest.raises(FileNotFoundError, match='results.json'):  # there is no report
        run('--models', 'fnet2d_64_5', '--dry-run')
    assert json.loads((tmp_path / 'output' / 'steps.json').read_text())['fnet2d_64_5'] > 0


def test_a_model_whose_first_step_fails_fails_alone(run, monkeypatch):
    step = script.train_step

    def out_of_memory(model, *args):
        if type(model).__name__ == 'WaveMix':
            raise RuntimeError('not enough memory')
        return step(model, *args)

    monkeypatch.setattr(script, 'train_step', out_of_memory)
    rows = run('--models', 'wavemix_16_5', 'resnet18_3x3')
    assert rows['wavemix_16_5']['error'] == 'RuntimeError: not enough memory' and not rows['resnet18_3x3']['error']


def test_cost_is_estimated_from_the_steps():
    settings = script.Settings(CLASSES, 1, 30, 60, 28, 10, 7, 2., [1, 2, 3], [1, 2], 'fp32', *['none'] * 3)
    run, = script.list_runs(['fnet2d_64_5'], ablation=False)
    # 3 rates and 1 more seed; 4 * 30 validation and 2 * 60 test images at a third of a step for each 10
    seconds = 0.5 * (4 * (7 + 4) + 2 * 240 / 10 / 3)
    assert script.estimate([run], script.BUDGETS, settings, {'fnet2d_64_5': 0.5}) == pytest.approx(seconds)


def test_agreement_with_the_papers_order_counts_pairs():
    assert script.same_order({'a': 3, 'b': 2, 'c': 1, 'not there': 9}, {'a': 30, 'b': 10, 'c': 20, 'd': 0}) == (2, 3)


def test_a_model_learns(run):
    row = run('--models', 'fnet2d_64_5', '--updates', 72, '--images', 'all')['fnet2d_64_5']
    result = row['results'][0]
    assert result['top1'] >= 75 and result['losses'][-1] < 0.8 * result['losses'][0]


# Being cut off

@pytest.mark.parametrize('updates', [2, 6, 11])  # of 12: within each of the three epochs
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(run, tmp_path, monkeypatch, updates):
    class PowerCut(script.LabelSmoothingCrossEntropy):
        calls = 0

        def forward(self, *args):
            self.calls += 1
            if self.calls > updates:
                raise KeyboardInterrupt
            return super().forward(*args)

    whole = run('--models', 'wavemix_16_5', output='whole')['wavemix_16_5']['results'][0]
    with monkeypatch.context() as patch:
        patch.setattr(script, 'LabelSmoothingCrossEntropy', PowerCut)
        assert 'the same command goes on' in run('--models', 'wavemix_16_5', output='cut')
    torch.rand(7)
    resumed = run('--models', 'wavemix_16_5', output='cut')['wavemix_16_5']['results'][0]
    assert resumed['losses'] == whole['losses'] and resumed['top1'] == whole['top1']
    a, b = weights(tmp_path / 'whole', 'wavemix_16_5'), weights(tmp_path / 'cut', 'wavemix_16_5')
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_finished_models_are_not_trained_again_and_others_join_them(run, monkeypatch):
    first = run('--models', 'wavemix_16_5')
    created, create = [], script.create
    monkeypatch.setattr(script, 'create', lambda run, *args: created.append(run.name) or create(run, *args))
    second = run('--models', 'wavemix_16_5', 'fnet2d_64_5')
    assert set(created) == {'fnet2d_64_5'} and second['wavemix_16_5'] == first['wavemix_16_5']


def test_other_settings_are_refused_in_one_sentence(run, monkeypatch):
    software = script.SOFTWARE
    run('--models', 'wavemix_16_5')
    with monkeypatch.context() as patch:
        patch.setattr(script, 'SOFTWARE', 'torch 9')
        assert f'software {software}, not torch 9' in run('--models', 'fnet2d_64_5')
    message = run('--models', 'fnet2d_64_5', '--lr', 0.5, '--updates', 4)
    assert 'updates 12, not 4; lrs [0.001], not [0.5]' in message and '--output' in message and '\n' not in message


# What goes wrong

def test_a_missing_library_is_reported_and_the_rest_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'vit_pytorch', None)
    results = run('--models', 'vit_128_4x4', 'fnet2d_64_5')
    assert '--group baselines' in results['vit_128_4x4']['error'] and not results['vit_128_4x4']['results']
    assert not results['fnet2d_64_5']['error'] and results['fnet2d_64_5']['results'][0]['top1'] is not None
    text = (tmp_path / 'output' / 'results.md').read_text(encoding='utf-8')
    assert re.search(r'^\| `vit_128_4x4` .*failed', text, re.MULTILINE) and '`pip install --group baselines`' in text


def test_a_loss_that_is_not_finite_ends_the_training(run):
    result = run('--models', 'fnet2d_64_5', '--lr', 1e38)['fnet2d_64_5']
    assert 'smaller --lr' in result['error'] and not result['results']


def test_a_damaged_checkpoint_is_told(run, tmp_path):
    run('--models', 'wavemix_16_5')
    file = tmp_path / 'output' / checkpoint('wavemix_16_5')
    file.write_bytes(file.read_bytes()[:1000])
    assert f"'{file}' is damaged, delete it" in run('--models', 'wavemix_16_5')['wavemix_16_5']['error']


@pytest.mark.parametrize('args, message', [
    (['--images', '25'], "has 24 images, not 25: ask for no more, or for 'all'."),
    (['--batch-size', '20'], '18 images do not fill a batch: give --batch-size 18 or less.'),
    (['--lr', '0'], '0 is not above 0: give a larger number.'),
    (['--markdown', 'nowhere/results.md'], "there is no folder 'nowhere'"),
])
def test_wrong_settings_are_told_in_one_line(run, args, message):
    assert message in run(*args)


def test_wrong_folders_are_told_in_one_line(run, data, tmp_path):
    assert "there is no folder '" in run(data=tmp_path)
    (tmp_path / 'train').symlink_to(data / 'train')
    (tmp_path / 'test').mkdir()
    for name in CLASSES[:2]:
        (tmp_path / 'test' / name).symlink_to(data / 'test' / name)
    assert 'has no images of middling' in run(data=tmp_path)


# The report

def test_report_tells_how_it_came_about_and_what_came_of_it(run, tmp_path):
    (tmp_path / 'docs').mkdir()
    rows = run(
        '--models', 'wavemix_16_5', 'fnet2d_64_5', '--markdown', tmp_path / 'docs' / 'compare.md',
        '--plot', tmp_path / 'picture.png')
    result, = rows['wavemix_16_5']['results']
    text = (tmp_path / 'docs' / 'compare.md').read_text(encoding='utf-8')
    row, _ = re.findall(r'^\| `wavemix_16_5` \| (.*) \|$', text, re.MULTILINE)  # and equal time
    params, top1, lr, updates, speed, loss, paper = row.split(' | ')
    model = timm.create_model('wavemix_16_5', num_classes=3)
    assert params == f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}'
    assert top1 == f'{result["top1"]:.1f}' and (lr, updates, paper) == ('0.001', '12', '78.04')
    assert loss == f'{result["losses"][-1]:.2f}' and float(speed.replace(',', '')) > 0
    assert '## Equal updates: 12 updates' in text and '## Equal time: 1e-09 seconds' in text
    agrees = result['top1'] > rows['fnet2d_64_5']['results'][0]['top1']  # as in the paper
    assert f'{agrees:d} of the 1 pairs of models' in text.split('## Equal time')[0]
    assert 'compare_fashion_mnist.py --updates 12 ' in text
    picture = re.search(r'!\[.*?\]\((.*?)\)', text).group(1)
    assert Image.open(tmp_path / 'docs' / picture).format == 'PNG'
