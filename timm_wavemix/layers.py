"""The layers of WaveMix that neither torch nor timm has.

A layer that derives the weights of its convolutions has a `fuse` method: `timm.utils.reparameterize_model` puts what it
returns, stock convolutions that hold these weights, in its place.
"""
from functools import partial
from typing import Any, Dict, Optional, Tuple, Type, Union, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import is_exportable, to_2tuple
from torch.nn.utils import fuse_conv_bn_weights
from torch.types import Device

from .wavelet import DWT2d, ZeroPad, haar_kernel, is_haar, stock_conv2d, zero_pad

__all__ = [
    'OverlapAddConvTranspose2d', 'SubPixelConvTranspose2d', 'WaveletConv2d', 'WaveletMlp', 'conv_transpose2d',
    'fuse_up', 'keep_grad_format', 'upsample2d']

torch.fx.wrap('zero_pad')  # torch.fx needs this in every module that calls the function


class FusedWaveletConv2d(nn.Module):
    """`WaveletConv2d` of stock convolutions, for inference."""

    def __init__(self, transform: nn.Module, conv: nn.Conv2d, conv_extra: Optional[nn.Conv2d]):
        super().__init__()
        self.transform = transform
        self.conv = conv
        self.conv_extra = conv_extra

    def forward(self, x: torch.Tensor, extra: Optional[torch.Tensor] = None) -> torch.Tensor:
        x = self.conv(self.transform(x))
        if self.conv_extra is not None and extra is not None:
            x = x + self.conv_extra(extra)
        return x


class WaveletConv2d(nn.Module):
    """1x1 convolution of the sub-bands of a one-level DWT, and of a map of their size stacked after them, if any.

    `(B, in_channels, H, W)` and `(B, extra_channels, ceil(H / 2), ceil(W / 2))` ->
    `(B, out_channels, ceil(H / 2), ceil(W / 2))`. The weight is that of the 1x1 convolution,
    `(out_channels, 4 * in_channels + extra_channels, 1, 1)`, with the sub-bands in the order of `wavelet.py`.

    Raises:
        ImportError, ValueError: as `wavelet.wavelet_filters`.
    """

    def __init__(
            self,
            in_channels: int,
            out_channels: int,
            wavelet: str = 'haar',
            extra_channels: int = 0,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        self.in_channels = in_channels
        self.extra_channels = extra_channels
        conv = nn.Conv2d(4 * in_channels + extra_channels, out_channels, 1, **dd)
        self.weight, self.bias = conv.weight, conv.bias
        self.dwt = None if is_haar(wavelet) else DWT2d(wavelet)

    def forward(self, x: torch.Tensor, extra: Optional[torch.Tensor] = None) -> torch.Tensor:
        # where the slice would be of everything, Core ML's converter knows no such operator
        weight = self.weight[:, :4 * self.in_channels] if self.extra_channels else self.weight
        if self.dwt is None:  # as one strided convolution, which never writes the coefficients to memory
            x = F.conv2d(zero_pad(x), haar_kernel(weight), self.bias, stride=2)
        else:
            x = F.conv2d(self.dwt(x), weight, self.bias)
        if extra is not None:
            x = x + F.conv2d(extra, self.weight[:, 4 * self.in_channels:])
        return x

    @torch.jit.ignore
    def fuse(self) -> FusedWaveletConv2d:
        """The same of stock convolutions. With Haar, the transform is part of their weights."""
        weight, extra_weight = self.weight.split([4 * self.in_channels, self.extra_channels], dim=1)
        if self.dwt is None:
            weight = haar_kernel(weight)
        conv = stock_conv2d(weight, self.bias, stride=1 if self.dwt is not None else 2)
        return FusedWaveletConv2d(
            ZeroPad() if self.dwt is None else self.dwt,
            conv,
            stock_conv2d(extra_weight, None) if self.extra_channels else None,
        ).train(self.training)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.weight.shape[0]}, extra_channels={self.extra_channels}'


class WaveletMlp(nn.Module):
    """DWT and the MLP of its level: two 1x1 convolutions on the stacked sub-bands, with an activation between.

    `(B, in_features, H, W)` -> `(B, out_features, ceil(H / 2), ceil(W / 2))`. A map `extra`, of `extra_features`
    channels and the size of the output, is stacked after the sub-bands.
    """

    def __init__(
            self,
            in_features: int,
            hidden_features: int,
            out_features: int,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            drop: Union[float, Tuple[float, float]] = 0.,
            extra_features: int = 0,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        drop1, drop2 = to_2tuple(drop)
        self.fc1 = WaveletConv2d(in_features, hidden_features, wavelet, extra_features, **dd)
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop1)
        self.fc2: nn.Module = nn.Conv2d(hidden_features, out_features, 1, **dd)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: torch.Tensor, extra: Optional[torch.Tensor] = None) -> torch.Tensor:
        x = self.fc1(x) if extra is None else self.fc1(x, extra)  # tools that hook layers want tensors
        x = self.act(x)
        x = self.drop1(x)
        x = self.fc2(x)
        x = self.drop2(x)
        return x


def _add_overlap(x: torch.Tensor, size: int, pixel_dim: int) -> torch.Tensor:
    """Add the first and the last of the `size` pixels of every cell to its neighbours', along one dimension.

    `x` has five dimensions, the second of which counts the cells.
    """
    parts = x.split([1, 1, size - 4, 1, 1], dim=pixel_dim)  # a traced one cannot be unpacked
    rest = x.shape[1] - 1
    # narrowed, then padded: no converter for phones knows negative padding
    first = parts[1] + F.pad(parts[4].narrow(1, 0, rest), [0, 0, 0, 0, 0, 0, 1, 0])
    last = parts[3] + F.pad(parts[0].narrow(1, 1, rest), [0, 0, 0, 0, 0, 0, 0, 1])
    return torch.cat([first, parts[2], last], dim=pixel_dim)


class OverlapAdd(nn.Module):
    """Puts cells of `stride + 2` pixels together so that neighbours overlap by two, and crops one at the borders.

    `(B, (stride + 2)² * C, h, w)` -> `(B, C, stride * h, stride * w)`. The channels vary fastest.
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.stride + 2
        # five dimensions at most, which converters can take, in an order that copies no map but to add, also backwards
        height = x.shape[2]
        x = x.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (size, size, -1))
        x = _add_overlap(x, size, pixel_dim=3).transpose(1, 2).flatten(3, 4).unflatten(0, (-1, height))
        x = _add_overlap(x, size, pixel_dim=2)
        return x.flatten(1, 2).unflatten(3, (self.stride, -1)).flatten(2, 3).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'stride={self.stride}'


def use_sub_pixel(in_channels: int, out_channels: int) -> bool:
    """Whether `sub_pixel_conv2d` is faster in torch, for one image and in batches (measured up to a stride of 16).

    It has up to nine times the weights, so not with timm's `exportable=True`.
    """
    return in_channels * out_channels <= 64 and not is_exportable()


def sub_pixel_conv2d(weight: torch.Tensor, bias: torch.Tensor, stride: int) -> nn.Sequential:
    """Transposed convolution with a padding of 1 and a kernel of `stride + 2` as a 3x3 one and a pixel shuffle."""
    # a kernel reaches one pixel into the cells around its own: padded to 3x3 cells and mirrored, it is the 3x3 weight
    cells = F.pad(weight, [stride - 1] * 4).unflatten(2, (3, -1)).unflatten(4, (3, -1)).flip(2, 4)
    weight = cells.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    return nn.Sequential(
        stock_conv2d(weight, bias.repeat_interleave(stride ** 2), padding=1), nn.PixelShuffle(stride))


class OverlapAddConvTranspose2d(nn.Module):
    """`nn.ConvTranspose2d` with a padding of 1 and a kernel of `stride + 2`, for large strides.

    `(B, in_channels, H, W)` -> `(B, out_channels, stride * H, stride * W)`. A matrix product makes a cell of
    `stride + 2` pixels of every input pixel, and cells overlap their neighbours by two. The general algorithm is many
    times slower on a CPU, in torch.
    """

    def __init__(
            self,
            in_channels: int,
            out_channels: int,
            stride: int,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        super().__init__()
        conv = nn.ConvTranspose2d(in_channels, out_channels, stride + 2, stride, padding=1, device=device, dtype=dtype)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight, self.bias = conv.weight, cast(nn.Parameter, conv.bias)
        self.overlap_add = OverlapAdd(stride)

    def _cell_parameters(self) -> Tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the 1x1 convolution to cells. The overlap has none: a pixel gets the bias once."""
        stride = self.overlap_add.stride
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
        bias = F.pad(self.bias.expand(stride, stride, -1), [0, 0, 1, 1, 1, 1]).flatten()
        return weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._cell_parameters()
        return self.overlap_add(F.conv2d(x, weight, bias))

    @torch.jit.ignore
    def fuse(self) -> nn.Sequential:
        """The same with the 1x1 convolution as a layer, or with few channels its sub-pixel form."""
        if use_sub_pixel(self.in_channels, self.out_channels):
            return sub_pixel_conv2d(self.weight, self.bias, self.overlap_add.stride).train(self.training)
        weight, bias = self._cell_parameters()
        return nn.Sequential(stock_conv2d(weight, bias), self.overlap_add).train(self.training)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}'


class SubPixelConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of few channels, with a padding of 1 and a kernel of `stride + 2`, for strides below 8."""

    @torch.jit.ignore
    def fuse(self) -> nn.Module:
        """Its sub-pixel form, unless the model is to be exported."""
        if not use_sub_pixel(self.in_channels, self.out_channels):
            return self
        return sub_pixel_conv2d(self.weight, cast(nn.Parameter, self.bias), self.stride[0]).train(self.training)


def conv_transpose2d(
        in_channels: int,
        out_channels: int,
        stride: int,
        device: Device = None,
        dtype: Optional[torch.dtype] = None,
) -> nn.Module:
    """Transposed convolution to `stride` times the size, with a kernel of `stride + 2`.

    With timm's `exportable=True` it is the stock layer for every stride: onnxruntime and ExecuTorch run it fast.
    """
    dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
    if stride >= 8 and not is_exportable():
        return OverlapAddConvTranspose2d(in_channels, out_channels, stride, **dd)
    conv = SubPixelConvTranspose2d if use_sub_pixel(in_channels, out_channels) else nn.ConvTranspose2d
    return conv(in_channels, out_channels, stride + 2, stride, padding=1, **dd)


def upsample2d(in_channels: int, out_channels: int, mode: str, **dd: Any) -> nn.Module:
    """To twice the size: 'deconv', a transposed convolution, or 'bilinear', which has no weights.

    Bilinear interpolation keeps the number of channels, so `in_channels` must be `out_channels` then.
    """
    if mode == 'bilinear':
        assert in_channels == out_channels, f'Bilinear up-sampling keeps {in_channels} channels.'
        return nn.Upsample(scale_factor=2, mode='bilinear')
    assert mode == 'deconv', f"Unknown upsample '{mode}': use 'deconv' or 'bilinear'."
    return conv_transpose2d(in_channels, out_channels, stride=2, **dd)


def fuse_batch_norm(conv: nn.Module, norm: nn.Module) -> Tuple[nn.Module, nn.Module]:
    """Take a batch norm of the output of a convolution, plain or transposed, into new weights, for inference.

    Returns:
        A stock convolution with both and the identity, or what was given if one of the two is of another kind.
    """
    if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) or type(norm) is not nn.BatchNorm2d or \
            norm.running_mean is None or norm.running_var is None:
        return conv, norm
    transpose = isinstance(conv, nn.ConvTranspose2d)
    kind = next(kind for kind in (SubPixelConvTranspose2d, nn.ConvTranspose2d, nn.Conv2d) if isinstance(conv, kind))
    fused = kind(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, device='meta')  # type: ignore[arg-type]
    # a new layer: the weight of the old one may be computed from others, as by pruning or weight norm
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose)
    return fused.train(conv.training), nn.Identity()


def fuse_up(mlp: nn.Module, up: nn.Module, norm: nn.Module) -> Tuple[nn.Module, nn.Module]:
    """`fuse_batch_norm` of up-sampling and its norm. Bilinear weights add to 1, so the norm may go before them."""
    if isinstance(up, nn.Upsample):
        mlp.fc2, norm = fuse_batch_norm(mlp.get_submodule('fc2'), norm)
        return up, norm
    return fuse_batch_norm(up, norm)


@torch.fx.wrap  # no tracer can follow control flow that depends on gradients
def keep_grad_format(x: torch.Tensor) -> torch.Tensor:
    """`x`, whose gradient will be in channels_last if `x` is: pooling's is in NCHW, which slows every batch norm."""
    if not torch.jit.is_scripting() and x.requires_grad and x.stride(1) == 1 and not torch.compiler.is_compiling():
        x.register_hook(partial(torch.Tensor.contiguous, memory_format=torch.channels_last))
    return x
