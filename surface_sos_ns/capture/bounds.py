"""The object's bounding sphere, which defines the object frame. All lengths are in world units.

nerfstudio's data parser normalises the cameras of a capture, not the object. So the object is located from coarse masks
if there are any, else from the sparse points around the point closest to all optical axes, else from the axes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import voxel_centres
from surface_sos_ns.capture.hull_voting import binary_masks, vote_hull
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:
    from surface_sos_ns.capture.points import SparsePoints

__all__ = ["RADIUS_MARGIN", "closest_point_to_axes", "find_object_sphere"]

RADIUS_MARGIN = 1.2
"""Radius of the bounding sphere over the distance of the object's farthest part from its centre."""

FORWARD_FACING_SPREAD = 0.01
"""Captures whose optical axes spread less are forward-facing; mean squared sine, about 6 degrees (`_spread`)."""

NARROW_SPREAD = 0.1
"""If the rays from the cameras to the object spread less, silhouettes alone leave the hull too long in depth
(`_spread`)."""

MIN_OBJECT_POINTS = 20
"""Fewer sparse points on the object are ignored."""

MIN_SCENE_POINTS = 30
"""Fewer sparse points in the whole scene are ignored."""

SEVERAL_SIZE = 200
"""Longer side, in pixels, of the masks in which several objects are placed."""
SEVERAL_LEVEL = 0.6
"""Fraction of the votes that a voxel of one of several objects needs: each may be missing from some masks."""
SMALLEST_PIECE = 4
"""Voxels of the smallest piece, of 64^3, that counts as an object."""

MAX_RAY_PAIRS = 6000
"""Pairs of rays that are intersected; of more, random ones are drawn."""


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
    spread = _spread(axes)
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
    """The bounding sphere of a visual hull that is voted in spheres which shrink to it or grow with it."""
    chosen, kept = _with_pixels(views, masks)
    core = np.asarray(object_point, dtype=np.float64) if object_point is not None else _core_of_masks(chosen, kept)
    outline_radius = _silhouette_radius(chosen, kept, core)
    source = "coarse masks"
    cluster = _points_in_masks(chosen, kept, points, core, outline_radius)
    if cluster is not None:
        source = "coarse masks and sparse points"
        if object_point is None:
            core = np.median(cluster, axis=0)
            outline_radius = _silhouette_radius(chosen, kept, core)
    sight = core - chosen.centres()
    narrow = _spread(sight / np.linalg.norm(sight, axis=1, keepdims=True)) < NARROW_SPREAD
    sphere = ObjectSphere(core, 1.6 * outline_radius, source)
    resolution = 64
    for _ in range(4):
        hull = vote_hull(chosen, kept, sphere, resolution)
        inside = hull.probability >= 0.12  # as a level lowered by a tenth of the votes: more than the hull
        inside = _dominant_component(inside, hull.probability, (core - sphere.centre) / sphere.radius)
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


def _with_pixels(views: Views, masks: Sequence[np.ndarray | None]) -> tuple[Views, list[np.ndarray]]:
    """The views whose masks have object pixels, and these masks."""
    usable = [index for index, mask in enumerate(masks) if mask is not None and mask.any()]
    if len(usable) < 2:
        raise CaptureError(
            f"Only {len(usable)} coarse mask has object pixels; at least two views are needed to place the object in "
            "space. Add masks, or train without them."
        )
    return views.subset(usable), [mask for mask in masks if mask is not None and mask.any()]


def _sphere_of_several(views: Views, masks: list[np.ndarray | None], object_point: np.ndarray | None) -> ObjectSphere:
    """The bounding sphere of all that most masks cover, in one piece or in several."""
    factor = min(1.0, SEVERAL_SIZE / float(max(views.width.max(), views.height.max())))
    small = views.scaled(factor)
    shrunk: list[np.ndarray | None] = [
        None if mask is None else resized(mask.astype(np.float32), *size) >= 0.5
        for mask, size in zip(masks, small.sizes(), strict=True)
    ]
    chosen, kept = _with_pixels(small, shrunk)
    core = np.asarray(object_point, dtype=np.float64) if object_point is not None else _core_of_masks(chosen, kept)
    limit = 1.3 * _reach(chosen, kept, core)  # the hull goes on beyond it, where few cameras look
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


def _reach(views: Views, masks: Sequence[np.ndarray], core: np.ndarray) -> float:
    """How far masks reach from the projection of ``core``, world units at its depth: the median over the views."""
    reaches = []
    for index, mask in enumerate(masks):
        uv, depth = views.project_one(index, core[None])
        if np.isfinite(uv).all():
            rows, columns = np.nonzero(mask)
            distance = np.hypot(rows + 0.5 - uv[0, 1], columns + 0.5 - uv[0, 0])
            reaches.append(float(np.percentile(distance, 99)) / float(views.fx[index]) * float(depth[0]))
    if not reaches:
        raise CaptureError(
            f"No view with a coarse mask looks at the object's place {np.round(core, 3).tolist()}. Check the named "
            "point (it is in world coordinates) and that masks and photos belong together."
        )
    return float(np.median(reaches))


def _spread(directions: np.ndarray) -> float:
    """Mean squared sine of the angle between unit directions (N, 3) and their principal direction, 0 to 2/3."""
    return float(1 - np.linalg.eigvalsh(directions.T @ directions / len(directions))[-1])


def _core_of_masks(views: Views, masks: Sequence[np.ndarray | None]) -> np.ndarray:
    """(3,) the point that the most masks cover, among the intersections of rays through their components' centroids."""
    origins, directions, owners = [], [], []
    for index, mask in enumerate(masks):
        assert mask is not None
        _, _, statistics, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        areas = statistics[1:, cv2.CC_STAT_AREA]
        largest = np.argsort(-areas)[:3]
        largest = largest[areas[largest] >= 0.15 * areas.max()]
        uv = centroids[1:][largest] + 0.5
        directions.append(views.rays(index, uv))
        origins.append(np.repeat(views.centres()[index][None], len(uv), axis=0))
        owners.extend([index] * len(uv))
    origin, direction, owner = np.concatenate(origins), np.concatenate(directions), np.array(owners)
    first, second = np.triu_indices(len(owner), 1)
    apart = owner[first] != owner[second]
    first, second = first[apart], second[apart]
    if len(first) > MAX_RAY_PAIRS:
        drawn = np.sort(np.random.default_rng(0).choice(len(first), MAX_RAY_PAIRS, replace=False))
        first, second = first[drawn], second[drawn]
    midpoint, angle = _ray_midpoints(origin[first], direction[first], origin[second], direction[second])
    finite = np.isfinite(midpoint).all(axis=1)
    if not finite.any():
        raise CaptureError(
            "No two views' masks point at a common place in front of both cameras: either the cameras look away from "
            "each other, or the poses do not follow the OpenGL convention (x right, y up, looking along -z), or all "
            "photos were taken from one place."
        )
    wide = finite & (angle > np.deg2rad(3))
    candidates = midpoint[wide if wide.sum() >= min(10, len(masks) - 1) else finite]
    covered, visible = _mask_coverage(views, masks, candidates)
    score = covered / np.maximum(visible, 0.3 * len(views))
    best = float(score.max())
    if best < 0.35:
        raise CaptureError(
            f"The coarse masks do not agree on a place in space: the best one lies inside only {best:.0%} of them. "
            "Check that masks and photos belong together (names, order, size) and that all show the same object."
        )
    top = candidates[score >= best - 0.02]
    centre = np.median(top, axis=0)
    covered, visible = _mask_coverage(views, masks, centre[None])
    # The median of several modes may lie between them, in free space (a ring, two legs): then take the nearest one.
    if covered[0] / max(visible[0], 0.3 * len(views)) < best - 0.1:
        centre = top[np.argmin(np.linalg.norm(top - centre, axis=1))]
    return centre


def _ray_midpoints(
    origin_a: np.ndarray, direction_a: np.ndarray, origin_b: np.ndarray, direction_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intersects P pairs of rays by the midpoint method.

    Args:
        origin_a, direction_a, origin_b, direction_b: (P, 3), unit directions.

    Returns:
        Midpoints (P, 3) of the shortest segments between the rays, nan behind a camera or where the rays are parallel;
        and the angles (P,) between the rays, radians.
    """
    cosine = np.einsum("pi,pi->p", direction_a, direction_b)
    between = origin_b - origin_a
    along_a, along_b = np.einsum("pi,pi->p", between, direction_a), np.einsum("pi,pi->p", between, direction_b)
    denominator = 1 - cosine**2
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (along_a - cosine * along_b) / denominator
        t = (cosine * along_a - along_b) / denominator
    bad = ~((s > 0) & (t > 0) & (denominator > 1e-5))
    s, t = np.where(bad, np.nan, s), np.where(bad, np.nan, t)
    middle = (origin_a + s[:, None] * direction_a + origin_b + t[:, None] * direction_b) / 2
    return middle, np.arccos(np.clip(cosine, -1, 1))


def _mask_coverage(
    views: Views, masks: Sequence[np.ndarray | None], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per point (P,): how many masks cover its projection, and into how many of the masks' images it projects."""
    covered, visible = np.zeros(len(points)), np.zeros(len(points))
    for index, mask in enumerate(masks):
        if mask is None:
            continue
        value, inside = _sample_nearest(views, index, mask, points)
        covered += value
        visible += inside
    return covered, visible


def _sample_nearest(views: Views, index: int, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (P,) of an image where points project, nearest neighbour, 0 outside; and whether (P,) they are inside."""
    uv, _ = views.project_one(index, points)
    height, width = image.shape[:2]
    with np.errstate(invalid="ignore"):
        inside = (uv[:, 0] >= 0) & (uv[:, 1] >= 0) & (uv[:, 0] < width) & (uv[:, 1] < height)
    values = np.zeros((len(points), *image.shape[2:]), np.float32)
    columns, rows = np.floor(uv[inside]).astype(np.int64).T
    values[inside] = image[rows, columns]
    return values, inside


def _silhouette_radius(views: Views, masks: Sequence[np.ndarray | None], core: np.ndarray) -> float:
    """Radius of the silhouettes around ``core``, world units: the median over the views whose mask covers it.

    Of one view: the 97th percentile of the pixels' distances from the core's projection, times depth over focal length.
    """
    radii = []
    for index, mask in enumerate(masks):
        if mask is None:
            continue
        uv, depth = views.project_one(index, core[None])
        if not np.isfinite(uv).all():
            continue
        column, row = np.floor(uv[0]).astype(int)
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]) or labels[row, column] == 0:
            continue
        rows, columns = np.nonzero(labels == labels[row, column])
        distance = np.hypot(rows + 0.5 - uv[0, 1], columns + 0.5 - uv[0, 0])
        radii.append(float(np.percentile(distance, 97)) / float(views.fx[index]) * float(depth[0]))
    if not radii:
        raise CaptureError(
            f"No coarse mask covers the object's place {np.round(core, 3).tolist()}. Check the named point (it is in "
            "world coordinates) and that masks and photos belong together."
        )
    return float(np.median(radii))


def _points_in_masks(
    views: Views,
    masks: Sequence[np.ndarray | None],
    points: SparsePoints | None,
    core: np.ndarray,
    outline_radius: float,
) -> np.ndarray | None:
    """(P, 3) sparse points that project into 3 of 4 masks and lie within 3 radii of the core, without outliers.

    None if they are fewer than `MIN_OBJECT_POINTS`.
    """
    if points is None or len(points.xyz) < MIN_OBJECT_POINTS:
        return None
    covered, visible = _mask_coverage(views, masks, points.xyz)
    belongs = (covered >= 0.75 * np.maximum(visible, 0.3 * len(views))) & (
        np.linalg.norm(points.xyz - core, axis=1) < 3 * outline_radius
    )
    if belongs.sum() < MIN_OBJECT_POINTS:
        return None
    cluster = points.xyz[belongs]
    distance = np.linalg.norm(cluster - np.median(cluster, axis=0), axis=1)
    return cluster[distance <= 4 * np.median(distance) + 1e-12]


def _dominant_component(inside: np.ndarray, values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The connected component of ``inside`` (R, R, R) with the largest sum of ``values``.

    Values are weighted by a Gaussian around ``centre`` (3,), object frame, with a standard deviation of 0.3.
    """
    labels, count = ndimage.label(inside)
    if count <= 1:
        return inside
    axis = voxel_centres(inside.shape[0])
    squared = sum(((axis - centre[i]) ** 2).reshape([-1 if j == i else 1 for j in range(3)]) for i in range(3))
    weight = ndimage.sum_labels(values * np.exp(-squared / 0.18), labels, np.arange(1, count + 1))
    return labels == 1 + int(np.argmax(weight))


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
