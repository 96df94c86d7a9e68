"""Contraction of unbounded space (Barron et al. 2022, eq. 10), in the object frame."""

from __future__ import annotations

from torch import Tensor


def contract(points: Tensor) -> Tensor:
    """Map all of space into the ball of radius 2; the unit ball (the object sphere) stays as it is.

    Args:
        points: (..., 3) in the object frame.

    Returns:
        (..., 3) with norm below 2.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return points * ((2.0 - 1.0 / norm) / norm)
