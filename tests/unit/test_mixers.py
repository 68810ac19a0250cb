"""2-D FNet and 2-D MLP-Mixer against their blocks written out with NumPy and einsum; test_wavemix.py has the model."""
import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import images
from timm_wavemix.mixers import FNet2dBlock, MlpMixer2dBlock

# The paper's forward pass, in NumPy, from the parameters of a model and nothing else of it.

def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def normalize(x, axes, weight, bias, eps=1e-5):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


class Oracle:
    """The blocks by their formulas, batch norms with the statistics of the batch."""

    def __init__(self, module):
        self.params = {name: p.detach().double().numpy() for name, p in module.state_dict().items()}

    def batch_norm(self, name, x):
        weight, bias = (self.params[f'{name}.{kind}'][:, None, None] for kind in ('weight', 'bias'))
        return normalize(x, (0, 2, 3), weight, bias)

    def mlp(self, name, axis, x):
        """Matrices along one axis of a map, named by its letter in bchw."""
        for i in (1, 2):
            matrix, bias = self.params[f'{name}.fc{i}.weight'], self.params[f'{name}.fc{i}.bias']
            out = 'bchw'.replace(axis, 'o')
            matrix = matrix.reshape(matrix.shape[:2])
            x = np.einsum(f'oi,{"bchw".replace(axis, "i")}->{out}', matrix, x)
            x += bias.reshape([-1 if letter == 'o' else 1 for letter in out])
            if i == 1:
                x = gelu(x)
        return x

    def fnet2d(self, x):
        mixed = np.fft.fft(np.fft.fft2(x), axis=1).real / math.sqrt(np.prod(x.shape[1:]))
        return x + self.mlp('mlp', 'c', self.batch_norm('norm', mixed))

    def mlp_mixer2d(self, x):
        weight, bias = self.params['norm_height.weight'], self.params['norm_height.bias']
        y = self.mlp('mlp_height', 'h', normalize(x, 2, weight[:, None], bias[:, None]))
        weight, bias = self.params['norm_width.weight'], self.params['norm_width.bias']
        y = self.mlp('mlp_width', 'w', normalize(y, 3, weight, bias))
        return x + self.mlp('mlp', 'c', self.batch_norm('norm', y))


@given(dim=st.integers(1, 6), height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize('block', ['fnet2d', 'mlp_mixer2d'])
def test_blocks_are_those_of_the_paper(block, dim, height, width, seed):
    torch.manual_seed(seed)
    module = FNet2dBlock(dim) if block == 'fnet2d' else MlpMixer2dBlock(dim, (height, width))
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randn(3, dim, height, width, dtype=torch.float64)
    expected = getattr(Oracle(module), block)(x.numpy())
    # a norm of few equal values amplifies rounding
    torch.testing.assert_close(module.double().train()(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_mixer_has_the_size_of_its_config_until_told_otherwise():
    model = timm.create_model('mlp_mixer2d_64_5')
    assert model.pretrained_cfg['fixed_input_size']
    assert (model.blocks[0].height, model.blocks[0].width) == model.pretrained_cfg['input_size'][1:] == (32, 32)
    model = timm.create_model('mlp_mixer2d_64_5', pretrained_cfg_overlay=dict(input_size=(3, 28, 24)))
    assert model(images(1, 3, 28, 24)).shape == (1, 10)
    with pytest.raises(AssertionError, match=r'a map of 32x32, the MLPs take 28x24'):
        model(images(1, 3, 32, 32))


def test_sums_over_a_large_bright_map_stay_in_the_range_of_float16():
    block, x = FNet2dBlock(128), torch.full((1, 128, 64, 64), 50.)
    assert torch.fft.fftn(x, dim=(1, 2, 3)).real.max() > torch.finfo(torch.float16).max
    block.norm = block.mlp = torch.nn.Identity()
    mixed = block(x.half())
    assert mixed.dtype == torch.float16
    torch.testing.assert_close(mixed.float(), block(x), rtol=1e-3, atol=1e-1)


def test_the_imaginary_part_is_not_kept_for_the_backward_pass():
    block, x = FNet2dBlock(8).train(), torch.randn(2, 8, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        block(x)
    assert kept and all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in kept)


def test_weights_for_another_size_are_named(tmp_path):
    torch.save(timm.create_model('mlp_mixer2d_64_5').state_dict(), tmp_path / 'weights.pth')
    overlay = dict(file=str(tmp_path / 'weights.pth'))
    timm.create_model('mlp_mixer2d_64_5', pretrained=True, pretrained_cfg_overlay=overlay)
    with pytest.raises(RuntimeError, match=r'blocks\.0\.norm_height\.weight'):
        timm.create_model('mlp_mixer2d_64_5', pretrained=True, pretrained_cfg_overlay=overlay, img_size=28)
