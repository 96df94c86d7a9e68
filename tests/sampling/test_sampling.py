"""Where rays are sampled: candidate intervals, cached fields and draws, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from surface_sos_ns.sampling.candidates import advance_of_rays, candidate_edges, sphere_crossing
from surface_sos_ns.sampling.contraction import contract
from surface_sos_ns.sampling.field_cache import FieldCache, grid_centres, look_up, look_up_nearest
from surface_sos_ns.sampling.importance import draw_edges


def rays(count: int, distance: float = 3.0, spread: float = 0.25, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from a sphere of cameras roughly towards the origin."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * distance
    aim = torch.randn(count, 3, generator=generator) * spread
    return origins, torch.nn.functional.normalize(aim - origins, dim=-1)


# ------------------------------------------------------------------ candidates


def test_sphere_crossing_solves_the_quadratic():
    origins, directions = rays(200)
    enter, leave = sphere_crossing(origins, directions)
    for o, d, near, far in zip(origins.double(), directions.double(), enter, leave, strict=True):
        roots = np.sort(np.roots([float(d @ d), 2 * float(o @ d), float(o @ o) - 1]))
        if np.isreal(roots).all() and roots[1] - roots[0] > 0.6:
            assert (float(near), float(far)) == pytest.approx(tuple(roots.real), abs=1e-4)
        else:  # a miss, or a short way through: 0.3 around the closest approach
            closest = -float(o @ d)
            assert (float(near), float(far)) == pytest.approx((closest - 0.3, closest + 0.3), abs=1e-4)


def test_sphere_crossing_from_inside_starts_behind():
    enter, leave = sphere_crossing(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    assert (float(enter), float(leave)) == (-1.0, 1.0)


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 3.0, 40.0])
def test_candidate_edges_increase_and_cover(distance):
    origins, directions = rays(300, distance, spread=1.0)
    counts, far = (5, 16, 7), 200.0
    edges = candidate_edges(origins, directions, counts, near_fraction=0.4, far=far)
    assert edges.shape == (300, sum(counts) + 1)
    assert (edges.diff(dim=-1) > 0).all()
    assert (edges[:, 0] > 0).all()
    assert torch.allclose(edges[:, -1], torch.full((300,), far), rtol=1e-4)
    enter, leave = sphere_crossing(origins, directions)
    ahead = enter > 0.1
    # the edges around the dense part are the sphere's, and the first one lies on the way to it
    assert torch.allclose(edges[ahead, 5], enter[ahead], atol=1e-3)
    assert torch.allclose(edges[ahead, 21], leave[ahead], atol=1e-3)
    assert torch.allclose(edges[ahead, 0], (0.4 * enter[ahead]).clamp(min=1e-2), atol=1e-5)


def test_rays_are_advanced_where_the_object_is_farther_than_its_sphere():
    towards = torch.tensor([[0.0, 0.0, -1.0]])
    for height, to_object, expected in (
        (0.5, 0.4, 0.6 * 0.4),  # in the sphere
        (1.1, 0.8, 0.6 * (0.8 - 0.1)),  # just outside of it
        (3.0, 1.2, 0.0),  # far: the distance to the sphere is the larger one
        (0.5, 0.0, 0.0),  # in the object, or without one
    ):
        found = advance_of_rays(torch.tensor([[0.0, 0.0, height]]), towards, torch.tensor([to_object]))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_candidates_beyond_are_even_in_disparity():
    edges = candidate_edges(*rays(10), (2, 4, 8), 0.4, 100.0)[:, 6:]
    steps = (1.0 / edges).diff(dim=-1)
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), rtol=1e-2)


def test_candidates_of_a_ray_that_starts_behind_the_sphere_reach_the_room():
    """As behind a slice through the scene: half of them in the first radius at most, and none is long at once."""
    origins, directions = torch.tensor([[0.0, 0.0, 1.5]]), torch.tensor([[0.0, 0.0, 1.0]])
    beyond = candidate_edges(origins, directions, (2, 4, 32), 0.4, 200.0)[0, 6:]
    assert int((beyond < 0.6).sum()) <= 20 and int((beyond < 5).sum()) < 32
    assert float(beyond[0]) < 0.02 and float(beyond.diff()[0]) < 0.02
    assert float(beyond[-1]) == pytest.approx(200.0, rel=1e-3)


# ------------------------------------------------------------------ look-ups


def test_grid_centres_run_x_slowest():
    centres = grid_centres(4, 2.0)
    assert centres.shape == (64, 3)
    assert centres[0].tolist() == [-1.5, -1.5, -1.5]
    assert centres[1].tolist() == [-1.5, -1.5, -0.5]
    assert centres[16].tolist() == [-0.5, -1.5, -1.5]


@pytest.mark.parametrize("extent", [1.0, 2.0])
def test_look_ups_read_x_y_z_in_this_order(extent):
    n = 8
    slopes = torch.tensor([1.0, 10.0, 100.0])
    centres = grid_centres(n, extent)
    grid = (centres @ slopes).reshape(n, n, n)
    assert torch.allclose(look_up(grid, centres, extent), centres @ slopes, atol=1e-3)
    assert torch.equal(look_up_nearest(grid, centres, extent), centres @ slopes)
    # trilinear look-up is exact on a linear field between the outermost centres
    inside = (torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * extent * (1 - 1 / n)
    assert torch.allclose(look_up(grid, inside, extent), inside @ slopes, atol=1e-3)
    # the nearest cell is at most half a cell away along each axis
    assert ((look_up_nearest(grid, inside, extent) - inside @ slopes).abs() <= 111.0 * extent / n + 1e-3).all()


def test_look_ups_keep_shapes_and_hold_the_border():
    grid = torch.arange(27.0).reshape(3, 3, 3)
    outside = torch.tensor([[[5.0, 5.0, 5.0], [-5.0, -5.0, -5.0]]])
    assert look_up(grid, outside, 1.0).tolist() == [[26.0, 0.0]]
    assert look_up_nearest(grid, outside, 1.0).tolist() == [[26.0, 0.0]]


# ------------------------------------------------------------------ the cache


def sphere_cache(radius: float = 0.5, resolution: int = 64) -> FieldCache:
    """An analytic sphere in empty space."""
    cache = FieldCache(resolution, resolution)
    cache.sdf.copy_((grid_centres(resolution, 1.0).norm(dim=-1) - radius).reshape(cache.sdf.shape))
    return cache


def test_the_cache_finds_a_known_spheres_depth():
    origins, directions = rays(100, spread=0.15)
    cache = sphere_cache()
    edges = candidate_edges(origins, directions, (24, 64, 32), 0.4, 200.0)
    weights = cache.interval_weights(origins, directions, edges, sharpness=400.0)
    closest = -(origins * directions).sum(-1)
    miss2 = 9.0 - closest.square()
    hit = miss2 < 0.4**2
    assert hit.sum() > 20
    depth = closest - (0.25 - miss2).clamp(min=0).sqrt()
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    found = (weights * middle).sum(-1) / weights.sum(-1)
    assert (weights[hit].sum(-1) > 0.95).all()
    assert ((found - depth)[hit].abs() < 2 * cache.cell).all()
    assert (weights[miss2 > 0.7**2].sum(-1) < 0.05).all()


def test_the_clean_plates_weights_leave_the_object_out():
    origins, directions = rays(50, spread=0.1)
    cache = sphere_cache()
    # a wall beyond the contracted radius 1.5, so 2 object radii away
    cache.density.copy_((grid_centres(64, 2.0).norm(dim=-1) > 1.5).float().reshape(64, 64, 64) * 1e4)
    edges = candidate_edges(origins, directions, (24, 64, 32), 0.4, 200.0)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    points = origins[:, None] + directions[:, None] * middle[..., None]
    edges_from = int((middle.max(0).values < 1.5).sum())  # the cameras stand inside the wall: leave its near part out
    weights = cache.interval_weights(origins, directions, edges[:, edges_from:], 400.0, background_only=True)
    where = contract(points[:, edges_from:]).norm(dim=-1)
    stopped = weights.sum(-1)
    assert (stopped > 0.99).all()
    assert float((weights * (where > 1.4)).sum() / stopped.sum()) > 0.99
    both = cache.interval_weights(origins, directions, edges[:, edges_from:], 400.0)
    assert float((both * (where < 0.8)).sum()) > 0.8 * 50


def test_background_hidden_by_the_label_draws_no_samples() -> None:
    """A dense background cell in front of the surface, labelled object, must not hide the surface from the sampler."""
    cache = FieldCache(32, 24, splits=True)
    centres = grid_centres(32, 1.0).reshape(32, 32, 32, 3)
    cache.sdf.copy_(centres.norm(dim=-1) - 0.5)
    cache.density.fill_(100.0)  # everywhere, in contracted space
    origins, directions = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    edges = torch.linspace(2.1, 3.9, 91)[None]
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    at_surface = (middle - 2.5).abs() < 0.3  # the ball's front, as blurred as a cell of 1/16 makes it
    hidden = cache.interval_weights(origins, directions, edges, 400.0)  # gate 1 in the whole cube
    assert hidden[at_surface].sum() > 0.95
    cache.gate.zero_()  # all of it background: it stops the light where the ray starts
    shown = cache.interval_weights(origins, directions, edges, 400.0)
    assert shown[at_surface].sum() < 0.01
    assert shown[0, :3].sum() > 0.95


# ------------------------------------------------------------------ draws


def test_draws_follow_the_weights():
    edges = torch.linspace(0, 10, 11)[None].repeat(2, 1)
    weights = torch.zeros(2, 10)
    weights[:, 4] = 0.3
    weights[1, 8] = 0.6
    drawn = draw_edges(edges, weights, 9999, stratified=True, uniform_share=0.0)
    assert drawn.shape == (2, 10000) and (drawn.diff(dim=-1) >= 0).all()
    share = torch.stack([torch.histc(row, 10, 0, 10) for row in drawn]) / 10000
    # half of an interval's weight stays, a quarter goes to either neighbour
    assert share[0].tolist() == pytest.approx([0, 0, 0, 0.25, 0.5, 0.25, 0, 0, 0, 0], abs=2e-3)
    third = torch.tensor([0, 0, 0, 0.25, 0.5, 0.25, 0, 0.5, 1.0, 0.5]) / 3
    assert share[1].tolist() == pytest.approx(third.tolist(), abs=2e-3)


def test_the_uniform_share_reaches_every_interval():
    edges = torch.linspace(0, 10, 11)[None]
    weights = torch.zeros(1, 10)
    weights[0, 4] = 1.0
    drawn = draw_edges(edges, weights, 9999, stratified=False, uniform_share=0.2)
    share = torch.histc(drawn, 10, 0, 10) / 10000
    assert share[[0, 1, 2, 6, 7, 8, 9]].tolist() == pytest.approx([0.02] * 7, abs=1e-3)
    assert float(share[4]) == pytest.approx(0.8 * 0.5 + 0.02, abs=1e-3)


def test_without_weights_draws_are_even():
    edges = torch.tensor([[1.0, 2.0, 4.0]])  # even over intervals, not over distance
    drawn = draw_edges(edges, torch.zeros(1, 2), 7, stratified=False)
    assert drawn[0].tolist() == pytest.approx([1 + (i + 0.5) / 4 for i in range(4)] + [2.25, 2.75, 3.25, 3.75])


def test_rendering_draws_are_the_same_each_time_and_training_draws_are_not():
    edges = torch.linspace(0, 1, 33)[None].repeat(4, 1)
    weights = torch.rand(4, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_edges(edges, weights, 16, False), draw_edges(edges, weights, 16, False))
    first, second = draw_edges(edges, weights, 16, True), draw_edges(edges, weights, 16, True)
    assert not torch.equal(first, second)
    for drawn in (first, second):
        assert drawn.shape == (4, 17) and (drawn.diff(dim=-1) >= 0).all()
        assert (drawn >= 0).all() and (drawn <= 1).all()


def test_no_gradient_flows_through_draws():
    weights = torch.rand(2, 8, requires_grad=True)
    assert not draw_edges(torch.linspace(0, 1, 9)[None].repeat(2, 1), weights, 4, True).requires_grad
