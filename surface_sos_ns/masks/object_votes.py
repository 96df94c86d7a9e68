"""The votes of several objects' masks: each object is voted into a hull of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.names import listed
from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos, Progress
from surface_sos_ns.masks.vote import Vote, vote
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["ObjectVotes", "in_order_of", "masks_of_object", "vote_found", "vote_objects", "voted_identities"]

RESOLUTION = 96
"""Voxels along an edge of an object's grid: each has a grid of its own, that it fills."""

COMPARED_SIDE = 320
"""Longer side of the masks that are compared with projected hulls, pixels."""

FEWEST_PHOTOS = 2
"""Photos that have to show an object, so that it has a place in space."""


@dataclass(frozen=True)
class ObjectVotes:
    """Votes of several objects, with the interface of `Vote` for all of them together.

    Attributes:
        names: of the K objects.
        votes: K votes.
    """

    names: Sequence[str]
    votes: Sequence[Vote]

    @property
    def mean(self) -> float:
        """Mean over the objects of how far the views agree on them in 3D (IoU)."""
        return float(np.mean([one.mean for one in self.votes]))

    @property
    def agreement(self) -> np.ndarray:
        """(N,) mean IoU of a view's objects with their projected hulls; nan where it shows none."""
        each = np.stack([one.agreement for one in self.votes])
        given = np.isfinite(each)
        total = np.where(given, each, 0).sum(axis=0)
        return np.where(given.any(axis=0), total / np.maximum(given.sum(axis=0), 1), np.nan)

    @property
    def disagreeing(self) -> list[int]:
        """The views that disagree with the others on any object."""
        return sorted({view for one in self.votes for view in one.disagreeing})

    def photos_showing(self) -> list[int]:
        """In how many photos each object has a mask."""
        return [int(np.isfinite(one.agreement).sum()) for one in self.votes]

    def projected(
        self, photos: Photos, tick: Callable[[], None] = lambda: None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The hulls seen from every photo: their common soft silhouette (H, W) float32, and identities (H, W) uint8.

        Where hulls overlap, a pixel belongs to the nearer object; `tick` after each view.
        """
        away = np.stack([np.linalg.norm(photos.views.centres() - one.sphere.centre, axis=1) for one in self.votes])
        silhouettes, identities = [], []
        for view in range(len(photos)):
            one = photos.views.subset([view])
            shown = {index: project_hull(v.hull, v.sphere, one)[0] for index, v in enumerate(self.votes, start=1)}
            silhouette, owner = merge_objects([shown[index] for index in sorted(shown)])
            assert silhouette is not None and owner is not None
            for index in np.argsort(-away[:, view]) + 1:
                owner[shown[index] >= 0.5] = index
            silhouettes.append(silhouette)
            identities.append(owner)
            tick()
        return silhouettes, identities


def masks_of_object(found: CoarseMasks, identity: int) -> list[np.ndarray | None]:
    """The masks of one of several objects: N masks (h, w) float32; None where a photo does not show it."""
    masks: list[np.ndarray | None] = []
    for mask, identities in zip(found.masks, found.identities, strict=True):
        if mask is None or identities is None or not (identities == identity).any():
            masks.append(None)
        else:
            masks.append(np.where(identities == identity, mask, 0).astype(np.float32))
    return masks


def in_order_of(names: Sequence[str], found: CoarseMasks) -> CoarseMasks:
    """The masks with their objects numbered in the order of ``names``, if these are the same names.

    A capture's true identities are numbered by its `object_names`; these should not change their order.
    """
    if set(names) != set(found.names) or len(names) != len(found.names) or tuple(names) == tuple(found.names):
        return found
    table = np.array([0, *(names.index(name) + 1 for name in found.names)], np.uint8)
    identities = [None if image is None else table[image] for image in found.identities]
    return replace(found, identities=identities, names=tuple(names))


def vote_found(photos: Photos, found: CoarseMasks, progress: Progress | None = None) -> Vote | ObjectVotes | None:
    """Votes what a provider found: :func:`vote` for one object, :func:`vote_objects` for several."""
    return vote_objects(photos, found, progress) if found.names else vote(photos, found.masks, progress)


def vote_objects(photos: Photos, found: CoarseMasks, progress: Progress | None = None) -> ObjectVotes:
    """Votes each of several objects. A photo that does not show an object does not vote on it.

    Args:
        photos: of the whole capture.
        found: masks with identities.
        progress: called with one line per stage.

    Raises:
        MaskError: fewer than two photos show an object, or its masks share no place in space.
    """
    each = [masks_of_object(found, identity) for identity in range(1, len(found.names) + 1)]
    lone = [
        f"{name} (in {count})"
        for name, masks in zip(found.names, each, strict=True)
        if (count := sum(mask is not None and bool((mask >= 0.5).any()) for mask in masks)) < FEWEST_PHOTOS
    ]
    if lone:
        raise MaskError(
            f"No two photos show {listed(lone)}; an object needs masks in {FEWEST_PHOTOS} photos at least, to have a "
            "place in space. Leave it out, or add masks of it."
        )
    votes = []
    for name, masks in zip(found.names, each, strict=True):
        try:
            # A point that the user named is on one of the objects, and says nothing about the others.
            one = vote(replace(photos, near=None, radius=None), masks, progress, RESOLUTION)
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
        assert one is not None  # two masks have object pixels
        agreement = _agreement(photos, found, masks, one)
        shown = agreement[agreement > 0]
        hull = replace(one.hull, agreement=float(shown.mean()) if len(shown) else 0.0)
        votes.append(Vote(one.sphere, hull, agreement))
    return ObjectVotes(tuple(found.names), votes)


def _agreement(photos: Photos, found: CoarseMasks, masks: Sequence[np.ndarray | None], voted: Vote) -> np.ndarray:
    """(N,) IoU of an object's masks with its projected hull, without the pixels of other objects, which may occlude it.

    nan where a photo does not show the object.
    """
    views = photos.views.scaled(min(1.0, COMPARED_SIDE / int(max(photos.views.width.max(), photos.views.height.max()))))
    agreement = np.full(len(masks), np.nan)
    for view, mask in enumerate(masks):
        identities = found.identities[view]
        if mask is None or identities is None:
            continue
        silhouette = project_hull(voted.hull, voted.sphere, views.subset([view]))[0] >= 0.5
        height, width = silhouette.shape
        ours = resized(mask, width, height) >= 0.5
        others = resized(((identities > 0) & (mask == 0)).astype(np.float32), width, height) >= 0.5
        agreement[view] = intersection_over_union(ours & ~others, silhouette & ~others)
    return agreement


def voted_identities(
    given: CoarseMasks, voted: ObjectVotes, silhouettes: Sequence[np.ndarray], identities: Sequence[np.ndarray]
) -> CoarseMasks:
    """The hulls' projections in every view in place of the masks, see `vote.voted_masks`.

    Args:
        given: the masks that were voted.
        voted: their votes.
        silhouettes, identities: of :meth:`ObjectVotes.projected`.
    """
    agreement = voted.agreement
    agreement = np.where(np.isfinite(agreement), agreement, voted.mean)
    return CoarseMasks(list(silhouettes), np.clip(agreement, 0, 1), given.remarks, list(identities), given.names)
