"""Colours of identities (parts, objects): fixed, so that a number looks the same everywhere, and easy to tell apart."""

from __future__ import annotations

import colorsys

import numpy as np

FIRST = (
    *((0.90, 0.45, 0.13), (0.20, 0.47, 0.79), (0.24, 0.65, 0.36), (0.80, 0.25, 0.36), (0.58, 0.40, 0.75)),
    *((0.93, 0.78, 0.20), (0.25, 0.72, 0.74), (0.87, 0.53, 0.74), (0.55, 0.36, 0.23), (0.62, 0.73, 0.24)),
)
"""Colours of the identities 1 to 10."""


def identity_colours(count: int) -> np.ndarray:
    """(count, 3) float32 RGB in [0, 1], of the identities 1 to count.

    Those beyond `FIRST` turn the hue by the golden angle, at three levels of brightness.
    """
    further = [
        colorsys.hsv_to_rgb(index * 0.61803 % 1, 0.75, (0.95, 0.7, 0.5)[index % 3])
        for index in range(count - len(FIRST))
    ]
    return np.array([*FIRST[:count], *further], dtype=np.float32).reshape(count, 3)


def identity_bytes(count: int) -> np.ndarray:
    """`identity_colours` as (count, 3) uint8, for pictures and files."""
    return np.rint(identity_colours(count) * 255).astype(np.uint8)
