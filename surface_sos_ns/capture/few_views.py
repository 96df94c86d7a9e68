"""Cells of the hull that few masks see: which of them are the object's, and how the votes of few count.

Where pictures cut the object off, each part of it is seen by a few cameras only. Two masks bound a part in space if
they look at it from different sides. But a few masks also fail to carve large free spaces behind the object and in
front of it. So a cell that few see is the object's only if they look at it from all around, or if it is needed: if it
covers pixels of theirs that the part of the hull that many see does not cover.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.hull import voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["WELL_SEEN", "connected_cells", "crossing", "needed_cells", "resampled", "shrunk_fraction"]

WELL_SEEN = 0.2
"""Share of the votes from which on a cell counts as seen by many."""
MIN_CROSSING = 0.15
"""Sum over pairs of masks of the squared sine between their lines of sight (`crossing`) from which on they bound a
cell: two masks 23 degrees apart, or three 13 degrees apart from their neighbours."""
ALL_AROUND = 1.5
"""The same sum from which on masks bound a cell on all sides, so that no further evidence is needed: three masks 60
degrees apart from each other, or five 30 degrees apart."""
EXTRAPOLATION = 0.1
"""How far from cells of the object a part that only few masks show is taken to continue, in object radii."""
PRIOR_VOTES = 2.0
"""Weight of the prior of `shrunk_fraction`, in votes of masks of weight 1."""
FAINT = 1e-3
"""Probability above which cells are labelled as connected pieces."""


def needed_cells(
    views: Views,
    masks: Sequence[np.ndarray | None],
    unexplained: Sequence[np.ndarray | None],
    weights: np.ndarray,
    sphere: ObjectSphere,
    share: np.ndarray,
    many: np.ndarray,
    level: float,
) -> np.ndarray:
    """(R, R, R) bool: cells that many see, and those near cells of the hull that many see or that masks need.

    Args:
        views: N views, world frame.
        masks: N masks (h, w) bool, of any size; None where a view has none.
        unexplained: their pixels that the cells seen by many do not cover.
        weights: (N,) of the masks, in [0, 1].
        sphere: the cells fill the cube that circumscribes it.
        share: (R, R, R) share of the votes for each cell.
        many: (R, R, R) bool, cells that many masks see.
        level: share of the votes from which on a cell is the object's.
    """
    axis = voxel_centres(len(share)).astype(np.float64)
    few = np.argwhere((share >= level) & ~many)
    places = axis[few] * sphere.radius + sphere.centre
    kept = crossing(views, unexplained, weights, places) >= MIN_CROSSING
    kept |= crossing(views, masks, weights, places) >= ALL_AROUND
    needed = (share >= level) & many
    needed[tuple(few[kept].T)] = True
    if not needed.any():
        return many
    return many | (ndimage.distance_transform_edt(~needed) <= EXTRAPOLATION * len(share) / 2)


def crossing(views: Views, masks: Sequence[np.ndarray | None], weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) by how many and how different lines of sight masks cover points.

    The sum, over all pairs of masks that cover a point, of the squared sine of the angle at which their lines of sight
    meet there, times both weights.

    Args:
        views: N views, world frame.
        masks: N masks (h, w) bool, of any size; None where a view has none.
        weights: (N,) in [0, 1].
        points: (P, 3), world frame.
    """
    moments = np.zeros((6, len(points)))  # of the directions: xx, yy, zz, xy, xz, yz
    for index, mask in enumerate(masks):
        if mask is None or weights[index] <= 0 or not mask.any():
            continue
        places = views.pixel_places(index, points, mask.shape)
        inside = np.flatnonzero(places >= 0)
        hit = inside[mask.ravel()[places[inside]]]
        sight = points[hit] - views.centres()[index]
        sight /= np.maximum(np.linalg.norm(sight, axis=1, keepdims=True), 1e-12)
        for place, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
            moments[place, hit] += weights[index] * sight[:, i] * sight[:, j]
    # Of unit vectors d the squared sine is 1 - (d . d')^2, and the sum of (d . d')^2 is the squared norm of sum d d^T.
    # A mask with itself counts as 0, also with a weight below 1.
    trace = moments[:3].sum(axis=0)
    pairs = (trace**2 - (moments[:3] ** 2).sum(axis=0) - 2 * (moments[3:] ** 2).sum(axis=0)) / 2
    return np.maximum(pairs, 0)


def shrunk_fraction(covered: np.ndarray, visible: np.ndarray, level: float) -> np.ndarray:
    """Shares of the votes, shrunk towards ``level``: the fewer masks see a cell, the more.

    The posterior mean of a binomial share under a beta prior of mean ``level``.

    Args:
        covered: (...) votes for a cell.
        visible: (...) votes of the masks that see it.
        level: share of the votes that decides.
    """
    prior = np.float32(PRIOR_VOTES)
    return (covered + prior * np.float32(level)) / (visible + prior)


def connected_cells(probability: np.ndarray, seen_by_many: np.ndarray) -> np.ndarray:
    """(R, R, R) bool: cells in connected pieces of the hull that many masks see somewhere; all if there are none.

    Args:
        probability: (R, R, R) of the hull.
        seen_by_many: (R, R, R) bool, cells that many masks see.
    """
    pieces, count = ndimage.label(probability > FAINT)
    seen = np.unique(pieces[(probability >= 0.5) & seen_by_many])
    if not (seen > 0).any():
        return np.ones(probability.shape, bool)
    kept = np.zeros(count + 1, bool)
    kept[seen] = True
    kept[0] = True
    return kept[pieces]


def resampled(cells: np.ndarray, resolution: int) -> np.ndarray:
    """Cells (S, S, S) of a cube at ``resolution`` cells along an edge, by the nearest one."""
    place = ((np.arange(resolution) + 0.5) * (len(cells) / resolution)).astype(np.int64)
    return cells[np.ix_(place, place, place)]
