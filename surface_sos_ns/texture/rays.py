"""Rays against a mesh, by Embree."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Hits", "RayCaster"]


class Hits(NamedTuple):
    """Where R rays first meet the mesh."""

    distance: np.ndarray  # (R,) float32, in lengths of the direction; inf where a ray meets nothing
    face: np.ndarray  # (R,) int64; -1 where a ray meets nothing
    weights: np.ndarray  # (R, 3) float32, barycentric coordinates in the face


class RayCaster:
    """A mesh that rays are cast at.

    Args:
        vertices: (V, 3), coordinates about 1 or pixels: they are stored in single precision.
        faces: (F, 3) int.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        import open3d

        self._open3d: Any = open3d
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(self._tensor(vertices, np.float32), self._tensor(faces, np.uint32))

    def _tensor(self, values: np.ndarray, kind: type) -> Any:
        return self._open3d.core.Tensor(np.ascontiguousarray(values, kind))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """The first hits of rays with origins (R, 3) and directions (R, 3)."""
        found = self._scene.cast_rays(self._tensor(np.concatenate([origins, directions], axis=1), np.float32))
        face = found["primitive_ids"].numpy().astype(np.int64)
        second, third = found["primitive_uvs"].numpy().T
        return Hits(
            found["t_hit"].numpy(),
            np.where(face == self._scene.INVALID_ID, -1, face),
            np.stack([1 - second - third, second, third], axis=1),
        )
