"""One step of a model: in training, forward and backward; in inference, forward."""
import torch
from torch import nn

MODES = TRAIN, INFERENCE = 'train', 'inference'
PRECISIONS = FP32, BF16 = 'fp32', 'bf16'
MEMORY_FORMATS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == BF16)


def step(model: nn.Module, x: torch.Tensor, mode: str, precision: str = FP32) -> None:
    with autocast(x.device, precision), torch.inference_mode(mode == INFERENCE):
        out = model(x)
    if mode == TRAIN:
        out.backward(torch.ones_like(out))
        model.zero_grad()
