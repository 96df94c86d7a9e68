"""Draws by nerfacc's kernel on a CUDA device: when it is asked, and that it draws what torch draws."""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cuda import cuda_ops
from surface_sos_ns.ops.cuda.cuda_ops import CudaOps
from surface_sos_ns.ops.cuda.nerfacc_draws import nerfacc_problem
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.importance import importance_cdf
from tests.helpers.cached_ball import rays


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    nerfacc_problem.cache_clear()
    yield
    nerfacc_problem.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize("error", [ImportError("no compiler"), RuntimeError("nvcc failed"), OSError("no CUDA_HOME")])
def test_an_extension_that_does_not_load_is_told_and_replaced(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", broken)
    problem = nerfacc_problem()
    assert problem == f"nerfacc's CUDA extension does not load: {error}"
    ops = CudaOps("torch", problem)
    assert f"draws: torch ({problem})" in ops.describe()
    edges, cdf = torch.linspace(0, 1, 9)[None], torch.linspace(0, 1, 9)[None]
    assert torch.equal(ops.stratified_draws(edges, cdf, 4, False), TORCH.stratified_draws(edges, cdf, 4, False))


def emulated_importance_sampling(intervals: Any, cdfs: Tensor, count: int, stratified: bool) -> Any:
    """What the kernel in nerfacc's pdf.cu does for batched rays, in plain Python."""
    assert not stratified
    samples = torch.empty(cdfs.shape[0], count)
    for ray, (cdf, values) in enumerate(zip(cdfs.tolist(), intervals.vals.tolist(), strict=True)):
        step = (cdf[-1] - cdf[0]) / count
        for i in range(count):
            u = cdf[0] + (i + 0.5) * step
            upper = next((p for p in range(len(cdf) - 1) if cdf[p] > u), len(cdf) - 1)
            lower = max(upper - 1, 0)
            width = cdf[upper] - cdf[lower]
            share = 0.5 if width < 1e-10 else (u - cdf[lower]) / width
            samples[ray, i] = values[lower] + share * (values[upper] - values[lower])
    return None, types.SimpleNamespace(vals=samples)


def test_nerfaccs_samples_are_our_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapping onto nerfacc's call, emulating its kernel: draws at the quantiles of the strata's middles."""
    package = types.ModuleType("nerfacc")
    package.RayIntervals = lambda vals: types.SimpleNamespace(vals=vals)  # type: ignore[attr-defined]
    package.importance_sampling = emulated_importance_sampling  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfacc", package)
    edges = candidate_edges(*rays(20), (4, 16, 8), 0.4, 200.0)
    cdf = importance_cdf(torch.rand(20, 28, generator=torch.Generator().manual_seed(1)) ** 4, 0.15)
    ours, theirs = (ops.stratified_draws(edges, cdf, 25, False) for ops in (TORCH, CudaOps("torch")))
    assert torch.allclose(ours, theirs, rtol=1e-3)


def test_no_rays_are_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Tensor:
        raise AssertionError("launched a kernel for no rays")

    monkeypatch.setattr(cuda_ops.nerfacc_draws, "stratified_draws", never)
    assert CudaOps("torch").stratified_draws(torch.zeros(0, 9), torch.zeros(0, 9), 4, False).shape == (0, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_jittered_draws_increase_and_stay_near_the_middles() -> None:
    if nerfacc_problem() is not None:
        pytest.skip(str(nerfacc_problem()))
    edges = candidate_edges(*rays(500), (24, 64, 32), 0.4, 200.0).cuda()
    cdf = importance_cdf((torch.rand(500, 120, generator=torch.Generator().manual_seed(1)) ** 4).cuda(), 0.15)
    middles, jittered = (CudaOps("torch").stratified_draws(edges, cdf, 33, random) for random in (False, True))
    assert (jittered.diff(dim=-1) >= 0).all()
    assert float((jittered / middles).log().abs().mean()) < math.log(2)
