"""The models of other libraries are as large as the paper says, and timm can train them."""
import sys

import pytest
import timm
import torch
from torch import nn

from scripts.benchmarks.models import baselines  # registers the models

TABLE_1 = {  # million parameters with 10 classes
    'resnet18_3x3': 11.2,
    'resnet34_3x3': 21.3,
    'resnet50_3x3': 23.6,  # table 2, where table 1 has 25.2
    'convmixer_256_8': 0.67,
    'convmixer_256_16': 1.3,
    'vit_128_4x4': 0.53,
    'cct_128_4x4': 0.90,
    'cvt_128_4x4': 1.10,
    'hybrid_vin_128_4x4': 0.62,
}
TRANSFORMERS = [name for name in TABLE_1 if name.endswith('4x4')]
NAMES = [*TABLE_1, 'resnet101_3x3']


def create(name, **kwargs):
    if name in TRANSFORMERS:
        pytest.importorskip('vit_pytorch')
        pytest.importorskip('nystrom_attention')
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def test_all_are_registered():
    assert set(timm.list_models(module='baselines')) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_parameter_counts_are_those_of_the_paper_and_of_the_text(name):
    params = sum(p.numel() for p in create(name).parameters() if p.requires_grad) / 1e6
    assert params == pytest.approx(TABLE_1.get(name, params), rel=0.05)
    lines = [line.split() for line in baselines.__doc__.splitlines()]
    counts = {line[0]: line[1] for line in lines if line[2:3] and line[2].rstrip(',:') == 'M'}
    if name in counts:
        assert f'{params:.{len(counts[name].partition(".")[2])}f}' == counts[name]
    else:
        assert name in ('resnet18_3x3', 'resnet34_3x3')


@pytest.mark.parametrize('name', ['resnet18_3x3', 'convmixer_256_8', *TRANSFORMERS])
def test_logits_differ_between_grey_images(name):  # a norm over the channels of one pixel could not
    model = create(name, num_classes=3, **({} if 'resnet' in name else {'img_size': 12})).double()
    grey = torch.rand(2, 1, 12, 12).double().expand(-1, 3, -1, -1)
    with torch.no_grad():
        y = model(grey)
    assert y.shape == (2, 3)
    assert (y[0] - y[1]).abs().max() > 1e-6


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_a_token_is_a_pixel_up_to_32_and_a_patch_above(name):
    for img_size, tokens in (8, 64), (64, 1024):
        seen, model = [], create(name, img_size=img_size).eval()
        for module in model.modules():
            if isinstance(module, nn.GELU):  # of the MLP in a layer
                module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        layers = [m for m in model.modules() if type(m).__name__ == 'TransformerEncoderLayer']  # CCT has no such module
        for layer in layers:
            layer.linear2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            model(torch.randn(1, 3, img_size, img_size))
        assert len(seen) == 4
        for x in seen:
            count = x.shape[2] * x.shape[3] if x.ndim == 4 else x.shape[1]
            assert count - tokens == (1 if name in ('vit_128_4x4', 'hybrid_vin_128_4x4') else 0)  # a class token


def test_resnets_keep_the_size_up_to_the_second_stage():
    maps = create('resnet18_3x3').forward_intermediates(torch.randn(1, 3, 32, 32), intermediates_only=True)
    assert [tuple(x.shape[2:]) for x in maps] == [(32, 32), (32, 32), (16, 16), (8, 8), (4, 4)]


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_drop_rate_reaches_attention_and_mlps(name):
    rates = {m.p for m in create(name, drop_rate=0.25).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.25}


def test_missing_libraries_end_in_one_sentence(monkeypatch):
    for package in ('vit_pytorch', 'nystrom_attention'):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'vit_128_4x4.*--group baselines'):
        timm.create_model('vit_128_4x4')
