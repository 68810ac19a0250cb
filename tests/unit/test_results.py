"""docs/results/: every report is what its command draws from the committed JSON, and figures agree with each other."""
import json
import re
import statistics
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from conftest import status_of
from scripts.benchmarks import ablation, ablation_report, draw_accuracy
from scripts.benchmarks.common.command import ROOT
from scripts.benchmarks.common.comparison import Result, Row
from scripts.benchmarks.common.comparison_report import standard_deviation
from scripts.benchmarks.common.paper import PAPER

RESULTS = ROOT / 'docs/results'
REPORTS = sorted(file.stem for file in RESULTS.glob('*.json'))
METADATA = {
    file.name.split('.')[0]: yaml.safe_load(file.read_text(encoding='utf-8'))
    for file in [*ROOT.glob('hub_configs/*.fashion_mnist.yaml'), *ROOT.glob('docs/peers/*.metadata.yaml')]}


def load(name):
    return json.loads((RESULTS / f'{name}.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', REPORTS)
def test_a_report_is_what_its_command_draws_from_the_json(name):
    text = (RESULTS / f'{name}.md').read_text(encoding='utf-8')
    command = re.search(rf'python -m (\S+) --redraw --output docs/results/{name}\n', text).group(1)
    module = import_module(command)
    report = module.Report.from_json(load(name))
    assert module.markdown(report, RESULTS / name) == text
    assert f'\n{report.command}\n' in text


def test_every_report_and_picture_has_its_json():
    reports = {file.stem for file in RESULTS.glob('*.md')}
    pictures = {file.stem for file in RESULTS.glob('*.png')} - {'accuracy'}  # of efficiency.json and the metadata
    assert reports == set(REPORTS) and pictures <= reports


def test_a_redrawn_report_has_its_three_files(tmp_path):
    stem = tmp_path / 'my.ablation'  # whose name has a dot
    json_file = stem.with_name('my.ablation.json')
    json_file.write_text((RESULTS / 'ablation.json').read_text(encoding='utf-8'), encoding='utf-8')
    assert status_of(ablation.main, '--redraw', '--output', stem) == 0
    assert {file.name for file in tmp_path.iterdir()} == {f'my.ablation{suffix}' for suffix in ('.json', '.md', '.png')}
    assert json.loads(json_file.read_text(encoding='utf-8')) == load('ablation')


@pytest.mark.parametrize('text', ['no JSON', '[]', '{}', '{"rows": 1}'])
def test_a_file_of_other_content_is_named(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    assert str(tmp_path / 'a.json') in status_of(ablation.main, '--redraw', '--output', tmp_path / 'a')
    assert (tmp_path / 'a.json').read_text() == text


# Figures agree

@pytest.mark.parametrize('name', sorted(name for name in METADATA if 'resnet' not in name))
def test_the_accuracy_of_a_shipped_model_is_that_of_the_deployment_benchmarks(name):
    reports = [load(report)['results'].get(name, {}) for report in ('deploy', 'deploy_avx2')]
    measured = {rows['eager']['top1'] for rows in reports if rows} - {None}
    assert {f'{top1:.2f}' for top1 in measured} == {f'{METADATA[name]["metrics"]["top1"]:.2f}'}


@pytest.mark.parametrize('name', sorted(METADATA))
def test_the_accuracy_on_half_of_the_test_images_is_near_that_on_all(name):
    clean = {key.split('.')[0]: top1['clean'] for key, top1 in load('robustness')['top1'].items()}
    if name in clean:
        assert clean[name] == pytest.approx(METADATA[name]['metrics']['top1'], abs=0.7)


def test_the_ablation_says_what_exceeds_the_standard_deviations():
    def row(name, *top1):
        return Row(name, 'm', 'equal updates', results=[Result(name, '', 1, 1., 1, top1=value) for value in top1])

    model = ablation_report.MODEL
    values = {'dense': (60., 62.), 'learned': (70., 75.), 'db2': (70., 90.), 'sym4': (1.,)}
    rows = [row(model, 70., 74.), *(row(f'{model}.{name}', *top1) for name, top1 in values.items())]
    rows[-1].error = 'so it goes'
    assert standard_deviation([70., 74.]) == pytest.approx(2.83, abs=0.01)
    sentence, = ablation_report.findings(ablation.Report('', None, rows))
    exceeding, within = sentence.split('within it')
    assert 'dense -11.0' in exceeding and 'learned +0.5' in within and 'db2 +8.0' in within and 'sym4' not in sentence


def test_what_docs_training_md_concludes_holds():
    top1 = load('robustness')['top1']
    resnet = top1.pop('resnet18')
    ahead = {(name, noise) for noise in ('noise 0.05', 'noise 0.1', 'noise 0.2')
             for name in top1 if top1[name][noise] > resnet[noise]}
    assert ahead == {('wavemix_32_5.fashion_mnist', 'noise 0.2')}
    cost = {name: row['clean'] - row['shift 4'] for name, row in {**top1, 'resnet18': resnet}.items()}
    assert {name.split('.')[0] for name in sorted(cost, key=cost.get)[:2]} == {
        'wavemix_lite_128_7', 'wavemix_lite_256_7'}

    for budget in 'equal updates', 'equal time':
        means = {row['name']: sum(result['top1'] for result in row['results']) for row in load('compare_fashion_mnist')[
            'rows'] if row['budget'] == budget}
        waves = [means[name] for name in means if name.startswith('wavemix_') and 'lite' not in name]
        assert min(waves) > means['wavemix_lite_128_7'] > means['wavemix_lite_256_7']

    report = ablation.Report.from_json(load('ablation'))
    model, *variants = report.rows
    differences = {
        row.name.partition('.')[2]: ablation_report.difference(row, model)
        for row in variants if ablation_report.exceeds(row, model)}
    assert {name for name, points in differences.items() if points < 0} == {
        'bilinear', 'dropout_0.3', 'dropout_0.5', '1_levels', '2_levels', '3_levels', 'average_pooling',
        'lite_equal_width', 'lite_equal_params'}
    assert {name for name, points in differences.items() if points > 0} == {'5_levels', 'bior2.2'}
    params = {row.name: row.results[0].params for row in report.rows}
    assert params[model.name] / params[f'{model.name}.inverse_dwt'] == pytest.approx(6, abs=0.1)
    assert report.settings.updates == 300 and statistics.stdev(model.top1) < 1


# The picture of accuracies

def test_points_are_at_the_models_parameters_speed_and_accuracy():
    accuracies = draw_accuracy.load_accuracies()
    assert accuracies == {name: values['metrics']['top1'] for name, values in METADATA.items() if name in PAPER}
    results = draw_accuracy.load_results(RESULTS / 'efficiency.json')
    charts = draw_accuracy.draw(accuracies, results).axes
    left, right = ([tuple(line.get_xydata()[0]) for line in chart.lines] for chart in charts)
    for i, (name, top1) in enumerate(accuracies.items()):
        speed, = (s for s in load('efficiency')['results'][0]['speeds'] if (
            s['model'], s['mode'], s['precision'], s['batch_size']) == (name, 'inference', 'fp32', 16))
        assert left[i] == pytest.approx((results.cost(name).params / 1e6, top1))
        assert right[i] == pytest.approx((speed['images_per_second'], top1))
    with pytest.raises(ValueError, match='wavemix_lite_8_5'):  # not measured there
        draw_accuracy.draw({'wavemix_lite_8_5': 90.}, results)


def test_a_missing_file_is_named(tmp_path):
    message = status_of(draw_accuracy.main, '--results', tmp_path / 'b.json', '--output', tmp_path / 'unused.png')
    assert 'b.json' in message and not Path(tmp_path / 'unused.png').exists()
