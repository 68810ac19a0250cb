"""export_weights.py: half precision where it costs no accuracy, and no file of what doesn't fit."""
import re

import pytest
import timm
import torch
from safetensors.torch import load_file

from conftest import checkpoint, status_of
from scripts.benchmarks import export_weights as script

NAME = 'wavemix_16_5.fashion_mnist'


@pytest.fixture
def export(tmp_path, monkeypatch, capsys, fashion_mnist):
    """Run the script on weights; returns its exit status or error, its output, and the file's tensors if there are."""
    monkeypatch.setattr(script, 'WEIGHTS', tmp_path / 'weights')

    def export(ema, data=fashion_mnist, **args):
        trained = timm.create_model(NAME, num_classes=args.get('num_classes', 10))
        args = dict(dict(model='wavemix_16_5', num_classes=10), **args)
        status = status_of(script.main, checkpoint(tmp_path / 'last.pth.tar', trained, ema, **args), NAME, data)
        file = tmp_path / 'weights' / f'{NAME}.safetensors'
        return status, capsys.readouterr().out, load_file(file) if file.exists() else None

    return export


@pytest.fixture
def shipped():
    return timm.create_model(NAME, pretrained=True)


def test_half_precision_of_the_ema_weights_is_shipped_where_it_costs_nothing(export, shipped):
    # as a run with --channels-last leaves them
    status, output, tensors = export(shipped.to(memory_format=torch.channels_last))
    expected = shipped.state_dict()
    assert status == 0 and len(set(re.findall(r'(9\d\.\d\d) %', output))) == 1
    assert tensors.keys() == expected.keys()
    assert all(
        torch.equal(v, expected[k].half() if v.is_floating_point() else expected[k]) for k, v in tensors.items())


def test_single_precision_is_shipped_where_half_costs_accuracy(export, shipped):
    for parameter in shipped.head.fc.parameters():
        parameter.data *= 1e-9  # the same classes, but half precision has no numbers so small
    status, output, tensors = export(shipped)
    assert status == 0 and re.search(r' 9\d\.\d\d % in single precision, 10\.00 % in half precision', output)
    assert all(torch.equal(v, shipped.state_dict()[k]) for k, v in tensors.items())


@pytest.mark.parametrize('other', ['model', 'classes', 'no EMA', 'no images'])
def test_what_does_not_fit_ends_in_one_sentence_and_is_not_written(export, shipped, tmp_path, other):
    status, _, tensors = {
        'model': lambda: export(timm.create_model('wavemix_32_5', num_classes=10), model='wavemix_32_5'),
        'classes': lambda: export(timm.create_model('wavemix_16_5', num_classes=7), num_classes=7),
        'no EMA': lambda: export(None),
        'no images': lambda: export(shipped, data=tmp_path),
    }[other]()
    assert isinstance(status, str) and '\n' not in status and tensors is None
