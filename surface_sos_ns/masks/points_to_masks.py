"""From a few clicked points to a mask of every photo.

In a clicked photo, geodesic distances to the clicks, over the photo's colours, seed a GrabCut. The masks of the clicked
photos place the object in space, their colours tell it from its surroundings, and both together seed a GrabCut in all
other photos. The masks are voted into a hull, and the hull seeds the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.hull import VisualHull
from surface_sos_ns.capture.hull_projection import project_hull
from surface_sos_ns.capture.hull_voting import mask_agreement, vote_hull
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.geometry import (
    LONGEST_SIDE,
    Colours,
    cut,
    enlarge,
    shrunk_photos,
    sphere_disc,
    trimap_from_hull,
)
from surface_sos_ns.masks.provider import MaskError

__all__ = ["ClickedMasks", "ClickedPoint", "mask_of_clicks", "masks_from_clicks", "part_of_clicks"]

CLICK_RADIUS = 2.5
"""Radius of the disc around a click that gets the click's label, in pixels of the shrunk photo."""

RESOLUTION = 96
"""Voxels along an edge of the hull's grid."""

PART = 0.12
"""How far from a click a part that is clicked may reach, over the photo's longer side."""

ROUNDS = 2
"""Times that the hull seeds a GrabCut in all photos."""

LEVEL = 0.85
"""Fraction of votes of the hull: lower than all, because GrabCut loses parts in some photos that others bring back."""


@dataclass(frozen=True)
class ClickedPoint:
    """A point that a user clicked.

    Attributes:
        view: index of the photo.
        x, y: place in the photo, pixels (x right, y down, pixel centres at +0.5).
        positive: on the object; else on something that is not the object.
        identity: of the object, where there are several.
    """

    view: int
    x: float
    y: float
    positive: bool
    identity: int = 1


@dataclass(frozen=True)
class ClickedMasks:
    """Result of :func:`masks_from_clicks`.

    Attributes:
        masks: N masks (H, W) float32 0/1, of the photos' sizes; None where the object was not found.
        agreement: (N,) IoU of each mask with the hull's projection, 0 where there is no mask.
        sphere, hull: where the object is, world frame, and the voted hull in the sphere's frame.
    """

    masks: list[np.ndarray | None]
    agreement: np.ndarray
    sphere: ObjectSphere
    hull: VisualHull


def mask_of_clicks(photo: np.ndarray, clicks: Sequence[ClickedPoint], before: np.ndarray | None = None) -> np.ndarray:
    """What clicks in one photo select.

    Args:
        photo: (H, W, 3) uint8 RGB.
        clicks: of this photo, in its pixels.
        before: (H, W) mask that the clicks correct. Without one, and without a positive click, nothing is selected.

    Returns:
        (H, W) bool.
    """
    factor = min(1.0, LONGEST_SIDE / max(photo.shape[:2]))
    small = _shrunk(photo, factor)
    labels = None
    if before is not None:
        shrunk = _shrunk(np.asarray(before, np.float32), factor)
        labels = trimap_from_hull(shrunk, np.ones(shrunk.shape, bool))
    if labels is not None:
        _correct(labels, small, clicks, factor)
    else:
        labels = _trimap_from_clicks(small, clicks, factor)
    if labels is None:
        return np.zeros(photo.shape[:2], bool)
    mask = _with_clicks(cut(small, labels), clicks, factor)
    return enlarge(mask, photo.shape[1], photo.shape[0]) >= 0.5


def part_of_clicks(photo: np.ndarray, clicks: Sequence[ClickedPoint]) -> np.ndarray:
    """The part around positive clicks in one photo, within `PART` of them, to be added to a mask of the object.

    Args:
        photo: (H, W, 3) uint8 RGB.
        clicks: of this photo, in its pixels, a positive one among them; negative ones bound the part.

    Returns:
        (H, W) bool: pixels with a smaller geodesic distance to a positive click than to a negative one, or to pixels
        that are farther away than `PART`.
    """
    factor = min(1.0, LONGEST_SIDE / max(photo.shape[:2]))
    small = _shrunk(photo, factor)
    ours, others = (_discs(small.shape[:2], clicks, factor, kind) for kind in (True, False))
    away = cv2.distanceTransform((~ours).astype(np.uint8), cv2.DIST_L2, 5) > PART * max(small.shape[:2])
    mask = _geodesic(small, ours) < _geodesic(small, (others | away) & ~ours)
    return enlarge(_with_clicks(mask, clicks, factor), photo.shape[1], photo.shape[0]) >= 0.5


def masks_from_clicks(
    images: Sequence[np.ndarray],
    views: Views,
    clicks: Sequence[ClickedPoint],
    points: SparsePoints | None = None,
    *,
    radius: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> ClickedMasks:
    """Masks of all photos from clicks in a few.

    Args:
        images: N photos (H, W, 3) uint8 RGB, of the views' sizes.
        views: N views, world frame.
        clicks: in pixels of the images.
        points: sparse points, world frame, or None.
        radius: the object's radius that the user named, world units, or None.
        progress: called with one line per stage.

    Raises:
        MaskError: positive clicks in fewer than two photos, or clicks that are not on one object.
    """
    clicked = sorted({click.view for click in clicks if click.positive})
    if len(clicked) < 2:
        raise MaskError(
            f"The object was clicked in {len(clicked)} photo(s); click it in two at least, better three, taken from "
            "different sides."
        )
    factor = min(1.0, LONGEST_SIDE / float(max(views.width.max(), views.height.max())))
    small, photos = shrunk_photos(images, views)
    of_view = [[click for click in clicks if click.view == index] for index in range(len(views))]
    masks: list[np.ndarray | None] = [None] * len(views)
    for index in clicked:
        labels = _trimap_from_clicks(photos[index], of_view[index], factor)
        assert labels is not None  # there is a positive click
        masks[index] = _with_clicks(cut(photos[index], labels), of_view[index], factor)
    sphere = _sphere(small, masks, points, radius)
    hull = vote_hull(small, masks, sphere, RESOLUTION, level=0.95)
    colours = _colours(photos, masks, clicked)
    for turn in range(ROUNDS):
        if progress:
            progress(f"clicks: round {turn + 1} of {ROUNDS}, GrabCut of {len(views)} photos")
        masks = []
        for index, projected in enumerate(project_hull(hull, sphere, small)):
            possible = sphere_disc(small, index, sphere, 1.0)
            labels = trimap_from_hull(projected, possible)
            if labels is None:
                masks.append(None)
                continue
            if turn == 0:  # the hull of the few clicked masks is far too large
                _use_colours(labels, colours.score(photos[index]))
            _correct(labels, photos[index], of_view[index], factor)
            masks.append(_with_clicks(cut(photos[index], labels), of_view[index], factor))
        if turn + 1 < ROUNDS:
            sphere = _sphere(small, masks, points, radius)
        hull = vote_hull(small, masks, sphere, RESOLUTION, level=LEVEL)
    agreement = np.nan_to_num(mask_agreement(small, masks, hull, sphere))
    sizes = zip(masks, views.width, views.height, strict=True)
    enlarged = [None if mask is None else enlarge(mask, int(w), int(h)) for mask, w, h in sizes]
    return ClickedMasks(enlarged, agreement, sphere, hull)


def _shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _sphere(
    views: Views, masks: Sequence[np.ndarray | None], points: SparsePoints | None, radius: float | None
) -> ObjectSphere:
    found = find_object_sphere(views, masks, points)
    return found if radius is None else ObjectSphere(found.centre, radius, "clicks, radius named by the user")


def _trimap_from_clicks(photo: np.ndarray, clicks: Sequence[ClickedPoint], factor: float) -> np.ndarray | None:
    """GrabCut labels of a shrunk photo: probably object where a positive click is nearer by geodesic distance."""
    ours, others = (_discs(photo.shape[:2], clicks, factor, kind) for kind in (True, False))
    if not ours.any():
        return None
    others[[0, -1]] = others[:, [0, -1]] = True  # the border counts as background: clicked objects are rarely cut off
    others &= ~ours
    near, far = _geodesic(photo, ours), _geodesic(photo, others)
    labels = np.where(near < far, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[near < 0.15 * far] = cv2.GC_FGD
    labels[far < 0.15 * near] = cv2.GC_BGD
    _set_clicked(labels, clicks, factor)
    return labels


def _correct(labels: np.ndarray, photo: np.ndarray, clicks: Sequence[ClickedPoint], factor: float) -> None:
    """Overwrites GrabCut labels around clicks, by geodesic distance to them."""
    if not clicks:
        return
    ours, others = (_discs(labels.shape, clicks, factor, kind) for kind in (True, False))
    if not ours.any():  # without positive clicks, the innermost pixels of the object stand in for them
        inside = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)) & ~others
        depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
        ours = (depth > 0) & (depth >= 0.7 * depth.max())
    near = _geodesic(photo, ours)
    far = _geodesic(photo, (others | (labels == cv2.GC_BGD)) & ~ours)
    labels[near < 0.15 * far] = cv2.GC_FGD
    if others.any():
        from_others = _geodesic(photo, others & ~ours)
        labels[(from_others < near) & (labels != cv2.GC_BGD)] = cv2.GC_PR_BGD
        labels[from_others < 0.3 * near] = cv2.GC_BGD
    _set_clicked(labels, clicks, factor)


def _geodesic(photo: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(H, W) geodesic distance to the seeds; steps across colour edges are long."""
    from skimage.graph import MCP_Geometric

    if not seeds.any():
        return np.full(seeds.shape, np.inf)
    lab = cv2.cvtColor(cv2.GaussianBlur(photo, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    slopes = np.stack([cv2.Sobel(lab, cv2.CV_32F, dx, dy, scale=0.25) for dx, dy in ((1, 0), (0, 1))])
    edges = np.sqrt((slopes**2).sum(axis=(0, -1)))
    return MCP_Geometric(0.5 + edges).find_costs(np.argwhere(seeds))[0]


def _discs(shape: tuple[int, ...], clicks: Sequence[ClickedPoint], factor: float, positive: bool) -> np.ndarray:
    """(H, W) bool: discs around the clicks of one kind, in a shrunk photo."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    dots = np.zeros(shape[:2], bool)
    for click in clicks:
        if click.positive == positive:
            dots |= (columns - click.x * factor) ** 2 + (rows - click.y * factor) ** 2 <= CLICK_RADIUS**2
    return dots


def _set_clicked(labels: np.ndarray, clicks: Sequence[ClickedPoint], factor: float) -> None:
    """Sets the GrabCut labels in the discs around the clicks; where both kinds meet the positive one wins."""
    labels[_discs(labels.shape, clicks, factor, False)] = cv2.GC_BGD
    labels[_discs(labels.shape, clicks, factor, True)] = cv2.GC_FGD


def _with_clicks(mask: np.ndarray, clicks: Sequence[ClickedPoint], factor: float) -> np.ndarray:
    """The mask with the discs around the clicks set, and of its parts those that positive clicks meet."""
    ours, others = (_discs(mask.shape, clicks, factor, kind) for kind in (True, False))
    mask = (mask & ~others) | ours
    if ours.any():
        parts = cv2.connectedComponents(mask.astype(np.uint8))[1]
        mask = np.isin(parts, np.unique(parts[ours]))
    return mask


def _colours(photos: Sequence[np.ndarray], masks: Sequence[np.ndarray | None], chosen: Sequence[int]) -> Colours:
    """Colours inside and outside of the chosen photos' masks."""
    colours = Colours()
    for index in chosen:
        mask = masks[index]
        if mask is not None and mask.any():
            inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            colours.add(photos[index][inner], of_object=True)
            colours.add(photos[index][~mask], of_object=False)
    return colours


def _use_colours(labels: np.ndarray, score: np.ndarray) -> None:
    """Sets GrabCut labels by the sign of the colours' score (H, W)."""
    score = cv2.GaussianBlur(score, (0, 0), 1.0)
    inside = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    labels[inside] = np.where(score[inside] > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels[~inside & (labels == cv2.GC_PR_BGD) & (score < 0)] = cv2.GC_BGD
