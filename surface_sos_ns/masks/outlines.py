"""Outlines of coarse patches on finer ones: a network says what the object is, colour and texture say where it ends."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.masks.features import ColourTexture
from surface_sos_ns.masks.patch_optimisation import MAX_LOG_ODDS, PatchRules, optimise_patches
from surface_sos_ns.masks.provider import Photos

__all__ = ["refine_outlines"]

MAX_PRIOR = 2 * MAX_LOG_ODDS
"""Bound of the coarse patches' log-odds. A fine patch's appearance gives at most half of it; its neighbours may
outweigh it."""

PASSES = 2
"""Of the optimisation, which starts from the coarse patches' labels."""


def refine_outlines(photos: Photos, odds: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Iterative Patch Optimisation on the descriptor's patches, with the log-odds of coarser ones as prior.

    Args:
        photos: N photos.
        odds: N grids (h, w) of log-odds, positive for the object.
        seed: of the optimisation.

    Returns:
        N grids of log-odds on the descriptor's patches; `odds` themselves where these are no finer.
    """
    features = ColourTexture().features(photos.images)
    if all(fine.shape[0] <= coarse.shape[0] for fine, coarse in zip(features, odds, strict=True)):
        return list(odds)
    enlarged = [
        np.clip(cv2.resize(coarse.astype(np.float32), fine.shape[1::-1]), -MAX_PRIOR, MAX_PRIOR)
        for coarse, fine in zip(odds, features, strict=True)
    ]
    return optimise_patches(features, [grid > 0 for grid in enlarged], enlarged, PatchRules(passes=PASSES), seed=seed)
