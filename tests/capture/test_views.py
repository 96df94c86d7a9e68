"""Projection against OpenCV's own, by hand, and its inverse."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.views import Views


def _views(distortion=(0, 0, 0, 0, 0, 0), fisheye=False, count=3, seed=0) -> Views:
    """Cameras around the origin, at about 4 units from it, looking at it with a random roll."""
    generator = np.random.default_rng(seed)
    poses = []
    for _ in range(count):
        back = generator.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross(generator.normal(size=3), back)
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(back, right), back, 4 * back], axis=1))
    ones = np.ones(count)
    return Views(
        np.array(poses), 300 * ones, 310 * ones, 161 * ones, 118 * ones, 320 * ones, 240 * ones,
        np.tile(np.array(distortion, float), (count, 1)), np.full(count, fisheye),
    )  # fmt: skip


def _opencv_pose(views: Views, index: int) -> tuple[np.ndarray, np.ndarray]:
    rotation = np.diag([1.0, -1.0, -1.0]) @ views.camera_to_world[index, :, :3].T
    return cv2.Rodrigues(rotation)[0], -rotation @ views.camera_to_world[index, :, 3]


def test_projection_by_hand():
    pose = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2]]])  # at z = 2, looking down -z
    views = Views(pose, *(np.array([value]) for value in (100.0, 200.0, 50.0, 40.0, 100, 80)))
    uv, depth = views.project(np.array([[0.0, 0, 0], [0.5, 0.25, 0], [0, 0, 3]]))
    np.testing.assert_allclose(uv[0, 0], [50, 40])
    np.testing.assert_allclose(uv[0, 1], [50 + 100 * 0.25, 40 - 200 * 0.125])  # y goes down in the image
    assert np.isnan(uv[0, 2]).all()  # behind the camera
    np.testing.assert_allclose(depth[0], [2, 2, -1])
    np.testing.assert_allclose(views.centres(), [[0, 0, 2]])
    np.testing.assert_allclose(views.axes(), [[0, 0, -1]])


def test_pinhole_distortion_matches_opencv():
    k1, k2, k3, p1, p2 = 0.12, -0.05, 0.01, 0.003, -0.002
    views = _views((k1, k2, k3, 0, p1, p2))
    points = np.random.default_rng(1).uniform(-1, 1, (200, 3))
    uv, depth = views.project(points)
    for index in range(len(views)):
        matrix = np.array([[300, 0, 161], [0, 310, 118], [0, 0, 1.0]])
        truth, _ = cv2.projectPoints(points, *_opencv_pose(views, index), matrix, np.array([k1, k2, p1, p2, k3]))
        np.testing.assert_allclose(uv[index], truth[:, 0], atol=1e-8)
        np.testing.assert_allclose(depth[index], (points - views.centres()[index]) @ views.axes()[index])


def test_fisheye_matches_opencv():
    views = _views((0.05, -0.02, 0.003, -0.001, 0, 0), fisheye=True)
    points = np.random.default_rng(2).uniform(-2, 2, (200, 3))
    uv, _ = views.project(points)
    for index in range(len(views)):
        matrix = np.array([[300, 0, 161], [0, 310, 118], [0, 0, 1.0]])
        truth, _ = cv2.fisheye.projectPoints(
            points[:, None], *_opencv_pose(views, index), matrix, np.array([0.05, -0.02, 0.003, -0.001])
        )
        np.testing.assert_allclose(uv[index], truth[:, 0], atol=1e-8)


@pytest.mark.parametrize(
    ("distortion", "fisheye"),
    [((0, 0, 0, 0, 0, 0), False), ((0.12, -0.05, 0.01, 0, 0.003, -0.002), False), ((0.05, -0.02, 0, 0, 0, 0), True)],
)
def test_rays_are_the_inverse_of_projection(distortion, fisheye):
    views = _views(distortion, fisheye)
    uv = np.random.default_rng(3).uniform([0, 0], [320, 240], (100, 2))
    for index in range(len(views)):
        rays = views.rays(index, uv)
        np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
        again, _ = views.project_one(index, views.centres()[index] + 3 * rays)
        np.testing.assert_allclose(again, uv, atol=1e-6)


def test_points_beyond_the_lens_do_not_fold_back_into_the_image():
    views = _views((-0.4, 0, 0, 0, 0, 0), count=1)  # r (1 - 0.4 r^2) turns back at r = 0.91
    rotation, centre = views.camera_to_world[0, :, :3], views.centres()[0]
    far_off_axis = centre + rotation @ np.array([1.58, 0, -1.0])  # would land at r = 0.002, mid-image
    uv, depth = views.project(far_off_axis[None])
    assert depth[0, 0] > 0
    assert np.isnan(uv).all()


def test_scaled_views_follow_the_rounded_image():
    views = _views((0.12, -0.05, 0, 0, 0.003, -0.002))
    small = views.scaled(1 / 3)
    assert small.width.tolist() == [107] * 3 and small.height.tolist() == [80] * 3
    points = np.random.default_rng(4).uniform(-1, 1, (20, 3))
    np.testing.assert_allclose(small.project(points)[0], views.project(points)[0] * [107 / 320, 80 / 240])


def test_single_precision_is_close():
    views = _views((0.12, -0.05, 0, 0, 0.003, -0.002))
    points = np.random.default_rng(5).uniform(-1, 1, (50, 3))
    np.testing.assert_allclose(views.project(points.astype(np.float32))[0], views.project(points)[0], atol=1e-3)


def test_subset_and_errors():
    views = _views()
    assert len(views.subset([2, 0])) == 2
    np.testing.assert_array_equal(views.subset([2]).camera_to_world[0], views.camera_to_world[2])
    poses = views.camera_to_world.copy()
    poses[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"view\(s\) \[1\]"):
        Views(poses, *([np.ones(3)] * 4), np.full(3, 10), np.full(3, 10))
    with pytest.raises(ValueError, match="Views.fx"):
        Views(views.camera_to_world, np.ones(2), *([np.ones(3)] * 3), np.full(3, 10), np.full(3, 10))
