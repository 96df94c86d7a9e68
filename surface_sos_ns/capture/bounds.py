"""The object's bounding sphere, which defines the object frame. All lengths are in world units.

nerfstudio's data parser normalises the cameras of a capture, not the object. So the object is located from coarse masks
if there are any, else from the sparse points around the point closest to all optical axes, else from the axes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.cut_off import mostly_whole
from surface_sos_ns.capture.cut_off_bounds import FARTHEST, sphere_of_cut_off
from surface_sos_ns.capture.hull import dominant_component, voxel_centres
from surface_sos_ns.capture.hull_voting import binary_masks, vote_hull
from surface_sos_ns.capture.mask_centre import (
    core_of_masks,
    direction_spread,
    pixel_reach,
    points_in_masks,
    silhouette_radius,
    with_pixels,
)
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:
    from surface_sos_ns.capture.points import SparsePoints

__all__ = ["RADIUS_MARGIN", "closest_point_to_axes", "find_object_sphere"]

RADIUS_MARGIN = 1.2
"""Radius of the bounding sphere over the distance of the object's farthest part from its centre."""

FORWARD_FACING_SPREAD = 0.01
"""Captures whose optical axes spread less are forward-facing; mean squared sine, about 6 degrees."""

NARROW_SPREAD = 0.1
"""If the rays from the cameras to the object spread less, silhouettes alone leave the hull too long in depth
(`direction_spread`)."""

MIN_SCENE_POINTS = 30
"""Fewer sparse points in the whole scene are ignored."""

SEVERAL_SIZE = 200
"""Longer side, in pixels, of the masks in which several objects are placed."""
SEVERAL_LEVEL = 0.6
"""Fraction of the votes that a voxel of one of several objects needs: each may be missing from some masks."""
SMALLEST_PIECE = 4
"""Voxels of the smallest piece, of 64^3, that counts as an object."""


def find_object_sphere(
    views: Views,
    masks: Sequence[np.ndarray | None] | None = None,
    points: SparsePoints | None = None,
    object_point: np.ndarray | None = None,
    several: bool = False,
) -> ObjectSphere:
    """The bounding sphere of the object, or of several objects.

    With masks, rays through the centroids of the masks' components are intersected in pairs, the intersection that most
    masks cover is the object's core, and a visual hull voted around it gives the extent. Without masks, the sphere is
    the dense cluster of sparse points around the point closest to all optical axes; in forward-facing captures, the
    nearest cluster of the points that are central in the photos. Without points, the optical axes and the field of view
    decide.

    Args:
        views: N views, world frame.
        masks: N masks (H, W), bool or 0..1, None where a view has none; or None without masks.
        points: sparse points, world frame, or None.
        object_point: (3,) a point on or in the object that the user gave, world frame, or None.
        several: whether the masks show several objects, which may be apart. Then the sphere holds all of them, and
            points are not looked at.

    Raises:
        CaptureError: fewer than two views; cameras that see nothing in common; masks that agree on no point in space.
        ValueError: masks and views do not match in number or size.
    """
    if len(views) < 2:
        raise CaptureError(
            f"The capture has {len(views)} view(s); finding an object needs at least two with different poses."
        )
    if masks is not None and any(mask is not None and np.any(mask >= 0.5) for mask in masks):
        binary = binary_masks(views, masks)
        if several:
            return _sphere_of_several(views, binary, object_point)
        return _sphere_from_masks(views, binary, points, object_point)
    return _sphere_from_geometry(views, points, object_point)


def closest_point_to_axes(views: Views) -> tuple[np.ndarray, float]:
    """The point closest to all optical axes, and the spread of their directions.

    Iteratively reweighted least squares over the distances to the axes, with Cauchy weights against outlier views.

    Returns:
        point: (3,) world frame; ill-conditioned in depth where the axes are nearly parallel.
        spread: mean squared sine of the angle between the axes and their principal direction, 0 (parallel) to 2/3.
    """
    axes, centres = views.axes(), views.centres()
    spread = direction_spread(axes)
    weights = np.ones(len(views))
    perpendicular = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # Tikhonov regularisation towards the mean of the centres: parallel axes make the system singular.
    ridge = 1e-9 * np.eye(3)
    point = centres.mean(axis=0)
    for _ in range(10):
        weighted = perpendicular * weights[:, None, None]
        point = np.linalg.solve(
            weighted.sum(0) + ridge, np.einsum("nij,nj->i", weighted, centres) + ridge @ centres.mean(axis=0)
        )
        distance = np.linalg.norm(np.einsum("nij,nj->ni", perpendicular, point - centres), axis=1)
        scale = max(float(np.median(distance)), 1e-12)
        weights = 1 / (1 + (distance / (2 * scale)) ** 2)
    return point, spread


# --------------------------------------------------------------------------------------------------- from masks


def _sphere_from_masks(
    views: Views, masks: list[np.ndarray | None], points: SparsePoints | None, object_point: np.ndarray | None
) -> ObjectSphere:
    """The bounding sphere of a visual hull. In turns, a hull is voted in the last sphere and gives the next one."""
    chosen, kept = with_pixels(views, masks)
    core = np.asarray(object_point, dtype=np.float64) if object_point is not None else core_of_masks(chosen, kept)
    outline_radius = silhouette_radius(chosen, kept, core)
    source = "coarse masks"
    cluster = points_in_masks(chosen, kept, points, core, outline_radius)
    if cluster is not None:
        source = "coarse masks and sparse points"
        if object_point is None:
            core = np.median(cluster, axis=0)
            outline_radius = silhouette_radius(chosen, kept, core)
    sight = core - chosen.centres()
    narrow = direction_spread(sight / np.linalg.norm(sight, axis=1, keepdims=True)) < NARROW_SPREAD
    if not narrow and not mostly_whole(kept):
        return sphere_of_cut_off(chosen, kept, core, RADIUS_MARGIN, source)
    sphere = ObjectSphere(core, 1.6 * outline_radius, source)
    resolution = 64
    for _ in range(4):
        hull = vote_hull(chosen, kept, sphere, resolution)
        inside = hull.probability >= 0.12  # as a level lowered by a tenth of the votes: more than the hull
        inside = dominant_component(inside, hull.probability, (core - sphere.centre) / sphere.radius)
        indices = np.argwhere(inside)
        voxels = voxel_centres(resolution)[indices] * sphere.radius + sphere.centre
        # An object is not much deeper than its silhouettes are wide.
        voxels = voxels[np.linalg.norm(voxels - core, axis=1) <= (1.4 if narrow else 2.0) * outline_radius]
        if narrow and cluster is not None:
            low, high = np.percentile(cluster, [2, 98], axis=0)
            slack = 0.25 * float((high - low).max())
            voxels = voxels[((voxels >= low - slack) & (voxels <= high + slack)).all(axis=1)]
        if not len(voxels):
            voxels = core[None]
        low, high = np.percentile(voxels, [0.2, 99.8], axis=0)
        centre = (low + high) / 2
        extent = float(np.percentile(np.linalg.norm(voxels - centre, axis=1), 99.5)) + sphere.radius / resolution
        extent = max(extent, 0.3 * outline_radius)
        clipped = (indices == 0).any() or (indices == resolution - 1).any()
        settled = (
            np.linalg.norm(centre - sphere.centre) < 0.05 * extent and abs(sphere.radius / extent - RADIUS_MARGIN) < 0.1
        )
        if clipped and extent * RADIUS_MARGIN > 0.85 * sphere.radius and sphere.radius < 2.0 * outline_radius:
            sphere = ObjectSphere(centre, 1.4 * sphere.radius, source)
            continue
        sphere = ObjectSphere(centre, RADIUS_MARGIN * extent, source)
        if settled:
            break
    return sphere


def _sphere_of_several(views: Views, masks: list[np.ndarray | None], object_point: np.ndarray | None) -> ObjectSphere:
    """The bounding sphere of all that most masks cover, in one piece or in several."""
    factor = min(1.0, SEVERAL_SIZE / float(max(views.width.max(), views.height.max())))
    small = views.scaled(factor)
    shrunk: list[np.ndarray | None] = [
        None if mask is None else resized(mask.astype(np.float32), *size) >= 0.5
        for mask, size in zip(masks, small.sizes(), strict=True)
    ]
    chosen, kept = with_pixels(small, shrunk)
    core = np.asarray(object_point, dtype=np.float64) if object_point is not None else core_of_masks(chosen, kept)
    limit = 1.3 * _reach(chosen, kept, core, mostly_whole(kept))  # beyond, few cameras look and the hull is not carved
    sphere = ObjectSphere(core, limit, "coarse masks of several objects")
    resolution = 64
    for _ in range(3):
        hull = vote_hull(chosen, kept, sphere, resolution, level=SEVERAL_LEVEL)
        pieces, count = ndimage.label(hull.probability >= 0.5)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        indices = np.argwhere(sizes[pieces] >= SMALLEST_PIECE)
        if not len(indices):
            break
        voxels = voxel_centres(resolution)[indices] * sphere.radius + sphere.centre
        voxels = voxels[np.linalg.norm(voxels - core, axis=1) <= limit]
        centre = (voxels.min(axis=0) + voxels.max(axis=0)) / 2
        extent = float(np.linalg.norm(voxels - centre, axis=1).max()) + sphere.radius / resolution
        settled = np.linalg.norm(centre - sphere.centre) < 0.05 * extent and extent > 0.7 * sphere.radius
        sphere = ObjectSphere(centre, RADIUS_MARGIN * extent, sphere.source)
        if settled:
            break
    return sphere


def _reach(views: Views, masks: Sequence[np.ndarray], core: np.ndarray, whole: bool) -> float:
    """How far masks reach from the projection of ``core``, world units at its depth.

    The median over the views; that of the `FARTHEST` one where most pictures are not ``whole``, that is cut it off.
    """
    reaches = []
    for index, mask in enumerate(masks):
        reach = pixel_reach(views, index, mask, core, 99)
        if reach is not None:
            reaches.append(reach)
    if not reaches:
        raise CaptureError(
            f"No view with a coarse mask looks at the object's place {np.round(core, 3).tolist()}. Check the named "
            "point (it is in world coordinates) and that masks and photos belong together."
        )
    return float(np.median(reaches)) if whole else sorted(reaches)[-min(FARTHEST, len(reaches))]


# ------------------------------------------------------------------------------------------------ without masks


def _sphere_from_geometry(views: Views, points: SparsePoints | None, object_point: np.ndarray | None) -> ObjectSphere:
    """The bounding sphere from optical axes and sparse points."""
    point, spread = closest_point_to_axes(views)
    if object_point is not None:
        point = np.asarray(object_point, dtype=np.float64)
    depth = np.einsum("ni,ni->n", point - views.centres(), views.axes())
    forward_facing = spread < FORWARD_FACING_SPREAD and object_point is None
    if points is not None and len(points.xyz) < MIN_SCENE_POINTS:
        points = None
    if forward_facing and points is not None:
        return _nearest_cluster(views, points)
    if (depth > 0).mean() < 0.6 or (forward_facing and _camera_extent(views) < 1e-9):
        raise CaptureError(
            f"The cameras do not look at anything in common: the point closest to all optical axes lies behind "
            f"{int((depth <= 0).sum())} of {len(views)} cameras. Check the poses (OpenGL convention: x right, y up, "
            "looking along -z), or name a point on the object."
        )
    visible = views.inside(views.project(point[None])[0])[:, 0]
    if visible.mean() < 0.3:
        raise CaptureError(
            f"Only {int(visible.sum())} of {len(views)} photos show the place the cameras turn around "
            f"({np.round(point, 3).tolist()}). Name a point on the object, or give coarse masks."
        )
    distance = float(np.median(depth[visible & (depth > 0)]))
    half_field = float(np.median(np.minimum(views.width / views.fx, views.height / views.fy))) / 2
    if points is None:
        source = "optical axes" if object_point is None else "named point"
        return ObjectSphere(point, 0.6 * half_field * distance, source)
    return _densest_cluster(views, points, point, half_field * distance, fixed=object_point is not None)


def _camera_extent(views: Views) -> float:
    """Largest distance of a camera centre from the mean of all."""
    return float(np.linalg.norm(views.centres() - views.centres().mean(axis=0), axis=1).max())


def _densest_cluster(
    views: Views, points: SparsePoints, start: np.ndarray, view_radius: float, fixed: bool
) -> ObjectSphere:
    """Mean shift over the sparse points, weighted by the number of views that can see them and by track length.

    Args:
        views: world frame.
        points: world frame.
        start: (3,) where mean shift starts, world frame.
        view_radius: half the field of view at the start's distance, world units.
        fixed: keep the centre at the start.
    """
    uv, _ = views.project(points.xyz)
    weight = views.inside(uv).mean(axis=0) ** 2 * np.log1p(np.maximum(points.track_length, 1))
    bandwidth = 0.5 * view_radius
    centre = start.copy()
    for _ in range(30):
        squared = ((points.xyz - centre) ** 2).sum(axis=1)
        kernel = weight * np.exp(-squared / (2 * bandwidth**2))
        # A weight at the start keeps a textured background at the side from pulling the centre away.
        total = float(kernel.sum())
        pull = 0.25 * float(weight.sum()) * np.exp(-((centre - start) ** 2).sum() / (2 * bandwidth**2)) * 0.1
        moved = (kernel @ points.xyz + pull * start) / max(total + pull, 1e-12)
        if fixed or np.linalg.norm(moved - centre) < 1e-4 * bandwidth:
            break
        centre = moved
    distance = np.linalg.norm(points.xyz - centre, axis=1)
    close = distance < 2 * bandwidth
    if close.sum() < 10:
        return ObjectSphere(centre, 1.2 * bandwidth, "optical axes")
    order = np.argsort(distance[close])
    cumulative = np.cumsum(weight[close][order])
    radius = distance[close][order][int(np.searchsorted(cumulative, 0.8 * cumulative[-1]))]
    source = "sparse points near the optical axes" if not fixed else "named point and sparse points"
    return ObjectSphere(centre, float(np.clip(1.2 * radius, 0.6 * bandwidth, 2 * bandwidth)), source)


def _nearest_cluster(views: Views, points: SparsePoints) -> ObjectSphere:
    """For forward-facing captures: the points central in the photos, nearer than Otsu's threshold of log depth."""
    uv, depth = views.project(points.xyz)
    size = np.stack([views.width, views.height], axis=-1)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        squared = ((uv / size - 0.5) ** 2).sum(axis=-1)
        central = np.nan_to_num(np.exp(-squared / (2 * 0.15**2))).mean(axis=0)
    candidates = central > 0.4
    if candidates.sum() < 30:
        candidates = central > 0.1
    if candidates.sum() < 10:
        raise CaptureError(
            "The cameras look in parallel and hardly any sparse point lies in the middle of the photos, so the object "
            "cannot be found. Name a point on it, or give coarse masks."
        )
    xyz = points.xyz[candidates]
    log_depth = np.log(np.median(np.maximum(depth[:, candidates], 1e-6), axis=0))
    from skimage.filters import threshold_otsu

    threshold = threshold_otsu(log_depth) if np.ptp(log_depth) > 1e-3 else np.inf
    cluster = xyz[log_depth <= threshold]
    centre = np.median(cluster, axis=0)
    radius = float(np.percentile(np.linalg.norm(cluster - centre, axis=1), 85)) * RADIUS_MARGIN
    # Add the object's points that are not central in the photos: in front of the threshold, and next to the cluster.
    in_front = np.log(np.median(np.maximum(depth, 1e-6), axis=0)) <= threshold
    cluster = points.xyz[in_front & (np.linalg.norm(points.xyz - centre, axis=1) < 1.25 * radius)]
    low, high = np.percentile(cluster, [3, 97], axis=0)
    centre = (low + high) / 2
    radius = float(np.percentile(np.linalg.norm(cluster - centre, axis=1), 90)) * RADIUS_MARGIN
    return ObjectSphere(centre, max(radius, 1e-6), "near cluster of sparse points")
