"""Boxes that a detector finds in each photo: which of them are one thing in space, and masks within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.geometry import LONGEST_SIDE, cut, enlarge

__all__ = ["Boxes", "choose_boxes", "mask_in_box"]

MAX_PAIRS = 400
"""Pairs of boxes of different photos whose common place is tried, at most."""
CORE = 0.35
"""Radii of the ellipse in the middle of a box, over its sides, that GrabCut takes for certain foreground."""


@dataclass(frozen=True)
class Boxes:
    """What was found in one photo.

    Attributes:
        corners: (B, 4) left, top, right, bottom, pixels.
        scores: (B,) in [0, 1], how sure the detector is.
    """

    corners: np.ndarray
    scores: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """(B, 2) pixels."""
        return (self.corners[:, :2] + self.corners[:, 2:]) / 2


def choose_boxes(found: Sequence[Boxes], views: Views, seed: int = 0) -> list[int | None]:
    """Of each photo's boxes the one that shows the thing that most photos show, by its place in space.

    For every pair of boxes of two photos, the midpoint of the shortest segment between the rays through their centres
    is a candidate place. The candidate with the largest merit is taken: the sum over the photos of the best box's
    score times how near to the box's middle the candidate projects.

    Args:
        found: of N photos.
        views: N views.
        seed: of the choice of pairs, where there are many.

    Returns:
        For each photo the index of its box; None where no box is at the place.
    """
    boxes = [(view, index) for view, one in enumerate(found) for index in range(len(one.scores))]
    pairs = [(a, b) for number, a in enumerate(boxes) for b in boxes[number + 1 :] if a[0] != b[0]]
    if not pairs:
        return [None] * len(found)
    if len(pairs) > MAX_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(pairs), MAX_PAIRS, replace=False)
        pairs = [pairs[index] for index in np.sort(chosen)]
    rays = {(view, index): views.rays(view, found[view].centres[index][None])[0] for view, index in boxes}
    centres = views.centres()
    places = np.array([_nearest(centres[a[0]], rays[a], centres[b[0]], rays[b]) for a, b in pairs])
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return [None] * len(found)
    merits = [_merits(one, *views.project_one(view, places)) for view, one in enumerate(found)]  # N of (B, P)
    total = sum((merit.max(axis=0) for merit in merits if len(merit)), start=np.zeros(len(places)))
    best = int(np.argmax(total))
    return [int(np.argmax(merit[:, best])) if len(merit) and merit[:, best].max() > 0 else None for merit in merits]


def mask_in_box(photo: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """What stands out in a box by its colours (GrabCut): (H, W) float32 0/1.

    Args:
        photo: (H, W, 3) uint8 RGB.
        corners: (4,) left, top, right, bottom, pixels.
    """
    height, width = photo.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    small = cv2.resize(photo, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]] + 0.5
    left, top, right, bottom = np.asarray(corners, float) * factor
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[(columns > left) & (columns < right) & (rows > top) & (rows < bottom)] = cv2.GC_PR_FGD
    across = (columns - (left + right) / 2) / max(CORE * (right - left), 0.5)
    down = (rows - (top + bottom) / 2) / max(CORE * (bottom - top), 0.5)
    labels[(across**2 + down**2 < 1) & (labels == cv2.GC_PR_FGD)] = cv2.GC_FGD
    return enlarge(cut(small, labels), width, height)


def _nearest(start: np.ndarray, ray: np.ndarray, other: np.ndarray, other_ray: np.ndarray) -> np.ndarray:
    """The point between two rays where they come nearest to each other; nan where that is behind a camera."""
    along = float(ray @ other_ray)
    apart = other - start
    if 1 - along**2 < 1e-6:
        return np.full(3, np.nan)
    first = (apart @ ray - along * (apart @ other_ray)) / (1 - along**2)
    second = along * first - apart @ other_ray
    if first <= 0 or second <= 0:
        return np.full(3, np.nan)
    middle: np.ndarray = (start + first * ray + other + second * other_ray) / 2
    return middle


def _merits(boxes: Boxes, pixel: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(B, P) how well places (P, 2) pixels, (P,) depths fit boxes: the score in their middle, 0 at their sides."""
    half = np.maximum((boxes.corners[:, 2:] - boxes.corners[:, :2]) / 2, 1e-6)
    with np.errstate(invalid="ignore"):
        away = np.abs(pixel[None] - boxes.centres[:, None]) / half[:, None]
        fit = np.clip(1 - away.max(axis=2), 0, 1) * (depth > 0)
    return boxes.scores[:, None] * np.nan_to_num(fit)
