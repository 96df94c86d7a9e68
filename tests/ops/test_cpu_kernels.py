"""What compiled kernels are made of (elementary functions, threads, layers), and what they refuse."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from numba import njit

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.ops.cpu import dense, simd, threads
from surface_sos_ns.ops.cpu.grid import BLOCK
from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.layout import GridLayout

LAYOUT = GridLayout(levels=5, features=2, log2_entries=10, base_resolution=4, max_resolution=37)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def _threads(request):
    before = threads.thread_count()
    threads.set_thread_count(request.param)
    yield
    threads.set_thread_count(before)


# ------------------------------------------------------------------ elementary functions


@njit(fastmath=True, error_model="numpy")
def _apply_all(x, out):
    for i in range(x.shape[0]):
        out[0, i] = simd.exp(x[i])
        out[1, i] = simd.sigmoid(x[i])
        out[2, i] = simd.softplus(x[i])


@pytest.mark.parametrize("reach, tolerance", [(4.0, 1e-6), (80.0, 1e-5)])
def test_elementary_functions(reach, tolerance):
    x = np.linspace(-reach, reach, 10_001).astype(np.float32)
    out = np.empty((3, x.size), np.float32)
    _apply_all(x, out)
    exact = x.astype(np.float64)
    truth = (np.exp(exact), 1 / (1 + np.exp(-exact)), np.logaddexp(0, exact))
    for values, true in zip(out, truth, strict=True):
        assert np.allclose(values, true, rtol=tolerance, atol=0)


def test_elementary_functions_stay_finite():
    x = np.array([-1e30, -200.0, 200.0, 1e30], np.float32)
    out = np.empty((3, x.size), np.float32)
    _apply_all(x, out)
    assert np.isfinite(out).all()
    assert out[1].round(6).tolist() == [0, 0, 1, 1]


# ------------------------------------------------------------------ threads


@njit(nogil=True)
def _mark(first, last, out):
    for i in range(first, last):
        out[i] += 1


def test_every_item_is_done_once(_threads):
    for count in (0, 1, 2, 5, 1000):
        out = np.zeros(count)
        threads.parallel(_mark, count, out)
        assert (out == 1).all()


def test_a_failing_piece_is_reported_after_all_have_ended(_threads):
    ended = []

    def piece(first, last):
        if first == 0:
            raise RuntimeError("broken")
        time.sleep(0.02)  # pieces write to the caller's arrays: none may go on after the caller has gone on
        ended.append(first)

    with pytest.raises(RuntimeError, match="broken"):
        threads.parallel(piece, 100)
    count = len(ended)
    time.sleep(0.1)
    assert len(ended) == count


def test_several_callers_share_the_threads(_threads):
    results = [np.zeros(5000) for _ in range(6)]
    callers = [threading.Thread(target=threads.parallel, args=(_mark, 5000, out)) for out in results]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert all((out == 1).all() for out in results)


def test_a_count_of_threads_must_make_sense():
    with pytest.raises(ValueError, match="at least one"):
        threads.set_thread_count(0)


# ------------------------------------------------------------------ layers


@njit
def _layer(weight, bias, x, out):
    dense.apply(weight, bias, x, out)


@njit
def _outer(out, x, weight, bias):
    dense.add_outer(out, x, weight, bias)


def test_a_layer_and_its_gradients_are_matrix_products():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(12, 8)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    x, out = rng.normal(size=(8, BLOCK)).astype(np.float32), np.empty((12, BLOCK), np.float32)
    _layer(weight, bias, x, out)
    assert np.allclose(out, weight @ x + bias[:, None], atol=1e-5)
    by_weight, by_bias = np.ones_like(weight), np.ones_like(bias)
    _outer(out, x, by_weight, by_bias)
    assert np.allclose(by_weight, 1 + out @ x.T, rtol=1e-4, atol=1e-3)
    assert np.allclose(by_bias, 1 + out.sum(1), rtol=1e-4, atol=1e-3)


def test_padding_adds_zeros_only():
    matrix = torch.arange(1.0, 16.0).reshape(3, 5)
    result = dense.pad(matrix)
    assert result.shape == (4, 8) and result.sum() == matrix.sum()
    assert (result[:3, :5] == matrix.numpy()).all()


# ------------------------------------------------------------------ networks


def test_threads_do_not_change_a_bit():
    before, results = threads.thread_count(), []
    torch.manual_seed(0)
    field = SDFField(LAYOUT, 5, 1.0, 0.5, 16, NumbaOps())
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    points = torch.rand(5000, 3) * 1.9 - 0.95
    try:
        for count in (1, 4):
            threads.set_thread_count(count)
            field.zero_grad()
            surface = field(points)
            (surface.sdf.sum() + surface.normal.square().sum() + surface.geometry.square().sum()).backward()
            results.append([surface.sdf, surface.normal, *(p.grad for p in field.parameters())])
    finally:
        threads.set_thread_count(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        SDFField(LAYOUT, 5, hidden=6, ops=NumbaOps())(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="multiple of 4"):
        ColourNet(9, 6, ops=NumbaOps())(torch.zeros(2, 9), torch.zeros(2, 3))


def test_points_that_are_not_numbers_are_refused():
    points = torch.full((1, 3), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        SDFField(LAYOUT, 5, hidden=8, ops=NumbaOps())(points)
