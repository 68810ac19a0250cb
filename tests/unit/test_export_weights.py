"""scripts/export_weights.py: half precision where it costs no accuracy, and no file of what doesn't fit."""
import re
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file

import export_weights as script
import timm_wavemix  # noqa: F401  registers the models

NAME = 'wavemix_16_5.fashion_mnist'


@pytest.fixture
def export(tmp_path, monkeypatch, capsys, fashion_mnist):
    """Run the script on weights; returns its exit status or error, its output, and the file's tensors if there are."""
    monkeypatch.setattr(script, 'WEIGHTS', tmp_path / 'weights')

    def export(checkpoint, data=fashion_mnist):
        torch.save(checkpoint, tmp_path / 'checkpoint.pth.tar')
        monkeypatch.setattr(sys, 'argv', ['export_weights.py', str(tmp_path / 'checkpoint.pth.tar'), NAME, str(data)])
        try:
            status = script.main()
        except SystemExit as error:
            status = error.code
        file = tmp_path / 'weights' / f'{NAME}.safetensors'
        return status, capsys.readouterr().out, load_file(file) if file.exists() else None

    return export


@pytest.fixture
def shipped():
    return timm.create_model(NAME, pretrained=True).state_dict()


def test_half_precision_of_the_ema_weights_is_shipped_where_it_costs_nothing(export, shipped):
    # as a run with --channels-last leaves them
    ema = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in shipped.items()}
    status, output, tensors = export({'state_dict': timm.create_model(NAME).state_dict(), 'state_dict_ema': ema})
    assert not status
    assert len(set(re.findall(r'(9\d\.\d\d) %', output))) == 1 and 'in half precision\n' in output
    assert tensors.keys() == shipped.keys()
    assert all(torch.equal(v, shipped[k].half() if v.is_floating_point() else shipped[k]) for k, v in tensors.items())


def test_single_precision_is_shipped_where_half_costs_accuracy(export, shipped):
    for k in 'head.fc.weight', 'head.fc.bias':
        shipped[k] *= 1e-9  # the same classes, but half precision has no numbers so small
    status, output, tensors = export({'state_dict': shipped})
    assert not status
    assert re.search(r' 9\d\.\d\d % in single precision, 10\.00 % in half precision, .* in single precision\n', output)
    assert tensors.keys() == shipped.keys() and all(torch.equal(v, shipped[k]) for k, v in tensors.items())


def test_weights_of_another_model_are_told_in_one_line_and_not_written(export):
    status, _, tensors = export({'state_dict': timm.create_model('wavemix_32_5').state_dict()})
    assert re.fullmatch(r'export_weights.py: The weights are not of this model, .* trained with\.', status)
    assert tensors is None


def test_weights_of_other_classes_are_told_in_one_line_and_not_written(export):
    status, _, tensors = export({'state_dict': timm.create_model('wavemix_16_5', num_classes=7).state_dict()})
    assert re.search(r'checkpoint.pth.tar. has 7 classes, wavemix_16_5.fashion_mnist has 10: name a checkpoint', status)
    assert tensors is None


def test_a_folder_without_validation_images_is_told_before_anything_is_written(export, shipped, tmp_path):
    status, _, tensors = export({'state_dict': shipped}, data=tmp_path)
    assert status == (
        f"export_weights.py: there is no folder '{tmp_path}/validation': write it with "
        'scripts/prepare_fashion_mnist.py, or name another.')
    assert tensors is None
