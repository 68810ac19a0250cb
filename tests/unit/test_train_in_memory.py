"""train_in_memory.py: what it does to images, and trainings that were cut off."""
import argparse

import pytest
import torch
import torchvision.transforms.v2.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import status_of
from scripts.benchmarks import train_in_memory as script
from scripts.benchmarks.common import augment
from scripts.benchmarks.common.command import ROOT
from timm_wavemix.checkpoints import load_checkpoint

RECIPE = ROOT / 'scripts/recipes/own/wavemix_lite_8_5.fashion_mnist_stage2.yaml'


def test_crops_are_those_of_torchvision_inside():
    images = torch.rand(32, 2, 24, 20)
    torch.manual_seed(1)
    boxes = augment.random_box((0.4, 0.9), (0.8, 1.25), images)
    torch.manual_seed(1)
    cropped = augment.crop_and_flip(images, (0.4, 0.9), (0.8, 1.25), hflip=0.)
    for image, crop, left, top, w, h in zip(images, cropped, *(side.int().tolist() for side in boxes)):
        expected = F.resized_crop(image, top, left, h, w, [24, 20], antialias=False)
        # at its edge, torchvision does not look beyond the box
        torch.testing.assert_close(crop[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=0., atol=1e-5)


@pytest.mark.parametrize('hflip, dims', [(0., ()), (1., (3,))])
def test_the_whole_image_is_only_flipped(hflip, dims):
    images = torch.rand(4, 3, 9, 12)
    cropped = augment.crop_and_flip(images, (1., 1.), (1., 1.), hflip)
    torch.testing.assert_close(cropped, images.flip(dims), rtol=0., atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(2, 40), st.integers(2, 40)), st.floats(0.02, 1.), st.floats(0.02, 1.), st.floats(0.3, 3.3),
    st.integers(0, 2 ** 31))
def test_boxes_lie_in_the_image(size, a, b, ratio, seed):
    torch.manual_seed(seed)
    left, top, w, h = augment.random_box((min(a, b), max(a, b)), (ratio, ratio), torch.empty(64, 1, *size))
    for start, length, side in ((left, w, size[1]), (top, h, size[0])):
        assert (start >= 0).all() and (length >= 1).all() and (start + length <= side).all()
        assert torch.equal(start, start.round()) and torch.equal(length, length.round())


@pytest.mark.parametrize('mode', ['const', 'pixel'])
def test_one_box_of_an_image_is_erased(mode):
    torch.manual_seed(0)
    images = torch.full((200, 1, 28, 28), 5.)
    erased = augment.erase(images, 1., mode)
    changed = (erased != images)[:, 0]
    parts = changed.float().mean((1, 2))
    assert parts.min() > 0.015 and parts.max() < 0.4 and parts.max() - parts.min() > 0.2
    for mask in changed:  # it is a rectangle
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None])
    values = erased[:, 0][changed]
    if mode == 'const':
        assert not values.any()
    else:
        assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05
    assert torch.equal(augment.erase(images, 0., mode), images)
    share = (augment.erase(images, 0.5, mode) != images).flatten(1).any(1).float().mean()
    assert 0.35 < share < 0.65


@pytest.fixture
def folder(tmp_path):
    for split, count in (('train', 6), ('validation', 2)):
        for label in range(5):
            for i in range(count):
                file = tmp_path / split / f'class_{label}' / f'{i}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                F.to_pil_image(torch.randint(256, (1, 28, 28), dtype=torch.uint8)).save(file)
    return tmp_path


@pytest.fixture
def recipe(tmp_path):
    values = yaml.safe_load(RECIPE.read_text(encoding='utf-8'))
    values.update(train_split='train', num_classes=5, batch_size=8, epochs=3, warmup_epochs=1)

    def write(**changes):
        file = tmp_path / 'recipe.yaml'
        file.write_text(yaml.safe_dump({k: v for k, v in {**values, **changes}.items() if v != 'left out'}))
        return file

    return write


def run(config, data, name, *args):
    return status_of(
        script.main, '-c', config, '--data-dir', data, '--output', data / 'out', '--experiment', name, '--device',
        'cpu', *args)


def test_a_training_that_was_cut_off_goes_on_to_the_same_end(monkeypatch, folder, recipe):
    assert run(recipe(), folder, 'whole') == 0
    update_summary = script.update_summary

    def interrupt(epoch, *args, **kwargs):
        update_summary(epoch, *args, **kwargs)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(script, 'update_summary', interrupt)
    assert 'interrupted' in run(recipe(), folder, 'cut')
    monkeypatch.setattr(script, 'update_summary', update_summary)
    assert run(recipe(), folder, 'cut') == 0
    whole, cut = (
        torch.load(folder / 'out' / name / 'last.pth.tar', weights_only=True) for name in ('whole', 'cut'))
    assert whole['epoch'] == cut['epoch'] == 2
    for key in 'state_dict', 'state_dict_ema':
        assert all(torch.equal(v, cut[key][k]) for k, v in whole[key].items())
    assert not all(torch.equal(v, whole['state_dict_ema'][k]) for k, v in whole['state_dict'].items())
    assert yaml.safe_load((folder / 'out/cut/args.yaml').read_text()) == cut['args']
    lines = (folder / 'out/cut/summary.csv').read_text().splitlines()
    assert lines == (folder / 'out/whole/summary.csv').read_text().splitlines() and len(lines) == 4


def test_a_checkpoint_is_one_of_train_py_and_starts_another_training(folder, recipe):
    run(recipe(), folder, 'first')
    file = folder / 'out/first/last.pth.tar'
    model = load_checkpoint(file, use_ema=True)
    assert model.pretrained_cfg['input_size'] == (1, 28, 28) and model.num_classes == 5
    assert model.pretrained_cfg['mean'] == (0.286,)
    still = recipe(lr=0., warmup_lr=0., min_lr=0.)
    assert run(still, folder, 'second', '--initial-checkpoint', file) == 0
    second = load_checkpoint(folder / 'out/second/last.pth.tar')
    torch.testing.assert_close(dict(second.named_parameters()), dict(model.named_parameters()))


def test_a_cpu_trains_in_single_precision_without_amp(folder, recipe, monkeypatch):
    dtypes, evaluate = set(), script.evaluate

    def watched(model, *args):
        model.blocks[0].register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
        return evaluate(model, *args)

    monkeypatch.setattr(script, 'evaluate', watched)
    assert run(recipe(amp=False, amp_dtype='left out', epochs=1), folder, 'fp32') == 0
    assert dtypes == {torch.float32}
    assert run(recipe(epochs=1), folder, 'bf16') == 0
    assert dtypes == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize('changes, named', [
    *((changes, next(iter(changes))) for changes in [
        # what train_in_memory.py can't do
        dict(auto_augment='rand-m9'), dict(color_jitter=0.4), dict(remode='rand'), dict(in_chans=3),
        dict(amp_dtype='float16'),
        # what nobody can do
        dict(reprob='left out'), dict(amp_dtype='left out'), dict(lr='1e-3'), dict(lr=None), dict(lr=-1), dict(lr=True),
        dict(input_size=28), dict(input_size=[1, 28]), dict(batch_size=0), dict(batch_size='8'), dict(epochs=[1]),
        dict(epochs=2.5), dict(mean=0.5), dict(mean=[0.5, 0.5]), dict(std=[0]), dict(scale=[1, 0.5]), dict(hflip=2),
        dict(model=[]), dict(model_kwargs=['levels']), dict(device_modules='timm_wavemix'), dict(amp='no')]),
    (dict(device_modules=['no_such_module']), 'no_such_module'),
    # what the images or the loss do not allow
    (dict(batch_size=31), '30'), (dict(input_size=[1, 32, 32]), '28x28'), (dict(num_classes=4), 'num_classes'),
    (dict(train_split='elsewhere'), 'elsewhere'), (dict(lr=1e9, warmup_epochs=0), 'learning rate'),
], ids=str)
def test_a_training_that_cannot_be_done_ends_in_one_sentence_that_names_why(folder, recipe, changes, named):
    error = run(recipe(**changes), folder, 'refused')
    assert named in error and '\n' not in error
    assert not (folder / 'out/refused/last.pth.tar').exists()


@pytest.mark.parametrize('change', ['recipe', 'script', 'empty', 'list', 'text'])
def test_a_folder_of_another_training_is_refused_and_kept(folder, recipe, change):
    file = folder / 'out/first/last.pth.tar'
    file.parent.mkdir(parents=True)
    contents = dict(
        recipe=dict(args=dict(model='wavemix_lite_8_5')), script=dict(args=argparse.Namespace(model='a')), list=[1, 2])
    if change in contents:
        torch.save(contents[change], file)
    else:
        file.write_text('' if change == 'empty' else 'no training')
    before = file.read_bytes()
    error = run(recipe(), folder, 'first')
    assert str(file.parent) in error and '\n' not in error and file.read_bytes() == before


@pytest.mark.parametrize('text', ['a: [', '# nothing', '- 1', '\0', None], ids=str)
def test_a_recipe_that_cannot_be_read_is_named(folder, text):
    if text is not None:
        (folder / 'recipe.yaml').write_text(text)
    error = run(folder / 'recipe.yaml', folder, 'refused')
    assert 'recipe.yaml' in error and '\n' not in error


@pytest.mark.parametrize('content', [None, b'', [1, 2]], ids=['missing', 'empty', 'list'])
def test_an_initial_checkpoint_that_cannot_be_read_is_named(folder, recipe, content):
    file = folder / 'initial.pth'
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save(content, file)
    error = run(recipe(), folder, 'first', '--initial-checkpoint', file)
    assert 'initial.pth' in error and '\n' not in error


def test_images_of_colour_keep_it(folder):
    Image.new('RGB', (28, 28), (255, 0, 51)).save(folder / 'train/class_0/0.png')
    images, labels = script.load_images(folder, 'train', (3, 28, 28), 5)
    assert images.shape == (30, 3, 28, 28) and labels.tolist() == sorted(labels.tolist())
    normalize = augment.Normalize([0., 0.5, 0.2], [1., 1., 0.5])
    assert normalize(images[:1])[0, :, 3, 3].tolist() == pytest.approx([1., -0.5, 0.], abs=1e-6)
