"""Whether photos and poses fit each other: features matched by their looks alone, against the poses' epipolar lines.

A match of two photos is right or wrong whatever the poses are. If the poses are right, right matches lie on their
epipolar lines, and most wrong ones do not. Where hardly any match does, other readings of the file are tried: matrices
that go from world to camera, other axes, turned photos, another focal length. The one that explains the matches says
what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surface_sos_ns.capture.keypoints import Keypoints, essential_matrix, find_keypoints
from surface_sos_ns.capture.views import Views

__all__ = ["CAUSES", "PoseFit", "pose_fit"]

LONGEST_SIDE = 640
"""Photos are shrunk to this many pixels before keypoints are looked for."""
ANCHORS = 6
"""Photos that are each matched with their neighbours, by name and by pose."""
ON_LINE = 2.0
"""Pixels of the shrunk photo within which a match lies on its epipolar line."""
FEWEST = 100
"""Matches that say something."""
GAIN, RATIO = 0.15, 1.2
"""By how much more matches, as a part of all and as a factor, another reading has to explain."""
LOW = 0.15
"""Part of the matches on their lines under which poses and photos hardly fit. Chance alone gives 0.02 to 0.07."""

CAUSES = (
    "transform_matrix is not camera-to-world, or has other axes than x right, y up, looking along -z; the photos are "
    "turned, or are others than those the poses were found with; focal length or distortion are another lens's; the "
    "masks belong to other photos"
)
"""What makes photos, poses and masks disagree, the likeliest first."""


_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
_QUARTER_TURN = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transform_matrix holds world-to-camera matrices: invert them": np.linalg.inv,
    "transform_matrix has the axes of OpenCV and COLMAP (y down, looking along +z): negate its second and third "
    "column": lambda poses: poses @ _AXES,
    "transform_matrix holds world-to-camera matrices of OpenCV or COLMAP: invert them, then negate the second and "
    "third column": lambda poses: np.linalg.inv(poses) @ _AXES,
    "the photos stand on their heads: turn them, take a wrong orientation tag out of them (exiftool -Orientation= "
    "FILES), or find the poses again from the photos as they are": (lambda poses: poses @ _HALF_TURN),
    "the photos lie on their right side: turn them, or find the poses again from the photos as they are": (
        lambda poses: poses @ _QUARTER_TURN
    ),
    "the photos lie on their left side: turn them, or find the poses again from the photos as they are": (
        lambda poses: poses @ _QUARTER_TURN.T
    ),
}
"""What else the matrices (N, 4, 4) of a file may mean, and what to do about it."""

LENS = "fl_x and fl_y are another lens's; about {:g} times of them fit the photos"
FOCALS = (0.5, 0.7, 1.4, 2.0)
"""Factors on the focal length that are tried."""


@dataclass(frozen=True)
class PoseFit:
    """How well the poses explain the photos.

    Attributes:
        matches: number of matches that were looked at.
        given: part of them on their epipolar lines, 0 to 1, with the cameras as they are.
        best: the same with the reading that explains most.
        reading: what that reading is and what to do, as a sentence; None where it is the file's own, or hardly better.
    """

    matches: int
    given: float
    best: float
    reading: str | None

    @property
    def doubtful(self) -> bool:
        """Whether there are matches enough and hardly any fits."""
        return self.matches >= FEWEST and self.given < LOW


def pose_fit(images: Sequence[np.ndarray], views: Views) -> PoseFit | None:
    """Matches some of the photos by their looks, and counts which readings of the poses explain the matches.

    Args:
        images: N photos (H, W, 3) uint8 RGB, in the order they were taken, as far as that is known.
        views: N views of the photos' sizes, any frame.

    Returns:
        What was found; None where there are too few matches to say anything.
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
        rows, columns = _alike(first.descriptors, second.descriptors)
        matched[pair] = (first.normalised[rows], second.normalised[columns])
    count = sum(len(points) for points, _ in matched.values())
    if count < FEWEST:
        return None
    given = _on_lines(small, matched)
    explained = {
        words: _on_lines(replace(small, camera_to_world=read(_square(small))[:, :3]), matched)
        for words, read in READINGS.items()
    }
    explained |= {LENS.format(factor): _on_lines(small, matched, factor) for factor in FOCALS}
    words, best = max(explained.items(), key=lambda item: item[1])
    better = best >= given + GAIN and best >= RATIO * given
    return PoseFit(count, given, max(best, given), words if better else None)


def _square(views: Views) -> np.ndarray:
    """(N, 4, 4) poses."""
    poses = np.tile(np.eye(4), (len(views), 1, 1))
    poses[:, :3] = views.camera_to_world
    return poses


def _pairs(views: Views) -> list[tuple[int, int]]:
    """Pairs of photos that may show the same: neighbours in their order, and of similar poses."""
    centres, axes = views.centres(), views.axes()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    cost = distance / max(float(np.median(distance)), 1e-12) + 2 * np.arccos(np.clip(axes @ axes.T, -1, 1))
    np.fill_diagonal(cost, np.inf)
    pairs = set()
    for anchor in np.unique(np.linspace(0, len(views) - 3, ANCHORS).round().astype(int)).tolist():
        near = np.argsort(cost[anchor], kind="stable")[:2].tolist()
        pairs |= {(min(anchor, other), max(anchor, other)) for other in (anchor + 1, anchor + 2, *near)}
    return sorted(pairs)


def _alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of unit descriptors (F, 128) and (G, 128) that are each other's nearest, and clearly so."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    similarity = first @ second.T
    best = similarity.argmax(axis=1)
    rows = np.arange(len(best))
    value = similarity[rows, best]
    mutual = similarity.argmax(axis=0)[best] == rows
    similarity[rows, best] = -1.0
    distance, runner_up = (np.sqrt(np.maximum(2 - 2 * one, 0)) for one in (value, similarity.max(axis=1)))
    good = mutual & (distance < 0.8 * runner_up)
    return rows[good], best[good]


def _on_lines(views: Views, matched: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]], focal: float = 1.0) -> float:
    """Part of the matches that lie on their epipolar lines.

    Args:
        views: the cameras.
        matched: of pairs of views points (M, 2) in the image plane at depth 1, y down.
        focal: factor on the focal length with which these points were made.
    """
    centres = views.centres()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    usual = float(np.median(distance[distance > 0])) if (distance > 0).any() else 0.0
    found = total = 0
    for (a, b), points in matched.items():
        if not len(points[0]) or distance[a, b] < 0.05 * usual:  # from one place there are no lines
            continue
        essential = essential_matrix(views, a, b)
        left, right = (np.column_stack([one / focal, np.ones(len(one))]) for one in points)
        lines_b, lines_a = left @ essential.T, right @ essential
        scale = (lines_b[:, :2] ** 2).sum(axis=1) + (lines_a[:, :2] ** 2).sum(axis=1)
        limit = ON_LINE / float(views.fx[a]) / focal
        found += int(((lines_b * right).sum(axis=1) ** 2 <= limit**2 * scale).sum())  # Sampson distance
        total += len(left)
    return found / total if total else 0.0
