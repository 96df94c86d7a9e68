"""Which of several objects each voxel of the voted hull belongs to, by the identities in the masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.hull import VisualHull, voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["hull_identities"]

LEAST_PROBABILITY = 1e-3
"""Probability of the hull down to which voxels are voted on; all others take the nearest of these."""


def hull_identities(
    views: Views,
    identities: Sequence[np.ndarray | None],
    sphere: ObjectSphere,
    hull: VisualHull,
    objects: int,
) -> np.ndarray:
    """The object that most views show at each voxel.

    An object that is hidden behind another one loses the votes of some views; a view in which no object is seen at a
    voxel does not vote.

    Args:
        views: N views, world frame.
        identities: N images (H, W) uint8 of the views' sizes, 0 for no object, 1 to K; None where there is none.
        sphere: of the hull.
        hull: of all objects together.
        objects: K.

    Returns:
        (R, R, R) uint8 in 1 to K over the hull's voxels, indexed [x, y, z].
    """
    resolution = hull.resolution
    found = np.zeros(resolution**3, np.uint8)
    voxels = np.flatnonzero(hull.probability.ravel() > LEAST_PROBABILITY)
    axis = voxel_centres(resolution)
    cells = np.stack(np.unravel_index(voxels, (resolution,) * 3), axis=-1)
    points = (axis[cells] * sphere.radius + sphere.centre).astype(np.float32)
    votes = np.zeros((len(voxels), objects + 1), np.float32)
    for view, image in enumerate(identities):
        if image is not None:
            seen, named = _seen(views, view, points, image)
            votes[seen, named] += max(float(hull.view_weights[view]), 0.05)
    votes[:, 0] = 0
    winner = votes.argmax(axis=1)
    found[voxels] = winner
    grid = found.reshape((resolution,) * 3)
    if not grid.any():
        return np.ones_like(grid)
    nearest = ndimage.distance_transform_edt(grid == 0, return_distances=False, return_indices=True)
    return grid[tuple(nearest)]


def _seen(views: Views, view: int, points: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points (P, 3), world frame, in a view's picture, and the identities there."""
    height, width = image.shape
    uv, _ = views.project_one(view, points)
    with np.errstate(invalid="ignore"):
        inside = (uv[:, 0] >= 0) & (uv[:, 1] >= 0) & (uv[:, 0] < width) & (uv[:, 1] < height)
    column, row = uv[inside].astype(np.int64).T
    return np.flatnonzero(inside), image[row, column]
