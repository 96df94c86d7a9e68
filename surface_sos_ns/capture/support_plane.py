"""The support plane: the table, floor or wall that the object stands on or hangs at.

Silhouettes do not bound the object on that side, so the visual hull reaches through the plane; it is cut off there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from surface_sos_ns.capture.hull import VisualHull, voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere

__all__ = ["SupportPlane", "cut_at_plane", "find_support_plane"]


@dataclass(frozen=True)
class SupportPlane:
    """The plane ``normal @ x = offset``, world frame.

    Attributes:
        normal: (3,) unit normal, pointing to the cameras' side.
        offset: world units.
        tolerance: inlier distance it was fitted with, world units.
    """

    normal: np.ndarray
    offset: float
    tolerance: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """(P,) signed distance of points (P, 3) to the plane, world units, positive on the cameras' side."""
        return points @ self.normal - self.offset


def find_support_plane(cameras: np.ndarray, points: np.ndarray, sphere: ObjectSphere) -> SupportPlane | None:
    """Fits the support plane by RANSAC, then by least squares to its inliers.

    A candidate scores by the fraction of the points around the object (within 3 radii) that are inliers and lie outside
    0.7 radii, less the fraction of the points below it. At least 90 % of the cameras have to be above it.

    Args:
        cameras: (V, 3) camera centres, world frame.
        points: (P, 3) points on visible surfaces, world frame.
        sphere: a rough bounding sphere of the object, world frame.

    Returns:
        The plane; None with fewer than 60 points around the object, or if no candidate scores 0.08.
    """
    distance = np.linalg.norm(points - sphere.centre, axis=1) / sphere.radius
    candidates = points[distance < 3.0]
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
        inlier = np.abs(height) < tolerance
        below = (height < -2 * tolerance).mean()
        # Inliers away from the object tell the support plane from a flat side of the object.
        surrounding = np.linalg.norm(candidates[inlier] - sphere.centre, axis=1) > 0.7 * sphere.radius
        score = float(surrounding.sum() / len(candidates) - 1.0 * below)
        if best is None or score > best[0]:
            best = (score, normal, offset)
    if best is None or best[0] < 0.08:
        return None
    _, normal, offset = best
    for _ in range(3):
        inlier = np.abs(candidates @ normal - offset) < tolerance
        middle = candidates[inlier].mean(axis=0)
        refined = np.linalg.svd(candidates[inlier] - middle, full_matrices=False)[2][2]
        normal = refined if refined @ normal > 0 else -refined
        offset = float(normal @ middle)
    return SupportPlane(normal, offset, tolerance)


def cut_at_plane(hull: VisualHull, sphere: ObjectSphere, plane: SupportPlane | None, lowest: float = 0.0) -> VisualHull:
    """The hull without its voxels below a plane.

    Args:
        hull: in the object frame of ``sphere``.
        sphere: world frame.
        plane: world frame, or None.
        lowest: height above the plane (world units; negative is below it) down to which voxels are kept.

    Returns:
        A new hull; ``hull`` itself if there is no plane, or no voxel of 0.5 or more would be left.
    """
    if plane is None:
        return hull
    axis = voxel_centres(hull.resolution) * sphere.radius
    terms = [(axis + sphere.centre[i]) * plane.normal[i] for i in range(3)]  # of the dot product normal @ x
    height = terms[0][:, None, None] + terms[1][None, :, None] + terms[2][None, None, :] - plane.offset
    cut = np.where(height > lowest, hull.probability, 0).astype(np.float32)
    return replace(hull, probability=cut) if (cut >= 0.5).any() else hull
