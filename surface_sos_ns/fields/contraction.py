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


def contract_direction(points: Tensor, directions: Tensor) -> Tensor:
    """Derivative of `contract` at points along directions, both (..., 3); not normalised.

    Outside the unit ball, with r = |p|: `(2/r - 1/r^2) d + p (p.d) (2/r^4 - 2/r^3)`.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1.0)
    along = (points * directions).sum(-1, keepdim=True)
    radial = (2.0 / norm**4 - 2.0 / norm**3) * along
    return directions * ((2.0 - 1.0 / norm) / norm) + points * radial
