"""The transform against PyWavelets, and through every way torch has to run a function."""
import sys

import numpy as np
import onnxruntime
import pytest
import pywt
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timm_wavemix import DWT2d, IDWT2d, dwt2d, idwt2d
from timm_wavemix.wavelet import LLSubband

sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 33), st.integers(1, 33))
OTHER_WAVELETS = [name for name in pywt.wavelist(kind='discrete') if name not in ('haar', 'db1')]


def images(size, dtype=torch.float64, seed=0):
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ll_subband(x, wavelet='haar'):
    return LLSubband(wavelet)(x)


def pywt_dwt2d(x, wavelet, mode):
    ll, (lh, hl, hh) = pywt.dwt2(x.numpy(), wavelet, mode)
    return torch.from_numpy(np.concatenate([ll, lh, hl, hh], axis=1))


def assert_close(actual, expected, tol):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tol)


@given(sizes)
@settings(deadline=None)
def test_equals_pywavelets(size):
    x = images(size)
    coeffs = pywt_dwt2d(x, 'haar', 'zero')
    assert_close(dwt2d(x), coeffs, 1e-12)
    assert_close(ll_subband(x), coeffs[:, :size[1]], 1e-12)


@given(sizes)
@settings(deadline=None)
def test_inverse_reconstructs_and_energy_is_kept(size):
    x, coeffs = images(size), images((size[0], 4 * size[1], *size[2:]))
    assert_close(idwt2d(dwt2d(x))[..., :size[2], :size[3]], x, 1e-12)
    assert_close(dwt2d(idwt2d(coeffs)), coeffs, 1e-12)
    assert_close(dwt2d(x).square().sum(), x.square().sum(), 1e-9)


def test_sub_band_order_and_scale():
    horizontal_edges = torch.tensor([1., -1.]).view(1, 1, 2, 1).repeat(1, 1, 2, 4)
    assert dwt2d(torch.ones(1, 1, 2, 2)).flatten().tolist() == pytest.approx([2, 0, 0, 0], abs=1e-6)
    for image, peaks in (horizontal_edges, [0, 2, 0, 0]), (horizontal_edges.mT, [0, 0, 2, 0]):
        assert dwt2d(image).abs().amax(dim=(0, 2, 3)).tolist() == pytest.approx(peaks, abs=1e-6)


@pytest.mark.parametrize('size', [(2, 2, 4, 6), (1, 3, 5, 3)])
def test_gradients(size):
    x = images(size).requires_grad_()
    assert torch.autograd.gradcheck(dwt2d, x)
    assert torch.autograd.gradgradcheck(dwt2d, x)
    assert torch.autograd.gradcheck(idwt2d, dwt2d(x).detach().requires_grad_())
    assert torch.autograd.gradcheck(ll_subband, x)


@pytest.mark.parametrize('wavelet', OTHER_WAVELETS)
@given(size=sizes)
@example(size=(1, 1, 1, 1))
@settings(deadline=None, max_examples=5)
def test_other_wavelets_equal_pywavelets(wavelet, size):
    x = images(size)
    coeffs = pywt_dwt2d(x, wavelet, 'periodization')
    assert_close(dwt2d(x, wavelet), coeffs, 1e-11)
    assert_close(ll_subband(x, wavelet), coeffs[:, :size[1]], 1e-11)
    bands = coeffs.numpy()
    ll, *highs = np.split(bands, 4, axis=1)
    assert_close(idwt2d(coeffs, wavelet), torch.from_numpy(pywt.idwt2((ll, highs), wavelet, 'periodization')), 1e-11)


def test_db1_is_haar():
    x = images((1, 2, 5, 7))
    assert torch.equal(dwt2d(x, 'db1'), dwt2d(x, 'haar'))
    assert torch.equal(idwt2d(dwt2d(x), 'db1'), idwt2d(dwt2d(x), 'haar'))


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.recent_torch)])
@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
def test_autocast(dtype, wavelet):
    x = images((1, 2, 7, 8), torch.float32).requires_grad_()
    with torch.autocast('cpu', dtype):
        coeffs = dwt2d(x.to(dtype), wavelet)
        coeffs.float().square().sum().backward()
    torch.testing.assert_close(coeffs.double(), dwt2d(x.double(), wavelet), rtol=0.02, atol=0.05)
    assert x.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
def test_cuda_equals_cpu(wavelet):
    x = images((2, 3, 33, 47))
    assert_close(dwt2d(x.cuda(), wavelet).cpu(), dwt2d(x, wavelet), 1e-12)


@pytest.mark.parametrize('size', [(2, 3, 8, 8), (2, 3, 5, 7)])
def test_torchscript_of_the_functions(size):
    x = images(size)
    assert torch.equal(torch.jit.script(dwt2d)(x), dwt2d(x))
    assert torch.equal(torch.jit.script(idwt2d)(dwt2d(x)), idwt2d(dwt2d(x)))


class RoundTrip(torch.nn.Module):
    def __init__(self, wavelet):
        super().__init__()
        self.dwt, self.idwt, self.ll = DWT2d(wavelet), IDWT2d(wavelet), LLSubband(wavelet)

    def forward(self, x):
        coeffs = self.dwt(x)
        return coeffs, self.idwt(coeffs), self.ll(x)


@pytest.fixture(params=['haar', 'db2', 'bior2.2'])
def round_trip(request):
    return RoundTrip(request.param)


def assert_all_close(actual, expected, tol=1e-5):
    for a, b in zip(actual, expected):
        assert_close(torch.as_tensor(a), b, tol)


def test_modules_give_what_the_functions_give(round_trip):
    x = images((2, 3, 5, 8), torch.float32)
    coeffs, image, _ = round_trip(x)
    assert_close(coeffs, dwt2d(x, round_trip.dwt.wavelet), 1e-6)
    assert_close(image, idwt2d(coeffs, round_trip.dwt.wavelet), 1e-6)
    assert not round_trip.state_dict()  # filters are no weights


def test_modules_made_on_the_meta_device_need_no_filling(round_trip):
    x = images((2, 3, 5, 8), torch.float32)
    with torch.device('meta'):
        empty = RoundTrip(round_trip.dwt.wavelet)
    assert_all_close(empty(x), round_trip(x))


@pytest.mark.parametrize('round_trip', ['haar', pytest.param('bior2.2', marks=pytest.mark.slow)], indirect=True)
@pytest.mark.recent_torch
def test_one_graph_compiles_for_all_sizes(round_trip):
    compiled = torch.compile(round_trip, fullgraph=True, dynamic=True, backend='aot_eager')
    for size in ((2, 3, 8, 8), (2, 3, 5, 7), (3, 3, 6, 9)):
        x = images(size, torch.float32)
        assert_all_close(compiled(x), round_trip(x))


@pytest.mark.parametrize('round_trip', ['bior2.2'], indirect=True)
@pytest.mark.recent_torch
def test_onnx(round_trip, tmp_path):
    x = images((2, 3, 5, 8), torch.float32)
    torch.onnx.export(round_trip, (x,), tmp_path / 'dwt.onnx', dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / 'dwt.onnx')
    assert_all_close(session.run(None, {session.get_inputs()[0].name: x.numpy()}), round_trip(x))


@pytest.mark.parametrize('transform', [dwt2d, idwt2d, DWT2d(), IDWT2d()], ids=['dwt2d', 'idwt2d', 'DWT2d', 'IDWT2d'])
@pytest.mark.parametrize('shape, dtype, named', [
    ((1, 4, 2, 2), torch.uint8, 'torch.uint8'),
    *((shape, torch.float32, str(len(shape))) for shape in [(2, 2), (4, 2, 2), (1, 1, 4, 2, 2)])], ids=str)
def test_integers_and_other_dimensions_than_four_are_refused(transform, shape, dtype, named):
    with pytest.raises(ValueError, match=named):
        transform(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize('wavelet', ['haarr', 'morl'])  # the latter is continuous
def test_a_wavelet_that_is_unknown_or_not_discrete_is_named(wavelet):
    with pytest.raises(ValueError, match=wavelet):
        dwt2d(torch.zeros(1, 1, 2, 2), wavelet)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pywt', None)
    with pytest.raises(ImportError, match='PyWavelets'):
        dwt2d(torch.zeros(1, 1, 2, 2), 'db2')
    dwt2d(torch.zeros(1, 1, 2, 2))  # Haar needs no extra


def test_coefficients_that_are_no_sub_bands_are_refused():
    with pytest.raises(ValueError, match='6'):
        idwt2d(torch.zeros(1, 6, 2, 2))
