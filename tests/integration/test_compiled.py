"""The benchmark of torch.compile, on one block of a model. No test depends on a time."""
from functools import partial

import pytest
import timm
import torch

from conftest import status_of
from scripts.benchmarks import compiled as script

pytestmark = pytest.mark.recent_torch


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(timm, 'create_model', partial(timm.create_model, depth=1))
    monkeypatch.setattr(script, 'PIXELS', 2 * 28 * 28)


@pytest.mark.parametrize('part, backend', [
    ('whole', 'aot_eager'), ('blocks', 'aot_eager'), pytest.param('blocks', 'inductor', marks=pytest.mark.slow)])
def test_both_modes_are_measured(small, part, backend):
    result = script.measure('wavemix_lite_8_5', part, torch.device('cpu'), rounds=1, backend=backend)
    assert (result.model, result.part, result.image_size, result.batch_size) == ('wavemix_lite_8_5', part, 28, 2)
    for mode in result.inference, result.train:
        assert mode.first_call > 0 and mode.times_as_fast > 0


def test_a_graph_break_is_no_result(small, monkeypatch):
    monkeypatch.setattr(timm.layers.ClassifierHead, 'forward', torch._dynamo.disable(lambda self, x: x.mean((2, 3))))
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        script.measure('wavemix_lite_8_5', 'whole', torch.device('cpu'), rounds=1, backend='eager')


@pytest.mark.parametrize('args', [['--models', 'wavemix_17_5'], ['--rounds', '0'], ['--output', 'nowhere/compiled']])
def test_wrong_arguments_are_errors_before_anything_is_measured(args, monkeypatch):
    monkeypatch.setattr(script, 'measure_models', lambda args: pytest.fail('measured'))
    assert status_of(script.main, *args) == 2
