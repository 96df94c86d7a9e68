"""The sphere that holds the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ObjectSphere"]


@dataclass(frozen=True)
class ObjectSphere:
    """A sphere around the object: ``p_obj = (p_world - centre) / radius`` maps its inside to the unit ball.

    Attributes:
        centre: (3,) float64, world frame.
        radius: world units, with some margin around the object.
        source: where it comes from, in words.

    Raises:
        ValueError: when the centre is not three finite numbers or the radius is not positive.
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
