"""What the tools of others do to a model: trace, wrap, replace, offload, compile and export its layers."""
import copy

import accelerate
import onnx
import onnxruntime
import opacus
import peft
import pytest
import timm
import torch
import torch.nn.functional as F
from onnxruntime.quantization import quantize_dynamic
from timm.utils.model import reparameterize_model
from timm.utils.onnx import onnx_export
from torch._dynamo.testing import CompileCounter
from torch.ao.quantization import QConfigMapping, default_qconfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.func import functional_call, grad, vmap
from torchvision.models.feature_extraction import create_feature_extractor

from conftest import create

# one of each kind of block and stem
MODELS = [
    'wavemix_16_5', 'wavemix_lite_8_5', 'wavemix_lite_32_7', 'wavemix_lite_256_7_s2', 'wavemix_192_16_l3_p4',
    'wavemix_256_16_l4', 'wavemix_256_12_l2_p8', 'fnet2d_64_5', 'mlp_mixer2d_64_5']
WAVEMIX = [name for name in MODELS if name.startswith('wavemix')]
BLOCKS = {  # a small model of each block
    'wavemix': dict(model_name='wavemix_16_5', depth=2, num_classes=3),
    'wavemix_db2': dict(model_name='wavemix_16_5', depth=2, num_classes=3, wavelet='db2'),
    'lite': dict(model_name='wavemix_lite_128_7', dim=16, depth=2, num_classes=3),
    'lite_db2': dict(model_name='wavemix_lite_128_7', dim=16, depth=2, num_classes=3, wavelet='db2'),
    'cascade': dict(model_name='wavemix_192_16_l3_p4', dim=16, depth=2, num_classes=3),
    'fnet': dict(model_name='fnet2d_64_5', dim=16, depth=2, num_classes=3),
    'mixer': dict(model_name='mlp_mixer2d_64_5', dim=16, depth=2, num_classes=3),
}


def images(model, batch=2, height=32, width=32):
    return torch.randn(batch, model.in_chans, height, width, generator=torch.Generator().manual_seed(1))


# Tracers

@pytest.mark.parametrize('name', MODELS)
def test_torch_fx_traces_every_model(name):
    model = create(name, depth=2)
    x = images(model, 3, *model.pretrained_cfg['input_size'][1:])
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-5, atol=1e-5)
    extractor = create_feature_extractor(model, {'blocks.0': 'map'})
    torch.testing.assert_close(extractor(x)['map'], model.forward_intermediates(x, [0])[1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('block', BLOCKS)
def test_fx_quantization_of_a_deployed_model(block):
    model = create(**BLOCKS[block])
    deployed, x = reparameterize_model(model), images(model)
    qconfig = QConfigMapping().set_global(default_qconfig)  # torch has none per channel for transposed convolutions
    prepared = prepare_fx(deployed, qconfig, (x,))
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-4)
    if block == 'lite':  # torch does not convert all operations of the others
        quantized = convert_fx(prepared)(x)
        assert quantized.shape == (2, 3) and quantized.isfinite().all()


# Hooks and wrappers

@pytest.mark.parametrize('deploy', [False, True], ids=['plain', 'deployed'])
@pytest.mark.parametrize('offload_buffers', [False, True])
@pytest.mark.parametrize('block', BLOCKS)
def test_offloaded_weights_give_the_same_logits(block, offload_buffers, deploy, tmp_path):
    model = create(**BLOCKS[block])
    x = images(model)
    if deploy:
        model = reparameterize_model(model)
    on_disk, cpu = copy.deepcopy(model), torch.device('cpu')
    with torch.no_grad():
        expected = model(x)
        accelerate.cpu_offload(model, cpu, offload_buffers=offload_buffers)
        accelerate.disk_offload(on_disk, str(tmp_path), cpu, offload_buffers=offload_buffers)
        assert all(p.device.type == 'meta' for m in (model, on_disk) for p in m.parameters())
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(on_disk(x), expected)


@pytest.mark.parametrize('block, layers', [
    ('wavemix', ['fc2']), ('lite', ['conv_pw', 'fc2']), ('cascade', ['conv_pw', 'fc2']), ('fnet', ['fc1', 'fc2']),
    ('mixer', ['fc1', 'fc2'])])
def test_lora_of_the_1x1_convolutions(block, layers):
    config = peft.LoraConfig(r=2, target_modules=layers, modules_to_save=['head.fc'], init_lora_weights=False)
    model = peft.get_peft_model(create(**BLOCKS[block]), config)
    x = torch.randn(2, 3, 32, 32)
    model(x).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)
    expected = model(x)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('layer, name', [('fc1', 'WaveletConv2d'), ('ups.3', 'OverlapAddConvTranspose2d')])
def test_lora_names_the_layer_that_it_cannot_take(layer, name):
    with pytest.raises(ValueError, match=f'(?s)Target module {name}.* is not supported'):
        peft.get_peft_model(create(**BLOCKS['wavemix']), peft.LoraConfig(target_modules=[layer]))


@pytest.mark.parametrize('block', ['wavemix', 'lite'])  # opacus looks at one input of a layer, a cascade has two
def test_opacus_finds_the_gradients_of_each_image(block):
    model = create(**BLOCKS[block], norm_layer='groupnorm1').train()  # a batch norm has none
    per_image, x = opacus.GradSampleModule(copy.deepcopy(model), loss_reduction='sum'), images(model, 3, 16, 16)
    per_image(x).square().sum().backward()
    for i in range(3):
        model.zero_grad()
        model(x[i:i + 1]).square().sum().backward()
        for actual, expected in zip(per_image.parameters(), model.parameters()):
            torch.testing.assert_close(actual.grad_sample[i], expected.grad, rtol=1e-4, atol=1e-4)


# torch.func

@pytest.mark.parametrize('block', BLOCKS)
def test_gradients_per_image_by_torch_func(block):
    model = create(**BLOCKS[block])
    params, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    x, target = images(model, 3), torch.tensor([0, 1, 2])

    def loss(params, image, label):
        return F.cross_entropy(functional_call(model, (params, buffers), (image[None],)), label[None])

    actual = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, target)
    for i in range(3):
        expected = torch.autograd.grad(loss(params, x[i], target[i]), list(params.values()))
        for name, gradient in zip(params, expected):
            torch.testing.assert_close(actual[name][i], gradient, rtol=1e-4, atol=1e-5)


# Decoders

def test_dpt_takes_a_wavemix_as_encoder_and_unet_says_that_it_does_not():
    smp = pytest.importorskip('segmentation_models_pytorch')
    model = smp.DPT('tu-wavemix_16_5', encoder_weights='fashion_mnist', classes=2)
    weights = timm.create_model('wavemix_16_5', pretrained=True).state_dict()
    encoder = model.encoder.model.state_dict()
    assert all(torch.equal(encoder[name], weights[name]) for name in encoder)
    out = model(torch.randn(2, 3, 64, 32))
    assert out.shape == (2, 2, 64, 32)
    out.square().mean().backward()
    assert all(p.grad.any() for p in model.encoder.model.blocks.parameters())
    with pytest.raises(ValueError, match='Unsupported model downsampling pattern'):
        smp.Unet('tu-wavemix_16_5', encoder_weights=None)


# Compilers and exporters

SIZES = [(64, 64), (65, 79), (63, 64), (56, 57), (96, 65), (60, 60), (77, 128), (100, 70)]


@pytest.mark.recent_torch
@pytest.mark.parametrize('part', ['whole', 'blocks'])
@pytest.mark.parametrize('block', ['wavemix', 'lite', 'cascade'])
def test_one_compiled_model_serves_all_sizes(block, part):  # test_wavemix.py compiles training
    torch._dynamo.reset()
    model, graphs = create(**{**BLOCKS[block], 'depth': 2}), CompileCounter()
    compiled = copy.deepcopy(model)
    for module in [compiled] if part == 'whole' else compiled.blocks:
        module.compile(fullgraph=True, backend=graphs)
    for i, size in enumerate(SIZES):
        x = images(model, 2 + i % 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    assert graphs.frame_count <= 3


@pytest.mark.recent_torch
@pytest.mark.parametrize('deploy', [False, True], ids=['plain', 'deployed'])
@pytest.mark.parametrize('block', ['wavemix', 'lite', 'cascade'])
def test_export_with_a_dynamic_batch_height_and_width(block, deploy):
    model = create(**{**BLOCKS[block], 'depth': 1})
    given = reparameterize_model(model) if deploy else model
    # at fewer pixels the coarsest map of a cascade has one pixel, of which torch makes a graph of its own
    dims = {0: torch.export.Dim('batch'), 2: torch.export.Dim('height', min=40), 3: torch.export.Dim('width', min=40)}
    exported = torch.export.export(given, (images(model, 2, 64, 48),), dynamic_shapes=(dims,)).module()
    for i, size in enumerate(SIZES):
        x = images(model, 1 + i % 3, *size)
        torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.recent_torch
@pytest.mark.parametrize('deploy', [False, True], ids=['plain', 'deployed'])
@pytest.mark.parametrize('block', ['wavemix', 'lite', 'cascade'])
def test_an_exported_graph_has_nothing_that_converters_for_phones_refuse(block, deploy):
    model = create(**BLOCKS[block])
    given = reparameterize_model(model) if deploy else model
    for node in torch.export.export(given, (images(model, 1, 28, 28),)).run_decompositions({}).graph.nodes:
        value = node.meta.get('val')
        assert not isinstance(value, torch.Tensor) or value.dim() <= 5  # litert-torch, coremltools
        assert 'pad' not in str(node.target) or min(node.args[1]) >= 0  # all of them
        assert node.target is not torch.ops.aten.alias.default  # coremltools; a slice of everything becomes one


@pytest.mark.recent_torch
@pytest.mark.parametrize('name', WAVEMIX)
def test_deployed_model_in_onnx(name, tmp_path):
    model, file = create(name, depth=1, exportable=True), tmp_path / 'model.onnx'
    size = 8 * (model.feature_info[0]['reduction'] + 1)
    deployed = reparameterize_model(model)
    onnx_export(
        deployed, str(file), example_input=images(model, 2, size, size), dynamic_size=True,
        input_size=(model.in_chans, size, size), input_names=['input'], output_names=['output'])
    graph = onnx.load(file).graph
    weights = {initializer.name for initializer in graph.initializer}
    # torch keeps equal weights once, such as the low-pass filters of all levels
    weights |= {node.output[0] for node in graph.node if node.op_type == 'Identity' and node.input[0] in weights}
    convolutions = [node for node in graph.node if node.op_type in ('Conv', 'ConvTranspose')]
    assert convolutions and all(set(node.input[1:]) <= weights for node in convolutions)

    quantize_dynamic(file, tmp_path / 'int8.onnx')
    session, int8 = (onnxruntime.InferenceSession(tmp_path / path) for path in ('model.onnx', 'int8.onnx'))
    for batch, height, width in ((3, size, size), (1, size + 1, size + 5)):
        x = images(model, batch, height, width)
        expected = model(x).detach()
        logits, quantized = (torch.from_numpy(s.run(None, {'input': x.numpy()})[0]) for s in (session, int8))
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
        assert F.cosine_similarity(quantized, expected).min() > 0.9
