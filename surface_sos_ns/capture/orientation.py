"""Photos whose EXIF tag says that they are seen turned: whether the poses are for the turned pixels or the stored ones.

Most programs that estimate poses honour the tag; COLMAP ignores it, and nerfstudio does. After a quarter turn the size
tells. After half a turn, a mirroring or in square photos it does not: there the points that can be triangulated tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError, listed
from surface_sos_ns.capture.points import triangulate_points
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import ImageHeader, read_header, read_image, resized, turned_back

__all__ = ["check_orientation"]

PLACES = 3
"""Photos in question that are looked at, one after the other until it is clear,"""
NEIGHBOURS = 8
"""each with so many photos around it, from which points are triangulated."""
LONGEST_SIDE = 640
"""Photos are shrunk to this many pixels."""
FEW_POINTS = 40
"""Fewer say nothing."""
CLEARLY = 2.0
"""So many times more points have to be found one way than the other."""


def check_orientation(paths: Sequence[Path], views: Views) -> str | None:
    """Makes sure that photos with a tag, which `read_image` turns, are those that the poses are for.

    Nothing is decoded where no photo has a tag that the size leaves open.

    Args:
        paths: N photos at their original size.
        views: their cameras, of any scale, world frame.

    Returns:
        A warning where nothing tells, else None.

    Raises:
        CaptureError: the poses are for the pixels as they are stored, but the size of some photos does not say so.
        ImageError: a photo cannot be read.
    """
    headers = [read_header(path) for path in paths]
    sizes = [(int(width), int(height)) for width, height in zip(views.width, views.height, strict=True)]
    turns = [header.turn_for(size) for header, size in zip(headers, sizes, strict=True)]
    open_ones = [index for index, (header, turn) in enumerate(zip(headers, turns, strict=True)) if _open(header, turn)]
    if not open_ones:
        return None
    ignored = any(header.orientation != turn for header, turn in zip(headers, turns, strict=True))
    fits = "stored" if ignored else _better_fit(paths, headers, turns, views, open_ones)
    names = f"{len(open_ones)} photos ({listed([paths[index].name for index in open_ones], 3)})"
    remedy = (
        f"remove the tags with `exiftool -Orientation= -overwrite_original FILES` (in a copy of {paths[0].parent} if "
        "you want to keep them)"
    )
    if fits == "stored":
        raise CaptureError(
            f"{names} have an EXIF orientation tag, but the poses are for their pixels as they are stored: COLMAP and "
            f"nerfstudio ignore the tag. So {remedy}."
        )
    if fits == "turned":
        return None
    return (
        f"{names} are turned as their EXIF orientation tag says, and too few points can be triangulated to see whether "
        f"the poses are for that. If they are for the pixels as they are stored (COLMAP and nerfstudio ignore the "
        f"tag), {remedy}."
    )


def _open(header: ImageHeader, turn: int) -> bool:
    """Whether a photo is turned though its size would be the same if it were not."""
    return turn != 1 and header.stored == header.upright


def _better_fit(
    paths: Sequence[Path], headers: Sequence[ImageHeader], turns: Sequence[int], views: Views, open_ones: Sequence[int]
) -> str | None:
    """'turned' or 'stored': how more points on open photos can be triangulated; None where that is not clear."""
    counts = {"turned": 0, "stored": 0}
    for index in open_ones[:: -(-len(open_ones) // PLACES)]:
        near = _neighbours(views, index)
        factor = min(1.0, LONGEST_SIDE / float(max(views.width[near].max(), views.height[near].max())))
        small = views.subset(near).scaled(factor)
        sizes = [(int(width), int(height)) for width, height in zip(small.width, small.height, strict=True)]
        images = [resized(read_image(paths[one], size), *size) for one, size in zip(near, sizes, strict=True)]
        in_question = [_open(headers[one], turns[one]) for one in near]
        counts["turned"] += _triangulated(images, small, in_question)
        images = [
            turned_back(image, turns[one]) if is_open else image
            for one, image, is_open in zip(near, images, in_question, strict=True)
        ]
        counts["stored"] += _triangulated(images, small, in_question)
        best, worst = sorted(counts, key=lambda kind: -counts[kind])
        if counts[best] >= max(FEW_POINTS, CLEARLY * counts[worst]):
            return best
    return None


def _neighbours(views: Views, index: int) -> np.ndarray:
    """A view and those that look in a similar direction from near it."""
    distance = np.linalg.norm(views.centres() - views.centres()[index], axis=1)
    angle = np.arccos(np.clip(views.axes() @ views.axes()[index], -1, 1))
    return np.argsort(distance / max(float(np.median(distance)), 1e-12) + 2 * angle, kind="stable")[:NEIGHBOURS]


def _triangulated(images: Sequence[np.ndarray], views: Views, in_question: Sequence[bool]) -> int:
    """How many points the photos in question have a part in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are few is what is asked
        points = triangulate_points(images, views)
    if points is None or points.visibility is None:
        return 0
    return int(points.visibility[:, np.asarray(in_question)].any(axis=1).sum())
