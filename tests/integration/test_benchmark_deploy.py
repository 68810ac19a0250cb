"""The benchmark of runtimes: its tables, what it measures and what it leaves alone. No test depends on a time."""
import json
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure

from conftest import markdown_rows, status_of
from scripts.benchmarks import deploy as script
from scripts.benchmarks import deploy_report
from scripts.benchmarks.common.process import Process
from scripts.benchmarks.common.runtimes import LOADERS
from scripts.benchmarks.deploy_report import Report, Result, Timing
from timm_wavemix.export import RUNTIMES


def timing(milliseconds, *rounds):
    return Timing(milliseconds, 2 * milliseconds, list(rounds))


RESULTS = {
    'eager': Result(
        740_000, {'1': timing(9., 8., 9., 20.), '2': timing(6., 6., 5., 7.)}, timing(128., 128.), 1000 * 2 ** 20,
        93.125, 100.),
    'onnx-int8': Result(
        240_000, {'1': timing(0.5, 0.5, 0.5, 0.7), '2': timing(0.8, 0.1, 0.1, 1.)}, timing(64., 64.), 110 * 2 ** 20,
        92.98, 99.48),
    'openvino': Result(1_270_000, agreement=100.),
}


def report(**results):
    return Report('', '', {}, results)


def test_the_table_has_the_faster_latency_and_the_median_of_ratios_by_round():
    header, _, *rows = markdown_rows(deploy_report.table(RESULTS))[0]
    assert rows == [
        ['PyTorch, eager', '0.74', '9.00', '6.00', '12.0', '1.00', '500', '1000', '93.12', '100.00'],
        ['onnxruntime, int8 static', '0.24', '0.500', '0.800', '1.00', '10.0', '1,000', '110', '92.98', '99.48'],
        ['OpenVINO', '1.27', '–', '–', '–', '–', '–', '–', '–', '100.00'],
    ]
    assert header[3] == 'one image, 2 threads (ms)' and len(header) == len(rows[0])


def test_the_picture_has_a_point_for_what_has_both_figures():
    figure = deploy_report.draw(report(wavemix_16_5=RESULTS, resnet18=RESULTS))  # which has no weights
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [[[6., 93.125]], [[0.5, 92.98]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        'wavemix_16_5', 'PyTorch, eager', 'onnxruntime, int8 static']


def test_the_picture_has_a_colour_for_each_runtime_and_a_marker_for_each_model():
    names, kinds = deploy_report.SHIPPED, ['eager', *LOADERS]
    rows = dict.fromkeys(kinds, RESULTS['eager'])
    lines = deploy_report.draw(report(**dict.fromkeys(names, rows))).axes[0].lines
    assert len({line.get_color() for line in lines}) == len(kinds)
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(names) * len(kinds)
    assert set(LOADERS) <= set(RUNTIMES)


# The command, whose processes and files are made up

class MadeUpProcess:
    """One that classifies all as 0, with int8 all but one."""
    started = []
    fails = {}  # what to fail at, by runtime

    def __init__(self, runtime, model, file, threads):
        self.started.append((runtime, threads))
        self.runtime = runtime

    def ask(self, do, shape=None, calls=1, images=None, step=1):
        if self.fails.get(self.runtime) == (do, calls):
            raise RuntimeError('no such operator')
        if do == 'classify':
            classes = [0] * len(np.load(images)[::step])
            return [1, *classes[1:]] if 'int8' in self.runtime else classes
        return [0.1 / len(self.started)] * calls if do == 'time' else 2 ** 20 * len(self.started)

    def close(self):
        pass


@pytest.fixture
def measure(monkeypatch, fashion_mnist, tmp_path):
    """Runs the benchmark on 40 images, and returns its results and the tables of its report, or its sentence."""
    data = tmp_path / 'data'
    for split, source in ('train', 'validation'), ('test', 'test'):
        shutil.copytree(fashion_mnist / source, data / split)
    monkeypatch.setattr(script, 'Process', MadeUpProcess)
    monkeypatch.setattr(MadeUpProcess, 'started', [])
    monkeypatch.setattr(MadeUpProcess, 'fails', {})
    monkeypatch.setattr(script, 'write', lambda runtime, model, file, images: file.write_bytes(bytes(10_000)))
    monkeypatch.setattr(script, 'calibration_images', lambda folder, model: np.zeros((1, 1, 28, 28)))
    monkeypatch.setattr(script, 'draw', lambda report: Figure((1, 1)))  # which takes longer than all else
    monkeypatch.setattr(script.torch, 'get_num_threads', lambda: 2)
    for key in LOADERS:
        monkeypatch.setitem(RUNTIMES, key, RUNTIMES[key]._replace(packages=()))

    def measure(*args):
        status = status_of(script.main, data, '--rounds', 2, '--output', tmp_path / 'deploy', *args)
        if status:
            return status
        results = json.loads((tmp_path / 'deploy.json').read_text())
        return results['results'], (tmp_path / 'deploy.md').read_text(encoding='utf-8')

    return measure


SMALL = '--models', 'wavemix_lite_8_5', '--runtimes', 'eager', 'onnx', 'onnx-int8'


def test_a_row_for_each_runtime_and_nothing_is_measured_twice(measure, monkeypatch):
    accuracies, report = measure(*SMALL, '--skip', 'speed')
    rows = accuracies['wavemix_lite_8_5']
    assert {key: (row['top1'], row['agreement']) for key, row in rows.items()} == {
        'eager': (10., 100.), 'onnx': (10., 100.), 'onnx-int8': (7.5, 97.5)}
    assert [row[2] for row in markdown_rows(report)[0][2:]] == ['–'] * 3  # nothing but sizes and accuracies

    results, report = measure(*SMALL)
    for key, row in results['wavemix_lite_8_5'].items():
        assert row['top1'] == rows[key]['top1'] and row['latency'].keys() == {'1', '2'} and row['memory'] > 0
        assert len(row['latency']['1']['rounds']) == len(row['batch']['rounds']) == 2
    table, = markdown_rows(report)
    assert all(float(cell.replace(',', '')) > 0 for row in table[2:] for cell in row[1:])
    count = len(MadeUpProcess.started)
    assert measure(*SMALL) == (results, report) and len(MadeUpProcess.started) == count


@pytest.mark.parametrize('fails', [('time', 3), ('time', 10), ('classify', 1)], ids=['start', 'round', 'accuracy'])
def test_what_fails_costs_its_own_row_and_is_tried_again_unless_told_not_to(measure, monkeypatch, fails):
    monkeypatch.setattr(script, 'MIN_SECONDS', 1e-9)
    monkeypatch.setattr(MadeUpProcess, 'fails', {'onnx': fails})
    results, report = measure(*SMALL)
    assert results['wavemix_lite_8_5']['eager']['top1'] == 10. and 'no such operator' in report
    assert results['wavemix_lite_8_5'].get('onnx', {}).get('top1') is None
    monkeypatch.setattr(MadeUpProcess, 'fails', {})
    count = len(MadeUpProcess.started)
    _, report = measure(*SMALL, '--skip-failed')
    assert len(MadeUpProcess.started) == count and 'no such operator' in report
    results, report = measure(*SMALL)
    assert results['wavemix_lite_8_5']['onnx']['top1'] == 10. and 'no such operator' not in report


def test_what_is_not_installed_or_cannot_be_written_has_a_remark(measure, monkeypatch):
    def fail(*args):
        raise RuntimeError('disk full')

    monkeypatch.setitem(RUNTIMES, 'openvino', RUNTIMES['openvino']._replace(packages=('no_such_package',)))
    monkeypatch.setattr(script, 'write', fail)
    results, report = measure('--models', 'resnet18', '--runtimes', 'eager', 'openvino', 'onnx')
    assert results['resnet18'].keys() == {'eager'} and results['resnet18']['eager']['top1'] is None
    assert 'no_such_package' in report and 'disk full' in report


@pytest.mark.parametrize('text', [
    'no JSON', '[]', '{}', '{"software": "torch 2.6"}',
    json.dumps(dict(command='', machine='4 cores of another CPU', software={'torch': '2.6'}, results={}))], ids=str)
def test_a_file_of_another_machine_or_content_is_refused_and_kept(measure, tmp_path, text):
    file = tmp_path / 'deploy.json'
    file.write_text(text)
    message = measure(*SMALL)
    assert str(file) in message and ('another CPU' not in text or '4 cores of another CPU' in message)
    assert file.read_text() == text


def test_software_that_was_installed_since_adds_to_the_report(monkeypatch, tmp_path):
    file = tmp_path / 'deploy.json'
    software = script.earlier_report(file).software
    file.write_text(json.dumps(script.asdict(script.earlier_report(file))))
    monkeypatch.setattr(script, 'installed_software', lambda: dict(software, openvino='2026.4.1'))
    assert script.earlier_report(file).software['openvino'] == '2026.4.1'
    monkeypatch.setattr(script, 'installed_software', lambda: dict(software, torch='2.0'))
    with pytest.raises(ValueError, match=r'deploy\.json'):
        script.earlier_report(file)


def test_folders_that_are_missing_are_named(tmp_path):
    assert str(tmp_path / 'train') in status_of(script.main, tmp_path)
    assert status_of(script.main) == status_of(script.main, tmp_path, '--models', 'wavemix_17_5') == 2


# Real processes

@pytest.mark.recent_torch
def test_processes_of_two_runtimes_give_the_same_classes_and_one_that_dies_says_so(tmp_path, fashion_mnist):
    pytest.importorskip('onnxruntime')
    files, remarks = script.write_files('wavemix_lite_8_5', ['eager', 'onnx'], fashion_mnist, tmp_path)
    images, labels = script.load_test_images('wavemix_lite_8_5', fashion_mnist, tmp_path)
    classes, memory = {}, {}
    for runtime, file in files.items():
        process = Process(runtime, 'wavemix_lite_8_5', file, 1)
        classes[runtime] = process.ask(do='classify', images=str(images), step=2)
        assert len(process.ask(do='time', shape=(2, 1, 28, 28), calls=3)) == 3
        memory[runtime] = process.ask(do='memory')
        process.process.kill()
        process.process.wait()
        with pytest.raises(RuntimeError, match='signal 9'):
            process.ask(do='memory')
        process.close()
    assert not remarks and classes['eager'] == classes['onnx']
    assert script.percentage(classes['eager'], labels[::2]) >= 80.
    assert memory['onnx'] < memory['eager'] / 2  # it has no torch
    process = Process('onnx', 'wavemix_lite_8_5', tmp_path / 'absent.onnx', 1)
    with pytest.raises(RuntimeError, match='absent'):
        process.ask(do='memory')
    process.close()
