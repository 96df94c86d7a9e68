"""Identity images of several objects, from soft masks of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surface_sos_ns.capture.object_files import identities_of
from surface_sos_ns.utils.image_io import Size, resized

__all__ = ["merge_objects", "sized_identities"]


def merge_objects(masks: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """A photo's mask of all objects and its identities, from a mask of each object; see `identities_of`.

    Args:
        masks: of K objects, (h, w) float in [0, 1], None for those that the photo does not show. They may have
            different sizes of the same proportions; the largest counts.

    Returns:
        (h, w) float32, and (h, w) uint8, 0 where that is under 0.5; None where the photo shows no object.
    """
    shown = {identity: mask for identity, mask in enumerate(masks, start=1) if mask is not None}
    if not shown:
        return None, None
    height, width = max((mask.shape for mask in shown.values()), key=lambda shape: shape[0] * shape[1])
    mask, owner = identities_of(
        {one: resized(np.asarray(mask, np.float32), width, height) for one, mask in shown.items()}
    )
    return mask, np.where(mask >= 0.5, owner, 0).astype(np.uint8)


def sized_identities(mask: np.ndarray, identities: np.ndarray, size: Size) -> np.ndarray:
    """Identities at another size. The shares of the objects and of the rest are resized; the largest share counts.

    Args:
        mask: (h, w) float in [0, 1], of all objects together.
        identities: (h, w) uint8 of the same size; 0 for none.
        size: width and height, pixels.

    Returns:
        (H, W) uint8; 0 where the mask is under 0.5.
    """
    mask = np.asarray(mask, np.float32)
    if mask.shape == size[::-1]:
        return np.where(mask >= 0.5, identities, 0).astype(np.uint8)
    result = np.zeros(size[::-1], np.uint8)
    covered, largest = np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
    for identity in np.unique(identities[identities > 0]):
        share = resized(np.where(identities == identity, mask, np.float32(0)), *size)
        covered += share
        result[share > largest] = identity
        largest = np.maximum(largest, share)
    return np.where(covered >= 0.5, result, 0).astype(np.uint8)
