"""Contraction of unbounded space into a ball (mip-NeRF 360, Barron et al. 2022, eq. 10)."""

from __future__ import annotations

from torch import Tensor


def contract(points: Tensor) -> Tensor:
    """Map space into the ball of radius 2; the unit ball is unchanged.

    Args:
        points: (..., 3) in units of the contraction radius.

    Returns:
        (..., 3) with norm below 2.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return points * ((2.0 - 1.0 / norm) / norm)


def expand(contracted: Tensor) -> Tensor:
    """The inverse of `contract`, (..., 3); norms above 1.99 (infinity is 2) are taken for 1.99."""
    norm = contracted.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return contracted / (norm * (2.0 - norm.clamp(max=1.99)))


def contract_direction(points: Tensor, directions: Tensor) -> Tensor:
    """Directional derivative (..., 3) of `contract` at points along directions, both (..., 3); not normalised.

    Outside the unit ball, with r = |p|: `(2/r - 1/r^2) d + p (p.d) (2/r^4 - 2/r^3)`.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1.0)
    along = (points * directions).sum(-1, keepdim=True)
    radial = (2.0 / norm**4 - 2.0 / norm**3) * along
    return directions * ((2.0 - 1.0 / norm) / norm) + points * radial


def contracted_cell(contracted: Tensor, radius: float, resolution: int) -> Tensor:
    """Radial length, before contraction, of a cell of a grid over contracted space.

    Args:
        contracted: (P, 3) points of contracted space; norms above 1.99 are taken for 1.99.
        radius: contraction radius, which is scaled to 1 before the contraction.
        resolution: cells per axis of the grid over [-2, 2]^3.

    Returns:
        (P,) in the units of `radius`.
    """
    # A norm r becomes c = 2 - 1 / r, whose slope is 1 / r^2 = (2 - c)^2.
    return radius * (4.0 / resolution) / (2.0 - contracted.norm(dim=-1).clamp(1.0, 1.99)).square()
