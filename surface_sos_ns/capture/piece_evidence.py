"""Whether a piece that only some of the masks hold belongs to the object.

The masks' votes alone cannot tell: a piece in six masks of ten may be a neighbour that six include by mistake, or a
spout that four miss. Three cues compare the piece with the core, which nearly all masks show:

- its joint: a part is joined to the object, a neighbour often stands apart;
- its support: a separate thing stands on the support plane, a part is carried by the object;
- its colours: more like the object's, or like those of the surroundings.

Each cue is evidence in nats, and so are the log odds of the votes; the sign of their sum decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.mask_pieces import MaskPiece, PieceSearch
from surface_sos_ns.capture.support_plane import SupportPlane
from surface_sos_ns.capture.views import Views

__all__ = ["PieceEvidence", "weigh_piece"]

APART, TOUCHING, JOINED = -2.0, 0.5, 1.0
"""Nats of a piece that stands apart from the object, of one that touches it, and of one that grows out of it."""
HULL_SHARE = 0.9
"""Of the masks that hold a piece, the share that covers what belongs to their hull."""
FEWEST_MASKS = 4
"""Masks that hold a piece, at least, for the joint to be judged: the hull of fewer is too large to show a gap."""
OUTLINE_VOXELS = 2
"""Voxels around the core that are its rough outline."""
CONTACT_OF_A_PART = 0.5
"""Faces between a piece and the object over its volume to the power 2/3, all in voxels, of a piece that grows out of
it."""

SUPPORT = 1.0
"""Nats of what carries a piece."""
ON_THE_PLANE, ABOVE_THE_PLANE = 0.08, 0.2
"""Height of the lowest fiftieth of a thing above the support plane, object radii: up to the first it stands there,
from the second on it does not."""

OTHER_COLOUR, SAME_COLOUR = -0.5, 1.0
"""Bounds of the nats of the colours. Many a part is of another material, so other colours count little against it; few
neighbours have the object's colours."""
COLOUR_BINS = ((8, 0, 256), (12, 92, 164), (12, 92, 164))
"""Number, lowest and highest value of the bins of L, a and b in 8 bits; colours beyond go into the outermost ones."""


@dataclass(frozen=True)
class PieceEvidence:
    """Evidence that a piece is a part of the object, in nats; negative: evidence against it.

    Attributes:
        votes: log odds of the masks that hold it.
        joint: how it is joined to the rest.
        support: what carries it; 0 where no support plane is known.
        colour: whose colours it has.
    """

    votes: float
    joint: float
    support: float
    colour: float

    @property
    def cues(self) -> float:
        """All but the votes."""
        return self.joint + self.support + self.colour

    @property
    def total(self) -> float:
        """The sum: a part of the object where it is positive."""
        return self.votes + self.cues


def weigh_piece(
    piece: MaskPiece,
    found: PieceSearch,
    views: Views,
    photos: Sequence[np.ndarray],
    plane: SupportPlane | None,
    radius: float,
) -> PieceEvidence:
    """Evidence for and against a piece.

    Args:
        piece: one of those found.
        found: the search that found it.
        views: N views, world frame.
        photos: N photos (H, W, 3) uint8, of the views' sizes.
        plane: what the object stands on, world frame; None where it is not known.
        radius: of the object's sphere, world units.
    """
    votes = float(np.log(piece.share / (1 - piece.share)))
    support = 0.0 if plane is None else _support(plane.height(piece.voxels), plane.height(found.core), radius)
    return PieceEvidence(votes, _joint(piece, found), support, _colour(piece, found, views, photos))


def _joint(piece: MaskPiece, found: PieceSearch) -> float:
    """Nats of how a piece is joined to the core, in the visual hull of the masks that hold it."""
    holding = [found.pictures[view] for view in np.flatnonzero(piece.taken > 0)]
    if len(holding) < FEWEST_MASKS:
        return 0.0
    spacing = found.spacing
    every = np.concatenate([found.core, piece.voxels])
    origin = every.min(axis=0) - 1.5 * spacing
    shape = tuple(np.ceil((every.max(axis=0) - origin) / spacing).astype(int) + 2)

    def grid(points: np.ndarray) -> np.ndarray:
        image = np.zeros(shape, bool)
        image[tuple(np.floor((points - origin) / spacing).astype(int).T)] = True
        return image

    core, own = grid(found.core), grid(piece.voxels)
    centres = ((np.argwhere(np.ones(shape, bool)) + 0.5) * spacing + origin).astype(np.float32)
    covered, seen = np.zeros(len(centres)), np.zeros(len(centres))
    for picture in holding:
        place = picture.places(centres)
        covered += (picture.mask > 0.5).ravel()[place] & (place >= 0)
        seen += place >= 0
    hull = ((covered >= HULL_SHARE * seen) & (seen > 0)).reshape(shape)
    core = ndimage.binary_dilation(core, iterations=OUTLINE_VOXELS)
    rest, _ = ndimage.label(hull & ~core, np.ones((3, 3, 3)))
    names = np.unique(rest[own & hull & ~core])
    body = np.isin(rest, names[names > 0])
    if not body.any():
        return 0.0
    faces = int((ndimage.binary_dilation(core) & body).sum())
    contact = faces / float(body.sum()) ** (2 / 3)
    if not faces:
        return APART
    return TOUCHING + (JOINED - TOUCHING) * min(1.0, contact / CONTACT_OF_A_PART)


def _support(heights: np.ndarray, core: np.ndarray, radius: float) -> float:
    """Nats of what carries a piece.

    Args:
        heights: (M,) of its voxels above the support plane, world units.
        core: (M,) of the core's.
        radius: of the object's sphere.
    """
    lowest, lowest_core = (float(np.percentile(values, 2)) / radius for values in (heights, core))
    if lowest > ABOVE_THE_PLANE:
        return SUPPORT  # the object holds it
    if lowest < ON_THE_PLANE and lowest_core < ON_THE_PLANE:
        return -SUPPORT  # both stand on the plane
    return SUPPORT if lowest < ON_THE_PLANE and lowest_core > ABOVE_THE_PLANE else 0.0  # the object stands on it


def _colour(piece: MaskPiece, found: PieceSearch, views: Views, photos: Sequence[np.ndarray]) -> float:
    """Nats of a piece's colours: mean log ratio of how frequent they are on the core and around the object."""
    counts = {name: np.zeros([bins for bins, _, _ in COLOUR_BINS]) for name in ("piece", "core", "around")}
    for view in np.flatnonzero(piece.taken):
        picture = found.pictures[int(view)]
        rows, columns = picture.mask.shape
        small = cv2.resize(photos[view], (columns, rows), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        place = tuple(
            np.clip((lab[..., i] - low) * (bins / (high - low)), 0, bins - 1).astype(int)
            for i, (bins, low, high) in enumerate(COLOUR_BINS)
        )
        core, own = (picture.silhouette(picture.places(points)) > 0 for points in (found.core, piece.voxels))
        shown = own & (picture.mask > 0.9) if piece.taken[view] > 0 else own
        regions = {
            "piece": shown & ~_grown(core, 1),
            "core": core & ~_grown(own, 1),
            "around": _grown(core | own, 12) & ~_grown(core | own | (picture.mask > 0.1), 2),
        }
        for name, region in regions.items():
            np.add.at(counts[name], tuple(axis[region] for axis in place), 1)
    if not all(count.any() for count in counts.values()):
        return 0.0
    smooth = {name: ndimage.gaussian_filter(count, 0.7) + 1e-3 * count.mean() for name, count in counts.items()}
    core, around = (smooth[name] / smooth[name].sum() for name in ("core", "around"))
    ratio = np.clip(np.log(core / around), -3, 3)
    mean = float((counts["piece"] * ratio).sum() / counts["piece"].sum())
    return float(np.clip(mean, OTHER_COLOUR, SAME_COLOUR))


def _grown(region: np.ndarray, pixels: int) -> np.ndarray:
    """(h, w) bool region, dilated."""
    return cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=pixels) > 0
