"""Robustness: the images are corrupted as it says, the same images for every model."""
import argparse
import re
import sys

import pytest
import timm
import torch

import robustness as script

CPU = torch.device('cpu')


def impulse():
    image = torch.zeros(1, 28, 28)
    image[0, 14, 14] = 1.
    return image


@pytest.mark.parametrize('sigma', [0.05, 0.1, 0.2])
def test_noise_has_its_standard_deviation_and_stays_within_the_range(sigma):
    noise = script.corruptions()[f'noise {sigma}']
    grey = torch.cat([noise(torch.full((1, 28, 28), 0.5)) for _ in range(20)])
    # 2.5 standard deviations of the widest noise reach the ends of the range, which clips little
    assert grey.mean().item() == pytest.approx(0.5, abs=0.01)
    assert grey.std().item() == pytest.approx(sigma, rel=0.03)
    black = noise(torch.zeros(1, 28, 28))
    assert black.min() == 0 and black.max() > sigma


@pytest.mark.parametrize('sigma', [0.5, 1.0, 1.5])
def test_blur_spreads_a_point_by_its_standard_deviation(sigma):
    spread = script.corruptions()[f'blur {sigma}'](impulse())[0]
    distance = torch.arange(28) - 14.
    assert spread.sum().item() == pytest.approx(1., rel=1e-4)
    for axis in 0, 1:
        # the narrowest Gaussian, sampled at whole pixels, is 7 % narrower
        assert (spread.sum(axis) * distance ** 2).sum().sqrt().item() == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize('n', [1, 2, 4])
def test_shift_goes_to_every_place_within_its_reach_and_no_further(n):
    shift = script.corruptions()[f'shift {n}']
    shifted = [shift(impulse()) for _ in range(1000)]
    assert all(image.shape == (1, 28, 28) and image.sum() == 1 for image in shifted)
    reached = {tuple(image[0].nonzero()[0].tolist()) for image in shifted}
    assert reached == {(14 + y, 14 + x) for y in range(-n, n + 1) for x in range(-n, n + 1)}


def test_every_model_gets_the_same_grey_images_and_they_are_normalised(fashion_mnist):
    model = timm.create_model('wavemix_16_5', pretrained=True)
    seen = []
    model.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for _ in range(2):
        script.corrupted_accuracy(model, script.corruptions()['noise 0.1'], fashion_mnist, CPU)
    first, second = seen
    assert first.shape == (40, 3, 28, 28) and torch.equal(first, second)
    assert torch.equal(first[:, 0], first[:, 1]) and torch.equal(first[:, 0], first[:, 2])
    assert first.min().item() == pytest.approx(-0.286 / 0.353, abs=1e-3)


def test_a_part_of_the_images_has_all_classes_alike(fashion_mnist):
    model = timm.create_model('resnet18', num_classes=10)
    model.fc.bias.data[3] += 1000.  # predicts one class only
    model.pretrained_cfg = timm.get_pretrained_cfg('wavemix_16_5').to_dict()
    batches = []
    model.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    assert script.corrupted_accuracy(model, torch.nn.Identity(), fashion_mnist, CPU, images=20) == 10.
    assert sum(batches) == 20


def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['robustness.py', *map(str, args)])
    try:
        script.main()
    except SystemExit as error:
        return error.code
    return capsys.readouterr().out


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5 reads no argparse.Namespace safely')
def test_table_has_a_row_for_every_shipped_model_and_the_checkpoint(monkeypatch, capsys, fashion_mnist, tmp_path):
    resnet = timm.create_model('resnet18', num_classes=10)
    resnet.fc.bias.data[3] += 1000.  # predicts one class only
    args = argparse.Namespace(
        model='resnet18', model_kwargs={}, num_classes=10, in_chans=None, gp=None, img_size=None,
        input_size=[3, 28, 28], crop_pct=1.0, mean=[0.286] * 3, std=[0.353] * 3, interpolation='')
    torch.save({'args': args, 'state_dict': resnet.state_dict()}, tmp_path / 'last.pth.tar')
    output = tmp_path / 'robustness.md'
    options = (
        fashion_mnist, '--checkpoint', tmp_path / 'last.pth.tar', '--amp', '--device', 'cpu',
        '--output', output)
    assert run(monkeypatch, capsys, *options) == f'{output}\n'
    text = output.read_text(encoding='utf-8')
    assert 'on 40 test images of Fashion-MNIST, seed 0, in bf16 autocast' in text
    assert f'python robustness.py {fashion_mnist} --checkpoint ' in text
    header, _, *rows = [re.split(r' *\| *', line.strip('| ')) for line in re.findall(r'^\|.*', text, re.MULTILINE)]
    assert header == ['model', *script.corruptions()]
    table = {name.strip('`'): dict(zip(header[1:], map(float, values))) for name, *values in rows}
    assert table.keys() == {*timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True), 'resnet18'}
    wavemix = table['wavemix_16_5.fashion_mnist']
    assert wavemix['clean'] >= 80 and wavemix['clean'] > wavemix['noise 0.1'] > wavemix['noise 0.2'] >= 10
    assert set(table['resnet18'].values()) == {10.}


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5 reads no argparse.Namespace safely')
def test_a_checkpoint_of_other_classes_is_refused(monkeypatch, capsys, fashion_mnist, tmp_path):
    args = argparse.Namespace(
        model='wavemix_16_5', model_kwargs={}, num_classes=7, in_chans=None, gp=None, img_size=None, input_size=None)
    state_dict = timm.create_model('wavemix_16_5', num_classes=7).state_dict()
    torch.save({'args': args, 'state_dict': state_dict}, tmp_path / 'last.pth.tar')
    error = run(monkeypatch, capsys, fashion_mnist, '--checkpoint', tmp_path / 'last.pth.tar', '--device', 'cpu')
    assert 'tells 7 classes apart: name one that was trained on the 10 of Fashion-MNIST.' in error


def test_ema_weights_are_of_a_checkpoint(monkeypatch, capsys, fashion_mnist):
    assert run(monkeypatch, capsys, fashion_mnist, '--use-ema') == 2
    assert '--use-ema is of a --checkpoint: name one, or leave it out.' in capsys.readouterr().err


def test_missing_images_are_told_in_one_line(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, capsys, tmp_path, '--device', 'cpu') == (
        f"robustness.py: there is no folder '{tmp_path}/test': write it with scripts/prepare_fashion_mnist.py, or name "
        'another.')
