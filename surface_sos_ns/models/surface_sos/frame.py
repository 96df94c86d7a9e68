"""The object frame, in which everything is computed: the object sphere is the unit sphere about the origin."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ObjectFrame(nn.Module):
    """Between the world frame and the object frame. The only place that knows both.

    Attributes:
        centre: (3,) of the object sphere, world frame.
        radius: () of it, world units.
    """

    centre: Tensor
    radius: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("radius", torch.ones(()))

    def set(self, centre: Tensor, radius: float) -> None:
        """Take the object sphere: centre (3,) and radius, world frame."""
        self.centre.copy_(centre.to(self.centre))
        self.radius.fill_(radius)

    def points(self, world: Tensor) -> Tensor:
        """Points (..., 3) of the world frame -> object frame, on this module's device."""
        return (world.to(self.centre) - self.centre) / self.radius

    def to_world(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the object frame -> world frame."""
        return self.centre + self.radius * points

    def rays(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """World rays (R, 3) -> object-frame rays; directions are unit and stay so."""
        return (origins - self.centre) / self.radius, directions

    def world_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths (...) of the object frame -> world units."""
        return lengths * self.radius
