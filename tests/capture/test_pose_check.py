"""Photos against poses: a corner of a room with patterned sides, its poses written down rightly and wrongly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.pose_check import PoseFit, pose_fit
from surface_sos_ns.capture.views import Views
from tests.helpers.textured_corner import FOCAL, HEIGHT, WIDTH, cameras, write_photos

COUNT = 9
FLIP = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("corner")
    return [cv2.imread(str(folder / name))[..., ::-1] for name in write_photos(folder, COUNT)]


def opencv_poses() -> np.ndarray:
    """(N, 4, 4) camera-to-world with OpenCV's axes: the truth."""
    rotations, centres = cameras(COUNT)
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations, centres
    return poses


def views(poses: np.ndarray, focal: float = FOCAL, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Views:
    width, height = (np.full(COUNT, length) for length in size)
    return Views(poses[:, :3], np.full(COUNT, focal), np.full(COUNT, focal), width / 2, height / 2, width, height)


def fit(photos: list[np.ndarray], *given) -> PoseFit:
    found = pose_fit(photos, views(*given))
    assert found is not None and found.matches > 300
    return found


@pytest.mark.seconds(8)
def test_right_poses_fit(photos: list[np.ndarray]) -> None:
    found = fit(photos, opencv_poses() @ FLIP)
    assert found.inlier_ratio > 0.8 and found.hypothesis is None and not found.doubtful
    moved = opencv_poses() @ FLIP
    moved[:, :3, 3] = 1000 * moved[:, :3, 3] + 5000  # another unit, another origin: nothing that matters
    assert fit(photos, moved).inlier_ratio == pytest.approx(found.inlier_ratio, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda true: np.linalg.inv(true @ FLIP), "holds world-to-camera matrices: invert them"),
        (lambda true: true, "has the axes of OpenCV and COLMAP"),
        (np.linalg.inv, "world-to-camera matrices of OpenCV or COLMAP: invert them, then negate"),
    ],
)
def test_matrices_that_mean_something_else_are_recognised(photos: list[np.ndarray], wrong, words: str) -> None:
    found = fit(photos, wrong(opencv_poses()))
    assert found.hypothesis is not None and words in found.hypothesis
    assert found.inlier_ratio < 0.5 and found.best_inlier_ratio > 0.8


@pytest.mark.seconds(3)
def test_turned_photos_are_recognised(photos: list[np.ndarray]) -> None:
    right = opencv_poses() @ FLIP
    on_their_heads = [np.ascontiguousarray(photo[::-1, ::-1]) for photo in photos]
    assert "stand on their heads" in str(fit(on_their_heads, right).hypothesis)
    lying = (HEIGHT, WIDTH)
    for quarters, side in ((1, "left"), (-1, "right")):  # np.rot90 turns counter-clockwise
        turned = [np.ascontiguousarray(np.rot90(photo, quarters)) for photo in photos]
        assert f"lie on their {side} side" in str(fit(turned, right, FOCAL, lying).hypothesis)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_lens_is_recognised(photos: list[np.ndarray], factor: float) -> None:
    found = fit(photos, opencv_poses() @ FLIP, FOCAL * factor)
    assert found.hypothesis is not None and "fl_x and fl_y are another lens's" in found.hypothesis
    named = float(found.hypothesis.split("about ")[1].split(" times")[0])
    assert 0.7 < named * factor < 1.4


def test_poses_of_other_photos_are_doubted(photos: list[np.ndarray]) -> None:
    poses = opencv_poses() @ FLIP
    shuffled = poses[[5, 2, 8, 0, 7, 3, 1, 6, 4]]
    shuffled[:, :3, 3] *= np.linspace(0.3, 3, COUNT)[:, None]
    found = fit(photos, shuffled)
    assert found.hypothesis is None and found.doubtful


def test_photos_without_anything_to_match_say_nothing(photos: list[np.ndarray]) -> None:
    right = views(opencv_poses() @ FLIP)
    assert pose_fit([np.full_like(photo, 127) for photo in photos], right) is None
    two = replace(right.subset([0, 1]))
    assert pose_fit(photos[:2], two) is None
