"""The Triton kernels that sample rays: awkward plans, caches and rays. `test_every_operation.py` has the usual ones."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cuda import sampler
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples
from tests.helpers.cached_ball import PLAN, cached_ball, rays, uniform
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.no_synchronisation import NoSynchronisation
from tests.helpers.triton_kernels import compile_kernel, needs_triton, not_interpreted, some_capabilities

pytestmark = needs_triton
FULL = SamplePlan((24, 64, 32), 0.4, 200.0, samples=32, sharpness=400.0)


def assert_the_same(
    device: torch.device,
    plan: SamplePlan,
    cache: FieldCache,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None = None,
) -> Tensor:
    """The kernel's edges are those of torch in double precision."""
    given = [None if t is None else t.double() for t in (origins, directions, jitter)]
    number = plan.sharpness
    exact = replace(plan, sharpness=number.double().cpu() if isinstance(number, Tensor) else number)
    truth = TORCH.sample_edges(cache.double(), given[0], given[1], exact, False, given[2])
    cache = cache.float()
    moved = [None if t is None else t.to(device) for t in (origins, directions, jitter)]
    found = sampler.sample_edges(cache.to(device), moved[0], moved[1], plan, False, moved[2]).cpu()
    assert found.dtype == torch.float32 and (found.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(found.double(), truth, rtol=3e-4, atol=1e-6)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"contraction_radius": 2.5},
        {"sharpness": 4.0},
        {"sharpness": torch.tensor(4.0)},
        {"samples": 1, "candidates": (1, 1, 1)},
        {"samples": 70, "candidates": (24, 64, 32)},
        {"candidates": (0, 33, 5)},
        {"candidates": (5, 33, 0)},
        {"candidates": (5, 0, 10)},
        {"candidates": (7, 40, 17), "samples": 15},  # as many edges as lanes but one, as many draws as are made at once
        {"candidates": (7, 40, 16), "samples": 16},
    ],
    ids=str,
)
def test_plans(device: torch.device, change: dict[str, Any]) -> None:
    number = change.get("sharpness")
    if isinstance(number, Tensor):
        change = {"sharpness": number.to(device)}
    plan = replace(PLAN, **change)
    assert_the_same(device, plan, cached_ball()[0], *rays(2), uniform(2, plan.samples + 1))


@pytest.mark.parametrize("distance", [0.0, 0.4, 1.0, 40.0])
def test_cameras_in_the_sphere_and_far_from_it(device: torch.device, distance: float) -> None:
    assert_the_same(device, PLAN, cached_ball()[0], *rays(2, distance, spread=0.8))


def test_without_a_split_the_gate_does_not_dim_the_background(device: torch.device) -> None:
    cache = cached_ball(splits=False)[0]
    cache.gate.fill_(0.5)
    cache.density.fill_(0.3)
    plain = assert_the_same(device, PLAN, cache, *rays(2))
    cache.splits = True
    assert not torch.equal(plain, assert_the_same(device, PLAN, cache, *rays(2)))


def test_nothing_is_cached(device: torch.device) -> None:
    """Weights of zero everywhere: draws are spread evenly over the intervals."""
    cache = cached_ball()[0]
    cache.density.zero_()
    cache.sdf.fill_(1.0)
    assert_the_same(device, PLAN, cache, *rays(2))


def test_the_first_interval_is_opaque(device: torch.device) -> None:
    """No light reaches the others."""
    cache = cached_ball()[0]
    cache.density.fill_(1e6)
    found = assert_the_same(device, PLAN, cache, *rays(2))
    assert float(found[:, 12].max()) < 1.6  # half of the draws before the second interval's end


@pytest.mark.parametrize("hull", [True, False])
@pytest.mark.parametrize("background_only", [False, True])
def test_samples_are_those_of_torch(device: torch.device, hull: bool, background_only: bool) -> None:
    cache, probability, voted = (part.to(device) for part in cached_ball())
    given = (cache, probability, voted if hull else None, *(t.to(device) for t in rays(6)))
    plan = replace(PLAN, background_only=background_only, dense=True, margin=torch.tensor(0.08, device=device))
    truth, found = (ops.sample_rays(*given, plan, False) for ops in (TORCH, TritonOps()))
    for name in ("rays", "edges", "middle", "interval", "points", "crop"):
        torch.testing.assert_close(getattr(found, name), getattr(truth, name), rtol=3e-4, atol=1e-3, msg=name)
    for name in ("near_surface", "in_hull", "background"):
        ours, theirs = getattr(found, name), getattr(truth, name)
        assert ours.positions is None and ours.samples == theirs.samples == PLAN.samples
        assert torch.equal(ours.counted, theirs.counted)
    some = {"near_surface": not background_only, "in_hull": hull and not background_only, "background": True}
    assert {name: bool(getattr(found, name).counted.any()) for name in some} == some


def test_samples_of_no_rays(device: torch.device) -> None:
    cache, probability, hull = (part.to(device) for part in cached_ball())
    none = probability.new_empty(0, 3)
    found = sampler.sample_rays(cache, probability, hull, none, none, replace(PLAN, dense=True), True)
    assert found.edges.shape == (0, 25) and found.points.shape == (0, 3) and found.background.counted.shape == (0,)


def test_random_draws_are_those_of_torch(device: torch.device) -> None:
    cache, (origins, directions) = cached_ball()[0].to(device), (t.to(device) for t in rays(4))
    torch.manual_seed(3)
    truth = TORCH.sample_edges(cache, origins, directions, PLAN, True)
    torch.manual_seed(3)
    found = sampler.sample_edges(cache, origins, directions, PLAN, True)
    torch.testing.assert_close(found, truth, rtol=3e-4, atol=1e-6)
    assert not torch.equal(found, sampler.sample_edges(cache, origins, directions, PLAN, True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_garbage_stays_with_its_ray(device: torch.device, bad: float) -> None:
    cache, (origins, directions) = cached_ball()[0].to(device), (t.to(device) for t in rays(3))
    fine = sampler.sample_edges(cache, origins, directions, PLAN, False)
    origins[1, 0] = directions[1, 1] = bad
    found = sampler.sample_edges(cache, origins, directions, PLAN, False)
    assert torch.equal(found[::2], fine[::2])
    values = sampler.look_up(cache.sdf, origins * torch.tensor(bad), 1.0)
    assert values.shape == (3,)


def test_shapes_that_do_not_fit_are_refused() -> None:
    cache, (origins, directions) = cached_ball()[0], rays(3)
    with pytest.raises(ValueError, match="rays must be"):
        sampler.sample_edges(cache, origins, directions[:2], PLAN, False)
    with pytest.raises(ValueError, match="jitter must be"):
        sampler.sample_edges(cache, origins, directions, PLAN, True, torch.rand(3, PLAN.samples))
    with pytest.raises(ValueError, match="cubes of one size"):
        sampler.look_up(cache.sdf[:5], origins, 1.0)
    cache.gate = cache.gate[:4, :4, :4]
    with pytest.raises(ValueError, match="cubes of one size"):
        sampler.sample_edges(cache, origins, directions, PLAN, False)


def test_look_ups_with_gradients_are_torchs(device: torch.device) -> None:
    grid = cached_ball()[0].sdf.to(device)
    points = torch.tensor([[0.1, 0.2, 0.3]], device=grid.device, requires_grad=True)
    TritonOps().look_up(grid, points, 1.0).sum().backward()
    assert points.grad is not None and float(points.grad.norm()) == pytest.approx(1.0, abs=0.5)


def test_grids_of_one_cell(device: torch.device) -> None:
    """Triton would take a size of 1 for a constant."""
    cache = FieldCache(1, 1, splits=True)
    cache.density.fill_(0.1)
    assert_the_same(device, PLAN, cache, *rays(2))
    points = torch.rand(7, 3, device=device)
    assert torch.equal(sampler.look_up(cache.density, points, 2.0), torch.full_like(points[:, 0], 0.1))


@pytest.mark.parametrize("jittered", [False, True])
def test_torch_is_told_right_shapes(device: torch.device, jittered: bool) -> None:
    """By torch's own check of operators: schema, fake tensors, as traced."""
    cache, (origins, directions) = cached_ball()[0].to(device), (t.to(device) for t in rays(2))
    jitter = torch.rand(2, 4, device=device) if jittered else None
    grids = (cache.density, cache.sdf, cache.gate, torch.tensor(40.0, device=device))
    numbers = ([2, 5, 3], 0.4, 200.0, 1.0, True, False, 4)
    torch.library.opcheck(sampler._sample_edges, (origins, directions, *grids, jitter, *numbers))
    torch.library.opcheck(sampler._look_up, (cache.sdf, origins, 1.0))
    edges = torch.rand(2, 4, device=device).cumsum(1)
    hull = cache.gate if jittered else None
    given = (origins, directions, edges, cache.sdf, cache.gate, hull, torch.tensor(0.1, device=device))
    torch.library.opcheck(sampler._place_samples, (*given, 0.02, 0.999, False))


def test_the_probe_is_content_and_notices_wrong_results(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        sampler.probe(device)
    monkeypatch.setattr(sampler, "MIN_UNCROPPED", 0.9)
    with pytest.raises(RuntimeError, match="give different results"):
        sampler.probe(device)


@not_interpreted
def test_fake_tensors_need_neither_a_gpu_nor_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "triton" or name.endswith("sampler_triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with fake_cuda(), torch.device("cuda"), NoSynchronisation():
        cache, origins = FieldCache(8, 8), torch.rand(5, 3)
        for plan, stratified in ((PLAN, True), (replace(PLAN, sharpness=torch.rand(())), False)):
            edges = sampler.sample_edges(cache, origins, origins, plan, stratified)
            assert edges.shape == (5, PLAN.samples + 1) and edges.device.type == "cuda"
            found = sampler.sample_rays(
                cache, cache.sdf, cache.gate, origins, origins, replace(plan, dense=True), stratified
            )
            assert found.points.shape == (5 * PLAN.samples, 3) and found.background.counted.dtype == torch.bool
        assert sampler.look_up(cache.sdf, torch.rand(5, 7, 3), 1.0).shape == (5, 7)


@not_interpreted
@pytest.mark.seconds(6)
@some_capabilities
def test_the_kernels_compile_without_a_gpu(capability: int) -> None:
    from surface_sos_ns.ops.cuda.sampler_triton import edges_kernel, look_up_kernel, samples_kernel

    before, within, beyond = FULL.candidates
    numbers = {"d": "i32", "n": "i32", "near_fraction": "fp32", "far": "fp32", "shrink": "fp32"}
    sizes = {"BEFORE": before, "WITHIN": within, "BEYOND": beyond, "LANES": 128, "AT_ONCE": 16}
    for draws, choices in ((33, (True, True, False)), (65, (False, False, True))):
        flags = dict(zip(("JITTERED", "SPLITS", "BACKGROUND_ONLY"), choices, strict=True))
        assert len(compile_kernel(edges_kernel, numbers, sizes | flags | {"DRAWS": draws}, capability)) > 1000
    numbers = {"scale": "fp32", "n": "i32", "count": "i32"}
    assert len(compile_kernel(look_up_kernel, numbers, {"BLOCK": 256}, capability)) > 1000
    masks = dict.fromkeys(("near", "in_hull", "background"), "*i1")
    numbers = {"n": "i32", "m": "i32", "count": "i32", "min_hull": "fp32", "max_crop": "fp32"}
    for background_only in (False, True):
        sizes = {"SAMPLES": 32, "BLOCK": 256, "HULL": True, "BACKGROUND_ONLY": background_only}
        assert len(compile_kernel(samples_kernel, masks | numbers, sizes, capability)) > 1000


@pytest.mark.gpu
def test_samples_of_a_cuda_graph_are_drawn_anew() -> None:
    device = torch.device("cuda")
    cache, probability, hull = (part.to(device) for part in cached_ball())
    origins, directions = (part.to(device) for part in rays(2000))
    plan = replace(
        FULL, sharpness=torch.tensor(40.0, device=device), margin=torch.tensor(0.1, device=device), dense=True
    )

    def sample(stratified: bool) -> Samples:
        return sampler.sample_rays(cache, probability, hull, origins, directions, plan, stratified)

    sample(True), sample(False)  # compiles the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn, fixed = sample(True), sample(False)
    graph.replay()
    first, before = drawn.edges.clone(), fixed.edges.clone()
    plan.sharpness.fill_(400.0)
    origins.mul_(1.1)
    graph.replay()
    assert not torch.equal(first, drawn.edges) and not torch.equal(before, fixed.edges)
    assert torch.equal(fixed.edges, sample(False).edges)
