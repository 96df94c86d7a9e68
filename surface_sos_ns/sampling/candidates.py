"""Coarse intervals along rays through an unbounded scene around the object sphere, before importance sampling."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_DISPARITY_DISTANCE = 0.5
"""Least distance, object radii, at which the intervals that are linear in disparity begin; rays that leave the sphere
earlier (those that start behind it) are shifted by the difference. Otherwise nearly all of their intervals would lie
right in front of the camera."""


def sphere_crossing(origins: Tensor, directions: Tensor, min_half_width: float = 0.3) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave the unit sphere.

    Rays that miss it, or pass close to its rim, get an interval of `min_half_width` to either side of their point of
    closest approach, so that every ray has one.

    Args:
        origins: (R, 3) in the object frame.
        directions: (R, 3) unit.

    Returns:
        enter, leave: (R,) object radii; negative behind the origin.
    """
    middle = -(origins * directions).sum(-1)
    miss2 = (origins + middle[:, None] * directions).square().sum(-1)
    half = (1.0 - miss2).clamp(min=min_half_width**2).sqrt()
    return middle - half, middle + half


CLOSE_SHARE = 0.6
"""Share of the way from a camera to the object that is left out where the camera is in the object's sphere."""


def advance_of_rays(origins: Tensor, directions: Tensor, to_object: Tensor) -> Tensor:
    """How far (R,) rays are advanced before `candidate_edges`, where the camera is close to the object or its sphere.

    The distance to the sphere is no measure then: where pictures cut the object off, its sphere may contain cameras. So
    rays start at `CLOSE_SHARE` of the distance to the object itself. 0 for rays that enter the sphere at `to_object` or
    later.

    Args:
        origins, directions: (R, 3), object frame, directions unit.
        to_object: (R,) distances from the origins to the object, or less.
    """
    enter, _ = sphere_crossing(origins, directions)
    return CLOSE_SHARE * (to_object - enter.clamp(min=0.0)).clamp(min=0.0)


def candidate_edges(
    origins: Tensor, directions: Tensor, counts: tuple[int, int, int], near_fraction: float, far: float
) -> Tensor:
    """Edges of intervals: linear up to the object sphere, linear inside it, linear in disparity beyond.

    Args:
        origins, directions: (R, 3), object frame, directions unit.
        counts: number of intervals before, inside and beyond the sphere.
        near_fraction: rays start at this fraction of the distance to the sphere. Closer to a camera too few others see
            the same space to tell a surface from a floater.
        far: least distance of the last edge, object radii.

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
    shift = (MIN_DISPARITY_DISTANCE - leave).clamp(min=0.0)[:, None]
    start, end = leave[:, None] + shift, torch.clamp(2.0 * leave, min=far)[:, None] + shift
    last = 1.0 / ((1.0 - beyond) / start + beyond / end) - shift
    return torch.cat([first, middle, last], -1)
