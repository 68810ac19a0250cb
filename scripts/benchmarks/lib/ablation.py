"""WaveMix blocks with something else in place of the wavelet transform: the ablation that the paper's conclusion names.

A transform takes `(B, C, H, W)` to `(B, 4 * C, ceil(H / 2), ceil(W / 2))`, four bands of C channels each, as
`timm_wavemix.dwt2d` does. A WaveMix block takes the first band of one level to the next. Every other layer is that of
the package, and the blocks take the state dict of the package's.
"""
from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Type

import torch
import torch.nn as nn
import torch.nn.functional as F

from timm_wavemix.wavelet import low_pass, pad_to_even
from timm_wavemix.wavemix import WaveletMlp, WaveMixBlock, WaveMixLiteBlock


class AveragePooling(nn.Module):
    """Haar's LL band alone: average pooling, times 2. The other three bands are zero."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(low_pass(x), (0, 0, 0, 0, 0, 3 * x.shape[1]))


class LearnedTransform(nn.Conv2d):
    """Four 2x2 filters of stride 2 for each channel, learned. The weight is `(4 * dim, 1, 2, 2)`, band after band."""

    def __init__(self, dim: int):
        super().__init__(dim, 4 * dim, 2, stride=2, groups=dim, bias=False)
        nn.init.normal_(self.weight, std=0.5)  # as much energy as Haar's filters have, whose taps are 0.5 and -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # a depth-wise convolution wants, and gives, the four filters of one channel beside each other
        weight = self.weight.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
        x = F.conv2d(pad_to_even(x), weight, stride=2, groups=self.groups)
        return x.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


class DenseConv2d(nn.Conv2d):
    """The 2x2 convolution of stride 2 that Haar's transform and the 1x1 convolution after it make together, learned.

    `(B, dim, H, W)` -> `(B, out_channels, ceil(H / 2), ceil(W / 2))`. Up to an orthogonal change of its weights it is
    the package's layer, initial distribution and speed included.
    """

    def __init__(self, dim: int, out_channels: int):
        super().__init__(dim, out_channels, 2, stride=2)

    def forward(self, x: torch.Tensor, extra: Optional[torch.Tensor] = None) -> torch.Tensor:
        assert extra is None  # cascaded blocks alone have it
        return super().forward(pad_to_even(x))


def dense_block(block: Type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """A block of the package with `DenseConv2d` in place of each transform and the 1x1 convolution after it."""
    result = block(*args, **kwargs)
    for module in result.modules():
        if isinstance(module, WaveletMlp):
            module.fc1 = DenseConv2d(module.fc1.in_channels // 4, module.fc1.out_channels)
    return result


def mlp_of_coefficients(mlp: WaveletMlp) -> nn.Sequential:
    """The layers and weights of the MLP without its transform, for coefficients that are there already."""
    fc1 = nn.Conv2d(mlp.fc1.in_channels, mlp.fc1.out_channels, 1, device='meta')
    fc1.weight, fc1.bias = mlp.fc1.weight, mlp.fc1.bias
    return nn.Sequential(OrderedDict(mlp.named_children(), fc1=fc1))


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

    def _mix_channels(self, ll: torch.Tensor) -> List[torch.Tensor]:
        outs = []
        for transform, mlp in zip(self.transforms, self.mlps):
            coefficients = transform(ll)
            outs.append(mlp(coefficients))
            ll = coefficients[:, :ll.shape[1]]
        return outs


class TransformLiteBlock(WaveMixLiteBlock):
    """`WaveMixLiteBlock` with another transform. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Args:
        dim: Channels.
        transform: Makes a transform of so many channels, here a quarter of `dim`.
        kwargs: The other arguments of `WaveMixLiteBlock`; its wavelet remains unused.
    """

    def __init__(self, dim: int, transform: Callable[[int], nn.Module], **kwargs: Any):
        super().__init__(dim, **kwargs)
        self.mlp = mlp_of_coefficients(self.mlp)
        self.transform = transform(dim // 4)

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.transform(self.conv_pw(x)))


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
