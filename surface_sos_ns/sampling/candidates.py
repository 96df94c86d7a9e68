"""Where along a ray a surface may be at all: coarse intervals over an unbounded scene around the unit object sphere."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_REACH = 0.5
"""Disparity beyond the sphere is measured as if a ray had come this far already, in object radii: for one that starts
behind the sphere, as behind a cut through the scene, nearly all intervals would lie right in front of it."""


def sphere_crossing(origins: Tensor, directions: Tensor, least_half_width: float = 0.3) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave the unit sphere.

    Rays that miss it get an interval of `least_half_width` around their closest approach, so that every ray has one.

    Args:
        origins: (R, 3) in the object frame.
        directions: (R, 3) unit.

    Returns:
        enter, leave: (R,) may be negative behind the origin.
    """
    middle = -(origins * directions).sum(-1)
    miss2 = (origins + middle[:, None] * directions).square().sum(-1)
    half = (1.0 - miss2).clamp(min=least_half_width**2).sqrt()
    return middle - half, middle + half


def candidate_edges(
    origins: Tensor, directions: Tensor, counts: tuple[int, int, int], near_fraction: float, far: float
) -> Tensor:
    """Edges of intervals: linear up to the object sphere, linear and dense through it, linear in disparity beyond.

    Args:
        origins, directions: (R, 3), object frame.
        counts: intervals before, inside and beyond the sphere.
        near_fraction: rays start at this fraction of the way to the sphere: what is nearer is seen by too few cameras
            to be told from fog.
        far: last distance, in object-frame units.

    Returns:
        (R, sum(counts) + 1) increasing distances.
    """
    enter, leave = sphere_crossing(origins, directions)
    near = (near_fraction * enter).clamp(min=1e-2)
    enter = torch.maximum(enter, near + 1e-3)
    leave = torch.maximum(leave, enter + 1e-3)
    before, inside, beyond = (torch.linspace(0, 1, n + 1, device=origins.device) for n in counts)
    first = near[:, None] + (enter - near)[:, None] * before[None, :-1]
    middle = enter[:, None] + (leave - enter)[:, None] * inside[None, :-1]
    shift = (LEAST_REACH - leave).clamp(min=0.0)[:, None]
    start, end = leave[:, None] + shift, torch.clamp(2.0 * leave, min=far)[:, None] + shift
    last = 1.0 / ((1.0 - beyond) / start + beyond / end) - shift
    return torch.cat([first, middle, last], -1)
