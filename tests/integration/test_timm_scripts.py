"""timm's own scripts, unchanged, with our models.

They come from the clone of timm's repository that the environment variable TIMM_CHECKOUT names.
"""
import csv
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from conftest import randomize_batch_norms
from scripts import prepare_fashion_mnist

ROOT = Path(__file__).parents[2]
SHIPPED = [name for name in timm.list_models(module='wavemix', pretrained=True) if timm.get_pretrained_cfg(name).file]
CFG = timm.get_pretrained_cfg('wavemix_16_5')
CLASSES = ['dark', 'light']
TARGETS = torch.arange(16) // 8
FILES = [f'{CLASSES[target]}/{i}.png' for i, target in enumerate(TARGETS)]  # in timm's order


# What the scripts work on.

@pytest.fixture(scope='module')
def run(checkout):
    """Run a script of timm, through `python -m timm_wavemix` if not told otherwise, and return its output."""
    env = {**os.environ, 'HF_HUB_OFFLINE': '1'}
    if runpy.run_path(str(checkout / 'timm' / 'version.py'))['__version__'] != timm.__version__:
        env['PYTHONPATH'] = os.pathsep.join([str(checkout), *filter(None, [os.environ.get('PYTHONPATH')])])

    # one thread, since the work is mostly tiny: threads that wait for each other would take most of the time
    def run(script, *args, cwd, python=('-m', 'timm_wavemix'), threads=1, timeout=400):
        result = subprocess.run(
            [sys.executable, *python, checkout / script, *map(str, args)], cwd=cwd,
            env={**env, 'OMP_NUM_THREADS': str(threads)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout)
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout

    return run


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """An image folder with train/ and validation/, of the size that the model takes."""
    folder = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for split in 'train', 'validation':
        for file, target in zip(FILES, TARGETS.tolist()):
            path = folder / split / file
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = 96 * target + rng.integers(160, size=(*CFG.input_size[1:], 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope='module')
def images(data):
    """The images of validation/ as the model takes them."""
    return load_images(data, CFG)


def load_images(data, cfg):
    mode = 'L' if cfg.input_size[0] == 1 else 'RGB'
    pixels = torch.stack(
        [torch.from_numpy(np.atleast_3d(Image.open(data / 'validation' / file).convert(mode))) for file in FILES])
    return ((pixels / 255 - torch.tensor(cfg.mean)) / torch.tensor(cfg.std)).permute(0, 3, 1, 2)


def train_args(data, folder, experiment, *args, epochs):
    # without random augmentation, and with every image in every batch, runs can be compared
    return [
        'train.py', '--data-dir', data, '--model', 'wavemix_16_5', '--num-classes', 2, '--device', 'cpu',
        '--workers', 1, '--batch-size', len(FILES), '--no-aug', '--lr', 0.01, '--warmup-epochs', 0,
        '--epochs', epochs, '--output', folder, '--experiment', experiment, *args,
    ]


AMP_ARGS = [
    '--amp', '--amp-dtype', 'bfloat16', '--model-ema', '--model-ema-decay', 0.5, '--channels-last',
    '--grad-checkpointing', '--model-kwargs', 'proj_drop_rate=0.',
]


@pytest.fixture(scope='module')
def trained(run, data, tmp_path_factory):
    """Folder of a training run of three epochs, with everything that people turn on."""
    folder = tmp_path_factory.mktemp('train')
    run(*train_args(data, folder, 'amp', *AMP_ARGS, epochs=3), cwd=folder)
    return folder / 'amp'


def summary(folder):
    return [{k: float(v) for k, v in row.items()} for row in read_csv(folder / 'summary.csv')]


def read_csv(file):
    with open(file, newline='') as f:
        return list(csv.DictReader(f))


def weights(file, ema=False):
    return timm.models.load_state_dict(str(file), use_ema=ema)


def create(state_dict, model='wavemix_16_5', **kwargs):
    model = timm.create_model(model, num_classes=2, **kwargs).eval()
    model.load_state_dict(state_dict)
    return model


def last_loss(output):
    return float(re.findall(r'Loss: +[\d.]+ \(([\d.]+)\)', output)[-1])


# train.py

def test_training_writes_summary_and_checkpoints_that_load(trained, images):
    rows = summary(trained)
    assert [row['epoch'] for row in rows] == [0, 1, 2]
    assert rows[2]['train_loss'] < rows[1]['train_loss'] < rows[0]['train_loss']
    assert sorted(file.name for file in trained.glob('*.pth.tar')) == [
        'checkpoint-0.pth.tar', 'checkpoint-1.pth.tar', 'checkpoint-2.pth.tar', 'last.pth.tar', 'model_best.pth.tar']
    with torch.inference_mode():
        loss = F.cross_entropy(create(weights(trained / 'last.pth.tar', ema=True))(images), TARGETS).item()
    assert rows[2]['eval_loss'] == pytest.approx(loss, rel=0.02)  # bfloat16


@pytest.mark.recent_torch
def test_train_loads_us_as_a_device_module_and_compiles(run, data, tmp_path):
    args = train_args(
        data, tmp_path, 'compiled', '--model-kwargs', 'depth=1', '--device-modules', 'timm_wavemix', '--torchcompile',
        'aot_eager', epochs=1)
    run(*args, cwd=tmp_path, python=())
    assert [row['epoch'] for row in summary(tmp_path / 'compiled')] == [0]
    create(weights(tmp_path / 'compiled' / 'last.pth.tar'), depth=1)


# The scripts that read weights.

@pytest.mark.parametrize('ema', [False, True])
def test_validate_measures_a_checkpoint(run, data, images, trained, tmp_path, ema):
    output = run(
        'validate.py', '--data-dir', data, '--model', 'wavemix_16_5', '--num-classes', 2, '--device', 'cpu',
        '--workers', 1, '--checkpoint', trained / 'checkpoint-1.pth.tar', *['--use-ema'] * ema,
        '--results-file', 'results.csv', cwd=tmp_path)
    with torch.inference_mode():
        logits = create(weights(trained / 'checkpoint-1.pth.tar', ema))(images)
    assert last_loss(output) == pytest.approx(F.cross_entropy(logits, TARGETS).item(), abs=2e-4)
    [row] = read_csv(tmp_path / 'results.csv')
    assert (row['model'], row['param_count'], row['img_size']) == ('wavemix_16_5', '0.18', str(CFG.input_size[1]))
    assert float(row['top1']) == 100 * (logits.argmax(1) == TARGETS).float().mean().item()


def test_validate_folds_batch_norms_without_changing_the_result(run, data, tmp_path):
    torch.manual_seed(0)
    model = randomize_batch_norms(timm.create_model('wavemix_lite_128_7', num_classes=2, dim=16, depth=2))
    torch.save(model.state_dict(), tmp_path / 'lite.pth')
    args = [
        'validate.py', '--data-dir', data, '--model', 'wavemix_lite_128_7', '--model-kwargs', 'dim=16', 'depth=2',
        '--num-classes', 2, '--device', 'cpu', '--workers', 1, '--checkpoint', 'lite.pth']
    plain, folded = (run(*args, *flags, cwd=tmp_path) for flags in ([], ['--reparam']))
    plain_count, folded_count = (int(re.search(r'param count: (\d+)', output)[1]) for output in (plain, folded))
    assert folded_count == plain_count - 2 * 2 * 16
    assert last_loss(folded) == pytest.approx(last_loss(plain), abs=2e-4)


@pytest.mark.parametrize('name', SHIPPED)
def test_validate_and_inference_use_the_weights_of_a_tag(run, data, tmp_path, name):
    cfg = timm.get_pretrained_cfg(name)
    # timm's scripts build every model for three channels, if not told otherwise
    args = ['--data-dir', data, '--model', name, '--device', 'cpu', '--workers', 1, '--in-chans', cfg.input_size[0]]
    output = run('validate.py', *args, '--results-file', 'results.csv', cwd=tmp_path)
    model = timm.create_model(name, pretrained=True).eval()
    with torch.inference_mode():
        logits = model(load_images(data, cfg))
    assert last_loss(output) == pytest.approx(F.cross_entropy(logits, TARGETS).item(), rel=1e-3)
    assert read_csv(tmp_path / 'results.csv')[0]['model'] == name
    if cfg.input_size[0] == 1:
        return  # timm's inference.py reads all images in colour
    run('inference.py', *args, '--label-type', 'name', '--include-index', '--results-file', 'labels', cwd=tmp_path)
    rows = read_csv(tmp_path / 'labels.csv')
    assert [int(row['index']) for row in rows] == logits.argmax(1).tolist()
    assert [row['label'] for row in rows] == [model.pretrained_cfg['label_names'][int(row['index'])] for row in rows]


@pytest.fixture(scope='module')
def all_test_images(tmp_path_factory):
    """Where fashion_mnist/ has the 10,000 images of test/."""
    if not prepare_fashion_mnist.DEBIAN_FOLDER.exists():
        pytest.skip('needs `apt install dataset-fashion-mnist`')
    folder = tmp_path_factory.mktemp('data')
    (folder / 'fashion_mnist').mkdir()
    _, test = prepare_fashion_mnist.load()
    prepare_fashion_mnist.write_split(folder / 'fashion_mnist' / 'test', test, range(len(test)))
    return folder


@pytest.mark.full_test_set
@pytest.mark.parametrize('name', SHIPPED)
def test_the_command_on_a_card_gives_the_accuracies_on_it(run, all_test_images, name):
    metrics = yaml.safe_load((ROOT / 'hub_configs' / f'{name}.yaml').read_text())['metrics']
    launcher, command = metrics['command'].split(' validate.py ')
    assert launcher == 'python -m timm_wavemix' and command.startswith('fashion_mnist --split test ')
    run(
        'validate.py', *shlex.split(command), '--results-file', f'{name}.csv', cwd=all_test_images,
        threads=torch.get_num_threads(), timeout=3000)
    [row] = read_csv(all_test_images / f'{name}.csv')
    assert row['model'] in (name, name.split('.')[0])
    assert [f'{float(row[key]):.2f}' for key in ('top1', 'top5')] == [f'{metrics[key]:.2f}' for key in ('top1', 'top5')]


def test_train_py_knows_every_setting_of_our_recipes(checkout):
    options = subprocess.run(
        [sys.executable, '-c', 'import train; print(*(action.dest for action in train.parser._actions))'],
        env={**os.environ, 'PYTHONPATH': str(checkout)}, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    recipes = list((ROOT / 'scripts' / 'recipes').rglob('*.yaml'))
    assert len(recipes) >= 8
    for file in recipes:
        assert set(yaml.safe_load(file.read_text(encoding='utf-8'))) <= set(options), file.name


def test_train_py_trains_by_a_recipe(run, data, tmp_path):
    run(
        'train.py', '-c', ROOT / 'scripts/recipes/own/wavemix_lite_8_5.fashion_mnist_stage2.yaml', '--data-dir', data,
        '--train-split', 'train', '--num-classes', 2, '--batch-size', 8, '--epochs', 1, '--workers', 1,
        '--device', 'cpu', '--output', tmp_path, '--experiment', 'grey', cwd=tmp_path)
    assert weights(tmp_path / 'grey' / 'last.pth.tar', ema=True)['stem.0.weight'].shape[1] == 1


# benchmark.py

def test_benchmark_measures_the_model(run, tmp_path):
    run(
        'benchmark.py', '--bench', 'infer', '--model', 'wavemix_16_5', '--device', 'cpu', '--batch-size', 2,
        '--num-warm-iter', 1, '--num-bench-iter', 5, '--results-file', 'results.csv', cwd=tmp_path)
    [row] = read_csv(tmp_path / 'results.csv')
    assert (row['model'], row['param_count'], row['infer_batch_size']) == ('wavemix_16_5', '0.18', '2')
    assert float(row['infer_samples_per_sec']) > 0 and float(row['infer_gmacs']) > 0
