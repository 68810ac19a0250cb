"""The models: against the blocks of the papers written out with pytorch_wavelets, and through timm's surface."""
import copy
import sys
from functools import partial

import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_wavelets import DWTForward
from timm.layers import set_layer_config
from timm.optim import param_groups_layer_decay
from timm.utils.model import reparameterize_model
from torch.nn.utils import parametrizations, prune

from conftest import create, images
from scripts.benchmarks.common.memory import saved_bytes
from timm_wavemix.layers import OverlapAddConvTranspose2d, WaveletConv2d

PARAM_COUNTS = {  # with 10 classes, the figures of the paper's table 1 unrounded, and those of the authors' README
    'wavemix_16_5': 182_442,
    'wavemix_32_5': 723_018,
    'wavemix_64_5': 2_878_602,
    'wavemix_lite_8_5': 7_156,
    'wavemix_lite_8_10': 3_566,
    'wavemix_lite_32_7': 37_058,
    'wavemix_lite_64_6': 520_106,
    'wavemix_lite_128_7': 2_404_970,
    'wavemix_lite_256_7': 9_602_250,
    'wavemix_lite_256_7_s2': 9_602_250,
    'fnet2d_64_5': 103_562,
    'fnet2d_128_5': 407_818,
    'mlp_mixer2d_64_5': 146_122,
    'mlp_mixer2d_128_5': 450_378,
}
SIZE = 13, 11
SMALL = {  # one model of each block, small enough to run in every test
    'wavemix': dict(model_name='wavemix_16_5', depth=3, num_classes=10),
    'lite': dict(model_name='wavemix_lite_128_7', dim=16, depth=3, num_classes=10),
    'bilinear': dict(model_name='wavemix_lite_32_7', dim=16, depth=3, num_classes=10),
    'cascade': dict(model_name='wavemix_192_16_l3_p4', dim=16, depth=3, patch_size=1, num_classes=10),
    'fnet': dict(model_name='fnet2d_64_5', dim=16, depth=3, num_classes=10),
    'mixer': dict(model_name='mlp_mixer2d_64_5', dim=16, depth=3, num_classes=10, img_size=SIZE),
}
WITH_WAVELETS = [name for name in SMALL if name not in ('fnet', 'mixer')]


@pytest.fixture(params=SMALL)
def kwargs(request):
    return dict(SMALL[request.param])


with_wavelets = pytest.mark.parametrize('kwargs', WITH_WAVELETS, indirect=True)


# The papers' forward pass, from the parameters of a model and nothing else of it.

def dwt(x, wavelet='db1'):
    mode = 'zero' if wavelet == 'db1' else 'periodization'
    ll, (highs,) = DWTForward(J=1, wave=wavelet, mode=mode).to(x)(x)
    return ll, torch.cat([ll, *highs.unbind(2)], 1)


def conv(params, name, x, **kwargs):
    return F.conv2d(x, params[f'{name}.weight'], params[f'{name}.bias'], **kwargs)


def up(params, name, x, stride, size):
    if f'{name}.weight' not in params:
        x = F.interpolate(x, scale_factor=stride, mode='bilinear')
    else:
        x = F.conv_transpose2d(x, params[f'{name}.weight'], params[f'{name}.bias'], stride=stride, padding=1)
    return x[..., :size[0], :size[1]]


def norm(params, name, x, training):
    stats = params[f'{name}.running_mean'].clone(), params[f'{name}.running_var'].clone()
    return F.batch_norm(x, *stats, params[f'{name}.weight'], params[f'{name}.bias'], training)


def paper_wavemix_block(params, name, x, training, wavelet):
    ll, outs = x, []
    for level in range(4):
        ll, coeffs = dwt(ll, wavelet)
        hidden = F.gelu(conv(params, f'{name}.mlps.{level}.fc1', coeffs))
        out = conv(params, f'{name}.mlps.{level}.fc2', hidden)
        outs.append(up(params, f'{name}.ups.{level}', out, 2 ** (level + 1), x.shape[2:]))
    y = conv(params, f'{name}.conv_dw', torch.cat(outs, 1), padding=2, groups=x.shape[1])
    return x + norm(params, f'{name}.norm', F.gelu(y), training)


def paper_lite_block(params, name, x, training, wavelet):
    _, coeffs = dwt(conv(params, f'{name}.conv_pw', x), wavelet)
    hidden = F.gelu(conv(params, f'{name}.mlp.fc1', coeffs))
    y = up(params, f'{name}.up', conv(params, f'{name}.mlp.fc2', hidden), 2, x.shape[2:])
    return x + norm(params, f'{name}.norm', y, training)


def paper_cascade_block(params, name, x, training, wavelet):
    lls, coeffs, y = [conv(params, f'{name}.conv_pw', x)], [], None
    for _ in range(3):
        ll, stacked = dwt(lls[-1], wavelet)
        lls.append(ll)
        coeffs.append(stacked)
    for i, level in enumerate([2, 1, 0]):
        stacked = coeffs[level] if i == 0 else torch.cat([coeffs[level], y], 1)
        y = conv(params, f'{name}.mlps.{i}.fc2', F.gelu(conv(params, f'{name}.mlps.{i}.fc1', stacked)))
        y = norm(params, f'{name}.norms.{i}', up(params, f'{name}.ups.{i}', y, 2, lls[level].shape[2:]), training)
    return x + y


def paper_forward(model, x, wavelet='db1'):
    params = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    block = {
        'WaveMixBlock': paper_wavemix_block, 'WaveMixLiteBlock': paper_lite_block,
        'WaveMixCascadeBlock': paper_cascade_block}[type(model.blocks[0]).__name__]
    x = conv(params, 'stem.1', conv(params, 'stem.0', x, padding=1), padding=1)
    if 'stem.2.weight' in params:
        x = conv(params, 'stem.2', x, stride=params['stem.2.weight'].shape[-1])
        x = norm(params, 'stem.4', F.gelu(x), model.training)
    for i in range(len(model.blocks)):
        x = block(params, f'blocks.{i}', x, model.training, wavelet)
    return F.linear(x.mean((2, 3)), params['head.fc.weight'], params['head.fc.bias'])


@with_wavelets
@pytest.mark.parametrize('size', [(32, 32), (28, 28), (33, 47), (5, 2), (1, 1)])
def test_logits_are_those_of_the_paper(kwargs, size):
    model = create(**kwargs)
    x = images(2, 3, *size)
    torch.testing.assert_close(model(x), paper_forward(model, x), rtol=1e-4, atol=1e-4)


@with_wavelets
def test_training_gradients_are_those_of_the_paper(kwargs):
    model = create(proj_drop_rate=0., **kwargs).double().train()
    expected = create(proj_drop_rate=0., **kwargs).double().train()
    x = images(4, 3, 15, 18).double()
    model(x).square().sum().backward()
    paper_forward(expected, x).square().sum().backward()
    # a bias before a batch norm has no gradient but rounding, so small ones are held to the scale of the largest
    scale = max(param.grad.abs().max().item() for param in expected.parameters())
    for actual, param in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(actual.grad, param.grad, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize('name', PARAM_COUNTS)
def test_parameter_counts(name):
    model = timm.create_model(name, num_classes=10, device='meta')
    assert sum(p.numel() for p in model.parameters()) == PARAM_COUNTS[name]


def test_every_registered_model_has_a_count():
    official = {name for name in timm.list_models(module='wavemix') if timm.get_pretrained_cfg(name).hf_hub_id}
    assert set(timm.list_models(module='wavemix')) - official == set(PARAM_COUNTS)  # theirs are in test_official.py
    assert timm.list_models(module='mixers') == []


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize('block', [*WITH_WAVELETS, 'fnet'])
def test_every_size_keeps_its_map(block, size):
    model = create(depth=1, **{k: v for k, v in SMALL[block].items() if k != 'depth'})
    features = model.forward_features(images(1, 3, *size))
    assert features.shape[2:] == size
    assert features.isfinite().all()


@given(dim=st.integers(2, 20).map(lambda n: 2 * n), levels=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_channels_that_levels_do_not_divide(dim, levels):
    assume(levels <= dim)
    model = timm.create_model('wavemix_16_5', dim=dim, depth=1, levels=levels)
    assert sum(up.out_channels for up in model.blocks[0].ups) == dim
    assert model.forward_features(images(1, 3, 9, 9)).shape == (1, dim, 9, 9)


@pytest.mark.parametrize('in_channels, out_channels', [(3, 1), (3, 5), (17, 4)])  # the last is reparameterized as it is
@pytest.mark.parametrize('stride', [2, 3, 8, 16])
@pytest.mark.parametrize('size', [(4, 5), (1, 1), (1, 3)])
def test_overlap_add_is_a_transposed_convolution(in_channels, out_channels, stride, size):
    up = OverlapAddConvTranspose2d(in_channels, out_channels, stride).double()
    x = images(2, in_channels, *size).double().requires_grad_()
    expected = F.conv_transpose2d(x, up.weight, up.bias, stride=stride, padding=1)
    wanted = torch.autograd.grad(expected.square().sum(), (x, up.weight, up.bias))
    for layer in (up, up.fuse()):
        assert expected.shape[2:] == (size[0] * stride, size[1] * stride)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(up(x).square().sum(), (x, up.weight, up.bias)), wanted)


def test_stem_strides_bring_256_pixels_to_64():
    model = timm.create_model('wavemix_lite_256_7_s2', depth=1, device='meta')
    assert model.forward_features(images(1, 3, 256, 256).to('meta')).shape == (1, 256, 64, 64)
    assert model.feature_info[0]['reduction'] == 4


@pytest.mark.parametrize('size, map_size', [((32, 32), (8, 8)), ((4, 7), (1, 1)), ((30, 41), (7, 10))])
def test_patches_reduce_the_map_and_leave_out_what_fills_none(size, map_size):
    model = create(**{**SMALL['cascade'], 'patch_size': 4})
    x = images(2, 3, *size)
    assert model.forward_features(x).shape[2:] == map_size
    assert model.feature_info[0]['reduction'] == 4
    torch.testing.assert_close(model(x), paper_forward(model, x), rtol=1e-4, atol=1e-4)


@with_wavelets
@pytest.mark.parametrize('wavelet', ['db2', 'bior2.2'])
def test_another_wavelet_shares_the_weights(kwargs, wavelet):
    haar, other = create(**kwargs), create(wavelet=wavelet, **kwargs)
    other.load_state_dict(haar.state_dict())
    x = images(2, 3, 64, 96)  # at level 4 still as long as the filters
    torch.testing.assert_close(other(x), paper_forward(haar, x, wavelet), rtol=1e-4, atol=1e-4)
    other.train()(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in other.parameters())


def test_model_keywords_reach_their_layers(kwargs):
    model = timm.create_model(
        in_chans=1, drop_rate=0.1, drop_path_rate=0.3, act_layer='relu', norm_layer='groupnorm1',
        global_pool='catavgmax', **kwargs)
    assert model(images(2, 1, *SIZE)).shape == (2, 10)
    assert model.head.drop.p == 0.1
    assert model.head.fc.in_features == model.head_hidden_size == 2 * model.num_features
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.3)
    names = {type(m).__name__ for m in model.modules()}
    assert {'ReLU', 'GroupNorm1'} <= names and not {'GELU', 'BatchNorm2d'} & names


@pytest.mark.parametrize('block, rates', [
    ('wavemix', [0.2, 0.2] * 4), ('lite', [0.2, 0.]), ('cascade', [0.2, 0.] * 3),  # figure 2 has one dropout
    ('fnet', [0.2] * 2), ('mixer', [0.2] * 6)])
def test_mlp_dropout(block, rates):
    for overrides, expected in ({}, [0.] * len(rates)), (dict(proj_drop_rate=0.2), rates):
        model = timm.create_model(**SMALL[block], **overrides)
        assert [m.p for m in model.blocks[0].modules() if isinstance(m, torch.nn.Dropout)] == expected


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_maps_and_gradients_keep_their_memory_format(kwargs, memory_format):
    model, x = create(**kwargs).train(), images(2, 3, *SIZE)
    expected = copy.deepcopy(model)(x)
    model, same = model.to(memory_format=memory_format), []
    for block in model.blocks:
        block.register_forward_hook(
            lambda module, args, y: same.append(y.is_contiguous(memory_format=memory_format)) and None)
        block.register_forward_pre_hook(
            lambda module, args: args[0].register_hook(
                lambda grad: same.append(grad.stride() == args[0].stride())) and None)
    actual = model(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    actual.sum().backward()
    assert same == [True] * 2 * len(model.blocks)


@pytest.mark.parametrize('training, act_layer', [(True, 'gelu'), (False, 'gelu'), (False, 'identity')])
def test_hooks_see_every_layer_and_what_they_see_stays(kwargs, training, act_layer):
    model, x = create(act_layer=act_layer, **kwargs).train(training), images(2, 3, *SIZE)
    with torch.inference_mode():
        plain = copy.deepcopy(model)(x)
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, args, y, name=name: seen.update({name: (y, y.clone())}) and None)
    with torch.set_grad_enabled(training):
        y = model(x)
    unseen = [name for name, _ in model.named_modules() if name not in seen]
    assert all(isinstance(model.get_submodule(name), torch.nn.ModuleList) for name in unseen)
    assert all(torch.equal(kept, copied) for kept, copied in seen.values())
    torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.recent_torch
def test_backward_hooks_of_every_layer(kwargs):
    model, called = create(**kwargs).train(), set()
    for name, module in model.named_modules():
        module.register_full_backward_hook(lambda *args, name=name: called.add(name))
    model(images(2, 3, *SIZE)).sum().backward()
    assert {name for name, p in model.named_modules() if list(p.parameters(recurse=False))} <= called


@pytest.mark.parametrize('checkpointing, name, share', [
    (False, 'wavemix_16_5', 0.08), (False, 'wavemix_64_5', 0.31), (False, 'wavemix_lite_128_7', 0.61),
    (True, 'wavemix_16_5', 0.016), (True, 'wavemix_64_5', 0.06), (True, 'wavemix_lite_128_7', 0.16),
    (True, 'wavemix_lite_256_7', 0.32)])
def test_training_keeps_a_share_of_what_a_resnet50_keeps(checkpointing, name, share):
    resnet50 = 1557 * 2 ** 20 / 64  # bytes an image of 32x32 in fp32, with a 3x3 stem of stride 1 and no max-pool
    model, batch = timm.create_model(name, pretrained=False), 16
    model.set_grad_checkpointing(checkpointing)
    assert saved_bytes(model, images(batch, 3, 32, 32)) / batch <= share * resnet50


def test_device_and_dtype(kwargs):
    model = timm.create_model(device='meta', dtype=torch.bfloat16, **kwargs)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {('meta', torch.bfloat16)}
    model.reset_classifier(0)  # leaves no classifier to take them from
    model.reset_classifier(3)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {('meta', torch.bfloat16)}
    assert model(images(2, 3, *SIZE).to('meta', torch.bfloat16)).shape == (2, 3)


def test_grad_checkpointing_saves_less_and_changes_no_gradient(kwargs):
    x, grads, saved = images(2, 3, *SIZE), [], []
    for enable in (False, True):
        model = create(proj_drop_rate=0., **kwargs).train()
        model.set_grad_checkpointing(enable)
        saved.append(saved_bytes(model, x))
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert saved[1] < saved[0]
    for plain, checkpointed in zip(*grads):
        torch.testing.assert_close(plain, checkpointed)


def test_reparameterized_model_is_the_same(kwargs):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    fused = reparameterize_model(model)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, (WaveletConv2d, OverlapAddConvTranspose2d)) for m in fused.modules())


@pytest.mark.parametrize('kwargs', [SMALL['wavemix'], dict(SMALL['lite'], dim=8)], ids=['wavemix', 'lite'])
def test_only_the_form_that_runs_in_torch_has_more_weights_for_speed(kwargs):
    plain, exportable = create(**kwargs), create(exportable=True, **kwargs)
    exportable.load_state_dict(plain.state_dict())
    with set_layer_config(exportable=True):
        in_a_file = reparameterize_model(plain)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(reparameterize_model(plain)) > count(in_a_file) >= count(reparameterize_model(exportable))


@pytest.mark.parametrize('block', ['lite', 'cascade'])
def test_reparameterization_folds_every_batch_norm_of_a_block_and_leaves_other_norms_alone(block):
    fused = reparameterize_model(create(**SMALL[block]))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.blocks.modules())
    assert all(p.is_leaf for p in fused.parameters())
    model, x = create(norm_layer='groupnorm1', **SMALL[block]), images(2, 3, 8, 8)
    assert torch.equal(reparameterize_model(model)(x), model(x))


def test_layer_decay_gives_each_block_its_own_scale(kwargs):
    model = timm.create_model(**kwargs)
    scales = {group['lr_scale'] for group in param_groups_layer_decay(model, layer_decay=0.5)}
    assert len(scales) == 1 + len(model.blocks) + 1  # stem, blocks, head


def test_prune_keeps_what_the_intermediates_need(kwargs):
    model = create(**kwargs)
    x = images(1, 3, *SIZE)
    expected = model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1]) == [0, 1]
    assert len(model.blocks) == 2 and model.num_classes == 0
    for a, b in zip(model.forward_intermediates(x, intermediates_only=True), expected):
        assert torch.equal(a, b)


def test_features_only_gives_the_last_three_maps(kwargs):
    model = timm.create_model(features_only=True, **{k: v for k, v in kwargs.items() if k != 'num_classes'})
    assert [tuple(m.shape) for m in model(images(2, 3, *SIZE))] == [(2, 16, *SIZE)] * 3
    assert model.feature_info.reduction() == [1, 1, 1]


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.recent_torch)])
def test_half_precision(kwargs, dtype):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    expected = model(x)
    with torch.autocast('cpu', dtype):
        torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.2)
    actual = model.to(dtype)(x.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, rtol=0.1, atol=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_equals_cpu(kwargs):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    expected = model(x)
    torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.recent_torch
@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_compile_has_no_graph_break_and_a_dynamic_batch(kwargs, backend):
    torch._dynamo.reset()
    model = create(proj_drop_rate=0., **{**kwargs, 'depth': 1}).train()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (2, 3, 5):
        x = images(batch, 3, *SIZE)
        torch._dynamo.mark_dynamic(x, 0)
        with torch.compiler.set_stance('default' if batch == 2 else 'fail_on_recompile'):
            actual = compiled(x)
        torch.testing.assert_close(actual, eager(x), rtol=1e-4, atol=1e-4)
    actual.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())

    model.eval(), eager.eval()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), eager(x), rtol=1e-4, atol=1e-4)


def test_torchscript_survives_a_file_and_deployment(kwargs, tmp_path):
    model, x = create(scriptable=True, **kwargs), images(2, 3, *SIZE)
    for form in model, reparameterize_model(model):
        torch.jit.script(form).save(tmp_path / 'model.pt')
        torch.testing.assert_close(torch.jit.load(tmp_path / 'model.pt')(x), model(x), rtol=1e-5, atol=1e-5)


@with_wavelets
def test_a_trace_holds_for_other_sizes(kwargs):
    model = create(**{**kwargs, 'depth': 1})
    traced = torch.jit.trace(model, images(2, 3, 28, 28))
    x = images(3, 3, 25, 17)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.recent_torch
@pytest.mark.parametrize('kwargs', ['fnet', 'mixer'], indirect=True)  # test_tools.py has the others
def test_export_with_a_dynamic_batch(kwargs):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    x = images(3, 3, *SIZE)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.recent_torch
def test_onnx(kwargs, tmp_path):
    model, x = create(**{**kwargs, 'depth': 1}), images(2, 3, *SIZE)
    torch.onnx.export(model, (x,), tmp_path / 'model.onnx', dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / 'model.onnx')
    actual, = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), model(x).detach(), rtol=1e-4, atol=1e-4)


# Arguments

@pytest.mark.parametrize('kwargs', [
    dict(model_name='wavemix_16_5', levels=0), dict(model_name='wavemix_16_5', dim=4, levels=5),
    dict(model_name='wavemix_lite_128_7', levels=2), dict(model_name='wavemix_256_16_l4', levels=0),
    dict(model_name='wavemix_lite_32_7', ff_dim=48), dict(model_name='wavemix_lite_32_7', upsample='billinear'),
    dict(model_name='wavemix_16_5', block_type='lit')], ids=str)
def test_impossible_blocks_are_refused(kwargs):
    with pytest.raises(AssertionError):
        timm.create_model(**kwargs)


def test_a_block_type_comes_as_a_string():
    model = timm.create_model('wavemix_16_5', block_type='lite', levels=1)
    expected = timm.create_model('wavemix_lite_128_7', dim=16, depth=5)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}


def test_ff_dim_is_the_width_between_mlp_and_transposed_convolution():
    # Lite-112/16 of the later paper: `ff_channel=192, final_dim=112` in the authors' package
    block = timm.create_model('wavemix_lite_128_7', dim=112, ff_dim=192, depth=1, device='meta').blocks[0]
    shapes = [tuple(layer.weight.shape) for layer in (block.mlp.fc1, block.mlp.fc2, block.up)]
    assert shapes == [(384, 112, 1, 1), (192, 384, 1, 1), (192, 112, 4, 4)]


@given(
    size=st.tuples(st.integers(2, 40), st.integers(2, 40)), strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.none() | st.integers(1, 2))
@settings(deadline=None, max_examples=20)
def test_a_pair_of_stem_strides_and_the_map_that_mlps_are_made_for(size, strides, patch):
    sides = tuple(-(-side // (strides[0] * strides[1])) // (patch or 1) for side in size)
    assume(min(sides) > 0)
    model = create(
        model_name='mlp_mixer2d_64_5', dim=4, depth=1, stem_stride=strides, patch_size=patch, img_size=size)
    assert model.forward_features(images(1, 3, *size)).shape[2:] == sides
    assert model.feature_info[0]['reduction'] == strides[0] * strides[1] * (patch or 1)


def test_missing_wavelet_extra_is_named_when_the_model_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pywt', None)
    with pytest.raises(ImportError, match='PyWavelets'):
        timm.create_model('wavemix_16_5', wavelet='db2')


@pytest.mark.parametrize('name, keyword', [
    ('wavemix_16_5', 'window_size'), ('fnet2d_64_5', 'wavelet'), ('wavemix_16_5', 'upsample')])
def test_a_keyword_that_a_block_does_not_know_is_named(name, keyword):
    with pytest.raises(TypeError, match=keyword):
        timm.create_model(name, **{keyword: 'haar'})


def test_weights_of_haar_are_not_loaded_into_another_wavelet():
    with pytest.raises(ValueError, match='haar'):
        timm.create_model('wavemix_16_5', pretrained=True, wavelet='db2')


# Weights

def test_a_checkpoint_of_two_models_is_refused(tmp_path):
    state = create(**SMALL['lite']).state_dict()
    torch.save({f'{name}.{k}': v for name in ('student', 'teacher') for k, v in state.items()}, tmp_path / 'last.pth')
    with pytest.raises(ValueError, match=r'student\.stem.*teacher\.stem'):
        timm.create_model(
            pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'last.pth')), **SMALL['lite'])


@pytest.mark.parametrize('other, kwargs, error, named', [
    *((dict(model_name='resnet10t'), kwargs, ValueError, r'conv1\.0\.weight')  # of features, timm would load what fits
      for kwargs in ({}, dict(in_chans=1), dict(features_only=True))),
    (SMALL['lite'], {}, RuntimeError, r'blocks\.0\.mlps\.0\.fc1\.weight'),
], ids=str)
def test_weights_of_another_model_are_refused_and_named(tmp_path, other, kwargs, error, named):
    torch.save(timm.create_model(**other).state_dict(), tmp_path / 'other.pth')
    overlay = dict(file=str(tmp_path / 'other.pth'))
    with pytest.raises(error, match=named):
        timm.create_model('wavemix_16_5', pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)


@with_wavelets
@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
@pytest.mark.parametrize('deploy', [False, True], ids=['plain', 'deployed'])
def test_no_layer_holds_what_a_checkpoint_lacks(kwargs, deploy, wavelet):
    def build(**extra):
        model = create(wavelet=wavelet, **kwargs, **extra)
        return reparameterize_model(model) if deploy else model

    expected, x = build(), images(2, 3, *SIZE)
    with torch.device('meta'):
        assigned = build()
    emptied = copy.deepcopy(assigned).to_empty(device='cpu')
    assigned.load_state_dict(expected.state_dict(), assign=True)
    emptied.load_state_dict(expected.state_dict())
    for model in (assigned, emptied):
        assert torch.equal(model.eval()(x), expected(x))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_the_deployed_form_keeps_device_and_dtype(kwargs, dtype):
    deployed = reparameterize_model(create(**kwargs).to(dtype))
    assert {t.dtype for t in deployed.state_dict().values() if t.is_floating_point()} == {dtype}
    assert deployed(images(2, 3, *SIZE).to(dtype)).dtype == dtype
    deployed = reparameterize_model(timm.create_model(device='meta', **kwargs))
    assert {t.device.type for t in deployed.state_dict().values()} == {'meta'}


@pytest.mark.parametrize('change', [
    partial(prune.l1_unstructured, name='weight', amount=0.5), parametrizations.weight_norm,
    parametrizations.spectral_norm], ids=['pruned', 'weight_norm', 'spectral_norm'])
def test_layers_whose_weight_is_computed_can_be_deployed(kwargs, change):
    model, x = create(**kwargs), images(2, 3, *SIZE)
    for module in list(model.modules()):
        if type(module) in (torch.nn.Conv2d, torch.nn.ConvTranspose2d):
            change(module)
    with torch.no_grad():  # with gradients, torch could not copy the pruned layers
        expected = model.eval()(x)
    torch.testing.assert_close(reparameterize_model(model)(x), expected, rtol=1e-4, atol=1e-5)


def test_layers_with_parameters_are_called_with_tensors_only(kwargs):
    model, calls = create(**kwargs), []
    for module in model.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda module, args: calls.append(args) and None)
    model(images(2, 3, *SIZE))
    assert calls and all(isinstance(arg, torch.Tensor) for args in calls for arg in args)


def test_torchscript_trains_after_it_has_validated(kwargs):
    model, x = torch.jit.script(create(scriptable=True, **kwargs)), images(2, 3, *SIZE)
    for _ in range(3):  # the third call runs the optimized graph
        with torch.inference_mode():
            model.eval()(x)
        model.train()(x).sum().backward()
