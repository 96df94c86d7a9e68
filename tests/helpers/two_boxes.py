"""Photos of two boxes in a big coloured sphere: a red box beside a blue one, exact colours and identities."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

ROOM = 6.0
"""Radius of the sphere around all, object radii."""


class BoxPhotos(NamedTuple):
    """V photos (H, W)."""

    origins: Tensor  # (V, H, W, 3)
    directions: Tensor  # (V, H, W, 3)
    colours: Tensor  # (V, H, W, 3)
    labels: Tensor  # (V, H, W) int64: 0 the room, 1 the red box, 2 the blue box

    @property
    def features(self) -> list[np.ndarray]:
        """(H / 4, W / 4, 3) mean hues of patches, of length 1: what a descriptor would see."""
        small = torch.nn.functional.avg_pool2d(self.colours.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
        return list(normalize(small / small.sum(-1, keepdim=True) - 1 / 3, dim=-1).numpy())


def two_boxes(views: int = 12, size: int = 48) -> BoxPhotos:
    """Cameras on a circle that looks down on both boxes."""
    angle = torch.arange(views) * (2 * math.pi / views)
    eyes = torch.stack([2.6 * angle.cos(), 2.6 * angle.sin(), torch.full_like(angle, 1.4)], -1)
    back = normalize(eyes, dim=-1)
    right = normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]).expand_as(back), back), dim=-1)
    up = torch.linalg.cross(back, right)
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    local = torch.stack([0.45 * x, 0.45 * y, -torch.ones_like(x)], -1)
    directions = normalize(torch.einsum("hwk,vkc->vhwc", local, torch.stack([right, up, back], 1)), dim=-1)
    origins = eyes[:, None, None].expand_as(directions)
    hits = [_box(origins, directions, torch.tensor(at), 0.3) for at in ([-0.4, 0.0, 0.0], [0.4, 0.1, 0.0])]
    along = (origins * directions).sum(-1)
    far = -along + (along.square() - origins.square().sum(-1) + ROOM**2).sqrt()
    distance, labels = torch.stack([far, *hits]).min(0)
    at = origins + directions * distance[..., None]
    room = 0.55 + 0.25 * torch.sin(at[..., :1] * 2.0) * torch.cos(at[..., 1:2] * 2.0)
    colours = torch.cat([0.5 * room, room, 0.5 * room], -1)
    shade = 0.75 + 0.25 * torch.sin(9.0 * at.sum(-1, keepdim=True))
    colours = torch.where((labels == 1)[..., None], shade * torch.tensor([0.95, 0.15, 0.1]), colours)
    colours = torch.where((labels == 2)[..., None], shade * torch.tensor([0.1, 0.2, 0.95]), colours)
    return BoxPhotos(origins, directions, colours, labels)


def _box(origins: Tensor, directions: Tensor, centre: Tensor, half: float) -> Tensor:
    """Distance to a cube, infinite where it is missed."""
    one, two = ((centre + side * half - origins) / directions for side in (-1.0, 1.0))
    enter, leave = torch.minimum(one, two).amax(-1), torch.maximum(one, two).amin(-1)
    return torch.where((enter < leave) & (leave > 0), enter, torch.inf)
