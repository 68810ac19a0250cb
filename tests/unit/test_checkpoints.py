"""Foreign files: what loads, what is refused in one sentence, and that reading them runs nothing and asks nobody."""
import argparse
import pickle
import resource
import socket
import time

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conftest import Hostile, change_config, checkpoint, same
from timm_wavemix import checkpoints
from timm_wavemix.checkpoints import config_of, load_checkpoint, load_model, read_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*args):
        raise AssertionError(f'asked the network: {args}')

    monkeypatch.setattr(socket.socket, 'connect', connect)


@pytest.fixture
def refused():
    """The one sentence with which a source is refused, which names it."""
    def run(source, **kwargs):
        with pytest.raises((OSError, ValueError)) as error:
            load_model(str(source), **kwargs)
        text = str(error.value)
        assert str(source) in text and text.count('\n') == 0, text
        return text
    return run


def change_weights(folder, change):
    weights = load_file(folder / 'model.safetensors')
    change(weights)
    save_file(weights, folder / 'model.safetensors')


# What loads


def test_a_name_and_a_folder(folder, model):
    assert same(load_model('wavemix_16_5'), timm.create_model('wavemix_16_5', pretrained=True).eval())
    assert same(load_model(str(folder)), model) and same(load_model(f'local-dir:{folder}'), model)
    (folder / 'model.safetensors').unlink()
    torch.save({'state_dict': model.state_dict(), 'epoch': 3}, folder / 'pytorch_model.bin')
    assert same(load_model(str(folder)), model)


@pytest.mark.parametrize('use_ema', [False, True])
def test_a_checkpoint_has_the_preprocessing_of_its_training(tmp_path, use_ema):
    raw, ema = (timm.create_model('wavemix_16_5', num_classes=7, in_chans=1, levels=3).eval() for _ in range(2))
    file = checkpoint(
        tmp_path / 'last.pth.tar', raw, ema, model_kwargs={'levels': 3, 'proj_drop_rate': 0.25}, in_chans=1,
        input_size=[1, 40, 48], crop_pct=0.9, mean=[0.1], std=[0.2], interpolation='bilinear')
    model = load_checkpoint(file, use_ema)
    assert same(model, ema if use_ema else raw) and not model.training
    cfg = config_of(model)
    assert (cfg['input_size'], cfg['mean'], cfg['std']) == ((1, 40, 48), (0.1,), (0.2,))
    assert (cfg['crop_pct'], cfg['interpolation'], cfg['num_classes']) == (0.9, 'bilinear', 7)
    assert not {'tag', 'label_names', 'license'} & {key for key, value in cfg.items() if value}


@pytest.mark.parametrize('channels', [1, 2, 4, 13])
def test_mean_and_std_are_averaged_for_other_channels(tmp_path, channels):
    trained = timm.create_model('wavemix_16_5', num_classes=7, in_chans=channels)
    cfg = config_of(load_checkpoint(checkpoint(tmp_path / 'a.pth', trained, input_size=[channels, 28, 28])))
    assert cfg['mean'] == pytest.approx((0.2860,) * channels) and cfg['std'] == pytest.approx((0.3530,) * channels)


@pytest.mark.parametrize('kind', [dict, argparse.Namespace])
def test_any_registered_architecture_and_arguments_of_older_timm(tmp_path, kind):
    trained = timm.create_model('resnet18', num_classes=3).eval()
    args = kind(model='resnet18', num_classes=3)
    torch.save({'args': args, 'state_dict': trained.state_dict()}, tmp_path / 'a.pth')
    assert same(load_checkpoint(tmp_path / 'a.pth'), trained)


def test_a_checkpoint_of_a_model_of_the_hub_takes_its_config_from_the_cache(tmp_path, folder, model, monkeypatch):
    file = checkpoint(tmp_path / 'last.pth.tar', model, model='hf-hub:org/model@v1')
    with pytest.raises(ValueError, match='hf download'):
        load_checkpoint(file)
    monkeypatch.setattr(checkpoints, 'try_to_load_from_cache', lambda *_, **__: str(folder / 'config.json'))
    assert same(load_checkpoint(file), model)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_types_that_are_held_exactly_load(folder, dtype):
    change_weights(folder, lambda weights: weights.update(
        {k: v.to(dtype) for k, v in weights.items() if v.is_floating_point()}))
    expected = load_file(folder / 'model.safetensors')
    loaded = load_model(str(folder)).state_dict()
    assert all(torch.equal(loaded[k].double(), v.double()) for k, v in expected.items())


# What is refused


@pytest.mark.parametrize('name, tensor', [
    ('head.fc.bias', torch.ones(7, dtype=torch.int8)), ('head.fc.bias', torch.ones(7, dtype=torch.int64)),
    ('head.fc.bias', torch.ones(7, dtype=torch.bool)), ('head.fc.bias', torch.ones(7, dtype=torch.complex64)),
    ('head.fc.bias', torch.full((7,), 0.1, dtype=torch.float64)),
    ('blocks.0.norm.num_batches_tracked', torch.tensor(1.)),
], ids=lambda value: str(getattr(value, 'dtype', '')))
def test_types_that_the_model_does_not_hold_are_named(refused, folder, name, tensor):
    change_weights(folder, lambda weights: weights.update({name: tensor}))
    line = refused(folder)
    assert name in line and str(tensor.dtype) in line


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('name', ['stem.0.weight', 'blocks.4.norm.running_var'])
def test_weights_that_are_not_finite_are_named(refused, folder, name, value):
    change_weights(folder, lambda weights: weights[name].view(-1)[-1:].fill_(value))
    assert name in refused(folder)


@pytest.mark.parametrize('change, name', [
    (lambda weights: weights.pop('head.fc.weight'), 'head.fc.weight'),
    (lambda weights: weights.update({'head.fc.bias': torch.zeros(12)}), 'head.fc.bias'),
    (lambda weights: weights.pop('blocks.0.norm.running_mean'), 'blocks.0.norm.running_mean'),
    (lambda weights: weights.update({'blocks.5.norm.weight': torch.zeros(16)}), 'blocks.5.norm.weight'),
], ids=['missing', 'shape', 'buffer', 'more blocks'])
def test_weights_of_another_model_name_what_does_not_fit(refused, folder, change, name):
    change_weights(folder, change)
    assert name in refused(folder)


@pytest.mark.parametrize('changes', [
    {'num_classes': 12, 'model_args': {}}, {'num_classes': 12}, {'num_classes': '7'}, {'num_classes': -1},
    {'architecture': 'wavemix_32_5'}, {'architecture': 'unknown'}, {'architecture': None}, {'architecture': []},
    {'global_pool': 'max'}, {'num_features': 32}, {'model_args': {'in_chans': 1}}, {'model_args': {'levels': 3}},
    {'model_args': 'levels'}, {'model_args': [1]}, {'model_args': {'lewels': 3}}, {'model_args': {'depth': [1]}},
    {'model_args': {'features_only': True}}, {'model_args': {'pretrained': True}},
    {'model_args': {'checkpoint_path': '/etc/passwd'}}, {'model_args': {'cache_dir': '/tmp'}},
    {'model_args': {'pretrained_cfg': {'url': 'http://127.0.0.1:9/a.pth'}}}, {'model_args': {'device': 'meta'}},
    {'pretrained_cfg': None}, {'pretrained_cfg': []}, {'pretrained_cfg': {'num_clases': 7}},
    {'pretrained_cfg': {'input_size': 'large'}},
], ids=str)
def test_config_that_contradicts_the_weights_or_is_mistyped(refused, folder, changes):
    change_config(folder, **changes)
    refused(folder)


@pytest.mark.parametrize('model_args', [
    {'depth': 10**7}, {'depth': 10**5}, {'depth': 10**30}, {'dim': 10**5}, {'mlp_ratio': 1e12},
    {'img_size': [10**9, 10**9], 'block_type': 'mixer'}], ids=str)
def test_a_model_that_is_too_large_for_its_weights_takes_no_memory(refused, folder, model_args):
    change_config(folder, model_args=model_args)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert time.process_time() - start < 60


@pytest.mark.parametrize('content', [
    'null', '[]', '3', '{', '', '{"architecture": ["wavemix_16_5"]}', '[' * 100_000, b'{"who": "J\xfcrgen"}',
], ids=lambda content: str(content)[:30])
def test_config_that_is_none(refused, folder, content):
    (folder / 'config.json').write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder)


@pytest.mark.parametrize('content', [
    [1, 2], 3, None, 'text', {}, {'state_dict': {}}, {'args': None, 'state_dict': {}},
    {'args': {'num_classes': 7}, 'state_dict': {}}, {'args': {'model': 5}, 'state_dict': {}},
    {'args': [1], 'state_dict': {}}, {'args': {'model': 'wavemix_16_5'}},
    *({'args': {'model': 'wavemix_16_5', 'num_classes': 7, **args}, 'state_dict': state_dict} for args, state_dict in [
        ({}, [1]), ({}, {'stem.0.weight': 5}), ({}, {5: torch.zeros(1)}), ({'model_kwargs': ['levels']}, {}),
        ({'input_size': 'large'}, {}), ({'num_classes': 'ten'}, {}), ({'model': 'unknown'}, {}),
        ({'model': 'local-dir:missing'}, {}), ({'model_kwargs': {'pretrained': True}}, {}),
        ({'model_kwargs': {'pretrained_cfg_overlay': {'url': 'http://127.0.0.1:9/a.pth'}}}, {})]),
], ids=lambda content: str(content)[:80])
def test_checkpoint_that_is_none(refused, tmp_path, content):
    torch.save(content, tmp_path / 'last.pth.tar')
    refused(tmp_path / 'last.pth.tar')


def test_preprocessing_that_does_not_fit_the_model(refused, tmp_path, model):
    refused(checkpoint(tmp_path / 'last.pth.tar', model, mean=[0.5, 0.5]))


def test_ema_weights_that_are_not_there(refused, tmp_path, folder, model):
    for source in checkpoint(tmp_path / 'last.pth.tar', model), folder, 'wavemix_16_5':
        assert 'EMA' in refused(source, use_ema=True)


@pytest.mark.parametrize('source', [
    'wavemix_16_6', 'wavemix_16_5.cifar', 'wavemix_lite_256_7_s2', '.', 'missing.pth', 'local-dir:missing'])
def test_source_that_is_none(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, RuntimeError, ValueError)):
        load_model(source)


def test_a_path_that_is_a_name_too(refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'wavemix_16_5.pth.tar').touch()  # to timm, the model with the tag pth.tar
    assert './wavemix_16_5.pth.tar' in refused('wavemix_16_5.pth.tar')


@pytest.mark.parametrize('zipped', [False, True])
def test_a_file_that_would_run_code_is_not_run(refused, folder, tmp_path, zipped):
    evil = {'state_dict': Hostile(tmp_path / 'evil'), 'args': {'model': 'wavemix_16_5'}}
    (folder / 'model.safetensors').unlink()
    for file, source in (folder / 'pytorch_model.bin', folder), (tmp_path / 'last.pth.tar', tmp_path / 'last.pth.tar'):
        torch.save(evil, file) if zipped else file.write_bytes(pickle.dumps(evil, protocol=2))
        assert 'mkdir' in refused(source) and not (tmp_path / 'evil').exists()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(['safetensors', 'zip', 'legacy']))
def test_a_file_that_is_cut_anywhere_is_refused(model, tmp_path, share, kind):
    file = tmp_path / ('a.safetensors' if kind == 'safetensors' else 'a.pth')
    if kind == 'safetensors':
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file, _use_new_zipfile_serialization=kind == 'zip')
    file.write_bytes(file.read_bytes()[:int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=str(file)):
        read_weights(file)


@pytest.mark.parametrize('read', [read_weights, load_checkpoint, lambda file: load_model(str(file))])
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises((OSError, ValueError), match='missing'):
        read(tmp_path / 'missing')


def test_a_damaged_file_of_the_cache_comes_with_the_command_that_removes_it(tmp_path):
    file = tmp_path / 'models--org--some--name' / 'snapshots' / 'abc' / 'weights.pth'
    file.parent.mkdir(parents=True)
    file.write_text('<html>Log in</html>')
    with pytest.raises(ValueError, match='hf cache rm model/org/some--name') as error:
        read_weights(file)
    assert str(file) in str(error.value)
