"""Thickness against shapes whose thickness is known."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.models.parts.shape import (
    body_thickness,
    filled_shape,
    local_thickness,
    thickness_at,
    thickness_features,
)

N = 64
CELL = 2.0 / N


def cells() -> np.ndarray:
    """(N, N, N, 3) centres of the cells of the object cube."""
    axis = (np.arange(N) + 0.5) * CELL - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def ball(radius: float) -> np.ndarray:
    return np.linalg.norm(cells(), axis=-1) < radius


def cup(outer: float = 0.5, wall: float = 0.1, height: float = 0.5) -> np.ndarray:
    """A cup along z: a cylinder with a cavity that opens upwards."""
    points = cells()
    across, z = np.linalg.norm(points[..., :2], axis=-1), points[..., 2]
    return (across < outer) & (np.abs(z) < height) & ~((across < outer - wall) & (z > -height + wall))


def test_a_ball_is_as_thick_as_it_is_large():
    radius = local_thickness(ball(0.5))
    inside = radius[ball(0.45)]
    assert (np.abs(inside * CELL - 0.5) < 1.5 * CELL).all()
    assert (radius[~ball(0.5)] == 0).all()


def test_nothing_has_no_thickness():
    assert (local_thickness(np.zeros((8, 8, 8), dtype=bool)) == 0).all()


def test_a_rod_on_a_ball_is_thin_and_the_ball_is_not():
    points = cells()
    rod = (np.linalg.norm(points[..., 1:], axis=-1) < 0.1) & (points[..., 0] > 0) & (points[..., 0] < 0.95)
    radius = local_thickness(ball(0.5) | rod) * CELL
    assert radius[N // 2, N // 2, N // 2] == pytest.approx(0.5, abs=1.5 * CELL)
    assert radius[int(0.9 / CELL) + N // 2, N // 2, N // 2] == pytest.approx(0.1, abs=1.5 * CELL)


def test_a_cup_is_filled_up_to_its_rim_and_no_further():
    solid = cup()
    filled = filled_shape(solid, N)
    points = cells()
    cavity = (np.linalg.norm(points[..., :2], axis=-1) < 0.35) & (points[..., 2] > -0.35)
    assert filled[cavity & (points[..., 2] < 0.4)].mean() > 0.99
    assert filled[(points[..., 2] > 0.5 + 3 * CELL)].mean() < 0.01
    assert filled[solid].mean() > 0.99


def test_a_ring_stays_open():
    points = cells()
    across = np.linalg.norm(points[..., :2], axis=-1)
    ring = (np.hypot(across - 0.6, points[..., 2])) < 0.12
    hole = (across < 0.4) & (np.abs(points[..., 2]) < 0.1)
    assert filled_shape(ring, N)[hole].mean() < 0.01


def test_corners_are_as_thick_as_their_body_but_a_rod_is_not():
    points = cells()
    across = np.linalg.norm(points[..., :2], axis=-1)
    can = (across < 0.5) & (np.abs(points[..., 2]) < 0.5)
    rod = (np.linalg.norm(points[..., 1:], axis=-1) < 0.08) & (points[..., 0] > 0) & (points[..., 0] < 0.95)
    plain = local_thickness(can | rod)
    raised = body_thickness(plain)
    rim = can & (across > 0.42) & (np.abs(points[..., 2]) > 0.38) & (np.abs(points[..., 2]) < 0.44)
    assert np.median(plain[rim]) * CELL < 0.42 < np.median(raised[rim]) * CELL
    at_rod = rod & (points[..., 0] > 0.6)
    assert np.median(raised[at_rod]) * CELL < 0.17
    assert (raised >= plain).all() and (raised <= 2 * plain + 1e-9).all() and ((raised > 0) == (plain > 0)).all()


def test_thickness_at_the_surface_of_a_cup_is_that_of_the_filled_cup():
    surface = np.array([[0.5, 0.0, 0.0], [0.0, -0.5, 0.1]])
    found = thickness_at(cup(), surface, surface * [2, 2, 0])
    assert found == pytest.approx(0.5, abs=3 * CELL)


def test_features_of_near_thicknesses_are_alike():
    values = thickness_features(np.array([0.05, 0.055, 0.4]))
    assert (values >= 0).all() and np.linalg.norm(values, axis=1) == pytest.approx(1.0)
    near, far = values[0] @ values[1], values[0] @ values[2]
    assert near > 0.95 and far < 0.1
