"""Anti-aliased outlines: where a matte changes from pixel to pixel, a pixel is more than the ray through its middle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_STEP = 0.02
"""Difference of alpha between neighbours from which on there is an edge."""


def edge_pixels(alpha: Tensor) -> Tensor:
    """(H, W) bool: pixels of a matte (H, W) that differ from one of their eight neighbours."""
    around = alpha[None, None]
    highest = F.max_pool2d(around, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-around, 3, stride=1, padding=1)
    return (highest - lowest)[0, 0] > LEAST_STEP


def sub_pixel_directions(directions: Tensor, chosen: Tensor, per_axis: int) -> Tensor:
    """Directions through the middles of a pixel's per_axis x per_axis parts, but for the one that is its own middle.

    Neighbouring pixels' rays say how direction changes within a pixel, whatever the lens.

    Args:
        directions: (H, W, 3) unit, through the pixels' middles; at least 2 x 2.
        chosen: (H, W) bool, K pixels.
        per_axis: odd.

    Returns:
        (K, per_axis^2 - 1, 3) unit.

    Raises:
        ValueError: `per_axis` is even, or the image has less than two rows or columns.
    """
    if per_axis % 2 == 0 or min(directions.shape[:2]) < 2:
        raise ValueError(f"an odd number of parts and 2 x 2 pixels are needed, got {per_axis}, {directions.shape[:2]}")
    down, right = (torch.gradient(directions, dim=axis)[0][chosen] for axis in (0, 1))
    steps = (torch.arange(per_axis, device=directions.device) - per_axis // 2) / per_axis
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    parts = torch.stack([y, x], -1).reshape(-1, 2)
    parts = parts[parts.abs().sum(-1) > 0].to(directions.dtype)
    moved = directions[chosen][:, None] + parts[None, :, :1] * down[:, None] + parts[None, :, 1:] * right[:, None]
    return F.normalize(moved, dim=-1)
