"""A scene whose every pixel is known: a painted ball in a painted room, seen by a few cameras; it may sway."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.ops.layout import GridLayout

RADIUS = 0.5
ROOM = 5.0

GRID = GridLayout(levels=6, features=2, log2_entries=13, base_resolution=8, max_resolution=64)
SMALL = SceneConfig(
    foreground_grid=GRID,
    background_grid=GRID,
    label_grid=GridLayout(levels=3, features=2, log2_entries=12, base_resolution=4, max_resolution=16),
    hidden=32,
    samples=16,
    candidates=(4, 24, 8),
    cache_resolution=32,
    probability_resolution=32,
)
"""Fields that suffice for the scene."""


def paint(points: Tensor, shift: float) -> Tensor:
    """(P, 3) colours of surface points (P, 3): smooth, and different everywhere."""
    waves = torch.stack([points @ torch.tensor(w) for w in ([8.0, 3.0, -5.0], [-3.0, 9.0, 3.0], [5.0, -5.0, 8.0])], -1)
    return 0.5 + 0.4 * torch.sin(waves + shift)


def look_at(eye: Tensor) -> Tensor:
    """(N, 3, 4) camera-to-world of cameras at eyes (N, 3) that look at the origin; x right, y up, along -z."""
    back = torch.nn.functional.normalize(eye, dim=-1)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]]).expand_as(eye), back), dim=-1
    )
    return torch.stack([right, torch.linalg.cross(back, right), back, eye], -1)


@dataclass
class SwayingBall:
    """Rays, photos and true mattes of the scene, frame by frame.

    Attributes:
        frames: number of cameras, on an arc of a circle about the object.
        sway: how far the ball moves to either side, in object radii; 0 keeps it still.
        arc: of the circle, radians.
        size: photos are squares of so many pixels.
    """

    frames: int
    sway: float = 0.0
    arc: float = 6.28
    size: int = 100
    focal: float = 1.6  # of the photos' size

    def __post_init__(self) -> None:
        angle = torch.arange(self.frames) / self.frames * self.arc
        height = 0.8 + 0.4 * torch.cos(3.0 * angle)
        self.poses = look_at(torch.stack([2.5 * angle.cos(), 2.5 * angle.sin(), height], -1))
        self.times = torch.linspace(0, 1, self.frames)
        pixel = (torch.arange(self.size) + 0.5) / self.size - 0.5
        down, across = torch.meshgrid(pixel, pixel, indexing="ij")
        local = torch.stack([across, -down, torch.full_like(down, -self.focal)], -1).reshape(-1, 3)
        self.local = torch.nn.functional.normalize(local, dim=-1)  # (size^2, 3), camera axes

    def centre(self, time: Tensor) -> Tensor:
        """(..., 3) of the ball at times (...)."""
        return self.sway * torch.sin(2 * torch.pi * time)[..., None] * torch.tensor([0.0, 0.0, 1.0])

    def rays(self, frame: Tensor, pixel: Tensor, poses: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Origins and directions (R, 3) of pixels (R,) of frames (R,), from the true poses or from others (N, 3, 4)."""
        pose = (self.poses if poses is None else poses)[frame]
        return pose[..., 3], torch.einsum("rij,rj->ri", pose[..., :3], self.local[pixel])

    def look(self, frame: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """True colour (R, 3) and matte (R,) of pixels (R,) of frames (R,)."""
        origins, directions = self.rays(frame, pixel)
        centre = self.centre(self.times[frame])
        to_ball, hit = _reach(origins - centre, directions, RADIUS, leaving=False)
        to_wall, _ = _reach(origins, directions, ROOM, leaving=True)
        ball = paint(origins + directions * to_ball[:, None] - centre, 1.0)
        wall = paint((origins + directions * to_wall[:, None]) * 0.5, 3.0)
        return torch.where(hit[:, None], ball, wall), hit.float()


def _reach(origins: Tensor, directions: Tensor, radius: float, leaving: bool) -> tuple[Tensor, Tensor]:
    """Distance (R,) to a sphere about the origin, and whether (R,) it is hit."""
    middle = -(origins * directions).sum(-1)
    room = radius**2 - (origins + middle[:, None] * directions).square().sum(-1)
    half = room.clamp(min=0).sqrt()
    return middle + half if leaving else middle - half, room > 0
