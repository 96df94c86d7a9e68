"""The object's bounding sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ObjectSphere"]


@dataclass(frozen=True)
class ObjectSphere:
    """The bounding sphere of the object. It defines the object frame: ``p_obj = (p_world - centre) / radius``.

    Attributes:
        centre: (3,) float64, world frame.
        radius: world units, with a margin around the object.
        source: how it was found, as text for messages.

    Raises:
        ValueError: the centre is not three finite numbers, or the radius is not positive and finite.
    """

    centre: np.ndarray
    radius: float
    source: str = "given"

    def __post_init__(self) -> None:
        centre = np.asarray(self.centre, dtype=np.float64)
        if centre.shape != (3,) or not np.isfinite(centre).all():
            raise ValueError(f"The object's centre is {self.centre}; expected three finite numbers.")
        if not (np.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"The object's radius is {self.radius}; expected a positive number.")
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "radius", float(self.radius))
