"""The samples of rays: where they lie, and what their lists mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.rendering.blend import blend_weights
from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.field_cache import (
    MIN_TRANSMITTANCE,
    FieldCache,
    cell_centres,
    grid_centres,
    look_up,
    look_up_nearest,
)
from surface_sos_ns.sampling.ray_samples import MIN_UNCROPPED, SamplePlan, Samples
from surface_sos_ns.sampling.selection import Selection
from tests.helpers.cached_ball import PLAN, cached_ball, rays, uniform

NUMBA = NumbaOps()
each = pytest.mark.parametrize("ops", [TORCH, NUMBA], ids=["torch", "numba"])


@pytest.fixture(autouse=True)
def thread_count() -> Iterator[None]:
    before = threads.thread_count()
    yield
    threads.set_thread_count(before)


# ------------------------------------------------------------------ where samples lie


def sampled(ops: TorchOps, plan: SamplePlan, origins: Tensor, directions: Tensor, splits: bool = True) -> Samples:
    return ops.sample_rays(*cached_ball(splits=splits), origins, directions, plan, False)


@each
def test_samples_are_the_middles_of_their_intervals(ops: TorchOps) -> None:
    origins, directions = rays(333)
    found = sampled(ops, PLAN, origins, directions)
    assert torch.allclose(found.middle, 0.5 * (found.edges[:, 1:] + found.edges[:, :-1]))
    assert torch.allclose(found.interval, found.edges.diff(dim=-1), atol=1e-5)
    points = origins[:, None] + directions[:, None] * found.middle[..., None]
    assert torch.allclose(found.points.reshape(333, 24, 3), points, atol=1e-4)  # of up to 200


@each
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_space_is_contracted_from_the_radius_on(ops: TorchOps, radius: float) -> None:
    found = sampled(ops, replace(PLAN, contraction_radius=radius), *rays(300))
    wall = 4.0 * radius  # |contracted| = 1.75
    assert float((found.middle[:, 12:] - wall).abs().median()) < 4.0 + 0.5 * wall


@each
@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("sharpness", [4.0, 400.0])
def test_the_object_draws_samples(ops: TorchOps, splits: bool, sharpness: float) -> None:
    origins, directions = rays(300)
    drawn = []
    for background_only in (False, True):
        plan = replace(PLAN, sharpness=sharpness, background_only=background_only)
        found = sampled(ops, plan, origins, directions, splits)
        cache, *_ = cached_ball(splits=splits)
        assert torch.equal(ops.sample_edges(cache, origins, directions, plan, False), found.edges)
        drawn.append(found.edges)
    assert not torch.allclose(*drawn, rtol=0.05)


@each
def test_an_object_at_the_rim_of_the_sphere_is_found(ops: TorchOps) -> None:
    cache, probability, hull = cached_ball()
    cache.density.zero_()
    cache.gate.fill_(1.0)
    place = torch.tensor([0.9, 0.0, 0.0])
    cache.sdf.copy_(((grid_centres(32, 1.0) - place).norm(dim=-1) - 0.2).reshape(cache.sdf.shape))
    origins, _ = rays(200, spread=0.0)
    aim = place + (uniform(200, 3) - 0.5) * 0.2
    directions = torch.nn.functional.normalize(aim - origins, dim=-1)
    found = ops.sample_rays(cache, probability, hull, origins, directions, PLAN, False)
    assert found.near_surface.positions.numel() > 0.4 * found.crop.numel()


@each
@pytest.mark.parametrize("label", [False, True])
def test_lists_say_where_the_fields_matter(ops: TorchOps, label: bool) -> None:
    cache, probability, hull = cached_ball()
    found = ops.sample_rays(
        cache, probability, hull if label else None, *rays(400), PLAN, False, jitter=uniform(400, 25)
    )
    points = found.points
    in_cube = (points.abs() <= 1).all(-1)
    crop = look_up(probability, points, 1.0) * in_cube
    assert torch.allclose(found.crop, crop, atol=1e-6)
    near = (look_up_nearest(cache.sdf, points, 1.0) < PLAN.margin) & (points.norm(dim=-1) < 1)
    inside = (look_up(hull, points, 1.0) * in_cube > PLAN.min_hull_probability) & label
    background = crop < 1 - MIN_UNCROPPED
    for chosen, truth in ((found.near_surface, near), (found.in_hull, inside), (found.background, background)):
        assert (chosen.positions.diff() > 0).all()
        assert len(set(chosen.positions.tolist()) ^ set(truth.nonzero()[:, 0].tolist())) <= 2  # on the border of a cell
    assert 100 < near.sum() < 0.9 * near.numel()
    assert 100 < background.sum() < 0.995 * near.numel()
    assert (inside.sum() > 100) == label


@each
def test_the_clean_plates_samples_need_no_foreground(ops: TorchOps) -> None:
    found = sampled(ops, replace(PLAN, background_only=True), *rays(50))
    assert found.near_surface.empty and found.in_hull.empty and not found.background.empty


@each
def test_without_anything_cached_samples_are_even_over_the_intervals(ops: TorchOps) -> None:
    cache = FieldCache(8, 8)
    cache.sdf.fill_(10.0)
    plan = replace(PLAN, candidates=(2, 4, 3), samples=8)
    origins, directions = rays(20)
    coarse = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    edges = ops.sample_edges(cache, origins, directions, plan, False)
    for k in range(9):  # draw k lies at k + 1/2 of 9 intervals
        assert torch.allclose(edges[:, k], 0.5 * (coarse[:, k] + coarse[:, k + 1]), rtol=1e-4)


@each
def test_nothing_is_looked_for_where_no_light_is_left(ops: TorchOps) -> None:
    """A wall in front of a wall: with next to no light behind the first, samples do not crowd at the second."""
    cache = FieldCache(64, 64)
    cache.sdf.fill_(10.0)
    origins, directions = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    plan = SamplePlan((1, 64, 1), 0.4, 200.0, samples=400, sharpness=400.0)
    z = grid_centres(64, 2.0)[:, 2].reshape(cache.density.shape)
    front, back = (z > 0.4) & (z < 0.5), (z > -0.5) & (z < -0.4)

    def at_the_back(density_of_front: float) -> int:
        cache.density.copy_(density_of_front * front + 1e3 * back)
        edges = ops.sample_edges(cache, origins, directions, plan, False)[0]
        return int(((edges > 3.4) & (edges < 3.5)).sum())

    even = (
        400 * 0.15 * 0.1 * 32 / 66
    )  # what the uniform share gives a tenth of the way through the sphere, 64 of 66 intervals
    assert at_the_back(10.0) > 5 * even
    stopping = 1.2 * -torch.log(torch.tensor(MIN_TRANSMITTANCE)).item() / 0.125  # two cells thick
    assert abs(at_the_back(stopping) - even) <= 2


def test_weights_behind_the_last_light_are_zero() -> None:
    cache, *_ = cached_ball()
    cache.density.fill_(3.0)
    origins, directions = rays(50)
    edges = candidate_edges(origins, directions, PLAN.candidates, PLAN.near_fraction, PLAN.far)
    weights = cache.interval_weights(origins, directions, edges, 400.0, background_only=True).double()
    left = torch.exp(-3.0 * (edges[:, :-1] - edges[:, :1]).double())
    stops = 1 - torch.exp(-3.0 * edges.diff(dim=-1).double())
    sure = (left / MIN_TRANSMITTANCE - 1).abs() > 1e-3
    truth = left * stops * (left >= MIN_TRANSMITTANCE)
    assert torch.allclose(weights[sure], truth[sure], rtol=1e-3, atol=1e-7)
    assert (weights == 0).any() and (weights > 0).any()


@each
def test_random_draws_stay_in_their_strata_and_differ(ops: TorchOps) -> None:
    cache, *_ = cached_ball()
    origins, directions = rays(64)
    first, second = (ops.sample_edges(cache, origins, directions, PLAN, True) for _ in range(2))
    assert not torch.equal(first, second)
    least, most = (
        ops.sample_edges(cache, origins, directions, PLAN, False, torch.full((64, 25), at)) for at in (0.0, 1 - 1e-6)
    )
    for drawn in (first, second):
        assert (drawn.diff(dim=-1) >= 0).all()
        assert (drawn >= least - 1e-3 * least).all() and (drawn <= most + 1e-3 * most).all()


def test_threads_do_not_change_results() -> None:
    origins, directions = rays(1000)
    jitter = uniform(1000, 25)
    cache, probability, hull = cached_ball()
    points = uniform(20_000, 3) * 2 - 1
    results = []
    for count in (1, 3):
        threads.set_thread_count(count)
        samples = NUMBA.sample_rays(cache, probability, hull, origins, directions, PLAN, False, jitter)
        live = NUMBA.live_rays(cache, origins, directions, PLAN)
        results.append((*samples, live, NUMBA.look_up(hull, points, 1.0)))
    for one, three in zip(*results, strict=True):
        one, three = (each.positions if isinstance(each, Selection) else each for each in (one, three))
        assert torch.equal(one, three)


# ------------------------------------------------------------------ alpha alone


@each
def test_rays_past_the_object_are_not_live_and_have_no_samples_near_it(ops: TorchOps) -> None:
    cache, probability, hull = cached_ball(64)
    cache.sdf.copy_((grid_centres(64, 1.0).norm(dim=-1) - 0.5).reshape(64, 64, 64))
    origins, directions = rays(3000, spread=0.8)
    plan = replace(PLAN, candidates=(24, 64, 32))
    live = torch.zeros(3000, dtype=torch.bool)
    live[ops.live_rays(cache, origins, directions, plan)] = True
    closest = (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)
    assert live[closest < 0.5 + plan.margin].all()
    assert not live[closest > 0.5 + plan.margin + 3 * cache.cell].any()
    near = ops.sample_rays(cache, probability, hull, origins, directions, plan, False).near_surface.rays
    has_near = torch.zeros(3000, dtype=torch.bool)
    has_near[near] = True
    assert not (has_near & ~live).any()
    assert has_near.sum() > 0.8 * live.sum()


@each
@pytest.mark.parametrize("label", [False, True])
def test_alpha_needs_no_more_than_its_samples(ops: TorchOps, label: bool) -> None:
    """Fields made of noise, rendered from all samples and from those for alpha: the same matte."""
    cache, probability, hull = cached_ball(64)
    count, size = 600, PLAN.samples
    origins, directions = rays(count, spread=0.8)
    jitter = uniform(count, size + 1)
    foreground, background, gate = (uniform(count, size, seed=seed) * 0.5 for seed in (6, 7, 8))

    def matte(plan: SamplePlan) -> tuple[Tensor, Samples]:
        samples = ops.sample_rays(cache, probability, hull if label else None, origins, directions, plan, False, jitter)

        def only(values: Tensor, chosen: Selection) -> Tensor:
            kept = torch.zeros(samples.rays.numel() * size)
            kept[chosen.positions] = values[samples.rays].reshape(-1)[chosen.positions]
            return kept.reshape(-1, size)

        layers = only(foreground, samples.near_surface), only(background, samples.background)
        weights = blend_weights(*layers, only(gate, samples.in_hull) if label else gate[samples.rays])
        alpha = torch.zeros(count)
        alpha[samples.rays] = weights.foreground.sum(-1)
        return alpha, samples

    whole, everything = matte(PLAN)
    alone, needed = matte(replace(PLAN, foreground_only=True))
    assert torch.equal(whole, alone)
    assert (whole > 0.05).sum() > 100
    assert 100 < needed.rays.numel() < 0.9 * count
    assert len(needed.background.positions) < 0.5 * len(everything.background.positions)
    assert torch.equal(needed.edges, everything.edges[needed.rays])


# ------------------------------------------------------------------ look-up


@each
def test_look_up_is_exact_on_planes(ops: TorchOps) -> None:
    slopes = torch.tensor([1.0, 10.0, 100.0])
    grid = (grid_centres(16, 1.0) @ slopes).reshape(16, 16, 16)
    points = (uniform(3000, 3) * 2 - 1) * 15 / 16
    assert torch.allclose(ops.look_up(grid, points, 1.0), points @ slopes, atol=1e-3)


@each
def test_look_up_in_the_cube_is_zero_outside(ops: TorchOps) -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.01, 0.0, 0.0], [0.0, -3.0, 0.0]])
    assert ops.look_up_in_cube(torch.ones(4, 4, 4), points).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_the_compiled_look_up_refuses_gradients() -> None:
    grid, points = torch.ones(4, 4, 4), torch.zeros(5, 3, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient"):
        NUMBA.look_up(grid, points, 1.0)
    with torch.no_grad():
        assert NUMBA.look_up(grid, points, 1.0).tolist() == [1.0] * 5


def test_centres_of_some_cells() -> None:
    assert cell_centres(torch.tensor([0, 1, 16, 63]), 4, 2.0).tolist() == [
        [-1.5, -1.5, -1.5],
        [-1.5, -1.5, -0.5],
        [-0.5, -1.5, -1.5],
        [1.5, 1.5, 1.5],
    ]
    chosen = torch.tensor([5, 80, 342])
    assert torch.equal(cell_centres(chosen, 7, 1.0), grid_centres(7, 1.0)[chosen])


# ------------------------------------------------------------------ what must not happen


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_garbage_stays_inside_the_arrays(bad: float) -> None:
    cache, probability, hull = cached_ball()
    origins, directions = rays(64)
    origins[::3, 1] = bad
    directions[1::3, 2] = bad
    jitter = uniform(64, 25)
    jitter[2::6] = bad
    good = torch.ones(64, dtype=torch.bool)
    good[0::3] = good[1::3] = good[2::6] = False
    for plan in (PLAN, replace(PLAN, foreground_only=True), replace(PLAN, background_only=True)):
        samples = NUMBA.sample_rays(cache, probability, hull, origins, directions, plan, False, jitter)
        for chosen in (samples.near_surface, samples.in_hull, samples.background):
            assert ((chosen.positions >= 0) & (chosen.positions < samples.crop.numel())).all()
    samples = NUMBA.sample_rays(cache, probability, hull, origins, directions, PLAN, False, jitter)
    alone = NUMBA.sample_rays(cache, probability, hull, origins[good], directions[good], PLAN, False, jitter[good])
    assert torch.allclose(samples.edges[good], alone.edges)  # other rays do not notice
    assert NUMBA.look_up(hull, torch.full((9, 3), bad), 1.0).isfinite().all()


@each
def test_no_rays_no_samples(ops: TorchOps) -> None:
    cache, probability, hull = cached_ball(8)
    for plan in (PLAN, replace(PLAN, foreground_only=True)):
        samples = ops.sample_rays(cache, probability, hull, torch.zeros(0, 3), torch.zeros(0, 3), plan, True)
        assert samples.edges.shape == (0, 25) and samples.points.shape == (0, 3)
        assert samples.near_surface.empty and samples.in_hull.empty and samples.background.empty


def test_shapes_that_do_not_fit_are_refused() -> None:
    cache, probability, hull = cached_ball(8)
    origins, directions = rays(10)
    with pytest.raises(ValueError, match="jitter must be"):
        NUMBA.sample_rays(cache, probability, hull, origins, directions, PLAN, True, torch.rand(10, 24))
    with pytest.raises(ValueError, match="of one size"):
        NUMBA.sample_rays(cache, probability, hull[:20, :20, :20], origins, directions, PLAN, True)
    with pytest.raises(ValueError, match="rays must be"):
        NUMBA.sample_edges(cache, origins, directions[:5], PLAN, True)
    for grid in (torch.ones(4, 4, 5), torch.ones(1, 1, 1)):
        with pytest.raises(ValueError, match="a grid of"):
            NUMBA.look_up(grid, origins, 1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        replace(PLAN, background_only=True, foreground_only=True)


@each
def test_no_gradient_flows_through_samples(ops: TorchOps) -> None:
    cache, probability, hull = cached_ball(8)
    origins, directions = rays(4)
    samples = ops.sample_rays(cache, probability, hull, origins.requires_grad_(), directions, PLAN, False)
    assert not any(part.requires_grad for part in samples[:6])
