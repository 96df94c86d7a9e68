"""The object's shadow: which directions it hides from a surface, and how much light comes from each.

What a surface is painted with and how much light falls on it cannot be told apart in a photo. But the object's shape is
known, and so is the shadow that it would cast in the light of each direction: the lights whose shadows the photos show
are found by fitting (after Sato, Sato and Ikeuchi, Illumination from Shadows, 2003).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.sampling.field_cache import look_up_nearest

STEP = 0.75
"""Of a walk through a grid, in cells."""
DISTANCES = (3, 6, 12)
"""Cells between two places of a map that are compared: paint has edges, shadow changes over such distances too."""
CONTRAST = 0.2
"""Difference of log colours from which on it counts for paint rather than for shadow."""
LEAST_LIGHT = 0.03
"""Share of the light that reaches any place."""
FEW_VIEWS = (0.04, 0.12)
"""Share of the cameras that see a place: from the first it may be known, from the second it surely is."""
EVEN = 1e-3
"""How strongly lights that no shadow tells apart are kept alike."""


def hemisphere(normal: Tensor, count: int) -> Tensor:
    """(count, 3) unit directions on the side of a unit normal (3,), as dense as Lambert's cosine weighs them."""
    index = torch.arange(count, device=normal.device) + 0.5
    height = (index / count).sqrt()
    turn, across = index * (math.pi * (3 - math.sqrt(5))), (1 - height.square()).sqrt()
    first, second = tangents(normal)
    return (across * turn.cos())[:, None] * first + (across * turn.sin())[:, None] * second + height[:, None] * normal


def tangents(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (3,) that are square to a unit normal (3,) and to each other."""
    axis = F.one_hot(normal.abs().argmin(), 3).to(normal)
    first = F.normalize(axis - normal * (axis @ normal), dim=0)
    return first, torch.linalg.cross(normal, first)


def seen_past(solid: Tensor, points: Tensor, cameras: Tensor) -> Tensor:
    """(P,) in [0, 1]: how surely some of the cameras (V, 3) see points (P, 3) past something solid (N, N, N).

    Where the points would lie in their pictures is not asked.
    """
    views = torch.stack([~blocked(solid, points, F.normalize(camera - points, dim=-1)) for camera in cameras])
    few, enough = FEW_VIEWS
    return ((views.float().mean(0) - few) / (enough - few)).clamp(0, 1)


@torch.no_grad()
def blocked(solid: Tensor, origins: Tensor, directions: Tensor, start: float = 0.0) -> Tensor:
    """Which rays meet something solid.

    Args:
        solid: (N, N, N) bool, cells of the cube [-1, 1]^3 indexed [x, y, z].
        origins, directions: (R, 3), unit directions, in the cube's frame; origins may lie outside.
        start: distance from which on the ray is followed.

    Returns:
        (R,) bool.
    """
    met = torch.zeros_like(origins[:, 0], dtype=torch.bool)
    cells = solid.nonzero()
    if not len(cells):
        return met
    n = solid.shape[0]
    low, high = cells.amin(0) * (2.0 / n) - 1.0, (cells.amax(0) + 1) * (2.0 / n) - 1.0
    steep = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (low - origins) / steep, (high - origins) / steep
    near = torch.minimum(first, second).amax(-1).clamp(min=start)
    far = torch.maximum(first, second).amin(-1)
    rays = (near < far).nonzero()[:, 0]  # the others pass by all of it
    step, walked = STEP * 2.0 / n, 0
    while len(rays):
        distance = near[rays] + (walked + 0.5) * step
        points = origins[rays] + directions[rays] * distance[:, None]
        here = look_up_nearest(solid, points, 1.0) & (distance < far[rays])
        met[rays[here]] = True
        rays = rays[~here & (distance < far[rays])]
        walked += 1
    return met


def fit_light(colours: Tensor, known: Tensor, visible: Tensor, steps: int = 300) -> Tensor:
    """How much of the light on a map comes from each direction, by the shadows that the object casts on it.

    Places some cells apart differ by what they are painted with, seldom and then much, or by how much light falls on
    them: the difference of log colours less that of log light is small nearly everywhere. The lights that make it so
    are found by gradient descent on a Cauchy loss.

    Args:
        colours: (3, H, W) over 0.
        known: (H, W) in [0, 1], how surely they are.
        visible: (K, H, W) bool, whether a direction is seen from a place, past the object.
        steps: of the descent, a few milliseconds each.

    Returns:
        (K,) shares, which sum to 1 with what of the light the object keeps away from nowhere.
    """
    # Averaged over 3 x 3 cells: what differs from cell to cell is noise.
    amount = F.avg_pool2d(known[None], 3, 1, 1)
    logs = F.avg_pool2d(colours.clamp(min=1e-3).log() * known, 3, 1, 1) / amount.clamp(min=1e-6)
    weight = (known * (amount[0] > 0.5)).detach()
    seen = visible.reshape(len(visible), -1).to(logs)
    seen = torch.cat([seen, torch.ones_like(seen[:1])])
    pairs = []
    for cells in DISTANCES:
        for axis in (0, 1):
            length = weight.shape[axis] - cells
            pairs.append((cells, axis, weight.narrow(axis, cells, length) * weight.narrow(axis, 0, length)))
    with torch.enable_grad():
        logits = torch.zeros(len(seen), device=colours.device, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1, betas=(0.9, 0.99))
        for _ in range(steps):
            light = (logits.softmax(0) @ seen).clamp(min=LEAST_LIGHT).log().reshape(weight.shape)
            rest = logs - light
            loss = EVEN * (logits - logits.mean()).square().mean()
            for cells, axis, both in pairs:
                length = both.shape[axis]
                change = rest.narrow(1 + axis, cells, length) - rest.narrow(1 + axis, 0, length)
                paint = (both * torch.log1p((change / CONTRAST).square())).sum() / both.sum().clamp(min=1.0)
                loss = loss + paint / len(DISTANCES)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return logits.detach().softmax(0)[:-1]
