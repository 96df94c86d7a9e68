"""The soft visual hull m^P: what many imperfect masks say together about the space the object occupies.

Every view that sees a voxel votes on it with its slightly dilated mask. Single masks are wrong (bites, false blobs,
blobby outlines), so the votes are counted, not intersected: a voxel belongs to the hull when a weighted fraction of the
votes, the *level*, covers it. The votes are taken more than once: the first rounds, on a coarse grid, show how far each
view agrees with the others, the last counts each view by that agreement. The paper calls m^P a probability map (text of
eq. 4) and does not say how it is made; this construction is ours.

Everything here is numpy in the object frame, ``p_obj = (p_world - centre) / radius``; the grid covers [-1, 1]^3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.overlap import intersection_over_union

if TYPE_CHECKING:
    from surface_sos_ns.capture.sphere import ObjectSphere

__all__ = ["VoteGrid", "main_body", "mask_agreement", "outline_band", "project_hull", "vote_hull", "voxel_centres"]

Progress = Callable[[str], None]

SPREAD = 0.05
"""Width, in fraction of votes, of the logistic that turns votes into probabilities: one to two views out of forty."""

PIECE = 0.25
"""Part of the largest piece's volume from which on another one belongs to the object too."""
BRIDGED = 0.08
"""Gaps up to which pieces hang together, object radii: thin parts are broken in votes."""

LEVELS = np.linspace(0.5, 0.95, 19)
"""Vote fractions tried as the hull's decision level when none is given."""


@dataclass(frozen=True)
class VoteGrid:
    """The soft visual hull on a grid.

    Attributes:
        probability: (R, R, R) float32 in [0, 1], index [x, y, z]; values at the centres of the voxels that tile
            [-1, 1]^3 of the object frame. 0.5 is the hull's decision level.
        view_weights: (N,) float32 in [0, 1], how far each view's mask agrees with the vote; 0 for empty or
            missing masks.
        agreement: mean IoU of the non-empty masks with the hull's projection, in [0, 1].
        level: the fraction of votes that maps to a probability of 0.5.
    """

    probability: np.ndarray
    view_weights: np.ndarray
    agreement: float
    level: float = 0.8

    @property
    def resolution(self) -> int:
        return self.probability.shape[0]

    def relaxed(self, votes: float) -> VoteGrid:
        """The same votes with a decision level lowered by `votes` (a fraction of the votes).

        Nearly every object point is inside such a hull, at the price of space that is not the object's: what training
        starts from, since colours carve surplus away more easily than they grow what is missing.
        """
        probability = np.clip(self.probability, 1e-6, 1 - 1e-6)
        odds = probability / (1 - probability) * np.exp(votes / SPREAD)
        return replace(self, probability=(odds / (1 + odds)).astype(np.float32), level=self.level - votes)

    def signed_distance(self, level: float = 0.5) -> np.ndarray:
        """(R, R, R) float32 signed distance to the surface ``probability = level``, negative inside.

        In object-frame units. Euclidean distance transform of the voxels, with the half voxel between neighbouring
        voxel centres split where the probability crosses the level, then smoothed by one voxel.

        Raises:
            CaptureError: when no voxel, or every voxel, lies inside, so that there is no surface.
        """
        inside = self.probability >= level
        if not inside.any() or inside.all():
            state = "no voxel" if not inside.any() else "every voxel"
            raise CaptureError(
                f"The voted hull has no surface: {state} reaches the probability {level}. "
                "Check the coarse masks and the object's centre and radius."
            )
        # Distance from a voxel centre to the nearest centre of the other side; the surface lies half a voxel before it.
        outer = ndimage.distance_transform_edt(~inside).astype(np.float32)
        inner = ndimage.distance_transform_edt(inside).astype(np.float32)
        distance = np.where(inside, 0.5 - inner, outer - 0.5)
        distance = ndimage.gaussian_filter(distance, sigma=1.0, mode="nearest")
        return (distance * (2.0 / self.resolution)).astype(np.float32)


def main_body(hull: VoteGrid) -> VoteGrid:
    """The hull without the space around small pieces that hang together with nothing.

    What masks without labels take for the object beside it, such as furniture that a few photos show at their border,
    floats there. Masks that a person vouches for may well mean several things, so theirs are not for this.
    """
    inside, neighbours = hull.probability >= 0.5, np.ones((3, 3, 3))
    grown = ndimage.binary_dilation(inside, neighbours, iterations=max(1, round(BRIDGED / 4 * hull.resolution)))
    pieces, count = ndimage.label(grown, neighbours)
    if count < 2:
        return hull
    volumes = np.bincount(pieces[inside], minlength=count + 1)[1:]
    kept = np.concatenate([[False], volumes >= PIECE * volumes.max()])
    if kept[1:].all():
        return hull
    nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    around_kept = kept[pieces[tuple(nearest)]]
    return replace(hull, probability=np.where(around_kept, hull.probability, 0).astype(np.float32))


def voxel_centres(resolution: int) -> np.ndarray:
    """(R,) coordinates along one axis of the voxel centres that tile [-1, 1]."""
    return (np.arange(resolution, dtype=np.float32) + 0.5) * (2.0 / resolution) - 1.0


def vote_hull(
    views: Views,
    masks: Sequence[np.ndarray | None],
    sphere: ObjectSphere,
    resolution: int = 128,
    dilation_px: float = 1.0,
    quantile: float | None = None,
    progress: Progress | None = None,
) -> VoteGrid:
    """Votes the masks into a soft visual hull inside the cube around ``sphere``.

    Args:
        views: N views, world frame.
        masks: N masks (H, W), bool or 0..1 (cut at 0.5), of the views' sizes; None where a view has none. Empty masks
            are taken as failures of whoever made them, not as evidence of absence.
        sphere: the cube [-1, 1]^3 of the object frame circumscribes it.
        resolution: voxels along an edge of the cube.
        dilation_px: how far masks are dilated, in pixels of an image whose longest side is 320 (so that it does not
            depend on the resolution); keeps thin parts alive.
        quantile: fraction of (weighted) votes a voxel of the hull needs; None takes the one whose projection agrees
            best with the masks.
        progress: called with one line per stage.

    Returns:
        The grid; its probability is a logistic of the weighted vote fraction around the decision level.

    Raises:
        ValueError: when masks and views do not match.
        CaptureError: when no mask has any object pixel.
    """
    binary = _checked_masks(views, masks)
    usable = np.array([mask is not None and bool(mask.any()) for mask in binary])
    if not usable.any():
        raise CaptureError(
            "No coarse mask has an object pixel, so there is nothing to vote on. Check that the object is white (255) "
            "in the masks, or train without masks."
        )
    if progress:
        progress(f"voting {int(usable.sum())} masks of {len(views)} views into {resolution}^3 voxels")
    coarse = max(16, min(64, resolution))
    weights = usable.astype(np.float64)
    small = _Silhouettes(views, binary, sphere, coarse)
    for _ in range(2):
        fraction = _vote_fractions(views, binary, weights, sphere, coarse, dilation_px)
        level, overlaps = _best_level(small, fraction, weights, quantile)
        weights = _weights_from_overlap(overlaps, usable)
    fraction = _vote_fractions(views, binary, weights, sphere, resolution, dilation_px)
    fine = _Silhouettes(views, binary, sphere, resolution)
    nearby = None if quantile is not None else LEVELS[np.abs(LEVELS - level) < 0.08]
    level, overlaps = _best_level(fine, fraction, weights, quantile, nearby)
    weights = _weights_from_overlap(overlaps, usable)
    with np.errstate(over="ignore"):
        probability = 1.0 / (1.0 + np.exp(-(fraction - np.float32(level)) / np.float32(SPREAD)))
    probability[fraction <= 0] = 0.0
    agreement = float(np.mean(overlaps[usable]))
    if progress:
        progress(f"voted: level {level:.2f} of the votes, masks agree with the hull at IoU {agreement:.2f}")
    return VoteGrid(probability.astype(np.float32), weights.astype(np.float32), agreement, float(level))


def mask_agreement(
    views: Views, masks: Sequence[np.ndarray | None], grid: VoteGrid, sphere: ObjectSphere
) -> np.ndarray:
    """(N,) IoU of each mask with the hull's projection (probability >= 0.5); nan for missing masks."""
    binary = _checked_masks(views, masks)
    overlaps = _Silhouettes(views, binary, sphere, grid.resolution).overlaps(grid.probability >= 0.5)
    overlaps[[mask is None for mask in binary]] = np.nan
    return overlaps


def project_hull(
    grid: VoteGrid, sphere: ObjectSphere, views: Views, size: tuple[int, int] | None = None, floor: float = 0.02
) -> np.ndarray | list[np.ndarray]:
    """The hull's soft projection: per pixel the largest probability along its ray.

    Voxels are splatted first; where that leaves the outline open, the ray is marched exactly (trilinear
    interpolation).

    Args:
        grid: the hull.
        sphere: the sphere whose object frame the grid is in.
        views: N views, world frame.
        size: (height, width) of the result; None takes each view's own size.
        floor: probabilities below this count as zero.

    Returns:
        (N, H, W) float32 in [0, 1]; with ``size=None`` and views of different sizes a list of (H, W) arrays.
    """
    images = []
    for view in range(len(views)):
        single = views.subset([view])
        height, width = size if size is not None else (int(single.height[0]), int(single.width[0]))
        images.append(_project_one(grid, sphere, single, height, width, floor))
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    return images


def outline_band(silhouette: np.ndarray, width: float) -> np.ndarray:
    """The pixels of ``silhouette`` (H, W bool) and those within ``width`` pixels around it: (H, W) bool."""
    if not silhouette.any() or silhouette.all():
        return np.zeros(silhouette.shape, dtype=bool)
    outside = cv2.distanceTransform((~silhouette).astype(np.uint8), cv2.DIST_L2, 5)
    return outside <= width


def _project_one(
    grid: VoteGrid, sphere: ObjectSphere, view: Views, height: int, width: int, floor: float
) -> np.ndarray:
    """(height, width) soft projection in the one view of ``view``."""
    resized = Views(
        view.camera_to_world,
        view.fx * width / view.width,
        view.fy * height / view.height,
        view.cx * width / view.width,
        view.cy * height / view.height,
        np.array([width]),
        np.array([height]),
        view.distortion,
        view.fisheye,
    )
    splat = _splat(resized, 0, grid.probability, sphere, floor)
    lowest, highest = ndimage.minimum_filter(splat, 5), ndimage.maximum_filter(splat, 5)
    open_pixels = (highest > floor) & (lowest < 0.9)
    rows, columns = np.nonzero(open_pixels)
    image = np.where(open_pixels, 0.0, splat).astype(np.float32)
    if not len(rows):
        return image
    directions = resized.rays(0, np.stack([columns + 0.5, rows + 0.5], axis=-1))
    origin = (resized.centres()[0] - sphere.centre) / sphere.radius
    image[rows, columns] = _march(grid.probability, origin, directions, floor)
    image[image < floor] = 0.0
    return image


def _march(values: np.ndarray, origin: np.ndarray, directions: np.ndarray, floor: float) -> np.ndarray:
    """(P,) maximum of a grid over [-1, 1]^3 along rays, object frame; 0 for rays that miss it.

    A walk in steps of a voxel with nearest look-ups finds where the maximum is; trilinear interpolation in steps of
    half a voxel around that place says how large it is. Only the box of voxels above ``floor`` is walked through.
    """
    resolution = values.shape[0]
    occupied = np.argwhere(values > floor)
    # Grid coordinates from here on: voxel (i, j, k) has its centre at (i, j, k).
    lower, upper = occupied.min(axis=0) - 1.0, occupied.max(axis=0) + 1.0
    start = (origin + 1) * (resolution / 2) - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (lower - start) / directions, (upper - start) / directions
    near = np.nanmax(np.minimum(first, second), axis=1).clip(min=0)
    far = np.nanmin(np.maximum(first, second), axis=1)
    result = np.zeros(len(directions), np.float32)
    hit = np.flatnonzero(far > near)
    if not len(hit):
        return result
    padded = np.pad(values, 2).ravel()  # rays step at most one voxel out of the box, so look-ups need no clamp
    stride = resolution + 4
    shift = np.float32(2.5)
    for chunk in np.array_split(hit, max(1, len(hit) // 4096)):
        entry = (start + directions[chunk] * near[chunk, None]).astype(np.float32)
        direction = directions[chunk].astype(np.float32)
        length = (far - near)[chunk].astype(np.float32)
        best = np.full(len(chunk), -1.0, np.float32)
        place = np.zeros(len(chunk), np.float32)
        for step in np.arange(0.5, float(length.max()) + 0.5, 1.0, dtype=np.float32):
            along = np.minimum(length, step)
            flat = np.zeros(len(chunk), np.int32)
            for axis in range(3):
                flat *= stride
                flat += (entry[:, axis] + direction[:, axis] * along + shift).astype(np.int32)
            found = padded.take(flat)
            better = found > best
            best = np.where(better, found, best)
            place = np.where(better, along, place)
        around = place[:, None] + np.arange(-1.5, 1.6, 0.5, dtype=np.float32)
        index = entry.T[:, :, None] + direction.T[:, :, None] * around
        exact = ndimage.map_coordinates(values, index.reshape(3, -1), order=1, mode="constant", prefilter=False)
        result[chunk] = exact.reshape(around.shape).max(axis=1)
    return result


def _splat(view: Views, index: int, values: np.ndarray, sphere: ObjectSphere, floor: float) -> np.ndarray:
    """(H, W) largest voxel value per pixel; computed at a size where a voxel covers about a pixel, then enlarged."""
    height, width = int(view.height[index]), int(view.width[index])
    voxels = np.nonzero(values > floor)
    if not len(voxels[0]):
        return np.zeros((height, width), np.float32)
    axis = voxel_centres(values.shape[0]).astype(np.float64)
    points = np.stack([axis[i] for i in voxels], axis=-1) * sphere.radius + sphere.centre
    uv, _ = view.project_one(index, points)
    footprint = _footprint(view, index, sphere, values.shape[0])
    shrink = max(1.0, footprint)
    small_height, small_width = max(1, round(height / shrink)), max(1, round(width / shrink))
    with np.errstate(invalid="ignore"):
        column = np.floor(uv[:, 0] * (small_width / width))
        row = np.floor(uv[:, 1] * (small_height / height))
        seen = (column >= 0) & (row >= 0) & (column < small_width) & (row < small_height)
    image = np.zeros(small_height * small_width, np.float32)
    flat = (row[seen] * small_width + column[seen]).astype(np.int64)
    np.maximum.at(image, flat, values[voxels][seen])
    image = ndimage.grey_closing(image.reshape(small_height, small_width), 3)
    if (small_height, small_width) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _footprint(view: Views, index: int, sphere: ObjectSphere, resolution: int) -> float:
    """Pixels across which one voxel edge spreads at the object's centre (or at the nearest useful depth)."""
    depth = float((sphere.centre - view.centres()[index]) @ view.axes()[index])
    depth = max(depth, 0.5 * sphere.radius)
    return float(max(view.fx[index], view.fy[index])) * (2 * sphere.radius / resolution) / depth


def _checked_masks(views: Views, masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Masks as bool arrays of the views' sizes."""
    if len(masks) != len(views):
        raise ValueError(
            f"There are {len(masks)} masks for {len(views)} views; give one per view (None where missing)."
        )
    result: list[np.ndarray | None] = []
    for index, mask in enumerate(masks):
        if mask is None:
            result.append(None)
            continue
        mask = np.asarray(mask)
        if mask.ndim == 3 and mask.shape[2] == 1:
            mask = mask[..., 0]
        expected = (int(views.height[index]), int(views.width[index]))
        if mask.shape != expected:
            raise ValueError(
                f"The mask of view {index} has shape {mask.shape}; its photo is {expected} (height, width). "
                "Make the mask the size of the photo."
            )
        if mask.dtype == np.uint8:
            raise ValueError(f"The mask of view {index} is uint8; divide it by 255 so that it lies in [0, 1].")
        result.append(mask if mask.dtype == np.bool_ else mask >= 0.5)
    return result


def _ballot(mask: np.ndarray, dilation_px: float) -> np.ndarray:
    """(H, W) float32 vote of a mask: 1 inside, 0 outside, a ramp two pixels wide around its dilated outline."""
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    if mask.all():
        return np.ones(mask.shape, np.float32)
    signed = np.where(mask, inner - 0.5, 0.5 - outer) + dilation_px
    return np.clip(0.5 + 0.5 * signed, 0.0, 1.0).astype(np.float32)


def _vote_fractions(
    views: Views,
    masks: Sequence[np.ndarray | None],
    weights: np.ndarray,
    sphere: ObjectSphere,
    resolution: int,
    dilation_px: float,
) -> np.ndarray:
    """(R, R, R) float32: of the weight of the views that see a voxel, the part whose mask covers it.

    Voxels that less than a fifth of the weight sees have no say-so and get 0.
    """
    covered = np.zeros((resolution,) * 3, np.float32)
    seen = np.zeros_like(covered)
    axis = voxel_centres(resolution) * np.float32(sphere.radius)
    slab = max(1, 300_000 // resolution**2)  # voxels per pass that stay in the processor's cache
    for index, mask in enumerate(masks):
        if mask is None or weights[index] <= 0:
            continue
        height, width = mask.shape
        ballot = _ballot(mask, dilation_px * max(height, width) / 320)
        # Nearest look-up in an enlarged ballot is as good as interpolation and several times faster.
        if max(height, width) <= 1000:
            ballot = cv2.resize(ballot, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
        rows, columns = ballot.shape
        # A ring of zeros takes the look-ups from outside the image; `visible` keeps them out of the count.
        padded = np.zeros((rows + 2, columns + 2), np.float32)
        padded[1:-1, 1:-1] = ballot
        visible = np.zeros_like(padded)
        visible[1:-1, 1:-1] = weights[index]
        padded *= np.float32(weights[index])
        padded, visible = padded.ravel(), visible.ravel()
        rotation = views.camera_to_world[index, :, :3].T
        offset = rotation @ (sphere.centre - views.camera_to_world[index, :, 3])
        along = [rotation[:, i, None].astype(np.float32) * axis for i in range(3)]  # (3, R) each
        scale_x, scale_y = np.float32(columns / width), np.float32(rows / height)
        plane = along[1][:, None, :, None] + along[2][:, None, None, :] + offset.astype(np.float32)[:, None, None, None]
        for start in range(0, resolution, slab):
            stop = min(start + slab, resolution)
            local = plane + along[0][:, start:stop, None, None]
            u, v, _ = views.project_camera(index, local[0], local[1], local[2])
            u *= scale_x
            v *= scale_y
            u += 1
            v += 1
            # nan (behind the camera) is sent to the ring as well
            np.fmin(np.fmax(u, 0, out=u), columns + 1, out=u)
            np.fmin(np.fmax(v, 0, out=v), rows + 1, out=v)
            flat = v.astype(np.int32)
            flat *= columns + 2
            flat += u.astype(np.int32)
            covered[start:stop] += padded.take(flat)
            seen[start:stop] += visible.take(flat)
    enough = seen > 0.2 * float(sum(weights[i] for i, mask in enumerate(masks) if mask is not None))
    np.divide(covered, seen, out=covered, where=enough)
    covered[~enough] = 0.0
    return covered


class _Silhouettes:
    """Compares a set of voxels with all masks, quickly: voxels are splatted into masks shrunk to the voxels' size."""

    def __init__(self, views: Views, masks: Sequence[np.ndarray | None], sphere: ObjectSphere, resolution: int) -> None:
        self.views, self.sphere, self.resolution = views, sphere, resolution
        self.masks: list[np.ndarray | None] = []
        for index, mask in enumerate(masks):
            if mask is None:
                self.masks.append(None)
                continue
            shrink = max(1.0, 1.2 * _footprint(views, index, sphere, resolution))
            size = max(1, round(mask.shape[1] / shrink)), max(1, round(mask.shape[0] / shrink))
            if size != mask.shape[::-1]:
                mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
            self.masks.append(mask)

    def maxima(self, values: np.ndarray, floor: float) -> list[np.ndarray | None]:
        """Per view the largest value that projects to each pixel of the shrunk mask."""
        axis = voxel_centres(self.resolution) * np.float32(self.sphere.radius)
        voxels = np.nonzero(values >= floor)
        points = np.stack([axis[i] for i in voxels], axis=-1) + self.sphere.centre.astype(np.float32)
        order = np.argsort(values[voxels], kind="stable")
        points, sorted_values = points[order], values[voxels][order]
        result: list[np.ndarray | None] = []
        for index, mask in enumerate(self.masks):
            if mask is None:
                result.append(None)
                continue
            rows, columns = mask.shape
            uv, _ = self.views.project_one(index, points)
            with np.errstate(invalid="ignore"):
                column = np.floor(uv[:, 0] * np.float32(columns / self.views.width[index]))
                row = np.floor(uv[:, 1] * np.float32(rows / self.views.height[index]))
                seen = (column >= 0) & (row >= 0) & (column < columns) & (row < rows)
            image = np.zeros(rows * columns, np.float32)
            # Values are sorted, and of repeated indices the last assignment stays: the maximum.
            image[(row[seen] * columns + column[seen]).astype(np.int64)] = sorted_values[seen]
            result.append(ndimage.grey_closing(image.reshape(rows, columns), 3))
        return result

    def overlaps(self, inside: np.ndarray) -> np.ndarray:
        """(N,) IoU of each mask with the projection of the voxels ``inside``; 0 where there is no mask."""
        return self.overlaps_at(inside.astype(np.float32), np.array([0.5]))[0]

    def overlaps_at(self, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(L, N) IoU of each mask with the projection of ``values >= level``."""
        result = np.zeros((len(levels), len(self.masks)))
        images = self.maxima(values, float(levels.min()))
        for view, (mask, image) in enumerate(zip(self.masks, images, strict=True)):
            if mask is not None and image is not None:
                result[:, view] = [intersection_over_union(mask, image >= level) for level in levels]
        return result


def _best_level(
    silhouettes: _Silhouettes,
    fraction: np.ndarray,
    weights: np.ndarray,
    quantile: float | None,
    levels: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """The vote fraction whose hull agrees best with the masks (weighted mean IoU), and the views' IoU there."""
    candidates = LEVELS if levels is None else levels
    if quantile is not None:
        candidates = np.array([quantile])
    overlaps = silhouettes.overlaps_at(fraction, candidates)
    best = int(np.argmax(overlaps @ weights))
    return float(candidates[best]), overlaps[best]


def _weights_from_overlap(overlaps: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Weights in [0, 1]: the squared IoU relative to a good view of this capture (its 75th percentile)."""
    good = float(np.percentile(overlaps[usable], 75))
    if good <= 0:
        return usable.astype(np.float64)
    return np.where(usable, np.clip(overlaps / good, 0.0, 1.0) ** 2, 0.0)
