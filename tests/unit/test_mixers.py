"""2-D FNet and 2-D MLP-Mixer: against their blocks written out with NumPy and einsum, and through timm's surface."""
import copy
import math

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wavemix import create, images
from timm.optim import param_groups_layer_decay

from timm_wavemix.mixers import FNet2dBlock, MlpMixer2dBlock

SIZE = (12, 10)
SMALL = {  # one model of each block, small enough to run in every test
    'fnet': dict(model_name='fnet2d_64_5', dim=8, depth=3, num_classes=10),
    'mixer': dict(model_name='mlp_mixer2d_64_5', dim=8, depth=3, num_classes=10, img_size=SIZE),
}


@pytest.fixture(params=SMALL)
def kwargs(request):
    return dict(SMALL[request.param])


# The paper's forward pass, in NumPy, from the parameters of a model and nothing else of it.

def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def normalize(x, axes, weight, bias, eps=1e-5):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


class Oracle:
    """The blocks by their formulas, batch norms with the statistics of the batch."""

    def __init__(self, model):
        self.params = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}

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

    def fnet2d(self, name, x):
        mixed = np.fft.fft(np.fft.fft2(x), axis=1).real / math.sqrt(np.prod(x.shape[1:]))
        return x + self.mlp(f'{name}.mlp', 'c', self.batch_norm(f'{name}.norm', mixed))

    def mlp_mixer2d(self, name, x):
        weight, bias = self.params[f'{name}.norm_height.weight'], self.params[f'{name}.norm_height.bias']
        y = self.mlp(f'{name}.mlp_height', 'h', normalize(x, 2, weight[:, None], bias[:, None]))
        weight, bias = self.params[f'{name}.norm_width.weight'], self.params[f'{name}.norm_width.bias']
        y = self.mlp(f'{name}.mlp_width', 'w', normalize(y, 3, weight, bias))
        return x + self.mlp(f'{name}.mlp', 'c', self.batch_norm(f'{name}.norm', y))


def randomize(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@given(dim=st.integers(1, 6), height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize('block', ['fnet2d', 'mlp_mixer2d'])
def test_blocks_are_those_of_the_paper(block, dim, height, width, seed):
    module = FNet2dBlock(dim) if block == 'fnet2d' else MlpMixer2dBlock(dim, (height, width))
    model = randomize(torch.nn.Sequential(module)).double().train()
    x = torch.randn(3, dim, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = getattr(Oracle(model), block)('0', x.numpy())
    # a norm of few equal values amplifies rounding
    torch.testing.assert_close(model(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('block', ['fnet2d', 'mlp_mixer2d'])
def test_models_are_stem_blocks_pooling_and_classifier(block):
    model = timm.create_model(f'{block}_64_5', dim=8, num_classes=10, proj_drop_rate=0., img_size=SIZE) \
        if block == 'mlp_mixer2d' else timm.create_model(f'{block}_64_5', dim=8, num_classes=10, proj_drop_rate=0.)
    model = randomize(model).double().train()
    oracle, x = Oracle(model), images(2, 3, *SIZE).double()
    expected = x
    for i in (0, 1):
        expected = F.conv2d(expected, model.stem[i].weight, model.stem[i].bias, padding=1)
    expected = expected.detach().numpy()
    for i in range(5):
        expected = getattr(oracle, block)(f'blocks.{i}', expected)
    expected = F.linear(torch.from_numpy(expected).mean((2, 3)), model.head.fc.weight, model.head.fc.bias)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('block', [FNet2dBlock(3), MlpMixer2dBlock(3, (4, 5))], ids=['fnet', 'mixer'])
def test_gradients_are_those_of_finite_differences(block):
    block = randomize(block).double().train()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)


def test_dropout_is_in_every_mlp(kwargs):
    for overrides, rate in ({}, 0.), ({'proj_drop_rate': 0.2}, 0.2):
        model = timm.create_model(**kwargs, **overrides)
        rates = [m.p for m in model.blocks.modules() if isinstance(m, torch.nn.Dropout)]
        assert rates == [rate] * (2 if 'fnet' in kwargs['model_name'] else 6) * 3


def test_model_keywords_reach_their_layers(kwargs):
    model = timm.create_model(
        in_chans=1, drop_rate=0.1, drop_path_rate=0.3, act_layer='relu', norm_layer='groupnorm1',
        global_pool='catavgmax', **kwargs)
    assert model(images(2, 1, *SIZE)).shape == (2, 10)
    assert model.head.drop.p == 0.1
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.3)
    names = {type(m).__name__ for m in model.modules()}
    assert {'ReLU', 'GroupNorm1'} <= names and not {'GELU', 'BatchNorm2d'} & names


# Sizes

@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(deadline=None, max_examples=20)
def test_fnet_takes_every_size(size):
    features = create(**SMALL['fnet']).forward_features(images(1, 3, *size))
    assert features.shape[2:] == size and features.isfinite().all()


@given(size=st.tuples(st.integers(2, 40), st.integers(2, 40)), stem_stride=st.integers(1, 2))
@settings(deadline=None, max_examples=20)
def test_mixer_takes_the_size_that_it_is_made_for_and_no_other(size, stem_stride):
    model = create(**{**SMALL['mixer'], 'img_size': size}, stem_stride=stem_stride)
    features = model.forward_features(images(1, 3, *size))
    assert features.shape[2:] == tuple(math.ceil(side / stem_stride ** 2) for side in size)
    with pytest.raises(AssertionError, match='create the model with the img_size of your images, or resize them'):
        model(images(1, 3, size[0], size[1] + 5))


def test_mixer_has_the_size_of_its_config_until_told_otherwise():
    model = timm.create_model('mlp_mixer2d_64_5')
    assert model.pretrained_cfg['fixed_input_size']
    assert (model.blocks[0].height, model.blocks[0].width) == model.pretrained_cfg['input_size'][1:] == (32, 32)
    model = timm.create_model('mlp_mixer2d_64_5', pretrained_cfg_overlay=dict(input_size=(3, 28, 24)))
    assert model(images(1, 3, 28, 24)).shape == (1, 10)
    with pytest.raises(AssertionError, match=r'a map of 32x32, the MLPs take 28x24'):
        model(images(1, 3, 32, 32))


# timm's surface

def test_device_and_dtype(kwargs):
    model = timm.create_model(device='meta', dtype=torch.bfloat16, **kwargs)
    model.reset_classifier(3)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {('meta', torch.bfloat16)}
    assert model(images(2, 3, *SIZE).to('meta', torch.bfloat16)).shape == (2, 3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.recent_torch)])
def test_half_precision(kwargs, dtype):
    model, x = create(**kwargs), 1 + images(2, 3, *SIZE)
    with torch.autocast('cpu', dtype):
        actual = model(x)
    torch.testing.assert_close(actual.float(), model(x), rtol=0.1, atol=0.1)
    actual = copy.deepcopy(model).to(dtype)(x.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), model(x), rtol=0.1, atol=0.1)


def test_sums_over_a_large_bright_map_stay_in_the_range_of_float16():
    block, x = FNet2dBlock(128), torch.full((1, 128, 64, 64), 50.)
    assert torch.fft.fftn(x, dim=(1, 2, 3)).real.max() > torch.finfo(torch.float16).max
    block.norm = block.mlp = torch.nn.Identity()
    mixed = block(x.half())
    assert mixed.dtype == torch.float16
    torch.testing.assert_close(mixed.float(), block(x), rtol=1e-3, atol=1e-1)


def test_channels_last_stays(kwargs):
    model = create(proj_drop_rate=0., **kwargs).train()
    x = images(2, 3, *SIZE)
    expected = copy.deepcopy(model)(x)
    model = model.to(memory_format=torch.channels_last)
    formats = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda module, args, y: formats.append(y.is_contiguous(memory_format=torch.channels_last)) and None)
    actual = model(x.contiguous(memory_format=torch.channels_last))
    assert formats == [True] * 3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_grad_checkpointing_saves_less_and_changes_no_gradient(kwargs):
    x, grads, saved = images(2, 3, *SIZE), [], []
    for enable in (False, True):
        model = create(proj_drop_rate=0., **kwargs).train()
        model.set_grad_checkpointing(enable)
        sizes = {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = model(x)
        y.square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
        saved.append(sum(sizes.values()))
    assert saved[1] < saved[0]
    for plain, checkpointed in zip(*grads):
        torch.testing.assert_close(plain, checkpointed)


def test_the_imaginary_part_is_not_kept_for_the_backward_pass():
    block, x = FNet2dBlock(8).train(), torch.randn(2, 8, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        block(x)
    assert kept and all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in kept)


def test_layer_decay_gives_each_block_its_own_scale(kwargs):
    scales = {group['lr_scale'] for group in param_groups_layer_decay(timm.create_model(**kwargs), layer_decay=0.5)}
    assert len(scales) == 1 + 3 + 1  # stem, blocks, head


def test_features_only_gives_the_last_three_maps(kwargs):
    model = timm.create_model(features_only=True, **{k: v for k, v in kwargs.items() if k != 'num_classes'})
    assert [tuple(m.shape) for m in model(images(2, 3, *SIZE))] == [(2, 8, *SIZE)] * 3


def test_torchscript_survives_a_file(kwargs, tmp_path):
    model, x = create(scriptable=True, **kwargs), images(2, 3, *SIZE)
    torch.jit.script(model).save(tmp_path / 'model.pt')
    torch.testing.assert_close(torch.jit.load(tmp_path / 'model.pt')(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.recent_torch
def test_compile_has_no_graph_break_and_a_dynamic_batch(kwargs):
    model = create(proj_drop_rate=0., **{**kwargs, 'depth': 1}).train()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager', dynamic=True)
    for batch in (2, 3, 5):
        x = images(batch, 3, *SIZE)
        torch.testing.assert_close(compiled(x), copy.deepcopy(model)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.recent_torch
def test_export_with_a_dynamic_batch(kwargs):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    x = images(3, 3, *SIZE)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.recent_torch
def test_onnx(kwargs, tmp_path):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    torch.onnx.export(model, (x,), tmp_path / 'model.onnx', dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / 'model.onnx')
    actual, = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_weights_for_another_size_are_named(tmp_path):
    torch.save(timm.create_model('mlp_mixer2d_64_5').state_dict(), tmp_path / 'weights.pth')
    overlay = dict(file=str(tmp_path / 'weights.pth'))
    timm.create_model('mlp_mixer2d_64_5', pretrained=True, pretrained_cfg_overlay=overlay)
    with pytest.raises(RuntimeError, match=r'blocks\.0\.norm_height\.weight'):
        timm.create_model('mlp_mixer2d_64_5', pretrained=True, pretrained_cfg_overlay=overlay, img_size=28)
