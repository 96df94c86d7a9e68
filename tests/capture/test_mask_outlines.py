"""Masks that are too wide or too narrow all around, against discs and capsules that are known."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.mask_outlines import moved_outline, moved_outlines, outline_offset
from surface_sos_ns.capture.object_prior import GIVEN, MOVED, build_object_prior
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.utils.outline_distance import signed_distance
from tests.helpers.ball_views import iou, ring
from tests.helpers.capsules import Capsule, cropped_above, masks_of

BODY, LEG = Capsule((0.0, 0.0, 0.3), (0.0, 0.0, 0.0), 0.5), Capsule((0.15, 0.1, -0.5), (0.2, 0.1, -1.1), 0.12)
SPHERE = ObjectSphere(np.zeros(3), 1.4, "known")


def disc(radius: float, size: int = 120) -> np.ndarray:
    """(size, size) bool, in the middle of the picture."""
    axis = np.arange(size) + 0.5 - size / 2
    return np.hypot(axis[:, None], axis) < radius


def test_signed_distance_of_a_half_plane():
    mask = np.zeros((8, 10), bool)
    mask[:, 4:] = True
    np.testing.assert_allclose(signed_distance(mask)[3], np.arange(10) - 3.5, atol=1e-4)


@pytest.mark.parametrize("offset", [4.0, 2.0, -3.0])
def test_offset_of_discs_is_the_difference_of_their_radii(offset):
    wide, narrow = disc(40 + offset), disc(40)
    found = outline_offset(np.pad(wide, 100), np.pad(narrow, 100))
    assert found == pytest.approx(offset, abs=0.5)
    assert iou(moved_outline(wide, offset), narrow) > 0.97


def test_a_false_piece_has_no_say_in_the_offset():
    mask, silhouette = np.zeros((200, 320), bool), np.zeros((200, 320), bool)
    mask[40:160, 40:140] = silhouette[40:160, 40:140] = True
    mask[90:110, 160:250] = True
    assert abs(outline_offset(mask, silhouette)) <= 0.5


def test_no_offset_where_there_is_nothing_to_compare():
    empty, full = np.zeros((60, 60), bool), np.ones((60, 60), bool)
    for mask, silhouette in ((empty, disc(20, 60)), (disc(20, 60), empty), (full, disc(20, 60)), (disc(8, 60), full)):
        assert outline_offset(mask, silhouette) == 0.0
    assert outline_offset(disc(10), disc(50)) == 0.0  # far from each other


WHOLE = range(0, 24, 4)
"""Photos that show the leg."""


@pytest.fixture(scope="module")
def views():
    """Cameras around a body with a leg, whose pictures, but for six, end above the leg."""
    return cropped_above(ring(24, size=(240, 180), focal=255.0), LEG, whole=WHOLE)


@pytest.fixture(scope="module")
def truth(views):
    return masks_of([BODY, LEG], views)


def off_by(masks, offsets):
    """Masks whose outlines run outside by some pixels, by view."""
    return [moved_outline(mask, -offsets[view]) if view in offsets else mask for view, mask in enumerate(masks)]


OFF = dict.fromkeys(range(0, 24, 3), -2.5) | dict.fromkeys(WHOLE, 3.0)
"""Most masks of the leg are three pixels too wide; the others are right or too narrow."""


@pytest.mark.seconds(5)
def test_masks_are_put_right_also_where_few_photos_look(views, truth):
    masks = off_by(truth, OFF)
    said: list[str] = []
    found = moved_outlines(views, masks, vote_hull(views, masks, SPHERE, 96), SPHERE, said.append)
    assert found is not None
    for view in OFF:
        assert iou(found[view] > 0.5, truth[view]) > 0.92 > 0.88 > iou(masks[view], truth[view])
    assert len(said) == 1 and "too wide or too narrow all around" in said[0]


@pytest.mark.seconds(4)
def test_right_masks_and_few_wrong_ones_stay(views, truth):
    for offsets in ({}, {0: 4.0, 5: 3.0, 12: -3.0}):  # as of photos whose pose is a little off
        masks = off_by(truth, offsets)
        assert moved_outlines(views, masks, vote_hull(views, masks, SPHERE, 96), SPHERE) is None


@pytest.mark.seconds(8)
def test_training_starts_from_the_moved_masks_where_pictures_cut_the_object_off(views, truth):
    masks = off_by(truth, OFF)
    named = {"object_point": SPHERE.centre, "object_radius": SPHERE.radius, "resolution": 64}
    prior = build_object_prior(views, masks, **named)
    assert prior.source == MOVED and prior.masks_given and not prior.masks_at_hand
    assert min(iou(prior.masks[view] > 0.5, truth[view]) for view in WHOLE) > 0.92
    whole = ring(24, size=(240, 180), focal=255.0)
    shown = masks_of([BODY, LEG], whole)
    assert build_object_prior(whole, off_by(shown, OFF), **named).source == GIVEN
