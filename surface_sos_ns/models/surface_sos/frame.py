"""The object frame, in which fields live and rays are rendered: the object sphere is the unit sphere at the origin."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ObjectFrame(nn.Module):
    """`p_object = (p_world - centre) / radius`, and back. The only place that knows both frames.

    Attributes:
        centre: (3,) of the object sphere, world frame.
        radius: () of the object sphere, world units.
    """

    centre: Tensor
    radius: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("radius", torch.ones(()))

    def set(self, centre: Tensor, radius: float) -> None:
        """Set the object sphere: centre (3,), world frame, and radius, world units."""
        self.centre.copy_(centre.to(self.centre))
        self.radius.fill_(radius)

    def points(self, world: Tensor) -> Tensor:
        """Points (..., 3) of the world frame -> object frame, on this module's device."""
        return (world.to(self.centre) - self.centre) / self.radius

    def to_world(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the object frame -> world frame."""
        return self.centre + self.radius * points

    def rays(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (R, 3) of the world frame -> object frame. Unit directions stay unit, so distances are object radii."""
        return (origins - self.centre) / self.radius, directions

    def world_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths (...) in object radii -> world units."""
        return lengths * self.radius
