"""The benchmark of torch.compile, on one block of a model. No test depends on a time."""
import sys
from functools import partial

import pytest
import timm
import torch

import compile as script

pytestmark = pytest.mark.recent_torch


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(timm, 'create_model', partial(timm.create_model, depth=1))
    monkeypatch.setattr(script, 'PIXELS', 2 * 28 * 28)


@pytest.mark.slow
def test_both_modes_are_measured(small):
    result = script.measure('wavemix_16_5', torch.device('cpu'), rounds=1)
    assert result[:3] == ('wavemix_16_5', 28, 2)
    assert all(value > 0 for mode in (result.inference, result.training) for value in mode)
    cells = script.markdown([result]).splitlines()[-1].split(' | ')
    assert cells[:2] == ['| `wavemix_16_5`', '2 of 28x28'] and len(cells) == 6


@pytest.mark.parametrize('args, message', [
    (['--models', 'wavemix_17_5'], "invalid choice: 'wavemix_17_5'"),
    (['--rounds', '0'], '0 is too few: give 1 or more.'),
    (['--output', 'nowhere/compile.md'], "there is no folder 'nowhere': make it, or name another file."),
])
def test_wrong_arguments_are_errors_before_anything_is_measured(monkeypatch, capsys, args, message):
    monkeypatch.setattr(sys, 'argv', ['compile.py', *args])
    with pytest.raises(SystemExit, match='2'):
        script.main()
    assert message in capsys.readouterr().err


def test_a_graph_break_is_no_result(small, monkeypatch):
    monkeypatch.setattr(timm.layers.ClassifierHead, 'forward', torch._dynamo.disable(lambda self, x: x.mean((2, 3))))
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        script.measure('wavemix_16_5', torch.device('cpu'), rounds=1)
