"""The files for runtimes: small, right, and all of them or nothing. The benchmark of them, on a few images."""
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

import deploy as benchmark
from benchmarks.lib.runtimes import LOADERS
from conftest import checkpoint, markdown_rows
from timm_wavemix import export as runtimes

ROOT = Path(__file__).parents[2]
DEPLOY = (ROOT / 'docs' / 'deploy.md').read_text(encoding='utf-8')

pytestmark = pytest.mark.recent_torch


@pytest.fixture(scope='module')
def exported(tmp_path_factory, fashion_mnist):
    """The float and the int8 file of the smallest model."""
    folder = tmp_path_factory.mktemp('exported')
    runtimes.export('wavemix_16_5', 'onnx', folder / 'float.onnx')
    runtimes.export('wavemix_16_5', 'onnx-int8', folder / 'int8.onnx', fashion_mnist / 'validation')
    return folder


def run(file, images):
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {'input0': images})[0]


def test_exported_16_5_is_small_and_computes_no_weight(exported):
    graph = onnx.load(exported / 'float.onnx').graph
    assert (exported / 'float.onnx').stat().st_size <= 0.8e6
    assert len(graph.node) <= 300
    initializers = {tensor.name for tensor in graph.initializer}
    weighted = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose', 'Gemm')]
    assert len(weighted) == 83
    assert all(set(node.input[1:]) <= initializers for node in weighted)


@pytest.mark.parametrize('batch', [1, 3])
def test_exported_model_has_the_logits_of_the_model(exported, batch):
    x = torch.randn(batch, 3, 28, 28)
    model = timm.create_model('wavemix_16_5', pretrained=True).eval()
    with torch.no_grad():
        np.testing.assert_allclose(run(exported / 'float.onnx', x.numpy()), model(x).numpy(), rtol=1e-4, atol=1e-4)


def test_exports_a_checkpoint_its_ema_weights_and_a_folder(tmp_path, folder):
    trained, ema = (timm.create_model('wavemix_16_5', num_classes=7, in_chans=1).eval() for _ in range(2))
    file = str(checkpoint(tmp_path / 'last.pth.tar', trained, ema, input_size=[1, 28, 28]))
    pulled = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    for name, use_ema, model, channels in (
            (file, False, trained, 1), (file, True, ema, 1), (f'local-dir:{folder}', False, pulled, 3)):
        exported = tmp_path / 'model.onnx'
        runtimes.export(name, 'onnx', exported, use_ema=use_ema)
        images = torch.randn(2, channels, 28, 28)
        np.testing.assert_allclose(run(exported, images.numpy()), model(images).detach().numpy(), atol=1e-4, rtol=0)
        exported.unlink()


def test_a_file_of_dynamic_size_has_the_logits_of_the_model_at_any_size(tmp_path):
    runtimes.export('wavemix_16_5', 'onnx', tmp_path / 'model.onnx', dynamic_size=True)
    model = timm.create_model('wavemix_16_5', pretrained=True).eval()
    assert len(onnx.load(tmp_path / 'model.onnx').graph.node) <= 300
    for size in (1, 3, 28, 28), (2, 3, 31, 45), (1, 3, 64, 64), (3, 3, 8, 9):
        x = torch.randn(size)
        with torch.no_grad():
            np.testing.assert_allclose(run(tmp_path / 'model.onnx', x.numpy()), model(x).numpy(), rtol=1e-4, atol=1e-4)


def test_int8_file_has_its_size_and_its_classes(exported, fashion_mnist):
    model = timm.create_model('wavemix_16_5', pretrained=True).eval()
    images = runtimes.calibration_images(fashion_mnist / 'test', model)
    float_classes, classes = (
        run(exported / name, images).argmax(axis=1) for name in ('float.onnx', 'int8.onnx'))
    assert (float_classes == classes).mean() >= 0.95
    assert (exported / 'int8.onnx').stat().st_size <= 0.4 * (exported / 'float.onnx').stat().st_size


def test_all_convolutions_but_the_stem_and_the_small_ones_have_int8_weights(exported):
    graph = onnx.load(exported / 'int8.onnx').graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    convs = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose')]
    in_float = [node for node in convs if node.input[1] in types]
    quantised = [types[source[node.input[1]]] for node in convs if node not in in_float]
    assert quantised == [onnx.TensorProto.INT8] * 5 * (4 + 4)  # in a block: first of the MLPs, transposed ones
    assert len(in_float) == 2 + 5 * (1 + 3 + 4)  # stem; in a block: depth-wise one, LL sub-bands, second of the MLPs


def test_timms_script_writes_the_same_graph(exported, tmp_path):
    timm.utils.onnx.onnx_export(
        timm.utils.reparameterize_model(timm.create_model('wavemix_16_5', pretrained=True, exportable=True)),
        str(tmp_path / 'timm.onnx'), opset=20, use_dynamo=True, batch_size=1)
    graphs = [onnx.load(file).graph for file in (exported / 'float.onnx', tmp_path / 'timm.onnx')]
    ours, theirs = ([node.op_type for node in graph.node] for graph in graphs)
    assert ours == theirs


@pytest.mark.parametrize('runtime', [
    pytest.param(key, marks=pytest.mark.slow if key == 'aoti' else ()) for key in runtimes.RUNTIMES])
def test_every_runtime_that_is_installed_gives_the_logits_of_the_model(runtime, tmp_path, fashion_mnist):
    kind = runtimes.RUNTIMES[runtime]
    if kind.missing:
        pytest.skip(f'{kind.missing} not installed')
    file = tmp_path / f'model{kind.suffix}'
    runtimes.export('wavemix_16_5', runtime, file, fashion_mnist / 'validation' if kind.calibrated else None)
    model = timm.create_model('wavemix_16_5', pretrained=True).eval()
    images = runtimes.calibration_images(fashion_mnist / 'test', model)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    run = LOADERS[runtime](file, 1)
    tolerance = 1.5 if 'int8' in runtime else 0.1 if 'fp16' in runtime else 1e-3
    for batch in 40, 1:
        np.testing.assert_allclose(run(images[:batch]), expected[:batch], atol=tolerance, rtol=0)
    view = images[:1].transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # as an image that was read is
    np.testing.assert_allclose(run(view), expected[:1], atol=tolerance, rtol=0)
    assert set(tmp_path.iterdir()) == set(runtimes.files_of(file))
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(10):
        run(images[:40])
    assert time.process_time() - cpu <= 1.2 * (time.perf_counter() - clock)  # one thread, as it was told
    if runtime == 'onnx-int8-dynamic':
        assert file.stat().st_size <= 0.6e6  # 0.18 million weights


def test_the_pages_javascript_classifies_an_image(exported, tmp_path):
    packages = ROOT / 'node_modules'  # `npm install onnxruntime-web`
    if not shutil.which('node') or not (packages / 'onnxruntime-web').is_dir():
        pytest.skip('node or onnxruntime-web not installed')
    (tmp_path / 'node_modules').symlink_to(packages)
    (tmp_path / 'wavemix.onnx').symlink_to(exported / 'float.onnx')
    image = Image.open(ROOT / 'scripts' / 'demo_images' / '00000_ankle_boot.png').convert('RGB')
    pixels = (np.asarray(image, dtype=np.float32) / 255 - 0.286) / 0.353
    pixels.transpose(2, 0, 1).astype(np.float32).tofile(tmp_path / 'image.bin')
    script, = re.findall(r'^```js\n(.*?)```', DEPLOY, re.DOTALL | re.MULTILINE)
    (tmp_path / 'classify.mjs').write_text(script)
    result = subprocess.run(['node', 'classify.mjs'], cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ('9\n', 0), result.stderr


def export_error(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['timm-wavemix export', *map(str, args)])
    with pytest.raises(SystemExit) as error:
        runtimes.main()
    return error.value.code


@pytest.mark.parametrize('args, message', [
    (['wavemix_lite_256_7_s2', 'onnx', 'a.onnx'],
     "'wavemix_lite_256_7_s2' has no weights: name a model with weights, or a checkpoint of train.py."),
    (['wavemix_17_5', 'onnx', 'a.onnx'],
     "'wavemix_17_5' is neither a model nor a file: name a model with weights, or a checkpoint of train.py."),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx'],
     'onnx-int8 needs images to measure ranges on: name training images with --calibration.'),
    (['wavemix_16_5', 'onnx', 'a.onnx', '--calibration', '.'],
     'onnx measures nothing on images: leave --calibration out.'),
    (['wavemix_16_5', 'aoti', 'a.pt2', '--dynamic-size'],
     'aoti holds for images of one size: leave --dynamic-size out, or take onnx.'),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx', '--calibration', 'nowhere'],
     "there is no folder 'nowhere': name one with training images."),
    (['wavemix_16_5', 'onnx', 'a.pte'], "'a.pte' is no name for this runtime: let it end in .onnx."),
    (['wavemix_16_5', 'onnx', 'there.onnx'], "'there.onnx' is already there: remove it, or name another file."),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx', '--calibration', 'small'],
     "'small/1/1.png' has 20x20 pixels, the model takes 28x28: name the images that it was trained on, enlarged "
     'if they were enlarged for it.'),
    (['wavemix_16_5', 'onnx', 'a.onnx', '--use-ema'], "'wavemix_16_5' is no checkpoint: leave --use-ema out."),
])
def test_bad_input_is_one_sentence_and_writes_nothing(monkeypatch, tmp_path, args, message):
    monkeypatch.chdir(tmp_path)
    Path('there.onnx').touch()
    Path('small/1').mkdir(parents=True)
    Image.new('L', (20, 20)).save('small/1/1.png')
    before = sorted(tmp_path.iterdir())
    assert export_error(monkeypatch, *args) == f'runtimes.py: {message}'
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_runtime_is_an_error(monkeypatch, capsys):
    assert export_error(monkeypatch, 'wavemix_16_5', 'tflite', 'a.tflite') == 2
    assert "invalid choice: 'tflite'" in capsys.readouterr().err


def test_runtime_that_is_not_installed_is_named(monkeypatch, tmp_path):
    runtime = runtimes.RUNTIMES['openvino']._replace(packages=('no_such_package',))
    monkeypatch.setitem(runtimes.RUNTIMES, 'openvino', runtime)
    assert export_error(monkeypatch, 'wavemix_16_5', 'openvino', tmp_path / 'a.xml') == (
        'runtimes.py: openvino needs no_such_package: install what is missing with `pip install --group deploy`.')


def test_arrays_of_another_size_are_refused(tmp_path):
    model = timm.create_model('wavemix_16_5', pretrained=True)
    with pytest.raises(ValueError, match='the calibration images are 3x32x32, the model takes 3x28x28: preprocess'):
        runtimes.write(
            runtimes.RUNTIMES['onnx-int8'], model, tmp_path / 'a.onnx', np.zeros((2, 3, 32, 32), np.float32))


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def fail(model, file, input_size, images):
        file.write_bytes(b'half')
        raise RuntimeError('disk full')

    model = timm.create_model('wavemix_16_5', pretrained=True)
    with pytest.raises(RuntimeError, match='disk full'):
        runtimes.write(runtimes.RUNTIMES['onnx']._replace(write=fail), model, tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


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
    names, kinds = benchmark.SHIPPED, ['eager', *runtimes.RUNTIMES]
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


@pytest.mark.slow
def test_commands_and_code_of_the_page_run_in_order(monkeypatch, capsys, tmp_path, fashion_mnist):
    """Those of runtimes that are installed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'scripts').symlink_to(ROOT / 'scripts')
    (tmp_path / 'fashion_mnist').mkdir()
    (tmp_path / 'fashion_mnist' / 'train').symlink_to(fashion_mnist / 'validation')
    namespace, printed = {}, []
    for language, code in re.findall(r'^```(sh|python)\n(.*?)```', DEPLOY, re.DOTALL | re.MULTILINE):
        if language == 'sh':
            for line in code.replace('\\\n', ' ').splitlines():
                _, *words = shlex.split(line, comments=True)
                if words[:1] == ['scripts/runtimes.py'] and not runtimes.RUNTIMES[words[2]].missing:
                    subprocess.run([sys.executable, *words], check=True)
        elif all(map(find_spec, re.findall(r'^(?:import|from) (\w+)', code, re.MULTILINE))):
            exec(code, namespace)
            printed += re.findall(r'^print\(.*\)  # (.*)$', code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed
