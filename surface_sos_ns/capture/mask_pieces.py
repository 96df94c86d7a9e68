"""Pieces of space that some of the masks hold as a whole and the others lack as a whole.

A detector often includes an object's neighbour, or misses the same part of the object, in many photos. Such errors are
consistent in space, so a vote on each voxel alone keeps them as soon as most masks are wrong. Here they are found by
their correlation: groups of voxels that *the same masks* cover, and the same other masks do not. Errors of single masks
do not form such groups. Whether a piece belongs to the object is decided elsewhere (`piece_evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from surface_sos_ns.capture.hull import voxel_centres
from surface_sos_ns.capture.hull_projection import voxel_footprint
from surface_sos_ns.capture.hull_voting import binary_masks
from surface_sos_ns.capture.mask_centre import direction_spread
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["MaskPicture", "MaskPiece", "PieceSearch", "find_pieces"]

MOST_REACH = 2.0
"""Edge of the grid over that of the object cube, at most: a part that most masks lack may reach out of its sphere."""
LEAST_RESOLUTION, RESOLUTION = 32, 96
"""Voxels along an edge of the grid, at least and at most. They are not smaller than `VOXEL_PIXELS`."""
VOXEL_PIXELS = 2.0
"""Edge of a voxel in pixels, at least."""
CORE_SHARE = 0.9
"""Share of the masks that cover a voxel, of those whose picture shows it, from which on it is of the object's core."""
SHARES = (0.4, 0.25, 0.15, 0.09, 0.06)
"""Shares of the masks that show a piece, at least, and that lack it, in the order in which pieces are looked for."""
FEWEST_VOXELS, FEWEST_PIXELS = 30, 4
"""Voxels of a piece, at least; and its visible pixels in a mask, at least, for that mask to be asked about it (a pixel
is about as large as a voxel)."""
LEAST_VIEWS = 3
"""Masks that show a piece, at least, and that lack it."""
ALIKE = 0.75
"""Of the masks that show a piece, the share that covers each of its voxels; of those that lack it, the share that
covers none."""
LEAST_AREA = 0.05
"""Visible pixels of a piece over those of the core, at least: smaller pieces are inaccurate outlines."""
LEAST_CONTRAST = 0.6
"""Least difference between the mean covered share of a piece in the masks that hold it and in those that lack it."""
LEAST_EXPLAINED = 0.3
"""Least share of the masks' pixels beside the core that a piece has to account for. Rough masks share some errors by
chance, but these are a small part of all their errors."""
LEAST_TOLD = 0.4
"""Share of the masks, at least, in which one can tell whether they show a voxel of a piece: it is not in front of or
behind the object."""
LEAST_TOLD_OF_ALL = 0.6
"""The same of the piece as a whole."""
LEAST_SPREAD = 0.4
"""Spread of the viewing directions (`direction_spread`) of the masks that hold a piece, over that of all masks that can
tell, at least: masks from one side only do not fix the depth of what they share."""
MOST_PIECES, MOST_GROUPS = 3, 8
SEEDS = 300
"""Voxels that are tried as the middle of a group."""


@dataclass(frozen=True)
class MaskPiece:
    """A piece of space that masks hold or lack as a whole.

    Attributes:
        voxels: (M, 3) float32 centres, world frame.
        taken: (N,) int8 of the views: 1 the mask holds it, -1 the mask lacks it, 0 it cannot be told, since there is no
            mask, the piece is out of the picture, or before or behind the rest.
        area: its visible pixels over those of the core, median of the views where it can be told.
    """

    voxels: np.ndarray
    taken: np.ndarray
    area: float

    @property
    def share(self) -> float:
        """Of the masks where it can be told, the share that holds it."""
        return float((self.taken > 0).sum() / max((self.taken != 0).sum(), 1))


@dataclass(frozen=True)
class PieceSearch:
    """The core that nearly all masks cover, and the pieces that only some of them cover.

    Attributes:
        core: (M, 3) float32 centres of the voxels that nearly all masks cover, world frame.
        pieces: the largest first.
        spacing: edge of a voxel, world units.
        pictures: by view, those of the masks that were looked at.
    """

    core: np.ndarray
    pieces: list[MaskPiece]
    spacing: float
    pictures: Mapping[int, MaskPicture]


def find_pieces(views: Views, masks: Sequence[np.ndarray | None], sphere: ObjectSphere) -> PieceSearch:
    """Finds pieces.

    Args:
        views: N views, world frame.
        masks: N masks (H, W) in 0..1, of the views' sizes; None where a view has none. Empty ones do not count.
        sphere: the object's, as far as it is known, world frame.
    """
    binary = [mask if mask is not None and mask.any() else None for mask in binary_masks(views, masks)]
    used = [view for view, mask in enumerate(binary) if mask is not None]
    if len(used) < 2 * LEAST_VIEWS:
        return PieceSearch(np.zeros((0, 3), np.float32), [], 2 * sphere.radius / RESOLUTION, {})
    grid = ObjectSphere(sphere.centre, _reach(views, {view: binary[view] for view in used}, sphere))  # type: ignore[misc]
    footprint = float(np.median([voxel_footprint(views, view, grid, RESOLUTION) for view in used]))
    resolution = 2 * round(np.clip(RESOLUTION * footprint / VOXEL_PIXELS, LEAST_RESOLUTION, RESOLUTION) / 2)
    spacing = 2 * grid.radius / resolution
    pictures = [MaskPicture(views, view, binary[view], grid, resolution) for view in used]  # type: ignore[arg-type]
    points = _covered_voxels(pictures, grid, resolution, max(LEAST_VIEWS, round(SHARES[-1] * len(used))))
    places = [picture.places(points) for picture in pictures]
    seen = np.stack([place >= 0 for place in places])
    covered = np.stack([picture.dilated.ravel()[place] for picture, place in zip(pictures, places, strict=True)]) & seen
    core = covered.sum(0) >= CORE_SHARE * np.maximum(seen.sum(0), 1)
    core &= seen.sum(0) >= 0.2 * len(used)
    hidden = [
        cv2.dilate(picture.silhouette(place[core]), np.ones((3, 3), np.uint8)).ravel()[place] > 0
        for picture, place in zip(pictures, places, strict=True)
    ]
    told = seen & ~np.stack(hidden)
    shows = np.where(told, np.where(covered, 1, -1), 0).astype(np.int8)
    kernel = np.ones((3, 3), np.uint8)
    inner = [picture.silhouette(place[core]) for picture, place in zip(pictures, places, strict=True)]
    beside = [  # what the masks show that is not explained yet
        (picture.mask > 0.5) & (cv2.dilate(body, kernel, iterations=2) == 0)
        for picture, body in zip(pictures, inner, strict=True)
    ]
    every = sum(int(image.sum()) for image in beside)
    pieces: list[MaskPiece] = []
    chosen: list[np.ndarray] = []
    for members in (part for group in _groups(shows) for part in _connected(group, points, spacing)):
        own = [picture.silhouette(place[members]) for picture, place in zip(pictures, places, strict=True)]
        measured = _measured(pictures, own, inner)
        if measured is None:
            continue
        said, area = measured
        taken = np.zeros(len(views), np.int8)
        taken[used] = said
        piece = MaskPiece(points[members], taken, area)
        same = next((i for i, other in enumerate(pieces) if _one_thing(piece, other, spacing)), None)
        if same is not None:
            chosen[same] = np.union1d(chosen[same], members)
            pieces[same] = replace(pieces[same], voxels=points[chosen[same]])
            continue
        covers = [(cv2.dilate(image, kernel) > 0) & (one > 0) for image, one in zip(own, said, strict=True)]
        explained = sum(int((rest & cover).sum()) for rest, cover in zip(beside, covers, strict=True))
        sight = piece.voxels.mean(axis=0) - views.centres()
        sight /= np.linalg.norm(sight, axis=1, keepdims=True)
        from_all_sides = direction_spread(sight[taken > 0]) >= LEAST_SPREAD * direction_spread(sight[taken != 0])
        if explained >= LEAST_EXPLAINED * every and from_all_sides:
            pieces.append(piece)
            chosen.append(members)
            beside = [rest & ~cover for rest, cover in zip(beside, covers, strict=True)]
    pieces.sort(key=lambda piece: -piece.area)
    return PieceSearch(points[core], pieces[:MOST_PIECES], spacing, dict(zip(used, pictures, strict=True)))


def _reach(views: Views, masks: Mapping[int, np.ndarray], sphere: ObjectSphere) -> float:
    """Radius about the sphere's centre that holds what at least `LEAST_VIEWS` masks show, world units."""
    reaches = []
    for view, mask in masks.items():
        uv, depth = views.project_one(view, sphere.centre[None])
        if np.isfinite(uv).all():
            rows, columns = np.nonzero(mask)
            pixels = np.percentile(np.hypot(columns + 0.5 - uv[0, 0], rows + 0.5 - uv[0, 1]), 99.5)
            reaches.append(float(pixels / max(views.fx[view], views.fy[view]) * depth[0]))
    widest = sorted(reaches)[-min(LEAST_VIEWS + 1, len(reaches)) :][:1]
    return float(np.clip(1.1 * max(widest, default=0.0), sphere.radius, MOST_REACH * sphere.radius))


class MaskPicture:
    """A mask, made so small that a pixel is about as large as a voxel."""

    def __init__(self, views: Views, view: int, mask: np.ndarray, grid: ObjectSphere, resolution: int) -> None:
        self.views, self.view = views, view
        shrink = max(1.0, voxel_footprint(views, view, grid, resolution))
        size = max(1, round(mask.shape[1] / shrink)), max(1, round(mask.shape[0] / shrink))
        self.mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        self.dilated = self.mask > 0.25

    def places(self, points: np.ndarray) -> np.ndarray:
        """(P,) positions, row by row, of the pixels where points (P, 3) are seen; -1 out of the picture."""
        return self.views.pixel_places(self.view, points, self.mask.shape)

    def silhouette(self, places: np.ndarray) -> np.ndarray:
        """(h, w) uint8 0 or 1: pixels of voxels at these places, gaps between them closed."""
        image = np.zeros(self.mask.size, np.uint8)
        image[places[places >= 0]] = 1
        return ndimage.grey_closing(image.reshape(self.mask.shape), 3)


def _covered_voxels(pictures: Sequence[MaskPicture], grid: ObjectSphere, resolution: int, least: int) -> np.ndarray:
    """(P, 3) float32 centres, world frame, of the voxels that at least so many masks cover."""
    step = grid.radius / resolution * np.float32(1)
    coarse = voxel_centres(resolution // 2) * np.float32(grid.radius)
    points = np.stack(np.meshgrid(coarse, coarse, coarse, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (points + grid.centre).astype(np.float32)
    for fine in (False, True):
        count = np.zeros(len(points), np.int32)
        for picture in pictures:
            cover = picture.dilated if fine else cv2.dilate(picture.dilated.astype(np.uint8), np.ones((3, 3))) > 0
            place = picture.places(points)
            count += cover.ravel()[place] & (place >= 0)
        points = points[count >= least]
        if not fine:
            corners = np.stack(np.meshgrid(*[[-step, step]] * 3, indexing="ij"), axis=-1).reshape(1, 8, 3)
            points = (points[:, None] + corners).reshape(-1, 3).astype(np.float32)
    return points


def _groups(shows: np.ndarray) -> list[np.ndarray]:
    """Groups of voxels that the same masks show and the same masks lack, the largest first.

    Args:
        shows: (N, P) int8: 1 mask n shows voxel p, -1 it lacks it, 0 it cannot be told.

    Returns:
        Indices of the voxels of each group.
    """
    count = len(shows)
    yes, no = (shows > 0).astype(np.float32), (shows < 0).astype(np.float32)
    open_ = yes.sum(0) + no.sum(0) >= LEAST_TOLD * count
    likely = yes.sum(0) + no.sum(0) >= 0.5 * LEAST_TOLD * count
    generator = np.random.default_rng(0)
    groups: list[np.ndarray] = []
    # Masks from neighbouring places also share the free space in front of a piece and behind it. So groups that many
    # masks share are taken first, and voxels that hardly any other masks cover form no group of their own.
    for share in SHARES:
        least = max(LEAST_VIEWS, round(share * count))
        while len(groups) < MOST_GROUPS:
            split = open_ & (yes.sum(0) >= least) & (no.sum(0) >= least)
            found = _largest_group(shows, yes, no, np.flatnonzero(split), generator)
            if found is None:
                break
            members, taken = found
            holds, lacks = (taken > 0).astype(np.float32), (taken < 0).astype(np.float32)
            open_[members] = False
            if min(holds.sum(), lacks.sum()) < least:
                continue
            groups.append(np.flatnonzero(likely & _alike(holds[:, None], lacks[:, None], yes, no)[0]))
            typical = holds.sum() / max(float(holds.sum() + lacks.sum()), 1)
            inside = holds @ yes >= max(ALIKE, 0.5 + 0.5 * typical) * np.maximum((holds + lacks) @ yes, 1)
            open_ &= ~inside & ~_alike(holds[:, None], lacks[:, None], yes, no, 0.5)[0]
    return groups


def _one_thing(one: MaskPiece, other: MaskPiece, spacing: float) -> bool:
    """Whether two pieces touch and are held by the same masks."""
    told = (one.taken != 0) & (other.taken != 0)
    if (one.taken == other.taken)[told].sum() < ALIKE * told.sum():
        return False
    return bool(cKDTree(one.voxels).query(other.voxels)[0].min() <= 3 * spacing)


def _connected(members: np.ndarray, points: np.ndarray, spacing: float) -> list[np.ndarray]:
    """The parts of a group that are connected, but for gaps of a voxel: (M,) indices of the voxels of each.

    Args:
        members: (M,) indices of the group's voxels.
        points: (P, 3) centres of all voxels, world frame.
        spacing: edge of a voxel, world units.
    """
    index = np.rint((points[members] - points[members].min(axis=0)) / spacing).astype(int) + 1
    grid = np.zeros(index.max(axis=0) + 2, bool)
    grid[tuple(index.T)] = True
    parts, count = ndimage.label(ndimage.binary_dilation(grid, np.ones((3, 3, 3))), np.ones((3, 3, 3)))
    of_each = parts[tuple(index.T)]
    each = [members[of_each == part] for part in range(1, count + 1)]
    return [part for part in each if len(part) >= FEWEST_VOXELS]


def _largest_group(
    shows: np.ndarray, yes: np.ndarray, no: np.ndarray, index: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """The largest group among some voxels: (M,) their indices, and (N,) int8 what most of them have in common.

    Args:
        shows: as for `_groups`.
        yes, no: (N, P) float32, where it is 1 and -1.
        index: of the voxels that are looked at.
        generator: for the seeds.
    """
    if len(index) < FEWEST_VOXELS:
        return None
    seeds = np.sort(generator.choice(index, min(SEEDS, len(index)), replace=False))
    near = _alike(yes[:, seeds], no[:, seeds], yes[:, index], no[:, index])
    members = index[near[int(near.sum(1).argmax())]]
    for _ in range(3):
        taken = np.sign(shows[:, members].sum(1, dtype=np.int64)).astype(np.int8)
        holds, lacks = (taken > 0).astype(np.float32)[:, None], (taken < 0).astype(np.float32)[:, None]
        near = _alike(holds, lacks, yes[:, index], no[:, index])
        if near.sum() < FEWEST_VOXELS:
            return None
        members = index[near[0]]
    return members, taken


def _alike(
    seeds_yes: np.ndarray, seeds_no: np.ndarray, yes: np.ndarray, no: np.ndarray, least: float = ALIKE
) -> np.ndarray:
    """(S, P) bool: of the masks that show seed s, nearly all show voxel p; of those that lack it, nearly none does.

    Args:
        seeds_yes, seeds_no: (N, S) float32 0 or 1, what the masks say of the seeds.
        yes, no: (N, P) the same of the voxels.
        least: share of the masks, of both kinds, that must agree.
    """
    both = seeds_yes.T @ yes
    told_yes = both + seeds_yes.T @ no
    neither = seeds_no.T @ no
    told_no = neither + seeds_no.T @ yes
    enough = (told_yes >= 0.5 * seeds_yes.sum(0)[:, None]) & (told_no >= 0.5 * seeds_no.sum(0)[:, None])
    return enough & (both >= least * np.maximum(told_yes, 1)) & (neither >= least * np.maximum(told_no, 1))


def _measured(
    pictures: Sequence[MaskPicture], own: Sequence[np.ndarray], inner: Sequence[np.ndarray]
) -> tuple[np.ndarray, float] | None:
    """Which masks hold a group of voxels; None where it is small, few masks can tell, or many hold a part of it.

    Args:
        pictures: of the masks.
        own: (h, w) silhouettes of the group in each.
        inner: (h, w) silhouettes of the core in each.

    Returns:
        Of each picture 1, -1 or 0, see `MaskPiece.taken`; and the area.
    """
    kernel = np.ones((3, 3), np.uint8)
    shares, areas = np.full(len(pictures), np.nan), np.zeros(len(pictures))
    for index, (picture, image, body) in enumerate(zip(pictures, own, inner, strict=True)):
        visible = (image > 0) & (cv2.dilate(body, kernel) == 0)
        areas[index] = visible.sum() / max(int(body.sum()), 1)
        if visible.sum() >= FEWEST_PIXELS and areas[index] >= LEAST_AREA / 2:
            shares[index] = picture.mask[visible].mean()
    told = np.isfinite(shares)
    taken = np.where(told, np.where(shares >= 0.5, 1, -1), 0).astype(np.int8)
    if told.sum() < LEAST_TOLD_OF_ALL * len(pictures) or min((taken > 0).sum(), (taken < 0).sum()) < LEAST_VIEWS:
        return None
    contrast = float(shares[taken > 0].mean() - shares[taken < 0].mean())
    area = float(np.median(areas[told]))
    return (taken, area) if area >= LEAST_AREA and contrast >= LEAST_CONTRAST else None
