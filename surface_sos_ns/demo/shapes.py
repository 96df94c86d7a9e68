"""Smooth surfaces for the demo scene: grids, revolved profiles, swept tubes and rounded boxes.

All shapes are plain triangle meshes with one normal, one texture coordinate and one material per vertex or surface;
lengths are metres in the capture frame (z up).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with smooth normals, made of one material.

    vertices (V, 3) metres; faces (F, 3) vertex indices; normals (V, 3) unit, outward; uv (V, 2) texture coordinates.
    `object` names the thing that the surface belongs to, where it can be an object of a capture, and `part` the part of
    that; empty for other surfaces.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: str
    part: str = ""
    object: str = ""

    def moved(
        self, translation: tuple[float, float, float] | np.ndarray, rotation: np.ndarray | None = None
    ) -> Surface:
        """The surface rotated by a (3, 3) matrix about the origin, then translated."""
        turn = np.eye(3) if rotation is None else rotation
        return replace(
            self,
            vertices=self.vertices @ turn.T + np.asarray(translation, dtype=float),
            normals=self.normals @ turn.T,
        )


def rotation(axis: str, degrees: float) -> np.ndarray:
    """(3, 3) right-handed rotation about a coordinate axis ("x", "y" or "z")."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def smooth_path(points: np.ndarray | list, count: int) -> np.ndarray:
    """(count, D) points on a cubic spline through the given (P, D) points, evenly spaced along its length."""
    from scipy.interpolate import CubicSpline

    nodes = np.asarray(points, dtype=float)
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(nodes, axis=0), axis=1)))])
    spline = CubicSpline(knots, nodes)
    fine = spline(np.linspace(0, knots[-1], 40 * len(nodes)))
    return resample(fine, count)


def resample(points: np.ndarray | list, count: int) -> np.ndarray:
    """(count, D) points evenly spaced along the (P, D) polyline."""
    nodes = np.asarray(points, dtype=float)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, nodes[:, k]) for k in range(nodes.shape[1])], axis=1)


def grid_surface(points: np.ndarray, material: str, *, wrap: bool = False, closed: bool = False) -> Surface:
    """A surface from an (A, B, 3) grid of points; normals follow the right-hand rule of the two grid directions.

    `wrap`: the last column repeats the first (a tube), so that their normals are joined. `closed`: the surface encloses
    a volume, so that the normals can be turned outward.
    """
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    vertices = points.reshape(-1, 3).astype(float)
    corner = vertices[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    if closed and np.einsum("ij,ij->i", corner[:, 0], cross).sum() < 0:
        faces, cross = faces[:, ::-1], -cross
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], cross)
    grid_normals = normals.reshape(rows, columns, 3)
    if wrap:
        joined = grid_normals[:, 0] + grid_normals[:, -1]
        grid_normals[:, 0] = grid_normals[:, -1] = joined
    for row in (0, -1):  # a row that is one point (a pole) has one normal
        if np.ptp(points[row], axis=0).max() < 1e-9:
            grid_normals[row] = grid_normals[row].sum(axis=0)
    normals = grid_normals.reshape(-1, 3)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    keep = np.linalg.norm(cross, axis=1) > 1e-14
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    return Surface(vertices, faces[keep], normals, np.stack([u.ravel(), v.ravel()], axis=1), material)


def sheet(corner: tuple, along_u: tuple, along_v: tuple, spacing: float, material: str) -> Surface:
    """A flat rectangle from a corner and two edge vectors; its normal is along_u x along_v; uv runs 0..1 along them."""
    origin, du, dv = (np.asarray(x, dtype=float) for x in (corner, along_u, along_v))
    nu = max(2, int(np.ceil(np.linalg.norm(du) / spacing)) + 1)
    nv = max(2, int(np.ceil(np.linalg.norm(dv) / spacing)) + 1)
    u, v = np.linspace(0, 1, nu), np.linspace(0, 1, nv)
    points = origin + u[:, None, None] * du + v[None, :, None] * dv
    surface = grid_surface(points, material)
    grid_u, grid_v = np.meshgrid(u, v, indexing="ij")
    return replace(surface, uv=np.stack([grid_u.ravel(), grid_v.ravel()], axis=1))


def revolve(profile: np.ndarray | list, segments: int, material: str, *, closed: bool = True) -> Surface:
    """The (P, 2) profile of (radius, height) turned about the z axis; uv = (angle / 2 pi, length along the profile)."""
    nodes = np.asarray(profile, dtype=float)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    points = np.stack(
        [
            nodes[:, None, 0] * np.cos(angle),
            nodes[:, None, 0] * np.sin(angle),
            np.broadcast_to(nodes[:, None, 1], (len(nodes), segments + 1)),
        ],
        axis=-1,
    )
    return grid_surface(points, material, wrap=True, closed=closed)


def sweep(path: np.ndarray, radius: np.ndarray | float, segments: int, material: str, flatten: float = 1.0) -> Surface:
    """A tube along the (P, 3) path with the given radius per point and rounded ends.

    `flatten` scales the second cross-section axis (1 is round). The frame is carried along without twist.
    """
    path = np.asarray(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(path),)).copy()
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    normal = np.cross(tangent[0], helper)
    frames = []
    for t in tangent:
        normal = normal - t * np.dot(normal, t)
        normal = normal / np.linalg.norm(normal)
        frames.append((normal, np.cross(t, normal)))
    # Quarter-circle ends: extra rings beyond both end points.
    cap = np.radians([90, 65, 40, 18])
    start = [(path[0] - tangent[0] * radii[0] * np.sin(a), radii[0] * np.cos(a), frames[0]) for a in cap]
    middle = list(zip(path, radii, frames, strict=True))
    stop = [(path[-1] + tangent[-1] * radii[-1] * np.sin(a), radii[-1] * np.cos(a), frames[-1]) for a in cap[::-1]]
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    rings = [
        centre + r * (np.cos(angle)[:, None] * n + flatten * np.sin(angle)[:, None] * b)
        for centre, r, (n, b) in start + middle + stop
    ]
    return grid_surface(np.stack(rings), material, wrap=True, closed=True)


def rounded_box(size: tuple[float, float, float], radius: float, spacing: float, material: str | dict) -> list[Surface]:
    """A box about the origin with rounded edges: six patches, so that each side keeps its own texture coordinates.

    `material` is one name, or a mapping from "+x", "-x", "+y", "-y", "+z", "-z" (and "" for the rest) to names.
    """
    half = np.asarray(size, dtype=float) / 2
    patches = []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for sign in (1, -1):
            coordinates = []
            for k in (a, b):
                inner = half[k] - radius
                count = max(2, int(np.ceil(2 * inner / spacing)) + 1)
                bend = half[k] - radius * np.array([0.0, 0.4, 0.75])
                coordinates.append(np.concatenate([-bend, np.linspace(-inner, inner, count), bend[::-1]]))
            first, second = coordinates if sign > 0 else coordinates[::-1]
            points = np.zeros((len(first), len(second), 3))
            p, q = (a, b) if sign > 0 else (b, a)
            points[..., p], points[..., q], points[..., axis] = first[:, None], second[None, :], sign * half[axis]
            core = np.clip(points, -(half - radius), half - radius)
            outward = points - core
            outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
            side = ("+" if sign > 0 else "-") + "xyz"[axis]
            name = material if isinstance(material, str) else material.get(side, material.get("", ""))
            surface = grid_surface(core + radius * outward, name)
            # Texture: x/y of the side seen from outside, upright where the side is vertical.
            flat = points.reshape(-1, 3) / half
            if axis == 0:
                uv = np.stack([sign * flat[:, 1], flat[:, 2]], axis=1)
            elif axis == 1:
                uv = np.stack([-sign * flat[:, 0], flat[:, 2]], axis=1)
            else:
                uv = np.stack([flat[:, 0], sign * flat[:, 1]], axis=1)
            patches.append(replace(surface, normals=outward.reshape(-1, 3), uv=uv * 0.5 + 0.5))
    return patches


def blob(radii: tuple[float, float, float], rings: int, material: str) -> Surface:
    """An ellipsoid about the origin."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rings)
    surface = revolve(np.stack([np.cos(latitude), np.sin(latitude)], axis=1), 2 * rings, material)
    scale = np.asarray(radii, dtype=float)
    normals = surface.normals / scale
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return replace(surface, vertices=surface.vertices * scale, normals=normals)


def leaf(spine: np.ndarray, width: float, side: np.ndarray, material: str, thickness: float = 0.0015) -> Surface:
    """A curved leaf along the (P, 3) spine: a thin closed blade, widest at 40 % of its length, folded lengthwise."""
    along = np.linspace(0, 1, len(spine))
    profile = np.sin(np.pi * along**0.75) ** 0.8 * width / 2 + 1e-4
    side = side / np.linalg.norm(side)
    tangent = np.gradient(spine, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.cross(tangent, side)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    across = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    top = [side * x * profile[:, None] + up * (0.25 * abs(x) * profile[:, None] + thickness) for x in across]
    bottom = [side * x * profile[:, None] + up * (0.25 * abs(x) * profile[:, None] - thickness) for x in across[::-1]]
    rings = np.stack([spine + offset for offset in top + bottom + top[:1]], axis=1)
    return grid_surface(rings, material, wrap=True, closed=True)


def facing(surface: Surface, centre: np.ndarray, *, away: bool) -> Surface:
    """The surface with its normals pointing away from `centre` on average, or towards it."""
    is_away = np.einsum("ij,ij->i", surface.vertices - centre, surface.normals).sum() > 0
    if is_away == away:
        return surface
    return replace(surface, faces=surface.faces[:, ::-1], normals=-surface.normals)


def box(low: tuple, high: tuple, spacing: float, material: str | dict) -> list[Surface]:
    """An axis-aligned box with sharp edges; materials by side as in `rounded_box`."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    sides = {
        "+x": ((x1, y0, z0), (0, y1 - y0, 0), (0, 0, z1 - z0)),
        "-x": ((x0, y1, z0), (0, y0 - y1, 0), (0, 0, z1 - z0)),
        "+y": ((x1, y1, z0), (x0 - x1, 0, 0), (0, 0, z1 - z0)),
        "-y": ((x0, y0, z0), (x1 - x0, 0, 0), (0, 0, z1 - z0)),
        "+z": ((x0, y0, z1), (x1 - x0, 0, 0), (0, y1 - y0, 0)),
        "-z": ((x0, y1, z0), (x1 - x0, 0, 0), (0, y0 - y1, 0)),
    }
    result = []
    for side, (corner, u, v) in sides.items():
        name = material if isinstance(material, str) else material.get(side, material[""])
        result.append(sheet(corner, u, v, spacing, name))
    return result


def placed(parts: list[Surface], at: tuple | np.ndarray, turn: np.ndarray | None = None) -> list[Surface]:
    """All surfaces rotated by a (3, 3) matrix about the origin, then translated."""
    return [part.moved(at, turn) for part in parts]
