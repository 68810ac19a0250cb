"""The README's first command: a table of real images, and a picture."""
import gzip
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TEST_IMAGES
from scripts import demo as script

IMAGES = sorted(script.IMAGES.glob('*.png'))
FASHION_MNIST = Path('/usr/share/datasets/fashion-mnist')
FOLDERS = [
    't_shirt_top', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle_boot']


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--device', 'cpu', '--model', 'wavemix_lite_8_5', *map(str, args)])
    try:
        script.main()
    except SystemExit as error:
        return error.code


def test_table_and_picture(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, '--output', tmp_path / 'demo.png') is None
    out = capsys.readouterr().out
    rows = [line.split() for line in out.split('\n\n')[0].splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [int(file.stem.split('_')[0]) for file in IMAGES]
    assert all(0 <= float(row[-1] if row[-1] != 'wrong' else row[-2]) <= 1 for row in rows)
    assert f'of {len(IMAGES)} right' in out and 'images/s' in out
    assert re.search(r'^4\d\d of 500 right', out, re.MULTILINE)
    picture = np.asarray(Image.open(tmp_path / 'demo.png').convert('L'))
    assert min(picture.shape) > 500 and picture.std() > 20


def test_confusion_matrix_has_a_row_for_each_label_and_a_column_for_each_prediction():
    model = script.load_model('wavemix_lite_8_5')
    matrix = script.count_predictions(model, torch.device('cpu'))
    assert matrix.sum(1).tolist() == [50] * 10
    assert all(row.argmax() == label for label, row in enumerate(matrix))
    model.head.fc.bias.data[3] += 1000.  # predicts dresses only
    dresses = script.count_predictions(model, torch.device('cpu'))
    assert (dresses[:, 3] == 50).all() and dresses.sum() == 500


def test_what_is_missing_is_named_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(script, 'demo', lambda *_: pytest.fail('ran'))
    assert run(monkeypatch, '--output', 'absent/demo.png') == 2 and "'absent'" in capsys.readouterr().err
    monkeypatch.setattr(script.importlib.util, 'find_spec', lambda name: None)
    assert '--group demo' in run(monkeypatch)


@pytest.mark.skipif(not FASHION_MNIST.exists(), reason='needs `apt install dataset-fashion-mnist`')
def test_images_are_those_of_the_test_split():
    with gzip.open(FASHION_MNIST / 't10k-images-idx3-ubyte.gz') as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FASHION_MNIST / 't10k-labels-idx1-ubyte.gz') as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for file in IMAGES:
        index, name = file.stem.split('_', 1)
        assert np.array_equal(np.asarray(Image.open(file)), images[int(index)]), file.name
        assert FOLDERS[labels[int(index)]] == name
    sheet = np.asarray(Image.open(TEST_IMAGES)).reshape(10, 28, 50, 28).swapaxes(1, 2)
    for label in range(10):
        assert np.array_equal(sheet[label], images[labels == label][:50])
