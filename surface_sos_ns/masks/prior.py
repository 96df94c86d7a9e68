"""Coarse masks from geometry and colour alone: what the cameras turn around, without weights, network or labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.masks.centre_prior import describe, distance_from_object
from surface_sos_ns.masks.features import ColourTexture
from surface_sos_ns.masks.geometry import masks_from_geometry
from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.patch_optimisation import MAX_LOG_ODDS
from surface_sos_ns.masks.patch_vote import near_place, refine_by_vote
from surface_sos_ns.masks.place import with_points
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.masks.salient_objects import salient_objects
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["Prior", "refine_on_patches"]

TRUSTS = (1.0, 3.0)
"""Bound of the hull's log-odds in each round of the refinement: less at first, because what GrabCut lost in all photos
is missing from the first hull."""


class Prior(MaskProvider):
    """Optical axes, sparse points and GrabCut, voted (`geometry.py`), then refined on patches.

    GrabCut models the colours of one photo at a time and loses parts that have a colour of the background (feet on a
    table, a dark strut). Patches compare colour and texture over all photos.

    The confidence of a view is the IoU of its mask with what all photos vote.

    Several objects are the most salient things on the plane that carries them (`salient_objects.py`).

    Args:
        objects, names: of several objects, see `object_choice.chosen_names`.

    Raises:
        MaskError: options about objects that do not go together.
    """

    name: ClassVar[str] = "prior"
    labels: ClassVar[str] = "none"

    def __init__(self, objects: int | None = None, names: Sequence[str] = ()) -> None:
        self.names = chosen_names(objects, names)

    def check(self) -> None:
        """Nothing is needed but what the package itself needs."""

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """See :meth:`MaskProvider.masks`."""
        if self.names:
            return salient_objects(photos, len(self.names), self.names, progress)
        photos = with_points(photos, progress)
        try:
            found = masks_from_geometry(
                photos.images, photos.views, photos.points, near=photos.near, radius=photos.radius, progress=progress
            )
            voted, odds = refine_on_patches(photos, found.masks, found.sphere, progress)
        except CaptureError as error:
            raise MaskError(str(error)) from error
        # An empty mask is a failure here, and no evidence that the object is out of the picture: it becomes None.
        masks = [
            enlarged(grid, (image.shape[0], image.shape[1])) if (grid > 0).any() else None
            for grid, image in zip(odds, photos.images, strict=True)
        ]
        confidence = np.array(
            [intersection_over_union(grid > 0, hull > 0.5) for grid, hull in zip(odds, voted, strict=True)]
        )
        remarks = []
        if found.hull.agreement < LOW_CONFIDENCE:
            remarks.append(
                f"the object is uncertain: masks and vote agree at IoU {found.hull.agreement:.2f} only; name a point "
                "on it (--object-point X Y Z, and --object-radius R), or bring masks (--method folder, --method click)"
            )
        return CoarseMasks(masks, np.where([mask is None for mask in masks], 0.0, confidence), remarks)


def refine_on_patches(
    photos: Photos, masks: Sequence[np.ndarray | None], sphere: ObjectSphere, progress: Progress
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rounds of voting and patch optimisation (see :func:`patch_vote.refine_by_vote`), from masks of pixels.

    Args:
        photos: N photos.
        masks: N masks (H, W) in [0, 1] of the photos' sizes; None where there is none.
        sphere: where the object was looked for.
        progress: called with one line per stage.

    Returns:
        The last vote seen from every photo, N grids (h, w) in [0, 1], and N grids (h, w) of log-odds.

    Raises:
        ValueError: the masks show nothing, or nothing but the object.
    """
    features = describe(ColourTexture(), photos, progress)
    near = near_place(distance_from_object(photos, sphere, features))

    def log_odds(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        if mask is None:
            return np.full(shape, -MAX_LOG_ODDS, np.float32)
        share = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        return MAX_LOG_ODDS * (2 * share - 1)

    odds = [log_odds(mask, grid.shape[:2]) for mask, grid in zip(masks, features, strict=True)]
    voted: list[np.ndarray] = []
    for number, trust in enumerate(TRUSTS, start=1):
        progress(f"prior: patches by appearance and vote, round {number} of {len(TRUSTS)}")
        voted, odds = refine_by_vote(photos, features, odds, near, sphere, trust)
    return voted, odds
