"""docs/paper.md is what its command writes, and its verdicts follow from the figures."""
import importlib
import re
import shlex
from dataclasses import asdict

import pytest

from conftest import markdown_rows
from scripts.benchmarks import claims
from scripts.benchmarks.common import claim_rules as rules
from scripts.benchmarks.common import command
from scripts.benchmarks.common.comparison import EQUAL_UPDATES, Report, Result, Row, Settings
from scripts.benchmarks.common.evidence import Evidence, NotMeasuredError


def efficiency(memory, **more):
    """Results of `efficiency` with this memory by model, and other costs."""
    costs = [
        dict(model=model, batch_size=16, image_size=32, saved_bytes={'fp32': value},
             **{key: values[model] for key, values in more.items()})
        for model, value in memory.items()]
    return Evidence({'efficiency': {'results': [{'costs': costs, 'speeds': []}]}})


def ablation(costs=None, **top1):
    """Results of `ablation` with these accuracies of seeds: of the unchanged model as `haar`, and of variants."""
    rows = []
    for name, values in top1.items():
        name = 'wavemix_16_5' if name == 'haar' else f'wavemix_16_5.{name}'
        results = [Result(name, EQUAL_UPDATES, 1, 0.1, seed, 100, top1=value) for seed, value in enumerate(values)]
        rows.append(Row(name, 'wavemix_16_5', EQUAL_UPDATES, results=results))
    settings = Settings([], 0, 0, 0, 28, 1, 1, 0., [], [], 'fp32', '', '', '')
    return Evidence({'ablation': {**asdict(Report('', settings, rows)), 'costs': costs}})


def test_the_committed_page_is_what_the_command_writes(tmp_path):
    claims.main(['--output', str(tmp_path / 'paper.md')])
    page = (tmp_path / 'paper.md').read_text(encoding='utf-8')
    assert page == (command.ROOT / 'docs/paper.md').read_text(encoding='utf-8')
    rows = [row for table in markdown_rows(page) for row in table[2:]]
    assert len(rows) == len(claims.CLAIMS)  # no section is left out
    assert {len(row) for row in rows} == {5}


@pytest.mark.parametrize('parts, word', [
    ([True, True], 'holds'), ([True, False], 'half'), ([False, False], 'does not hold')])
def test_verdicts(parts, word):
    assert rules.verdict(parts) == word


@pytest.mark.parametrize('resnet50, parts', [
    (142, [True, True]),  # 0.704 of it, the paper says 0.70
    (125, [False, True]),  # 0.8
    (96, [False, False]),  # 1.04
])
def test_a_share_of_memory_is_compared_with_the_papers_figure_and_with_the_whole(resnet50, parts):
    evidence = efficiency({'wavemix_lite_256_7': 100, 'resnet50_3x3': resnet50})
    assert rules.memory_shares('wavemix_lite_256_7', 'resnet50_3x3')(evidence).parts == parts


def test_pairs_that_the_paper_has_against_wavemix_do_not_count():
    assert ('wavemix_lite_128_7', 'resnet18_3x3') not in rules.MEMORY_PAIRS  # 1.3 GB, 1.2 GB
    assert ('wavemix_lite_128_7', 'resnet34_3x3') in rules.MEMORY_PAIRS  # 1.3 GB, 1.4 GB
    assert rules.cifar10_pairs(['wavemix_16_5'], ['vit_128_4x4', 'resnet18_3x3']) == [('wavemix_16_5', 'vit_128_4x4')]


def test_a_difference_in_the_ablation_counts_beyond_the_deviation_of_the_seeds():
    evidence = ablation(haar=[70., 72., 74.], near=[70.5, 70.5], worse=[69., 70.], better=[75., 75.])  # 72 ± 2
    assert rules.behind('near', 'worse')(evidence) == (
        '-1.50, -2.50 points, seeds ±2.00, ±2.00', [False, True])
    assert rules.ahead('near', 'better')(evidence).parts == [False, True]
    assert rules.ahead('better')(ablation(haar=[70., 70.], better=[72., 78.])).parts == [True]  # 75 ± 4.24
    assert rules.ahead('better')(ablation(haar=[70., 70.], better=[70., 78.])).parts == [False]  # 74 ± 5.66
    assert rules.not_ahead('worse', 'better')(evidence).parts == [True, False]
    assert rules.not_behind('near', 'worse')(evidence).parts == [True, False]
    with pytest.raises(NotMeasuredError):
        rules.behind('bilinear')(evidence)


def test_costs_of_the_ablation_are_ratios_to_the_unchanged_model():
    def cost(train, inference, saved):
        return dict(train_seconds=train, inference_seconds=inference, saved_bytes=saved)

    costs = {'rows': {'wavemix_16_5': cost(2., 1., 10), 'wavemix_16_5.inverse_dwt': cost(3., 0.5, 20)}}
    evidence = ablation(costs, haar=[70.], inverse_dwt=[70.])
    assert rules.costs_more('inverse_dwt')(evidence) == ('1.50, 0.500, 2.00 times', [True, False, True])
    costs['rows']['wavemix_16_5.inverse_dwt'] = cost(2.05, 0.97, 9)  # times within the noise of the machine
    assert rules.costs_more('inverse_dwt')(evidence).parts == [False, False, False]
    assert rules.lighter('inverse_dwt')(evidence).parts == [False, True, False]
    with pytest.raises(NotMeasuredError):
        rules.lighter('lite_equal_width')(evidence)
    with pytest.raises(NotMeasuredError):  # of a report without costs
        rules.costs_more('inverse_dwt')(ablation(haar=[70.], inverse_dwt=[70.]))


@pytest.mark.parametrize('wave, parts', [(94.9, [True]), (93.9, [False])])
def test_comparable_is_at_most_a_point_behind(wave, parts):
    evidence = Evidence(fashion_mnist={'wavemix_64_5': wave, 'resnet18_3x3': 95.})
    assert rules.ahead_when_trained('wavemix_64_5', 'resnet18_3x3', -1.)(evidence).parts == parts


def test_tables_that_were_trained_again_count_with_the_best_seeds_last_epoch():
    def result(data, model, *seeds):
        return dict(data=data, model=model, trainings=[[dict(top1=value) for value in epochs] for epochs in seeds])

    evidence = Evidence(reruns={2: {'results': [
        result('emnist_byclass', 'wavemix_lite_128_7', [90., 88.], [80., 88.4]),
        result('emnist_byclass', 'resnet18_3x3', [99., 88.1]),
        result('emnist_balanced', 'wavemix_lite_128_7', [90.9])]}})
    assert rules.most_accurate(2, ['emnist_byclass', 'emnist_balanced', 'mnist'])(evidence) == ('+0.30 points', [True])
    assert rules.reaches(2, ['emnist_byclass', 'emnist_balanced'])(evidence).parts == [True, False]  # 88.43, 91.06
    with pytest.raises(NotMeasuredError):
        rules.most_accurate(2, ['mnist'])(evidence)
    with pytest.raises(NotMeasuredError):
        rules.ahead_on_cifar10('wavemix_16_5', 'vit_128_4x4')(evidence)


def test_rotated_images():
    evidence = Evidence({'rotation': {'top1': {
        f'{name}.fashion_mnist': {'clean': 95., 'rotation 30': 94.5 if '16_5' in name else 60.}
        for name in rules.WAVES}}})
    assert rules.loses_accuracy_when_rotated(30)(evidence).parts == [False, True, True, True, True]


def test_without_results_nothing_is_judged_and_every_command_can_be_run(monkeypatch):
    monkeypatch.setattr(command, 'run', lambda parser, work, argv, *_: parser.parse_args(argv))
    rows = [row for table in markdown_rows(claims.markdown(Evidence())) for row in table[2:]]
    assert {row[3] for row in rows} == {'not tested'}
    commands = {line for row in rows for line in re.findall(r'`(python -m .*?)`', row[4])}
    assert len(commands) > 5
    for line in commands:
        _, _, module, *args = shlex.split(line)
        importlib.import_module(module).main(args)
