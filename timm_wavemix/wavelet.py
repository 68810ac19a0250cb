"""One level of the 2-D discrete wavelet transform (DWT), the token mixer of WaveMix (arXiv 2203.03689, section 3.2).

The contract of everything here:

* An image is `(B, C, H, W)` of floating point, its coefficients are `(B, 4 * C, ceil(H / 2), ceil(W / 2))`: the
  sub-bands LL, LH, HL, HH stacked along the channels in this order, each with all C channels.
* The first letter names the filter along the width, the second the one along the height, so LH answers to horizontal
  edges. PyWavelets calls the four cA, cH, cV, cD.
* The Haar transform (`'haar'`, or `'db1'`) is orthonormal: coefficients keep the energy of the image, and a constant
  image c has LL = 2c. An odd side is zero-padded by one row at the bottom or one column at the right.
* Any other discrete wavelet takes its filters from PyWavelets (the extra `wavelets`). It is computed in periodization
  mode, where an odd side repeats its last row or column.
"""
from typing import Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import is_exportable
from torch.fx.experimental.symbolic_shapes import has_static_value

__all__ = [
    'DWT2d', 'IDWT2d', 'LLSubband', 'ZeroPad', 'crop', 'dwt2d', 'haar_kernel', 'idwt2d', 'is_haar', 'stock_conv2d',
    'stock_ll_subband', 'zero_pad']


def is_haar(wavelet: str) -> bool:
    """Whether `wavelet` names the Haar wavelet, the only one that needs no extra."""
    return wavelet == 'haar' or wavelet == 'db1'


def wavelet_filters(wavelet: str) -> Tuple[torch.Tensor, torch.Tensor]:
    """Analysis and synthesis filters, each `(2, length)` in float64 on the CPU, low-pass first, for convolutions.

    Raises:
        ImportError: `wavelet` is not Haar and the extra `wavelets` is not installed.
        ValueError: PyWavelets knows no discrete wavelet of this name.
    """
    if is_haar(wavelet):
        haar = torch.tensor([[1., 1.], [1., -1.]], dtype=torch.float64, device='cpu') * 0.5 ** 0.5
        return haar, haar
    return _pywt_filters(wavelet)


@torch.jit.unused
def _pywt_filters(wavelet: str) -> Tuple[torch.Tensor, torch.Tensor]:
    try:
        import pywt
    except ImportError as e:
        raise ImportError(
            f"wavelet='{wavelet}' needs PyWavelets: `pip install PyWavelets`, or choose 'haar' ({e}).") from e
    if wavelet not in pywt.wavelist(kind='discrete'):
        raise ValueError(
            f"Unknown wavelet '{wavelet}': choose 'haar' or another name from pywt.wavelist(kind='discrete'), "
            "such as 'db2', 'sym4' or 'bior2.2'.")
    bank = torch.tensor(pywt.Wavelet(wavelet).filter_bank, dtype=torch.float64, device='cpu')
    return bank[:2].flip(1), bank[2:]


@torch.jit.unused
def _is_dynamic(x: torch.Tensor) -> bool:
    """Whether a graph is being recorded that must hold for images of other sizes."""
    if torch.jit.is_tracing():
        return True
    return torch.compiler.is_compiling() and not (has_static_value(x.shape[-2]) and has_static_value(x.shape[-1]))


@torch.fx.wrap  # no tracer can follow control flow that depends on a size
def zero_pad(x: torch.Tensor) -> torch.Tensor:
    """Zero-pad `(B, C, H, W)` at the bottom and the right, so that its cells of 2x2 pixels hold all of it."""
    if not torch.jit.is_scripting() and _is_dynamic(x):
        return F.pad(x, (0, 1, 0, 1))  # where a side is even, what follows leaves the pad out
    pad_h, pad_w = x.shape[-2] % 2, x.shape[-1] % 2
    if pad_h + pad_w > 0:  # F.pad copies even where there is nothing to pad
        x = F.pad(x, (0, pad_w, 0, pad_h))
    return x


class ZeroPad(nn.Module):
    """`zero_pad` as a module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return zero_pad(x)


@torch.fx.wrap
def crop(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The top left `height` x `width` pixels of `(B, C, H, W)`, without what `zero_pad` has added."""
    if not torch.jit.is_tracing():
        if not torch.jit.is_scripting() and _is_dynamic(x):
            # of a slice torch.compile wants to know whether it is all of x: it would make a graph for each answer, and
            # torch.export would refuse a dynamic size
            return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        if x.shape[-2] == height and x.shape[-1] == width:
            return x  # converters stumble over a slice of everything
    return x[..., :height, :width]


def _extend(x: torch.Tensor, dim: int, border: int) -> torch.Tensor:
    """Periodic extension of one dimension at both ends, after an odd one has repeated its last entry."""
    size = x.shape[dim]
    even_size = size + size % 2
    index = torch.arange(-border, even_size + border, device=x.device) % even_size
    return x.index_select(dim, index.clamp(max=size - 1))


def _analyse(x: torch.Tensor, filters: torch.Tensor, dim: int) -> torch.Tensor:
    """The sub-bands of `filters`, `(bands, length)`, along one dimension, stacked along the channels."""
    channels = x.shape[1]
    size, stride = ([-1, 1], [2, 1]) if dim == 2 else ([1, -1], [1, 2])
    return torch.cat([
        F.conv2d(x, taps.view(size).expand(channels, 1, -1, -1), stride=stride, groups=channels)
        for taps in filters.unbind()], dim=1)


def _synthesise(coeffs: torch.Tensor, filters: torch.Tensor, dim: int) -> torch.Tensor:
    """The inverse: two sub-bands, stacked along the channels, to twice their size along one dimension."""
    channels = coeffs.shape[1] // 2
    n, length = coeffs.shape[dim], filters.shape[1]
    border = length // 4  # the coefficients from over the border that reach in
    coeffs = coeffs.index_select(dim, torch.arange(-border, n + border, device=coeffs.device) % n)
    size, stride = ([-1, 1], [2, 1]) if dim == 2 else ([1, -1], [1, 2])
    low, high = [
        F.conv_transpose2d(band, taps.view(size).expand(channels, 1, -1, -1), stride=stride, groups=channels)
        for band, taps in zip(coeffs.split(channels, dim=1), filters.unbind())]
    return (low + high).narrow(dim, 2 * border + length // 2 - 1, 2 * n)


@torch.fx.wrap  # nor loops over the filters
def _dwt2d(x: torch.Tensor, filters: torch.Tensor, haar: bool) -> torch.Tensor:
    if not x.is_floating_point():
        raise ValueError(f'The transform takes floating point, not {x.dtype}: convert the images first.')
    if x.dim() != 4:
        raise ValueError(f'The transform takes images (B, C, H, W), not {x.dim()} dimensions: reshape them first.')
    taps = filters.to(x.device, x.dtype)
    if haar:
        x = zero_pad(x)
    else:
        border = taps.shape[1] // 2 - 1
        x = _extend(_extend(x, 2, border), 3, border)
    return _analyse(_analyse(x, taps, 2), taps, 3)


@torch.fx.wrap
def _idwt2d(coeffs: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    if not coeffs.is_floating_point():
        raise ValueError(f'The transform takes floating point, not {coeffs.dtype}: convert the coefficients first.')
    if coeffs.dim() != 4:
        raise ValueError(f'Coefficients are (B, 4 * C, h, w), not {coeffs.dim()} dimensions: reshape them first.')
    if coeffs.shape[1] % 4 != 0:
        raise ValueError(f'Coefficients need 4 * C channels (LL, LH, HL, HH), not {coeffs.shape[1]}.')
    taps = filters.to(coeffs.device, coeffs.dtype)
    return _synthesise(_synthesise(coeffs, taps, 3), taps, 2)


def dwt2d(x: torch.Tensor, wavelet: str = 'haar') -> torch.Tensor:
    """Forward transform: image `(B, C, H, W)` -> coefficients `(B, 4 * C, ceil(H / 2), ceil(W / 2))`.

    Raises:
        ValueError: `x` is of an integer type, or not of four dimensions.
        ImportError, ValueError: as `wavelet_filters`.
    """
    return _dwt2d(x, wavelet_filters(wavelet)[0], is_haar(wavelet))


def idwt2d(coeffs: torch.Tensor, wavelet: str = 'haar') -> torch.Tensor:
    """Inverse transform: coefficients `(B, 4 * C, h, w)` -> image `(B, C, 2 * h, 2 * w)`.

    An image with an odd side comes back with the row or column that padded it; crop it off.

    Raises:
        ValueError: `coeffs` is of an integer type, not of four dimensions, or its channels are not four sub-bands.
        ImportError, ValueError: as `wavelet_filters`.
    """
    return _idwt2d(coeffs, wavelet_filters(wavelet)[1])


def haar_kernel(weight: torch.Tensor) -> torch.Tensor:
    """What a 1x1 convolution of Haar coefficients is as a convolution of the image, with a stride of 2.

    The orthonormal transform moves to the other side of the inner product: to weight the coefficients of a 2x2 cell is
    to weight its pixels with the inverse transform of the weights. `(out, 4 * in, 1, 1)` -> `(out, in, 2, 2)`.
    """
    ll, lh, hl, hh = weight.flatten(1).chunk(4, dim=1)
    pixels = [ll + lh + hl + hh, ll + lh - hl - hh, ll - lh + hl - hh, ll - lh - hl + hh]
    return torch.stack(pixels, dim=2).unflatten(2, (2, 2)) / 2


def stock_conv2d(
        weight: torch.Tensor, bias: Optional[torch.Tensor], stride: int = 1, padding: int = 0, groups: int = 1,
) -> nn.Conv2d:
    """`nn.Conv2d` that holds copies of these."""
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(
        groups * in_channels, out_channels, (height, width), stride, padding, groups=groups,
        device='meta')  # which initializes nothing
    conv.weight = nn.Parameter(weight.detach().clone())
    conv.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return conv


class _Wavelet2d(nn.Module):
    """Looks up the filters of a wavelet once. They are not a buffer: `to_empty` would lose it, no checkpoint has it."""

    def __init__(self, wavelet: str = 'haar'):
        super().__init__()
        self.wavelet = wavelet
        self.analysis, self.synthesis = wavelet_filters(wavelet)

    def extra_repr(self) -> str:
        return repr(self.wavelet)


class DWT2d(_Wavelet2d):
    """`dwt2d` as a module that looks up its filters once.

    Raises:
        ImportError, ValueError: as `wavelet_filters`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _dwt2d(x, self.analysis, is_haar(self.wavelet))


class IDWT2d(_Wavelet2d):
    """`idwt2d` as a module that looks up its filters once.

    Raises:
        ImportError, ValueError: as `wavelet_filters`.
    """

    def forward(self, coeffs: torch.Tensor) -> torch.Tensor:
        return _idwt2d(coeffs, self.synthesis)


class LLSubband(_Wavelet2d):
    """The LL sub-band alone, the input of the next level: `(B, C, H, W)` -> `(B, C, ceil(H / 2), ceil(W / 2))`.

    Raises:
        ImportError, ValueError: as `wavelet_filters`.
    """

    def __init__(self, wavelet: str = 'haar'):
        super().__init__(wavelet)
        self.exportable = is_exportable()  # timm's onnx_export.py reparameterizes after the setting has ended

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if is_haar(self.wavelet):
            return 2 * F.avg_pool2d(zero_pad(x), 2)
        return _dwt2d(x, self.analysis[:1], False)


def stock_ll_subband(ll: nn.Module, like: torch.Tensor) -> nn.Module:
    """`LLSubband` with Haar as a stock convolution, if the model is to be exported; otherwise `ll` itself.

    For one image, pooling is faster in torch, and the convolution in onnxruntime.

    Args:
        ll: The layer.
        like: A weight of as many output channels as its input has, on the device and of the dtype wanted.
    """
    if not isinstance(ll, LLSubband) or not is_haar(ll.wavelet) or not (ll.exportable or is_exportable()):
        return ll
    conv = stock_conv2d(like.new_full((like.shape[0], 1, 2, 2), 0.5), None, stride=2, groups=like.shape[0])
    return nn.Sequential(ZeroPad(), conv.requires_grad_(False)).train(ll.training)
