"""The ablation: what replaces the wavelet does what it says, and the rest of the model is the package's."""
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from scripts.benchmarks.models.transforms import (
    AveragePooling,
    DenseConv2d,
    LearnedTransform,
    replace_by_dense,
    replace_transforms,
)
from timm_wavemix import idwt2d

HAAR = 0.5 * torch.tensor([  # LL, LH, HL, HH; LH responds to horizontal edges
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


def create():
    torch.manual_seed(0)
    return timm.create_model('wavemix_16_5', num_classes=7, depth=2).double()


def with_transform(transform):
    """The model with this transform, and the package's own with the same weights."""
    model, own = create(), create()
    replace_transforms(model, transform)
    model.double()
    result = model.load_state_dict(own.state_dict(), strict=False)
    assert not result.unexpected_keys
    return model, own, result.missing_keys


def outputs(model, x, train):
    """Logits, and the gradients of what both kinds of block have."""
    model.train(train)
    logits = model(x)
    logits.square().sum().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if 'transform' not in name}


@pytest.mark.parametrize('size, train', [((16, 16), True), ((7, 10), False), ((7, 10), True)])
def test_learned_transform_with_haars_filters_is_the_packages_model(size, train):
    model, own, missing = with_transform(LearnedTransform)
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


def test_average_pooling_is_haar_with_zero_weights_for_its_other_bands():
    model, own, missing = with_transform(AveragePooling)
    assert not missing
    x = torch.randn(2, 3, 9, 12).double()
    with torch.no_grad():
        logits = model.eval()(x)
        assert (logits - own.eval()(x)).abs().max() > 1e-5
        for key, weight in own.named_parameters():
            if key.endswith('fc1.weight'):
                weight[:, weight.shape[1] // 4:] = 0.
        torch.testing.assert_close(logits, own(x))


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
    model, own, _ = with_transform(LastRows)
    block, outs = model.blocks[0].eval(), []
    for mlp in block.mlps:
        mlp.register_forward_hook(lambda module, args, out: outs.append(out))
    ll = torch.randn(1, 16, 16, 16).double()
    block(ll)
    for i, out in enumerate(outs):
        last = ll[..., 2 ** (i + 1) - 1::2 ** (i + 1), 2 ** (i + 1) - 1::2 ** (i + 1)]
        mlp = own.blocks[0].mlps[i]
        x = F.conv2d(torch.cat([last, 2 * last, 3 * last, 4 * last], dim=1), mlp.fc1.weight, mlp.fc1.bias)
        torch.testing.assert_close(out, mlp.fc2(F.gelu(x)))


def test_dense_convolution_is_the_packages_layer_up_to_an_orthogonal_change_of_weights():
    own, model = create(), create()
    replace_by_dense(model)
    model.double()
    dense = {key for key, module in model.named_modules() if isinstance(module, DenseConv2d)}
    assert len(dense) == 2 * 4
    state_dict = {
        key: idwt2d(value) if key.endswith('fc1.weight') else value for key, value in own.state_dict().items()}
    model.load_state_dict(state_dict)
    x = torch.randn(2, 3, 7, 10).double()
    torch.testing.assert_close(model.eval()(x), own.eval()(x))


def test_dropout_of_the_mlps_stays():
    model, own = (timm.create_model('wavemix_16_5', proj_drop_rate=0.25) for _ in range(2))
    replace_transforms(model, AveragePooling)
    rates, own_rates = ([m.p for m in net.modules() if isinstance(m, nn.Dropout)] for net in (model, own))
    assert rates == own_rates and 0.25 in rates
