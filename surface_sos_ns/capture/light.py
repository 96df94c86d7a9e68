"""Whether the light changes from photo to photo by more than a gain and an offset per photo can explain.

The colours of sparse points are compared in pairs of photos from nearly the same place. If the light is the same, the
colours of the two photos differ by exposure and white balance only: a gain and an offset per channel. If the sun has
moved or clouds have come, the shading differs, and no gain and offset map the colours of one photo to the other's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views

__all__ = ["MAX_RESIDUAL", "LightEvidence", "light_changes"]

MAX_RESIDUAL = 0.35
"""Residual up to which one light explains the photos. Photos taken in one go have 0.03 to 0.1, 0.23 if their white
balance changes between warm and cold, 0.2 if their poses err by a degree; photos of one monument by many people have
0.5 to 0.6."""
LONGEST_SIDE = 240
"""Longer side, in pixels, of the photos that colours are taken from: shading varies slowly over a photo."""
MAX_POINTS = 2000
"""Points that are looked up."""
NEIGHBOURS, MAX_ANGLE = 3, 20.0
"""Photos that each photo is compared with, and the largest angle between the axes of two, degrees: seen from elsewhere,
things look different in the same light."""
MAX_PAIRS = 100
"""Pairs that are compared, taken evenly from all."""
MIN_SHARED_POINTS, MIN_PAIRS = 60, 8
"""Points that both photos of a pair must show, and pairs that must be left for an answer."""
DEPTH_TOLERANCE = 0.03
"""How far behind the nearest point of its surroundings a point may be and still count as seen: share of the depth."""
SURROUNDINGS = 0.015
"""Size of a cell of these surroundings, 3 x 3 cells, share of the photo's longer side."""
DARKEST, BRIGHTEST = 0.02, 0.98
"""Range of a point's brightest channel, 0 to 1, within which it is used: other values are clipped by the camera."""
BLUR = 1.5
"""Standard deviation of the blur of the small photos, pixels."""
MAX_OFFSET, SEARCH_POINTS = 8, 300
"""Range of the coarse search for the shift between two photos, pixels of the small photos; points that the search uses,
roughly."""
LOCAL_POINTS = 8
"""Neighbouring points over which the median of residuals is taken, against errors of single points."""
MIN_CONTRAST = 0.02
"""Least contrast that residuals are compared with."""


@dataclass(frozen=True)
class LightEvidence:
    """What photos say about the light.

    Attributes:
        residual: residual of the colours over their contrast, after a gain and an offset per channel fit one photo of
            a pair to the other; median of the pairs: 0 for the same light, 1 for photos that have nothing in common;
            nan where there are too few pairs.
        pairs: pairs of photos that were compared.
    """

    residual: float
    pairs: int

    @property
    def changes(self) -> bool:
        """Whether the light changes from photo to photo; False where nothing is known."""
        return self.residual > MAX_RESIDUAL

    def sentence(self, length: int) -> str:
        """What to say where it changes.

        Args:
            length: of the appearance code that is learned then.
        """
        return (
            f"the light differs from photo to photo beyond exposure ({self.residual:.2f} of the contrast between "
            f"neighbouring photos is not explained by it, against {MAX_RESIDUAL:.2f} at most in one light): an "
            f"appearance code of {length} numbers a photo is learned"
        )


def light_changes(images: Sequence[np.ndarray], views: Views, points: SparsePoints | None) -> LightEvidence:
    """Measures whether one light explains the photos. Takes a second or two.

    Args:
        images: N photos (H, W, 3) uint8 RGB, of the views' sizes.
        views: N views.
        points: sparse points in the same frame. Which photos they were found in does not matter: where the light
            changes, features are only found again in photos of the same light.
    """
    if points is None or len(points) < MIN_SHARED_POINTS:
        return LightEvidence(math.nan, 0)
    chosen = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
    small = views.scaled(min(1.0, LONGEST_SIDE / float(max(views.width.max(), views.height.max()))))
    pairs = _neighbouring_pairs(small)
    used = sorted({view for pair in pairs for view in pair})
    seen = {view: _Photo.of(images[view], small, view, points.xyz[chosen]) for view in used}
    residuals = [_residual(seen[one], seen[other]) for one, other in pairs]
    known = [value for value in residuals if value is not None]
    if len(known) < MIN_PAIRS:
        return LightEvidence(math.nan, len(known))
    return LightEvidence(float(np.median(known)), len(known))


@dataclass(frozen=True)
class _Photo:
    """A small blurred photo, 0 to 1, with P points in it: positions (P, 2) in pixels, and which are seen (P,)."""

    image: np.ndarray
    uv: np.ndarray
    seen: np.ndarray

    @staticmethod
    def of(image: np.ndarray, views: Views, view: int, xyz: np.ndarray) -> _Photo:
        """Shrinks a photo to its view's size and looks points (P, 3) up in it."""
        size = (int(views.width[view]), int(views.height[view]))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        uv, depth = views.project_one(view, xyz)
        found = _Photo(cv2.GaussianBlur(small, (0, 0), BLUR), uv, np.isfinite(depth))
        with np.errstate(invalid="ignore"):
            seen = ((uv >= 1) & (uv < np.array(size) - 1)).all(axis=1)
        if seen.any():
            seen[seen] = _in_front(uv[seen], depth[seen], size)
            brightest = found.colours(uv[seen]).max(axis=1)
            seen[seen] = (brightest > DARKEST) & (brightest < BRIGHTEST)
        return _Photo(found.image, uv, seen)

    def colours(self, uv: np.ndarray) -> np.ndarray:
        """(..., 3) at positions (..., 2); beyond the photo those of its edge."""
        at = (uv - 0.5).astype(np.float32).reshape(-1, uv.shape[-2], 2)
        found = cv2.remap(self.image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.reshape(*uv.shape[:-1], 3)


def _in_front(uv: np.ndarray, depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(P,) bool: which points are not hidden behind nearer ones beside them in the photo.

    Args:
        uv: (P, 2) positions in the photo, pixels.
        depth: (P,) along the optical axis.
        size: width and height of the photo.
    """
    cell = max(2.0, SURROUNDINGS * max(size))
    across, down = (uv / cell).astype(int).T
    nearest = np.full((int(size[1] / cell) + 1, int(size[0] / cell) + 1), np.inf, np.float32)
    np.minimum.at(nearest, (down, across), depth.astype(np.float32))
    around = cv2.erode(nearest, np.ones((3, 3), np.uint8))
    return np.asarray(depth <= (1 + DEPTH_TOLERANCE) * around[down, across])


def _neighbouring_pairs(views: Views) -> list[tuple[int, int]]:
    """Pairs of views with near camera centres and similar optical axes."""
    centres, axes = views.centres(), views.axes()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    scale = float(np.median(distance[distance > 0])) if (distance > 0).any() else 1.0
    angle = np.arccos(np.clip(axes @ axes.T, -1, 1))
    cost = distance / scale + 2 * angle
    np.fill_diagonal(cost, np.inf)
    pairs = {
        (min(first, second), max(first, second))
        for first in range(len(views))
        for second in np.argsort(cost[first], kind="stable")[:NEIGHBOURS].tolist()
        if first != second and angle[first, second] < math.radians(MAX_ANGLE)
    }
    places = np.linspace(0, len(pairs) - 1, min(MAX_PAIRS, len(pairs))).round().astype(int)
    ordered = sorted(pairs)
    return [ordered[place] for place in places]


def _residual(first: _Photo, second: _Photo) -> float | None:
    """Residual over contrast of the second photo's colours, after a fit of the first photo's (`_unexplained`).

    Mean over the channels; None where both photos show too few points. All estimates are robust against highlights and
    against points that are occluded after all.
    """
    both = first.seen & second.seen
    if np.count_nonzero(both) < MIN_SHARED_POINTS:
        return None
    x, place = first.colours(first.uv[both]), second.uv[both]
    y = second.colours(place + _offset_between(x, second, place))
    _, beside = cKDTree(place).query(place, k=LOCAL_POINTS)
    local = np.median(_unexplained(x, y)[beside], axis=1)
    return float(_deviation(local).mean() / _contrast(y))


def _offset_between(x: np.ndarray, second: _Photo, place: np.ndarray) -> np.ndarray:
    """(2,) pixels: the shift of the second photo, against its pose, that leaves the smallest residual.

    Without it, pose errors of half a degree, as with phones, would be taken for a change of the light.

    Args:
        x: (P, 3) colours of points in the first photo.
        second: the second photo.
        place: (P, 2) the points projected by its pose, pixels.
    """
    every = max(1, len(x) // SEARCH_POINTS)
    x, place = x[::every], place[::every]
    best = np.zeros(2)
    for reach, step in ((MAX_OFFSET, 2), (1, 1)):
        moves = np.arange(-reach, reach + 1, step)
        around = np.stack(np.meshgrid(moves, moves), axis=-1).reshape(-1, 2)
        around = best + around[np.argsort(np.abs(around).sum(axis=1), kind="stable")]  # of equals the smallest
        y = second.colours(place + around[:, None])
        best = around[np.argmin(_deviation(_unexplained(x, y, 2)).mean(axis=-1) / _contrast(y))]
    return best


def _unexplained(x: np.ndarray, y: np.ndarray, iterations: int = 8) -> np.ndarray:
    """(..., P, C) residual of colours y (..., P, C) after a gain and an offset per channel map colours x (P, C) to y.

    Both are found by iteratively reweighted least squares (Cauchy), starting from those that make the medians and the
    deviations of x and y equal.
    """
    centred_x, centred_y = (colours - np.median(colours, axis=-2, keepdims=True) for colours in (x, y))
    scale = _deviation(centred_y) / np.maximum(_deviation(centred_x), 1e-3)
    left = centred_y - scale[..., None, :] * centred_x
    for _ in range(iterations):
        weight = 1 / (1 + (left / (2 * _deviation(left)[..., None, :] + 1e-3)) ** 2)
        total = weight.sum(axis=-2, keepdims=True)
        mean_x = (weight * x).sum(axis=-2, keepdims=True) / total
        mean_y = (weight * y).sum(axis=-2, keepdims=True) / total
        weighted = weight * (x - mean_x)
        variance = (weighted * (x - mean_x)).sum(axis=-2, keepdims=True)
        gain = (weighted * (y - mean_y)).sum(axis=-2, keepdims=True) / np.maximum(variance, 1e-5 * total)
        left = y - mean_y - gain * (x - mean_x)
    return left


def _contrast(colours: np.ndarray) -> np.ndarray:
    """(...) robust standard deviation of colours (..., P, C), mean over the channels."""
    spread = _deviation(colours - np.median(colours, axis=-2, keepdims=True)).mean(axis=-1)
    return np.maximum(spread, MIN_CONTRAST)


def _deviation(values: np.ndarray) -> np.ndarray:
    """(..., C) robust standard deviation of values (..., P, C) about 0, from the median of their absolute values."""
    return 1.4826 * np.median(np.abs(values), axis=-2)
