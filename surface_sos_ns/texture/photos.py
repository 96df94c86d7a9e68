"""What photos show of points on a surface: colours, and how well each is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views
from surface_sos_ns.texture.rays import RayCaster

if TYPE_CHECKING:
    import trimesh

__all__ = ["Occluder", "Photo", "Seen", "Sight", "colours_in", "sight_of"]

MIN_COSINE = 0.15
"""Cosine between normal and line of sight below which a photo's colours of a surface are not taken."""

TOLERANCE = 0.004
"""How far in front of a point the surface may be hit for the point to count as seen, over the surface's extent."""

ERODED = 2
"""Pixels of the matte along the object's outline whose colours are not taken: the background is mixed into them."""


class Photo(NamedTuple):
    """A photo and what is known about it."""

    image: Callable[[], np.ndarray]  # (H, W, 3) uint8, read when it is needed
    view: Views  # one view, of the image's size
    matte: np.ndarray  # (h, w) float in [0, 1], the object's share of each pixel; may be smaller than the image
    gain: np.ndarray  # (3,) exposure: the photo is gain * colour + offset, colours in [0, 1]
    offset: np.ndarray  # (3,)


class Sight(NamedTuple):
    """The S points that a photo shows, of T."""

    which: np.ndarray  # (S,) int32
    weight: np.ndarray  # (S,) float32, pixels per area of the surface, times the matte

    def better_than(self, least: np.ndarray) -> Sight:
        """The points of it whose weight is at least `least` (T,)."""
        kept = self.weight >= least[self.which]
        return Sight(self.which[kept], self.weight[kept])


class Seen(NamedTuple):
    """A sight, and its colours."""

    which: np.ndarray  # (S,) int32
    weight: np.ndarray  # (S,) float32
    colour: np.ndarray  # (S, 3) uint8, as in the photo


class Occluder:
    """A mesh that hides points.

    Args:
        mesh: any frame.
    """

    def __init__(self, mesh: trimesh.Trimesh):
        self._middle, self._extent = mesh.vertices.mean(axis=0), float(np.ptp(mesh.bounds, axis=0).max())
        self._rays = RayCaster(self._local(mesh.vertices), mesh.faces)

    def _local(self, points: np.ndarray) -> np.ndarray:
        return ((points - self._middle) / self._extent).astype(np.float32)

    def shows(self, centre: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(P,) bool: which points (P, 3) of the surface a camera at the centre (3,) sees."""
        start, ends = self._local(centre), self._local(points)
        along = ends - start
        distance = np.linalg.norm(along, axis=1)
        hits = self._rays.cast(np.broadcast_to(start, ends.shape), along / distance[:, None])
        return np.asarray(hits.distance > distance - TOLERANCE)


def sight_of(photo: Photo, points: np.ndarray, normals: np.ndarray, occluder: Occluder) -> Sight:
    """Which points on a surface a photo shows, and how well. Its image is not read.

    Args:
        photo: the photo.
        points: (T, 3), frame of the photo's view.
        normals: (T, 3) unit, same frame.
        occluder: the surface.
    """
    centre = photo.view.centres()[0]
    along = centre - points
    distance = np.linalg.norm(along, axis=1)
    cosine = np.einsum("tc,tc->t", normals, along) / distance
    index = np.flatnonzero(cosine > MIN_COSINE)
    uv, depth = photo.view.project_one(0, points[index])
    width, height = photo.view.sizes()[0]
    with np.errstate(invalid="ignore"):
        inside = (uv > 1).all(axis=1) & (uv < (width - 1, height - 1)).all(axis=1)
    index, uv, depth = index[inside], uv[inside], depth[inside]
    object_only = np.clip(2 * _at(_eroded(photo.matte), uv, (width, height)) - 1, 0, 1)
    chosen = object_only > 0
    index, depth, object_only = index[chosen], depth[chosen], object_only[chosen]
    shown = occluder.shows(centre, points[index])
    index, depth, object_only = index[shown], depth[shown], object_only[shown]
    pixels = float(photo.view.fx[0] * photo.view.fy[0]) / depth**2 * cosine[index]
    return Sight(index.astype(np.int32), (pixels * object_only).astype(np.float32))


def colours_in(photo: Photo, points: np.ndarray, sight: Sight) -> Seen:
    """The colours of the points (T, 3) that a photo shows."""
    uv, _ = photo.view.project_one(0, points[sight.which])
    return Seen(*sight, np.rint(_at(photo.image(), uv, photo.view.sizes()[0])).astype(np.uint8))


def _eroded(matte: np.ndarray) -> np.ndarray:
    """The least of the matte within a few pixels."""
    side = 2 * ERODED + 1
    return cv2.erode(np.asarray(matte, np.float32), np.ones((side, side), np.uint8))


def _at(image: np.ndarray, uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (P,) or (P, C) of an image at pixels (P, 2) of a picture of another size (width, height); bilinear."""
    height, width = image.shape[:2]
    places = (uv * (width / size[0], height / size[1]) - 0.5).astype(np.float32)
    # OpenCV's maps may have at most 32767 rows.
    rows = [
        cv2.remap(image, part[None, :, 0], part[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        for part in np.array_split(places, max(1, -(-len(places) // 32_000)))
    ]
    return np.concatenate(rows)
