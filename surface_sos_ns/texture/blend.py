"""One colour for each point of a surface, of those that photos show of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surface_sos_ns.texture.photos import Seen, Sight

__all__ = ["best_of", "blended"]

POWERS = (1, 1, 6)
"""Exponents of a photo's weight relative to the best photo's, one for each of the successive means. With 1, several
photos contribute, so that an outlier is found even if it is the best photo; with 6, mainly the photos with the most
pixels per area. High exponents are sharp, low ones have no seams."""

OUTLIER = 0.1
"""Distance of a photo's colour (0 to 1) from the previous mean (at first the reference), beyond which its weight
falls with the square of the distance: highlights, things in front of the object, and parts of the surface that are not
where the mesh has them."""

KEPT = 0.2
"""Share of the best photo's weight from which on a photo's colours are used at all."""

PRIOR = 0.02
"""Weight of the reference colour, over the largest weight that any point has: it decides where no photo sees."""


def best_of(sights: Sequence[Sight], count: int) -> np.ndarray:
    """(T,) float32 the largest weight of each of T points; 0 where no photo sees it."""
    best = np.zeros(count, np.float32)
    for photo in sights:
        best[photo.which] = np.maximum(best[photo.which], photo.weight)
    return best


def blended(
    seen: Sequence[Seen], exposures: Sequence[tuple[np.ndarray, np.ndarray]], best: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """A robust weighted mean of the photos' colours: outliers of each mean (`OUTLIER`) weigh less in the next.

    Args:
        seen: what each photo shows, of T points.
        exposures: gain (3,) and offset (3,) of each photo, which is gain * colour + offset.
        best: (T,) see `best_of`.
        reference: (T, 3) float32, 0 to 1, colours that are about right everywhere.

    Returns:
        (T, 3) float32, 0 to 1.
    """
    prior = PRIOR * max(float(best.max(initial=0.0)), 1e-12)
    best = np.maximum(best, prior)
    mean = reference
    for power in POWERS:
        weight = (prior / best) ** power
        total, colour = weight.copy(), weight[:, None] * reference
        for photo, (gain, offset) in zip(seen, exposures, strict=True):
            values = ((photo.colour / np.float32(255) - offset) / gain).astype(np.float32)
            apart = np.square(values - mean[photo.which]).sum(axis=1)
            share = (photo.weight / best[photo.which] / np.maximum(apart / OUTLIER**2, 1)) ** power
            total[photo.which] += share
            colour[photo.which] += share[:, None] * values
        mean = colour / total[:, None]
    return np.asarray(mean, np.float32)
