"""Between the encoded colours of a photo and linear light, in which colours are blended.

Where an outline crosses a pixel, the camera averages light and encodes the average. Blending encoded colours instead
biases the alpha of such pixels: a bright object before a dark background seems to cover more of them, a dark one less,
and the outline is off by a fraction of a pixel, always to the same side.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOE = 0.1
"""Slope of the curve near black, like the linear part of sRGB's: the derivative of a square root is infinite there."""


def to_light(values: Tensor) -> Tensor:
    """Linear light, 0 to 1, of encoded colours in 0 to 1: a quadratic within 0.07 of sRGB's curve."""
    return values * (values + TOE) / (1.0 + TOE)


def to_display(light: Tensor) -> Tensor:
    """Encoded colours of linear light: the inverse of `to_light`; negative light is black."""
    return torch.sqrt((1.0 + TOE) * light.clamp(min=0.0) + 0.25 * TOE**2) - 0.5 * TOE
