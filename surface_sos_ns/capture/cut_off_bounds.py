"""The bounding sphere of an object that most pictures cut off. All lengths are in world units.

The extent of one photo's mask is no bound then: it ends where the picture ends. So the sphere holds all of a coarse
hull, in which only cameras that see a cell vote on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surface_sos_ns.capture.cut_off import largest_component
from surface_sos_ns.capture.few_views import crossing
from surface_sos_ns.capture.hull import VisualHull, dominant_component, voxel_centres
from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.mask_centre import pixel_reach
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["FARTHEST", "sphere_of_cut_off"]

FARTHEST = 3
"""Rank of the mask whose reach is used, 1 for the farthest: masks that are cut off reach less far than the object, and
one or two may be wrong."""
MAX_REACH = 2.0
"""Largest distance of a part of the object from its core, in units of that reach."""
HALO = 0.03
"""Probability from which on the sphere holds a cell: that of a level lowered by a sixth of the votes. The hull itself
starts at 0.5, but training starts from an enlarged hull."""
WIDE_HALO = 0.01
"""The same for cells that many masks cover, from all around: as a level lowered by a quarter of the votes. Masks miss
thin parts more often than the rest, and outside the sphere nothing can be repaired."""
MANY_AROUND = 10.0
"""Sum over pairs of masks of the squared sine between their lines of sight (`few_views.crossing`) from which on masks
are many: seven from all around."""
RESOLUTION = 48
ROUNDS = 6


def sphere_of_cut_off(
    views: Views, masks: Sequence[np.ndarray], core: np.ndarray, margin: float, source: str
) -> ObjectSphere:
    """The bounding sphere of the connected part of the masks' hull at the object's core.

    Args:
        views: N views, world frame.
        masks: N masks (H, W) bool with object pixels.
        core: (3,) a point in the object, world frame.
        margin: radius of the sphere over the distance of the object's farthest part from its centre.
        source: of the sphere.
    """
    reach = _reach(views, masks, core)
    sphere = ObjectSphere(core, 1.6 * reach, source)
    for _ in range(ROUNDS):
        hull = vote_hull(views, masks, sphere, RESOLUTION)
        held = dominant_component(
            _held(views, masks, hull, sphere), hull.probability, (core - sphere.centre) / sphere.radius
        )
        held &= _distance(sphere, core) <= MAX_REACH * reach
        if not held.any():
            break
        # All cells, not a percentile: thin parts have few cells, and few cameras see them.
        places = voxel_centres(RESOLUTION)[np.argwhere(held)] * sphere.radius + sphere.centre
        centre = (places.min(axis=0) + places.max(axis=0)) / 2
        extent = float(np.linalg.norm(places - centre, axis=1).max())
        extent += sphere.radius / RESOLUTION
        found = ObjectSphere(centre, margin * extent, source)
        if _touches_cube(held) and found.radius > 0.85 * sphere.radius and sphere.radius < 2 * MAX_REACH * reach:
            sphere = ObjectSphere(centre, 1.4 * sphere.radius, source)
            continue
        settled = np.linalg.norm(centre - sphere.centre) < 0.08 * extent
        settled &= abs(sphere.radius / extent - margin) < 0.1
        sphere = found
        if settled:
            break
    return sphere


def _reach(views: Views, masks: Sequence[np.ndarray], core: np.ndarray) -> float:
    """How far the masks reach from the core, at its depth.

    Of one view the 97th percentile of the distances of the pixels of its largest component from the core's projection,
    which may lie outside the picture; of all views the `FARTHEST` one.
    """
    every = (pixel_reach(views, index, largest_component(mask), core, 97) for index, mask in enumerate(masks))
    reaches = [reach for reach in every if reach is not None]
    return sorted(reaches)[-min(FARTHEST, len(reaches))]


def _held(views: Views, masks: Sequence[np.ndarray], hull: VisualHull, sphere: ObjectSphere) -> np.ndarray:
    """(R, R, R) bool: the cells that the sphere holds, if they are connected with the core."""
    held = hull.probability >= HALO
    missed = np.argwhere((hull.probability >= WIDE_HALO) & ~held)
    places = voxel_centres(RESOLUTION)[missed] * sphere.radius + sphere.centre
    held[tuple(missed.T)] = crossing(views, masks, hull.view_weights, places) >= MANY_AROUND
    return held


def _distance(sphere: ObjectSphere, point: np.ndarray) -> np.ndarray:
    """(R, R, R) distance of each cell from a point."""
    axis = voxel_centres(RESOLUTION) * sphere.radius
    x, y, z = (axis + sphere.centre[i] - point[i] for i in range(3))
    return np.sqrt(x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2)


def _touches_cube(cells: np.ndarray) -> bool:
    """Whether any outermost cell is true."""
    inner = cells[1:-1, 1:-1, 1:-1]
    return int(cells.sum()) > int(inner.sum())
