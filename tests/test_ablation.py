"""scripts/ablation.py: what replaces the wavelet does what it says, and the rest of the block is the package's."""
import sys
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F

from timm_wavemix import dwt2d

SCRIPTS = Path(__file__).parents[1] / 'scripts'
sys.path.insert(0, str(SCRIPTS))
from ablation import AveragePooling, LearnedTransform, TransformBlock, TransformLiteBlock, variants  # noqa: E402

MODELS = {'wavemix_16_5': TransformBlock, 'wavemix_lite_128_7': TransformLiteBlock}
HAAR = 0.5 * torch.tensor([  # LL, LH, HL, HH; LH answers to horizontal edges
    [[1., 1.], [1., 1.]],
    [[1., 1.], [-1., -1.]],
    [[1., -1.], [1., -1.]],
    [[1., -1.], [-1., 1.]],
])


class LastRows(nn.Module):
    """A transform that no other resembles: the four bands are the odd rows and columns, 1, 2, 3 and 4 times."""

    def __init__(self, dim):
        super().__init__()

    def forward(self, x):
        return torch.cat([k * x[..., 1::2, 1::2] for k in (1, 2, 3, 4)], dim=1)


def create(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, proj_drop_rate=0., **kwargs).double()


def with_transform(name, transform):
    """The model with this transform, and the package's own with the same weights."""
    model, own = create(name, block=partial(MODELS[name], transform=transform)), create(name)
    result = model.load_state_dict(own.state_dict(), strict=False)
    assert not result.unexpected_keys
    return model, own, result.missing_keys


def outputs(model, x, train):
    """Logits, and the gradients of what both kinds of block have."""
    model.train(train)
    logits = model(x)
    logits.square().sum().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if 'transform' not in name}


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('size', [(16, 16), (7, 10)])
@pytest.mark.parametrize('name', MODELS)
def test_learned_transform_with_haars_filters_is_the_packages_model(name, size, train):
    model, own, missing = with_transform(name, LearnedTransform)
    assert missing and all('transform' in key for key in missing)
    for module in model.modules():
        if isinstance(module, LearnedTransform):
            dim = module.weight.shape[0] // 4
            module.weight.data = HAAR.double().repeat_interleave(dim, dim=0)[:, None]
    x = torch.randn(2, 3, *size).double()
    (logits, grads), (expected, expected_grads) = outputs(model, x, train), outputs(own, x, train)
    torch.testing.assert_close(logits, expected)
    assert grads.keys() == expected_grads.keys()
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize('name', MODELS)
def test_average_pooling_is_haar_with_the_weights_of_its_details_at_zero(name):
    model, own, missing = with_transform(name, AveragePooling)
    assert not missing
    x = torch.randn(2, 3, 9, 12).double()
    with torch.no_grad():
        logits = model.eval()(x)
        assert (logits - own.eval()(x)).abs().max() > 1e-5
        for key, weight in own.named_parameters():
            if key.endswith('fc1.weight'):
                weight[:, weight.shape[1] // 4:] = 0.
        torch.testing.assert_close(logits, own(x))


@pytest.mark.parametrize('name', MODELS)
def test_average_pooling_leaves_the_weights_of_the_details_without_gradient(name):
    model, _, _ = with_transform(name, AveragePooling)
    _, grads = outputs(model, torch.randn(2, 3, 16, 16).double(), train=True)
    for key, grad in grads.items():
        if key.endswith('fc1.weight'):
            ll, details = grad.tensor_split([grad.shape[1] // 4], dim=1)
            assert ll.abs().max() > 0 and details.abs().max() == 0


def test_average_pooling_is_torchs_times_two_and_pads_like_the_wavelet():
    x = torch.randn(2, 3, 5, 6)
    y = AveragePooling(3)(x)
    assert y.shape == dwt2d(x).shape == (2, 12, 3, 3)
    torch.testing.assert_close(y[:, :3], 2 * F.avg_pool2d(F.pad(x, (0, 0, 0, 1)), 2))
    assert y[:, 3:].abs().max() == 0


def test_learned_transform_filters_each_channel_alone_and_stacks_bands():
    transform = LearnedTransform(3)
    x = torch.randn(2, 3, 4, 6)
    y = transform(x)
    for band in range(4):
        for channel in range(3):
            expected = F.conv2d(x[:, channel:channel + 1], transform.weight[3 * band + channel][None], stride=2)
            torch.testing.assert_close(y[:, 3 * band + channel][:, None], expected)


def test_learned_transform_starts_with_the_energy_of_haar():
    torch.manual_seed(0)
    assert LearnedTransform(1000).weight.square().sum(dim=(1, 2, 3)).mean().item() == pytest.approx(1., rel=0.05)


def test_each_level_takes_the_first_band_of_the_one_before():
    model, own, _ = with_transform('wavemix_16_5', LastRows)
    block = model.blocks[0]
    ll = torch.randn(1, 16, 16, 16).double()
    outs = []
    for mlp in block.mlps:
        mlp.register_forward_hook(lambda module, args, out: outs.append(out))
    block(ll)
    assert len(outs) == 4
    for i, out in enumerate(outs):
        last = ll[..., 2 ** (i + 1) - 1::2 ** (i + 1), 2 ** (i + 1) - 1::2 ** (i + 1)]
        mlp = own.blocks[0].mlps[i]
        x = F.conv2d(torch.cat([last, 2 * last, 3 * last, 4 * last], dim=1), mlp.fc1.weight, mlp.fc1.bias)
        torch.testing.assert_close(out, mlp.fc2(F.gelu(x)))


@pytest.mark.parametrize('name', MODELS)
def test_variants_have_one_shape_and_only_the_learned_one_has_more_weights(name):
    params = {}
    for variant, kwargs in variants(MODELS[name]).items():
        if variant == 'db2':
            pytest.importorskip('pywt')
        model = create(name, **kwargs)
        assert model(torch.randn(2, 3, 28, 28).double()).shape == (2, 7)
        params[variant] = sum(p.numel() for p in model.parameters())
    channels = 5 * 4 * 16 if name == 'wavemix_16_5' else 7 * 128 // 4
    assert params['haar'] == params['db2'] == params['average_pooling'] == params['learned'] - 16 * channels


def test_dropout_of_the_mlps_stays():
    for name, block in MODELS.items():
        model = timm.create_model(name, proj_drop_rate=0.25, block=partial(block, transform=AveragePooling))
        own = timm.create_model(name, proj_drop_rate=0.25)
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == \
            [m.p for m in own.modules() if isinstance(m, nn.Dropout)]
