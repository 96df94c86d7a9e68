"""The compiled CPU functions against torch, numpy and finite differences."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.hash_grid import GridLayout
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.ops.cpu import dense, simd, threads
from surface_sos_ns.ops.cpu.grid import BLOCK
from surface_sos_ns.training.optimizer import SparseAdam

LAYOUT = GridLayout(levels=5, features=2, log2_entries=10, base_resolution=4, max_resolution=37)
COUNTS = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7]


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


# ------------------------------------------------------------------ fields against their torch twins


def _twins(make) -> list[nn.Module]:
    """The same field compiled and in torch, in a state where every part has a say."""
    torch.manual_seed(0)
    compiled, twin = make("numba"), make("torch")
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    twin.load_state_dict(compiled.state_dict())
    return [compiled, twin]


def _compare(fields: list[nn.Module], evaluate, inputs: list[Tensor]) -> None:
    """Outputs, and the gradients of a random weighting of them to parameters and inputs."""
    results = []
    for field in fields:
        given = [t.clone().requires_grad_() for t in inputs]
        outputs = [o for o in evaluate(field, *given) if o is not None]
        generator = torch.Generator().manual_seed(1)
        loss = sum((o * torch.randn(o.shape, generator=generator)).sum() for o in outputs)
        wanted = [*field.parameters(), given[0]]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        results.append(
            [*outputs, *(torch.zeros_like(w) if g is None else g for g, w in zip(gradients, wanted, strict=True))]
        )
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        scale = float(theirs.detach().abs().max()) if theirs.numel() else 1.0
        assert torch.allclose(ours, theirs, atol=2e-5 * max(scale, 1e-3), rtol=0)


def _points(count: int) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(2)) * 1.9 - 0.95


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("count", COUNTS)
def test_the_sdf_field(count, normals, _threads):
    fields = _twins(lambda backend: SDFField(LAYOUT, 5, 1.0, 0.5, 16, backend))
    _compare(fields, lambda field, p: tuple(field(p, normals)), [_points(count)])


@pytest.mark.parametrize("count", COUNTS)
def test_the_density_field(count, _threads):
    fields = _twins(lambda backend: DensityField(LAYOUT, 7, 1.0, -1.0, 16, backend))
    _compare(fields, lambda field, p: field(p), [_points(count)])


def test_the_label_field():
    fields = _twins(lambda backend: LabelField(LAYOUT, 8, backend))
    _compare(fields, lambda field, p: (field(p),), [_points(333)])


@pytest.mark.parametrize("predict_alpha", [True, False])
@pytest.mark.parametrize("count", COUNTS)
def test_the_colour_net(count, predict_alpha, _threads):
    fields = _twins(lambda backend: ColourNet(9, 16, predict_alpha, backend))
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 9, generator=generator)
    directions = nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    _compare(fields, lambda field, x: field(x, directions), [inputs])


def test_threads_do_not_change_a_bit():
    before, results = threads.thread_count(), []
    try:
        for count in (1, 4):
            threads.set_thread_count(count)
            field = _twins(lambda backend: SDFField(LAYOUT, 5, 1.0, 0.5, 16, backend))[0]
            surface = field(_points(5000))
            (surface.sdf.sum() + surface.normal.square().sum() + surface.geometry.square().sum()).backward()
            results.append([surface.sdf, surface.normal, *(p.grad for p in field.parameters())])
    finally:
        threads.set_thread_count(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        SDFField(LAYOUT, 5, hidden=6, backend="numba")(_points(3))
    with pytest.raises(ValueError, match="multiple of 4"):
        ColourNet(9, 6, backend="numba")(torch.zeros(2, 9), torch.zeros(2, 3))


# ------------------------------------------------------------------ optimiser


def _adam_runs(compiled: bool, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The same gradients for our Adam and torch's; returns both parameters."""
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, gradients[0].numel()).view_as(gradients[0])) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-15}
    optimisers = (SparseAdam([ours], **settings, compiled=compiled), torch.optim.Adam([theirs], **settings))
    for gradient in gradients:
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("compiled", [True, False])
def test_where_there_is_a_gradient_it_is_adam(compiled):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = _adam_runs(compiled, [torch.randn(70, 2, generator=generator) for _ in range(20)])
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_where_there_is_none_nothing_moves(compiled):
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    ours, theirs = _adam_runs(compiled, [first, second, second])
    # Dense Adam goes on moving the first element after its gradient has ended; ours moved it once, by the rate.
    assert torch.allclose(ours[0, 0], torch.tensor(-1.1))
    assert theirs[0, 0] < -1.15
    assert ours[0, 1] < 1.0


def test_the_optimisers_state_survives_a_checkpoint():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, 2, generator=generator) for _ in range(6)]
    whole = nn.Parameter(torch.zeros(5, 2))
    optimiser = SparseAdam([whole])
    half, saved = None, None
    for i, gradient in enumerate(gradients):
        if i == 3:
            half, saved = nn.Parameter(whole.detach().clone()), optimiser.state_dict()
            saved = {
                "state": {k: {n: t.clone() for n, t in v.items()} for k, v in saved["state"].items()},
                "param_groups": saved["param_groups"],
            }
        whole.grad = gradient.clone()
        optimiser.step()
    resumed = SparseAdam([half])
    resumed.load_state_dict(saved)
    for gradient in gradients[3:]:
        half.grad = gradient.clone()
        resumed.step()
    assert torch.equal(whole, half)
