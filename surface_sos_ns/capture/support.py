"""What carries the object: a table, a floor, a wall. No silhouette says where the object ends towards it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from surface_sos_ns.capture.hull import VoteGrid, voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere


@dataclass(frozen=True)
class SupportPlane:
    """The plane the object stands on or hangs at: ``normal @ x = offset``, the normal points to the cameras."""

    normal: np.ndarray
    offset: float
    tolerance: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """(P,) signed distance of points (P, 3) from the plane, positive on the cameras' side, world units."""
        return points @ self.normal - self.offset


def find_support_plane(cameras: np.ndarray, points: np.ndarray, sphere: ObjectSphere) -> SupportPlane | None:
    """RANSAC for the plane that carries the object.

    The plane has to hold a fair share of the points around the object, spread beyond the object, with all the cameras
    and next to all points on one side.

    Args:
        cameras: (V, 3) their centres, world frame.
        points: (P, 3) on what the cameras see, world frame.
        sphere: where the object roughly is.

    Returns:
        The plane, or None where there is none such.
    """
    away = np.linalg.norm(points - sphere.centre, axis=1) / sphere.radius
    candidates = points[away < 3.0]
    if len(candidates) < 60:
        return None
    generator = np.random.default_rng(0)
    if len(candidates) > 4000:
        candidates = candidates[np.sort(generator.choice(len(candidates), 4000, replace=False))]
    tolerance = 0.05 * sphere.radius
    best: tuple[float, np.ndarray, float] | None = None
    for _ in range(800):
        a, b, c = candidates[generator.choice(len(candidates), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length < 1e-3 * sphere.radius**2:
            continue
        normal = normal / length
        offset = float(normal @ a)
        if (cameras @ normal - offset).mean() < 0:
            normal, offset = -normal, -offset
        if (cameras @ normal > offset).mean() < 0.9:
            continue
        height = candidates @ normal - offset
        on_plane = np.abs(height) < tolerance
        below = (height < -2 * tolerance).mean()
        # Far inliers make it a support, not a flat side of the object.
        spread = np.linalg.norm(candidates[on_plane] - sphere.centre, axis=1) > 0.7 * sphere.radius
        score = float(spread.sum() / len(candidates) - 1.0 * below)
        if best is None or score > best[0]:
            best = (score, normal, offset)
    if best is None or best[0] < 0.08:
        return None
    _, normal, offset = best
    for _ in range(3):
        near_plane = np.abs(candidates @ normal - offset) < tolerance
        middle = candidates[near_plane].mean(axis=0)
        refined = np.linalg.svd(candidates[near_plane] - middle, full_matrices=False)[2][2]
        normal = refined if refined @ normal > 0 else -refined
        offset = float(normal @ middle)
    return SupportPlane(normal, offset, tolerance)


def above(hull: VoteGrid, sphere: ObjectSphere, plane: SupportPlane | None, lowest: float = 0.0) -> VoteGrid:
    """The hull without what lies beneath a plane; the hull itself where there is no plane, or nothing were left.

    Args:
        hull: over the cube around the sphere.
        sphere: world frame.
        plane: world frame.
        lowest: height over the plane, world units, down to which the hull is kept.
    """
    if plane is None:
        return hull
    axis = voxel_centres(hull.resolution) * sphere.radius
    place = [(axis + sphere.centre[i]) * plane.normal[i] for i in range(3)]
    height = place[0][:, None, None] + place[1][None, :, None] + place[2][None, None, :] - plane.offset
    cut = np.where(height > lowest, hull.probability, 0).astype(np.float32)
    return replace(hull, probability=cut) if (cut >= 0.5).any() else hull
