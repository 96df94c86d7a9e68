"""Meshes and points as files, in the capture's own frame and scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.utils.files import write_bytes
from surface_sos_ns.utils.mesh_points import points_on

if TYPE_CHECKING:
    import trimesh

__all__ = [
    "POINTS",
    "glb_file",
    "mesh_file",
    "textured_obj_files",
    "write_mesh",
    "write_points",
    "write_textured_obj",
]

COLOURS = ("red", "green", "blue")
LABELS = ("object", "part")
"""Properties of PLY files that are identities."""

POINTS = 50_000
"""Points on the surface for trainers that start from some."""

FAR_FROM_ORIGIN = 100.0
"""Distance from the origin, over the extent, from which on single precision does not place vertices well: that of map
coordinates."""


def write_mesh(mesh: trimesh.Trimesh, paths: Iterable[Path]) -> None:
    """Writes a mesh with its vertex colours to .ply, .obj and .glb files, each whole or not at all."""
    for path in paths:
        write_bytes(path, mesh_file(mesh, path.suffix[1:]))


def textured_obj_files(path: Path) -> list[Path]:
    """The files of a textured mesh in Wavefront's format: the mesh, its material and the texture."""
    return [path, path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")]


def write_textured_obj(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes a mesh with its texture as the files of `textured_obj_files`; the one that names the others last."""
    from trimesh.exchange.obj import export_obj

    mesh = mesh.copy(include_cache=True)  # with its normals
    texture = path.with_name(f"{path.stem}_texture.png")
    mesh.visual.material.name = texture.stem  # type: ignore[union-attr]
    content: Any = export_obj(mesh, include_normals=True, return_texture=True, mtl_name=f"{path.stem}.mtl")
    text, others = content
    for name, data in others.items():
        write_bytes(path.with_name(name), data)
    write_bytes(path, text.encode("utf-8"))


def mesh_file(mesh: trimesh.Trimesh, kind: str) -> bytes:
    """The content of a file with a mesh and its vertex colours.

    Args:
        mesh: any.
        kind: ply, obj or glb. A PLY file also has the vertex attributes `object` and `part`, where there are any.
    """
    if kind == "ply":
        labels = {name: np.asarray(mesh.vertex_attributes[name]) for name in LABELS if name in mesh.vertex_attributes}
        return _ply(mesh.vertices, _colours(mesh), mesh.faces, labels)
    if kind == "glb":
        return glb_file({"object": mesh})
    content: Any = mesh.export(file_type=kind)
    return content.encode("utf-8") if isinstance(content, str) else content


def glb_file(meshes: Mapping[str, trimesh.Trimesh]) -> bytes:
    """The content of a GLB file with a node for each mesh, by name, and their vertex colours or textures.

    GLB stores vertices in single precision; those far from the origin are stored around their middle, whose place is in
    the file's scene graph.
    """
    import trimesh

    bounds = np.concatenate([mesh.bounds for mesh in meshes.values()])
    middle = (bounds.min(axis=0) + bounds.max(axis=0)) / 2 if _is_far(bounds) else np.zeros(3)
    scene = trimesh.Scene()
    for name, mesh in meshes.items():
        near = mesh.copy(include_cache=True)  # with its normals
        near.apply_translation(-middle)
        place = trimesh.transformations.translation_matrix(middle)
        scene.add_geometry(near, node_name=name, geom_name=name, transform=place)
    content: Any = scene.export(file_type="glb")
    return bytes(content)


def write_points(mesh: trimesh.Trimesh, path: Path, count: int = POINTS) -> None:
    """Writes coloured points drawn evenly on a mesh's surface, as a .ply file; equal meshes give equal points.

    Of the mesh of several objects, each point has the property `object`.
    """
    found = points_on(mesh, count)
    labels = {} if found.objects is None else {"object": found.objects}
    write_bytes(path, _ply(found.points, found.colours, labels=labels))


def _colours(mesh: trimesh.Trimesh) -> np.ndarray:
    """(V, 3) uint8."""
    return np.asarray(mesh.visual.vertex_colors)[:, :3]  # type: ignore[union-attr]


def _is_far(points: np.ndarray) -> bool:
    return bool(np.abs(points).max() > FAR_FROM_ORIGIN * np.ptp(points, axis=0).max())


def _ply(
    points: np.ndarray,
    colours: np.ndarray,
    faces: np.ndarray | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """A binary PLY file of points (P, 3) with colours (P, 3) uint8, of faces (F, 3), and of identities of the points
    (P,) under 256 by the name of their property.

    Coordinates are in double precision where they have to be.
    """
    exact, labels = _is_far(points), labels or {}
    layout = [(axis, "<f8" if exact else "<f4") for axis in "xyz"] + [(name, "u1") for name in (*COLOURS, *labels)]
    rows = np.empty(len(points), dtype=layout)
    for index, axis in enumerate("xyz"):
        rows[axis] = points[:, index]
    for index, name in enumerate(COLOURS):
        rows[name] = colours[:, index]
    for name, values in labels.items():
        rows[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {'double' if exact else 'float'} {axis}" for axis in "xyz"]
    header += [f"property uchar {name}" for name in (*COLOURS, *labels)]
    body = rows.tobytes()
    if faces is not None:
        triangles = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, faces
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        body += triangles.tobytes()
    return "\n".join([*header, "end_header\n"]).encode() + body
