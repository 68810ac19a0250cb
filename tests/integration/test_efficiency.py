"""The efficiency benchmark: what is counted and compared is right. No test depends on a time."""
import json
import sys

import pytest
import timm
import torch
import torch.nn as nn
from PIL import Image

import efficiency as script
from conftest import markdown_rows, randomize_batch_norms
from lib import measure, reference
from timm_wavemix.wavemix import checkpoint_filter_fn

CPU = torch.device('cpu')


def with_statistics(model):
    """Batch norms that have something to do."""
    torch.manual_seed(0)
    return randomize_batch_norms(model)


def assert_equal_logits(model, other):
    x = torch.randn(2, 3, 32, 32)
    for training in (False, True):
        for net in (model, other):
            net.train(training)
            for module in net.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
        torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


# The references

@pytest.mark.parametrize('name', ['wavemix_16_5', 'wavemix_64_5'])
def test_plain_model_takes_our_weights_and_gives_our_logits(name):
    pytest.importorskip('pytorch_wavelets')
    model = with_statistics(timm.create_model(name, num_classes=10))
    other = reference.plain_model(name)
    other.load_state_dict(model.state_dict())
    assert_equal_logits(model, other)


@pytest.mark.parametrize('dim', [16, 128])
def test_authors_model_gives_the_logits_of_ours(dim):
    other = with_statistics(reference.authors_lite_model(dim, 7, CPU))
    model = timm.create_model('wavemix_lite_128_7', dim=dim, num_classes=10)
    model.load_state_dict(checkpoint_filter_fn(other.state_dict(), model))
    assert_equal_logits(model, other)


def test_implementations_that_are_not_installed_are_left_out_with_a_remark(monkeypatch):
    for package in ('pytorch_wavelets', 'wavemix'):
        monkeypatch.setitem(sys.modules, package, None)
    cases, remarks = script.create_implementations(['wavemix_16_5', 'wavemix_lite_256_7'], 64, 32, CPU)
    assert not cases
    assert len(remarks) == 2 and all('pip install --group baselines' in remark for remark in remarks)


def test_a_model_that_does_not_take_the_size_is_left_out_with_a_remark():
    pytest.importorskip('vit_pytorch')
    cases, (remark,) = script.create_cases(['fnet2d_64_5', 'vit_128_4x4'], 1, 100, CPU)  # patches of 3x3 do not fill it
    assert [case.name for case in cases] == ['fnet2d_64_5']
    assert remark.startswith('Not measured at 100x100: vit_128_4x4 (')


def test_what_reparameterize_model_changes_is_timed_in_that_form_too_in_inference_alone():
    cases, _ = script.create_cases(['resnet18', 'wavemix_lite_128_7'], 4, 32, CPU)
    deployed = 'wavemix_lite_128_7 (reparameterized)'
    assert [(case.name, case.batch_size, len(case.modes)) for case in cases] == [
        ('resnet18', 4, 2), ('resnet18', 1, 1),
        ('wavemix_lite_128_7', 4, 2), ('wavemix_lite_128_7', 1, 1), (deployed, 4, 1), (deployed, 1, 1)]
    plain, deployed = cases[2].model, cases[4].model
    assert not deployed.training and plain is not deployed
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(deployed(x), plain.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name, image_size, params', [
    ('wavemix_16_5', 32, 182_442), ('wavemix_16_5', 28, 182_442), ('wavemix_16_5', 64, 429_642)])
def test_wavemix_has_the_levels_that_the_paper_uses_at_the_size(name, image_size, params):
    assert sum(p.numel() for p in script.create(name, image_size).parameters()) == params


# What is counted

@pytest.mark.parametrize('name, mebibytes', [('resnet18_3x3', 287), ('resnet50_3x3', 1557)])
def test_resnets_save_at_batch_64_what_the_papers_stem_takes(name, mebibytes):
    model = script.create(name, 32)
    one, two = (measure.saved_bytes(model, torch.randn(n, 3, 32, 32)) for n in (1, 2))
    assert 64 * (two - one) / 2 ** 20 == pytest.approx(mebibytes, abs=1)


def test_checkpointing_saves_less():
    model = script.create('wavemix_16_5', 32)
    x = torch.randn(2, 3, 32, 32)
    plain = measure.saved_bytes(model, x)
    model.set_grad_checkpointing()
    assert measure.saved_bytes(model, x) < plain / 2


def test_figures_of_the_paper_are_those_it_draws_conclusions_from():
    paper = script.PAPER
    train, inference = (
        {
            name: figures.speed[mode][32] / paper['resnet18_3x3'].speed[mode][32]
            for name, figures in paper.items() if figures.speed[mode]}
        for mode in script.MODES)
    assert {name: round(ratio, 2) for name, ratio in train.items() if 'wavemix' in name} == {
        'wavemix_16_5': 2.06, 'wavemix_32_5': 1.17, 'wavemix_lite_128_7': 0.81, 'wavemix_lite_256_7': 0.32}
    assert {name: round(ratio, 2) for name, ratio in inference.items() if 'wavemix' in name} == {
        'wavemix_16_5': 1.25, 'wavemix_32_5': 1.11, 'wavemix_lite_128_7': 0.99, 'wavemix_lite_256_7': 0.30}
    resnet50 = paper['resnet50_3x3'].memory[32]
    memory = {name: round(paper[name].memory[32] / resnet50, 2) for name in paper if 'wave' in name}
    assert memory == {
        'wavemix_16_5': 0.06, 'wavemix_32_5': 0.06, 'wavemix_64_5': 0.09, 'wavemix_lite_128_7': 0.39,
        'wavemix_lite_256_7': 0.70}
    assert paper['wavemix_lite_128_7'].largest_batch == {'train': {32: 768}, 'inference': {32: 2176}}


@pytest.mark.parametrize('name', [name for name in script.PAPER if script.PAPER[name].params])
def test_parameter_counts_are_those_of_the_paper(name):
    if name == 'resnet50_3x3':
        pytest.skip("has 23.5 M, in the paper's table 2 too, not the 25.2 of its table 1")
    if name.endswith('4x4'):
        pytest.importorskip('vit_pytorch')
        pytest.importorskip('nystrom_attention')
    params = sum(p.numel() for p in script.create(name, 32).parameters()) / 1e6
    assert params == pytest.approx(script.PAPER[name].params, rel=0.04)


# How it is measured

class Light(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


class TooLarge(nn.Module):
    def forward(self, x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.\nmore")


def test_a_model_that_does_not_fit_is_reported_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    cases = [script.Case('resnet50_3x3', TooLarge(), 1, 4), script.Case('resnet18_3x3', Light(), 1, 4)]
    results = script.measure(cases, 1, CPU, 'test')
    for mode in script.MODES:
        assert results.speed('resnet50_3x3', mode).error.startswith('out of memory: DefaultCPUAllocator')
        assert results.speed('resnet18_3x3', mode).ratio(results.speed('resnet18_3x3', mode)) == 1.
    (table,) = markdown_rows(script.speed_table(results, 32, 'fp32'))
    cells = {row[0]: row[1:] for row in table}
    assert cells['`resnet50_3x3`'][0] == 'out of memory' and cells['`resnet50_3x3`'][1] == '–'
    assert cells['`resnet18_3x3`'][1] == '1.00'
    assert markdown_rows(script.memory_table(results, 32))[0][2][5] == 'out of memory'
    figure = script.draw(results, 32)
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ['resnet18_3x3', 'resnet50_3x3']
    assert markdown_rows(script.ratio_table(results, 32))[0][2][4:8:2] == ['out of memory', 'out of memory']


def test_a_model_that_takes_too_long_is_reported_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(
        measure, 'step_seconds', lambda case, *_: 61. if case.name == 'resnet50_3x3' else 0.25)
    cases = [script.Case(name, Light(), 1, 4) for name in ('resnet50_3x3', 'resnet18_3x3')]
    results = script.measure(cases, 2, CPU, 'test', step_limit=60.)
    for mode in script.MODES:
        assert results.speed('resnet50_3x3', mode).error == 'out of time: a step takes 61 s, more than 60 s'
        assert len(results.speed('resnet18_3x3', mode).seconds) == 2
    (table,) = markdown_rows(script.ratio_table(results, 32))
    assert table[2][6] == table[2][8] == 'out of time' and table[3][6] == '1.00'


def test_ratios_to_resnet18_stand_beside_the_papers():
    costs = [
        measure.Cost('resnet18_3x3', 64, 32, params=1000, flops=80, saved_bytes={'fp32': 500}),
        measure.Cost('cct_128_4x4', 64, 32, params=100, flops=20, saved_bytes={'fp32': 2500})]
    speeds = [
        measure.Speed(model, 64, 32, mode, 'fp32', seconds=[seconds])
        for mode in script.MODES for model, seconds in (('resnet18_3x3', 1.), ('cct_128_4x4', 5.))]
    (table,) = markdown_rows(script.ratio_table(measure.Results(costs, speeds), 32))
    assert table[3] == [
        '`cct_128_4x4`', '0.100', '0.0804', '0.250', '5.00', '13.2', '0.200', '0.0948', '0.200', '0.152']


def test_reparameterized_models_stand_below_the_plain_ones_at_either_batch_size():
    deployed = script.reparameterized('wavemix_16_5')
    speeds = [
        measure.Speed(model, n, 32, 'inference', 'fp32', seconds=[n * seconds])
        for n in (64, 1) for model, seconds in (('resnet18_3x3', 1.), ('wavemix_16_5', 0.5), (deployed, 0.25))]
    costs = [measure.Cost('resnet18_3x3', 64, 32), measure.Cost('wavemix_16_5', 64, 32)]
    (table,) = markdown_rows(script.inference_table(measure.Results(costs, speeds)))
    assert table[2:] == [
        ['`resnet18_3x3`', '1.00', '1.00', '1.00', '1.00', '1.00', '1.00'],
        ['`wavemix_16_5`', '2.00', '2.00', '1.00', '2.00', '2.00', '1.00'],
        ['`wavemix_16_5 (reparameterized)`', '4.00', '4.00', '2.00', '4.00', '4.00', '2.00']]


def test_memory_with_checkpointing_is_compared_with_resnet50_with_checkpointing():
    costs = [
        measure.Cost('resnet50_3x3', 64, 32, saved_bytes={'fp32': 8 << 20, measure.CHECKPOINTED: 4 << 20}),
        measure.Cost('wavemix_16_5', 64, 32, saved_bytes={'fp32': 4 << 20, measure.CHECKPOINTED: 1 << 20})]
    (table,) = markdown_rows(script.memory_table(measure.Results(costs, []), 32))
    assert table[3][8] == '0.500' and table[3][11:] == ['1.00', '0.250']


def test_peaks_of_a_gpu_stand_beside_the_papers():
    costs = [
        measure.Cost('resnet18_3x3', 64, 32, peak_bytes={'train': 2 << 30, 'inference': 1 << 29}),
        measure.Cost('wavemix_lite_128_7', 64, 32, peak_bytes={'train': 1 << 30, 'inference': 1 << 28}),
        measure.Cost('cct_128_4x4', 64, 32, error='out of memory: 1 GiB')]
    (table,) = markdown_rows(script.peak_table(measure.Results(costs, []), 32))
    papers = {name: script.PAPER[name].memory[32] for name in ('resnet18_3x3', 'wavemix_lite_128_7', 'cct_128_4x4')}
    assert [row[0] for row in table[2:]] == [f'`{name}`' for name in papers]
    resnet, wavemix, cct = (dict(zip(table[0], row)) for row in table[2:])
    assert float(resnet['training (GiB)']) == 2 and float(resnet['training ÷ ResNet-18']) == 1
    assert float(wavemix['training (GiB)']) == 1 and float(wavemix['inference (GiB)']) == 0.25
    assert float(wavemix['training ÷ ResNet-18']) == 0.5
    assert float(wavemix['paper']) == pytest.approx(papers['wavemix_lite_128_7'] / papers['resnet18_3x3'], rel=0.01)
    assert cct['training (GiB)'] == cct['inference (GiB)'] == 'out of memory' and cct['training ÷ ResNet-18'] == '–'


def test_other_implementations_are_compared_and_those_not_measured_have_a_dash():
    speeds = [
        measure.Speed(model, 64, 32, mode, 'fp32', seconds=[seconds]) for mode in script.MODES for model, seconds in (
            ('wavemix_16_5', 1.), ('wavemix_64_5', 1.), (f'wavemix_16_5: {script.PYTORCH_WAVELETS}', 3.))]
    costs = [measure.Cost('wavemix_16_5', 64, 32), measure.Cost('wavemix_64_5', 64, 32)]
    (table,) = markdown_rows(script.implementation_table(measure.Results(costs, speeds)))
    assert [row[2:] for row in table[2:]] == [['3.00', '3.00'], ['–', '–']]


def test_a_missing_library_costs_only_its_models(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vit_pytorch', None)
    cases, remarks = script.create_cases(['vit_128_4x4', 'fnet2d_64_5'], 1, 32, CPU)
    assert [case.name for case in cases] == ['fnet2d_64_5']
    assert len(remarks) == 1 and 'pip install --group baselines' in remarks[0]


@pytest.mark.parametrize('name', ['mlp_mixer2d_64_5', 'convmixer_256_8', 'cct_128_4x4', 'resnet18_3x3'])
def test_models_are_made_for_the_size(name):
    if name.startswith('cct'):
        pytest.importorskip('vit_pytorch')
    assert script.create(name, 64).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 10)


# The command

def test_tiny_run_writes_what_it_measured(tmp_path, monkeypatch):
    models = ['resnet18_3x3', 'wavemix_16_5']
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [
        script.__file__, '--device', 'cpu', '--models', *models, '--batch-size', '2', '--rounds', '1',
        '--json', 'b.json', '--output', 'b.md'])
    script.main()

    report = json.loads((tmp_path / 'b.json').read_text())
    (results,) = report['results']
    assert [cost['model'] for cost in results['costs'] if cost['model'] in script.PAPER] == models
    assert not any(record['error'] for record in results['costs'] + results['speeds'])
    speeds = {
        (s['model'], s['mode'], s['precision']): s for s in results['speeds'] if s['batch_size'] == 2}
    assert len(speeds) >= len(models) * len(script.MODES) * len(measure.PRECISIONS)
    assert all(len(s['seconds']) == 1 and s['memory_format'] in measure.MEMORY_FORMATS for s in speeds.values())

    text = (tmp_path / 'b.md').read_text(encoding='utf-8')
    assert report['machine'] in text and 'Generated, do not edit.' in text
    assert 'python scripts/benchmarks/efficiency.py --device ' in report['command']
    assert report['command'] in text
    ratios, memory, speed, bf16, inference, batch, implementations = markdown_rows(text)
    names = [f'`{name}`' for name in models]
    assert [row[0] for row in ratios[2:]] == [row[0] for row in memory[2:]] == names
    assert memory[3][2] == '0.18'
    assert speed[2][2] == '1.00'
    seconds = {name: speeds[name, 'train', 'fp32']['seconds'][0] for name in models}
    assert float(speed[3][2]) == pytest.approx(seconds['resnet18_3x3'] / seconds['wavemix_16_5'], rel=0.01)
    assert len(bf16) == len(batch) == 4
    assert [row[0] for row in inference[2:]][:2] == names
    assert [row[0] for row in implementations[2:]] == ['`wavemix_16_5`']
    Image.open(tmp_path / 'b.png').verify()


@pytest.mark.parametrize('args, expected', [
    (['--models', 'resnet19'], 'resnet19'),
    (['--rounds', '0'], 'give 1 or more'),
    (['--output', 'nowhere/b.md'], 'make it, or name another file'),
    (['--device', 'gpu'], "torch cannot use 'gpu'"),
])
def test_wrong_arguments_are_errors_before_anything_is_measured(monkeypatch, capsys, args, expected):
    monkeypatch.setattr(sys, 'argv', ['efficiency.py', *args])
    with pytest.raises(SystemExit, match='2'):
        script.main()
    assert expected in capsys.readouterr().err
