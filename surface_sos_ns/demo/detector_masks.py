"""Masks as a good detector would give them, wrong in one way that many photos share.

Its outlines are soft and a pixel or two off. In a stated share of the photos it takes one neighbour for a piece of the
object, always as a whole, or always lacks the same part of it. Averaging does not remove such errors, which single bad
masks (`coarse_masks`) do not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from surface_sos_ns.utils.outline_distance import signed_distance

OUTLINE_PIXELS = 1.2
"""Standard deviation, in pixels, of how far an outline is off."""
WAVE_PIXELS = 14.0
"""Pixels along an outline over which it is off in the same direction."""


def chosen_photos(groups: Sequence[Sequence[int]], share: float, seed: int) -> set[int]:
    """Random photos, the same share of each group: of those trained on, and of those held out.

    Args:
        groups: numbers of the photos.
        share: in 0..1.
        seed: equal seeds give equal photos, and a larger share adds photos to those of a smaller one.
    """
    rng = np.random.default_rng([seed, 110])
    return {int(view) for group in groups for view in rng.permutation(group)[: round(share * len(group))]}


def with_neighbour(truth: np.ndarray, neighbour: np.ndarray, taken: bool, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 mask of the object, with its neighbour where that is `taken`; both (H, W) bool."""
    return noisy_outline(truth | neighbour if taken else truth, rng)


def without_part(truth: np.ndarray, part: np.ndarray, missing: bool, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 mask of the object, without its part where that is `missing`; both (H, W) bool."""
    return noisy_outline(truth & ~part if missing else truth, rng)


def noisy_outline(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 mask, 255 the object, of the true one (H, W) bool: its outline is soft, and off in slow waves."""
    if not truth.any():
        return np.zeros(truth.shape, np.uint8)
    height, width = truth.shape
    rows, columns = int(height / WAVE_PIXELS) + 3, int(width / WAVE_PIXELS) + 3
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    waves = cv2.resize(grid, None, fx=WAVE_PIXELS, fy=WAVE_PIXELS, interpolation=cv2.INTER_CUBIC)[:height, :width]
    distance = signed_distance(truth) + OUTLINE_PIXELS * waves
    return np.rint(255 * np.clip(0.5 + 0.5 * distance, 0, 1)).astype(np.uint8)
