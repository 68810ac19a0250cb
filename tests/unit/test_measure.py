"""Measuring: counts are right, and rounds alternate. No test depends on a time."""
import gc
import weakref
from itertools import groupby

import pytest
import torch
import torch.nn as nn

from lib import measure

CPU = torch.device('cpu')


def test_saved_bytes_are_those_of_hand_arithmetic():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 3, 5, 5)
    image, hidden = 2 * 3 * 25 * 4, 2 * 4 * 25 * 4
    statistics = 2 * 4 * 4  # mean and inverse deviation of the batch
    # inputs of the first convolution and of the batch norm; the ReLU's output is the last one's input, counted once
    assert measure.saved_bytes(model, x) == image + hidden + statistics + hidden


def test_counting_saved_bytes_keeps_none_of_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Softmax(1), nn.Conv2d(4, 2, 1))
    outputs = []
    for module in model:
        module.register_forward_hook(lambda module, args, output: outputs.append(weakref.ref(output)))
    measure.saved_bytes(model, torch.randn(2, 3, 5, 5))
    gc.collect()
    assert len(outputs) == 4 and not any(output() is not None for output in outputs)


def test_inference_bytes_are_the_most_that_live_at_one_time():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1), nn.Flatten())
    pixel = 2 * 5 * 5 * 4  # bytes of a channel of the batch
    assert measure.inference_bytes(model, torch.randn(2, 3, 5, 5)) == (8 + 2) * pixel


@pytest.mark.parametrize('most, expected', [(15, 0), (16, 16), (100, 96), (112, 112), (2177, 2176)])
def test_largest_batch_is_a_multiple_of_16_within_the_budget(most, expected):
    fixed = 2 ** 30
    assert measure.largest_batch(fixed, (measure.BUDGET - fixed) / (most + 0.5)) == expected
    assert measure.largest_batch(2 * measure.BUDGET, 1.) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_peak_has_activations_weights_and_moments():
    device = torch.device('cuda')
    other = torch.empty(64 * 2 ** 20, dtype=torch.uint8, device=device)  # 64 MiB of another model
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4096, bias=False)).to(device)
    weights = 4 * 3 * 32 * 32 * 4096  # bytes
    case = measure.Case('linear', model, 2, 32)
    inference, train = (measure.peak_bytes(case, mode, device, 2) for mode in (measure.INFERENCE, measure.TRAIN))
    assert weights <= inference < 2.1 * weights  # autocast has a copy of half the size
    assert 4 * weights <= train < 5.6 * weights  # with the gradient, in either precision, and the moments
    assert measure.peak_bytes(case, measure.INFERENCE, device, 4) < 2.1 * weights
    del other


class Logged(nn.Module):
    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        self.log.append(self.name)
        return self.fc(x.mean((2, 3)))


def test_checkpointing_that_does_not_fit_is_not_left_on():
    class Checkpointing(Logged):
        checkpointing = False

        def set_grad_checkpointing(self, enable=True):
            self.checkpointing = enable

        def forward(self, x):
            if self.checkpointing:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().forward(x)

    case = measure.Case('a', Checkpointing('a', []), 1, 4)
    results = measure.measure([case], 1, CPU, 'test')
    assert results.costs[0].error.startswith('out of memory')
    assert not case.model.checkpointing and not any(speed.error for speed in results.speeds)


def test_rounds_alternate(monkeypatch):
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    log = []
    cases = [measure.Case(name, Logged(name, log), 1, 4, precisions=['fp32']) for name in 'abc']
    results = measure.measure(cases, 3, CPU, 'test')
    assert ''.join(name for name, _ in groupby(log)).endswith('abcabcabc')
    assert [len(speed.seconds) for speed in results.speeds] == [3] * 6
