"""No test reaches the real Hub: for all of them, and the processes they start, it is at a socket of our own."""
import argparse
import gzip
import json
import os
import re
import socket
import struct
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

# huggingface_hub reads its environment when it is imported, so before any test module
HUB_SOCKET = socket.create_server(('127.0.0.1', 0))
os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:{}'.format(HUB_SOCKET.getsockname()[1])
HF_HOME = tempfile.TemporaryDirectory()  # not the user's cache and token
os.environ['HF_HOME'] = HF_HOME.name
os.environ['HF_HUB_DISABLE_XET'] = '1'  # it has no server but the Hub's
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

import timm  # noqa: E402
from timm.models import save_for_hf  # noqa: E402

import timm_wavemix  # noqa: E402, F401  registers the models

# a row of 50 for each class of Fashion-MNIST
TEST_IMAGES = Path(__file__).parents[1] / 'scripts' / 'images' / 'test_images.png'


def markdown_rows(text):
    """The Markdown tables of a text: a list of rows, each a list of cells, for every table."""
    tables = re.findall(r'(?:^\|.*\|\n?)+', text, re.MULTILINE)
    return [[re.split(r' *\| *', line.strip('| ')) for line in table.splitlines()] for table in tables]


def status_of(main, *args):
    """The exit status of a command, or the sentence that it ends with."""
    try:
        main(list(map(str, args)))
    except SystemExit as error:
        return error.code
    return 0


def randomize_batch_norms(model):
    """`model`, whose batch norms have something to do: a new one is the identity in evaluation mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.)
    return model


def create(model_name, **kwargs):
    """A new model in evaluation mode, whose batch norms have something to do."""
    torch.manual_seed(0)
    return randomize_batch_norms(timm.create_model(model_name, **kwargs)).eval()


def images(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(1))


def same(model, other):
    """Whether two models give the same logits."""
    x = images(2, *model.pretrained_cfg['input_size'])
    return torch.equal(model(x), other(x))


def change_config(folder, **changes):
    """Change entries of the config.json of a folder."""
    file = folder / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def write_idx(file, array):
    """An array in the format of MNIST, gzipped if the file is named so."""
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()
    with (gzip.open if file.suffix == '.gz' else open)(file, 'wb') as f:
        f.write(data)


@pytest.fixture(scope='session')
def fashion_mnist(tmp_path_factory):
    """A folder as prepare_fashion_mnist.py writes it, with the splits validation/ and test/ of 40 test images each."""
    data = tmp_path_factory.mktemp('fashion_mnist')
    sheet = Image.open(TEST_IMAGES)
    for split, columns in ('validation', range(4)), ('test', range(4, 8)):
        for label in range(10):
            folder = data / split / f'{label}_class'
            folder.mkdir(parents=True)
            for i in columns:
                sheet.crop((28 * i, 28 * label, 28 * i + 28, 28 * label + 28)).save(folder / f'{i}.png')
    return data


@pytest.fixture(scope='session')
def checkout():
    """The clone of timm's repository that TIMM_CHECKOUT names."""
    if not os.environ.get('TIMM_CHECKOUT'):
        pytest.skip('TIMM_CHECKOUT names no clone of timm: get one with `timm-wavemix clone-timm`')
    return Path(os.environ['TIMM_CHECKOUT']).resolve()


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


# a Hub that runs here


@pytest.fixture(scope='session')
def running():
    from hub_server import HubServer
    server = HubServer(HUB_SOCKET)
    yield server
    server.close()


@pytest.fixture
def server(running, monkeypatch):
    """The server, empty, and a client that waits for nothing before it tries again."""
    running.reset()
    monkeypatch.setenv('HF_TOKEN', 'hf_write')
    impatient = SimpleNamespace(**{**vars(time), 'sleep': lambda seconds: None})
    for module in ('huggingface_hub.utils._http', 'huggingface_hub.file_download', 'timm_wavemix.hub.send'):
        monkeypatch.setattr(f'{module}.time', impatient)
    return running


def checkpoint(file, trained, ema=None, **args):
    """As timm's CheckpointSaver writes it for these options of train.py."""
    args = argparse.Namespace(**{
        'model': 'wavemix_16_5', 'model_kwargs': {}, 'num_classes': 7, 'in_chans': None, 'gp': None, 'img_size': None,
        'input_size': None, 'crop_pct': None, 'mean': None, 'std': None, 'interpolation': '',
        'data_dir': '/home/somebody/secret', **args})
    content = {'epoch': 3, 'arch': args.model, 'version': 2, 'args': args, 'state_dict': trained.state_dict()}
    torch.save(content if ema is None else dict(content, state_dict_ema=ema.state_dict()), file)
    return file


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model('wavemix_16_5', num_classes=7).eval()


@pytest.fixture
def folder(model, tmp_path):
    """The model as timm saves it."""
    save_for_hf(model, tmp_path / 'model', safe_serialization=True, model_args={'num_classes': 7})
    return tmp_path / 'model'


@pytest.fixture
def push(capsys):
    """Run the command, and return its exit status, its output and what it writes to stderr."""
    from timm_wavemix.hub.push import main

    def run(*args):
        capsys.readouterr()
        return (status_of(partial(main, prog='push'), *args), *capsys.readouterr())
    return run


@pytest.fixture
def pull(tmp_path):
    """Create a model from the server, past the cache of other tests."""
    def run(repo_id='org/model', **kwargs):
        kwargs.setdefault('cache_dir', tmp_path / 'cache')
        return timm.create_model(f'hf-hub:{repo_id}', pretrained=True, **kwargs).eval()
    return run
