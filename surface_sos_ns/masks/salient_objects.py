"""The most salient things on the plane that carries them, without any mask: sparse points that stand on it, in groups.

Every cluster of points (HDBSCAN) is a thing. What is on it by its place and colours follows as for one object
(`geometry.py`), in a sphere around its points; the other things are part of its surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import Delaunay, QhullError, cKDTree

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull_voting import mask_agreement
from surface_sos_ns.capture.object_names import default_object_names
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import SupportPlane, find_support_plane
from surface_sos_ns.masks.geometry import masks_from_geometry
from surface_sos_ns.masks.place import place_at, possible_spheres, with_points
from surface_sos_ns.masks.points_to_masks import ClickedMasks
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos, Progress

__all__ = ["Thing", "find_things", "salient_objects", "wanted_things"]

FEWEST_POINTS = 8
"""Points of a thing, at least."""
MIN_SHARED = 0.3
"""Share of the photos whose frame a point has to lie in, to be on something that the capture shows."""
REACH = 3.0
"""How far from the place the cameras look at things are looked for, in radii of its sphere."""
LEAST_PART = 0.1
"""Share of a group's points that a part of it has, at least."""
RESOLUTION = 96
"""Voxels along an edge of a thing's grid."""
AROUND = 1.6
"""Half of the side of the part of a photo that is looked at for a thing, in radii of its sphere."""
SMALLEST = 16
"""Pixels along each side of such a part, at least."""
MARGIN = 1.35
"""Radius of a thing's sphere over the extent of its points."""


@dataclass(frozen=True)
class Thing:
    """A cluster of sparse points that stands on the support plane.

    Attributes:
        xyz: (P, 3) world frame.
        seen: (P, N) bool, photos in which they were matched; all True where that is unknown.
        sphere: around them and their feet on the plane, world frame.
        salience: sum over its points of the number of observations times the share of photos whose picture holds the
            point.
    """

    xyz: np.ndarray
    seen: np.ndarray
    sphere: ObjectSphere
    salience: float


def find_things(photos: Photos, wanted: int = 0) -> list[Thing]:
    """Things on the support plane, the most salient first.

    Args:
        photos: of the whole capture, with sparse points.
        wanted: number of things that are asked for: where there are fewer, groups of points are split that hang
            together by a thin bridge only, such as things that touch.

    Raises:
        MaskError: the photos have no points, or it is not clear where the cameras look.
    """
    from sklearn.cluster import HDBSCAN

    points = photos.points
    if points is None or len(points) < FEWEST_POINTS:
        raise MaskError("Too few points can be matched between the photos to find several things by them.")
    sphere = possible_spheres(photos)[-1]
    views, xyz = photos.views, points.xyz
    plane = find_support_plane(views.centres(), xyz, sphere)
    shared = views.inside(views.project(xyz)[0]).mean(axis=0)
    chosen = (shared > MIN_SHARED) & (np.linalg.norm(xyz - sphere.centre, axis=1) < REACH * sphere.radius)
    if plane is not None:
        chosen &= (plane.height(xyz) > 1.5 * plane.tolerance) & _above_surface(plane, xyz, sphere)
    index = np.flatnonzero(chosen)
    if len(index) < FEWEST_POINTS:
        return []
    labels = HDBSCAN(min_cluster_size=FEWEST_POINTS, min_samples=4, copy=True).fit_predict(xyz[index])
    groups = [index[labels == label] for label in range(labels.max() + 1)]
    _split_further(xyz, groups, wanted)
    seen = points.visibility
    if seen is None:
        seen = np.ones((len(xyz), len(views)), bool)
    things = []
    for ours in groups:
        weight = float((seen[ours].sum(axis=1) * shared[ours]).sum())
        things.append(Thing(xyz[ours], seen[ours], _sphere_around(xyz[ours], plane), weight))
    return sorted(things, key=lambda thing: -thing.salience)


def wanted_things(photos: Photos, count: int) -> list[Thing]:
    """The most salient things, as many as are asked for; see :func:`find_things`.

    Raises:
        MaskError: there are fewer.
    """
    things = find_things(photos, count)
    if len(things) < count:
        raise MaskError(
            f"{len(things)} things stand out by their points, and {count} objects are asked for. Ask for fewer, or "
            "bring masks (--method click, --method folder)."
        )
    return things[:count]


def salient_objects(
    photos: Photos, count: int, names: Sequence[str] = (), progress: Progress = lambda line: None
) -> CoarseMasks:
    """Masks of the most salient things on the plane that carries them, without any mask given.

    Args:
        photos: of the whole capture. Points are triangulated where it brings none.
        count: how many things, 2 or more.
        names: of the things, the most salient first; `object_1` and so on without.
        progress: called with one line per stage.

    Returns:
        Masks with identities; identity 1 is the most salient thing.

    Raises:
        MaskError: there are fewer things, or masks of one cannot be made.
    """
    from surface_sos_ns.masks.click_objects import merge_clicked

    photos = with_points(photos, progress)
    each = []
    for number, thing in enumerate(wanted_things(photos, count), start=1):
        progress(f"objects: number {number} of {count}, by {len(thing.xyz)} points that stand out")
        each.append(_masks_of(photos, thing))
    merged = merge_clicked(photos, each)
    return CoarseMasks(
        merged.masks, merged.agreement, (), merged.identities, tuple(names) or default_object_names(count)
    )


def _masks_of(photos: Photos, thing: Thing) -> ClickedMasks:
    """Masks (H, W) float32 0/1 of a thing, made in the parts of the photos that show its surroundings.

    Photos that do not show them have no mask. Crops are shrunk less than whole photos for GrabCut (`shrunk_photos`), so
    small things keep more pixels.
    """
    boxes = _surroundings(photos, thing.sphere)
    shown = [view for view, box in enumerate(boxes) if box is not None]
    cut_out, lefts, tops = [], [], []
    for view in shown:
        left, top, right, bottom = boxes[view]  # type: ignore[misc]
        cut_out.append(photos.images[view][top:bottom, left:right])
        lefts.append(left)
        tops.append(top)
    some = photos.views.subset(shown)
    views = replace(
        some,
        cx=some.cx - np.array(lefts),
        cy=some.cy - np.array(tops),
        width=np.array([image.shape[1] for image in cut_out]),
        height=np.array([image.shape[0] for image in cut_out]),
    )
    points = photos.points
    if points is not None and points.visibility is not None:
        points = replace(points, visibility=points.visibility[:, shown])
    try:
        found = masks_from_geometry(
            cut_out, views, points, near=thing.sphere.centre, radius=thing.sphere.radius, resolution=RESOLUTION
        )
    except CaptureError as error:
        raise MaskError(str(error)) from error
    small = mask_agreement(views, found.masks, found.hull, found.sphere)
    masks: list[np.ndarray | None] = [None] * len(photos)
    agreement = np.zeros(len(photos))
    for view, left, top, mask, iou in zip(shown, lefts, tops, found.masks, small, strict=True):
        if mask is not None and mask.any():
            whole = np.zeros(photos.images[view].shape[:2], np.float32)
            whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
            masks[view], agreement[view] = whole, iou
    return ClickedMasks(masks, agreement, found.sphere, found.hull)


def _surroundings(photos: Photos, sphere: ObjectSphere) -> list[tuple[int, int, int, int] | None]:
    """Left, top, right and bottom of the part of each photo that shows a sphere and what is about it, in pixels."""
    place = place_at(photos.views, sphere, np.zeros((0, 3)), np.zeros((0, len(photos)), bool))
    boxes: list[tuple[int, int, int, int] | None] = []
    for image, pixel, radius in zip(photos.images, place.pixel, place.radius, strict=True):
        size = np.array(image.shape[1::-1])
        if not (np.isfinite(pixel).all() and np.isfinite(radius)):
            boxes.append(None)
            continue
        low = np.clip(np.floor(pixel - AROUND * radius), 0, size).astype(int)
        high = np.clip(np.ceil(pixel + AROUND * radius), 0, size).astype(int)
        inside = (high - low >= SMALLEST).all()
        boxes.append((int(low[0]), int(low[1]), int(high[0]), int(high[1])) if inside else None)
    return boxes


def _split_further(xyz: np.ndarray, groups: list[np.ndarray], wanted: int) -> None:
    """Splits the largest groups of points, which are indices into `xyz`, until there are as many as wanted."""
    whole: list[np.ndarray] = []
    while groups and len(groups) + len(whole) < wanted:
        largest = max(range(len(groups)), key=lambda number: len(groups[number]))
        group = groups.pop(largest)
        parts = _parts(xyz[group])
        if len(parts) > 1:
            groups += [group[part] for part in parts]
        else:
            whole.append(group)
    groups += whole


def _parts(xyz: np.ndarray) -> list[np.ndarray]:
    """Indices of the points of each part, at the largest distance of neighbours at which there are several parts.

    A part has `LEAST_PART` of the points at least; stray points belong to the part that is nearest.
    """
    from sklearn.cluster import DBSCAN

    least = max(FEWEST_POINTS, LEAST_PART * len(xyz))
    farthest = float(np.max(cKDTree(xyz).query(xyz, k=5)[0]))
    for reach in np.geomspace(farthest, farthest / 30, 30):
        labels = DBSCAN(eps=reach, min_samples=4).fit_predict(xyz)
        large = np.flatnonzero(np.bincount(labels[labels >= 0], minlength=1) >= least)
        if len(large) > 1:
            core = np.isin(labels, large)
            nearest = labels[core][cKDTree(xyz[core]).query(xyz)[1]]
            return [np.flatnonzero(nearest == label) for label in large]
    return [np.arange(len(xyz))]


def _above_surface(plane: SupportPlane, xyz: np.ndarray, sphere: ObjectSphere) -> np.ndarray:
    """(P,) bool: points above the part of the plane on which points lie, about the place the cameras look at."""
    across = np.linalg.svd(plane.normal[None])[2][1:]
    feet = xyz @ across.T
    near = np.linalg.norm(xyz - sphere.centre, axis=1) < REACH * sphere.radius
    on_plane = feet[near & (np.abs(plane.height(xyz)) < plane.tolerance)]
    try:
        inside: np.ndarray = Delaunay(on_plane).find_simplex(feet) >= 0
    except (QhullError, ValueError):  # too few points, or on a line
        return np.ones(len(xyz), bool)
    return inside


def _sphere_around(xyz: np.ndarray, plane: SupportPlane | None) -> ObjectSphere:
    """The sphere around points and their feet on the plane: the lower part of a thing may be smooth, or dark."""
    if plane is not None:
        xyz = np.concatenate([xyz, xyz - plane.height(xyz)[:, None] * plane.normal])
    low, high = np.percentile(xyz, [2, 98], axis=0)
    extent = float(np.percentile(np.linalg.norm(xyz - (low + high) / 2, axis=1), 97))
    return ObjectSphere((low + high) / 2, MARGIN * extent, "sparse points")
