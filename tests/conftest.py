"""No test reaches the real Hub: for all of them, and the processes they start, it is at a socket of our own."""
import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
from PIL import Image

# huggingface_hub reads its environment when it is imported, so before any test module
HUB_SOCKET = socket.create_server(('127.0.0.1', 0))
os.environ['HF_ENDPOINT'] = 'http://127.0.0.1:{}'.format(HUB_SOCKET.getsockname()[1])
HF_HOME = tempfile.TemporaryDirectory()  # not the user's cache and token
os.environ['HF_HOME'] = HF_HOME.name
os.environ['HF_HUB_DISABLE_XET'] = '1'  # it has no server but the Hub's
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

TEST_IMAGES = Path(__file__).parents[1] / 'scripts' / 'test_images.png'  # a row of 50 for each class of Fashion-MNIST


def markdown_rows(text):
    """The Markdown tables of a text: a list of rows, each a list of cells, for every table."""
    tables = re.findall(r'(?:^\|.*\|\n?)+', text, re.MULTILINE)
    return [[re.split(r' *\| *', line.strip('| ')) for line in table.splitlines()] for table in tables]


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
