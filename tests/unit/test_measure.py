"""Measuring: counts are right, failures are reported, ratios belong to their rounds. No test depends on a time."""
import gc
import weakref

import pytest
import torch
from torch import nn

from scripts.benchmarks.common import measure, memory

CPU = torch.device('cpu')


def test_saved_bytes_are_what_hand_arithmetic_gives():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    image, hidden = 2 * 3 * 25 * 4, 2 * 4 * 25 * 4
    statistics = 2 * 4 * 4  # mean and inverse deviation of the batch
    # inputs of the first convolution and of the batch norm; the ReLU's output is the last one's input, counted once
    assert memory.saved_bytes(model, torch.randn(2, 3, 5, 5)) == image + hidden + statistics + hidden


def test_counting_saved_bytes_keeps_none_of_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Softmax(1), nn.Conv2d(4, 2, 1))
    outputs = []
    for module in model:
        module.register_forward_hook(lambda module, args, output: outputs.append(weakref.ref(output)))
    memory.saved_bytes(model, torch.randn(2, 3, 5, 5))
    gc.collect()
    assert len(outputs) == 4 and not any(output() is not None for output in outputs)


def test_inference_bytes_are_the_most_that_live_at_one_time():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1), nn.Flatten())
    pixel = 2 * 5 * 5 * 4  # bytes of a channel of the batch
    assert memory.inference_bytes(model, torch.randn(2, 3, 5, 5)) == (8 + 2) * pixel


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


class Light(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


class TooLarge(Light):
    def forward(self, x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.\nmore")


class TooLargeWithCheckpointing(Light):
    checkpointing = False

    def set_grad_checkpointing(self, enable=True):
        self.checkpointing = enable

    def forward(self, x):
        return TooLarge.forward(self, x) if self.checkpointing else super().forward(x)


def test_what_fails_is_reported_and_the_rest_goes_on(monkeypatch):
    step_seconds = measure.step_seconds
    monkeypatch.setattr(
        measure, 'step_seconds', lambda case, *args: 61. if case.name == 'slow' else step_seconds(case, *args))
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    models = dict(large=TooLarge(), slow=Light(), light=Light(), checkpointed=TooLargeWithCheckpointing())
    cases = [measure.Case(name, model, 1, 4, references=['light', 'large']) for name, model in models.items()]
    results = measure.measure(cases, 2, CPU, 'test', step_limit=60.)
    kinds = {(s.model, s.mode, s.precision): measure.error_kind(s) for s in results.speeds}
    assert len(kinds) == 4 * 2 * 2
    for (name, *_), kind in kinds.items():
        assert kind == {'large': 'out of memory', 'slow': 'out of time'}.get(name, '')
    assert {cost.model: measure.error_kind(cost) for cost in results.costs} == {
        'large': 'out of memory', 'slow': '', 'light': '', 'checkpointed': 'out of memory'}
    assert not models['checkpointed'].checkpointing  # speed is measured without it
    light = results.speed('light', 'train')
    assert light.ratio('light') == 1. and light.ratio('large') is None and light.images_per_second > 0
    assert results.speed('checkpointed', 'train').ratio('light') > 0
    assert results.speed('light', 'train', 'bf16').ratio('fp32') > 0


def test_speed_and_ratios_are_medians_of_the_same_rounds(monkeypatch):
    seconds = {'ours': iter([1., 1., 4.]), 'theirs': iter([2., 3., 4.])}
    monkeypatch.setattr(measure, 'faster_format', lambda *_: ('NCHW', 1))
    monkeypatch.setattr(measure, 'step_seconds', lambda case, *_: next(seconds[case.name]))
    cases = [
        measure.Case(name, Light(), 8, 4, ['fp32'], ['inference'], ['theirs']) for name in ('ours', 'theirs')]
    ours, _ = measure.measure(cases, 3, CPU, 'test').speeds
    assert ours.images_per_second == 8. and ours.ratio('theirs') == 2.
