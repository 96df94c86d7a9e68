"""Evidence of changing light: a bumpy, painted floor under a sun that stands still or moves from photo to photo."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.light import light_changes
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views

COUNT, WIDTH, HEIGHT, FOCAL = 14, 160, 120, 150.0
NOON = np.array([0.3, 0.2, 0.93])


def views(tilt: float = 0.0) -> Views:
    """Cameras 2 above the floor in a row, looking down, each turned by errors of about so many degrees."""
    random = np.random.default_rng(1)
    poses = np.tile(np.eye(4)[:3], (COUNT, 1, 1))
    poses[:, :, 3] = np.stack([np.linspace(-1, 1, COUNT), 0.2 * np.sin(np.arange(COUNT)), np.full(COUNT, 2.0)], -1)
    for pose in poses:
        pose[:, :3] = cv2.Rodrigues(random.normal(size=3) * math.radians(tilt))[0]
    one = np.ones(COUNT)
    return Views(poses, FOCAL * one, FOCAL * one, WIDTH / 2 * one, HEIGHT / 2 * one, WIDTH * one, HEIGHT * one)


def smooth(xy: np.ndarray, seed: int, scale: float) -> np.ndarray:
    """A smooth random function of places (..., 2), about -1 to 1, with waves of about this length."""
    random = np.random.default_rng(seed)
    waves = random.normal(size=(12, 2)) * 2 * math.pi / scale / 1.5
    return np.sin(xy @ waves.T + random.uniform(0, 6.3, 12)).sum(-1) / 5


def photos(cameras: Views, suns: np.ndarray, gains: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Photos of a floor whose slopes and paint are smooth, under suns (N, 3); `gains`, `offsets` (N, 3)."""
    grid = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), -1).reshape(-1, 2)
    found = []
    for view, (sun, gain, offset) in enumerate(zip(suns, gains, offsets, strict=True)):
        rays = cameras.rays(view, grid)
        centre = cameras.centres()[view]
        place = (centre - rays * (centre[2] / rays[:, 2:]))[:, :2]
        normal = np.stack([smooth(place, 1, 0.6), smooth(place, 2, 0.6), np.full(len(place), 1.2)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        paint = np.stack([0.5 + 0.2 * smooth(place, 3 + channel, 0.5) for channel in range(3)], -1)
        colour = paint * (0.3 + 0.7 * np.maximum(normal @ sun, 0))[:, None]
        image = np.clip(colour * gain + offset, 0, 1) * 255
        found.append(np.rint(image).astype(np.uint8).reshape(HEIGHT, WIDTH, 3))
    return found


@pytest.fixture(scope="module")
def points() -> SparsePoints:
    random = np.random.default_rng(0)
    xyz = np.concatenate([random.uniform([-1.8, -0.8], [1.8, 0.8], (1500, 2)), np.zeros((1500, 1))], 1)
    return SparsePoints(xyz, np.zeros((1500, 3), np.uint8), np.zeros(1500))


def exposures() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    return random.uniform(0.6, 1.3, (COUNT, 3)), random.uniform(-0.03, 0.1, (COUNT, 3))


def suns() -> np.ndarray:
    """(N, 3) low suns all around."""
    turn = np.random.default_rng(3).uniform(0, 2 * math.pi, COUNT)
    return np.stack([0.85 * np.cos(turn), 0.85 * np.sin(turn), np.full(COUNT, 0.53)], -1)


def test_exposure_and_white_balance_are_no_other_light(points: SparsePoints) -> None:
    found = light_changes(photos(views(), np.tile(NOON, (COUNT, 1)), *exposures()), views(), points)
    assert found.pairs > 20
    assert found.residual < 0.05
    assert not found.changes


def test_a_sun_that_moves_is(points: SparsePoints) -> None:
    found = light_changes(photos(views(), suns(), *exposures()), views(), points)
    assert found.residual > 0.5
    assert found.changes
    assert "appearance code of 8 numbers" in found.sentence(8)


def test_poses_that_err_by_a_degree_are_no_other_light(points: SparsePoints) -> None:
    images = photos(views(), np.tile(NOON, (COUNT, 1)), *exposures())
    found = light_changes(images, views(tilt=1.0), points)
    assert found.residual < 0.25
    assert not found.changes


def test_a_passer_by_in_every_photo_is_no_other_light(points: SparsePoints) -> None:
    images = photos(views(), np.tile(NOON, (COUNT, 1)), *exposures())
    for view, image in enumerate(images):  # somebody in front, elsewhere in every photo
        image[:, (view * 37) % 140 : (view * 37) % 140 + 20] = (200, 30, 90)
    assert light_changes(images, views(), points).residual < 0.15


def test_nothing_is_said_of_few_photos_or_without_points(points: SparsePoints) -> None:
    images = photos(views(), suns(), *exposures())
    few = light_changes(images[:4], views().subset(range(4)), points)
    assert few.pairs < 8
    assert math.isnan(few.residual)
    assert not few.changes
    for known in (None, replace(points, xyz=points.xyz[:9], rgb=points.rgb[:9], track_length=points.track_length[:9])):
        assert not light_changes(images, views(), known).changes
    assert light_changes(images[:1], views().subset([0]), points).pairs == 0
    away = replace(points, xyz=points.xyz + np.array([0, 0, 10]))  # behind all cameras
    assert light_changes(images, views(), away).pairs == 0
