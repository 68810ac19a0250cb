"""Folders of images: what cannot be read is named, whoever reads it."""
import struct
import zlib

import pytest
import torch
from PIL import Image

from scripts.benchmarks import deploy, robustness, train_in_memory
from scripts.benchmarks.common.images import load_split


def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def huge_png(side=20_000):
    header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0')) + chunk(b'IEND', b'')


CONTENTS = {'empty': lambda whole: b'', 'text': lambda whole: b'no image', 'cut off': lambda whole: whole[:-40],
            '400 megapixels': lambda whole: huge_png()}


@pytest.fixture(params=CONTENTS)
def damaged(request, tmp_path):
    """A folder whose splits have a good and a damaged image in each of ten classes; the name of the damaged ones."""
    for label in range(10):
        for split in 'train', 'test':
            folder = tmp_path / split / f'{label}_class'
            folder.mkdir(parents=True)
            Image.effect_noise((28, 28), 50).save(folder / '0.png')
            (folder / '1.png').write_bytes(CONTENTS[request.param]((folder / '0.png').read_bytes()))
    return tmp_path


READERS = {
    'a folder': lambda data: [image for image, _ in load_split(data, 'train')],
    'training in memory': lambda data: train_in_memory.load_images(data, 'train', (1, 28, 28), 10),
    'accuracy': lambda data: robustness.corrupted_accuracy(
        deploy.create('wavemix_lite_8_5'), robustness.corruptions()['clean'], data, torch.device('cpu')),
    'runtimes': lambda data: deploy.load_test_images('wavemix_lite_8_5', data, data),
}


@pytest.mark.parametrize('reader', READERS)
def test_an_image_that_cannot_be_read_is_named(damaged, reader):
    with pytest.raises(OSError, match=r'1\.png'):
        READERS[reader](damaged)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='validation'):
        load_split(tmp_path, 'validation')
