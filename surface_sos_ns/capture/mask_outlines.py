"""Corrects masks that are too wide or too narrow all around, by comparison with the masks of the other photos.

Where most photos show the whole object, many masks vote on each part of it, and errors of single outlines average out.
Where pictures cut the object off (`cut_off`), some parts are in a few masks only, and an outline that runs four pixels
outside in two of them stays there. But the same masks also show parts that many photos show. There the hull is right:
the median distance of a mask's outline from the hull's is measured, and the whole outline is moved back by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from surface_sos_ns.capture.hull import VisualHull
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import binary_masks
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.outline_distance import signed_distance
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["moved_outline", "moved_outlines", "outline_offset"]

FARTHEST = 0.03
"""Distance from the hull's outline up to which pixels of a mask's outline are used, over the photo's longer side. Those
farther away belong to a false piece or a missing one."""
LEAST_OFFSET = 1.25
"""Pixels that an outline has to be off by to be moved: the hull's own outline is not finer than that."""
LEAST_SHARE = 0.25
"""Share of the masks whose outlines have to be off. If fewer are, wrong poses may be the cause."""
FEWEST_PIXELS = 20
"""Outline pixels near the hull's outline that a mask needs."""
BORDER = 2
"""Pixels at the picture's border that are no outline of the object."""


def outline_offset(mask: np.ndarray, silhouette: np.ndarray) -> float:
    """How far a mask's outline runs outside a silhouette's, in pixels, median over its pixels; negative if inside.

    Args:
        mask: (H, W) bool.
        silhouette: (H, W) bool, of the hull.

    Returns:
        0 where too little of the outline is near the silhouette's.
    """
    if not (mask.any() and silhouette.any()) or mask.all() or silhouette.all():
        return 0.0
    distance = signed_distance(silhouette)
    outline = (np.abs(signed_distance(mask)) < 1) & (np.abs(distance) < FARTHEST * max(mask.shape))
    outline[[*range(BORDER), *range(-BORDER, 0)]] = False
    outline[:, [*range(BORDER), *range(-BORDER, 0)]] = False
    if np.count_nonzero(outline) < FEWEST_PIXELS:
        return 0.0
    return -float(np.median(distance[outline]))


def moved_outline(mask: np.ndarray, offset: float) -> np.ndarray:
    """A mask (H, W) bool whose outline is moved inwards by ``offset`` pixels; outwards if that is negative."""
    return signed_distance(mask) > offset


def moved_outlines(
    views: Views,
    masks: Sequence[np.ndarray | None],
    hull: VisualHull,
    sphere: ObjectSphere,
    progress: Callable[[str], None] | None = None,
) -> list[np.ndarray | None] | None:
    """The masks, with outlines moved that run outside or inside the hull's all around; None where few do.

    A mask stays as it is if it would agree less with the hull.

    Args:
        views: N views, world frame.
        masks: N masks (H, W), bool or 0..1, of the views' sizes; None where a view has none.
        hull: that the masks have voted.
        sphere: the object's, world frame.
        progress: told one line where outlines are moved.

    Returns:
        N masks (H, W) float32, 0 or 1, None where a view has none.

    Raises:
        ValueError: masks and views do not match in number or size.
    """
    binary = binary_masks(views, masks)
    silhouettes = [np.asarray(image) > 0.5 for image in project_hull(hull, sphere, views)]
    result: list[np.ndarray | None] = [None if mask is None else mask.astype(np.float32) for mask in binary]
    offsets = []
    for view, (mask, silhouette) in enumerate(zip(binary, silhouettes, strict=True)):
        offset = 0.0 if mask is None else outline_offset(mask, silhouette)
        if mask is None or abs(offset) < LEAST_OFFSET:
            continue
        moved = moved_outline(mask, offset)
        if intersection_over_union(moved, silhouette) > intersection_over_union(mask, silhouette):
            result[view] = moved.astype(np.float32)
            offsets.append(abs(offset))
    if len(offsets) < LEAST_SHARE * sum(mask is not None for mask in binary) or not offsets:
        return None
    if progress:
        progress(
            f"{len(offsets)} of {len(views)} masks are too wide or too narrow all around, by {np.median(offsets):.1f} "
            "pixels in the median; their outlines are moved to where the other photos' masks put them"
        )
    return result
