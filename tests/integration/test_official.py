"""The authors' published weights: against the authors' package, and through each way that weights reach a model."""
import hashlib
import io
import pickle
import re
import shutil
from pathlib import Path
from unittest import mock

import huggingface_hub
import pytest
import timm
import torch
from torchvision.datasets import CIFAR10

from conftest import images, randomize_batch_norms, status_of
from hub_server import Repo
from scripts.benchmarks import convert_official
from scripts.benchmarks.models import reference
from timm_wavemix import checkpoints
from timm_wavemix.hub.metadata import hub_configs, read_metadata
from timm_wavemix.wavemix import checkpoint_filter_fn

OFFICIAL = {  # classes, depth, width, levels and stem of the authors' class, and the number of parameters
    'wavemix_lite_144_7.cifar10': (10, 7, 144, 1, dict(stride=1), 3_042_550),
    'wavemix_lite_320_8.cifar10': (10, 8, 320, 1, dict(stride=1), 17_073_610),
    'wavemix_lite_256_8.cifar100': (100, 8, 256, 1, dict(stride=1), 10_954_084),
    'wavemix_lite_256_10.cifar100': (100, 10, 256, 1, dict(stride=1), 13_611_492),
    'wavemix_lite_256_12.tiny_imagenet': (200, 12, 256, 1, dict(stride=1), 16_294_600),
    'wavemix_lite_192_16_p4.in1k': (1000, 16, 192, 1, dict(patch_size=4), 12_494_536),
    'wavemix_lite_192_16_p4.galaxy10': (10, 16, 192, 1, dict(patch_size=4), 12_303_466),
    'wavemix_192_16_l3_p4.in1k': (1000, 16, 192, 3, dict(patch_size=4), 27_857_608),
    'wavemix_192_16_l3_p4.in1k_v1': (1000, 16, 192, 3, dict(patch_size=4), 27_857_608),
    'wavemix_192_16_l3_p4.tiny_imagenet_64': (200, 16, 192, 3, dict(patch_size=4), 27_703_208),
    'wavemix_192_16_l3_p4.tiny_imagenet_128': (200, 16, 192, 3, dict(patch_size=4), 27_703_208),
    'wavemix_192_16_l3_p4.galaxy10': (10, 16, 192, 3, dict(patch_size=4), 27_666_538),
    'wavemix_256_16_l3_p4.in1k': (1000, 16, 256, 3, dict(patch_size=4), 49_416_808),
    'wavemix_256_16_l4.in1k': (1000, 16, 256, 4, dict(stride=2), 62_764_776),
    'wavemix_256_12_l2_p8.places365': (365, 12, 256, 2, dict(patch_size=8), 28_449_261),
}
INPUT_ASSUMED = {  # the authors state neither the size nor the normalisation of their images
    'wavemix_192_16_l3_p4.in1k_v1',
    'wavemix_lite_256_8.cifar100',
    'wavemix_lite_256_10.cifar100',
    'wavemix_256_16_l3_p4.in1k',
    'wavemix_256_16_l4.in1k',
    'wavemix_256_12_l2_p8.places365',
}
KINDS = [  # one model of each block and stem, made small for most tests
    'wavemix_lite_144_7.cifar10',
    'wavemix_lite_192_16_p4.in1k',
    'wavemix_256_12_l2_p8.places365',
    'wavemix_192_16_l3_p4.in1k',
    'wavemix_256_16_l4.in1k',
]
SMALL = dict(dim=16, depth=3)


def official(name, dropout=0.5, **overrides):
    """A model of the authors' package, whose parameters and batch-norm statistics are all random."""
    torch.manual_seed(0)
    num_classes, depth, dim, level, stem, _ = OFFICIAL[name]
    kwargs = {**dict(num_classes=num_classes, depth=depth, final_dim=dim, level=level), **stem, **overrides}
    model = reference.authors_model(
        torch.device('cpu'), initial_conv='pachify' if 'patch_size' in stem else 'strided',
        ff_channel=kwargs['final_dim'], dropout=dropout, **kwargs)
    return randomize_batch_norms(model).eval()


@pytest.fixture(params=KINDS)
def small(request):
    """Name and the authors' version of a small model."""
    return request.param, official(request.param, final_dim=SMALL['dim'], depth=SMALL['depth'])


def load(name, state_dict=None, file=None, **kwargs):
    overlay = dict(state_dict=state_dict, file=file and str(file))
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs).eval()


def assert_same(actual, expected):
    assert (actual - expected).norm() <= 1e-4 * expected.norm()


def smallest_size(model):
    """The authors' package takes multiples of it only."""
    return model.feature_info[0]['reduction'] * 2 ** len(getattr(model.blocks[0], 'mlps', 'x'))


# The models

@pytest.mark.parametrize('name', OFFICIAL)
def test_parameter_count_keys_and_shapes_are_those_of_the_authors_package(name):
    model = timm.create_model(name, device='meta')
    assert sum(p.numel() for p in model.parameters()) == OFFICIAL[name][-1]
    expected = official(name, depth=2).state_dict()
    shallow = timm.create_model(name, depth=2)
    shallow.load_state_dict(checkpoint_filter_fn(expected, shallow))
    assert {k: v.shape for k, v in convert_official.counterpart(shallow).state_dict().items()} == {
        k: v.shape for k, v in expected.items()}


def test_logits_are_those_of_the_authors_package(small):
    name, expected = small
    model = load(name, expected.state_dict(), **SMALL)
    size = max(16, smallest_size(model))
    with torch.inference_mode():
        for shape in (2, 3, size, size), (1, 3, size, 2 * size):
            assert_same(model(images(*shape)), expected(images(*shape)))


@pytest.mark.parametrize('name', KINDS)
def test_training_gradients_are_those_of_the_authors_package(name, monkeypatch):
    expected = official(name, dropout=0., final_dim=SMALL['dim'], depth=SMALL['depth'])
    model = load(name, expected.state_dict(), proj_drop_rate=0., **SMALL)
    x = images(3, 3, smallest_size(model), 2 * smallest_size(model))
    import wavemix  # which official() has made importable
    torch.set_default_dtype(torch.float64)
    for levels in 1, 2, 3, 4:  # their transforms are global, so no `to` of a model reaches them
        monkeypatch.setattr(wavemix, f'xf{levels}', wavemix.DWTForward(J=levels, mode='zero', wave='db1'))
    torch.set_default_dtype(torch.float32)
    for m in model, expected:
        m.double().train()(x.double()).square().sum().backward()
    # each gradient by its name and layout in our model
    theirs = {k: p.grad for k, p in expected.named_parameters()}
    grads = checkpoint_filter_fn({**expected.state_dict(), **theirs}, model)
    scale = max(grad.abs().max().item() for grad in theirs.values())
    for k, param in model.named_parameters():
        torch.testing.assert_close(param.grad, grads[k], rtol=1e-6, atol=1e-9 * scale, msg=lambda m: f'{k}: {m}')


def test_every_official_model_and_tag_is_here():
    hosted = {
        name for name in timm.list_models(module='wavemix', pretrained=True) if timm.get_pretrained_cfg(name).hf_hub_id}
    assert hosted == set(OFFICIAL)
    for name in hosted:
        assert timm.get_pretrained_cfg(name.partition('.')[0]).tag == 'in1k' or not name.endswith('.in1k')


# Ways for weights to come in

@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lays weights down as huggingface_hub would have cached them, and cuts the network."""
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)

    def put(name, weights_file):
        cfg = timm.get_pretrained_cfg(name)
        repo = tmp_path / f'models--{cfg.hf_hub_id.replace("/", "--")}'
        file = repo / 'snapshots' / ('0' * 40) / cfg.hf_hub_filename
        file.parent.mkdir(parents=True)
        file.symlink_to(weights_file)
        (repo / 'refs').mkdir()
        (repo / 'refs' / 'main').write_text('0' * 40)
        return tmp_path

    return put


def test_weights_load_from_the_hub_a_file_or_memory(small, hub, tmp_path):
    name, expected = small
    x, file = images(2, 3, 64, 64), tmp_path / 'weights.pth'
    torch.save(expected.state_dict(), file)
    from_hub = timm.create_model(name, pretrained=True, cache_dir=hub(name, file), **SMALL).eval()
    assert_same(from_hub(x), expected(x))
    assert torch.equal(load(name, expected.state_dict(), **SMALL)(x), from_hub(x))
    torch.save({'state_dict': expected.state_dict(), 'epoch': 3}, file)
    assert torch.equal(load(name, file=file, **SMALL)(x), from_hub(x))


# What is refused


def test_weights_of_another_official_model_are_refused():
    weights = official('wavemix_192_16_l3_p4.in1k', final_dim=16, depth=3).state_dict()
    with pytest.raises((RuntimeError, ValueError)):
        load('wavemix_lite_192_16_p4.in1k', weights, **SMALL)


# convert_official

def test_a_converted_folder_is_the_model(tmp_path):
    name, folder = 'wavemix_lite_256_8.cifar100', tmp_path / 'new' / 'folder'
    expected = official(name)
    torch.save(expected.state_dict(), tmp_path / 'weights.pth')
    convert_official.convert(name, folder, f'org/{name}', tmp_path / 'weights.pth')
    assert {path.name for path in folder.iterdir()} == {'model.safetensors', 'config.json', 'README.md'}
    assert [path.name for path in folder.parent.iterdir()] == ['folder']

    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    x = images(1, 3, 32, 32)
    assert_same(model(x), expected(x))
    cfg, converted = timm.get_pretrained_cfg(name), model.pretrained_cfg
    for key in 'num_classes', 'input_size', 'mean', 'std', 'crop_pct', 'interpolation', 'license':
        value = converted[key]
        assert (tuple(value) if isinstance(value, list) else value) == getattr(cfg, key), key


def test_a_disk_that_gets_full_leaves_no_half_folder(tmp_path, monkeypatch):
    name = 'wavemix_lite_144_7.cifar10'
    torch.save(official(name).state_dict(), tmp_path / 'weights.pth')
    full = mock.Mock(side_effect=OSError(28, 'No space left on device'))
    monkeypatch.setattr('huggingface_hub.ModelCard.save', full)  # after config and weights
    with pytest.raises(OSError, match='No space'):
        convert_official.convert(name, tmp_path / 'out', f'org/{name}', tmp_path / 'weights.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth']


@pytest.mark.parametrize('name', OFFICIAL)
def test_a_card_says_whose_the_figures_are(name):
    metadata = read_metadata(hub_configs() / f'{name}.yaml')
    assert (metadata['weights']['license'], metadata['base_model']) == ('mit', ['cloudwalker/wavemix'])
    assert 'authors' in metadata['metrics']['source']
    assert ('assumed' in metadata['preprocessing']['source']) == (name in INPUT_ASSUMED)


@pytest.mark.parametrize('args, code, named', [
    (['wavemix_lite_144_7.cifar10', 'out', '--repo-id', 'org/a', '--checkpoint', 'missing.pth'], 2, 'missing.pth'),
    (['wavemix_lite_144_7.cifar10', 'out', '--repo-id', 'org/a', '--checkpoint', 'junk.pth'], 1, 'junk.pth'),
    (['wavemix_lite_144_7.cifar10', 'out', '--repo-id', "a'); import os #"], 2, '--repo-id'),
    (['wavemix_16_5.fashion_mnist', 'out', '--repo-id', 'org/a'], 1, 'wavemix_256_16_l4.in1k'),
    (['wavemix_lite_144_7.cifar10', '--verify', '--repo-id', 'org/a'], 2, '--verify'),
])
def test_conversion_errors_are_one_line(tmp_path, monkeypatch, capsys, args, code, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'junk.pth').write_bytes(b'junk' * 100)
    status = status_of(convert_official.main, *args)
    said = status if isinstance(status, str) else capsys.readouterr().err.splitlines()[-1]
    assert (status == 2) == (code == 2) and named in said and '\n' not in said
    assert not (tmp_path / 'out').exists()


# convert_official.py --verify


def serve(server, name, weights):
    """Put weights on the server where the authors have them."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    oid = hashlib.sha256(buffer.getvalue()).hexdigest()
    server.objects[oid] = buffer.getvalue()
    cfg = timm.get_pretrained_cfg(name)
    repo = server.repos.setdefault(cfg.hf_hub_id, Repo(private=False))
    repo.commit('main', {cfg.hf_hub_filename: oid})
    repo.tags = ['timm', 'license:mit']


@pytest.fixture
def cifar10(server, tmp_path, monkeypatch):
    """Twenty test images of CIFAR-10's format, for torchvision to download."""
    images = torch.randint(256, (20, 3072), generator=torch.Generator().manual_seed(0)).numpy().astype('uint8')
    folder = tmp_path / 'served' / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    for file, content in {
        'test_batch': {'data': images, 'labels': [3] * 20},
        'batches.meta': {'label_names': [str(i) for i in range(10)]},
    }.items():
        (folder / file).write_bytes(pickle.dumps(content))
    archive = shutil.make_archive(str(tmp_path / 'cifar'), 'gztar', folder.parent, folder.name)
    md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    server.files['cifar.tar.gz'] = Path(archive).read_bytes()
    monkeypatch.setattr(CIFAR10, 'url', f'{server.url}/files/cifar.tar.gz')
    monkeypatch.setattr(CIFAR10, 'filename', 'cifar.tar.gz')
    monkeypatch.setattr(CIFAR10, 'tgz_md5', None)
    monkeypatch.setattr(CIFAR10, 'train_list', [])
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', md5['test_batch']]])
    monkeypatch.setattr(CIFAR10, 'meta', {**CIFAR10.meta, 'md5': md5['batches.meta']})
    return tmp_path / 'data'


def test_verify_settles_what_the_authors_files_are(server, cifar10, monkeypatch, capsys):
    name = 'wavemix_lite_144_7.cifar10'
    weights = official(name).state_dict()
    weights['pool.2.bias'][3] = 1e3  # every image is a cat, as is every label
    serve(server, name, weights)
    assert not convert_official.verify([name], cifar10)
    assert re.search(r"error \d.\de-\d\d\), top-1 100\.00 % is NOT the authors' 94\.58 %", capsys.readouterr().out)

    monkeypatch.setattr(convert_official, 'read_metadata', lambda file: {'metrics': {'top1': '100.00'}})
    assert convert_official.verify([name], cifar10)
    server.repos['cloudwalker/wavemix'].tags = ['license:other']
    assert not convert_official.verify([name], cifar10)
    server.repos['cloudwalker/wavemix'].tags = ['license:mit']
    rename = checkpoint_filter_fn
    monkeypatch.setattr(checkpoints, 'checkpoint_filter_fn', lambda weights, model: {
        k: -v if k.endswith('fc1.weight') else v for k, v in rename(weights, model).items()})
    assert not convert_official.verify([name], cifar10)
    assert 'logits are NOT' in capsys.readouterr().out


@pytest.mark.parametrize('failure', [None, (503, 'maintenance')])
def test_verify_names_what_cannot_be_fetched(server, failure):
    server.failures.update({'resolve': failure} if failure else {})
    with pytest.raises(RuntimeError, match='cloudwalker/wavemix'):
        convert_official.verify(['wavemix_lite_320_8.cifar10'], Path('data'))


def test_push_of_the_authors_weights_by_their_name(server, push, pull):
    name = 'wavemix_lite_256_8.cifar100'
    expected = official(name)
    serve(server, name, expected.state_dict())
    code, _, err = push(name, '--repo-id', f'org/{name}')
    assert code == 0, err
    model = pull(f'org/{name}')
    x = images(2, 3, 32, 32)
    assert_same(model(x), expected(x))
    assert model.pretrained_cfg['label_names'][:2] == ['apple', 'aquarium_fish']
