"""Meshes with fewer faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import trimesh

__all__ = ["simplified"]


def simplified(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """The mesh with at most so many faces, by quadric error decimation (Garland and Heckbert 1997).

    Args:
        mesh: its vertices' colours and attributes are left behind.
        faces: how many; a mesh with fewer is returned as it is.
    """
    if len(mesh.faces) <= faces:
        return mesh
    import open3d
    import trimesh

    middle = mesh.vertices.mean(axis=0)  # so that map coordinates keep their precision
    full = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices - middle), open3d.utility.Vector3iVector(mesh.faces)
    )
    fewer = full.simplify_quadric_decimation(faces)
    return trimesh.Trimesh(np.asarray(fewer.vertices) + middle, np.asarray(fewer.triangles), process=False)
