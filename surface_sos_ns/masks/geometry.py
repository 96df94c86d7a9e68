"""The object prior: first masks for a capture that brings none, out of geometry and colour alone.

The object is taken to be what the cameras turn around: the point closest to all optical axes (or the one a user names),
the sparse points around it that many views see, without the plane that supports it. They seed a GrabCut in every photo;
the masks are voted into a visual hull, the hull seeds a second GrabCut, and a second vote gives m^P. The hull's
agreement with the masks tells how far to trust it all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.cluster import DBSCAN

from surface_sos_ns.capture.bounds import RADIUS_MARGIN, find_object_sphere
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.hull import VisualHull
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import SupportPlane, cut_at_plane, find_support_plane
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.provider import MaskError

__all__ = [
    "LONGEST_SIDE",
    "GeometryMasks",
    "SortedPoints",
    "masks_from_geometry",
    "shrunk_photos",
    "sort_points",
]

LONGEST_SIDE = 280
"""Photos are shrunk to this many pixels for GrabCut, whose cost and memory grow with the pixels."""

OPEN_LEVEL = 0.85
"""Fraction of votes between the rounds: lower than at the end, because GrabCut loses parts in some photos that others
bring back."""

CLOSED_LEVEL = 0.9
"""Fraction of votes of the final hull."""

SAME_COLOUR = 30
"""Largest difference of a colour channel (of 255) at which a photo is taken to show a point rather than hide it."""

MINIMUM_POINTS = 25
"""Points on the object, at least, for its shape to be taken from them."""


@dataclass(frozen=True)
class GeometryMasks:
    """Result of :func:`masks_from_geometry`: sphere, hull, N masks (H, W) float32 0/1 (None: object not in view)."""

    sphere: ObjectSphere
    hull: VisualHull
    masks: list[np.ndarray | None]


def masks_from_geometry(
    images: Sequence[np.ndarray],
    views: Views,
    points: SparsePoints | None,
    *,
    near: np.ndarray | None = None,
    radius: float | None = None,
    resolution: int = 128,
    progress: Callable[[str], None] | None = None,
) -> GeometryMasks:
    """First masks of the most central object, without any mask given.

    Args:
        images: N photos (H, W, 3) uint8 RGB, of the views' sizes.
        views: N views, world frame.
        points: sparse points, world frame, or None (then colour and the optical axes must do).
        near: (3,) a point on the object that the user named.
        radius: the object's radius if the user named it, world units.
        resolution: voxels along an edge of the hull's grid.
        progress: called with one line per stage.

    Raises:
        UserError: when the cameras see nothing in common, or no mask could be made (the message asks for masks).
    """
    sphere = find_object_sphere(views, None, points, object_point=near)
    if radius is not None:
        sphere = ObjectSphere(sphere.centre, radius, "named by the user")
    if progress:
        progress(f"prior: looking for the object around {np.round(sphere.centre, 2).tolist()} ({sphere.source})")
    small, photos = shrunk_photos(images, views)
    seeds = sort_points(small, photos, points, sphere, fixed=radius is not None)
    if progress and points is not None:
        progress(f"prior: {len(seeds.on_object)} of {len(points)} sparse points seem to lie on the object")
    sphere = seeds.sphere
    colours = _colours_from_points(small, photos, seeds) if len(seeds.on_object) else None
    trimaps = [_trimap_from_points(small, index, seeds, photo, colours) for index, photo in enumerate(photos)]
    first = _cut_all(photos, trimaps, progress, "first")
    kept = sum(mask is not None and bool(mask.any()) for mask in first)
    if kept < 2:
        raise MaskError(
            f"No mask given, and the object stands out from the rest in {kept} of {len(views)} photos only. "
            "Give coarse masks (`coarse_mask_path` in transforms.json or a folder coarse_masks/), or name a point."
        )
    masks = first
    for round_name in ("second", "third"):
        sphere = _refined_sphere(small, masks, points, sphere, near, radius)
        hull = cut_at_plane(vote_hull(small, masks, sphere, min(resolution, 96), level=OPEN_LEVEL), sphere, seeds.plane)
        trimaps = []
        for index, projected in enumerate(project_hull(hull, sphere, small)):
            labels = trimap_from_hull(projected, sphere_disc(small, index, seeds.sphere, 1.0, seeds.plane))
            if labels is not None and colours is not None:
                labels[_background_seeds(small, index, seeds) & (labels == cv2.GC_PR_BGD)] = cv2.GC_BGD
            trimaps.append(labels)
        again = _cut_all(photos, trimaps, progress, round_name)
        if sum(mask is not None and bool(mask.any()) for mask in again) < 2:
            break
        masks = again
    sphere = _refined_sphere(small, masks, points, sphere, near, radius)
    hull = cut_at_plane(
        vote_hull(small, masks, sphere, resolution, level=CLOSED_LEVEL, progress=progress), sphere, seeds.plane
    )
    enlarged = [
        None if mask is None else enlarge(mask, int(width), int(height))
        for mask, width, height in zip(masks, views.width, views.height, strict=True)
    ]
    return GeometryMasks(sphere, hull, enlarged)


def shrunk_photos(images: Sequence[np.ndarray], views: Views) -> tuple[Views, list[np.ndarray]]:
    """Views and photos at the size that is worked at, `LONGEST_SIDE` pixels at most."""
    factor = min(1.0, LONGEST_SIDE / float(max(views.width.max(), views.height.max())))
    small = views.scaled(factor)
    photos = [
        cv2.resize(image, (int(w), int(h)), interpolation=cv2.INTER_AREA)
        for image, w, h in zip(images, small.width, small.height, strict=True)
    ]
    return small, photos


@dataclass(frozen=True)
class SortedPoints:
    """Sparse points on the object, those elsewhere, and the plane that carries the object."""

    sphere: ObjectSphere
    on_object: np.ndarray  # (P, 3)
    elsewhere: np.ndarray  # (Q, 3)
    object_seen: np.ndarray  # (P, N) bool, photos in which they are not hidden
    elsewhere_seen: np.ndarray  # (Q, N) bool
    plane: SupportPlane | None

    def separation(self, views: Views, masks: Sequence[np.ndarray | None]) -> float | None:
        """How well masks tell points on the object from the others.

        Args:
            views: N views, world frame.
            masks: N masks (H, W) of the views' sizes, bool; None covers nothing.

        Returns:
            Share of the observations of object points that masks cover, minus that of the observations of other points:
            1 at best, 0 for masks without information, such as full ones. None where one sort is not observed.
        """
        shares = []
        for points, seen in ((self.on_object, self.object_seen), (self.elsewhere, self.elsewhere_seen)):
            covered = total = 0
            for view, mask in enumerate(masks):
                uv, _ = views.project_one(view, points[seen[:, view]])
                inside = uv[views.subset([view]).inside(uv[None])[0]].astype(int)
                total += len(inside)
                covered += 0 if mask is None else int(np.count_nonzero(mask[inside[:, 1], inside[:, 0]]))
            if total == 0:
                return None
            shares.append(covered / total)
        return shares[0] - shares[1]


def sort_points(
    views: Views, photos: Sequence[np.ndarray], points: SparsePoints | None, sphere: ObjectSphere, fixed: bool
) -> SortedPoints:
    """Sorts the points into object and surroundings; draws the sphere around the former unless it is ``fixed``."""
    nothing = np.zeros((0, 3))
    if points is None or len(points) < MINIMUM_POINTS:
        unseen = np.zeros((0, len(views)), bool)
        return SortedPoints(sphere, nothing, nothing, unseen, unseen, None)
    shared = views.inside(views.project(points.xyz)[0]).mean(axis=0)
    plane = find_support_plane(views.centres(), points.xyz, sphere)
    standing = shared > 0.3
    if plane is not None:
        standing &= plane.height(points.xyz) > 1.5 * plane.tolerance
        if not fixed:
            sphere = _settle(points.xyz, standing * shared**2, sphere)
    chosen = standing & (np.linalg.norm(points.xyz - sphere.centre, axis=1) < sphere.radius)
    chosen = _main_cluster(points.xyz, chosen, sphere)
    away = np.linalg.norm(points.xyz - sphere.centre, axis=1) / sphere.radius
    if chosen.sum() < MINIMUM_POINTS:
        chosen = np.zeros_like(chosen)
        other = away > 1.2
    else:
        # Points in the sphere that are off the plane, but not in the main cluster, may be either: they stay out.
        other = ~chosen & ~(standing & (away < 1.0))
        if not fixed:
            cluster = _down_to(plane, points.xyz[chosen])
            low, high = np.percentile(cluster, [2, 98], axis=0)
            extent = float(np.percentile(np.linalg.norm(cluster - (low + high) / 2, axis=1), 97))
            radius = float(np.clip(1.35 * extent, 0.3 * sphere.radius, 1.3 * sphere.radius))
            sphere = ObjectSphere((low + high) / 2, radius, "sparse points")
    seen = _seen(views, photos, points)
    return SortedPoints(sphere, points.xyz[chosen], points.xyz[other], seen[chosen], seen[other], plane)


def _down_to(plane: SupportPlane | None, cluster: np.ndarray) -> np.ndarray:
    """An object's points (P, 3), and their projections onto the support plane: its lower part may have no points.

    The projections are left out where the points begin higher above the plane than their own extent in height: then
    nothing says that the object goes down to it.
    """
    if plane is None:
        return cluster
    height = plane.height(cluster)
    low, high = np.percentile(height, [2, 98])
    if low > high - low:
        return cluster
    return np.concatenate([cluster, cluster - height[:, None] * plane.normal])


def _seen(views: Views, photos: Sequence[np.ndarray], points: SparsePoints) -> np.ndarray:
    """(P, N) bool: photos in which a point is not hidden: those of its track, and those that show its colour there."""
    seen = np.zeros((len(points), len(views)), bool)
    for index, photo in enumerate(photos):
        uv, _ = views.project_one(index, points.xyz)
        inside = np.flatnonzero(views.subset([index]).inside(uv[None])[0])
        where = np.floor(uv[inside]).astype(int)
        blurred = cv2.GaussianBlur(photo, (3, 3), 0)
        difference = np.abs(blurred[where[:, 1], where[:, 0]].astype(int) - points.rgb[inside].astype(int)).max(axis=1)
        seen[inside, index] = difference < SAME_COLOUR
    if points.visibility is not None and points.visibility.shape == seen.shape:
        seen |= points.visibility
    return seen


class Colours:
    """Which colours the object and its surroundings have, over all photos: two smoothed histograms."""

    BINS = 24

    def __init__(self) -> None:
        self.counts = np.zeros((2,) + (self.BINS,) * 3)
        self.ratio: np.ndarray | None = None

    def add(self, pixels: np.ndarray, of_object: bool) -> None:
        """Counts (P, 3) uint8 RGB pixels."""
        index = pixels.astype(np.int64) * self.BINS // 256
        flat = np.ravel_multi_index(tuple(index.T), (self.BINS,) * 3)
        self.counts[int(of_object)] += np.bincount(flat, minlength=self.BINS**3).reshape((self.BINS,) * 3)
        self.ratio = None

    def score(self, photo: np.ndarray) -> np.ndarray:
        """(H, W) log of how much better the object explains a pixel's colour, clipped to [-3, 3]."""
        if self.ratio is None:
            smooth = [ndimage.gaussian_filter(count / max(count.sum(), 1.0), 0.8) for count in self.counts]
            floor = 0.2 / self.BINS**3  # colours of neither side get a ratio near 1
            self.ratio = np.clip(np.log((smooth[1] + floor) / (smooth[0] + floor)), -3, 3)
        index = photo.astype(np.int64) * self.BINS // 256
        return self.ratio[index[..., 0], index[..., 1], index[..., 2]]


def _colours_from_points(views: Views, photos: Sequence[np.ndarray], seeds: SortedPoints) -> Colours:
    """Colours around the visible points of either side, and of everything outside the sphere's disc."""
    colours = Colours()
    for index, photo in enumerate(photos):
        blurred = cv2.GaussianBlur(photo, (0, 0), 0.7)
        outside = ~sphere_disc(views, index, seeds.sphere, 1.0, seeds.plane)
        colours.add(blurred[outside][:: max(1, int(outside.sum()) // 4000)], of_object=False)
        for points, seen, ours in (
            (seeds.on_object, seeds.object_seen, True),
            (seeds.elsewhere, seeds.elsewhere_seen, False),
        ):
            near = _density(views, index, points[seen[:, index]], 1.5) > 0.3
            colours.add(blurred[near & ~outside], of_object=ours)
    return colours


def _settle(xyz: np.ndarray, weight: np.ndarray, sphere: ObjectSphere) -> ObjectSphere:
    """Moves the sphere over the points that stand off the plane (mean shift), at most by its own radius."""
    centre = sphere.centre
    bandwidth = 0.6 * sphere.radius
    for _ in range(20):
        kernel = weight * np.exp(-((xyz - centre) ** 2).sum(axis=1) / (2 * bandwidth**2))
        if kernel.sum() < 1e-9:
            return sphere
        moved = kernel @ xyz / kernel.sum()
        step = float(np.linalg.norm(moved - centre))
        centre = moved
        if step < 1e-3 * bandwidth:
            break
    shift = centre - sphere.centre
    length = float(np.linalg.norm(shift))
    return ObjectSphere(
        sphere.centre + shift * min(1.0, sphere.radius / max(length, 1e-12)), sphere.radius, sphere.source
    )


def _main_cluster(xyz: np.ndarray, chosen: np.ndarray, sphere: ObjectSphere) -> np.ndarray:
    """Of the chosen points those of the cluster (DBSCAN) with the most points near the sphere's centre."""
    index = np.flatnonzero(chosen)
    if len(index) < MINIMUM_POINTS:
        return chosen
    relative = (xyz[index] - sphere.centre) / sphere.radius
    # DBSCAN's radius: twice the median distance to the third neighbour, between 0.03 and 0.3 radii of the sphere.
    neighbour = cKDTree(relative).query(relative, k=4)[0][:, -1]
    labels = DBSCAN(eps=float(np.clip(2 * np.median(neighbour), 0.03, 0.3)), min_samples=4).fit_predict(relative)
    if labels.max() < 0:
        return chosen
    weight = np.exp(-(relative**2).sum(axis=1) / 0.25)
    score = np.bincount(labels[labels >= 0], weights=weight[labels >= 0])
    result = np.zeros_like(chosen)
    result[index[labels == int(np.argmax(score))]] = True
    return result


def _trimap_from_points(
    views: Views, index: int, seeds: SortedPoints, photo: np.ndarray, colours: Colours | None
) -> np.ndarray | None:
    """GrabCut labels (H, W) uint8 of one photo; None when the object is not in the picture."""
    inner = sphere_disc(views, index, seeds.sphere, 1.0, seeds.plane)
    if inner.sum() < 60:
        return None
    labels = np.where(inner, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    if colours is None:
        labels[sphere_disc(views, index, seeds.sphere, 0.55, seeds.plane)] = cv2.GC_PR_FGD
        labels[sphere_disc(views, index, seeds.sphere, 0.12, None)] = cv2.GC_FGD
        return labels
    ours_seen = seeds.on_object[seeds.object_seen[:, index]]
    other = _background_seeds(views, index, seeds)
    reach = max(2.0, 0.06 * np.sqrt(float(inner.sum())))
    ours = _density(views, index, seeds.on_object, reach)
    theirs = _density(views, index, seeds.elsewhere[seeds.elsewhere_seen[:, index]], reach)
    place = np.clip(np.log((ours + 0.1) / (theirs + 0.1)), -3, 3)
    score = place + cv2.GaussianBlur(colours.score(photo), (0, 0), 1.0)
    labels[inner & (score > 0)] = cv2.GC_PR_FGD
    certain = _density(views, index, ours_seen, 1.2) > 0.3
    labels[inner & other & ~certain & (score < 0)] = cv2.GC_BGD
    labels[inner & certain & ~other & (score > 0)] = cv2.GC_FGD
    if ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).sum() < 20:
        return None
    return labels


def _background_seeds(views: Views, index: int, seeds: SortedPoints) -> np.ndarray:
    """(H, W) bool: spots where points elsewhere are seen, and where most of their neighbours are seen as well.

    A hidden point may by chance have the colour of what hides it; its neighbours then hardly do.
    """
    seen = seeds.elsewhere[seeds.elsewhere_seen[:, index]]
    share = _density(views, index, seen, 3.0) / np.maximum(_density(views, index, seeds.elsewhere, 3.0), 1e-6)
    return (_density(views, index, seen, 1.2) > 0.3) & (share > 0.6)


def sphere_disc(
    views: Views, index: int, sphere: ObjectSphere, share: float, plane: SupportPlane | None = None
) -> np.ndarray:
    """(H, W) bool: pixels whose ray meets the sphere, shrunk to ``share``, on the near side of the support plane."""
    height, width = int(views.height[index]), int(views.width[index])
    rows, columns = np.mgrid[:height, :width]
    rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
    origin = views.centres()[index]
    along = rays @ (sphere.centre - origin)
    squared = (share * sphere.radius) ** 2 - ((sphere.centre - origin) ** 2).sum() + along**2
    half = np.sqrt(np.maximum(squared, 0))
    near, far = np.maximum(along - half, 0), along + half
    meets = (squared > 0) & (far > near)
    if plane is not None:
        # For a camera above the plane, the ray has to meet the sphere before it goes down through the plane.
        start, slope = float(plane.height(origin[None])[0]), rays @ plane.normal
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(slope < 0, -(start + plane.tolerance) / slope, np.inf)
        if start > 0:
            meets &= near < crossing
    return meets.reshape(height, width)


def _density(views: Views, index: int, points: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W) float32: projected points, spread by a Gaussian of ``sigma`` pixels with peak 1."""
    height, width = int(views.height[index]), int(views.width[index])
    image = np.zeros((height, width), np.float32)
    if len(points):
        uv, _ = views.project_one(index, points)
        inside = views.subset([index]).inside(uv[None])[0]
        where = np.floor(uv[inside]).astype(int)
        np.add.at(image, (where[:, 1], where[:, 0]), 1.0)
    return cv2.GaussianBlur(image, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)


def trimap_from_hull(projected: np.ndarray, possible: np.ndarray) -> np.ndarray | None:
    """GrabCut labels from the hull's soft projection: certain well inside, undecided where ``possible``."""
    inside = projected >= 0.5
    area = int(inside.sum())
    if area < 30:
        return None
    band = max(2.0, 0.06 * np.sqrt(area))
    inner = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    outer = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3)
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[(inner > 1.5 * band) & (projected > 0.8)] = cv2.GC_FGD
    # Parts that the first masks lost have to be able to come back, so only what lies far off is excluded.
    labels[(outer > 6 * band) | (~possible & (outer > band))] = cv2.GC_BGD
    return labels


def _cut_all(
    photos: Sequence[np.ndarray],
    trimaps: Sequence[np.ndarray | None],
    progress: Callable[[str], None] | None,
    name: str,
) -> list[np.ndarray | None]:
    """GrabCut of every photo: (H, W) bool masks, largest parts only; None where there is no trimap."""
    masks: list[np.ndarray | None] = []
    for index, (photo, labels) in enumerate(zip(photos, trimaps, strict=True)):
        if progress and index % max(1, len(photos) // 4) == 0:
            progress(f"prior: {name} GrabCut, photo {index + 1} of {len(photos)}")
        masks.append(None if labels is None else cut(photo, labels))
    return masks


def cut(photo: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al. 2004) of a photo (H, W, 3) uint8 from labels (H, W): (H, W) bool, its largest parts."""
    labels = labels.copy()
    certain = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if certain.all() or not certain.any():
        return certain
    cv2.setRNGSeed(0)  # GrabCut's colour clusters start from OpenCV's random numbers
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(photo[..., ::-1])
    try:
        cv2.grabCut(bgr, labels, (0, 0, 0, 0), background, foreground, 4, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return certain  # too few pixels of one kind to fit its colours: the seeds are all there is
    mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count > 2:
        area = statistics[1:, cv2.CC_STAT_AREA]
        mask = np.isin(parts, 1 + np.flatnonzero(area >= 0.2 * area.max()))
    return mask


def _refined_sphere(
    views: Views,
    masks: Sequence[np.ndarray | None],
    points: SparsePoints | None,
    before: ObjectSphere,
    near: np.ndarray | None,
    radius: float | None,
) -> ObjectSphere:
    """The sphere the masks suggest, kept near the one they were made from."""
    if radius is not None:
        return before
    try:
        found = find_object_sphere(views, masks, points, object_point=near)
    except CaptureError:
        return ObjectSphere(before.centre, before.radius, "geometry")
    if np.linalg.norm(found.centre - before.centre) > before.radius:
        return ObjectSphere(before.centre, before.radius, "geometry")
    limit = RADIUS_MARGIN * before.radius + float(np.linalg.norm(found.centre - before.centre))
    return ObjectSphere(found.centre, min(found.radius, limit), "geometry and colour")


def enlarge(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at the photo's size, 0/1 float32."""
    soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (soft >= 0.5).astype(np.float32)
