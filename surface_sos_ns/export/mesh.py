"""The object's mesh as files, in the capture's own frame and scale."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.utils.files import write_bytes

if TYPE_CHECKING:
    import trimesh

__all__ = ["POINTS", "write_mesh", "write_points"]

POINTS = 50_000
"""Points on the surface for trainers that start from some."""


def write_mesh(mesh: trimesh.Trimesh, paths: Iterable[Path]) -> None:
    """Writes a mesh with its vertex colours to .ply, .obj and .glb files, each whole or not at all."""
    for path in paths:
        content: Any = mesh.export(file_type=path.suffix[1:])
        write_bytes(path, content.encode("utf-8") if isinstance(content, str) else content)


def write_points(mesh: trimesh.Trimesh, path: Path, count: int = POINTS) -> None:
    """Writes coloured points drawn evenly on a mesh's surface, as a .ply file; equal meshes give equal points."""
    import trimesh

    weights = np.random.default_rng(0).dirichlet((1, 1, 1), count)
    _, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    corners = mesh.faces[faces]
    colours = np.asarray(mesh.visual.vertex_colors)[corners, :3]  # type: ignore[union-attr]
    points = np.einsum("pc,pcx->px", weights, mesh.vertices[corners])
    shades = np.rint(np.einsum("pc,pcx->px", weights, colours)).astype(np.uint8)
    write_bytes(path, trimesh.PointCloud(points, colors=shades).export(file_type="ply"))
