"""The transform against PyWavelets and pytorch_wavelets, and through every way torch has to run a function."""
import sys

import numpy as np
import onnxruntime
import pytest
import pywt
import torch
from hypothesis import given, settings, strategies as st
from pytorch_wavelets import DWTForward, DWTInverse

from timm_wavemix import dwt2d, idwt2d
from timm_wavemix.wavelet import low_pass

sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 33), st.integers(1, 33))
OTHER_WAVELETS = ['db2', 'db4', 'sym4', 'coif1', 'bior2.2', 'rbio1.3']


def images(size, dtype=torch.float64, seed=0):
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def pywt_dwt2d(x, wavelet, mode):
    ll, (lh, hl, hh) = pywt.dwt2(x.numpy(), wavelet, mode)
    return torch.from_numpy(np.concatenate([ll, lh, hl, hh], axis=1))


def assert_close(actual, expected, tol):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tol)


@given(sizes)
@settings(deadline=None)
def test_equals_pywavelets_in_float64(size):
    x = images(size)
    assert_close(dwt2d(x), pywt_dwt2d(x, 'haar', 'zero'), 1e-12)


@given(sizes)
@settings(deadline=None)
def test_equals_pytorch_wavelets_in_float32(size):
    x = images(size, torch.float32)
    ll, (highs,) = DWTForward(J=1, wave='db1', mode='zero')(x)
    assert_close(dwt2d(x), torch.cat([ll, *highs.unbind(2)], 1), 1e-6)


@given(sizes)
@settings(deadline=None)
def test_inverse_equals_pytorch_wavelets(size):
    coeffs = dwt2d(images(size, torch.float32))
    ll, *highs = coeffs.chunk(4, 1)
    expected = DWTInverse(wave='db1', mode='zero')((ll, [torch.stack(highs, 2)]))
    assert_close(idwt2d(coeffs), expected, 1e-6)


@given(sizes)
@settings(deadline=None)
def test_inverse_reconstructs_and_energy_is_kept(size):
    x = images(size)
    coeffs = dwt2d(x)
    assert_close(idwt2d(coeffs)[..., :size[2], :size[3]], x, 1e-12)
    assert_close(coeffs.square().sum(), x.square().sum(), 1e-9)


@given(sizes)
@settings(deadline=None)
def test_low_pass_is_the_ll_sub_band(size):
    x = images(size)
    assert_close(low_pass(x), pywt_dwt2d(x, 'haar', 'zero')[:, :size[1]], 1e-12)


def test_sub_band_order_and_scale():
    horizontal_edges = torch.tensor([1., -1.]).view(1, 1, 2, 1).repeat(1, 1, 2, 4)
    assert dwt2d(torch.ones(1, 1, 2, 2)).flatten().tolist() == [2, 0, 0, 0]
    assert [band.abs().max().item() for band in dwt2d(horizontal_edges).unbind(1)] == [0, 2, 0, 0]
    assert [band.abs().max().item() for band in dwt2d(horizontal_edges.mT).unbind(1)] == [0, 0, 2, 0]


@pytest.mark.parametrize('size', [(2, 2, 4, 6), (1, 3, 5, 3)])
def test_gradients(size):
    x = images(size).requires_grad_()
    assert torch.autograd.gradcheck(dwt2d, x)
    assert torch.autograd.gradgradcheck(dwt2d, x)
    assert torch.autograd.gradcheck(idwt2d, dwt2d(x).detach().requires_grad_())
    assert torch.autograd.gradcheck(low_pass, x)


@pytest.mark.parametrize('wavelet', OTHER_WAVELETS)
@given(size=sizes)
@settings(deadline=None, max_examples=20)
def test_other_wavelets_equal_pywavelets(wavelet, size):
    x = images(size)
    # pytorch_wavelets keeps its filters in float32
    assert_close(dwt2d(x, wavelet), pywt_dwt2d(x, wavelet, 'periodization'), 1e-6)
    assert_close(low_pass(x, wavelet), dwt2d(x, wavelet)[:, :size[1]], 1e-12)
    assert_close(idwt2d(dwt2d(x, wavelet), wavelet)[..., :size[2], :size[3]], x, 1e-6)


def test_db1_is_haar():
    x = images((1, 2, 5, 7))
    assert torch.equal(dwt2d(x, 'db1'), dwt2d(x, 'haar'))
    assert torch.equal(idwt2d(dwt2d(x), 'db1'), idwt2d(dwt2d(x), 'haar'))


@pytest.mark.parametrize('size', [(2, 4, 8, 8), (2, 4, 7, 5)])
@pytest.mark.parametrize('fn', [dwt2d, low_pass])
def test_channels_last(fn, size):
    x = images(size)
    assert_close(fn(x.contiguous(memory_format=torch.channels_last)), fn(x), 1e-12)


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.recent_torch)])
@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
def test_autocast(dtype, wavelet):
    x = images((1, 2, 7, 8), torch.float32).requires_grad_()
    with torch.autocast('cpu', dtype):
        coeffs = dwt2d(x.to(dtype), wavelet)
        coeffs.float().square().sum().backward()
    torch.testing.assert_close(coeffs.double(), dwt2d(x.double(), wavelet), rtol=0.02, atol=0.05)
    assert x.grad.isfinite().all()


def test_meta_device():
    x = torch.empty(2, 3, 33, 47, device='meta')
    assert dwt2d(x).shape == (2, 12, 17, 24)
    assert idwt2d(dwt2d(x)).shape == (2, 3, 34, 48)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
def test_cuda_equals_cpu(wavelet):
    x = images((2, 3, 33, 47))
    assert_close(dwt2d(x.cuda(), wavelet).cpu(), dwt2d(x, wavelet), 1e-12)


def test_torchscript():
    x = images((2, 3, 5, 8))
    assert torch.equal(torch.jit.script(dwt2d)(x), dwt2d(x))
    assert torch.equal(torch.jit.script(idwt2d)(dwt2d(x)), idwt2d(dwt2d(x)))


@pytest.mark.parametrize('size', [(2, 3, 8, 8), (2, 3, 5, 7)])
@pytest.mark.recent_torch
def test_compile_has_no_graph_break(size):
    x = images(size, torch.float32)
    compiled = torch.compile(lambda x: (dwt2d(x), idwt2d(dwt2d(x)), low_pass(x)), fullgraph=True)
    for actual, expected in zip(compiled(x), (dwt2d(x), idwt2d(dwt2d(x)), low_pass(x))):
        assert_close(actual, expected, 1e-6)


class RoundTrip(torch.nn.Module):
    def forward(self, x):
        coeffs = dwt2d(x)
        return coeffs, idwt2d(coeffs)


@pytest.mark.recent_torch
def test_export():
    x = images((2, 3, 5, 8), torch.float32)
    exported = torch.export.export(RoundTrip(), (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    x = images((4, 3, 5, 8), torch.float32)
    for actual, expected in zip(exported.module()(x), RoundTrip()(x)):
        assert torch.equal(actual, expected)


@pytest.mark.recent_torch
def test_onnx(tmp_path):
    x = images((2, 3, 5, 8), torch.float32)
    torch.onnx.export(RoundTrip(), (x,), tmp_path / 'dwt.onnx', dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / 'dwt.onnx')
    for actual, expected in zip(session.run(None, {session.get_inputs()[0].name: x.numpy()}), RoundTrip()(x)):
        assert_close(torch.from_numpy(actual), expected, 1e-6)


def test_integer_images_are_refused():
    with pytest.raises(ValueError, match='floating point, not torch.uint8'):
        dwt2d(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize('shape', [(2, 2), (4, 2, 2), (1, 1, 4, 2, 2)], ids=str)
def test_other_dimensions_than_four_are_refused(shape):
    for transform in (dwt2d, idwt2d):
        with pytest.raises(ValueError, match=rf'\(B, .*\), not {len(shape)} dimensions: reshape them'):
            transform(torch.zeros(shape))


def test_unknown_wavelet_is_named():
    with pytest.raises(ValueError, match="Unknown wavelet 'haarr'.*pywt.wavelist"):
        dwt2d(torch.zeros(1, 1, 2, 2), 'haarr')


def test_continuous_wavelet_is_refused():
    with pytest.raises(ValueError, match="Unknown wavelet 'morl'"):
        dwt2d(torch.zeros(1, 1, 2, 2), 'morl')


@pytest.mark.parametrize('missing', ['pytorch_wavelets', 'pywt'])
def test_missing_extra_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install timm-wavemix\[wavelets\]'):
        dwt2d(torch.zeros(1, 1, 2, 2), 'db2')
    dwt2d(torch.zeros(1, 1, 2, 2))  # Haar needs no extra


def test_coefficients_that_are_no_sub_bands_are_refused():
    with pytest.raises(ValueError, match=r'4 \* C channels.*not 6'):
        idwt2d(torch.zeros(1, 6, 2, 2))
