"""The variants of WaveMix-16/5 in the ablation, in groups: what the paper's sections 3.2, 3.3 and 6 argue or ask for.

Each is the package's model with other arguments, or with one kind of layer of its blocks replaced. In every WaveMix
block of 16 channels and 4 levels a level has 4 of the channels.
"""
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Optional

import torch
from torch import nn

from scripts.benchmarks.models.transforms import (
    AveragePooling,
    LearnedTransform,
    replace_by_dense,
    replace_transforms,
)
from timm_wavemix import IDWT2d


class Variant(NamedTuple):
    """How a model of the ablation differs from the package's."""
    kwargs: Dict[str, Any] = {}  # for `timm.create_model`
    change: Optional[Callable[[nn.Module], None]] = None  # of the model, in place


class InverseTransform(nn.Module):
    """Inverse Haar transform over some levels, from the sub-bands of the coarsest. The details of the others are zero.

    `(B, 4 * C, h, w)` -> `(B, C, 2 ** levels * h, 2 ** levels * w)`.
    """

    def __init__(self, levels: int):
        super().__init__()
        self.idwt = IDWT2d()
        # the inverse of LL alone: each pixel of a 2x2 cell is half of it
        self.scale = 0.5 ** (levels - 1)
        self.rest = nn.Upsample(scale_factor=2 ** (levels - 1)) if levels > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.idwt(x) * self.scale)


def bilinear(level: int) -> nn.Module:
    return nn.Upsample(scale_factor=2 ** level, mode='bilinear')


def replace_ups(model: nn.Module, up: Callable[[int], nn.Module]) -> None:
    """Bring each level, from 1, back to full size by another layer, in place."""
    for block in model.blocks:
        block.ups = nn.ModuleList([up(i + 1) for i in range(len(block.ups))])


def remove_depthwise(model: nn.Module) -> None:
    for block in model.blocks:
        block.conv_dw = nn.Identity()


def share_mlps(model: nn.Module) -> None:
    """Let all levels of a block use the MLP of its first, in place."""
    for block in model.blocks:
        block.mlps = nn.ModuleList([block.mlps[0]] * len(block.mlps))


REFERENCE = Variant()
GROUPS = {
    'Up-sampling': {
        # four sub-bands for each of a level's 4 channels are the 16 channels that the MLP has
        'inverse_dwt': Variant(change=partial(replace_ups, up=InverseTransform)),
        # which keeps the channels: the MLP, with as many hidden ones as the reference, gives 4
        'bilinear': Variant(dict(ff_dim=4, mlp_ratio=4.), partial(replace_ups, up=bilinear)),
    },
    'Layers': {
        'no_conv_dw': Variant(change=remove_depthwise),
        'mlp_ratio_2': Variant(dict(mlp_ratio=2.)),
        'mlp_ratio_4': Variant(dict(mlp_ratio=4.)),
        'shared_mlp': Variant(change=share_mlps),
    },
    'Dropout': {f'dropout_{rate}': Variant(dict(proj_drop_rate=rate)) for rate in (0.1, 0.3, 0.5)},
    'Levels': {f'{levels}_levels': Variant(dict(levels=levels)) for levels in (1, 2, 3, 5)},
    'Transforms': {
        **{wavelet: Variant(dict(wavelet=wavelet)) for wavelet in ('db2', 'sym4', 'bior2.2')},
        'average_pooling': Variant(change=partial(replace_transforms, transform=AveragePooling)),
        'learned': Variant(change=partial(replace_transforms, transform=LearnedTransform)),
        'dense': Variant(change=replace_by_dense),
    },
    'WaveMix-Lite': {
        'lite_equal_width': Variant(dict(block_type='lite')),
        'lite_equal_params': Variant(dict(block_type='lite', dim=41)),  # of all widths the nearest, 1.7 % below
    },
}
