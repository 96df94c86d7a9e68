"""Between the values of a photo and the light that they stand for.

Where an outline crosses a pixel, the camera adds up light and encodes the sum. Blended in the photo's own values, a
bright object in front of something dark seems to cover more of such pixels than it does, a dark one less: its outline
comes out a fraction of a pixel wrong, always to the same side.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOE = 0.1
"""Slope near black, as sRGB has one: a plain square root has none that can be differentiated."""


def to_light(values: Tensor) -> Tensor:
    """Light, 0 to 1, of display values in 0 to 1: sRGB's curve to within 0.07, without a power."""
    return values * (values + TOE) / (1.0 + TOE)


def to_display(light: Tensor) -> Tensor:
    """The inverse of `to_light`; what is below black is black."""
    return torch.sqrt((1.0 + TOE) * light.clamp(min=0.0) + 0.25 * TOE**2) - 0.5 * TOE
