"""What variants of a model cost: seconds of a batch in training and in inference, bytes kept for the backward pass."""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping

import torch
from torch import nn

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.measure import Case, measure
from scripts.benchmarks.common.step import FP32, INFERENCE, TRAIN

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
    """Measure models in fp32, each in its faster memory format.

    Args:
        name: Of the command that runs.
        creators: What makes a model of RGB images, by name.
        image_size: Side of the images in pixels.
        device: Where to run the models.

    Raises:
        RuntimeError: A model fails.
    """
    results = measure([
        Case(key, create().to(device), BATCH_SIZE, image_size, precisions=[FP32]) for key, create in creators.items()],
        ROUNDS, device, name)
    for record in results.failed:
        raise RuntimeError(f'{record.model}: {record.error}')
    rows = {
        cost.model: Cost(
            *(BATCH_SIZE / results.speed(cost.model, mode).images_per_second for mode in (TRAIN, INFERENCE)),
            saved_bytes=cost.saved_bytes[FP32])
        for cost in results.costs}
    return Costs(
        command.command_line(name), report.hardware_name(device), report.SOFTWARE, BATCH_SIZE, image_size, FP32, rows)
