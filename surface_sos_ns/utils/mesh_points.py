"""Coloured points drawn evenly on a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import trimesh

__all__ = ["SurfacePoints", "points_on"]


class SurfacePoints(NamedTuple):
    """N points on a surface."""

    points: np.ndarray  # (N, 3) float64, in the mesh's frame
    colours: np.ndarray  # (N, 3) uint8
    objects: np.ndarray | None  # (N,) uint8, which of several objects each is on, from 1; None with one


def points_on(mesh: trimesh.Trimesh, count: int) -> SurfacePoints:
    """Points drawn evenly by area; equal meshes give equal points.

    Args:
        mesh: with colours at its vertices; with the vertex attribute `object` where it is of several objects.
        count: N.
    """
    import trimesh

    weights = np.random.default_rng(0).dirichlet((1, 1, 1), count)
    _, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    corners = mesh.faces[faces]
    points = np.einsum("pc,pcx->px", weights, mesh.vertices[corners])
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3]  # type: ignore[union-attr]
    shades = np.rint(np.einsum("pc,pcx->px", weights, colours[corners])).astype(np.uint8)
    objects = mesh.vertex_attributes.get("object")
    return SurfacePoints(
        points, shades, None if objects is None else np.asarray(objects)[corners[:, 0]].astype(np.uint8)
    )
