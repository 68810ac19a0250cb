"""2-D FNet and 2-D MLP-Mixer: what WaveMix is compared with, as its paper redesigned them for images.

Paper: `WaveMix: Resource-efficient Token Mixing for Images` - https://arxiv.org/abs/2203.03689, section 4.2.
The originals: `FNet: Mixing Tokens with Fourier Transforms` - https://arxiv.org/abs/2105.03824,
`MLP-Mixer: An all-MLP Architecture for Vision` - https://arxiv.org/abs/2105.01601

Only the blocks differ from WaveMix. The paper leaves the widths of the MLPs and the norms open: these give the
parameter counts of its table 1.
"""
from typing import Any, Dict, Optional, Tuple, Type

import torch
import torch.nn as nn
from timm.layers import DropPath, Mlp
from torch import _assert
from torch.types import Device

__all__ = ['FNet2dBlock', 'MlpMixer2dBlock']


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
        self.mlp = Mlp(dim, 2 * dim, act_layer=act_layer, drop=proj_drop, use_conv=True, **dd)
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
            size: Tuple[int, int] = (32, 32),
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
        self.mlp_height = Mlp(self.height, 2 * self.height, act_layer=act_layer, drop=proj_drop, **dd)
        self.norm_width = nn.LayerNorm(self.width, **dd)
        self.mlp_width = Mlp(self.width, 2 * self.width, act_layer=act_layer, drop=proj_drop, **dd)
        self.norm = norm_layer(dim, **dd)
        self.mlp = Mlp(dim, 2 * dim, act_layer=act_layer, drop=proj_drop, use_conv=True, **dd)
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
