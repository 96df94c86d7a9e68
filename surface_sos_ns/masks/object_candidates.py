"""Which part of a single photo is the object: parts that normalised cuts offer, and the one that looks most like one.

With cameras the object is what they turn around. A single photo does not tell that. There, the object is taken to be a
part that has a small normalised cut with the rest, lies near the middle and covers little of the photo's border.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from surface_sos_ns.masks.features import normalised
from surface_sos_ns.masks.normalised_cut import affinity, cut_eigenvectors
from surface_sos_ns.masks.patch_grid import doubled, halved

__all__ = ["CutParts", "cut_parts", "find_object"]

CUT_SIDE = 48
"""Patches along the longer side of a grid, at most, for the cut; larger grids are halved."""

EIGENVECTORS = 4
"""Eigenvectors that are looked at. The first one is the best cut of the photo in two, which is often that of wall and
floor; the object is then in one of the next."""

SIZES = (0.005, 0.8)
"""Least and largest share of the photo that an object has."""

CENTRE_SPREAD = 0.5
"""Spread (standard deviation) of the weight of patches about the photo's centre, in halves of its sides."""

BORDER_WEIGHT = 2.0
"""How much the share of the photo's border that a part covers counts against it, relative to its cut."""


class CutParts:
    """Parts of a photo's patches, from its normalised cuts.

    Attributes:
        parts: (K, h, w) bool, each of one piece; K may be 0.
        cuts: (K,) normalised cut of each part and the rest, 0 (nothing alike across) to 2.
    """

    def __init__(self, parts: np.ndarray, weights: np.ndarray) -> None:
        """Args: parts (K, h, w) bool, and affinities (h w, h w) of all patches."""
        self.parts = parts
        flat = parts.reshape(len(parts), weights.shape[0]).astype(np.float32)
        degree = weights.sum(axis=1)
        volume, rest = flat @ degree, (1 - flat) @ degree
        across = volume - np.einsum("kp,kp->k", flat @ weights, flat)
        self.cuts = across / volume + across / rest

    def merits(self) -> np.ndarray:
        """(K,) how much each part looks like an object; the larger, the more. See the module."""
        height, width = self.parts.shape[1:]
        row, column = np.mgrid[:height, :width] + 0.5
        away = ((2 * row / height - 1) ** 2 + (2 * column / width - 1) ** 2) / CENTRE_SPREAD**2
        central = [float(np.corrcoef(part.ravel(), np.exp(-away / 2).ravel())[0, 1]) for part in self.parts]
        border = np.ones((height, width), bool)
        border[1:-1, 1:-1] = False
        return np.array(central) - self.cuts - BORDER_WEIGHT * self.parts[:, border].mean(axis=1)


def find_object(features: np.ndarray) -> np.ndarray | None:
    """The part of a photo that looks most like an object.

    Args:
        features: (h, w, D) of vectors of length 1.

    Returns:
        (h, w) bool; None where the cuts offer nothing, as of a photo of one colour.
    """
    grid, shapes = features, list[tuple[int, int]]()
    while max(grid.shape[:2]) > CUT_SIDE:
        shapes.append((grid.shape[0], grid.shape[1]))
        grid = halved(grid)
    found = cut_parts(normalised(grid))
    if not len(found.parts):
        return None
    part: np.ndarray = found.parts[int(np.argmax(found.merits()))]
    for shape in reversed(shapes):
        part = doubled(part, shape)
    return part


def cut_parts(features: np.ndarray) -> CutParts:
    """The pieces of either side of the first normalised cuts, at their weighted mean and at Otsu's threshold.

    Args:
        features: (h, w, D) of vectors of length 1.
    """
    from scipy.ndimage import label

    height, width = features.shape[:2]
    weights = affinity(features.reshape(height * width, -1))
    pieces = []
    for cut in cut_eigenvectors(weights, min(EIGENVECTORS, len(weights) - 2)) if len(weights) > 2 else []:
        for side in _sides(cut.reshape(height, width)):
            pieces_of_side, count = label(side, np.ones((3, 3)))
            pieces += [pieces_of_side == piece for piece in range(1, count + 1)]
    least, largest = SIZES
    fitting = [piece for piece in pieces if least <= piece.mean() <= largest]
    return CutParts(np.array(fitting, bool).reshape(-1, height, width), weights)


def _sides(cut: np.ndarray) -> Iterator[np.ndarray]:
    """Both sides of a cut (h, w) at both thresholds."""
    from skimage.filters import threshold_otsu

    if np.ptp(cut) <= 0:
        return
    for level in (0.0, float(threshold_otsu(cut))):
        yield cut > level
        yield cut <= level
