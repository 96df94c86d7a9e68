"""Which of several masks of a capture are the better ones, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.masks.geometry import shrunk_photos, sort_points
from surface_sos_ns.masks.place import possible_spheres
from surface_sos_ns.masks.provider import Photos

__all__ = ["PointJudge"]


class PointJudge:
    """Sparse points judge masks: good ones cover points on the object, in all photos, and no others.

    Args:
        photos: of the whole capture.

    Raises:
        MaskError: the cameras look at nothing in common, and no points help.
    """

    def __init__(self, photos: Photos) -> None:
        self._views, shrunk = shrunk_photos(photos.images, photos.views)
        sphere = possible_spheres(photos)[-1]
        self._points = sort_points(self._views, shrunk, photos.points, sphere, fixed=photos.radius is not None)

    def score(self, masks: Sequence[np.ndarray | None]) -> float | None:
        """The share of the sights of points on the object that masks cover, less that of the sights of others.

        Args:
            masks: N masks (h, w) in [0, 1], of any sizes; None covers nothing.

        Returns:
            1 at best, 0 for masks that say nothing, such as full ones. None where there are no points to ask.
        """
        sizes = zip(self._views.width.tolist(), self._views.height.tolist(), strict=True)
        fitted = [
            None if mask is None else cv2.resize(np.asarray(mask, np.float32), size) > 0.5
            for mask, size in zip(masks, sizes, strict=True)
        ]
        return self._points.separation(self._views, fitted)
