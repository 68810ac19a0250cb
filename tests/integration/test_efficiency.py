"""The efficiency benchmark: what is counted and compared is right. No test depends on a time."""
import json
import sys

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from conftest import markdown_rows, randomize_batch_norms, status_of
from scripts.benchmarks import efficiency as script
from scripts.benchmarks import efficiency_tables as tables
from scripts.benchmarks.common import measure
from scripts.benchmarks.common.memory import saved_bytes
from scripts.benchmarks.common.paper import PAPER
from scripts.benchmarks.models import reference
from timm_wavemix.wavemix import checkpoint_filter_fn

CPU = torch.device('cpu')


# The references

@pytest.mark.parametrize('create_other, kwargs', [
    (lambda: reference.plain_model('wavemix_16_5'), dict(model_name='wavemix_16_5')),
    (lambda: reference.authors_lite_model(16, 7, CPU), dict(model_name='wavemix_lite_128_7', dim=16)),
], ids=['plain', 'authors'])
def test_a_reference_has_our_weights_and_gives_our_logits(create_other, kwargs):
    pytest.importorskip('pytorch_wavelets')
    torch.manual_seed(0)
    other = randomize_batch_norms(create_other())
    model = timm.create_model(num_classes=10, **kwargs)
    model.load_state_dict(checkpoint_filter_fn(other.state_dict(), model))
    x = torch.randn(2, 3, 32, 32)
    for training in (False, True):
        for net in (model, other):
            net.train(training)
            for module in net.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
        torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


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


# What is counted

@pytest.mark.parametrize('name, mebibytes', [('resnet18_3x3', 287), ('resnet50_3x3', 1557)])
def test_resnets_save_at_batch_64_what_the_papers_stem_takes(name, mebibytes):
    model = script.create(name, 32)
    one, two = (saved_bytes(model, torch.randn(n, 3, 32, 32)) for n in (1, 2))
    assert 64 * (two - one) / 2 ** 20 == pytest.approx(mebibytes, abs=1)


def test_figures_of_the_paper_give_the_ratios_that_it_draws_conclusions_from():
    resnet18, resnet50 = PAPER['resnet18_3x3'], PAPER['resnet50_3x3']
    names = 'wavemix_16_5', 'wavemix_32_5', 'wavemix_lite_128_7', 'wavemix_lite_256_7'
    for mode, ratios in ('train', (2.06, 1.17, 0.81, 0.32)), ('inference', (1.25, 1.11, 0.99, 0.30)):
        assert tuple(round(PAPER[name].speed[mode][32] / resnet18.speed[mode][32], 2) for name in names) == ratios
    memory = [round(PAPER[name].memory[32] / resnet50.memory[32], 2) for name in names]
    assert memory == [0.06, 0.06, 0.39, 0.70] and PAPER['wavemix_64_5'].memory[32] == 0.3
    assert PAPER['wavemix_lite_128_7'].largest_batch == {'train': {32: 768}, 'inference': {32: 2176}}


def speed(model, mode, images_per_second, batch_size=64, error='', **times_as_fast):
    return measure.Speed(model, batch_size, 32, mode, 'fp32', 'NCHW', images_per_second, times_as_fast, error)


def test_what_failed_has_its_reason_instead_of_a_figure():
    error = 'out of memory: DefaultCPUAllocator'
    costs = [measure.Cost('resnet50_3x3', 64, 32, error=error), measure.Cost('resnet18_3x3', 64, 32)]
    speeds = [
        speed(name, mode, *rest) for mode in script.MODES for name, *rest in (
            ('resnet50_3x3', None, 64, error), ('resnet18_3x3', 2.))]
    results = measure.Results(costs, speeds)
    (speed_rows,), (ratio_rows,), (memory_rows,) = (markdown_rows(text) for text in (
        tables.speed_table(results, 32, 'fp32'), tables.ratio_table(results, 32), tables.memory_table(results, 32)))
    assert speed_rows[2][1:3] == ['out of memory', '–'] and speed_rows[3][2] == '1.00'
    assert ratio_rows[2][4:8:2] == ['out of memory', 'out of memory'] and ratio_rows[3][6] == '1.00'
    assert memory_rows[2][5] == 'out of memory'
    figure = script.draw(script.Report('', '', '', 1, [], [results]))
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ['resnet18_3x3', 'resnet50_3x3']


def test_ratios_to_resnet18_stand_beside_the_papers():
    costs = [
        measure.Cost('resnet18_3x3', 64, 32, params=1000, flops=80, saved_bytes={'fp32': 500}),
        measure.Cost('cct_128_4x4', 64, 32, params=100, flops=20, saved_bytes={'fp32': 2500})]
    speeds = [
        speed(name, mode, 1., resnet18_3x3=0.2) for mode in script.MODES for name in ('resnet18_3x3', 'cct_128_4x4')]
    (table,) = markdown_rows(tables.ratio_table(measure.Results(costs, speeds), 32))
    assert table[3] == [
        '`cct_128_4x4`', '0.100', '0.0804', '0.250', '5.00', '13.2', '0.200', '0.0948', '0.200', '0.152']


def test_reparameterized_models_stand_below_the_plain_ones_at_either_batch_size():
    deployed = script.reparameterized('wavemix_16_5')
    speeds = [
        speed(model, 'inference', factor, n, **times) for n in (64, 1) for model, factor, times in (
            ('resnet18_3x3', 1., {}), ('wavemix_16_5', 2., dict(resnet18_3x3=2.)),
            (deployed, 4., dict(resnet18_3x3=4., wavemix_16_5=2.)))]
    costs = [measure.Cost('resnet18_3x3', 64, 32), measure.Cost('wavemix_16_5', 64, 32)]
    (table,) = markdown_rows(tables.inference_table(measure.Results(costs, speeds)))
    assert table[2:] == [
        ['`resnet18_3x3`', '1.00', '1.00', '1.00', '1.00', '1.00', '1.00'],
        ['`wavemix_16_5`', '2.00', '2.00', '1.00', '2.00', '2.00', '1.00'],
        ['`wavemix_16_5 (reparameterized)`', '4.00', '4.00', '2.00', '4.00', '4.00', '2.00']]


def test_memory_with_checkpointing_is_compared_with_resnet50_with_checkpointing():
    costs = [
        measure.Cost('resnet50_3x3', 64, 32, saved_bytes={'fp32': 8 << 20, measure.CHECKPOINTED: 4 << 20}),
        measure.Cost('wavemix_16_5', 64, 32, saved_bytes={'fp32': 4 << 20, measure.CHECKPOINTED: 1 << 20})]
    (table,) = markdown_rows(tables.memory_table(measure.Results(costs, []), 32))
    assert table[3][8] == '0.500' and table[3][11:] == ['1.00', '0.250']


def test_peaks_of_a_gpu_stand_beside_the_papers():
    costs = [
        measure.Cost('resnet18_3x3', 64, 32, peak_bytes={'train': 2 << 30, 'inference': 1 << 29}),
        measure.Cost('wavemix_lite_128_7', 64, 32, peak_bytes={'train': 1 << 30, 'inference': 1 << 28}),
        measure.Cost('cct_128_4x4', 64, 32, error='out of memory: 1 GiB')]
    (table,) = markdown_rows(tables.peak_table(measure.Results(costs, []), 32))
    assert [row[:5] for row in table[2:]] == [
        ['`resnet18_3x3`', '2.00', '0.500', '1.20', '1.00'],
        ['`wavemix_lite_128_7`', '1.00', '0.250', '1.30', '0.500'],
        ['`cct_128_4x4`', 'out of memory', 'out of memory', '15.8', '–']]
    assert [row[5] for row in table[2:]] == ['1.00', '1.08', '13.2']


def test_other_implementations_are_compared_and_those_not_measured_have_a_dash():
    other = f'wavemix_16_5: {tables.PYTORCH_WAVELETS}'
    speeds = [speed(model, mode, 1., **times) for mode in script.MODES for model, times in (
        ('wavemix_16_5', {other: 3.}), ('wavemix_64_5', {}))]
    costs = [measure.Cost('wavemix_16_5', 64, 32), measure.Cost('wavemix_64_5', 64, 32)]
    (table,) = markdown_rows(tables.implementation_table(measure.Results(costs, speeds)))
    assert [row[2:] for row in table[2:]] == [['3.00', '3.00'], ['–', '–']]


# The command

def test_tiny_run_writes_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    small = dict(resnet18_3x3='test_resnet', wavemix_16_5='wavemix_lite_8_5')
    monkeypatch.setattr(script, 'create', lambda name, size: timm.create_model(small[name], in_chans=3, num_classes=10))
    monkeypatch.setattr(script.command, 'limit_memory', lambda device: None)  # it would hold for all tests
    models = ['resnet18_3x3', 'wavemix_16_5']
    stem = tmp_path / 'b'
    assert status_of(
        script.main, '--device', 'cpu', '--models', *models, '--batch-size', 2, '--rounds', 1, '--output', stem) == 0
    report = json.loads(stem.with_suffix('.json').read_text())
    (results,) = report['results']
    assert [cost['model'] for cost in results['costs'] if cost['model'] in PAPER] == models
    assert not any(record['error'] for record in results['costs'] + results['speeds'])
    speeds = {(s['model'], s['mode'], s['precision'], s['batch_size']): s for s in results['speeds']}
    assert len(speeds) >= len(models) * len(script.MODES) * len(measure.PRECISIONS)
    assert all(s['images_per_second'] > 0 and s['memory_format'] in measure.MEMORY_FORMATS for s in speeds.values())
    ratio = speeds['wavemix_16_5', 'train', 'fp32', 2]['times_as_fast']['resnet18_3x3']
    ours, theirs = (speeds[name, 'train', 'fp32', 2]['images_per_second'] for name in ('wavemix_16_5', 'resnet18_3x3'))
    assert ratio == pytest.approx(ours / theirs)  # of one round

    text = stem.with_suffix('.md').read_text(encoding='utf-8')
    ratios, memory, speed, bf16, inference, batch, implementations = markdown_rows(text)
    names = [f'`{name}`' for name in models]
    assert [row[0] for row in ratios[2:]] == [row[0] for row in memory[2:]] == names
    assert speed[2][2] == '1.00' and float(speed[3][2]) == pytest.approx(ratio, rel=0.01)
    assert len(bf16) == len(batch) == 4
    assert [row[0] for row in inference[2:]] == [*names, '`wavemix_16_5 (reparameterized)`']
    assert [row[0] for row in implementations[2:]] == ['`wavemix_16_5`']
    Image.open(stem.with_suffix('.png')).verify()


@pytest.mark.parametrize('args', [
    ['--models', 'resnet19'], ['--rounds', '0'], ['--output', 'nowhere/b'], ['--output', 'b.md'], ['--device', 'gpu']])
def test_wrong_arguments_are_errors_before_anything_is_measured(monkeypatch, capsys, args):
    monkeypatch.setattr(script, 'measure_sizes', lambda args: pytest.fail('measured'))
    assert status_of(script.main, *args) == 2 and args[0] in capsys.readouterr().err.splitlines()[-1]
