"""Other implementations of WaveMix, which the efficiency benchmark times and the tests compare with.

They need pytorch_wavelets and the authors' package `wavemix`: `pip install --group baselines`.
"""
import sys
from collections import OrderedDict
from types import ModuleType
from typing import Any

import numpy as np
import timm
import torch
import torch.nn as nn

import timm_wavemix  # noqa: F401  registers the models


class PlainBlock(nn.Module):
    """The WaveMix block of the paper's section 3.2, line by line, on the DWT of pytorch_wavelets.

    Goes where `timm_wavemix.wavemix.WaveMixBlock` goes, and takes its state dict. `levels` must divide `dim`.
    """

    def __init__(self, dim: int, levels: int = 4, proj_drop: float = 0.):
        from pytorch_wavelets import DWTForward
        super().__init__()
        self.mlps = nn.ModuleList([
            nn.Sequential(OrderedDict(
                fc1=nn.Conv2d(4 * dim, dim, 1),
                act=nn.GELU(),
                drop1=nn.Dropout(proj_drop),
                fc2=nn.Conv2d(dim, dim, 1),
                drop2=nn.Dropout(proj_drop),
            ))
            for _ in range(levels)])
        self.ups = nn.ModuleList([
            nn.ConvTranspose2d(dim, dim // levels, 2 ** level + 2, stride=2 ** level, padding=1)
            for level in range(1, levels + 1)])
        self.conv_dw = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.act = nn.GELU()
        self.norm = nn.BatchNorm2d(dim)
        self.dwt = DWTForward(J=1, wave='db1', mode='zero')
        for name, taps in list(self.dwt.named_buffers()):  # constants that have no place among the weights
            self.dwt.register_buffer(name, taps, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ll, outs = x, []
        for mlp, up in zip(self.mlps, self.ups):
            ll, (highs,) = self.dwt(ll)
            outs.append(up(mlp(torch.cat([ll, *highs.unbind(2)], dim=1))))
        return x + self.norm(self.act(self.conv_dw(torch.cat(outs, dim=1))))


def plain_model(name: str) -> nn.Module:
    """One of our WaveMix models, 10 classes, with `PlainBlock` instead of our block."""
    model = timm.create_model(name, num_classes=10)
    model.blocks = nn.Sequential(*[PlainBlock(block.conv_dw.in_channels, len(block.mlps)) for block in model.blocks])
    return model


def authors_model(device: torch.device, **kwargs: Any) -> nn.Module:
    """A classifier of the authors' package `wavemix`."""
    try:
        import numpy.lib.function_base  # noqa: F401
    except ImportError:  # gone in NumPy 2; wavemix imports a function from it that it never calls
        module = ModuleType('numpy.lib.function_base')
        module.hamming = np.hamming
        sys.modules[module.__name__] = module
    import wavemix
    from wavemix.classification import WaveMix
    for transform in wavemix.xf1, wavemix.xf2, wavemix.xf3, wavemix.xf4:  # of all models, on the GPU if there is one
        transform.to(device)
    return WaveMix(**kwargs).to(device)


def authors_lite_model(dim: int, depth: int, device: torch.device) -> nn.Module:
    """The authors' WaveMix-Lite model, 10 classes, with the stem of the paper, no dropout."""
    return authors_model(
        device,
        num_classes=10,
        depth=depth,
        mult=2,
        ff_channel=dim,
        final_dim=dim,
        dropout=0.,
        level=1,
        initial_conv='strided',
        stride=1,
    )
