"""A mesh cut into charts that lie side by side in a square, and the texels of an image over that square."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from surface_sos_ns.texture.rays import RayCaster

if TYPE_CHECKING:
    import trimesh

__all__ = ["Atlas", "Texels", "texels_of", "unwrapped"]

PADDING = 4
"""Texels between two charts, so that neither filtering nor a few levels of mipmaps mix their colours."""


class Atlas(NamedTuple):
    """A mesh with texture coordinates: vertices at the borders of charts occur once for each chart."""

    source: np.ndarray  # (V,) int, the vertex of the mesh that each is
    faces: np.ndarray  # (F, 3) int, in the order of the mesh's faces
    uv: np.ndarray  # (V, 2) float64, 0 to 1, u to the right, v upwards


class Texels(NamedTuple):
    """The T texels of an image whose middles are in a face."""

    row: np.ndarray  # (T,) int
    column: np.ndarray  # (T,) int
    face: np.ndarray  # (T,) int
    weights: np.ndarray  # (T, 3) float32, barycentric coordinates in the face

    def interpolated(self, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(T, C) values of vertices (V, C), between the corners of faces (F, 3)."""
        corners = faces[self.face]
        return np.asarray(sum(self.weights[:, [corner]] * values[corners[:, corner]] for corner in range(3)))


def unwrapped(mesh: trimesh.Trimesh, size: int) -> Atlas:
    """Texture coordinates of a mesh, by xatlas.

    Args:
        mesh: any.
        size: texels along each side of the texture, for the distance between charts.
    """
    import xatlas

    low, extent = mesh.bounds[0], float(np.ptp(mesh.bounds, axis=0).max())
    atlas = xatlas.Atlas()
    atlas.add_mesh(((mesh.vertices - low) / extent).astype(np.float32), mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    atlas.generate(xatlas.ChartOptions(), packing)
    source, faces, uv = atlas[0]
    # It fits the charts into a rectangle; equal scale along both axes keeps texels square.
    uv = uv.astype(np.float64) * (atlas.width, atlas.height) / max(atlas.width, atlas.height)
    return Atlas(source.astype(np.int64), faces.astype(np.int64), np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))


def texels_of(atlas: Atlas, size: int) -> Texels:
    """The texels of a square image over the atlas; row 0 is at the top, v = 1."""
    places = np.stack([atlas.uv[:, 0] * size, (1 - atlas.uv[:, 1]) * size, np.zeros(len(atlas.uv))], axis=1)
    column, row = (side.ravel() for side in np.meshgrid(np.arange(size), np.arange(size)))
    above = np.stack([column + 0.5, row + 0.5, np.ones(size * size)], axis=1)
    hits = RayCaster(places, atlas.faces).cast(above, np.broadcast_to([0.0, 0.0, -1.0], above.shape))
    there = hits.face >= 0
    return Texels(row[there], column[there], hits.face[there], hits.weights[there])
