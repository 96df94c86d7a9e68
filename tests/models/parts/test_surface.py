"""Neighbours on surfaces, and averages along them."""

from __future__ import annotations

import numpy as np

from surface_sos_ns.models.parts.surface import surface_of


def plane(side: int, height: float = 0.0, up: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Points of a square of sides 1 and their normals."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    points = np.stack([x.ravel(), y.ravel(), np.full(side * side, height)], axis=1)
    return points, np.tile([0.0, 0.0, up], (side * side, 1))


def test_both_sides_of_a_thin_wall_are_no_neighbours():
    (above, up), (below, down) = plane(20, 0.01, 1.0), plane(20, -0.01, -1.0)
    surface = surface_of(np.concatenate([above, below]), np.concatenate([up, down]))
    first, second = surface.pairs.T
    assert len(surface.pairs) > 400 and ((first < 400) == (second < 400)).all()


def test_pairs_stand_once_and_weigh_one_on_a_plane():
    surface = surface_of(*plane(12))
    assert (surface.pairs[:, 0] < surface.pairs[:, 1]).all()
    assert len(np.unique(surface.pairs, axis=0)) == len(surface.pairs)
    assert np.allclose(surface.weights, 1.0)


def folded(slope: float) -> np.ndarray:
    """Weights of the pairs across the fold of two half planes, which rise (positive) or fall away from it."""
    x, y = np.meshgrid(np.linspace(-0.975, 0.975, 40), np.linspace(0, 1, 20))
    points = np.stack([x.ravel(), y.ravel(), slope * np.abs(x.ravel())], axis=1)
    normals = np.stack([-slope * np.sign(x.ravel()), np.zeros(x.size), np.ones(x.size)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    surface = surface_of(points, normals)
    side = points[surface.pairs, 0] > 0
    return surface.weights[side[:, 0] != side[:, 1]]


def test_pairs_across_a_concave_crease_weigh_less_and_across_a_convex_edge_they_do_not():
    assert folded(1.0).max() < 0.2
    assert np.allclose(folded(-1.0), 1.0)


def test_an_average_reaches_what_is_not_known_from_what_is():
    points, normals = plane(30)
    surface = surface_of(points, normals)
    known = points[:, 0] < 0.5
    spread = surface.spread(np.ones((len(points), 1)) * 3.0, known, 0.1)[:, 0]
    assert np.allclose(spread[points[:, 0] < 0.6], 3.0, atol=1e-6)


def test_an_average_is_as_wide_as_asked_for():
    """The standard deviation of what one point spreads."""
    points, normals = plane(41)
    surface = surface_of(points, normals)
    spike = (np.linalg.norm(points - [0.5, 0.5, 0], axis=1) < 1e-6).astype(float)[:, None]
    spread = surface.spread(spike, np.ones(len(points)), 0.1)[:, 0]
    variance = (spread * (points[:, 0] - 0.5) ** 2).sum() / spread.sum()
    assert 0.06 < np.sqrt(variance) < 0.12
