"""Sums over lines of sight and votes of few, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.capture.few_views import connected_cells, crossing, resampled, shrunk_fraction
from surface_sos_ns.capture.views import Views
from tests.helpers.poses import look_at


def cameras(*centres) -> Views:
    """Cameras at centres that look at the origin, 40 x 30 pixels."""
    poses = np.array([look_at(np.array(centre, float), np.zeros(3))[:3] for centre in centres])
    one = np.ones(len(centres))
    return Views(poses, 30 * one, 30 * one, 20 * one, 15 * one, 40 * one, 30 * one)


def test_lines_of_sight_cross_by_the_squared_sine_of_their_angle():
    full, origin = np.ones((30, 40), bool), np.zeros((1, 3))
    angle = np.radians(30)
    views = cameras((3, 0, 0), (0, 3, 0), (5 * np.cos(angle), 5 * np.sin(angle), 0), (-2, 0, 0))

    def total(masks, weights=(1, 1, 1, 1)):
        return float(crossing(views, masks, np.array(weights, float), origin)[0])

    assert total([full, full, None, None]) == pytest.approx(1.0)
    assert total([full, None, full, None]) == pytest.approx(0.25)
    assert total([full, None, None, full]) == pytest.approx(0.0, abs=1e-9), "from both sides, one line"
    assert total([full, full, full, None]) == pytest.approx(1.0 + 0.25 + 0.75)
    assert total([full, full, None, None], (0.5, 0.4, 1, 1)) == pytest.approx(0.2)
    assert total([full, ~full, None, None]) == 0.0
    half = full.copy()
    half[:, :21] = False  # of a smaller size, too: the origin is at column 20
    assert total([full, half, None, None]) == 0.0
    assert total([full, np.ones((3, 4), bool), None, None]) == pytest.approx(1.0)


def test_a_point_outside_the_picture_or_behind_the_camera_is_not_covered():
    full = np.ones((30, 40), bool)
    views = cameras((3, 0, 0), (0, 3, 0))
    found = crossing(views, [full, full], np.ones(2), np.array([[0, 0, 0], [6.0, 0, 0], [0, 0, 9.0]]))
    np.testing.assert_allclose(found, [1, 0, 0], atol=1e-9)


def test_votes_of_few_are_nearer_to_undecided():
    level = 0.8
    one, ten = (shrunk_fraction(np.array([n], np.float32), np.array([n], np.float32), level)[0] for n in (1, 10))
    assert level < one < ten < 1
    assert ten == pytest.approx((10 + 1.6) / 12)
    against = shrunk_fraction(np.array([2, 20], np.float32), np.array([3, 30], np.float32), level)
    assert against[1] < against[0] < level, "one of three against it says less than ten of thirty"


def test_pieces_that_no_cell_of_many_belongs_to_go():
    probability = np.zeros((12, 4, 4), np.float32)
    probability[1:4], probability[8:11] = 0.9, 0.9
    many = np.zeros(probability.shape, bool)
    many[2] = True
    kept = connected_cells(probability, many)
    assert kept[1:4].all() and not kept[8:11].any()
    assert connected_cells(probability, np.zeros_like(many)).all(), "no cell is seen by many: nothing to hang on to"
    probability[4:8] = 0.3
    assert connected_cells(probability, many).all()


def test_cells_at_another_resolution():
    cells = np.arange(8).reshape(2, 2, 2)
    found = resampled(cells, 6)
    assert found.shape == (6, 6, 6)
    assert (found[:3, :3, :3] == 0).all() and (found[3:, 3:, 3:] == 7).all() and (found[:3, 3:, :3] == 2).all()
    np.testing.assert_array_equal(resampled(cells, 2), cells)
