"""The object frame, in which fields live and rays are rendered: the object sphere is the unit sphere at the origin."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class ObjectFrame(nn.Module):
    """`p_object = (p_world - centre) / radius`, and back. The only place that knows both frames.

    Args:
        centre: (3,) of the object sphere, world frame; its origin where it is not known yet.
        radius: of it, world units.

    Attributes:
        centre, radius: the same as buffers, (3,) and ().
    """

    centre: Tensor
    radius: Tensor

    def __init__(self, centre: Tensor | np.ndarray | None = None, radius: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("radius", torch.full((), radius, dtype=torch.float32))
        if centre is not None:
            self.centre.copy_(torch.as_tensor(centre))

    def take(self, other: ObjectFrame) -> None:
        """Become the same frame as another one, on the own device."""
        self.centre.copy_(other.centre)
        self.radius.copy_(other.radius)

    def points(self, world: Tensor) -> Tensor:
        """Points (..., 3) of the world frame -> object frame, on this module's device."""
        return (world.to(self.centre) - self.centre) / self.radius

    def to_world(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the object frame -> world frame, on this module's device."""
        return self.centre + self.radius * points.to(self.centre.device)

    def rays(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (R, 3) of the world frame -> object frame. Unit directions stay unit, so distances are object radii."""
        return (origins - self.centre) / self.radius, directions

    def world_lengths(self, lengths: Tensor) -> Tensor:
        """Lengths (...) in object radii -> world units."""
        return lengths * self.radius
