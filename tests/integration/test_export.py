"""What `timm-wavemix export` writes: right, small, and whole or not at all."""
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from conftest import checkpoint
from timm_wavemix.export import RUNTIMES, calibration_images, export, main, write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'deploy.md').read_text(encoding='utf-8')


def run_onnx(file, images):
    return onnxruntime.InferenceSession(file).run(None, {'input0': images})[0]


def run_openvino(file, images):
    import openvino
    return openvino.Core().compile_model(file, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(images)[0]


def run_executorch(file, images):
    from executorch.runtime import Runtime
    method = Runtime.get().load_program(file).load_method('forward')
    return np.concatenate([method.execute([torch.from_numpy(image[None])])[0].numpy().copy() for image in images])


def run_tflite(file, images):
    from ai_edge_litert.interpreter import Interpreter
    run = Interpreter(str(file)).get_signature_runner()
    return np.concatenate([run(args_0=image[None])['output_0'] for image in images])


def run_aoti(file, images):
    with torch.inference_mode():
        return torch._inductor.aoti_load_package(str(file))(torch.from_numpy(images)).numpy()


RUN = {'.onnx': run_onnx, '.xml': run_openvino, '.pte': run_executorch, '.tflite': run_tflite, '.pt2': run_aoti}


def logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


@pytest.fixture(scope='module')
def shipped():
    return timm.create_model('wavemix_16_5', pretrained=True).eval()


@pytest.fixture(scope='module')
def images(shipped, fashion_mnist):
    return calibration_images(fashion_mnist / 'test', shipped)


@pytest.fixture(scope='module')
def exported(tmp_path_factory, fashion_mnist):
    """The float and the int8 file of the smallest model."""
    folder = tmp_path_factory.mktemp('exported')
    export('wavemix_16_5', 'onnx', folder / 'float.onnx')
    export('wavemix_16_5', 'onnx-int8', folder / 'int8.onnx', fashion_mnist / 'validation')
    return folder


def test_float_file_is_small_computes_no_weight_and_has_the_models_logits(exported, shipped, images):
    graph = onnx.load(exported / 'float.onnx').graph
    assert (exported / 'float.onnx').stat().st_size <= 0.8e6
    assert len(graph.node) <= 300
    initializers = {tensor.name for tensor in graph.initializer}
    weighted = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose', 'Gemm')]
    assert len(weighted) == 83
    assert all(set(node.input[1:]) <= initializers for node in weighted)
    for batch in images[:1], images:
        np.testing.assert_allclose(run_onnx(exported / 'float.onnx', batch), logits(shipped, batch), atol=1e-4, rtol=0)


def test_int8_file_is_small_and_has_weights_of_seven_bits_alone(exported, images):
    graph = onnx.load(exported / 'int8.onnx').graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    weighted = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose', 'Gemm')]
    weights = [onnx.numpy_helper.to_array(tensors[source[node.input[1]]]) for node in weighted]
    assert {(weight.dtype.name, abs(weight.astype(int)).max() <= 64) for weight in weights} == {('int8', True)}
    assert (exported / 'int8.onnx').stat().st_size <= 0.4 * (exported / 'float.onnx').stat().st_size
    classes, expected = (run_onnx(exported / name, images).argmax(axis=1) for name in ('int8.onnx', 'float.onnx'))
    assert (classes == expected).mean() >= 0.95


@pytest.mark.parametrize('runtime, name', [('onnx-int8', 'wavemix_lite_8_10'), ('openvino-int8', 'wavemix_lite_8_5')])
def test_int8_saturates_on_no_cpu(runtime, name, tmp_path, fashion_mnist):
    kind, model = RUNTIMES[runtime], timm.create_model(name, pretrained=True).eval()
    if kind.missing:
        pytest.skip(f'{", ".join(kind.missing)} not installed')
    file, images = tmp_path / f'model{kind.suffix}', calibration_images(fashion_mnist / 'test', model)
    export(name, runtime, file, fashion_mnist / 'validation')
    classes, expected = (
        run(images).argmax(axis=1) for run in (partial(RUN[kind.suffix], file), partial(logits, model)))
    assert (classes == expected).mean() >= 0.9  # without VNNI, weights of 8 bits give 0.60 and 0.88


def test_a_file_of_dynamic_size_has_the_models_logits_at_any_size(tmp_path, shipped):
    export('wavemix_16_5', 'onnx', tmp_path / 'model.onnx', dynamic_size=True)
    assert len(onnx.load(tmp_path / 'model.onnx').graph.node) <= 300
    for size in (1, 3, 28, 28), (2, 3, 31, 45), (1, 3, 64, 64), (3, 3, 8, 9):
        x = torch.randn(size).numpy()
        np.testing.assert_allclose(run_onnx(tmp_path / 'model.onnx', x), logits(shipped, x), rtol=1e-4, atol=1e-4)


def test_ema_weights_of_a_checkpoint_of_grey_images(tmp_path):
    trained, ema = (timm.create_model('wavemix_16_5', num_classes=7, in_chans=1).eval() for _ in range(2))
    file = checkpoint(tmp_path / 'last.pth.tar', trained, ema, input_size=[1, 28, 28])
    export(str(file), 'onnx', tmp_path / 'model.onnx', use_ema=True)
    x = torch.randn(2, 1, 28, 28).numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / 'model.onnx', x), logits(ema, x), atol=1e-4, rtol=0)


def test_timms_script_writes_the_same_graph(exported, tmp_path):
    timm.utils.onnx.onnx_export(
        timm.utils.reparameterize_model(timm.create_model('wavemix_16_5', pretrained=True, exportable=True)),
        str(tmp_path / 'timm.onnx'), opset=20, use_dynamo=True, batch_size=1)
    graphs = [onnx.load(file).graph for file in (exported / 'float.onnx', tmp_path / 'timm.onnx')]
    ours, theirs = ([node.op_type for node in graph.node] for graph in graphs)
    assert ours == theirs


@pytest.mark.parametrize('runtime', [  # the fixture has the other two
    pytest.param(key, marks=pytest.mark.slow if key in ('aoti', 'tflite') else ())
    for key in RUNTIMES if key not in ('onnx', 'onnx-int8', 'web')])
def test_every_runtime_that_is_installed_gives_the_models_logits(runtime, tmp_path, fashion_mnist, shipped, images):
    kind = RUNTIMES[runtime]
    if kind.missing:
        pytest.skip(f'{", ".join(kind.missing)} not installed')
    file = tmp_path / f'model{kind.suffix}'
    images_of = fashion_mnist / 'validation' if kind.calibration == 'required' else None
    written = export('wavemix_16_5', runtime, file, images_of)
    assert set(written) == set(tmp_path.iterdir())
    outputs, expected = (np.concatenate([run(images), run(images[:1])]) for run in (
        partial(RUN[kind.suffix], file), partial(logits, shipped)))
    if 'int8' in runtime:
        assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9
    else:
        np.testing.assert_allclose(outputs, expected, atol=0.1 if 'fp16' in runtime else 1e-3, rtol=0)
    if runtime == 'onnx-int8-dynamic':
        assert file.stat().st_size <= 0.6e6  # 0.18 million weights


def test_export_imports_nothing_of_the_hub():
    code = "import sys, timm_wavemix.export; print([name for name in sys.modules if 'timm_wavemix.hub' in name])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '[]\n'


# Calibration


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_calibration_images_have_the_channels_of_the_model(fashion_mnist, channels):
    model = timm.create_model('wavemix_16_5', in_chans=channels)
    assert calibration_images(fashion_mnist / 'validation', model, count=3).shape == (3, channels, 28, 28)


def test_calibration_images_are_preprocessed_as_timm_evaluates(fashion_mnist, shipped, images):
    config = timm.data.resolve_model_data_config(shipped)
    dataset = timm.data.ImageDataset(str(fashion_mnist / 'test'), transform=timm.data.create_transform(**config))
    assert len(images) == len(dataset)
    np.testing.assert_array_equal(images, np.stack([image.numpy() for image, _ in dataset]))


def test_an_image_that_cannot_be_read_is_named(tmp_path, shipped, monkeypatch):
    (tmp_path / 'a').mkdir()
    broken = tmp_path / 'a' / 'broken.png'
    broken.write_bytes(b'no picture')
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        calibration_images(tmp_path, shipped)
    Image.new('L', (28, 28)).save(broken)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # as of one with 179 million
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        calibration_images(tmp_path, shipped)


def test_no_images_of_more_channels_than_pillow_has(fashion_mnist):
    with pytest.raises(ValueError, match='13'):
        calibration_images(fashion_mnist / 'validation', timm.create_model('wavemix_16_5', in_chans=13))


def test_calibration_images_of_another_size_are_refused(tmp_path, shipped):
    with pytest.raises(ValueError, match='3x32x32.*3x28x28'):
        write(RUNTIMES['onnx-int8'], shipped, tmp_path / 'a.onnx', np.zeros((2, 3, 32, 32), np.float32))


# The command


@pytest.mark.parametrize('args, facts', [
    (['wavemix_lite_256_7_s2', 'onnx', 'a.onnx'], ['wavemix_lite_256_7_s2']),
    (['wavemix_17_5', 'onnx', 'a.onnx'], ['wavemix_17_5']),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx'], ['onnx-int8', '--calibration']),
    (['wavemix_16_5', 'onnx', 'a.onnx', '--calibration', '.'], ['onnx', '--calibration']),
    (['wavemix_16_5', 'aoti', 'a.pt2', '--dynamic-size'], ['--dynamic-size']),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx', '--calibration', 'nowhere'], ['nowhere']),
    (['wavemix_16_5', 'onnx-int8', 'a.onnx', '--calibration', 'small'], ['small/1/1.png', '20x20', '28x28']),
    (['wavemix_16_5', 'onnx', 'a.pte'], ['a.pte', '.onnx']),
    (['wavemix_16_5', 'onnx', 'there.onnx'], ['there.onnx']),
    (['wavemix_16_5', 'onnx', 'nowhere/a.onnx'], ["'nowhere'"]),
    (['wavemix_16_5', 'onnx', 'a.onnx', '--use-ema'], ['wavemix_16_5', '--use-ema']),
    (['damaged.pth.tar', 'onnx', 'a.onnx'], ['damaged.pth.tar']),
])
def test_bad_input_is_one_sentence_and_writes_nothing(monkeypatch, tmp_path, args, facts):
    monkeypatch.chdir(tmp_path)
    Path('there.onnx').touch()
    Path('damaged.pth.tar').write_text('<html>')
    Path('small/1').mkdir(parents=True)
    Image.new('L', (20, 20)).save('small/1/1.png')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(SystemExit) as error:
        main(args, prog='export')
    assert re.fullmatch(r'export: [^\n]+\.', error.value.code)
    assert all(fact in error.value.code for fact in facts)
    assert sorted(tmp_path.rglob('*')) == before


def test_unknown_runtime_is_an_error_of_usage(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['wavemix_16_5', 'no_runtime', 'a.onnx'], prog='export')
    assert 'no_runtime' in capsys.readouterr().err


def test_packages_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(RUNTIMES, 'openvino', RUNTIMES['openvino']._replace(packages=('timm', 'no_such_package')))
    with pytest.raises(ImportError, match='pip install no_such_package`'):
        export('wavemix_16_5', 'openvino', tmp_path / 'a.xml')


def test_an_export_that_fails_leaves_nothing(monkeypatch, tmp_path):
    def fail(model, output, images):
        output.write_bytes(b'half')
        raise TypeError('no such operator\nat line 3')

    monkeypatch.setitem(RUNTIMES, 'onnx', RUNTIMES['onnx']._replace(write=fail))
    with pytest.raises(RuntimeError, match='no such operator'):
        export('wavemix_16_5', 'onnx', tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('runtime, suffix, files', [
    ('openvino', '.xml', ['model.bin', 'model.xml']), ('onnx', '', ['model/a', 'model/b/c'])])
def test_last_line_has_the_names_and_the_size_of_all_that_was_written(
        monkeypatch, tmp_path, capsys, runtime, suffix, files):
    def fake(model, output, images):
        for file in files:
            (output.parent / file).parent.mkdir(exist_ok=True, parents=True)
            (output.parent / file).write_bytes(b'12345')

    monkeypatch.setitem(RUNTIMES, runtime, RUNTIMES[runtime]._replace(write=fake, packages=(), suffix=suffix))
    main(['wavemix_16_5', runtime, str(tmp_path / f'model{suffix}')])
    names, size = capsys.readouterr().out.strip().splitlines()[-1].rsplit(': ', 1)
    assert set(names.split(', ')) == {str(path) for path in tmp_path.iterdir()}
    assert size == '10 bytes'
    assert all((tmp_path / file).is_file() for file in files)


# The page


def test_what_the_page_says_of_each_runtime_was_measured():
    def load(name):
        results = json.loads((ROOT / f'docs/results/{name}.json').read_text())['results']
        return {name: rows for name, rows in results.items() if name.startswith('wavemix')}

    def best(rows, figure):
        return min((key for key in RUNTIMES if key in rows), key=lambda key: figure(rows[key]))

    def latency(row):
        return min(threads['milliseconds'] for threads in row['latency'].values())

    with_amx, without_vnni = load('deploy'), load('deploy_avx2')
    for figure in latency, lambda row: row['batch']['milliseconds']:
        of_openvino = {name for name, rows in with_amx.items() if best(rows, figure) == 'openvino-int8'}
        assert of_openvino >= {'wavemix_lite_128_7', 'wavemix_lite_256_7'}
    assert {best(rows, lambda row: row['bytes']) for rows in without_vnni.values()} == {'onnx-int8'}
    not_slower = {
        name for name, rows in without_vnni.items() if latency(rows['onnx-int8']) < 1.1 * latency(rows['onnx'])}
    assert not_slower == {'wavemix_lite_128_7', 'wavemix_lite_256_7'}
    table = re.findall(r'^\| `([\w-]+)` \| (.*?) \| (.*?) \|$', PAGE, re.MULTILINE)
    assert [key for key, *_ in table] == ['onnx-int8', 'openvino-int8', 'onnx-fp16']
    for key, sizes, cost in table:
        report = with_amx if 'fp16' in key else without_vnni
        in_float = 'openvino' if 'openvino' in key else 'onnx'
        rows = [(rows[key], rows[in_float], rows['eager']) for rows in report.values()]
        shares = [row['bytes'] / whole['bytes'] for row, whole, _ in rows]
        assert f'{min(shares):.2f}' == re.search(r'\d\.\d\d', sizes).group()
        costs = sorted(round(eager['top1'] - row['top1'], 2) for row, _, eager in rows if row['top1'] is not None)
        named = sorted(map(float, re.findall(r'\d\.\d\d', cost)))  # of all but some, and of each of these
        assert named == costs[-len(named):]


def test_the_pages_javascript_classifies_an_image(exported, tmp_path):
    packages = ROOT / 'node_modules'  # `npm install onnxruntime-web`
    if not shutil.which('node') or not (packages / 'onnxruntime-web').is_dir():
        pytest.skip('node or onnxruntime-web not installed')
    (tmp_path / 'node_modules').symlink_to(packages)
    (tmp_path / 'wavemix.onnx').symlink_to(exported / 'float.onnx')
    image = Image.open(next((ROOT / 'scripts').rglob('00000_ankle_boot.png'))).convert('RGB')
    pixels = (np.asarray(image, dtype=np.float32) / 255 - 0.286) / 0.353
    pixels.transpose(2, 0, 1).astype(np.float32).tofile(tmp_path / 'image.bin')
    script, = re.findall(r'^```js\n(.*?)```', PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / 'classify.mjs').write_text(script)
    result = subprocess.run(['node', 'classify.mjs'], cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ('9\n', 0), result.stderr


@pytest.mark.slow
def test_commands_and_code_of_the_page_run_in_order(monkeypatch, capsys, tmp_path, fashion_mnist):
    """Those of runtimes that are installed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'scripts').symlink_to(ROOT / 'scripts')
    (tmp_path / 'fashion_mnist').mkdir()
    (tmp_path / 'fashion_mnist' / 'train').symlink_to(fashion_mnist / 'validation')
    namespace, expected, commands = {}, [], 0
    for language, code in re.findall(r'^```(sh|python)\n(.*?)```', PAGE, re.DOTALL | re.MULTILINE):
        if language == 'sh':
            for line in code.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)[1:]
                # test_web.py writes the web page, which needs npm
                if words[:1] == ['export'] and words[2] != 'web' and not RUNTIMES[words[2]].missing:
                    main(words[1:])
                    commands += 1
                    capsys.readouterr()
        elif all(map(find_spec, re.findall(r'^(?:import|from) (\w+)', code, re.MULTILINE))):
            exec(code, namespace)
            expected += re.findall(r'^print\(.*\)  # (.*)$', code, re.MULTILINE)
            assert capsys.readouterr().out.splitlines() == expected
            expected = []
    assert commands
