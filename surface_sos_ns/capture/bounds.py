"""Where the object is and how large it is: the sphere whose inside becomes the object frame.

The cameras of a capture are normalised by nerfstudio's data parser, the object is not, so it has to be found: from
coarse masks where there are any, else from the sparse points near the point closest to all optical axes, else from the
optical axes alone. All lengths are in world units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import _checked_masks, vote_hull, voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

if TYPE_CHECKING:
    from surface_sos_ns.capture.points import SparsePoints

__all__ = ["closest_point_to_axes", "find_object_sphere"]

MARGIN = 1.2
"""Radius of the sphere over the farthest voxel of the generous hull."""

PARALLEL = 0.01
"""Mean squared sine between viewing directions under which a capture counts as forward-facing (about 6 degrees)."""

NARROW = 0.1
"""Mean squared sine between the lines of sight under which outlines alone leave the hull too long in depth."""


def find_object_sphere(
    views: Views,
    masks: Sequence[np.ndarray | None] | None = None,
    points: SparsePoints | None = None,
    near: np.ndarray | None = None,
) -> ObjectSphere:
    """Finds the sphere around the object.

    With masks: rays through the masks' components are intersected pair by pair, the place that most masks cover is the
    core, and a generous hull voted around it gives the extent. Without: the dense cluster of sparse points near the
    point closest to all optical axes (forward-facing captures: the near cluster of the central points); without
    points what the axes and the field of view say.

    Args:
        views: N views, world frame.
        masks: N masks (H, W), bool or 0..1, None where a view has none; or None without masks.
        points: sparse points, world frame, or None.
        near: (3,) a point on or in the object that the user named, or None.

    Raises:
        CaptureError: fewer than two views; cameras that look away from each other; masks that share no place in space.
    """
    if len(views) < 2:
        raise CaptureError(
            f"The capture has {len(views)} view(s); finding an object needs at least two with different poses."
        )
    if masks is not None and any(mask is not None and np.any(mask >= 0.5) for mask in masks):
        return _sphere_from_masks(views, _checked_masks(views, masks), points, near)
    return _sphere_from_geometry(views, points, near)


def closest_point_to_axes(views: Views) -> tuple[np.ndarray, float]:
    """The point closest to all optical axes, robustly, and how much the axes differ in direction.

    Least squares over the distances to the axes, reweighted so that stray views count less.

    Returns:
        point: (3,) world frame; for (nearly) parallel axes it is badly defined in depth.
        spread: mean squared sine of the angle between the axes and their principal direction, 0 (parallel) to 2/3.
    """
    axes, centres = views.axes(), views.centres()
    spread = float(1 - np.linalg.eigvalsh(axes.T @ axes / len(axes))[-1])
    weights = np.ones(len(views))
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # A slight pull towards the cameras' mean keeps the system solvable for parallel axes.
    prior = 1e-9 * np.eye(3)
    point = centres.mean(axis=0)
    for _ in range(10):
        weighted = across * weights[:, None, None]
        point = np.linalg.solve(
            weighted.sum(0) + prior, np.einsum("nij,nj->i", weighted, centres) + prior @ centres.mean(axis=0)
        )
        distance = np.linalg.norm(np.einsum("nij,nj->ni", across, point - centres), axis=1)
        scale = max(float(np.median(distance)), 1e-12)
        weights = 1 / (1 + (distance / (2 * scale)) ** 2)
    return point, spread


# --------------------------------------------------------------------------------------------------- from masks


def _sphere_from_masks(
    views: Views, masks: list[np.ndarray | None], points: SparsePoints | None, near: np.ndarray | None
) -> ObjectSphere:
    usable = [index for index, mask in enumerate(masks) if mask is not None and mask.any()]
    if len(usable) < 2:
        raise CaptureError(
            f"Only {len(usable)} coarse mask has object pixels; at least two views are needed to place the object in "
            "space. Add masks, or train without them."
        )
    chosen = views.subset(usable)
    kept = [masks[index] for index in usable]
    core = np.asarray(near, dtype=np.float64) if near is not None else _core_of_masks(chosen, kept)
    reach = _silhouette_radius(chosen, kept, core)
    source = "coarse masks"
    cluster = _points_in_masks(chosen, kept, points, core, reach)
    if cluster is not None:
        source = "coarse masks and sparse points"
        if near is None:
            core = np.median(cluster, axis=0)
            reach = _silhouette_radius(chosen, kept, core)
    narrow = _direction_spread(chosen, core) < NARROW
    sphere = ObjectSphere(core, 1.6 * reach, source)
    resolution = 64
    for _ in range(4):
        grid = vote_hull(chosen, kept, sphere, resolution)
        inside = grid.probability >= 0.12  # a tenth of the votes below the decision level: moderately generous
        inside = _component_near(inside, grid.probability, (core - sphere.centre) / sphere.radius)
        where = np.argwhere(inside)
        voxels = voxel_centres(resolution)[where] * sphere.radius + sphere.centre
        # Nothing real is much deeper than its outline is wide.
        voxels = voxels[np.linalg.norm(voxels - core, axis=1) <= (1.4 if narrow else 2.0) * reach]
        if narrow and cluster is not None:
            low, high = np.percentile(cluster, [2, 98], axis=0)
            slack = 0.25 * float((high - low).max())
            voxels = voxels[((voxels >= low - slack) & (voxels <= high + slack)).all(axis=1)]
        if not len(voxels):
            voxels = core[None]
        low, high = np.percentile(voxels, [0.2, 99.8], axis=0)
        centre = (low + high) / 2
        extent = float(np.percentile(np.linalg.norm(voxels - centre, axis=1), 99.5)) + sphere.radius / resolution
        extent = max(extent, 0.3 * reach)
        clipped = (where == 0).any() or (where == resolution - 1).any()
        settled = np.linalg.norm(centre - sphere.centre) < 0.05 * extent and abs(sphere.radius / extent - MARGIN) < 0.1
        if clipped and extent * MARGIN > 0.85 * sphere.radius and sphere.radius < 2.0 * reach:
            sphere = ObjectSphere(centre, 1.4 * sphere.radius, source)
            continue
        sphere = ObjectSphere(centre, MARGIN * extent, source)
        if settled:
            break
    return sphere


def _direction_spread(views: Views, place: np.ndarray) -> float:
    """Mean squared sine of the angle between the lines of sight to a place and their principal direction."""
    sight = place - views.centres()
    sight = sight / np.linalg.norm(sight, axis=1, keepdims=True)
    return float(1 - np.linalg.eigvalsh(sight.T @ sight / len(sight))[-1])


def _core_of_masks(views: Views, masks: Sequence[np.ndarray | None]) -> np.ndarray:
    """(3,) the place in space that the most masks cover, out of the crossings of rays through their components."""
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
    if len(first) > 6000:
        drawn = np.sort(np.random.default_rng(0).choice(len(first), 6000, replace=False))
        first, second = first[drawn], second[drawn]
    crossing, angle = _ray_crossings(origin[first], direction[first], origin[second], direction[second])
    finite = np.isfinite(crossing).all(axis=1)
    if not finite.any():
        raise CaptureError(
            "No two views' masks point at a common place in front of both cameras: either the cameras look away from "
            "each other, or the poses do not follow the OpenGL convention (x right, y up, looking along -z), or all "
            "photos were taken from one place."
        )
    wide = finite & (angle > np.deg2rad(3))
    candidates = crossing[wide if wide.sum() >= min(10, len(masks) - 1) else finite]
    covered, seen = _mask_support(views, masks, candidates)
    score = covered / np.maximum(seen, 0.3 * len(views))
    best = float(score.max())
    if best < 0.35:
        raise CaptureError(
            f"The coarse masks do not agree on a place in space: the best one lies inside only {best:.0%} of them. "
            "Check that masks and photos belong together (names, order, size) and that all show the same object."
        )
    top = candidates[score >= best - 0.02]
    centre = np.median(top, axis=0)
    covered, seen = _mask_support(views, masks, centre[None])
    # The median of several good places may fall between them (a ring, two legs); then one of them is better.
    if covered[0] / max(seen[0], 0.3 * len(views)) < best - 0.1:
        centre = top[np.argmin(np.linalg.norm(top - centre, axis=1))]
    return centre


def _ray_crossings(
    origin_a: np.ndarray, direction_a: np.ndarray, origin_b: np.ndarray, direction_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints (P, 3) where pairs of rays come closest (nan behind a camera or when parallel), and angles (P,)."""
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


def _mask_support(
    views: Views, masks: Sequence[np.ndarray | None], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per point (P,): how many masks cover its projection, and how many of the masks' views see it."""
    covered, seen = np.zeros(len(points)), np.zeros(len(points))
    for index, mask in enumerate(masks):
        if mask is None:
            continue
        value, visible = _lookup(views, index, mask, points)
        covered += value
        seen += visible
    return covered, seen


def _lookup(views: Views, index: int, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) nearest values of an image where points project (0 outside), and (P,) bool whether they project into it."""
    uv, _ = views.project_one(index, points)
    height, width = image.shape[:2]
    with np.errstate(invalid="ignore"):
        visible = (uv[:, 0] >= 0) & (uv[:, 1] >= 0) & (uv[:, 0] < width) & (uv[:, 1] < height)
    values = np.zeros((len(points), *image.shape[2:]), np.float32)
    where = np.floor(uv[visible]).astype(np.int64)
    values[visible] = image[where[:, 1], where[:, 0]]
    return values, visible


def _silhouette_radius(views: Views, masks: Sequence[np.ndarray | None], core: np.ndarray) -> float:
    """World radius around ``core`` that the masks' outlines suggest: the median over the views whose mask covers it."""
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
    views: Views, masks: Sequence[np.ndarray | None], points: SparsePoints | None, core: np.ndarray, reach: float
) -> np.ndarray | None:
    """(P, 3) sparse points that project into most masks and lie near the core; None when there are too few to trust."""
    if points is None or len(points.xyz) < 20:
        return None
    covered, seen = _mask_support(views, masks, points.xyz)
    belongs = (covered >= 0.75 * np.maximum(seen, 0.3 * len(views))) & (
        np.linalg.norm(points.xyz - core, axis=1) < 3 * reach
    )
    if belongs.sum() < 20:
        return None
    cluster = points.xyz[belongs]
    distance = np.linalg.norm(cluster - np.median(cluster, axis=0), axis=1)
    return cluster[distance <= 4 * np.median(distance) + 1e-12]


def _component_near(inside: np.ndarray, values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The connected part of ``inside`` that weighs most, counting values near ``place`` (object frame) more."""
    labels, count = ndimage.label(inside)
    if count <= 1:
        return inside
    axis = voxel_centres(inside.shape[0])
    squared = sum(((axis - place[i]) ** 2).reshape([-1 if j == i else 1 for j in range(3)]) for i in range(3))
    weight = ndimage.sum_labels(values * np.exp(-squared / 0.18), labels, np.arange(1, count + 1))
    return labels == 1 + int(np.argmax(weight))


# ------------------------------------------------------------------------------------------------ without masks


def _sphere_from_geometry(views: Views, points: SparsePoints | None, near: np.ndarray | None) -> ObjectSphere:
    point, spread = closest_point_to_axes(views)
    if near is not None:
        point = np.asarray(near, dtype=np.float64)
    depth = np.einsum("ni,ni->n", point - views.centres(), views.axes())
    forward_facing = spread < PARALLEL and near is None
    if points is not None and len(points.xyz) < 30:
        points = None
    if forward_facing and points is not None:
        return _near_cluster(views, points)
    if (depth > 0).mean() < 0.6 or (forward_facing and _baseline(views) < 1e-9):
        raise CaptureError(
            f"The cameras do not look at anything in common: the point closest to all optical axes lies behind "
            f"{int((depth <= 0).sum())} of {len(views)} cameras. Check the poses (OpenGL convention: x right, y up, "
            "looking along -z), or name a point on the object."
        )
    seen = views.inside(views.project(point[None])[0])[:, 0]
    if seen.mean() < 0.3:
        raise CaptureError(
            f"Only {int(seen.sum())} of {len(views)} photos show the place the cameras turn around "
            f"({np.round(point, 3).tolist()}). Name a point on the object, or give coarse masks."
        )
    distance = float(np.median(depth[seen & (depth > 0)]))
    half_view = float(np.median(np.minimum(views.width / views.fx, views.height / views.fy))) / 2
    if points is None:
        source = "optical axes" if near is None else "named point"
        return ObjectSphere(point, 0.6 * half_view * distance, source)
    return _dense_cluster(views, points, point, distance, half_view, fixed=near is not None)


def _baseline(views: Views) -> float:
    return float(np.linalg.norm(views.centres() - views.centres().mean(axis=0), axis=1).max())


def _dense_cluster(
    views: Views, points: SparsePoints, start: np.ndarray, distance: float, half_view: float, fixed: bool
) -> ObjectSphere:
    """Mean shift over the sparse points from the place the cameras turn around, points seen by many views first."""
    uv, _ = views.project(points.xyz)
    weight = views.inside(uv).mean(axis=0) ** 2 * np.log1p(np.maximum(points.track_length, 1))
    bandwidth = 0.5 * half_view * distance
    centre = start.copy()
    for _ in range(30):
        squared = ((points.xyz - centre) ** 2).sum(axis=1)
        kernel = weight * np.exp(-squared / (2 * bandwidth**2))
        # The axes keep a say, so that a busy background at the side cannot pull the cluster away.
        total = float(kernel.sum())
        pull = 0.25 * float(weight.sum()) * np.exp(-((centre - start) ** 2).sum() / (2 * bandwidth**2)) * 0.1
        moved = (kernel @ points.xyz + pull * start) / max(total + pull, 1e-12)
        if fixed or np.linalg.norm(moved - centre) < 1e-4 * bandwidth:
            break
        centre = moved
    away = np.linalg.norm(points.xyz - centre, axis=1)
    close = away < 2 * bandwidth
    if close.sum() < 10:
        return ObjectSphere(centre, 1.2 * bandwidth, "optical axes")
    order = np.argsort(away[close])
    cumulative = np.cumsum(weight[close][order])
    radius = away[close][order][int(np.searchsorted(cumulative, 0.8 * cumulative[-1]))]
    source = "sparse points near the optical axes" if not fixed else "named point and sparse points"
    return ObjectSphere(centre, float(np.clip(1.2 * radius, 0.6 * bandwidth, 2 * bandwidth)), source)


def _near_cluster(views: Views, points: SparsePoints) -> ObjectSphere:
    """Forward-facing captures: of the points central in many photos the near ones, split off by Otsu's threshold."""
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
    logarithm = np.log(np.median(np.maximum(depth[:, candidates], 1e-6), axis=0))
    from skimage.filters import threshold_otsu

    threshold = threshold_otsu(logarithm) if np.ptp(logarithm) > 1e-3 else np.inf
    cluster = xyz[logarithm <= threshold]
    centre = np.median(cluster, axis=0)
    radius = float(np.percentile(np.linalg.norm(cluster - centre, axis=1), 85)) * MARGIN
    # The object's own points off the middle of the photos: as near as the cluster, and next to it.
    in_front = np.log(np.median(np.maximum(depth, 1e-6), axis=0)) <= threshold
    cluster = points.xyz[in_front & (np.linalg.norm(points.xyz - centre, axis=1) < 1.25 * radius)]
    low, high = np.percentile(cluster, [3, 97], axis=0)
    centre = (low + high) / 2
    radius = float(np.percentile(np.linalg.norm(cluster - centre, axis=1), 90)) * MARGIN
    return ObjectSphere(centre, max(radius, 1e-6), "near cluster of sparse points")
