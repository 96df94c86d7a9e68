"""What the colours of rays depend on beside place and direction."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["NO_CONTEXT", "RayContext"]


class RayContext(NamedTuple):
    """Of R rays."""

    light: Tensor | None = None  # (R, L) latent codes of their photos' light; None takes the mean of all
    room: Tensor | None = None  # (R, 3) directions in the camera's axes, for a room that is static in its frame

    def of(self, rays: Tensor) -> RayContext:
        """That of some of the rays, by their indices."""
        return RayContext(*(None if values is None else values[rays] for values in self))


NO_CONTEXT = RayContext()
