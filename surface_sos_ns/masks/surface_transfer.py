"""Corrections of masks in a few photos, carried to all others over the surfaces that a trained run has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import resized

__all__ = ["added_beyond", "surface_places", "transferred"]

TOLERANCE = 0.02
"""Largest difference between a place's distance from a camera and the depth that the camera has there, over the
distance, at which the camera sees the place."""
CLOSING = 0.006
"""Radius of gaps that are closed in what is carried over, over the photo's longer side."""


def surface_places(views: Views, view: int, depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) world frame: what each pixel of a view shows.

    Args:
        views: of the depth's size.
        view: which one.
        depth: (H, W) along the ray, world units.
    """
    height, width = depth.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    rays = views.rays(view, np.stack([columns.ravel(), rows.ravel()], axis=-1)).reshape(height, width, 3)
    return views.centres()[view] + rays * depth[..., None]


def transferred(
    views: Views,
    masks: Sequence[np.ndarray],
    depths: Sequence[np.ndarray],
    corrected: Mapping[int, np.ndarray],
) -> list[np.ndarray]:
    """The masks of all photos with what was changed in some of them.

    A pixel of another photo changes as the pixel of a corrected one that shows the same place on a surface. Where
    corrected photos contradict each other, most of those that see the place decide; with as many on both sides it
    stays.

    Args:
        views: N views of the depths' sizes, world frame.
        masks: N masks (H, W) float in [0, 1] before the corrections, of any sizes.
        depths: N depths (h, w) along the rays, world units, of object and background together.
        corrected: of corrected photos, the mask (H, W) bool, of the same size as before.

    Returns:
        N masks (H, W) float32.
    """
    small = {view: _changes(masks[view], mask, depths[view].shape) for view, mask in corrected.items()}
    result = []
    for view, mask in enumerate(masks):
        if view in corrected:
            result.append(corrected[view].astype(np.float32))
            continue
        places = surface_places(views, view, depths[view])
        votes = np.zeros(depths[view].shape, np.int32)
        for other, changes in small.items():
            votes += _seen_in(views, other, depths[other], changes, places)
        result.append(_changed(np.asarray(mask, np.float32), votes))
    return result


def added_beyond(
    views: Views,
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    depths: Sequence[np.ndarray],
    centre: np.ndarray,
    radius: float,
) -> float:
    """Share of the pixels added to the masks that lie outside a sphere in space, 0 to 1; 0 where none was added.

    Args:
        views, depths: see `transferred`.
        before, after: N masks (H, W) in [0, 1] of any sizes.
        centre, radius: of the sphere, world frame.
    """
    added = beyond = 0
    for view, depth in enumerate(depths):
        changes = _changes(before[view], after[view] >= 0.5, depth.shape) > 0
        away = np.linalg.norm(surface_places(views, view, depth)[changes] - centre, axis=-1)
        added, beyond = added + len(away), beyond + np.count_nonzero(away > radius)
    return beyond / max(added, 1)


def _changes(before: np.ndarray, after: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) int32: 1 where a mask got pixels, -1 where it lost some, 0 elsewhere."""
    solid = before >= 0.5
    each = [
        resized((change).astype(np.float32), shape[1], shape[0]) >= 0.5 for change in (after & ~solid, solid & ~after)
    ]
    return each[0].astype(np.int32) - each[1]


def _seen_in(views: Views, view: int, depth: np.ndarray, changes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(H, W) int32: the changes (h, w) of a view at the pixels where it sees places (H, W, 3); 0 where it does not."""
    height, width = depth.shape
    uv, _ = views.project_one(view, places.reshape(-1, 3))
    inside = np.isfinite(uv).all(axis=1) & (uv >= 0).all(axis=1) & (uv[:, 0] < width) & (uv[:, 1] < height)
    columns, rows = np.where(inside[:, None], uv, 0).astype(np.int64).T
    distance = np.linalg.norm(places.reshape(-1, 3) - views.centres()[view], axis=1)
    seen = inside & (np.abs(distance - depth[rows, columns]) <= TOLERANCE * distance)
    return np.where(seen, changes[rows, columns], 0).reshape(places.shape[:2]).astype(np.int32)


def _changed(mask: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """(H, W) float32: a mask with the changes that votes (h, w) ask for."""
    result = mask.copy()
    radius = max(1, round(CLOSING * max(votes.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    for wanted, asked in ((1.0, votes > 0), (0.0, votes < 0)):
        closed = cv2.morphologyEx(asked.astype(np.uint8), cv2.MORPH_CLOSE, disc)
        where = resized(closed.astype(np.float32), mask.shape[1], mask.shape[0]) >= 0.5
        result[where] = wanted
    return result
