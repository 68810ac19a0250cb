"""scripts/train_in_memory.py: what it does to images, and trainings that were cut off."""
import argparse
import sys
from importlib import import_module

import pytest
import timm
import torch
import torchvision.transforms.v2.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import train_in_memory as script
from timm_wavemix.hub import load_checkpoint

RECIPES = sorted((script.Path(script.__file__).parent / 'recipes').glob('*.yaml'))


def test_crops_are_those_of_torchvision_inside():
    images = torch.rand(32, 2, 24, 20)
    torch.manual_seed(1)
    boxes = script.random_box((0.4, 0.9), (0.8, 1.25), images)
    torch.manual_seed(1)
    cropped = script.crop_and_flip(images, (0.4, 0.9), (0.8, 1.25), hflip=0.)
    for image, crop, left, top, w, h in zip(images, cropped, *(side.int().tolist() for side in boxes)):
        expected = F.resized_crop(image, top, left, h, w, [24, 20], antialias=False)
        # at its edge, torchvision does not look beyond the box
        torch.testing.assert_close(crop[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=0., atol=1e-5)


@pytest.mark.parametrize('hflip, dims', [(0., ()), (1., (3,))])
def test_the_whole_image_is_only_flipped(hflip, dims):
    images = torch.rand(4, 3, 9, 12)
    cropped = script.crop_and_flip(images, (1., 1.), (1., 1.), hflip)
    torch.testing.assert_close(cropped, images.flip(dims), rtol=0., atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(2, 40), st.integers(2, 40)), st.floats(0.02, 1.), st.floats(0.02, 1.), st.floats(0.3, 3.3),
    st.integers(0, 2 ** 31))
def test_boxes_lie_in_the_image(size, a, b, ratio, seed):
    torch.manual_seed(seed)
    left, top, w, h = script.random_box((min(a, b), max(a, b)), (ratio, ratio), torch.empty(64, 1, *size))
    for start, length, side in ((left, w, size[1]), (top, h, size[0])):
        assert (start >= 0).all() and (length >= 1).all() and (start + length <= side).all()
        assert torch.equal(start, start.round()) and torch.equal(length, length.round())


@pytest.mark.parametrize('mode', ['const', 'pixel'])
def test_one_box_of_an_image_is_erased(mode):
    torch.manual_seed(0)
    images = torch.full((200, 1, 28, 28), 5.)
    erased = script.erase(images, 1., mode)
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
    assert torch.equal(script.erase(images, 0., mode), images)
    share = (script.erase(images, 0.5, mode) != images).flatten(1).any(1).float().mean()
    assert 0.35 < share < 0.65


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda file: file.stem)
def test_every_recipe_can_be_done(recipe):
    values = script.load_recipe(recipe)
    for module in values['device_modules']:
        import_module(module)
    model = timm.create_model(
        values['model'], num_classes=10, in_chans=values['input_size'][0], **values.get('model_kwargs', {}))
    assert model.num_classes == values['num_classes'] == 10


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
    values = yaml.safe_load((RECIPES[0].parent / 'wavemix_lite_8_5.fashion_mnist.yaml').read_text(encoding='utf-8'))
    values.update(train_split='train', num_classes=5, batch_size=8, epochs=3, warmup_epochs=1)

    def write(**changes):
        file = tmp_path / 'recipe.yaml'
        file.write_text(yaml.safe_dump({k: v for k, v in {**values, **changes}.items() if v is not None}))
        return file

    return write


def run(monkeypatch, config, data, name, *args):
    monkeypatch.setattr(sys, 'argv', [
        'train_in_memory.py', '-c', str(config), '--data-dir', str(data), '--output', str(data / 'out'),
        '--experiment', name, '--device', 'cpu', *map(str, args)])
    try:
        script.main()
    except SystemExit as error:
        return error.code


def test_a_training_that_was_cut_off_goes_on_to_the_same_end(monkeypatch, folder, recipe):
    assert run(monkeypatch, recipe(), folder, 'whole') is None
    update_summary = script.update_summary

    def interrupt(epoch, *args, **kwargs):
        update_summary(epoch, *args, **kwargs)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(script, 'update_summary', interrupt)
    assert 'the same command goes on' in run(monkeypatch, recipe(), folder, 'cut')
    monkeypatch.setattr(script, 'update_summary', update_summary)
    assert run(monkeypatch, recipe(), folder, 'cut') is None
    whole, cut = (
        torch.load(folder / 'out' / name / 'last.pth.tar', weights_only=True) for name in ('whole', 'cut'))
    assert whole['epoch'] == cut['epoch'] == 2
    for key in 'state_dict', 'state_dict_ema':
        assert all(torch.equal(v, cut[key][k]) for k, v in whole[key].items())
    assert not all(torch.equal(v, whole['state_dict_ema'][k]) for k, v in whole['state_dict'].items())
    lines = (folder / 'out/cut/summary.csv').read_text().splitlines()
    assert lines == (folder / 'out/whole/summary.csv').read_text().splitlines() and len(lines) == 4


def test_a_checkpoint_is_one_of_train_py_and_starts_another_training(monkeypatch, folder, recipe):
    run(monkeypatch, recipe(), folder, 'first')
    file = folder / 'out/first/last.pth.tar'
    model = load_checkpoint(file, use_ema=True)
    assert model.pretrained_cfg['input_size'] == (1, 28, 28) and model.num_classes == 5
    assert model.pretrained_cfg['mean'] == (0.286,)
    still = recipe(lr=0., warmup_lr=0., min_lr=0.)
    assert run(monkeypatch, still, folder, 'second', '--initial-checkpoint', file) is None
    second = load_checkpoint(folder / 'out/second/last.pth.tar')
    torch.testing.assert_close(dict(second.named_parameters()), dict(model.named_parameters()))


@pytest.mark.parametrize('changes, message', [
    (dict(auto_augment='rand-m9'), 'has auto_augment: rand-m9, which'),
    (dict(color_jitter=0.4), 'has color_jitter: 0.4, which'),
    (dict(remode='rand'), 'has remode: rand, which'),
    (dict(reprob=None), 'does not say reprob: add it'),
    (dict(device_modules=['no_such_module']), "No module named 'no_such_module'"),
    (dict(in_chans=3), 'has in_chans: 3, which'),
    (dict(batch_size=31), '30 images do not fill a batch: give a batch_size of 30 or less'),
    (dict(input_size=[1, 32, 32]), 'an image of 28x28, and the recipe wants 32x32'),
    (dict(num_classes=4), "train' has 5 classes, and the recipe's num_classes is 4: change one of them"),
    (dict(train_split='training'), "there is no folder '"),
    (dict(lr='1e-3'), 'has lr: 1e-3, which is no number to YAML: write it as 0.001'),
    (dict(lr=1e9, warmup_epochs=0), 'give a smaller lr'),
], ids=str)
def test_what_it_cannot_do_is_refused(monkeypatch, folder, recipe, changes, message):
    error = run(monkeypatch, recipe(**changes), folder, 'refused')
    assert message in error and '\n' not in error
    assert not (folder / 'out/refused/last.pth.tar').exists()


@pytest.mark.parametrize('change', [dict(lr=0.001), None], ids=['recipe', 'script'])
def test_a_folder_of_another_training_is_refused(monkeypatch, folder, recipe, change):
    run(monkeypatch, recipe(), folder, 'first')
    file = folder / 'out/first/last.pth.tar'
    if change is None:  # as train.py writes it
        torch.save({**torch.load(file, weights_only=True), 'args': argparse.Namespace(model='wavemix_lite_8_5')}, file)
    before = file.read_bytes()
    error = run(monkeypatch, recipe(**change or {}), folder, 'first')
    assert 'holds a training by another recipe or script: repeat that, or name another --experiment.' in error
    assert file.read_bytes() == before


@pytest.mark.parametrize('text, message', [
    ('a: [', 'is no YAML'),
    ('# nothing', 'has no settings'),
    (None, 'No such file'),
], ids=['broken', 'empty', 'missing'])
def test_a_recipe_that_cannot_be_read_is_told(monkeypatch, folder, text, message):
    if text:
        (folder / 'recipe.yaml').write_text(text)
    error = run(monkeypatch, folder / 'recipe.yaml', folder, 'refused')
    assert message in error and '\n' not in error


def test_a_missing_initial_checkpoint_is_told(monkeypatch, folder, recipe, capsys):
    assert run(monkeypatch, recipe(), folder, 'first', '--initial-checkpoint', 'nowhere.pth') == 2
    assert "there is no file 'nowhere.pth'" in capsys.readouterr().err


def test_images_of_colour_keep_it(folder):
    Image.new('RGB', (28, 28), (255, 0, 51)).save(folder / 'train/class_0/0.png')
    images, labels = script.load_images(folder, 'train', (3, 28, 28), 5)
    assert images.shape == (30, 3, 28, 28) and labels.tolist() == sorted(labels.tolist())
    normalize = script.Normalize([0., 0.5, 0.2], [1., 1., 0.5])
    assert normalize(images[:1])[0, :, 3, 3].tolist() == pytest.approx([1., -0.5, 0.], abs=1e-6)
