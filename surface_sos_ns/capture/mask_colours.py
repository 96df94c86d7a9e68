"""Coarse masks corrected by the photos' colours, where colours alone tell the object from what is around it.

Voting removes errors of single masks. Errors that all masks share stay: outlines that cut off every tip, or cover the
background in every gap. Colours correct these if object and surroundings have different ones, as a red flower among
green leaves; if both have the same colours, they do not help. So colours are used under three conditions, all measured
on the capture itself: they classify nearly all pixels of object and surroundings correctly, they reject few of the
masks' pixels, and the corrected masks agree better with their visual hull, which is made without colours. The
histograms are those of all photos together; if these do not meet the conditions, those of each photo, since the light
may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.hull_projection import voxel_footprint
from surface_sos_ns.capture.hull_voting import binary_masks, vote_hull
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import resized

__all__ = ["ColourSplit", "corrected_by_colours", "split_by_colours"]

BINS = 32
"""Bins of a colour histogram along each of red, green and blue."""
SMALLEST_COUNT = 2.0
"""Pixels that are added to each bin of both histograms (additive smoothing), so that the ratio of rare colours stays
moderate."""
ROUNDS = 4
"""How often histograms are counted and masks corrected in turn; little changes after that."""
LEARNING_LOG_ODDS, LEAST_LOG_ODDS = 1.0, 0.5
"""Absolute log likelihood ratio of object and surroundings, mean over a pixel and its neighbours, above which colours
overrule the mask: while the histograms are learned, and for the result. The first is higher, since errors in the masks
that the histograms are counted by would reinforce themselves."""
MOST_LOG_ODDS = 8.0
"""Bound of a single pixel's log likelihood ratio."""
SURROUNDINGS = 0.06
"""How far around the masks colours are looked at and may add pixels, a fraction of the longer image side."""
DEEPEST = 0.1
"""How far within a mask's outline colours may take pixels away, a fraction of the longer image side. A spot in the
middle of an object that has the colour of its surroundings, such as an eye, is no hole."""

LEARNING_SIZE, LEARNING_VIEWS = 320, 60
"""Longer side, in pixels, and number of the photos from which colours are learned and by which hulls are compared."""
COARSEST_HULL, FINEST_HULL, VOXEL_PIXELS = 64, 128, 5.0
"""Voxels along an edge of the hulls that are compared, at least and at most, and how many pixels of the photos they may
be across: outlines decide, and are lost in voxels that are larger."""

FEWEST_MASKS = 3
"""Least number of masks: a hull of fewer agrees with any masks, so its IoU says nothing about them."""
LEAST_KNOWN = 0.97
"""Share of the pixels of the object, and of its surroundings, that colours alone have to classify correctly."""
LEAST_KNOWN_OF_EACH = 0.965
"""The same of single photos, each by its own histograms: the median over the photos. Where the light differs from photo
to photo, common histograms separate the two sides poorly, and those of each photo may separate them well."""
LEAST_KNOWN_OF_ONE = 0.93
"""The same of a single photo under which its mask stays as it is."""
MOST_DENIED = 0.12
"""Largest share of the masks' pixels, at any distance from the outline, whose colours are classified as surroundings;
above it, a part of the object has the colours of its surroundings."""
LEAST_GAIN = 0.01
"""Rise of the mean IoU of masks and hull that the corrections have to bring: masks that are right already stay."""


@dataclass(frozen=True)
class ColourSplit:
    """How well colours alone tell an object from what is around it.

    Attributes:
        log_odds: (BINS ** 3,) float32, log likelihood ratio of object and surroundings, by colour.
        object_share, surroundings_share: of the object's and of its surroundings' pixels that colours classify
            correctly, with the corrected masks as ground truth.
        denied: pixels of the masks whose colours are classified as surroundings, over the masks' pixels.
        removed, added: pixels that the corrections take from the masks and add to them, over the masks' pixels.
    """

    log_odds: np.ndarray
    object_share: float
    surroundings_share: float
    denied: float
    removed: float
    added: float

    @property
    def known(self) -> float:
        """Share of the object's pixels, or of its surroundings' if that is less, that colours classify correctly."""
        return min(self.object_share, self.surroundings_share)

    @property
    def clear(self) -> bool:
        """Whether colours tell the two apart nearly everywhere, and without taking a part of the object away."""
        return self.known >= LEAST_KNOWN and self.denied <= MOST_DENIED

    def corrected(self, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """A mask (H, W) bool, corrected by the colours of its photo (H, W, 3) uint8."""
        near, may_change = _zones(mask)
        return _corrected(_said(self.log_odds, _bins(photo), near), mask, may_change, LEAST_LOG_ODDS)


def split_by_colours(photos: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> ColourSplit:
    """Colours of an object and of its surroundings, learned from masks that need not be good.

    Two steps alternate: the masks define two histograms, and the histograms' likelihood ratio (naive Bayes) corrects
    the given masks. It tolerates wrong pixels, since their colours are frequent on the side that they belong to and
    rare on the side where the mask puts them.

    Args:
        photos: N photos (H, W, 3) uint8.
        masks: N masks (H, W) bool, of their sizes; some of them with pixels of both sides.
    """
    bins, zones = [_bins(photo) for photo in photos], [_zones(mask) for mask in masks]
    present = list(masks)
    log_odds = np.zeros(BINS**3, np.float32)
    shares = (0.0, 0.0)
    for _ in range(ROUNDS):
        counts = np.zeros((2, BINS**3))
        for colour, mask, (near, _) in zip(bins, present, zones, strict=True):
            counts[1] += np.bincount(colour[near & mask], minlength=BINS**3)
            counts[0] += np.bincount(colour[near & ~mask], minlength=BINS**3)
        outside, inside = (ndimage.gaussian_filter(side.reshape((BINS,) * 3), 1.0).ravel() for side in counts)
        totals = counts.sum(axis=1).clip(min=1)
        ratio = np.log((inside + SMALLEST_COUNT) / totals[1]) - np.log((outside + SMALLEST_COUNT) / totals[0])
        log_odds = ratio.clip(-MOST_LOG_ODDS, MOST_LOG_ODDS).astype(np.float32)
        right = counts[1][log_odds > 0].sum() / totals[1], counts[0][log_odds <= 0].sum() / totals[0]
        shares = float(right[0]), float(right[1])
        said = [_said(log_odds, colour, near) for colour, (near, _) in zip(bins, zones, strict=True)]
        present = [
            _corrected(odds, mask, zone[1], LEARNING_LOG_ODDS)
            for odds, mask, zone in zip(said, masks, zones, strict=True)
        ]
    size = max(sum(np.count_nonzero(mask) for mask in masks), 1)

    def share(images: Iterable[np.ndarray]) -> float:
        return sum(np.count_nonzero(image) for image in images) / size

    denied = share(mask & (odds < -LEARNING_LOG_ODDS) for mask, odds in zip(masks, said, strict=True))
    removed = share(mask & ~new for mask, new in zip(masks, present, strict=True))
    added = share(new & ~mask for mask, new in zip(masks, present, strict=True))
    return ColourSplit(log_odds, *shares, denied, removed, added)


def corrected_by_colours(
    views: Views,
    photos: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None],
    sphere: ObjectSphere,
    progress: Callable[[str], None] | None = None,
) -> list[np.ndarray | None] | None:
    """The masks, corrected by the photos' colours; None where colours do not tell enough, see the module's text.

    Args:
        views: N views, world frame.
        photos: N photos (H, W, 3) uint8, of the views' sizes.
        masks: N masks (H, W) of one object, bool or 0..1, None where a view has none; empty ones stay as they are.
        sphere: the object's, world frame.
        progress: told one line where masks are corrected.

    Returns:
        N masks (H, W) float32, 0 or 1, None where a view has none.

    Raises:
        ValueError: masks and views do not match in number or size.
    """
    binary = binary_masks(views, masks)
    known = {i: mask for i, mask in enumerate(binary) if mask is not None and mask.any() and not mask.all()}
    if len(known) < FEWEST_MASKS:
        return None
    chosen = [list(known)[i] for i in np.unique(np.linspace(0, len(known) - 1, LEARNING_VIEWS).round().astype(int))]
    few = views.subset(chosen)
    small = few.scaled(min(1.0, LEARNING_SIZE / float(max(few.width.max(), few.height.max()))))
    pictures = [resized(photos[index], *size) for index, size in zip(chosen, small.sizes(), strict=True)]
    shrunk = [
        resized(known[index].astype(np.float32), *size) >= 0.5
        for index, size in zip(chosen, small.sizes(), strict=True)
    ]
    candidates: list[Sequence[ColourSplit]] = []
    pooled = split_by_colours(pictures, shrunk)
    if pooled.clear:
        candidates.append([pooled] * len(shrunk))
    each = [split_by_colours([picture], [mask]) for picture, mask in zip(pictures, shrunk, strict=True)]
    denied = float(np.mean([split.denied for split in each]))
    if np.median([split.known for split in each]) >= LEAST_KNOWN_OF_EACH and denied <= MOST_DENIED:
        candidates.append(each)
    if not candidates:
        return None
    across = float(np.median([voxel_footprint(small, view, sphere, 1) for view in range(len(small))]))
    resolution = int(np.clip(32 * round(across / VOXEL_PIXELS / 32), COARSEST_HULL, FINEST_HULL))
    before = vote_hull(small, shrunk, sphere, resolution).agreement
    for splits in candidates:  # those of all photos together first: they are learned from more
        improved = [_improved(*three) for three in zip(splits, pictures, shrunk, strict=True)]
        after = vote_hull(small, improved, sphere, resolution).agreement
        if after >= before + LEAST_GAIN:
            break
    else:
        return None
    if progress:
        progress(_sentence(splits, before, after))
    one = splits[0] if splits is not each else None
    result = [None if mask is None else mask.astype(np.float32) for mask in binary]
    for index, mask in known.items():
        split = one or split_by_colours([photos[index]], [mask])
        result[index] = _improved(split, photos[index], mask).astype(np.float32)
    return result


def _improved(split: ColourSplit, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool, corrected by the colours of its photo (H, W, 3) where these tell enough."""
    return split.corrected(photo, mask) if split.known >= LEAST_KNOWN_OF_ONE else mask


def _sentence(splits: Sequence[ColourSplit], before: float, after: float) -> str:
    """What to say of masks that are corrected."""
    of_each = splits[0] is not splits[-1]
    shares = np.mean([(s.object_share, s.surroundings_share, s.removed, s.added) for s in splits], axis=0)
    where = "in each photo, by its own colours" if of_each else "in all photos alike"
    return (
        f"colours alone tell the object from its surroundings {where} ({shares[0]:.0%} of the one, {shares[1]:.0%} of "
        f"the other): they take {shares[2]:.0%} from the masks and add {shares[3]:.0%}, which then agree with their "
        f"hull at IoU {after:.2f} instead of {before:.2f}"
    )


def _bins(photo: np.ndarray) -> np.ndarray:
    """(H, W) int32 bin of each pixel's colour in a histogram, of a photo (H, W, 3) uint8."""
    step = photo.astype(np.int32) // (256 // BINS)
    return (step[..., 0] * BINS + step[..., 1]) * BINS + step[..., 2]


def _zones(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool each: the object with its surroundings, and where of these a mask may change."""
    side = max(mask.shape)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    near = mask | (outer <= SURROUNDINGS * side) if mask.any() else np.zeros_like(mask)
    return near, near & (inner <= DEEPEST * side)


def _said(log_odds: np.ndarray, bins: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(H, W) float32: log odds of object and surroundings by the colours of each pixel and of its neighbours."""
    size = 2 * max(1, round(max(near.shape) / 504)) + 1
    return cv2.blur(np.where(near, log_odds[bins], 0.0).astype(np.float32), (size, size))


def _corrected(said: np.ndarray, mask: np.ndarray, may_change: np.ndarray, least: float) -> np.ndarray:
    """(H, W) bool: a mask, set by the sign of log odds (H, W) where it may change and they are over `least` in size."""
    return np.where(may_change & (np.abs(said) > least), said > 0, mask)
