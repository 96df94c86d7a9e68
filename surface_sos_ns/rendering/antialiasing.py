"""Anti-aliased outlines: supersampling of the pixels at which the matte changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_ALPHA_STEP = 0.02
"""Difference of alpha between neighbouring pixels above which they count as an edge."""


def edge_pixels(alpha: Tensor) -> Tensor:
    """(H, W) bool: pixels of a matte (H, W) in whose 3 x 3 neighbourhood alpha varies by more than `MIN_ALPHA_STEP`."""
    image = alpha[None, None]
    highest = F.max_pool2d(image, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-image, 3, stride=1, padding=1)
    return (highest - lowest)[0, 0] > MIN_ALPHA_STEP


def sub_pixel_directions(directions: Tensor, chosen: Tensor, per_axis: int) -> Tensor:
    """Directions through the centres of the per_axis x per_axis sub-pixels of some pixels, without the central one.

    How the direction changes within a pixel is taken from the rays of its neighbours, so any lens model will do.

    Args:
        directions: (H, W, 3) unit, through the pixel centres; H and W at least 2.
        chosen: (H, W) bool, true for K pixels.
        per_axis: sub-pixels per axis, odd.

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
    offsets = torch.stack([y, x], -1).reshape(-1, 2)
    offsets = offsets[offsets.abs().sum(-1) > 0].to(directions.dtype)
    moved = directions[chosen][:, None] + offsets[None, :, :1] * down[:, None] + offsets[None, :, 1:] * right[:, None]
    return F.normalize(moved, dim=-1)
