"""What masks and poses say of the object's place without a vote: its core, its size, the sparse points on it.

All lengths are in world units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.cut_off import mostly_whole
from surface_sos_ns.capture.views import Views

if TYPE_CHECKING:
    from surface_sos_ns.capture.points import SparsePoints

__all__ = ["core_of_masks", "direction_spread", "pixel_reach", "points_in_masks", "silhouette_radius", "with_pixels"]

MIN_OBJECT_POINTS = 20
"""Fewer sparse points on the object are ignored."""

MAX_RAY_PAIRS = 6000
"""Pairs of rays that are intersected; of more, random ones are drawn."""


def with_pixels(views: Views, masks: Sequence[np.ndarray | None]) -> tuple[Views, list[np.ndarray]]:
    """The views whose masks have object pixels, and these masks."""
    usable = [index for index, mask in enumerate(masks) if mask is not None and mask.any()]
    if len(usable) < 2:
        raise CaptureError(
            f"Only {len(usable)} coarse mask has object pixels; at least two views are needed to place the object in "
            "space. Add masks, or train without them."
        )
    return views.subset(usable), [mask for mask in masks if mask is not None and mask.any()]


def core_of_masks(views: Views, masks: Sequence[np.ndarray | None]) -> np.ndarray:
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
    whole = mostly_whole(masks)
    score = _agreement(views, masks, candidates, whole)
    best = float(score.max())
    if best < 0.35:
        raise CaptureError(
            f"The coarse masks do not agree on a place in space: the best one lies inside only {best:.0%} of them. "
            "Check that masks and photos belong together (names, order, size) and that all show the same object."
        )
    top = candidates[score >= best - 0.02]
    centre = np.median(top, axis=0)
    # The median of several modes may lie between them, in free space (a ring, two legs): then take the nearest one.
    if _agreement(views, masks, centre[None], whole)[0] < best - 0.1:
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


def _agreement(views: Views, masks: Sequence[np.ndarray | None], points: np.ndarray, whole: bool) -> np.ndarray:
    """(P,) in [0, 1]: share of the pictures that show a point whose masks cover it; less if few pictures show it.

    Args:
        views: N views, world frame.
        masks: N masks (H, W) bool.
        points: (P, 3), world frame.
        whole: whether most pictures show all of the object. Else any point of it is out of many pictures.
    """
    covered, visible = _mask_coverage(views, masks, points)
    if whole:
        return covered / np.maximum(visible, 0.3 * len(views))
    return covered / (visible + 0.1 * len(views))


def _mask_coverage(
    views: Views, masks: Sequence[np.ndarray | None], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per point (P,): how many masks cover its projection, and into how many of the masks' images it projects."""
    covered, visible = np.zeros(len(points)), np.zeros(len(points))
    for index, mask in enumerate(masks):
        if mask is None:
            continue
        places = views.pixel_places(index, points, mask.shape)
        inside = places >= 0
        covered[inside] += mask.ravel()[places[inside]]
        visible += inside
    return covered, visible


def pixel_reach(views: Views, index: int, region: np.ndarray, core: np.ndarray, percentile: float) -> float | None:
    """How far pixels lie from the projection of ``core``, world units at its depth; None where that is behind.

    Args:
        views: world frame.
        index: of the view.
        region: (H, W) bool, the pixels, some of them true.
        core: (3,) world frame; its projection may lie outside the picture.
        percentile: of the distances, 0 to 100.
    """
    uv, depth = views.project_one(index, core[None])
    if not np.isfinite(uv).all():
        return None
    rows, columns = np.nonzero(region)
    distance = np.hypot(rows + 0.5 - uv[0, 1], columns + 0.5 - uv[0, 0])
    return float(np.percentile(distance, percentile)) / float(views.fx[index]) * float(depth[0])


def silhouette_radius(views: Views, masks: Sequence[np.ndarray | None], core: np.ndarray) -> float:
    """Radius of the silhouettes around ``core``, world units: the median over the views whose mask covers it.

    Of one view: the 97th percentile of the pixels' distances from the core's projection, times depth over focal length.
    """
    radii = []
    for index, mask in enumerate(masks):
        if mask is None:
            continue
        place = int(views.pixel_places(index, core[None], mask.shape)[0])
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        if place < 0 or labels.flat[place] == 0:
            continue
        reach = pixel_reach(views, index, labels == labels.flat[place], core, 97)
        if reach is not None:
            radii.append(reach)
    if not radii:
        raise CaptureError(
            f"No coarse mask covers the object's place {np.round(core, 3).tolist()}. Check the named point (it is in "
            "world coordinates) and that masks and photos belong together."
        )
    return float(np.median(radii))


def points_in_masks(
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


def direction_spread(directions: np.ndarray) -> float:
    """Mean squared sine of the angle between unit directions (N, 3) and their principal direction, 0 to 2/3."""
    return float(1 - np.linalg.eigvalsh(directions.T @ directions / len(directions))[-1])
