"""The samples of rays, compiled and in torch, against each other and against what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.rendering.blend import blend_weights
from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.field_cache import (
    MIN_TRANSMITTANCE,
    FieldCache,
    cell_centres,
    grid_centres,
    look_up,
    look_up_in_cube,
    look_up_nearest,
)
from surface_sos_ns.sampling.ray_samples import MIN_UNCROPPED, SamplePlan, Samples, live_rays, sample_edges, sample_rays

PLAN = SamplePlan((7, 40, 19), 0.4, 200.0, samples=24, sharpness=400.0, margin=0.08, support=0.02)


@pytest.fixture(autouse=True)
def thread_count() -> Iterator[None]:
    before = threads.thread_count()
    yield
    threads.set_thread_count(before)


def rays(count: int, distance: float = 3.0, spread: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from a sphere of cameras towards the object, or past it."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * distance
    aim = torch.randn(count, 3, generator=generator) * spread
    return origins, torch.nn.functional.normalize(aim - origins, dim=-1)


def uniform(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def soft_ball(resolution: int, radius: float, slope: float) -> Tensor:
    inside = radius - grid_centres(resolution, 1.0).norm(dim=-1)
    return torch.sigmoid(inside * slope).reshape(resolution, resolution, resolution)


def scene(resolution: int = 32, splits: bool = True) -> tuple[FieldCache, Tensor, Tensor]:
    """Cache, m^P and hull of a dented ball in thin fog, with a patchy wall around it."""
    cache = FieldCache(resolution, 40, splits)
    shape, beyond = cache.sdf.shape, cache.density.shape
    near = grid_centres(resolution, 1.0)
    cache.sdf.copy_((near.norm(dim=-1) - 0.5 + 0.05 * torch.sin(near.sum(-1) * 9)).reshape(shape))
    cache.gate.copy_(soft_ball(resolution, 0.6, 30.0))
    wall = (grid_centres(40, 2.0).norm(dim=-1) > 1.75).reshape(beyond)
    cache.density.copy_(uniform(*beyond, seed=1) * (0.05 + 20.0 * wall * (uniform(*beyond, seed=2) > 0.5)))
    return cache, soft_ball(40, 0.5, 40.0), soft_ball(40, 0.6, 20.0)


def both(
    plan: SamplePlan, origins: Tensor, directions: Tensor, jitter: Tensor | None = None, **options: bool
) -> tuple[Samples, Samples, FieldCache, Tensor, Tensor | None]:
    cache, probability, hull = scene(splits=options.get("splits", True))
    given = hull if options.get("label", True) else None
    compiled, plain = (
        sample_rays(cache, probability, given, origins, directions, plan, False, jitter, compiled=which)
        for which in (True, False)
    )
    return compiled, plain, cache, probability, given


def assert_same_places(ours: Samples, twin: Samples) -> None:
    """The same distances to what float32 leaves of a cumulative sum, but where a coarse interval's middle is rounded
    into a neighbouring cell: on one ray in a hundred at most."""
    assert torch.equal(ours.rays, twin.rays)
    apart = ((ours.edges - twin.edges).abs() > 3e-4 * twin.edges).any(-1)
    assert apart.sum() <= 0.01 * apart.numel()
    edges = ours.edges
    assert torch.allclose(ours.middle, 0.5 * (edges[:, 1:] + edges[:, :-1]))
    assert torch.allclose(ours.interval, edges.diff(dim=-1), atol=1e-5)


def assert_nearly_the_same_list(ours: Tensor, truth: Tensor, allowed: int) -> None:
    assert (ours.diff() > 0).all()
    assert len(set(ours.tolist()) ^ set(truth.tolist())) <= allowed


# ------------------------------------------------------------------ compiled against torch


@pytest.mark.parametrize("distance", [0.0, 0.7, 3.0, 40.0])
@pytest.mark.parametrize("stratified", [False, True])
def test_compiled_samples_are_those_of_torch(distance: float, stratified: bool) -> None:
    origins, directions = rays(333, distance)
    ours, twin, *_ = both(PLAN, origins, directions, uniform(333, 25) if stratified else None)
    assert_same_places(ours, twin)
    points = origins[:, None] + directions[:, None] * ours.middle[..., None]
    assert torch.allclose(ours.points.reshape(333, 24, 3), points, atol=1e-4)  # of up to 200
    for name in ("near", "inside", "background"):
        assert_nearly_the_same_list(getattr(ours, name), getattr(twin, name), 8)  # of 8000 samples


@pytest.mark.parametrize("reach", [1.0, 2.5])
def test_the_uncontracted_space_is_as_large_in_both(reach: float) -> None:
    plan = replace(PLAN, reach=reach)
    ours, twin, *_ = both(plan, *rays(300))
    assert_same_places(ours, twin)
    assert_nearly_the_same_list(ours.background, twin.background, 20)
    wall = 4.0 * reach  # |contracted| = 1.75
    assert float((ours.middle[:, 12:] - wall).abs().median()) < 4.0 + 0.5 * wall


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("sharpness", [4.0, 400.0])
def test_layers_and_sharpness_draw_as_in_torch(splits: bool, sharpness: float) -> None:
    origins, directions = rays(300)
    drawn = {}
    for background_only in (False, True):
        plan = replace(PLAN, sharpness=sharpness, background_only=background_only)
        ours, twin, cache, *_ = both(plan, origins, directions, splits=splits)
        assert_same_places(ours, twin)
        assert torch.equal(sample_edges(cache, origins, directions, plan, False), ours.edges)
        drawn[background_only] = ours.edges
    assert not torch.allclose(drawn[False], drawn[True], rtol=0.05)  # the object does draw samples


def test_an_object_at_the_rim_of_the_sphere_is_found() -> None:
    cache, probability, hull = scene()
    cache.density.zero_()
    cache.gate.fill_(1.0)
    place = torch.tensor([0.9, 0.0, 0.0])
    cache.sdf.copy_(((grid_centres(32, 1.0) - place).norm(dim=-1) - 0.2).reshape(cache.sdf.shape))
    origins, _ = rays(200, spread=0.0)
    aim = place + (uniform(200, 3) - 0.5) * 0.2
    directions = torch.nn.functional.normalize(aim - origins, dim=-1)
    ours, twin = (
        sample_rays(cache, probability, hull, origins, directions, PLAN, False, compiled=which)
        for which in (True, False)
    )
    assert_same_places(ours, twin)
    assert ours.near.numel() > 0.4 * ours.crop.numel()


@pytest.mark.parametrize("counts", [(24, 64, 32), (1, 1, 1), (0, 33, 5), (3, 16, 40)])
@pytest.mark.parametrize("samples", [1, 5, 70])
def test_any_number_of_intervals_and_samples(counts: tuple[int, int, int], samples: int) -> None:
    plan = replace(PLAN, candidates=counts, samples=samples)
    ours, twin, *_ = both(plan, *rays(65), uniform(65, samples + 1))
    assert ours.points.shape == (65 * samples, 3)
    assert_same_places(ours, twin)


@pytest.mark.parametrize("label", [False, True])
def test_lists_say_where_the_fields_matter(label: bool) -> None:
    ours, _, cache, probability, hull = both(PLAN, *rays(400), uniform(400, 25), label=label)
    points = ours.points
    in_cube = (points.abs() <= 1).all(-1)
    crop = look_up(probability, points, 1.0) * in_cube
    assert torch.allclose(ours.crop, crop, atol=1e-6)
    near = (look_up_nearest(cache.sdf, points, 1.0) < PLAN.margin) & (points.norm(dim=-1) < 1)
    inside = (look_up(hull, points, 1.0) * in_cube > PLAN.support) if hull is not None else torch.zeros_like(near)
    background = crop < 1 - MIN_UNCROPPED
    for chosen, truth in ((ours.near, near), (ours.inside, inside), (ours.background, background)):
        assert_nearly_the_same_list(chosen, truth.nonzero()[:, 0], 2)  # on the border of a cell
    assert 100 < near.sum() < 0.9 * near.numel()
    assert 100 < background.sum() < 0.995 * near.numel()
    assert (inside.sum() > 100) == label


def test_the_clean_plates_samples_need_no_foreground() -> None:
    ours, twin, *_ = both(replace(PLAN, background_only=True), *rays(50))
    for samples in (ours, twin):
        assert samples.near.numel() == samples.inside.numel() == 0 < samples.background.numel()
    assert_nearly_the_same_list(ours.background, twin.background, 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_without_anything_cached_samples_are_even_over_the_intervals(compiled: bool) -> None:
    cache = FieldCache(8, 8)
    cache.sdf.fill_(10.0)
    plan = replace(PLAN, candidates=(2, 4, 3), samples=8)
    origins, directions = rays(20)
    coarse = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    edges = sample_edges(cache, origins, directions, plan, False, compiled=compiled)
    for k in range(9):  # draw k lies at k + 1/2 of 9 intervals
        assert torch.allclose(edges[:, k], 0.5 * (coarse[:, k] + coarse[:, k + 1]), rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_is_looked_for_where_no_light_is_left(compiled: bool) -> None:
    """A wall in front of a wall: with next to no light behind the first, samples do not crowd at the second."""
    cache = FieldCache(64, 64)
    cache.sdf.fill_(10.0)
    origins, directions = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    plan = SamplePlan((1, 64, 1), 0.4, 200.0, samples=400, sharpness=400.0)
    z = grid_centres(64, 2.0)[:, 2].reshape(cache.density.shape)
    front, back = (z > 0.4) & (z < 0.5), (z > -0.5) & (z < -0.4)

    def at_the_back(density_of_front: float) -> int:
        cache.density.copy_(density_of_front * front + 1e3 * back)
        edges = sample_edges(cache, origins, directions, plan, False, compiled=compiled)[0]
        return int(((edges > 3.4) & (edges < 3.5)).sum())

    even = (
        400 * 0.15 * 0.1 * 32 / 66
    )  # what the uniform share gives a tenth of the way through the sphere, 64 of 66 intervals
    assert at_the_back(10.0) > 5 * even
    stopping = 1.2 * -torch.log(torch.tensor(MIN_TRANSMITTANCE)).item() / 0.125  # two cells thick
    assert abs(at_the_back(stopping) - even) <= 2


def test_weights_behind_the_last_light_are_zero() -> None:
    cache, *_ = scene()
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


def test_random_draws_stay_in_their_strata_and_differ() -> None:
    cache, *_ = scene()
    origins, directions = rays(64)
    first, second = (sample_edges(cache, origins, directions, PLAN, True) for _ in range(2))
    assert not torch.equal(first, second)
    least, most = (
        sample_edges(cache, origins, directions, PLAN, False, torch.full((64, 25), at)) for at in (0.0, 1 - 1e-6)
    )
    for drawn in (first, second):
        assert (drawn.diff(dim=-1) >= 0).all()
        assert (drawn >= least - 1e-3 * least).all() and (drawn <= most + 1e-3 * most).all()


def test_threads_do_not_change_results() -> None:
    origins, directions = rays(1000)
    jitter = uniform(1000, 25)
    cache, probability, hull = scene()
    points = uniform(20_000, 3) * 2 - 1
    results = []
    for count in (1, 3):
        threads.set_thread_count(count)
        samples = sample_rays(cache, probability, hull, origins, directions, PLAN, False, jitter)
        live = live_rays(cache, origins, directions, PLAN)
        results.append((*samples, live, look_up(hull, points, 1.0, compiled=True)))
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


# ------------------------------------------------------------------ alpha alone


@pytest.mark.parametrize("distance", [0.5, 3.0])
def test_live_rays_are_those_of_torch(distance: float) -> None:
    origins, directions = rays(2000, distance, spread=0.8)
    cache, *_ = scene()
    ours, twin = (live_rays(cache, origins, directions, PLAN, compiled) for compiled in (True, False))
    assert_nearly_the_same_list(ours, twin, 2)


def test_rays_past_the_object_are_not_live_and_have_no_samples_near_it() -> None:
    cache, probability, hull = scene(64)
    cache.sdf.copy_((grid_centres(64, 1.0).norm(dim=-1) - 0.5).reshape(64, 64, 64))
    origins, directions = rays(3000, spread=0.8)
    plan = replace(PLAN, candidates=(24, 64, 32))
    live = torch.zeros(3000, dtype=torch.bool)
    live[live_rays(cache, origins, directions, plan)] = True
    closest = (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)
    assert live[closest < 0.5 + plan.margin].all()
    assert not live[closest > 0.5 + plan.margin + 3 * cache.cell].any()
    near = sample_rays(cache, probability, hull, origins, directions, plan, False).near
    has_near = torch.zeros(3000, dtype=torch.bool)
    has_near[near // plan.samples] = True
    assert not (has_near & ~live).any()
    assert has_near.sum() > 0.8 * live.sum()


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_alpha_needs_no_more_than_its_samples(label: bool, compiled: bool) -> None:
    """Fields made of noise, rendered from all samples and from those for alpha: the same matte."""
    cache, probability, hull = scene(64)
    count, size = 600, PLAN.samples
    origins, directions = rays(count, spread=0.8)
    jitter = uniform(count, size + 1)
    foreground, background, gate = (uniform(count, size, seed=seed) * 0.5 for seed in (6, 7, 8))

    def matte(plan: SamplePlan) -> tuple[Tensor, Samples]:
        samples = sample_rays(
            cache, probability, hull if label else None, origins, directions, plan, False, jitter, compiled
        )

        def only(values: Tensor, chosen: Tensor) -> Tensor:
            kept = torch.zeros(samples.rays.numel() * size)
            kept[chosen] = values[samples.rays].reshape(-1)[chosen]
            return kept.reshape(-1, size)

        layers = only(foreground, samples.near), only(background, samples.background)
        weights = blend_weights(*layers, only(gate, samples.inside) if label else gate[samples.rays])
        alpha = torch.zeros(count)
        alpha[samples.rays] = weights.foreground.sum(-1)
        return alpha, samples

    whole, everything = matte(PLAN)
    alone, needed = matte(replace(PLAN, foreground_only=True))
    assert torch.equal(whole, alone)
    assert (whole > 0.05).sum() > 100
    assert 100 < needed.rays.numel() < 0.9 * count
    assert needed.background.numel() < 0.5 * everything.background.numel()
    assert torch.equal(needed.edges, everything.edges[needed.rays])


def test_lists_for_alpha_are_those_of_torch() -> None:
    ours, twin, *_ = both(replace(PLAN, foreground_only=True), *rays(500, spread=0.8))
    assert_same_places(ours, twin)
    for name in ("near", "inside", "background"):
        assert getattr(twin, name).numel() > 100
        assert_nearly_the_same_list(getattr(ours, name), getattr(twin, name), 8)


# ------------------------------------------------------------------ look-up


@pytest.mark.parametrize(("n", "extent"), [(2, 1.0), (7, 1.0), (32, 2.0)])
def test_compiled_look_up_is_torchs(n: int, extent: float) -> None:
    grid = uniform(n, n, n)
    points = (uniform(41, 25, 3, seed=3) * 3 - 1.5) * extent  # a third of each axis beyond the cube
    ours = look_up(grid, points, extent, compiled=True)
    assert ours.shape == (41, 25)
    assert torch.allclose(ours, look_up(grid, points, extent), atol=2e-5)
    axis = torch.tensor([-1.0, -1 + 1 / n, 0.0, 1 - 1 / n, 1.0, 1e30, -1e30]) * extent
    corners = torch.cartesian_prod(axis, axis, axis)
    assert torch.allclose(look_up(grid, corners, extent, compiled=True), look_up(grid, corners, extent), atol=1e-5)


def test_compiled_look_up_is_exact_on_planes() -> None:
    slopes = torch.tensor([1.0, 10.0, 100.0])
    grid = (grid_centres(16, 1.0) @ slopes).reshape(16, 16, 16)
    points = (uniform(3000, 3) * 2 - 1) * 15 / 16
    assert torch.allclose(look_up(grid, points, 1.0, compiled=True), points @ slopes, atol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_look_up_in_the_cube_is_zero_outside(compiled: bool) -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.01, 0.0, 0.0], [0.0, -3.0, 0.0]])
    assert look_up_in_cube(torch.ones(4, 4, 4), points, compiled).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_no_points_no_values() -> None:
    assert look_up(torch.ones(4, 4, 4), torch.zeros(0, 3), 1.0, compiled=True).shape == (0,)


def test_the_compiled_look_up_refuses_gradients() -> None:
    grid, points = torch.ones(4, 4, 4), torch.zeros(5, 3, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient"):
        look_up(grid, points, 1.0, compiled=True)
    with torch.no_grad():
        assert look_up(grid, points, 1.0, compiled=True).tolist() == [1.0] * 5


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
    cache, probability, hull = scene()
    origins, directions = rays(64)
    origins[::3, 1] = bad
    directions[1::3, 2] = bad
    jitter = uniform(64, 25)
    jitter[2::6] = bad
    good = torch.ones(64, dtype=torch.bool)
    good[0::3] = good[1::3] = good[2::6] = False
    for plan in (PLAN, replace(PLAN, foreground_only=True), replace(PLAN, background_only=True)):
        samples = sample_rays(cache, probability, hull, origins, directions, plan, False, jitter)
        for chosen in (samples.near, samples.inside, samples.background):
            assert ((chosen >= 0) & (chosen < samples.crop.numel())).all()
    samples = sample_rays(cache, probability, hull, origins, directions, PLAN, False, jitter)
    alone = sample_rays(cache, probability, hull, origins[good], directions[good], PLAN, False, jitter[good])
    assert torch.allclose(samples.edges[good], alone.edges)  # other rays do not notice
    assert look_up(hull, torch.full((9, 3), bad), 1.0, compiled=True).isfinite().all()


@pytest.mark.parametrize("compiled", [False, True])
def test_no_rays_no_samples(compiled: bool) -> None:
    cache, probability, hull = scene(8)
    for plan in (PLAN, replace(PLAN, foreground_only=True)):
        samples = sample_rays(
            cache, probability, hull, torch.zeros(0, 3), torch.zeros(0, 3), plan, True, None, compiled
        )
        assert samples.edges.shape == (0, 25) and samples.points.shape == (0, 3)
        assert samples.near.numel() == samples.inside.numel() == samples.background.numel() == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    cache, probability, hull = scene(8)
    origins, directions = rays(10)
    with pytest.raises(ValueError, match="jitter must be"):
        sample_rays(cache, probability, hull, origins, directions, PLAN, True, torch.rand(10, 24))
    with pytest.raises(ValueError, match="of one size"):
        sample_rays(cache, probability, hull[:20, :20, :20], origins, directions, PLAN, True)
    with pytest.raises(ValueError, match="rays must be"):
        sample_edges(cache, origins, directions[:5], PLAN, True)
    for grid in (torch.ones(4, 4, 5), torch.ones(1, 1, 1)):
        with pytest.raises(ValueError, match="a grid of"):
            look_up(grid, origins, 1.0, compiled=True)
    with pytest.raises(ValueError, match="not for both"):
        replace(PLAN, background_only=True, foreground_only=True)


def test_no_gradient_flows_through_samples() -> None:
    cache, probability, hull = scene(8)
    origins, directions = rays(4)
    samples = sample_rays(cache, probability, hull, origins.requires_grad_(), directions, PLAN, False)
    assert not any(part.requires_grad for part in samples)
