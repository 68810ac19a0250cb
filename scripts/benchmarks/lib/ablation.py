"""WaveMix blocks with something else in place of the wavelet transform: the ablation that the paper's conclusion names.

A transform takes `(B, C, H, W)` to `(B, 4 * C, ceil(H / 2), ceil(W / 2))`, four bands of C channels each, as
`timm_wavemix.dwt2d` does. A WaveMix block takes the first band of one level to the next. Every other layer is that of
the package, and the blocks take the state dict of the package's.
"""
from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Dict, Type

import torch
import torch.nn as nn
import torch.nn.functional as F

from timm_wavemix.layers import WaveletMlp
from timm_wavemix.wavelet import zero_pad
from timm_wavemix.wavemix import WaveMixBlock, WaveMixLiteBlock


class AveragePooling(nn.Module):
    """Haar's LL band alone: average pooling, times 2. The other three bands are zero."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(2 * F.avg_pool2d(zero_pad(x), 2), (0, 0, 0, 0, 0, 3 * x.shape[1]))


class LearnedTransform(nn.Conv2d):
    """Four 2x2 filters of stride 2 for each channel, learned. The weight is `(4 * dim, 1, 2, 2)`, band after band."""

    def __init__(self, dim: int):
        super().__init__(dim, 4 * dim, 2, stride=2, groups=dim, bias=False)
        nn.init.normal_(self.weight, std=0.5)  # as much energy as Haar's filters have, whose taps are 0.5 and -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # a depth-wise convolution wants, and gives, the four filters of one channel beside each other
        weight = self.weight.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
        x = F.conv2d(zero_pad(x), weight, stride=2, groups=self.groups)
        return x.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def mlp_of_coefficients(mlp: WaveletMlp, **before: nn.Module) -> nn.Sequential:
    """The layers and weights of the MLP, after other layers and without its own transform."""
    out_channels, in_channels, *_ = mlp.fc1.weight.shape
    fc1 = nn.Conv2d(in_channels, out_channels, 1, device='meta')
    fc1.weight, fc1.bias = mlp.fc1.weight, mlp.fc1.bias
    return nn.Sequential(OrderedDict(before, **dict(mlp.named_children(), fc1=fc1)))


class TransformBlock(WaveMixBlock):
    """`WaveMixBlock` with a transform of each level's own. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Args:
        dim: Channels.
        transform: Makes a transform of so many channels.
        levels, kwargs: The other arguments of `WaveMixBlock`; its wavelet remains unused.
    """

    def __init__(self, dim: int, transform: Callable[[int], nn.Module], levels: int = 4, **kwargs: Any):
        super().__init__(dim, levels, **kwargs)
        self.mlps = nn.ModuleList([mlp_of_coefficients(mlp) for mlp in self.mlps])
        self.transforms = nn.ModuleList([transform(dim) for _ in range(levels)])

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


class TransformLiteBlock(WaveMixLiteBlock):
    """`WaveMixLiteBlock` with another transform. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Args:
        dim: Channels.
        transform: Makes a transform of so many channels, here a quarter of `dim`.
        kwargs: The other arguments of `WaveMixLiteBlock`; its wavelet remains unused.
    """

    def __init__(self, dim: int, transform: Callable[[int], nn.Module], **kwargs: Any):
        super().__init__(dim, **kwargs)
        self.mlp = mlp_of_coefficients(self.mlp, transform=transform(dim // 4))


class DenseConv2d(nn.Conv2d):
    """The 2x2 convolution of stride 2 that Haar's transform and the 1x1 convolution after it make together, learned.

    `(B, dim, H, W)` -> `(B, out_channels, ceil(H / 2), ceil(W / 2))`. Up to an orthogonal change of its weights it is
    the package's layer, initial scale and code path included.
    """

    def __init__(self, dim: int, out_channels: int):
        super().__init__(dim, out_channels, 2, stride=2)

    def forward(self, x: torch.Tensor, extra: None = None) -> torch.Tensor:  # cascaded blocks alone have an extra
        return super().forward(zero_pad(x))


def dense_block(block: Type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """A block of the package with `DenseConv2d` in place of each transform and the 1x1 convolution after it."""
    result = block(*args, **kwargs)
    for module in result.modules():
        if isinstance(module, WaveletMlp):
            module.fc1 = DenseConv2d(module.fc1.in_channels, module.fc2.in_channels)
    return result


def variants(block: Type[nn.Module]) -> Dict[str, Dict[str, Any]]:
    """Arguments of a WaveMix model for each variant of its block, `TransformBlock` or `TransformLiteBlock`."""
    package_block, = block.__bases__
    return {
        'haar': {},
        'db2': dict(wavelet='db2'),
        'average_pooling': dict(block=partial(block, transform=AveragePooling)),
        'learned': dict(block=partial(block, transform=LearnedTransform)),
        'dense': dict(block=partial(dense_block, package_block)),
    }
