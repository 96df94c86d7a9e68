"""Space carving by vote: the visual hull of many imperfect masks.

Each view that sees a voxel votes with its slightly dilated mask. Coarse masks have holes, false positives and rough
outlines, so the votes are counted and not intersected: a voxel belongs to the hull if a weighted fraction of the votes,
the *level*, covers it. The vote is repeated: two rounds on a coarse grid measure the IoU of each mask with the hull,
and the last round weights each view by it. Where pictures cut the object off, cells that few views see count as well,
if masks need them (`few_views`). The paper does not say how its map m^P is made; this is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.cut_off import mostly_whole
from surface_sos_ns.capture.few_views import WELL_SEEN, connected_cells, needed_cells, resampled, shrunk_fraction
from surface_sos_ns.capture.hull import VOTE_SOFTNESS, VisualHull, voxel_centres
from surface_sos_ns.capture.hull_projection import voxel_footprint
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.outline_distance import signed_distance
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = ["binary_masks", "mask_agreement", "vote_hull"]

Progress = Callable[[str], None]

CANDIDATE_LEVELS = np.linspace(0.5, 0.95, 19)
"""Vote fractions that are tried as the hull's decision level when none is given."""


def vote_hull(
    views: Views,
    masks: Sequence[np.ndarray | None],
    sphere: ObjectSphere,
    resolution: int = 128,
    dilation_px: float = 1.0,
    level: float | None = None,
    progress: Progress | None = None,
) -> VisualHull:
    """The soft visual hull of the masks, inside the cube around ``sphere``.

    Args:
        views: N views, world frame.
        masks: N masks (H, W), bool or 0..1 (thresholded at 0.5), of the views' sizes; None where a view has none. Empty
            masks count as missing, not as evidence that the object is out of the picture.
        sphere: the cube [-1, 1]^3 of the object frame circumscribes it.
        resolution: voxels along an edge of the cube.
        dilation_px: dilation of the masks in pixels of an image whose longer side is 320, so that it does not depend
            on the resolution. It keeps thin parts.
        level: fraction of the (weighted) votes that a voxel of the hull needs, in [0, 1]; None takes the one whose
            hull has the best mean IoU with the masks.
        progress: called with one line per stage.

    Returns:
        The hull; its probability is a logistic of the weighted vote fraction around the decision level.

    Raises:
        ValueError: masks and views do not match in number or size.
        CaptureError: no mask has any object pixel.
    """
    binary = binary_masks(views, masks)
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
    small = _SilhouetteIoU(views, binary, sphere, coarse)
    candidates = CANDIDATE_LEVELS if level is None else np.array([level])
    whole, chosen = mostly_whole(binary), float(candidates.mean())
    for _ in range(2):
        votes = _vote(views, binary, weights, sphere, coarse, dilation_px)
        fraction = votes.of_many() if whole else small.needed(votes, weights, chosen)
        chosen, ious = _best_level(small, fraction, weights, candidates)
        weights = _weights_from_ious(ious if whole else small.where_many_look(fraction, votes, chosen), usable)
    if not whole:
        needed = small.needed(_vote(views, binary, weights, sphere, coarse, dilation_px), weights, chosen) > 0
    votes = _vote(views, binary, weights, sphere, resolution, dilation_px)
    fraction = votes.of_many() if whole else np.where(resampled(needed, resolution), votes.share(), np.float32(0))
    fine = _SilhouetteIoU(views, binary, sphere, resolution)
    nearby = CANDIDATE_LEVELS[np.abs(CANDIDATE_LEVELS - chosen) < 0.08]
    chosen, ious = _best_level(fine, fraction, weights, nearby if level is None else np.array([level]))
    weights = _weights_from_ious(ious if whole else fine.where_many_look(fraction, votes, chosen), usable)
    seen = fraction > 0
    if not whole:
        fraction = shrunk_fraction(votes.covered, votes.visible, chosen)
    with np.errstate(over="ignore"):
        probability = 1.0 / (1.0 + np.exp(-(fraction - np.float32(chosen)) / np.float32(VOTE_SOFTNESS)))
    probability[~seen] = 0.0
    if not whole:
        probability[~connected_cells(probability, votes.seen_by_many)] = 0.0
    agreement = float(np.mean(ious[usable]))
    if progress:
        progress(f"voted: level {chosen:.2f} of the votes, masks agree with the hull at IoU {agreement:.2f}")
    return VisualHull(probability.astype(np.float32), weights.astype(np.float32), agreement, float(chosen))


def mask_agreement(
    views: Views, masks: Sequence[np.ndarray | None], hull: VisualHull, sphere: ObjectSphere
) -> np.ndarray:
    """(N,) IoU of each mask with the hull's projection (probability >= 0.5); nan for missing masks."""
    binary = binary_masks(views, masks)
    silhouettes = _SilhouetteIoU(views, binary, sphere, hull.resolution)
    ious = silhouettes.at_levels((hull.probability >= 0.5).astype(np.float32), np.array([0.5]))[0]
    ious[[mask is None for mask in binary]] = np.nan
    return ious


def binary_masks(views: Views, masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Masks (H, W) thresholded at 0.5, as bool arrays; None stays None.

    Raises:
        ValueError: there is not one mask, or None, per view, a mask is not of its view's size, or it is uint8.
    """
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


def _soft_mask(mask: np.ndarray, dilation_px: float) -> np.ndarray:
    """(H, W) float32: a dilated mask, 1 inside and 0 outside, with a ramp of two pixels across its outline."""
    if mask.all():
        return np.ones(mask.shape, np.float32)
    return np.clip(0.5 + 0.5 * (signed_distance(mask) + dilation_px), 0.0, 1.0).astype(np.float32)


class _Votes(NamedTuple):
    """Weighted votes of masks on cells."""

    covered: np.ndarray  # (R, R, R) float32, of the masks that cover a cell
    visible: np.ndarray  # (R, R, R) float32, of the masks whose picture shows it
    total: float  # of all masks

    @property
    def seen_by_many(self) -> np.ndarray:
        """(R, R, R) bool: cells whose visible weight exceeds `WELL_SEEN` times the largest of all cells."""
        return self.visible > WELL_SEEN * float(self.visible.max())

    def of_many(self) -> np.ndarray:
        """(R, R, R) float32 in [0, 1]: share of the votes for a cell; 0 where less than `WELL_SEEN` of all see it."""
        return self._share(self.visible > WELL_SEEN * self.total)

    def share(self) -> np.ndarray:
        """(R, R, R) float32 in [0, 1]: share of the votes for a cell; 0 where none sees it."""
        return self._share(self.visible > 0)

    def _share(self, where: np.ndarray) -> np.ndarray:
        share = np.zeros_like(self.covered)
        np.divide(self.covered, self.visible, out=share, where=where)
        return share


def _vote(
    views: Views,
    masks: Sequence[np.ndarray | None],
    weights: np.ndarray,
    sphere: ObjectSphere,
    resolution: int,
    dilation_px: float,
) -> _Votes:
    """The votes on the cells of the cube around ``sphere``."""
    covered = np.zeros((resolution,) * 3, np.float32)
    visible_weight = np.zeros_like(covered)
    axis = voxel_centres(resolution) * np.float32(sphere.radius)
    slab = max(1, 300_000 // resolution**2)  # layers of a pass whose arrays fit into the processor's cache
    for index, mask in enumerate(masks):
        if mask is None or weights[index] <= 0:
            continue
        height, width = mask.shape
        soft = _soft_mask(mask, dilation_px * max(height, width) / 320)
        # Nearest-neighbour look-ups in an enlarged mask are as good as bilinear ones and several times faster.
        if max(height, width) <= 1000:
            soft = cv2.resize(soft, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
        rows, columns = soft.shape
        # Look-ups outside the image fall on a border of zeros, and `visible` does not count them.
        padded = np.zeros((rows + 2, columns + 2), np.float32)
        padded[1:-1, 1:-1] = soft
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
            # nan (behind the camera) goes to the border as well
            np.fmin(np.fmax(u, 0, out=u), columns + 1, out=u)
            np.fmin(np.fmax(v, 0, out=v), rows + 1, out=v)
            flat = v.astype(np.int32)
            flat *= columns + 2
            flat += u.astype(np.int32)
            covered[start:stop] += padded.take(flat)
            visible_weight[start:stop] += visible.take(flat)
    total = float(sum(weights[i] for i, mask in enumerate(masks) if mask is not None))
    return _Votes(covered, visible_weight, total)


class _SilhouetteIoU:
    """IoU of the masks with silhouettes of voxels.

    Voxels are splatted into masks that are shrunk until a pixel is about as large as a voxel, which is fast.
    """

    def __init__(self, views: Views, masks: Sequence[np.ndarray | None], sphere: ObjectSphere, resolution: int) -> None:
        self.views, self.sphere, self.resolution = views, sphere, resolution
        self.masks: list[np.ndarray | None] = []
        for index, mask in enumerate(masks):
            if mask is None:
                self.masks.append(None)
                continue
            shrink = max(1.0, 1.2 * voxel_footprint(views, index, sphere, resolution))
            size = max(1, round(mask.shape[1] / shrink)), max(1, round(mask.shape[0] / shrink))
            if size != mask.shape[::-1]:
                mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
            self.masks.append(mask)

    def _splat_maximum(self, values: np.ndarray, floor: float) -> list[np.ndarray | None]:
        """Per view, at the size of its shrunk mask, the largest of ``values >= floor`` that projects to each pixel."""
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
            places = self.views.pixel_places(index, points, mask.shape)
            visible = places >= 0
            image = np.zeros(rows * columns, np.float32)
            # Values are sorted, and the last assignment to a repeated index wins: the maximum.
            image[places[visible]] = sorted_values[visible]
            result.append(ndimage.grey_closing(image.reshape(rows, columns), 3))
        return result

    def needed(self, votes: _Votes, weights: np.ndarray, level: float) -> np.ndarray:
        """(R, R, R) share of the votes for a cell; 0 where masks do not need it, see `few_views`.

        Args:
            votes: on cells at this resolution.
            weights: (N,) of the masks.
            level: share of the votes from which on a cell is the object's.
        """
        share, many = votes.share(), votes.seen_by_many
        silhouettes = self._splat_maximum(np.where(many, share, np.float32(0)), level)
        unexplained = [
            None if mask is None or image is None else mask & ~ndimage.binary_dilation(image >= level)
            for mask, image in zip(self.masks, silhouettes, strict=True)
        ]
        allowed = needed_cells(self.views, self.masks, unexplained, weights, self.sphere, share, many, level)
        return np.where(allowed, share, np.float32(0))

    def where_many_look(self, fraction: np.ndarray, votes: _Votes, level: float) -> np.ndarray:
        """(N,) IoU of each mask with the silhouette of the cells that many see; 0 where there is no mask.

        Pixels to which only cells that few see project are left out: they neither raise nor lower a mask's IoU.
        """
        many = np.where(votes.seen_by_many, fraction, np.float32(0))
        result = np.zeros(len(self.masks))
        silhouettes = zip(self._splat_maximum(fraction, level), self._splat_maximum(many, level), strict=True)
        for view, (mask, (all_cells, main)) in enumerate(zip(self.masks, silhouettes, strict=True)):
            if mask is not None and all_cells is not None and main is not None:
                main = main >= level
                result[view] = intersection_over_union(mask & (main | (all_cells < level)), main)
        return result

    def at_levels(self, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(L, N) IoU of each mask with the silhouette of ``values >= level``; 0 where there is no mask."""
        result = np.zeros((len(levels), len(self.masks)))
        images = self._splat_maximum(values, float(levels.min()))
        for view, (mask, image) in enumerate(zip(self.masks, images, strict=True)):
            if mask is not None and image is not None:
                result[:, view] = [intersection_over_union(mask, image >= level) for level in levels]
        return result


def _best_level(
    silhouettes: _SilhouetteIoU, fraction: np.ndarray, weights: np.ndarray, levels: np.ndarray
) -> tuple[float, np.ndarray]:
    """The one of ``levels`` (L,) with the best weighted mean IoU of masks and silhouettes, and its IoUs (N,)."""
    ious = silhouettes.at_levels(fraction, levels)
    best = int(np.argmax(ious @ weights))
    return float(levels[best]), ious[best]


def _weights_from_ious(ious: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(N,) weights in [0, 1]: the square of a view's IoU over the 75th percentile of all IoUs."""
    typical = float(np.percentile(ious[usable], 75))
    if typical <= 0:
        return usable.astype(np.float64)
    return np.where(usable, np.clip(ious / typical, 0.0, 1.0) ** 2, 0.0)
