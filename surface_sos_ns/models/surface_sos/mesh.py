"""The object's surface as a mesh: the zero level of FoCoR's SDF where the gate says object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.object_grid import MIN_HULL_PROBABILITY, Membership, ObjectGrid
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.sampling.field_cache import cell_centres, grid_centres
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:
    import trimesh


class MeshError(UserError):
    """The scene has no surface to extract; the message says why."""


def object_mesh(scene: SurfaceSOS, resolution: int = 192, colours: bool = False) -> trimesh.Trimesh:
    """The object's surface in the world frame: one closed piece, normals outwards; the zero level of `object_field`.

    Args:
        scene: a trained model.
        resolution: cells per axis of the grid over the object sphere's cube.
        colours: give the vertices colours, see `surface_colours`.

    Raises:
        MeshError: no point belongs to the object, or the foreground is a density.
    """
    mesh = surface_mesh(object_field(scene, resolution), scene.frame)
    if colours:
        import trimesh

        seen = surface_colours(scene, mesh.vertices)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.rint(seen * 255).astype(np.uint8))
    return mesh


def object_field(scene: SurfaceSOS, resolution: int) -> np.ndarray:
    """A field (R, R, R) over the object cube, negative inside the object; at the centres of the cells, [x, y, z].

    The solid is an intersection: inside FoCoR, where the gate is above 1/2, in the voted hull, and in the object
    sphere. Each is converted to a signed distance, exact to first order near its boundary; their maximum is taken.

    Args:
        scene: a trained model.
        resolution: cells per axis R.

    Raises:
        MeshError: the foreground is a density.
    """
    if scene.config.foreground == "density":
        raise MeshError("the foreground is a density in this configuration: it has no surface")
    found = _on_grid(scene.object_grid, resolution)
    cell, shape = 2.0 / resolution, [resolution] * 3
    distance, split = (values.reshape(shape).numpy() for values in (found.distance, found.split))
    sphere = grid_centres(resolution, 1.0).norm(dim=-1).reshape(shape).numpy() - 1.0
    field = np.maximum.reduce([distance, _distance_to_zero(-split, cell), sphere])
    if found.hull is not None:
        field = np.maximum(field, _distance_to_zero(MIN_HULL_PROBABILITY - found.hull.reshape(shape).numpy(), cell))
    return field


@torch.no_grad()
def surface_colours(scene: SurfaceSOS, points: np.ndarray) -> np.ndarray:
    """Colours (P, 3), float32 in [0, 1], of surface points (P, 3), world frame, viewed against the normal.

    Exposure and white balance are the mean of the training photos.
    """
    positions = scene.frame.points(torch.as_tensor(points, dtype=torch.float32))
    parts = positions.split(scene.ops.chunk_points)
    seen = [scene.foreground.seen_from_outside(part).rgb.clamp(0, 1).cpu() for part in parts]
    return torch.cat(seen).numpy()


def surface_mesh(field: np.ndarray, frame: ObjectFrame) -> trimesh.Trimesh:
    """The zero level of a field over the object cube as a closed mesh, normals outwards; only the largest piece.

    Args:
        field: (R, R, R) negative inside, indexed [x, y, z], at the centres of the cells that tile [-1, 1]^3.
        frame: of the object.

    Raises:
        MeshError: the field is negative nowhere.
    """
    import trimesh
    from skimage.measure import marching_cubes

    if not (field < 0).any():
        raise MeshError("no point of the object sphere lies inside the object: there is no surface")
    cell = 2.0 / field.shape[0]
    closed = np.pad(field.astype(np.float32), 1, constant_values=cell)  # closes the surface at the faces of the cube
    vertices, faces, _, _ = marching_cubes(closed, 0.0)
    points = (vertices - 0.5) * cell - 1.0  # the first of the padded cell centres is half a cell outside the cube
    mesh = trimesh.Trimesh(frame.to_world(torch.as_tensor(points)).cpu().numpy(), faces, process=False)
    pieces = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
    mesh.update_faces(pieces == np.bincount(pieces, weights=mesh.area_faces).argmax())
    mesh.remove_unreferenced_vertices()
    return mesh


@torch.no_grad()
def _on_grid(grid: ObjectGrid, resolution: int) -> Membership:
    """Membership at the resolution^3 cell centres of the object cube, x slowest, on the CPU."""
    found = []
    for index in torch.arange(resolution**3, device=grid.hull.device).split(grid.ops.chunk_points):
        part = grid.canonical_membership(cell_centres(index, resolution, 1.0))
        found.append([None if values is None else values.cpu() for values in part])
    distance, split, hull = zip(*found, strict=True)
    return Membership(torch.cat(distance), torch.cat(split), None if hull[0] is None else torch.cat(hull))


def _distance_to_zero(values: np.ndarray, cell: float) -> np.ndarray:
    """Signed distance (R, R, R) to the zero level of a field, to first order: value over slope, clipped to [-1, 1]."""
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(values, cell)))
    return np.clip(values / np.maximum(slope, 1e-6), -1.0, 1.0)
