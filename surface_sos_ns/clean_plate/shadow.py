"""The object's shadow: which directions of light it blocks at a surface, and how much light comes from each.

Albedo and irradiance of a surface cannot be told apart in a photo. But the object's shape is known, and with it the
shadow that it casts in light from each direction. The intensities of these lights are fitted to the shadows that photos
show (after Sato, Sato & Ikeuchi, Illumination from Shadows, 2003).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.sampling.field_cache import look_up_nearest

STEP_CELLS = 0.75
"""Step of ray marching through a grid, in cells."""
PAIR_DISTANCES = (3, 6, 12)
"""Distances, in cells of the map, of the pairs of places that are compared: penumbrae change over such distances."""
CAUCHY_SCALE = 0.2
"""Scale of the Cauchy loss, a difference of log colours: larger differences are taken for edges of the albedo."""
MIN_LIGHT = 0.03
"""Least share of the light at any place, before its logarithm is taken."""
VISIBLE_SHARE = (0.04, 0.12)
"""Shares of the cameras that see a place: up to the first it counts as hidden, from the second on as visible."""
REGULARISATION = 1e-3
"""Weight of the variance of the lights' logits: lights that no shadow tells apart stay equal."""


def hemisphere(normal: Tensor, count: int) -> Tensor:
    """Unit directions (count, 3) in the hemisphere of a unit normal (3,), with cosine-weighted density (a spiral)."""
    index = torch.arange(count, device=normal.device) + 0.5
    height = (index / count).sqrt()
    turn, across = index * (math.pi * (3 - math.sqrt(5))), (1 - height.square()).sqrt()
    first, second = tangents(normal)
    return (across * turn.cos())[:, None] * first + (across * turn.sin())[:, None] * second + height[:, None] * normal


def tangents(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (3,) orthogonal to a unit normal (3,) and to each other."""
    axis = F.one_hot(normal.abs().argmin(), 3).to(normal)
    first = F.normalize(axis - normal * (axis @ normal), dim=0)
    return first, torch.linalg.cross(normal, first)


def visible_past(solid: Tensor, points: Tensor, cameras: Tensor) -> Tensor:
    """Visibility (P,), in [0, 1], of points (P, 3) from cameras (V, 3) past solid cells (N, N, N) of the object cube.

    It follows `VISIBLE_SHARE` over the share of the cameras whose line of sight is free. Fields of view are ignored.
    """
    views = torch.stack([~blocked(solid, points, F.normalize(camera - points, dim=-1)) for camera in cameras])
    few, enough = VISIBLE_SHARE
    return ((views.float().mean(0) - few) / (enough - few)).clamp(0, 1)


@torch.no_grad()
def blocked(solid: Tensor, origins: Tensor, directions: Tensor, start: float = 0.0) -> Tensor:
    """Which rays hit a solid cell.

    Args:
        solid: (N, N, N) bool, cells of the cube [-1, 1]^3 indexed [x, y, z].
        origins, directions: (R, 3), unit directions, in the cube's frame; origins may lie outside.
        start: distance along the ray at which it begins.

    Returns:
        (R,) bool.
    """
    hit = torch.zeros_like(origins[:, 0], dtype=torch.bool)
    cells = solid.nonzero()
    if not len(cells):
        return hit
    n = solid.shape[0]
    low, high = cells.amin(0) * (2.0 / n) - 1.0, (cells.amax(0) + 1) * (2.0 / n) - 1.0
    slope = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (low - origins) / slope, (high - origins) / slope
    near = torch.minimum(first, second).amax(-1).clamp(min=start)
    far = torch.maximum(first, second).amin(-1)
    rays = (near < far).nonzero()[:, 0]  # the others miss the bounding box
    step, walked = STEP_CELLS * 2.0 / n, 0
    while len(rays):
        distance = near[rays] + (walked + 0.5) * step
        points = origins[rays] + directions[rays] * distance[:, None]
        here = look_up_nearest(solid, points, 1.0) & (distance < far[rays])
        hit[rays[here]] = True
        rays = rays[~here & (distance < far[rays])]
        walked += 1
    return hit


def fit_light(colours: Tensor, known: Tensor, visible: Tensor, steps: int = 300) -> Tensor:
    """Share of the light on a map that comes from each direction, fitted to the shadows that the object casts on it.

    Log colour is log albedo plus log light. Over a few cells the albedo is constant, or it has an edge. So differences
    of log colour minus log light between neighbouring places are sparse; a Cauchy loss on them is minimised.

    Args:
        colours: (3, H, W) positive, linear light.
        known: (H, W) in [0, 1], confidence of the colours.
        visible: (K, H, W) bool, whether light from a direction reaches a place past the object.
        steps: of Adam, a few milliseconds each.

    Returns:
        (K,) shares. They sum to 1 with the light that the object blocks nowhere.
    """
    # Averaged over 3 x 3 cells: what differs from cell to cell is noise.
    amount = F.avg_pool2d(known[None], 3, 1, 1)
    logs = F.avg_pool2d(colours.clamp(min=1e-3).log() * known, 3, 1, 1) / amount.clamp(min=1e-6)
    weight = (known * (amount[0] > 0.5)).detach()
    reached = visible.reshape(len(visible), -1).to(logs)
    reached = torch.cat([reached, torch.ones_like(reached[:1])])
    pairs = []
    for cells in PAIR_DISTANCES:
        for axis in (0, 1):
            length = weight.shape[axis] - cells
            pairs.append((cells, axis, weight.narrow(axis, cells, length) * weight.narrow(axis, 0, length)))
    with torch.enable_grad():
        logits = torch.zeros(len(reached), device=colours.device, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1, betas=(0.9, 0.99))
        for _ in range(steps):
            light = (logits.softmax(0) @ reached).clamp(min=MIN_LIGHT).log().reshape(weight.shape)
            albedo = logs - light
            loss = REGULARISATION * (logits - logits.mean()).square().mean()
            for cells, axis, both in pairs:
                length = both.shape[axis]
                change = albedo.narrow(1 + axis, cells, length) - albedo.narrow(1 + axis, 0, length)
                edges = (both * torch.log1p((change / CAUCHY_SCALE).square())).sum() / both.sum().clamp(min=1.0)
                loss = loss + edges / len(PAIR_DISTANCES)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return logits.detach().softmax(0)[:-1]
