"""Keypoints where they must be, and epipolar lines through them, from points of space projected by the views."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.keypoints import Keypoints, camera_from_world, essential_matrix, find_keypoints, pixel_size
from tests.helpers.ball_views import ring

BARREL = np.array([0.1, -0.02, 0, 0, 0.001, 0.002])


def test_a_blob_is_found_on_the_ray_of_its_pixel_whatever_the_size_of_the_photo() -> None:
    views = ring(6, size=(320, 240), focal=300.0, distortion=BARREL)
    for factor in (1, 4):  # the larger one is shrunk to 960 pixels
        photo = np.full((240 * factor, 320 * factor, 3), 40, np.uint8)
        cv2.circle(photo, (200 * factor, 90 * factor), 6 * factor, (250, 130, 10), -1, cv2.LINE_AA)
        found = find_keypoints(photo, views, 0)
        lens = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
        k1, k2, p1, p2 = BARREL[[0, 1, 4, 5]]
        pixel = np.array([[[200 + 0.5 / factor, 90 + 0.5 / factor]]])
        expected = cv2.undistortPoints(pixel, lens, np.array([k1, k2, p1, p2]))[0, 0]
        nearest = np.linalg.norm(found.normalised - expected, axis=1).argmin()
        assert np.abs(found.normalised[nearest] - expected).max() < 1 / 300
        assert found.rgb[nearest].tolist() == [250, 130, 10]
        assert np.allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


def test_a_photo_without_texture_has_none() -> None:
    found = find_keypoints(np.full((120, 160, 3), 90, np.uint8), ring(6), 0)
    assert isinstance(found, Keypoints)
    assert (found.normalised.shape, found.descriptors.shape, found.rgb.shape) == ((0, 2), (0, 128), (0, 3))


def test_a_pixel_is_that_of_the_shrunk_photo() -> None:
    assert np.isclose(pixel_size(ring(3, size=(640, 480), focal=500.0), 0), 1 / 500)
    assert np.isclose(pixel_size(ring(3, size=(1920, 1440), focal=1500.0), 0), 2 / 1500)


def test_views_of_one_point_lie_on_each_others_epipolar_lines() -> None:
    views = ring(8, size=(320, 240), focal=300.0)
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
    x, y = (
        np.column_stack([(views.project_one(index, points)[0] - [160, 120]) / 300, np.ones(20)]) for index in (1, 4)
    )
    essential = essential_matrix(views, 1, 4)
    assert np.abs(np.einsum("pi,ij,pj->p", y, essential, x)).max() < 1e-9
    assert np.abs(np.einsum("pi,ij,pj->p", y + np.array([0, 0.05, 0]), essential, x)).min() > 1e-3
    pose = camera_from_world(views, 1)
    local = points @ pose[:, :3].T + pose[:, 3]
    assert np.allclose(local / local[:, 2:], x)
