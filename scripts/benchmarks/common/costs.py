"""What variants of a model cost: seconds of a batch in training and in inference, bytes kept for the backward pass."""
import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Mapping

import torch
from torch import nn

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.memory import saved_bytes
from scripts.benchmarks.common.step import FP32, INFERENCE, TRAIN, step
from scripts.benchmarks.common.timing import alternate, seconds_of

BATCH_SIZE = 64  # at which the paper gives memory
ROUNDS = 5


@dataclass
class Cost:
    """Of one batch of a model."""
    train_seconds: float  # forward and backward, without the optimizer
    inference_seconds: float
    saved_bytes: int


@dataclass
class Costs(report.Measured):
    batch_size: int
    image_size: int
    precision: str
    rows: Dict[str, Cost]

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Costs':
        return cls(**{**values, 'rows': {name: Cost(**row) for name, row in values['rows'].items()}})


def measure_costs(
        name: str, creators: Mapping[str, Callable[[], nn.Module]], image_size: int, device: torch.device) -> Costs:
    """Measure models in fp32, in turn.

    Args:
        name: Of the command that runs.
        creators: What makes a model of RGB images, by name.
        image_size: Side of the images in pixels.
        device: Where to run the models.
    """
    like = dict(device=device, memory_format=torch.channels_last)
    x = torch.randn(BATCH_SIZE, 3, image_size, image_size).to(**like)
    models = {key: create().to(**like) for key, create in creators.items()}

    def timed(key: str, mode: str) -> float:
        return seconds_of(partial(step, models[key].train(mode == TRAIN), x, mode), device)

    keys = [(key, mode) for key in models for mode in (TRAIN, INFERENCE)]
    seconds, errors = alternate({pair: partial(timed, *pair) for pair in keys}, ROUNDS, warm_up=1)
    for error in errors.values():
        raise error
    rows = {
        key: Cost(
            *(statistics.median(seconds[key, mode]) for mode in (TRAIN, INFERENCE)),
            saved_bytes=saved_bytes(model, x))
        for key, model in models.items()}
    return Costs(
        command.command_line(name), report.hardware_name(device), report.SOFTWARE, BATCH_SIZE, image_size, FP32, rows)
