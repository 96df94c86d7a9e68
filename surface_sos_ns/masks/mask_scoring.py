"""Scores masks of a capture without labels, by its sparse points."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.masks.geometry import shrunk_photos, sort_points
from surface_sos_ns.masks.place import possible_spheres
from surface_sos_ns.masks.provider import Photos

__all__ = ["PointScore"]


class PointScore:
    """A score for masks: good ones cover the sparse points on the object, in all photos, and no others.

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
        """Share of the observations of object points that masks cover, minus that of the observations of other points.

        Args:
            masks: N masks (h, w) in [0, 1], of any sizes; None covers nothing.

        Returns:
            -1 to 1; 1 is best, 0 for masks without information, such as full ones. None where there are no points.
        """
        sizes = zip(self._views.width.tolist(), self._views.height.tolist(), strict=True)
        fitted = [
            None if mask is None else cv2.resize(np.asarray(mask, np.float32), size) > 0.5
            for mask, size in zip(masks, sizes, strict=True)
        ]
        return self._points.separation(self._views, fitted)
