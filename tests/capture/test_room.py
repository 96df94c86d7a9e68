"""A room that stands still before the camera is found from photos, and no other."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.room import MIN_EXPLAINED, standing_room
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import ring

WIDTH, HEIGHT = 160, 120
COUNT = 12
VIEWS = ring(COUNT, size=(WIDTH, HEIGHT), focal=150.0, distortion=(-0.1, 0.02, 0, 0, 0, 0))


def pattern(seed: int) -> np.ndarray:
    """(H, W, 3) uint8."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH, 3))
    return np.clip(128 + 60 * 2 * cv2.GaussianBlur(noise, (0, 0), 1.5) * 2, 0, 255).astype(np.uint8)


def photos(moving: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photos of an object that changes its look, before a room; and where the object is."""
    room, images, covered = pattern(0), [], []
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for index in range(COUNT):
        there = np.hypot(x - 80 - 3 * (index % 4), y - 60) < 22
        # Below a horizon all photos are darker, also where the camera walks.
        behind = np.where(y[..., None] > 60, 0.6, 1.0) * (pattern(100 + index) if moving else room)
        images.append(np.where(there[..., None], pattern(50 + index), behind).astype(np.uint8))
        covered.append(cv2.dilate(there.astype(np.uint8), np.ones((5, 5))) > 0)
    return images, covered


def test_the_picture_of_a_room_that_stands_still() -> None:
    images, covered = photos(moving=False)
    found = standing_room(images, VIEWS, covered)
    assert found is not None and found.explained > 0.95 and "behind a turntable" in found.sentence()
    assert found.size == (WIDTH, HEIGHT)
    # Each of its pixels, sent through the lens, has the photos' colour.
    left, right, lower, upper = found.extent
    columns = left + (np.arange(WIDTH) + 0.5) / WIDTH * (right - left)
    rows = upper - (np.arange(HEIGHT) + 0.5) / HEIGHT * (upper - lower)
    tangents = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    at_origin = replace(VIEWS.subset([0]), camera_to_world=np.eye(4)[None, :3])
    uv, _ = at_origin.project_one(0, np.column_stack([tangents, -np.ones(len(tangents))]))
    inside = ((uv > 2) & (uv < (WIDTH - 2, HEIGHT - 2))).all(axis=1).reshape(HEIGHT, WIDTH)
    sharp = np.where(np.mgrid[:HEIGHT, :WIDTH][0][..., None] > 60, 0.6, 1.0) * pattern(0)
    across, down = (uv - 0.5).astype(np.float32).reshape(HEIGHT, WIDTH, 2).transpose(2, 0, 1)
    expected = cv2.remap(sharp.astype(np.uint8), across, down, cv2.INTER_LINEAR) / 255
    known = (found.known > 0) & inside
    assert known.mean() > 0.8 and np.abs(found.picture - expected)[known].max() < 0.02
    assert not found.known[58:62, 82:86].any(), "no photo shows what the object always hides"
    assert np.abs(uv.min(axis=0)).max() < 3 and np.abs(uv.max(axis=0) - (WIDTH, HEIGHT)).max() < 3, "the whole photo"


def test_a_camera_that_walks_has_no_such_room_horizon_or_not() -> None:
    images, covered = photos(moving=True)
    assert standing_room(images, VIEWS, covered) is None
    standing, _ = photos(moving=False)
    mixed = [*images[:7], *standing[7:]]
    assert standing_room(mixed, VIEWS, covered) is None, f"less than {MIN_EXPLAINED} of the detail"


@pytest.mark.parametrize("views", ["two lenses", "hardly turned", "few"])
def test_where_nothing_can_be_concluded(views: str) -> None:
    images, covered = photos(moving=False)
    known: Views = VIEWS
    if views == "two lenses":
        known = replace(VIEWS, fx=np.where(np.arange(COUNT) < 5, 150.0, 170.0))
    if views == "hardly turned":
        known = replace(VIEWS, camera_to_world=np.repeat(VIEWS.camera_to_world[:1], COUNT, axis=0))
    few = slice(None, 6) if views == "few" else slice(None)
    assert standing_room(images[few], known.subset(np.arange(COUNT)[few]), covered[few]) is None
