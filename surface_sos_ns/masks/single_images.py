"""Selfment on photos without cameras: single ones, or a folder that shows one thing or many.

The stages are those of Selfment on a capture (``selfment.py``), without the centre prior and the vote, which need
cameras:

1. Normalised cuts of every photo on its own, and the part of them that looks most like an object
   (``object_candidates.py``).
2. Iterative Patch Optimisation. Features of a self-supervised network are alike on things of a kind, so all photos
   share the prototypes, which corrects errors of single photos; that helps whether they show one thing or many. Colour
   and texture are alike on object and background of different photos, so with the descriptor each photo has its own
   prototypes.
3. Of the object, only pieces that overlap the part of stage 1 stay, so that a second thing of the same kind is not
   included.
4. A head, trained on the masks of all photos; its log-odds are added to those of the patches. A single photo has none:
   a head would overfit to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from surface_sos_ns.masks.features import LooksAtFeatures, TransformerFeatures
from surface_sos_ns.masks.object_candidates import find_object
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.patch_optimisation import (
    MAX_LOG_ODDS,
    neighbour_links,
    optimise_patches,
    spread_over_neighbours,
)
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, PlainMaskProvider, PlainPhotos, Progress
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["SelfmentWithoutPoses", "keep_pieces", "segment"]

MIN_OVERLAP = 0.1
"""Pieces of the refined object stay that hold at least this share of the part that was found first, relative to the
piece with most of it."""


class SelfmentWithoutPoses(LooksAtFeatures, PlainMaskProvider):
    """Selfment on photos without cameras; its arguments are those of :class:`LooksAtFeatures`.

    The confidence of a mask is its IoU with what the photo's own cut gave.
    """

    name: ClassVar[str] = "selfment"

    def plain_masks(self, photos: PlainPhotos, progress: Progress) -> CoarseMasks:
        """See :meth:`PlainMaskProvider.plain_masks`."""
        features = self._features.load()
        grids = features.features(photos.images, progress)
        progress(f"selfment: normalised cuts of every photo ({features.name})")
        parts = [find_object(grid) for grid in grids]
        masks: list[np.ndarray | None] = [None] * len(photos)
        confidence = np.zeros(len(photos))
        found = [index for index, part in enumerate(parts) if part is not None]
        if found:
            progress("selfment: Iterative Patch Optimisation, and training the head")
            seen = [part for part in parts if part is not None]
            shared = isinstance(features, TransformerFeatures)
            final = segment([grids[index] for index in found], seen, shared=shared, seed=self.seed)
            for index, part, odds in zip(found, seen, final, strict=True):
                if (odds > 0).any():
                    height, width = photos.images[index].shape[:2]
                    masks[index] = enlarged(odds, (height, width))
                    confidence[index] = intersection_over_union(odds > 0, part)
        return CoarseMasks(masks, confidence)


def segment(
    features: Sequence[np.ndarray], parts: Sequence[np.ndarray], *, shared: bool, seed: int = 0
) -> list[np.ndarray]:
    """From the part of each photo that looks like an object to its final mask; stages 2 to 4.

    Args:
        features: N grids (h, w, D) of vectors of length 1.
        parts: N grids (h, w) bool, of :func:`find_object`.
        shared: the prototypes are those of all photos.
        seed: of clustering, sampling and weights.

    Returns:
        N grids (h, w) float32 of log-odds, positive for the object.
    """
    from surface_sos_ns.masks.segmentation_head import predict, train_head

    if shared:
        refined = _optimised(features, parts, seed)
    else:
        refined = [_optimised([grid], [part], seed)[0] for grid, part in zip(features, parts, strict=True)]
    kept = [keep_pieces(odds, part) for odds, part in zip(refined, parts, strict=True)]
    if len(kept) == 1:
        return kept
    links = [neighbour_links(grid) for grid in features]
    head = train_head(features, [1 / (1 + np.exp(-odds)) for odds in kept], links, seed=seed)
    seen = [np.clip(predict(head, grid), -MAX_LOG_ODDS, MAX_LOG_ODDS) for grid in features]
    return [spread_over_neighbours(odds, link) + before for odds, link, before in zip(seen, links, kept, strict=True)]


def _optimised(features: Sequence[np.ndarray], parts: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Log-odds after Iterative Patch Optimisation; of the parts themselves where one side is too small for it."""
    try:
        return optimise_patches(features, parts, seed=seed)
    except MaskError:
        return [np.where(part, MAX_LOG_ODDS, -MAX_LOG_ODDS).astype(np.float32) for part in parts]


def keep_pieces(odds: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Log-odds whose sign is turned on pieces of the object that hold hardly anything of a part of the photo.

    Args:
        odds: (h, w) log-odds, positive for the object.
        part: (h, w) bool, see `MIN_OVERLAP`.
    """
    from scipy.ndimage import label

    pieces, count = label(odds > 0, np.ones((3, 3)))
    overlap = np.bincount(pieces[part], minlength=count + 1)
    overlap[0] = 0  # the background
    keeps = overlap >= max(MIN_OVERLAP * overlap.max(), 1)
    return np.where((odds > 0) & ~keeps[pieces], -odds, odds).astype(np.float32)
