"""The hull that the masks of all views vote for, and the views whose masks disagree with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import VisualHull
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import mask_agreement
from surface_sos_ns.capture.object_prior import build_object_prior
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos, Progress
from surface_sos_ns.utils.image_io import resized

__all__ = ["DISAGREES", "Vote", "fitted", "vote", "voted_masks"]

DISAGREES = 0.7
"""A view disagrees when its IoU with the hull is less than this part of that of a good view of the capture, which is
the 75th percentile of all views. Being relative, it marks no view where outlines are coarse everywhere."""


@dataclass(frozen=True)
class Vote:
    """Masks voted in space.

    Attributes:
        sphere: where the object is, world frame.
        hull: the soft hull, in the sphere's frame.
        agreement: (N,) IoU of each mask with the projected hull; nan where there is no mask.
    """

    sphere: ObjectSphere
    hull: VisualHull
    agreement: np.ndarray

    @property
    def mean(self) -> float:
        """Mean IoU of the masks that are not empty with the projected hull: how far the views agree in 3D."""
        return self.hull.agreement

    @property
    def disagreeing(self) -> list[int]:
        """The views whose mask disagrees with the others (see `DISAGREES`); views without a mask do not."""
        given = np.isfinite(self.agreement)
        shown = self.agreement[given & (self.agreement > 0)]
        if not len(shown):
            return []
        limit = DISAGREES * float(np.percentile(shown, 75))
        return [int(view) for view in np.flatnonzero(given & (self.agreement < limit))]

    def silhouettes(self, photos: Photos, tick: Callable[[], None] = lambda: None) -> list[np.ndarray]:
        """Per view (H, W) float32 in [0, 1], of the photos' size: the hull's soft projection; `tick` after each."""
        shown = []
        for view in range(len(photos)):
            shown.append(project_hull(self.hull, self.sphere, photos.views.subset([view]))[0])
            tick()
        return shown


def fitted(photos: Photos, masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """The masks at the sizes of the photos' views."""
    return [
        None if mask is None else resized(np.asarray(mask, np.float32), int(width), int(height))
        for mask, width, height in zip(masks, photos.views.width, photos.views.height, strict=True)
    ]


def vote(
    photos: Photos, masks: Sequence[np.ndarray | None], progress: Progress | None = None, resolution: int = 128
) -> Vote | None:
    """Votes the masks as training does.

    Args:
        photos: of the whole capture.
        masks: N masks (h, w) float in [0, 1], None where there is none.
        progress: called with one line per stage.
        resolution: voxels along an edge of the hull's grid.

    Returns:
        The vote; None where fewer than two masks have object pixels, and nothing can be compared.

    Raises:
        MaskError: the masks share no place in space.
    """
    small = fitted(photos, masks)
    if sum(mask is not None and bool((mask >= 0.5).any()) for mask in small) < 2:
        return None
    try:
        prior = build_object_prior(
            photos.views,
            small,
            photos.points,
            object_point=photos.near,
            object_radius=photos.radius,
            resolution=resolution,
            progress=progress,
        )
    except CaptureError as error:
        raise MaskError(str(error)) from error
    return Vote(prior.sphere, prior.hull, mask_agreement(photos.views, small, prior.hull, prior.sphere))


def voted_masks(photos: Photos, given: CoarseMasks, voted: Vote, silhouettes: Sequence[np.ndarray]) -> CoarseMasks:
    """The hull's projection in every view, in place of the masks it was voted from.

    The alternatives that were measured are worse than the projection alone: keeping the masks that agree with the hull,
    and keeping what masks show near the hull's outline.

    Args:
        photos: of the whole capture.
        given: the masks that were voted.
        voted: their vote.
        silhouettes: of the vote.
    """
    agreement = np.where(np.isfinite(voted.agreement), voted.agreement, voted.mean)
    return CoarseMasks(list(silhouettes), np.clip(agreement, 0, 1), given.remarks)
