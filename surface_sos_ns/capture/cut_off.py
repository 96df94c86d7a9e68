"""Photos that cut the object off: masks that reach the border of their picture say nothing of what lies beyond it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.capture.names import listed

__all__ = ["CUT_OFF_SHARE", "cut_off_masks", "cut_off_remark", "largest_component", "mostly_whole"]

BORDER_RUN = 0.02
"""Length along a border from which on a mask counts as cut off there, over the picture's shorter side."""
CUT_OFF_SHARE = 0.25
"""Share of the masks that are cut off from which on a capture counts as one of an object larger than the picture. With
fewer, most photos show all of the object, and a majority of all photos can decide on each part of it."""


def cut_off_masks(masks: Sequence[np.ndarray | None]) -> np.ndarray:
    """(N,) bool: whose largest component touches the border of its picture.

    Specks at a border, which noisy masks have, do not count.

    Args:
        masks: N masks (H, W) bool; None where a view has none, which is not cut off.
    """
    return np.array([mask is not None and _touches_border(mask) for mask in masks], dtype=bool)


def mostly_whole(masks: Sequence[np.ndarray | None]) -> bool:
    """Whether fewer than `CUT_OFF_SHARE` of the masks that have object pixels are cut off.

    Args:
        masks: N masks (H, W) bool; None where a view has none.
    """
    there = sum(mask is not None and bool(mask.any()) for mask in masks)
    return int(cut_off_masks(masks).sum()) < CUT_OFF_SHARE * max(there, 1)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the largest connected component of a mask (H, W) bool that has object pixels."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))


def cut_off_remark(masks: Sequence[np.ndarray | None], names: Sequence[str]) -> str | None:
    """How many photos cut the object off and what follows from that, in a sentence; None if none does.

    Args:
        masks: N masks (H, W), bool or 0..1; None where a view has none.
        names: of the N photos.
    """
    binary = [None if mask is None else np.asarray(mask) >= 0.5 for mask in masks]
    cut = np.flatnonzero(cut_off_masks(binary))
    if not len(cut):
        return None
    shown = listed([names[view] for view in cut], 3)
    follows = (
        "most of the others show all of it"
        if mostly_whole(binary)
        else "each part is taken from the photos that show it, few as they may be"
    )
    return f"{len(cut)} of {len(masks)} photos cut the object off at their border ({shown}); {follows}"


def _touches_border(mask: np.ndarray) -> bool:
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    least = max(2.0, BORDER_RUN * min(mask.shape))
    if max(np.count_nonzero(edge) for edge in edges) < least:
        return False
    main = largest_component(mask)
    return max(np.count_nonzero(edge) for edge in (main[0], main[-1], main[:, 0], main[:, -1])) >= least
