"""Takes out of the masks what is wrong with them in the same way in many photos, see `mask_pieces`.

Where a mask holds a piece that is no part of the object, or lacks one that is, its value becomes 1/2, which counts as
no vote. The shape of the piece then follows from the masks that are right; nothing is drawn into a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from surface_sos_ns.capture.mask_pieces import MaskPiece, PieceSearch, find_pieces
from surface_sos_ns.capture.piece_evidence import PieceEvidence, weigh_piece
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import find_support_plane
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.image_io import resized

__all__ = ["PieceDecision", "RepairedMasks", "repair_masks", "say_decisions", "transfer_repair"]

OPEN_NO, OPEN_YES = 127 / 255, 128 / 255
"""The two 8-bit values next to 1/2, which mean no vote. Thresholded at 0.5, they are background and object."""
SURE_OF_VOTES = 0.75
"""Share of the masks against a decision from which on it is doubtful."""
SURE = 1.0
"""Nats from which on a decision is not doubtful."""
ENOUGH_VOTES = 0.75
"""Share of the masks that hold a part of the object from which on nothing has to be done."""
FEWEST_HOLDING = 0.15
"""Share of the masks that must hold a part for it to be added: fewer do not fix its shape."""


@dataclass(frozen=True)
class PieceDecision:
    """What was decided on a piece.

    Attributes:
        piece: the piece.
        evidence: for and against the piece.
        views: number of masks in which it can be told whether they hold it.
    """

    piece: MaskPiece
    evidence: PieceEvidence

    @property
    def views(self) -> int:
        """Number of masks in which it can be told whether they hold it."""
        return int((self.piece.taken != 0).sum())

    @property
    def belongs(self) -> bool:
        """Whether it is a part of the object."""
        return self.evidence.total > 0 and self.piece.share >= FEWEST_HOLDING

    @property
    def doubtful(self) -> bool:
        """Whether it may well be wrong: most masks, or all else, are against it, or the evidence is weak."""
        sign = 1 if self.belongs else -1
        against = 1 - self.piece.share if self.belongs else self.piece.share
        return against >= SURE_OF_VOTES or sign * self.evidence.cues <= 0 or sign * self.evidence.total < SURE

    @property
    def idle(self) -> bool:
        """Whether the masks need no repair for it."""
        return self.belongs and self.piece.share >= ENOUGH_VOTES

    def sentence(self) -> str:
        """What was found and decided, for a person."""
        holding = int((self.piece.taken > 0).sum())
        found = f"{holding} of {self.views} masks hold a piece of {self.piece.area:.0%} of the object's size"
        lacking = f"{found}, the others lack it"
        reasons = _reasons(self.evidence, self.belongs)
        decided = "it is taken as a part of the object" if self.belongs else "it is kept out"
        return f"masks: {lacking}; {decided}{f', since it {reasons}' if reasons else ''}"

    def advice(self) -> str:
        """What to do where the decision may be wrong, for a person."""
        side = "lack" if self.belongs else "hold"
        count = int((self.piece.taken < 0).sum() if self.belongs else (self.piece.taken > 0).sum())
        return (
            f"{self.sentence()}. That may be wrong: {count} of {self.views} masks {side} it. Look at the result; if it "
            "is wrong, mend the masks, or make new ones from a few clicks: surface-sos masks --method click."
        )


@dataclass(frozen=True)
class RepairedMasks:
    """Masks after the repair.

    Attributes:
        masks: N (H, W) float32 in 0..1; None where a view has none.
        changed: views whose mask differs from what came in.
        decisions: on each piece that was found.
    """

    masks: list[np.ndarray | None]
    changed: tuple[int, ...]
    decisions: tuple[PieceDecision, ...]


def repair_masks(
    views: Views,
    masks: Sequence[np.ndarray | None],
    photos: Sequence[np.ndarray],
    points: SparsePoints | None,
    sphere: ObjectSphere,
) -> RepairedMasks:
    """Finds pieces that only some of the masks hold, decides on each, and repairs the masks.

    Args:
        views: N views, world frame.
        masks: N masks (H, W) in 0..1, of the views' sizes; None where a view has none.
        photos: N photos (H, W, 3) uint8.
        points: sparse points, world frame, for the support plane; or None.
        sphere: the object's, as far as it is known, world frame.
    """
    found = find_pieces(views, masks, sphere)
    kept = [None if mask is None else np.array(mask, np.float32) for mask in masks]
    if not found.pieces:
        return RepairedMasks(kept, (), ())
    plane = None if points is None else find_support_plane(views.centres(), points.xyz, sphere)
    decisions, changed = [], set[int]()
    for piece in found.pieces:
        decision = PieceDecision(piece, weigh_piece(piece, found, views, photos, plane, sphere.radius))
        decisions.append(decision)
        if decision.idle:
            continue
        for view in found.pictures:
            mask = kept[view]
            if mask is not None and piece.taken[view] != (1 if decision.belongs else -1):
                repaired = _without_vote(mask, found, piece, view, decision.belongs)
                if (repaired != mask).any():
                    kept[view] = repaired
                    changed.add(view)
    return RepairedMasks(kept, tuple(sorted(changed)), tuple(decisions))


def _without_vote(mask: np.ndarray, found: PieceSearch, piece: MaskPiece, view: int, belongs: bool) -> np.ndarray:
    """The mask (H, W) of a view, without a vote where it is wrong about a piece."""
    picture, kernel = found.pictures[view], np.ones((3, 3), np.uint8)
    body, own = (picture.silhouette(picture.places(points)) for points in (found.core, piece.voxels))
    near = cv2.dilate(own, kernel)

    def large(region: np.ndarray) -> np.ndarray:
        size = mask.shape[1], mask.shape[0]
        return cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    result = mask.copy()
    if belongs:
        result[large(near) & (mask < OPEN_YES)] = OPEN_YES
        return result
    outline = cv2.dilate(body, kernel) > 0
    # A connected region of the mask beside the core is the piece as a whole if at least half of it is.
    beside = ((picture.mask > 0.1) & ~outline).astype(np.uint8)
    count, islands = cv2.connectedComponents(beside, connectivity=8)
    for island in range(1, count):
        here = islands == island
        if (here & (near > 0)).sum() >= 0.5 * here.sum():
            near[here] = 1
    covered, inner = large(near), large(body)
    result[covered & inner & (mask >= OPEN_YES)] = OPEN_YES
    result[covered & ~inner & (mask > OPEN_NO)] = OPEN_NO
    return result


def transfer_repair(mask: np.ndarray, repaired: np.ndarray) -> np.ndarray:
    """A mask as it came in, without a vote where its repaired copy has none.

    Args:
        mask: (H, W) float32 in 0..1.
        repaired: (h, w) of the same view, in 0..1, perhaps smaller.
    """
    height, width = mask.shape
    small = resized(mask, repaired.shape[1], repaired.shape[0])
    no_vote = np.isin(np.rint(repaired * 255), (127, 128)) & (np.abs(small - repaired) > 1.5 / 255)
    no_vote, value = (
        cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
        for image in (no_vote, repaired)
    )
    return np.where(no_vote > 0, value, mask).astype(np.float32)


def _reasons(evidence: PieceEvidence, belongs: bool) -> str:
    """The reasons for the decision, in words."""
    sign = 1 if belongs else -1
    words = {
        "joint": ("is joined to the rest", "stands apart from the rest"),
        "support": ("is carried by the rest", "stands by itself"),
        "colour": ("has the rest's colours", "has other colours than the rest"),
    }
    said = [pair[0 if belongs else 1] for name, pair in words.items() if sign * getattr(evidence, name) > 0.25]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def say_decisions(decisions: Sequence[PieceDecision], say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Tell a person what was decided: plainly where it is clear, as a warning where it may be wrong."""
    for decision in decisions:
        if decision.doubtful:
            warn(decision.advice())
        elif not decision.idle:
            say(decision.sentence())
