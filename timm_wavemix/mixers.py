"""2-D FNet and 2-D MLP-Mixer: what WaveMix is compared with, as its paper redesigned them for images.

Paper: `WaveMix: Resource-efficient Token Mixing for Images` - https://arxiv.org/abs/2203.03689, section 4.2.
The originals: `FNet: Mixing Tokens with Fourier Transforms` - https://arxiv.org/abs/2105.03824,
`MLP-Mixer: An all-MLP Architecture for Vision` - https://arxiv.org/abs/2105.01601

Stem, pooling and classifier are those of WaveMix, only the blocks differ. What the paper leaves open, the widths of the
MLPs and the norms, are those that give the parameter counts of its table 1.
"""
from functools import partial
from typing import Any, Dict, Optional, Tuple, Type, Union

import torch
import torch.nn as nn
from timm.layers import DropPath, Mlp, to_2tuple
from timm.models import generate_default_cfgs, register_model
from torch import _assert
from torch.types import Device

from .layers import Dropout
from .wavemix import IsotropicNet, _cfg, _create_wavemix, stem_size

__all__ = ['MlpMixer2d']


def expand_mlp(dim: int, act_layer: Type[nn.Module], drop: float, **kwargs: Any) -> Mlp:
    """timm's MLP from `dim` to twice as many and back, with the dropout of the WaveMix blocks."""
    mlp = Mlp(dim, 2 * dim, act_layer=act_layer, **kwargs)
    mlp.drop1, mlp.drop2 = Dropout(drop), Dropout(drop)
    return mlp


class FNet2dBlock(nn.Module):
    """2-D FNet block, section 4.2 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    The real part of a Fourier transform over height, width and channels mixes all tokens. It is computed in float32
    for maps in half precision: hardly any device has it there, and sums over a whole map want the digits.
    """

    def __init__(
            self,
            dim: int,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        self.norm = norm_layer(dim, **dd)
        self.mlp = expand_mlp(dim, act_layer, proj_drop, use_conv=True, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # The norm takes out any scale: an orthonormal transform keeps the sum of a map in the range of float16. The
        # clone lets go of the imaginary part.
        x = torch.fft.fftn(x, dim=(1, 2, 3), norm='ortho').real.clone()
        x = self.norm(x.to(shortcut.dtype))
        x = self.mlp(x)
        return shortcut + self.drop_path(x)


class MlpMixer2dBlock(nn.Module):
    """2-D MLP-Mixer block, section 4.2 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    An MLP along the height, one along the width and one along the channels, each after a norm of its own.

    Args:
        size: Height and width of the only maps that it takes.
    """

    def __init__(
            self,
            dim: int,
            size: Tuple[int, int],
            proj_drop: float = 0.,
            drop_path: float = 0.,
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        self.height, self.width = size
        self.norm_height = nn.LayerNorm(self.height, **dd)
        self.mlp_height = expand_mlp(self.height, act_layer, proj_drop, **dd)
        self.norm_width = nn.LayerNorm(self.width, **dd)
        self.mlp_width = expand_mlp(self.width, act_layer, proj_drop, **dd)
        self.norm = norm_layer(dim, **dd)
        self.mlp = expand_mlp(dim, act_layer, proj_drop, use_conv=True, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _assert(
            (x.shape[-2] == self.height) & (x.shape[-1] == self.width),  # torch.fx traces no `and`
            f'The stem gives a map of {x.shape[-2]}x{x.shape[-1]}, the MLPs take {self.height}x{self.width}: '
            'create the model with the img_size of your images, or resize them.')
        shortcut = x
        x = x.transpose(2, 3)
        x = self.mlp_height(self.norm_height(x))
        x = x.transpose(2, 3)
        x = self.mlp_width(self.norm_width(x))
        x = self.mlp(self.norm(x))
        return shortcut + self.drop_path(x)


class MlpMixer2d(IsotropicNet):
    """2-D MLP-Mixer, section 4.2 of the paper. `(B, in_chans, *img_size)` -> `(B, num_classes)`.

    Args:
        dim: Channels of every block (the first number in the paper's names).
        depth: Number of blocks (the second number).
        img_size: Size in pixels of the only images that it takes, one number or height and width.
        stem_stride, patch_size, kwargs: The other arguments of `IsotropicNet`.
    """

    def __init__(
            self,
            dim: int,
            depth: int,
            img_size: Union[int, Tuple[int, int]] = 32,
            stem_stride: int = 1,
            patch_size: Optional[int] = None,
            **kwargs: Any,
    ):
        height, width = (stem_size(side, stem_stride, patch_size) for side in to_2tuple(img_size))
        super().__init__(
            dim, depth, partial(MlpMixer2dBlock, size=(height, width)), stem_stride, patch_size, **kwargs)


default_cfgs = generate_default_cfgs({
    'fnet2d_64_5.untrained': _cfg(),
    'fnet2d_128_5.untrained': _cfg(),
    'mlp_mixer2d_64_5.untrained': _cfg(fixed_input_size=True),
    'mlp_mixer2d_128_5.untrained': _cfg(fixed_input_size=True),
})


@register_model
def fnet2d_64_5(pretrained: bool = False, **kwargs: Any) -> IsotropicNet:
    """2D FNet-64/5 (table 1 of the paper)."""
    model_args = dict(dim=64, depth=5, block=FNet2dBlock, model_cls=IsotropicNet)
    return _create_wavemix('fnet2d_64_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def fnet2d_128_5(pretrained: bool = False, **kwargs: Any) -> IsotropicNet:
    """2D FNet-128/5 (table 1 of the paper)."""
    model_args = dict(dim=128, depth=5, block=FNet2dBlock, model_cls=IsotropicNet)
    return _create_wavemix('fnet2d_128_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def mlp_mixer2d_64_5(pretrained: bool = False, **kwargs: Any) -> MlpMixer2d:
    """2D MLP-Mixer-64/5 (table 1 of the paper)."""
    model_args = dict(dim=64, depth=5, model_cls=MlpMixer2d)
    return _create_wavemix('mlp_mixer2d_64_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def mlp_mixer2d_128_5(pretrained: bool = False, **kwargs: Any) -> MlpMixer2d:
    """2D MLP-Mixer-128/5 (table 1 of the paper)."""
    model_args = dict(dim=128, depth=5, model_cls=MlpMixer2d)
    return _create_wavemix('mlp_mixer2d_128_5', pretrained=pretrained, **dict(model_args, **kwargs))
