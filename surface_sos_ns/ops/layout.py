"""Sizes of a multi-resolution hash grid, and the position of its levels in one flat table.

As in instant-ngp (Mueller et al. 2022), with the paper's sizes (Fig. 3: 16 levels, 16 -> 2048). Levels whose vertices
fit into the table are indexed densely, without collisions; only finer ones are hashed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surface_sos_ns.utils.errors import UserError

PRIMES = (1, 2654435761, 805459861)
"""Factors of the spatial hash: the XOR of a vertex' coordinates times these, modulo the level's entries."""


@dataclass(frozen=True)
class GridLayout:
    """Sizes of a hash grid.

    Raises:
        UserError: sizes that make no grid.
    """

    levels: int = 16
    features: int = 2
    log2_entries: int = 19
    base_resolution: int = 16
    max_resolution: int = 2048

    def __post_init__(self) -> None:
        if self.levels < 1 or self.features < 1 or self.base_resolution < 2:
            raise UserError(f"A hash grid needs levels and features >= 1 and base_resolution >= 2; got {self}.")
        if self.max_resolution < self.base_resolution:
            raise UserError(f"A hash grid's max_resolution must be >= base_resolution; got {self}.")

    @property
    def width(self) -> int:
        """Length of a feature vector, all levels concatenated."""
        return self.levels * self.features

    @property
    def resolutions(self) -> NDArray[np.int64]:
        """(L,) cells per axis of each level, in geometric progression."""
        if self.levels == 1:
            return np.array([self.base_resolution], dtype=np.int64)
        growth = math.log(self.max_resolution / self.base_resolution) / (self.levels - 1)
        resolutions: NDArray[np.floating[Any]] = np.floor(
            self.base_resolution * np.exp(growth * np.arange(self.levels)) + 1e-6
        )
        return resolutions.astype(np.int64)

    @property
    def entries(self) -> NDArray[np.int64]:
        """(L,) table entries of each level: one per vertex if they fit, else 2**log2_entries hashed ones."""
        entries: NDArray[np.int64] = np.minimum((self.resolutions + 1) ** 3, 2**self.log2_entries)
        return entries

    @property
    def hashed(self) -> NDArray[np.bool_]:
        """(L,) bool, whether a level is hashed."""
        hashed: NDArray[np.bool_] = (self.resolutions + 1) ** 3 > 2**self.log2_entries
        return hashed

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(L,) first entry of each level in the flat table."""
        return np.concatenate([[0], np.cumsum(self.entries)[:-1]]).astype(np.int64)
