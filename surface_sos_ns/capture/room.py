"""Turntable captures: whether the room is static in the photos while the object turns, and an image of the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views

__all__ = ["MIN_EXPLAINED", "StandingRoom", "standing_room"]

MIN_EXPLAINED = 0.5
"""Share of the photos' detail around the object that is at the same pixel in all photos, from which on the room stands
still. On a turntable 0.99 were measured, and at most 0.02 in five captures of a camera that walks."""

DETAIL = 0.02
"""Standard deviation of the Gaussian blur that is subtracted to get the detail, over the photo's longer side. Coarser
structure does not count: a horizon, or a bright window, is at the same place in the photos of a walking camera, too."""

MIN_PHOTOS = 8
MIN_TURN = 30.0
"""Least value of the largest angle between two cameras' axes, degrees: if the camera hardly moves, any room is static
in the photos."""

MOST_PHOTOS = 60
"""Photos that are compared, taken evenly from all."""

FEWEST_SEEN = 3
"""Photos that must show a pixel of the room for it to be known."""

SAME_LENS = 0.005
"""Largest difference between the photos' focal lengths and principal points, over the width: one camera took them."""


@dataclass(frozen=True)
class StandingRoom:
    """A room that stands still in the photos.

    Attributes:
        explained: share of the detail around the object that is at the same pixel in all photos.
        picture: (H, W, 3) float32, 0 to 1, its pixels equally spaced in the tangents of the angles to the optical axis;
            painted in where no photo shows the room.
        known: (H, W) float32, 1 where photos show it.
        extent: (4,) tangents at the left, right, lower and upper border, y upwards.
    """

    explained: float
    picture: np.ndarray
    known: np.ndarray
    extent: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.picture.shape[1], self.picture.shape[0]

    def sentence(self) -> str:
        """What to say of it."""
        return (
            f"the room stands still before the camera, as behind a turntable ({self.explained:.0%} of the detail "
            "around the object is at the same place in all photos): it is learned as a picture, not in space"
        )


def standing_room(images: Sequence[np.ndarray], views: Views, covered: Sequence[np.ndarray]) -> StandingRoom | None:
    """The room behind a turntable; None where there is none.

    Args:
        images: N photos (H, W, 3) uint8, of the views' sizes.
        views: N views.
        covered: N images (H, W) bool, where the object may be.
    """
    if len(images) < MIN_PHOTOS or not _one_lens(views) or _turn(views) < MIN_TURN:
        return None
    places, extent = _places(views)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST_PHOTOS)).round().astype(int))
    colours, seen = zip(*(_resampled(images[view], covered[view], places) for view in chosen), strict=True)
    photos, shown = np.stack(colours), np.stack(seen)
    sigma = DETAIL * max(photos.shape[1:3])
    detail = np.stack([photo - cv2.GaussianBlur(photo, (0, 0), sigma) for photo in photos])
    # Near the object the blur mixes in the object's colours, so these pixels are left out.
    apart = np.stack([cv2.erode(view.astype(np.uint8), np.ones((2 * round(2 * sigma) + 1,) * 2)) > 0 for view in shown])
    common = np.nan_to_num(_median(detail, apart))
    compared = apart & (apart.sum(axis=0) >= FEWEST_SEEN)
    total = float(np.square(detail)[compared].sum())
    explained = 1 - float(np.square(detail - common)[compared].sum()) / max(total, 1e-9)
    if explained < MIN_EXPLAINED:
        return None
    known = shown.sum(axis=0) >= FEWEST_SEEN
    picture = np.rint(255 * np.nan_to_num(_median(photos, shown))).astype(np.uint8)
    painted = cv2.inpaint(picture, (~known).astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return StandingRoom(explained, painted.astype(np.float32) / 255, known.astype(np.float32), extent)


def _one_lens(views: Views) -> bool:
    """Whether all photos have one size and lens, which is no fisheye."""
    if len(set(views.sizes())) > 1 or views.fisheye.any():
        return False
    numbers = np.stack([views.fx, views.fy, views.cx, views.cy], axis=1) / views.width[:, None]
    return bool(np.ptp(numbers, axis=0).max() < SAME_LENS)


def _turn(views: Views) -> float:
    """Largest angle between two cameras' axes, degrees."""
    axes = views.axes()
    return float(np.degrees(np.arccos(np.clip((axes @ axes.T).min(), -1, 1))))


def _places(views: Views) -> tuple[np.ndarray, np.ndarray]:
    """Where the picture's pixels are in the photos, (H, W, 2) pixels, and the picture's extent (4,)."""
    width, height = views.sizes()[0]
    x, y = np.linspace(0, width, 101), np.linspace(0, height, 101)
    border = np.concatenate(
        [np.stack(np.broadcast_arrays(x, edge), -1) for edge in (0.0, float(height))]
        + [np.stack(np.broadcast_arrays(edge, y), -1) for edge in (0.0, float(width))]
    )
    across, down = views.normalised(0, border).T
    extent = np.array([across.min(), across.max(), -down.max(), -down.min()])
    columns = extent[0] + (np.arange(width) + 0.5) / width * (extent[1] - extent[0])
    rows = extent[3] - (np.arange(height) + 0.5) / height * (extent[3] - extent[2])
    at_origin = replace(views.subset([0]), camera_to_world=np.eye(4)[None, :3])
    tangents = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    uv, _ = at_origin.project_one(0, np.column_stack([tangents, -np.ones(len(tangents))]))
    return uv.reshape(height, width, 2), extent


def _resampled(image: np.ndarray, covered: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 colours of a photo at places (H, W, 2), and (H, W) bool where it shows the room."""
    across, down = np.nan_to_num(places - 0.5, nan=-10.0).astype(np.float32).transpose(2, 0, 1)
    colours = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    free = cv2.remap((~covered).astype(np.float32), across, down, cv2.INTER_LINEAR, borderValue=(0.0,))
    return colours.astype(np.float32) / 255, free > 0.99


def _median(values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(H, W, 3) median of N images (N, H, W, 3) over those that show a pixel (N, H, W); nan where none does."""
    found = np.full(values.shape[1:], np.nan, np.float32)
    count = shown.sum(axis=0)
    ordered = np.sort(np.where(shown[..., None], values, np.inf), axis=0)
    rows, columns = np.nonzero(count)
    found[rows, columns] = ordered[(count[rows, columns] - 1) // 2, rows, columns]
    return found
