"""Robustness: the images are corrupted as it says, the same images for every model."""
import json
import math

import pytest
import timm
import torch

from conftest import checkpoint, markdown_rows, status_of
from scripts.benchmarks import robustness as script

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


@pytest.mark.parametrize('degrees', [5, 30])
def test_rotation_turns_a_point_by_its_angle_to_either_side(degrees):
    rotation = script.corruptions()[f'rotation {degrees}']
    image = torch.zeros(1, 28, 28)
    image[0, 13:15, 23:25] = 1.  # centred 10 pixels to the right of the centre
    turned = {}
    for _ in range(20):
        spread = rotation(image)[0]
        x, y = ((spread.sum(axis) * (torch.arange(28) - 13.5)).sum() / spread.sum() for axis in (0, 1))
        turned[(y > 0).item()] = math.degrees(math.atan2(y, x)), math.hypot(x, y)
    for below, (angle, radius) in turned.items():
        assert angle == pytest.approx(degrees if below else -degrees, abs=1) and radius == pytest.approx(10., abs=0.1)
    assert len(turned) == 2


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


def test_table_has_a_row_for_every_shipped_model_and_the_checkpoint(monkeypatch, fashion_mnist, tmp_path):
    names = ['wavemix_lite_8_5.fashion_mnist']
    monkeypatch.setattr(script.timm, 'list_models', lambda *args, **kwargs: names)
    some = {key: script.corruptions()[key] for key in ('clean', 'noise 0.1', 'noise 0.2', 'shift 1')}
    monkeypatch.setattr(script, 'corruptions', lambda: some)
    resnet = timm.create_model('test_resnet', num_classes=10)
    resnet.fc.bias.data[3] += 1000.  # predicts one class only
    file = checkpoint(
        tmp_path / 'last.pth.tar', resnet, model='test_resnet', num_classes=10, input_size=[3, 28, 28], crop_pct=1.0,
        mean=[0.286] * 3, std=[0.353] * 3)
    stem = tmp_path / 'robustness'
    args = fashion_mnist, '--checkpoint', file, '--kinds', 'noise', '--amp', '--device', 'cpu', '--output', stem
    assert status_of(script.main, *args) == 0
    report = json.loads(stem.with_suffix('.json').read_text(encoding='utf-8'))
    assert (report['images'], report['precision']) == (40, 'bf16')
    (header, _, *rows), = markdown_rows(stem.with_suffix('.md').read_text(encoding='utf-8'))
    assert header == ['model', 'clean', 'noise 0.1', 'noise 0.2']
    table = {name.strip('`'): dict(zip(header[1:], map(float, values))) for name, *values in rows}
    assert table == report['top1'] and list(table) == [*names, 'test_resnet']
    wavemix = table[names[0]]
    assert wavemix['clean'] >= 80 and wavemix['clean'] > wavemix['noise 0.1'] > wavemix['noise 0.2'] >= 10
    assert set(table['test_resnet'].values()) == {10.}


def test_bad_input_ends_in_one_sentence(fashion_mnist, tmp_path, model):
    file = checkpoint(tmp_path / 'last.pth.tar', model)  # of 7 classes
    message = status_of(script.main, fashion_mnist, '--checkpoint', file, '--device', 'cpu')
    assert str(file) in message and '7 classes' in message and '\n' not in message
    assert str(tmp_path / 'test') in status_of(script.main, tmp_path)
    assert status_of(script.main) == status_of(script.main, fashion_mnist, '--use-ema') == 2
