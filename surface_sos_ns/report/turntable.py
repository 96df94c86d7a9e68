"""The object's mesh from all around: small shaded pictures in one, to be turned on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from surface_sos_ns.utils.identity_colours import identity_bytes

if TYPE_CHECKING:
    import trimesh

__all__ = ["COLUMNS", "MARGIN", "Turntable", "turntable"]

FRAMES, SIDE, ELEVATION = 24, 240, 18.0  # pictures of a turn, pixels along a side, degrees above the horizon
COLUMNS = 6  # frames side by side in a row
MARGIN = 1.04  # half a picture's side, in radii of the sphere about the mesh
LIGHT = np.array([-0.35, 0.45, 0.82])  # towards the light: from the left, above, and the viewer


@dataclass(frozen=True)
class Turntable:
    """Pictures of a mesh turned about the vertical, frame after frame, `COLUMNS` in a row.

    Attributes:
        frames: how many.
        coloured: (rows * S, COLUMNS * S, 4) uint8, the surface's colours, lit; transparent beside the object.
        plain: the same in grey, which shows the shape alone.
        vertices, faces: of the mesh.
        extent: (3,) sides of its bounding box, in the mesh's own units and axes.
        by_object: as `coloured`, each of several objects in the colour of its identity; None with one.
    """

    frames: int
    coloured: np.ndarray
    plain: np.ndarray
    vertices: int
    faces: int
    extent: np.ndarray
    by_object: np.ndarray | None = None


def turntable(
    mesh: trimesh.Trimesh, up: np.ndarray, frames: int = FRAMES, side: int = SIDE, elevation: float = ELEVATION
) -> Turntable:
    """Pictures of a mesh from all around, orthographic.

    Args:
        mesh: with colours at its vertices or without; of several objects with their identities, the attribute `object`.
        up: (3,) what is up, in the mesh's frame.
        frames: positions in one turn.
        side: of a picture in pixels.
        elevation: of the camera above the horizon, degrees.

    Raises:
        ImportError: embreex is not installed, and rays in Python would take hours.
    """
    looks = [np.asarray(mesh.visual.vertex_colors)[:, :3], None]  # type: ignore[union-attr]
    objects = mesh.vertex_attributes.get("object")
    if objects is not None:
        looks.append(identity_bytes(int(np.max(objects)))[np.asarray(objects) - 1])
    shaded = [_shaded(mesh, hit, side, looks) for hit in _hits(mesh, up, frames, 2 * side, elevation)]
    coloured, plain, *by_object = (_side_by_side(list(pictures)) for pictures in zip(*shaded, strict=True))
    size = len(mesh.vertices), len(mesh.faces), np.asarray(mesh.extents)
    return Turntable(frames, coloured, plain, *size, by_object[0] if by_object else None)


@dataclass(frozen=True)
class _Hit:
    """Where the rays of a picture meet the mesh, row by row: faces (P,), -1 beside it; weights of the hit faces'
    corners (H, 3); and the camera's axes (3, 3) in rows: right, up, backwards."""

    face: np.ndarray
    weights: np.ndarray
    axes: np.ndarray


def _half_side(mesh: trimesh.Trimesh) -> float:
    """Half a picture's side in the mesh's units: all of it stays in sight while it turns."""
    return MARGIN * float(np.linalg.norm(mesh.vertices - mesh.bounds.mean(axis=0), axis=1).max())


def _hits(mesh: trimesh.Trimesh, up: np.ndarray, frames: int, side: int, elevation: float):  # type: ignore[no-untyped-def]
    """The `_Hit` of each frame."""
    from trimesh.ray.ray_pyembree import RayMeshIntersector
    from trimesh.triangles import points_to_barycentric

    caster = RayMeshIntersector(mesh)
    half_side, middle = _half_side(mesh), mesh.bounds.mean(axis=0)
    vertical = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    first = np.cross(vertical, np.eye(3)[np.abs(vertical).argmin()])
    first /= np.linalg.norm(first)
    second = np.cross(vertical, first)
    tilt = np.radians(elevation)
    steps = ((np.arange(side) + 0.5) / side * 2 - 1) * half_side
    for turn in np.arange(frames) * (2 * np.pi / frames):
        outwards = np.cos(turn) * first + np.sin(turn) * second
        back = np.cos(tilt) * outwards + np.sin(tilt) * vertical
        right = np.cross(vertical, outwards)
        axes = np.stack([right, np.cross(back, right), back])
        down, across = np.meshgrid(-steps, steps, indexing="ij")
        origins = middle + 2 * half_side * back + across.reshape(-1, 1) * right + down.reshape(-1, 1) * axes[1]
        face = caster.intersects_first(origins, np.broadcast_to(-back, origins.shape))
        seen = face >= 0
        triangles = mesh.triangles[face[seen]]
        normals = mesh.face_normals[face[seen]]
        # Distance along the ray to the plane of the face; for a face seen edge on the slope is kept from 0.
        slope = -(normals @ back)
        slope[np.abs(slope) < 1e-9] = -1e-9
        distance = ((triangles[:, 0] - origins[seen]) * normals).sum(1) / slope
        weights = points_to_barycentric(triangles, origins[seen] - distance[:, None] * back)
        yield _Hit(face, np.nan_to_num(weights, nan=1 / 3).clip(0, 1), axes)


def _shaded(mesh: trimesh.Trimesh, hit: _Hit, side: int, looks: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """(side, side, 4) uint8 each, of rays cast at twice that size: in colours (V, 3) of the vertices; None: in grey."""
    seen = hit.face >= 0
    corners = mesh.faces[hit.face[seen]]
    normal = (mesh.vertex_normals[corners] * hit.weights[..., None]).sum(axis=1) @ hit.axes.T
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-9)
    lit = 0.42 + 0.58 * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)[:, None]

    def shade(colours: np.ndarray | None) -> np.ndarray:
        if colours is None:
            return 225 * lit
        # Colours from photos contain shading already, so they are shaded less than the grey shape.
        return (colours[corners] * hit.weights[..., None]).sum(axis=1) * (0.45 + 0.6 * lit)

    return [_picture(seen, shade(colours), side) for colours in looks]


def _picture(seen: np.ndarray, colour: np.ndarray, side: int) -> np.ndarray:
    """Four rays a pixel, averaged; colours over the rays that hit."""
    full = np.zeros((len(seen), 4), np.float32)
    full[seen, :3], full[seen, 3] = np.clip(colour, 0, 255), 255
    small = cv2.resize(full.reshape(2 * side, 2 * side, 4), (side, side), interpolation=cv2.INTER_AREA)
    colours = small[..., :3] / np.maximum(small[..., 3:] / 255, 1e-6)
    return np.rint(np.dstack([colours, small[..., 3]]).clip(0, 255)).astype(np.uint8)


def _side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of `COLUMNS`; what is left of the last row is empty."""
    side = len(pictures[0])
    rows = -(-len(pictures) // COLUMNS)
    joined = np.zeros((rows * side, COLUMNS * side, pictures[0].shape[2]), np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        joined[row * side : (row + 1) * side, column * side : (column + 1) * side] = picture
    return joined
