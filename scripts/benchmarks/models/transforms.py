"""WaveMix blocks with something else instead of their Haar transform.

A transform takes `(B, C, H, W)` to `(B, 4 * C, ceil(H / 2), ceil(W / 2))`, four bands of C channels each, as
`timm_wavemix.dwt2d` does. A WaveMix block takes the first band of one level to the next. All other layers are the
package's, and the changed models take the state dict of the package's.
"""
from collections import OrderedDict
from typing import Callable

import torch
import torch.nn.functional as F
from torch import nn

from timm_wavemix.layers import WaveletMlp
from timm_wavemix.wavelet import LLSubband, zero_pad
from timm_wavemix.wavemix import WaveMixBlock

Transform = Callable[[int], nn.Module]  # makes a transform of this many channels


class AveragePooling(nn.Module):
    """Haar's LL band alone: average pooling, times 2. The other three bands are zero."""

    def __init__(self, dim: int):
        super().__init__()
        self.ll = LLSubband()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(self.ll(x), (0, 0, 0, 0, 0, 3 * x.shape[1]))


class LearnedTransform(nn.Conv2d):
    """Four 2x2 filters of stride 2 for each channel, learned. The weight is `(4 * dim, 1, 2, 2)`, band after band."""

    def __init__(self, dim: int):
        super().__init__(dim, 4 * dim, 2, stride=2, groups=dim, bias=False)
        nn.init.normal_(self.weight, std=0.5)  # as much energy as Haar's filters have, whose taps are 0.5 and -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # a depth-wise convolution expects and returns the four filters of one channel beside each other
        weight = self.weight.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
        x = F.conv2d(zero_pad(x), weight, stride=2, groups=self.groups)
        return x.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


class DenseConv2d(nn.Conv2d):
    """The 2x2 convolution of stride 2 that Haar's transform and the 1x1 convolution after it make together, learned.

    `(B, dim, H, W)` -> `(B, out_channels, ceil(H / 2), ceil(W / 2))`. Up to an orthogonal change of its weights it is
    the package's layer, initial scale and code path included.
    """

    def __init__(self, dim: int, out_channels: int):
        super().__init__(dim, out_channels, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(zero_pad(x))


def mlp_of_coefficients(mlp: WaveletMlp) -> nn.Sequential:
    """The layers and weights of the MLP, without its transform."""
    out_channels, in_channels, *_ = mlp.fc1.weight.shape
    fc1 = nn.Conv2d(in_channels, out_channels, 1, device='meta')
    fc1.weight, fc1.bias = mlp.fc1.weight, mlp.fc1.bias
    return nn.Sequential(OrderedDict(mlp.named_children(), fc1=fc1))


class TransformBlock(nn.Module):
    """The layers of a `WaveMixBlock`, with a transform of each level's own. `(B, dim, H, W)` -> `(B, dim, H, W)`."""

    def __init__(self, block: WaveMixBlock, transform: Transform):
        super().__init__()
        self.mlps = nn.ModuleList([mlp_of_coefficients(mlp) for mlp in block.mlps])
        self.ups, self.conv_dw, self.act = block.ups, block.conv_dw, block.act
        self.norm, self.drop_path = block.norm, block.drop_path
        self.transforms = nn.ModuleList([transform(block.conv_dw.in_channels) for _ in block.mlps])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        shortcut = ll = x
        outs = []
        for transform, mlp, up in zip(self.transforms, self.mlps, self.ups):
            coefficients = transform(ll)
            outs.append(up(mlp(coefficients))[..., :height, :width])
            ll = coefficients[:, :ll.shape[1]]
        x = self.act(self.conv_dw(torch.cat(outs, dim=1)))
        return shortcut + self.drop_path(self.norm(x))


def replace_transforms(model: nn.Module, transform: Transform) -> None:
    """Give the blocks of a WaveMix model another transform, in place."""
    for i, block in enumerate(model.blocks):
        model.blocks[i] = TransformBlock(block, transform)


def replace_by_dense(model: nn.Module) -> None:
    """Put `DenseConv2d` where a model has a transform and the 1x1 convolution after it, in place."""
    for module in list(model.modules()):
        if isinstance(module, WaveletMlp):
            out_channels, in_channels, *_ = module.fc1.weight.shape
            module.fc1 = DenseConv2d(in_channels // 4, out_channels)
