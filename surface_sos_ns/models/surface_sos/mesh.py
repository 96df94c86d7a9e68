"""The object's surface as a mesh: the zero level of FoCoR's SDF where the gate says object."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.object_grid import MIN_HULL_PROBABILITY, Membership, ObjectGrid
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.sampling.field_cache import cell_centres
from surface_sos_ns.texture.simplify import simplified
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:
    import trimesh


class MeshError(UserError):
    """The scene has no surface to extract; the message says why."""


class Cube(NamedTuple):
    """The cube over which a field is evaluated, object frame."""

    centre: Tensor  # (3,)
    half: float  # of its side


WHOLE = Cube(torch.zeros(3), 1.0)
"""The object cube [-1, 1]^3."""


def object_cube(scene: SurfaceSOS, identity: int | None = None) -> Cube:
    """The object cube [-1, 1]^3; of one of several objects the cube about its bounding box."""
    if identity is None:
        return WHOLE
    low, high = scene.object_grid.bounds(identity).cpu()
    return Cube((low + high) / 2, min(float((high - low).max()) / 2 + 2 * scene.cache.cell, 1.0))


def object_mesh(
    scene: SurfaceSOS,
    resolution: int = 192,
    colours: bool = False,
    identity: int | None = None,
    faces: int | None = None,
) -> trimesh.Trimesh:
    """The object's surface in the world frame: one closed piece, normals outwards; the zero level of `object_field`.

    Args:
        scene: a trained model.
        resolution: cells per axis of the grid over the object sphere's cube; over the object's own of one of several.
        colours: give the vertices colours, see `surface_colours`.
        identity: of one of several objects; None for all of them in one mesh: a piece each, and the vertices'
            attribute `object` (V,) int32 tells which.
        faces: at most so many triangles, of each object; None for as many as the grid gives.

    Raises:
        MeshError: no point belongs to the object, or the foreground is a density.
    """
    if scene.objects and identity is None:
        return _joined(scene, resolution, colours, faces)
    cube = object_cube(scene, identity)
    mesh = surface_mesh(object_field(scene, resolution, identity, cube), scene.frame, cube)
    if faces is not None:
        mesh = simplified(mesh, faces)
    if colours:
        import trimesh

        seen = surface_colours(scene, mesh.vertices)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.rint(seen * 255).astype(np.uint8))
    return mesh


def _joined(scene: SurfaceSOS, resolution: int, colours: bool, faces: int | None) -> trimesh.Trimesh:
    """The meshes of several objects as one; those that were not found are left out.

    Raises:
        MeshError: none was found, or the foreground is a density.
    """
    import trimesh

    found, reason = [], None
    for identity in range(1, len(scene.objects) + 1):
        try:
            mesh = object_mesh(scene, resolution, colours, identity, faces)
        except MeshError as error:
            reason = error
            continue
        mesh.vertex_attributes["object"] = np.full(len(mesh.vertices), identity, np.int32)
        found.append(mesh)
    if not found:
        assert reason is not None
        raise reason
    joined = trimesh.util.concatenate(found)
    assert isinstance(joined, trimesh.Trimesh)
    joined.vertex_attributes["object"] = np.concatenate([mesh.vertex_attributes["object"] for mesh in found])
    return joined


def object_field(scene: SurfaceSOS, resolution: int, identity: int | None = None, cube: Cube = WHOLE) -> np.ndarray:
    """A field (R, R, R) over a cube, negative inside the object; at the centres of the cells, [x, y, z].

    The solid is an intersection: inside FoCoR, where the gate is above 1/2, in the voted hull, and in the object
    sphere; for one of several objects also where its label's logit is the largest. Each is converted to a signed
    distance, exact to first order near its boundary; their maximum is taken.

    Args:
        scene: a trained model.
        resolution: cells per axis R.
        identity: of one of several objects; None for all of them.
        cube: where; the object cube by default.

    Raises:
        MeshError: the foreground is a density.
    """
    if scene.config.foreground == "density":
        raise MeshError("the foreground is a density in this configuration: it has no surface")
    found = _on_grid(scene.object_grid, resolution, cube)
    cell, shape = 2.0 * cube.half / resolution, [resolution] * 3
    distance, split = (values.reshape(shape).numpy() for values in (found.distance, found.split))
    sphere = _centres(torch.arange(resolution**3), resolution, cube).norm(dim=-1).reshape(shape).numpy() - 1.0
    field = np.maximum.reduce([distance, _distance_to_zero(-split, cell), sphere])
    if found.hull is not None:
        field = np.maximum(field, _distance_to_zero(MIN_HULL_PROBABILITY - found.hull.reshape(shape).numpy(), cell))
    if identity is not None:
        lead = _lead_on_grid(scene, resolution, cube, identity).reshape(shape).numpy()
        field = np.maximum(field, _distance_to_zero(-lead, cell))
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


def surface_mesh(field: np.ndarray, frame: ObjectFrame, cube: Cube | None = None) -> trimesh.Trimesh:
    """The zero level of a field over a cube as a closed mesh, normals outwards; only the largest piece.

    Args:
        field: (R, R, R) negative inside, indexed [x, y, z], at the centres of the cells that tile the cube.
        frame: of the object.
        cube: the object cube by default.

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
    if cube is not None:
        points = points * cube.half + cube.centre.numpy()
    mesh = trimesh.Trimesh(frame.to_world(torch.as_tensor(points)).cpu().numpy(), faces, process=False)
    pieces = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
    mesh.update_faces(pieces == np.bincount(pieces, weights=mesh.area_faces).argmax())
    mesh.remove_unreferenced_vertices()
    return mesh


@torch.no_grad()
def _on_grid(grid: ObjectGrid, resolution: int, cube: Cube) -> Membership:
    """Membership at the resolution^3 cell centres of a cube, x slowest, on the CPU."""
    found = []
    for index in torch.arange(resolution**3, device=grid.hull.device).split(grid.ops.chunk_points):
        part = grid.canonical_membership(_centres(index, resolution, cube))
        found.append([None if values is None else values.cpu() for values in part])
    distance, split, hull = zip(*found, strict=True)
    return Membership(torch.cat(distance), torch.cat(split), None if hull[0] is None else torch.cat(hull))


@torch.no_grad()
def _lead_on_grid(scene: SurfaceSOS, resolution: int, cube: Cube, identity: int) -> Tensor:
    """(R^3,) `LabelHead.lead` of an object at the cell centres of a cube, x slowest, on the CPU."""
    every = torch.arange(resolution**3, device=scene.object_grid.hull.device).split(scene.ops.chunk_points)
    return torch.cat([scene.label.lead(_centres(index, resolution, cube), identity).cpu() for index in every])


def _centres(index: Tensor, resolution: int, cube: Cube) -> Tensor:
    """Centres (I, 3), object frame, of cells of a cube, by their flat index (I,), x slowest."""
    return cell_centres(index, resolution, cube.half) + cube.centre.to(index.device)


def _distance_to_zero(values: np.ndarray, cell: float) -> np.ndarray:
    """Signed distance (R, R, R) to the zero level of a field, to first order: value over slope, clipped to [-1, 1]."""
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(values, cell)))
    return np.clip(values / np.maximum(slope, 1e-6), -1.0, 1.0)
