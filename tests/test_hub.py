"""Push to and pull from a Hub that runs here, through the unmodified huggingface_hub and timm."""
import os
import subprocess
import sys

import pytest
import timm
import torch
from conftest import HUB_SOCKET
from hub_server import HubServer

import timm_wavemix  # noqa: F401  registers the models
from timm_wavemix import hub

NAME = 'wavemix_16_5.fashion_mnist'
OWN = timm.list_models(module='wavemix', include_tags=True)
PUBLISHED = timm.list_models(module='wavemix', pretrained=True)


@pytest.fixture(scope='module')
def running():
    server = HubServer(HUB_SOCKET)
    yield server
    server.close()


@pytest.fixture
def server(running, monkeypatch, tmp_path):
    running.reset()
    monkeypatch.setenv('HF_TOKEN', 'hf_write')
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # huggingface_hub waits before it tries again
    return running


def push(*args):
    """Exit status of the command."""
    try:
        hub.main([str(arg) for arg in args], prog='push')
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
            return 1
        return e.code
    return 0


def pull(tmp_path, repo_id, **kwargs):
    return timm.create_model(f'hf-hub:{repo_id}', pretrained=True, cache_dir=tmp_path / 'cache', **kwargs).eval()


def images(model):
    return torch.randn(2, *model.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize('name', OWN)
def test_every_model_comes_back_bit_for_bit(server, tmp_path, capsys, name):
    torch.manual_seed(0)
    if name in PUBLISHED:
        model, source = timm.create_model(name, pretrained=True).eval(), name
    else:
        model, source = timm.create_model(name).eval(), tmp_path / 'model'
        hub.save_for_hf(model, source, safe_serialization=True)
    assert push(source, '--repo-id', f'org/{name}') == 0, server.requests[-4:]
    again = pull(tmp_path, f'org/{name}')
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(images(model)), model(images(model)))
    for key in ('architecture', 'input_size', 'mean', 'std', 'crop_pct', 'interpolation', 'num_classes'):
        assert again.pretrained_cfg[key] == model.pretrained_cfg[key] or \
            tuple(again.pretrained_cfg[key]) == model.pretrained_cfg[key]
    assert list(again.pretrained_cfg.get('label_names', ())) == list(model.pretrained_cfg.get('label_names', ()))
