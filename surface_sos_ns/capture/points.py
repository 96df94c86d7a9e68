"""Sparse points of a capture: positions, colours and tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SparsePoints"]


@dataclass(frozen=True)
class SparsePoints:
    """P points triangulated from N photos, as structure from motion gives them.

    Attributes:
        xyz: (P, 3) float64, positions; the frame and its units are the caller's.
        rgb: (P, 3) uint8, colours.
        track_length: (P,) int, number of photos a point was triangulated from; 0 where unknown.
        visibility: (P, N) bool, whether photo n is in the track of point p; None where unknown.

    Raises:
        ValueError: the arrays have different numbers of rows.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    track_length: np.ndarray
    visibility: np.ndarray | None = None

    def __post_init__(self) -> None:
        xyz = np.asarray(self.xyz, dtype=np.float64).reshape(-1, 3)
        count = len(xyz)
        object.__setattr__(self, "xyz", xyz)
        object.__setattr__(self, "rgb", np.asarray(self.rgb, dtype=np.uint8).reshape(-1, 3))
        object.__setattr__(self, "track_length", np.asarray(self.track_length, dtype=np.int64).reshape(-1))
        lengths = [count, len(self.rgb), len(self.track_length)]
        if self.visibility is not None:
            object.__setattr__(self, "visibility", np.asarray(self.visibility, dtype=bool))
            lengths.append(len(self.visibility))
        if len(set(lengths)) != 1:
            raise ValueError(
                f"Sparse points have {lengths} rows of xyz, rgb, track_length (and visibility); expected equal numbers."
            )

    def __len__(self) -> int:
        return len(self.xyz)
