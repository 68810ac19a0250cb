import hashlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_dataset, create_loader
from torchvision.datasets import FashionMNIST

from conftest import write_idx
from scripts import prepare_fashion_mnist as script
from scripts.benchmarks.common.browser import serve

CLASSES = [
    '0_t_shirt_top', '1_trouser', '2_pullover', '3_dress', '4_coat', '5_sandal', '6_shirt', '7_sneaker', '8_bag',
    '9_ankle_boot']
HELD_OUT = 60


@pytest.fixture(autouse=True)
def stay_on_this_machine(tmp_path, monkeypatch):
    """Keep even a broken script from reaching the web or the user's cache."""
    monkeypatch.setattr(FashionMNIST, 'mirrors', ['http://127.0.0.1:9/'])
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))


def make_source(folder, suffix='.gz'):
    """Write a small stand-in for the four files; returns {'train': (images, labels), 't10k': (images, labels)}."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    splits = {}
    for name, size in ('train', 200), ('t10k', 50):
        images = rng.integers(256, size=(size, 28, 28), dtype=np.uint8)
        labels = rng.permutation(np.arange(size, dtype=np.uint8) % 10)
        write_idx(folder / f'{name}-images-idx3-ubyte{suffix}', images)
        write_idx(folder / f'{name}-labels-idx1-ubyte{suffix}', labels)
        splits[name] = images, labels
    return splits


def images_in(folder):
    return sorted(folder.rglob('*.png'))


def indices_in(folder):
    return [int(file.stem) for file in images_in(folder)]


def snapshot(folder):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob('*') if file.is_file()}


def assert_is_source(out, splits):
    """Check every image's class and pixels, and that each image is there once."""
    for names, (images, labels) in zip((('train', 'validation'), ('all',), ('test',)), (
            splits['train'], splits['train'], splits['t10k'])):
        files = [file for name in names for file in images_in(out / name)]
        assert sorted(int(file.stem) for file in files) == list(range(len(images)))
        for file in files:
            index = int(file.stem)
            assert file.parent.name == CLASSES[labels[index]]
            with Image.open(file) as image:
                np.testing.assert_array_equal(np.asarray(image), images[index])


@pytest.fixture
def splits(tmp_path):
    return make_source(tmp_path / 'source')


@pytest.fixture
def out(tmp_path, splits):
    """The folders of the small source."""
    script.prepare(tmp_path / 'out', tmp_path / 'source', held_out=HELD_OUT)
    return tmp_path / 'out'


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run the command line in this process; returns what it says on failure, which comes before anything is written."""
    def run(*args):
        monkeypatch.setattr(sys, 'argv', [script.__file__, str(tmp_path / 'out'), *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            script.main()
        message = caught.value.code
        assert isinstance(message, str) and '\n' not in message and not (tmp_path / 'out').exists()
        return message
    return run


@pytest.mark.parametrize('suffix', ['.gz', ''])
def test_every_image_lands_in_the_folder_of_its_label(tmp_path, suffix):
    splits = make_source(tmp_path / 'source', suffix)
    script.prepare(tmp_path / 'out', tmp_path / 'source', held_out=HELD_OUT)
    assert_is_source(tmp_path / 'out', splits)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['all', 'test', 'train', 'validation']


def test_held_out_images_are_disjoint_from_train_and_never_change(out):
    train, validation = indices_in(out / 'train'), indices_in(out / 'validation')
    assert len(validation) == HELD_OUT
    assert not set(train) & set(validation)
    # a written-down draw, as published validation accuracies rest on it
    assert sorted(validation)[:8] == [0, 3, 10, 15, 16, 18, 23, 24]


def test_timm_reads_rgb_with_the_labels_of_the_source(out, splits):
    for split, name in ('train', 'train'), ('validation', 'train'), ('all', 'train'), ('test', 't10k'):
        images, labels = splits[name]
        dataset = create_dataset('', root=out, split=split)
        assert dataset.reader.class_to_idx == {name: i for i, name in enumerate(CLASSES)}
        loader = create_loader(
            dataset, (3, 28, 28), len(dataset), use_prefetcher=False, mean=(0.,) * 3, std=(1.,) * 3, crop_pct=1.,
            num_workers=0)
        inputs, targets = next(iter(loader))
        indices = [int(Path(file).stem) for file in dataset.filenames(basename=True)]
        np.testing.assert_array_equal(targets, labels[indices])
        expected = np.repeat(images[indices, None], 3, axis=1)
        np.testing.assert_array_equal((inputs * 255).round().numpy(), expected)


@pytest.mark.parametrize('written', [0, 150, 449])
def test_run_that_was_killed_can_be_started_again(tmp_path, splits, monkeypatch, written):
    out = tmp_path / 'out'
    save, saved = Image.Image.save, []

    def killed(image, file):
        if len(saved) == written:
            Path(file).write_bytes(b'\x89PNG')  # what a kill in the middle of a file leaves
            raise KeyboardInterrupt
        saved.append(file)
        save(image, file)

    with monkeypatch.context() as context:
        context.setattr(Image.Image, 'save', killed)
        with pytest.raises(KeyboardInterrupt):
            script.prepare(out, tmp_path / 'source', held_out=HELD_OUT)
    # whatever has its final name is complete, so a training run cannot pick up a part
    sizes = {'train': 140, 'validation': HELD_OUT, 'all': 200, 'test': 50}
    finished = [name for name in sizes if (out / name).exists()]
    assert len(finished) < 4
    assert all(len(images_in(out / name)) == sizes[name] for name in finished)

    script.prepare(out, tmp_path / 'source', held_out=HELD_OUT)
    assert_is_source(out, splits)
    assert sorted(path.name for path in out.iterdir()) == ['all', 'test', 'train', 'validation']


def test_second_run_leaves_a_finished_folder_and_foreign_files_alone(tmp_path, splits):
    out = tmp_path / 'out'
    (out / 'train.partial').mkdir(parents=True)
    (out / 'notes.txt').write_text('mine')
    (out / 'train.partial' / 'notes.txt').write_text('mine too')
    script.prepare(out, tmp_path / 'source', held_out=HELD_OUT)
    before = snapshot(out)
    assert before.keys() >= {out / 'notes.txt', out / 'train' / 'notes.txt'}
    script.prepare(out, tmp_path / 'source', held_out=HELD_OUT)
    assert snapshot(out) == before


@pytest.mark.parametrize('alter', [
    lambda folder: images_in(folder)[0].unlink(),
    lambda folder: images_in(folder)[0].rename(folder / CLASSES[9] / '99999.png'),
    lambda folder: images_in(folder)[0].rename(folder / CLASSES[9] / images_in(folder)[0].name),
    lambda folder: (folder / 'photo.JPG').write_bytes(b'mine'),
], ids=['removed', 'renamed', 'moved', 'added'])
def test_altered_folder_is_reported_and_not_touched(tmp_path, out, alter):
    alter(out / 'validation')
    before = snapshot(out)
    with pytest.raises(ValueError, match='validation'):
        script.prepare(out, tmp_path / 'source', held_out=HELD_OUT)
    assert snapshot(out) == before


def test_leftover_of_another_source_does_not_slip_into_a_split(tmp_path, splits):
    foreign = tmp_path / 'out' / 'test.partial' / CLASSES[0] / '77777.png'
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b'other')
    with pytest.raises(ValueError, match='77777'):
        script.prepare(tmp_path / 'out', tmp_path / 'source', held_out=HELD_OUT)
    assert not (tmp_path / 'out' / 'test').exists()
    assert foreign.read_bytes() == b'other'


def test_missing_data_names_the_three_ways_to_get_it(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(script, 'DEBIAN_FOLDER', tmp_path / 'nowhere')
    assert all(way in refused() for way in ('dataset-fashion-mnist', '--download', '--source'))
    assert str(tmp_path / 'nowhere') in refused('--source', tmp_path / 'nowhere')


def test_one_missing_file_is_named(tmp_path, splits, refused):
    (tmp_path / 'source' / 't10k-labels-idx1-ubyte.gz').unlink()
    message = refused('--source', tmp_path / 'source')
    assert 't10k-labels-idx1-ubyte' in message
    assert 'train-images' not in message


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def labels(values):
    return lambda file: write_idx(file.with_name(f't10k-labels-idx1-ubyte{file.suffix}'), np.array(values, np.uint8))


@pytest.mark.parametrize('suffix,damage', [
    ('.gz', lambda file: file.write_bytes(file.read_bytes()[:-100])),
    ('.gz', flip_a_bit),
    ('.gz', lambda file: file.write_bytes(b'')),
    ('', lambda file: file.write_bytes(file.read_bytes()[:-100])),
    ('', lambda file: file.write_bytes(b'')),
    ('.gz', labels([0] * 49)),
    ('.gz', labels([10] * 50)),
    ('.gz', lambda file: write_idx(file, np.zeros((50, 32, 32), np.uint8))),
], ids=['cut', 'bit', 'empty', 'cut unpacked', 'empty unpacked', 'fewer labels', 'label out of range', 'size'])
def test_damaged_source_is_reported_before_anything_is_written(tmp_path, refused, suffix, damage):
    make_source(tmp_path / 'source', suffix)
    damage(tmp_path / 'source' / f't10k-images-idx3-ubyte{suffix}')
    message = refused('--source', tmp_path / 'source')
    assert 'damaged' in message and str(tmp_path / 'source') in message


def test_source_with_too_few_images_is_refused(tmp_path, splits, refused):
    message = refused('--source', tmp_path / 'source')
    assert '200' in message and '5000' in message


@pytest.fixture
def mirror(tmp_path, monkeypatch, splits):
    """Let torchvision download the small source."""
    monkeypatch.setattr(FashionMNIST, 'resources', [
        (name, hashlib.md5((tmp_path / 'source' / name).read_bytes()).hexdigest())
        for name, _ in FashionMNIST.resources])
    monkeypatch.setattr(script, 'DEBIAN_FOLDER', tmp_path / 'nowhere')
    with serve(tmp_path / 'source') as url:
        monkeypatch.setattr(FashionMNIST, 'mirrors', [url])
        yield


@pytest.mark.parametrize('installed', [False, True])
def test_download_fills_in_for_the_missing_package_alone(tmp_path, splits, mirror, monkeypatch, installed):
    if installed:
        monkeypatch.setattr(script, 'DEBIAN_FOLDER', tmp_path / 'source')
    script.prepare(tmp_path / 'out', download=True, held_out=HELD_OUT)
    assert_is_source(tmp_path / 'out', splits)
    assert (tmp_path / 'cache').exists() == (not installed)


def test_failed_download_is_one_sentence(tmp_path, mirror, refused):
    (tmp_path / 'source' / 't10k-images-idx3-ubyte.gz').unlink()
    assert 't10k-images-idx3-ubyte.gz' in refused('--download')


@pytest.mark.slow
@pytest.mark.skipif(
    not script.DEBIAN_FOLDER.is_dir(),
    reason='needs the real data: apt install dataset-fashion-mnist',
)
def test_real_data_has_the_published_sizes(tmp_path):
    script.prepare(tmp_path)
    for name, size in ('train', 55000), ('validation', 5000), ('all', 60000), ('test', 10000):
        assert len(images_in(tmp_path / name)) == size
    counts = Counter(file.parent.name for name in ('train', 'validation') for file in images_in(tmp_path / name))
    assert counts == dict.fromkeys(CLASSES, 6000)
    assert Counter(file.parent.name for file in images_in(tmp_path / 'test')) == dict.fromkeys(CLASSES, 1000)
    # the first ten labels of the test split, as printed in many a tutorial
    labels = {int(file.stem): CLASSES.index(file.parent.name) for file in images_in(tmp_path / 'test')}
    assert [labels[i] for i in range(10)] == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert sorted(indices_in(tmp_path / 'validation'))[:8] == [4, 8, 15, 16, 24, 29, 33, 43]
