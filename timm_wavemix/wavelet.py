"""One level of the 2-D discrete wavelet transform (DWT), the token mixer of WaveMix (arXiv 2203.03689, section 3.2).

The contract of every function here:

* An image is `(B, C, H, W)` of floating point, its coefficients are `(B, 4 * C, ceil(H / 2), ceil(W / 2))`: the
  sub-bands LL, LH, HL, HH stacked along the channels in this order, each with all C channels.
* The first letter names the filter along the width, the second the one along the height, so LH answers to horizontal
  edges. PyWavelets calls the four cA, cH, cV, cD.
* The Haar transform (`'haar'`, or `'db1'`) is orthonormal: coefficients keep the energy of the image, and a constant
  image c has LL = 2c. An odd side is zero-padded by one row at the bottom or one column at the right.
* Any other discrete wavelet of PyWavelets is computed by pytorch_wavelets (the extra `wavelets`) in periodization mode,
  where an odd side repeats its last row or column.
"""
import torch
import torch.nn.functional as F
from timm.layers import register_notrace_function

__all__ = ['check_wavelet', 'dwt2d', 'idwt2d', 'is_haar', 'low_pass', 'pad_to_even']


def is_haar(wavelet: str) -> bool:
    """Whether `wavelet` names the Haar wavelet, the only one that needs no extra."""
    return wavelet == 'haar' or wavelet == 'db1'


def check_wavelet(wavelet: str) -> None:
    """Check that a wavelet can be computed here.

    Raises:
        ImportError: `wavelet` is not Haar and the extra `wavelets` is not installed.
        ValueError: PyWavelets knows no discrete wavelet of this name.
    """
    if is_haar(wavelet):
        return
    try:
        import pytorch_wavelets  # noqa: F401
        import pywt
    except ImportError as e:
        raise ImportError(
            f"wavelet='{wavelet}' needs pytorch_wavelets, which `pip install timm-wavemix[wavelets]` installs; "
            f"without it only 'haar' is available ({e}).") from e
    if wavelet not in pywt.wavelist(kind='discrete'):
        raise ValueError(
            f"Unknown wavelet '{wavelet}': choose 'haar' or another name from pywt.wavelist(kind='discrete'), "
            "such as 'db2', 'sym4' or 'bior2.2'.")


def _repeat_to_filter_length(x: torch.Tensor, wavelet: str) -> torch.Tensor:
    # pytorch_wavelets is right only where the filter fits into the image. In periodization mode a smaller one can be
    # repeated: the transform of the repeated image is the repeated transform.
    import pywt
    length = pywt.Wavelet(wavelet).dec_len
    return x.repeat(1, 1, -(-length // x.shape[-2]), -(-length // x.shape[-1]))


@torch.jit.unused
def _dwt2d_periodic(x: torch.Tensor, wavelet: str) -> torch.Tensor:
    check_wavelet(wavelet)
    from pytorch_wavelets import DWTForward
    if x.shape[-2] % 2:
        x = torch.cat([x, x[..., -1:, :]], dim=-2)
    if x.shape[-1] % 2:
        x = torch.cat([x, x[..., -1:]], dim=-1)
    ll, (highs,) = DWTForward(J=1, wave=wavelet, mode='periodization').to(x)(_repeat_to_filter_length(x, wavelet))
    return torch.cat([ll, *highs.unbind(2)], dim=1)[..., :x.shape[-2] // 2, :x.shape[-1] // 2]


@torch.jit.unused
def _idwt2d_periodic(coeffs: torch.Tensor, wavelet: str) -> torch.Tensor:
    check_wavelet(wavelet)
    from pytorch_wavelets import DWTInverse
    ll, *highs = _repeat_to_filter_length(coeffs, wavelet).chunk(4, dim=1)
    x = DWTInverse(wave=wavelet, mode='periodization').to(coeffs)((ll, [torch.stack(highs, dim=2)]))
    return x[..., :2 * coeffs.shape[-2], :2 * coeffs.shape[-1]]


@register_notrace_function  # torch.fx cannot trace control flow that depends on the shape
def pad_to_even(x: torch.Tensor) -> torch.Tensor:
    """Zero-pad the odd sides of `(B, C, H, W)` by one at the bottom and the right."""
    pad_h, pad_w = x.shape[-2] % 2, x.shape[-1] % 2
    recording = False
    if not torch.jit.is_scripting():
        recording = torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    # F.pad copies even where there is nothing to pad, but a graph recorded at one size must hold for the others
    if recording or pad_h > 0 or pad_w > 0:
        x = F.pad(x, (0, pad_w, 0, pad_h))
    return x


def _interleave(even: torch.Tensor, odd: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.stack([even, odd], dim=dim).flatten(dim - 1, dim)


@register_notrace_function
def dwt2d(x: torch.Tensor, wavelet: str = 'haar') -> torch.Tensor:
    """Forward transform: image `(B, C, H, W)` -> coefficients `(B, 4 * C, ceil(H / 2), ceil(W / 2))`.

    Raises:
        ValueError: `x` is of an integer type, or not of four dimensions.
        ImportError, ValueError: as `check_wavelet`.
    """
    if not x.is_floating_point():
        raise ValueError(f'The transform takes floating point, not {x.dtype}: convert the images first.')
    if x.dim() != 4:
        raise ValueError(f'The transform takes images (B, C, H, W), not {x.dim()} dimensions: reshape them first.')
    if not is_haar(wavelet):
        return _dwt2d_periodic(x, wavelet)
    x = pad_to_even(x)
    top, bottom = x[..., ::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    low_left, low_right = low[..., ::2], low[..., 1::2]
    high_left, high_right = high[..., ::2], high[..., 1::2]
    ll, lh = low_left + low_right, high_left + high_right
    hl, hh = low_left - low_right, high_left - high_right
    return torch.cat([ll, lh, hl, hh], dim=1) / 2


@register_notrace_function
def idwt2d(coeffs: torch.Tensor, wavelet: str = 'haar') -> torch.Tensor:
    """Inverse transform: coefficients `(B, 4 * C, h, w)` -> image `(B, C, 2 * h, 2 * w)`.

    An image with an odd side comes back with the row or column that padded it; crop it off.

    Raises:
        ValueError: `coeffs` is not of four dimensions, or the channels are not four sub-bands.
        ImportError, ValueError: as `check_wavelet`.
    """
    if coeffs.dim() != 4:
        raise ValueError(f'Coefficients are (B, 4 * C, h, w), not {coeffs.dim()} dimensions: reshape them first.')
    if coeffs.shape[1] % 4 != 0:
        raise ValueError(f'Coefficients need 4 * C channels (LL, LH, HL, HH), not {coeffs.shape[1]}.')
    if not is_haar(wavelet):
        return _idwt2d_periodic(coeffs, wavelet)
    ll, lh, hl, hh = coeffs.chunk(4, dim=1)
    low = _interleave(ll + hl, ll - hl, dim=-1)
    high = _interleave(lh + hh, lh - hh, dim=-1)
    return _interleave(low + high, low - high, dim=-2) / 2


@register_notrace_function
def low_pass(x: torch.Tensor, wavelet: str = 'haar') -> torch.Tensor:
    """The LL sub-band alone, the input of the next level: `(B, C, H, W)` -> `(B, C, ceil(H / 2), ceil(W / 2))`."""
    if is_haar(wavelet):
        return 2 * F.avg_pool2d(pad_to_even(x), 2)
    return dwt2d(x, wavelet)[:, :x.shape[1]]
