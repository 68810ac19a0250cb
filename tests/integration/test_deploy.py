"""The benchmark of runtimes, on a few images."""
import json
import shutil
import sys

import pytest

import deploy as benchmark
from conftest import markdown_rows
from timm_wavemix.export import RUNTIMES

pytestmark = pytest.mark.recent_torch


def measured(milliseconds, *rounds):
    return dict(milliseconds=milliseconds, percentile_95=2 * milliseconds, rounds=list(rounds))


RESULTS = {
    'eager': dict(
        bytes=740_000, memory=1000 * 2 ** 20, latency={'1': measured(9., 8., 9., 20.), '2': measured(6., 6., 5., 7.)},
        batch=measured(128., 128., 128., 128.), top1=93.125, agreement=100.),
    'onnx-int8': dict(
        bytes=240_000, memory=110 * 2 ** 20,
        latency={'1': measured(0.5, 0.5, 0.5, 0.7), '2': measured(0.8, 0.1, 0.1, 1.)},
        batch=measured(64., 64., 64., 64.), top1=92.98, agreement=99.48),
    'openvino': dict(bytes=1_270_000, agreement=100.),
}


def test_the_table_has_the_quicker_latency_and_the_median_of_ratios_by_round():
    header, _, *rows = markdown_rows(benchmark.table(RESULTS))[0]
    assert rows == [
        ['PyTorch, eager', '0.74', '9.00', '6.00', '12.0', '1.00', '500', '1000', '93.12', '100.00'],
        ['onnxruntime, int8 static', '0.24', '0.500', '0.800', '1.00', '10.0', '1,000', '110', '92.98', '99.48'],
        ['OpenVINO', '1.27', '–', '–', '–', '–', '–', '–', '–', '100.00'],
    ]
    assert header[3] == 'one image, 2 threads (ms)' and len(header) == len(rows[0])


def test_the_picture_has_a_point_for_what_has_both_figures():
    figure = benchmark.draw({'wavemix_16_5': RESULTS, 'resnet18': RESULTS})  # which has no weights
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [[[6., 93.125]], [[0.5, 92.98]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        'wavemix_16_5', 'PyTorch, eager', 'onnxruntime, int8 static']


def test_the_picture_has_a_colour_for_each_runtime_and_a_marker_for_each_model():
    names, kinds = benchmark.SHIPPED, ['eager', *RUNTIMES]
    lines = benchmark.draw({name: dict.fromkeys(kinds, RESULTS['eager']) for name in names}).axes[0].lines
    assert len({line.get_color() for line in lines}) == len(kinds)
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(names) * len(kinds)


@pytest.fixture
def measure(monkeypatch, capsys, fashion_mnist, tmp_path):
    """Runs the benchmark, one round on 40 images, and returns its results and the tables of its report."""
    data = tmp_path / 'data'
    data.mkdir()
    for split, source in ('train', 'validation'), ('test', 'test'):
        shutil.copytree(fashion_mnist / source, data / split)

    def measure(*args):
        monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0.01)
        monkeypatch.setattr(sys, 'argv', [
            'deploy.py', str(data), '--rounds', '2', '--json', str(tmp_path / 'deploy.json'), '--output',
            str(tmp_path / 'deploy.md'), *args])
        benchmark.main()
        report = (tmp_path / 'deploy.md').read_text(encoding='utf-8')
        assert (tmp_path / 'deploy.png').stat().st_size > 10_000
        return json.loads((tmp_path / 'deploy.json').read_text())['results'], report

    return measure


def test_benchmark_has_a_row_for_each_runtime_and_measures_nothing_twice(measure, monkeypatch):
    runtime = benchmark.RUNTIMES['executorch']._replace(packages=('no_such_package',))
    monkeypatch.setitem(benchmark.RUNTIMES, 'executorch', runtime)
    options = (
        '--models', 'wavemix_16_5', 'mobilenetv3_small_100', '--runtimes', 'eager', 'onnx', 'onnx-int8-dynamic',
        'executorch')
    accuracies, report = measure(*options, '--skip', 'speed')
    assert [row[2] for row in markdown_rows(report)[0][2:]] == ['–'] * 3  # nothing but sizes and accuracies
    eager, fp32, int8 = (accuracies['wavemix_16_5'][key] for key in ('eager', 'onnx', 'onnx-int8-dynamic'))
    assert eager.keys() == fp32.keys() == {'bytes', 'top1', 'agreement'}
    assert eager['top1'] == fp32['top1'] >= 80. and eager['agreement'] == fp32['agreement'] == 100.
    assert abs(int8['top1'] - fp32['top1']) <= 5. and int8['agreement'] >= 90.

    results, report = measure(*options)
    ours, theirs = markdown_rows(report)
    assert [row[0] for row in ours[2:]] == ['PyTorch, eager', 'onnxruntime', 'onnxruntime, int8 dynamic']
    assert [row[-2:] for row in theirs[2:]] == [['–', '–']] * 3
    assert all(float(cell.replace(',', '')) > 0 for row in ours[2:] for cell in row[1:])
    assert 'ExecuTorch, XNNPACK is left out: no_such_package is not installed' in report
    assert results['wavemix_16_5']['onnx']['memory'] < results['wavemix_16_5']['eager']['memory']  # it has no torch

    monkeypatch.setattr(benchmark, 'Worker', None)
    monkeypatch.setattr(benchmark, 'write', None)  # nor is a file written for it
    assert measure(*options) == (results, report)


def test_benchmark_takes_a_model_of_grey_images_and_times_it_with_one_thread_and_with_all(measure, monkeypatch):
    monkeypatch.setattr(benchmark.torch, 'get_num_threads', lambda: 2)
    results, report = measure('--models', 'wavemix_lite_8_5', '--runtimes', 'eager', 'onnx', 'onnx-int8')
    fp32, int8 = (results['wavemix_lite_8_5'][key] for key in ('onnx', 'onnx-int8'))
    assert fp32['top1'] >= 80. and fp32['agreement'] == 100. and fp32['batch']['milliseconds'] > 0
    assert int8['agreement'] >= 85.
    assert fp32['latency'].keys() == {'1', '2'}
    header, _, _, row, _ = markdown_rows(report)[0]
    assert header[2:4] == ['one image, 1 thread (ms)', 'one image, 2 threads (ms)']
    milliseconds = [fp32['latency'][threads]['milliseconds'] for threads in ('1', '2')]
    assert list(map(float, row[2:4])) == pytest.approx(milliseconds, rel=0.01)


def test_benchmark_tells_what_fails_and_goes_on(measure, monkeypatch):
    def fail(*args):
        raise RuntimeError('no such operator\nat line 3')

    monkeypatch.setitem(benchmark.RUNTIMES, 'onnx', benchmark.RUNTIMES['onnx']._replace(write=fail))
    results, report = measure('--models', 'mobilenetv3_small_100', '--runtimes', 'eager', 'onnx')
    assert results['mobilenetv3_small_100'].keys() == {'eager'}
    assert 'mobilenetv3_small_100 in onnxruntime: the exporter for onnxruntime failed: no such operator' in report


def test_what_cannot_classify_has_a_remark_and_no_row(measure, monkeypatch):
    def fail(*args):
        raise RuntimeError('no such operator')

    monkeypatch.setattr(benchmark, 'classify', fail)
    results, report = measure('--models', 'wavemix_lite_8_5', '--runtimes', 'eager', '--skip', 'speed')
    assert results == {'wavemix_lite_8_5': {}}
    assert len(markdown_rows(report)[0]) == 2 and 'wavemix_lite_8_5 in PyTorch, eager: no such operator' in report


def test_results_of_another_machine_are_refused(measure, tmp_path, capsys):
    file = tmp_path / 'deploy.json'
    software = dict(torch='2.6', timm='1.0.20')
    results = dict(results={}, remarks={}, classes={}, machine='4 cores of another CPU', software=software)
    file.write_text(json.dumps(results))
    with pytest.raises(SystemExit):
        measure('--models', 'resnet18', '--runtimes', 'onnx')
    message = f"'{file}' was measured on 4 cores of another CPU, with torch 2.6, timm 1.0.20: name another --json."
    assert message in capsys.readouterr().err
    assert json.loads(file.read_text()) == results


@pytest.mark.parametrize('text', ['no JSON', '[]', '{}', '{"software": "torch 2.6"}'])
def test_a_file_that_is_no_report_is_refused(measure, tmp_path, capsys, text):
    file = tmp_path / 'deploy.json'
    file.write_text(text)
    with pytest.raises(SystemExit, match='2'):
        measure('--models', 'resnet18', '--runtimes', 'onnx')
    assert f"'{file}' is no report of this script: name another --json." in capsys.readouterr().err
    assert file.read_text() == text


def test_software_installed_since_is_no_other_software(monkeypatch, tmp_path):
    file = tmp_path / 'deploy.json'
    report = benchmark.read_report(file)
    file.write_text(json.dumps(report))
    monkeypatch.setattr(benchmark, 'installed_software', lambda: dict(report['software'], openvino='2026.4.1'))
    assert benchmark.read_report(file)['software']['openvino'] == '2026.4.1'
    monkeypatch.setattr(benchmark, 'installed_software', lambda: dict(report['software'], torch='2.0'))
    with pytest.raises(ValueError, match='was measured on'):
        benchmark.read_report(file)


def test_baseline_is_the_other_checkout(measure, tmp_path):
    package = tmp_path / 'checkout' / 'timm_wavemix'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text("raise RuntimeError('this is the other checkout')\n")
    _, report = measure(
        '--models', 'wavemix_16_5', '--runtimes', 'eager', '--skip', 'accuracy', '--baseline', str(package.parent))
    assert 'wavemix_16_5 in PyTorch, eager, at 1f138ab: RuntimeError: this is the other checkout' in report


def test_a_process_that_dies_is_told_and_the_others_go_on(measure, monkeypatch):
    ask = benchmark.Worker.ask

    def ask_then_kill(worker, **order):
        answer = ask(worker, **order)
        if order['do'] == 'tell memory' and 'onnx' in worker.process.args:
            worker.process.kill()
        return answer

    monkeypatch.setattr(benchmark.Worker, 'ask', ask_then_kill)
    results, report = measure('--models', 'mobilenetv3_small_100', '--runtimes', 'eager', 'onnx')
    assert results['mobilenetv3_small_100'].keys() == {'eager'}
    assert 'mobilenetv3_small_100 in onnxruntime: the system has killed the process with signal 9' in report


def test_baseline_that_is_no_checkout_is_refused(measure, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        measure('--baseline', str(tmp_path))
    assert f"'{tmp_path}' is no checkout of this repository" in capsys.readouterr().err
