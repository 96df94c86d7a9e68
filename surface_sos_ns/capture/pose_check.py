"""Checks poses against photos: epipolar inlier ratio of keypoint matches that were found without the poses.

If the poses are right, correct matches lie on their epipolar lines, and most wrong ones do not. If hardly any match
does, other interpretations of the file are tried: world-to-camera matrices, other camera axes, rotated photos, another
focal length. One with many inliers tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surface_sos_ns.capture.keypoints import Keypoints, essential_matrix, find_keypoints, match_descriptors
from surface_sos_ns.capture.views import Views

__all__ = ["CAUSES", "PoseFit", "pose_fit"]

LONGEST_SIDE = 640
"""Longer side in pixels to which photos are downscaled."""
REFERENCE_PHOTOS = 6
"""Photos that are matched with their neighbours in the order of the photos, and by pose."""
MAX_EPIPOLAR_DISTANCE = 2.0
"""Largest Sampson distance of an inlier, pixels of the downscaled photo."""
MIN_MATCHES = 100
"""Fewest matches that the inlier ratio is computed from."""
MIN_GAIN, MIN_GAIN_FACTOR = 0.15, 1.2
"""By how much, and by what factor, the inlier ratio of a hypothesis has to exceed that of the file as it is."""
LOW_INLIER_RATIO = 0.15
"""Inlier ratio below which poses and photos do not fit. Random matches give 0.02 to 0.07."""

CAUSES = (
    "transform_matrix is not camera-to-world, or has other axes than x right, y up, looking along -z; the photos are "
    "turned, or are others than those the poses were found with; focal length or distortion are another lens's; the "
    "masks belong to other photos"
)
"""Why photos, poses and masks may disagree, the likeliest cause first; for messages."""

_OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
_QUARTER_TURN = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

HYPOTHESES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transform_matrix holds world-to-camera matrices: invert them": np.linalg.inv,
    "transform_matrix has the axes of OpenCV and COLMAP (y down, looking along +z): negate its second and third "
    "column": lambda poses: poses @ _OPENCV_TO_OPENGL,
    "transform_matrix holds world-to-camera matrices of OpenCV or COLMAP: invert them, then negate the second and "
    "third column": lambda poses: np.linalg.inv(poses) @ _OPENCV_TO_OPENGL,
    "the photos stand on their heads: turn them, take a wrong orientation tag out of them (exiftool -Orientation= "
    "FILES), or find the poses again from the photos as they are": (lambda poses: poses @ _HALF_TURN),
    "the photos lie on their right side: turn them, or find the poses again from the photos as they are": (
        lambda poses: poses @ _QUARTER_TURN
    ),
    "the photos lie on their left side: turn them, or find the poses again from the photos as they are": (
        lambda poses: poses @ _QUARTER_TURN.T
    ),
}
"""Other interpretations of the matrices (N, 4, 4) of a file: what to do, and the camera-to-world matrices."""

STANDS = 0.0015
"""Shift between two photos up to which a feature stands still, over `LONGEST_SIDE`."""

FOCAL_HYPOTHESIS = "fl_x and fl_y are another lens's; about {:g} times of them fit the photos"
FOCAL_FACTORS = (0.5, 0.7, 1.4, 2.0)
"""Factors of the focal length that are tried."""


@dataclass(frozen=True)
class PoseFit:
    """How well poses and photos fit.

    Attributes:
        matches: number of matches.
        inlier_ratio: fraction of the matches on their epipolar lines with the cameras of the file, 0 to 1.
        best_inlier_ratio: the largest of the hypotheses and the file.
        hypothesis: what is wrong and what to do, as a sentence; None if no hypothesis is clearly better than the file.
    """

    matches: int
    inlier_ratio: float
    best_inlier_ratio: float
    hypothesis: str | None

    @property
    def doubtful(self) -> bool:
        """Whether there are enough matches, and the inlier ratio is low."""
        return self.matches >= MIN_MATCHES and self.inlier_ratio < LOW_INLIER_RATIO


def pose_fit(images: Sequence[np.ndarray], views: Views) -> PoseFit | None:
    """Matches keypoints of some photos by descriptor, and measures the epipolar inlier ratio.

    Args:
        images: N photos (H, W, 3) uint8 RGB, in the order they were taken if that is known.
        views: N views of the photos' sizes, any frame.

    Returns:
        None for fewer than three views or `MIN_MATCHES` matches.
    """
    if len(views) < 3:
        return None
    small = views.scaled(min(1.0, LONGEST_SIDE / float(max(views.width.max(), views.height.max()))))
    keypoints: dict[int, Keypoints] = {}
    matched: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for pair in _pairs(views):
        for index in set(pair) - set(keypoints):
            size = (int(small.width[index]), int(small.height[index]))
            shrunk = cv2.resize(images[index], size, interpolation=cv2.INTER_AREA)
            keypoints[index] = find_keypoints(shrunk, small, index)
        first, second = (keypoints[index] for index in pair)
        if min(len(first.descriptors), len(second.descriptors)) < 2:
            continue
        rows, columns, _ = match_descriptors(first.descriptors @ second.descriptors.T, 0.8)
        here, there = first.normalised[rows], second.normalised[columns]
        # Keypoints that do not move are on the room behind a turntable, whose poses are the object's, or on the lens.
        moved = np.linalg.norm(here - there, axis=1) * float(small.fx[pair[0]]) > STANDS * LONGEST_SIDE
        matched[pair] = (here[moved], there[moved])
    count = sum(len(points) for points, _ in matched.values())
    if count < MIN_MATCHES:
        return None
    given = _inlier_ratio(small, matched)
    ratios = {
        words: _inlier_ratio(replace(small, camera_to_world=convert(_poses_4x4(small))[:, :3]), matched)
        for words, convert in HYPOTHESES.items()
    }
    ratios |= {FOCAL_HYPOTHESIS.format(factor): _inlier_ratio(small, matched, factor) for factor in FOCAL_FACTORS}
    words, best = max(ratios.items(), key=lambda item: item[1])
    better = best >= given + MIN_GAIN and best >= MIN_GAIN_FACTOR * given
    return PoseFit(count, given, max(best, given), words if better else None)


def _poses_4x4(views: Views) -> np.ndarray:
    """(N, 4, 4) camera-to-world matrices."""
    poses = np.tile(np.eye(4), (len(views), 1, 1))
    poses[:, :3] = views.camera_to_world
    return poses


def _pairs(views: Views) -> list[tuple[int, int]]:
    """Pairs of photos that may overlap: neighbours in the order of the photos, and by pose."""
    centres, axes = views.centres(), views.axes()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    cost = distance / max(float(np.median(distance)), 1e-12) + 2 * np.arccos(np.clip(axes @ axes.T, -1, 1))
    np.fill_diagonal(cost, np.inf)
    pairs = set()
    for reference in np.unique(np.linspace(0, len(views) - 3, REFERENCE_PHOTOS).round().astype(int)).tolist():
        near = np.argsort(cost[reference], kind="stable")[:2].tolist()
        pairs |= {(min(reference, other), max(reference, other)) for other in (reference + 1, reference + 2, *near)}
    return sorted(pairs)


def _inlier_ratio(
    views: Views, matched: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]], focal: float = 1.0
) -> float:
    """Fraction of the matches with a Sampson distance of at most `MAX_EPIPOLAR_DISTANCE`.

    Pairs of views with a baseline under 5 % of the median one are skipped, since they have no epipolar lines.

    Args:
        views: the cameras.
        matched: for pairs of views, matching points (M, 2) and (M, 2) in normalised image coordinates, y down.
        focal: factor of the focal length: the points are divided by it.
    """
    centres = views.centres()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    median = float(np.median(distance[distance > 0])) if (distance > 0).any() else 0.0
    inliers = total = 0
    for (a, b), points in matched.items():
        if not len(points[0]) or distance[a, b] < 0.05 * median:
            continue
        essential = essential_matrix(views, a, b)
        left, right = (np.column_stack([one / focal, np.ones(len(one))]) for one in points)
        lines_b, lines_a = left @ essential.T, right @ essential
        scale = (lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1)
        limit = MAX_EPIPOLAR_DISTANCE / float(views.fx[a]) / focal
        inliers += int(((lines_b * right).sum(axis=1) ** 2 <= limit**2 * scale).sum())  # Sampson distance
        total += len(left)
    return inliers / total if total else 0.0
