"""Coarse masks from geometry alone: what the cameras turn around, without weights, network or labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from surface_sos_ns.capture.hull import mask_agreement
from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.capture.prior import masks_from_geometry
from surface_sos_ns.masks.place import with_points
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress

__all__ = ["Prior"]


class Prior(MaskProvider):
    """Optical axes, sparse points and colours, voted: see `capture/prior.py`.

    The confidence of a view is the IoU of its mask with the hull that all masks were voted into.
    """

    name: ClassVar[str] = "prior"
    labels: ClassVar[str] = "none"

    def check(self) -> None:
        """Nothing is needed but what the package itself needs."""

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """See :meth:`MaskProvider.masks`."""
        points = with_points(photos, progress).points
        try:
            found = masks_from_geometry(
                photos.images, photos.views, points, near=photos.near, radius=photos.radius, progress=progress
            )
        except ValueError as error:
            raise MaskError(str(error)) from error
        # GrabCut that ends with nothing has failed; it has not seen that the object is out of the picture.
        masks = [mask if mask is not None and mask.any() else None for mask in found.masks]
        overlap = mask_agreement(photos.views, masks, found.hull, found.sphere)
        remarks = []
        if found.hull.agreement < LOW_CONFIDENCE:
            remarks.append(
                f"the object is uncertain: masks and vote agree at IoU {found.hull.agreement:.2f} only; name a point "
                "on it (--object-point X Y Z, and --object-radius R), or bring masks (--method folder, --method click)"
            )
        return CoarseMasks(masks, np.nan_to_num(overlap), remarks)
