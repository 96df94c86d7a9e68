"""What a report says, before it is a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from surface_sos_ns.report.curves import Curve
from surface_sos_ns.report.turntable import Turntable

__all__ = [
    "ADDED",
    "REMOVED",
    "Compared",
    "Content",
    "Figure",
    "Given",
    "ObjectReport",
    "ObjectsReport",
    "PartReport",
    "PartsReport",
    "Setting",
    "ViewReport",
    "repair_map",
    "repairs",
]

ADDED, REMOVED = (30, 136, 229), (245, 124, 0)
"""Colours of pixels that the found mask has and the coarse one lacks, and the other way round."""

Given = Literal["given", "empty", "missing"]
Compared = Literal["coarse mask", "first guess", "nothing"]
"""What found masks are compared with: coarse masks, first guesses where there were none, nothing where the method looks
at no masks."""


@dataclass(frozen=True)
class Figure:
    """One line of a table of figures: what, the value as text, and where or how it was measured."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """An option of the run by its dotted name, as text; `default` is the method's, None where it has no such option."""

    name: str
    value: str
    default: str | None


@dataclass(frozen=True)
class ViewReport:
    """What is known about one photo.

    Attributes:
        name: its file_path in transforms.json.
        held_out: whether training has not seen it.
        given: whether it came with a coarse mask; an empty one says nothing.
        found: share of its pixels that are object.
        agreement: IoU of the found mask with the coarse one; None without one.
        added, removed: pixels of the found mask that the coarse one lacks, and the reverse; shares of the photo.
        pictures: (h, w, 3) or (h, w, 4) uint8 by name: photo, mask, cutout, plate, normals, coarse, repair, error;
            empty where the view is measured only.
        metrics: against the truth, by ns-eval's names.
        identities: (h, w) uint8, which of several objects each pixel is found to be of, 0 for none; None with one.
        at_edge: whether the object reaches the picture's edge.
    """

    name: str
    held_out: bool
    given: Given
    found: float
    agreement: float | None = None
    added: float = 0.0
    removed: float = 0.0
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    identities: np.ndarray | None = None
    at_edge: bool = False


@dataclass(frozen=True)
class ObjectReport:
    """What is known about one of several objects.

    Attributes:
        name: of it.
        colour: in the pictures, RGB, 0 to 255.
        photos: in which it was found.
        area: mean share of these that it covers.
        agreement: IoU with its coarse masks, over all pixels of the photos trained on; None without any.
        iou: the same with the truth; None where that is not known.
        true_pixels: of it, in the photos that `iou` is over.
        picture: (h, w, 4) uint8, the object cut out of the photo that shows most of it; None where none does.
    """

    name: str
    colour: tuple[int, int, int]
    photos: int
    area: float
    agreement: float | None
    iou: float | None
    true_pixels: int
    picture: np.ndarray | None


@dataclass(frozen=True)
class ObjectsReport:
    """What is known about several objects.

    Attributes:
        objects: in the order of their identities.
        wrong_identity: share of the pixels of an object, in masks and truth, that are of different ones; None where no
            truth is known.
        measured: photos whose truth is known and compared with, and whether training has seen none of them.
    """

    objects: Sequence[ObjectReport]
    wrong_identity: float | None
    measured: tuple[int, bool]


@dataclass(frozen=True)
class PartReport:
    """What is known about one part.

    Attributes:
        number: its identity, from 1.
        colour: in the pictures, RGB, 0 to 255.
        share: of the object's surface.
        pieces: connected ones that it consists of, without specks.
    """

    number: int
    colour: tuple[int, int, int]
    share: float
    pieces: int


@dataclass(frozen=True)
class PartsReport:
    """What `surface-sos parts` found last.

    Attributes:
        features: what described the photos.
        parts: in the order of their numbers.
        pictures: by name of the photo, (h, w, 3) uint8, the photo with the parts in their colours.
        metrics: against the true parts, see `utils.part_metrics`; empty where there are none.
        measured: photos that the metrics are over, and whether training has seen none of them.
        others: numbers of parts of the run's other results, of the same object.
        object: name of the one of several objects that they are of; None with one.
    """

    features: str
    parts: Sequence[PartReport]
    pictures: Mapping[str, np.ndarray]
    metrics: Mapping[str, float]
    measured: tuple[int, bool]
    others: Sequence[int]
    object: str | None = None


@dataclass(frozen=True)
class Content:
    """Everything on the page, in its order.

    Attributes:
        title: the heading, the capture's name.
        method: that trained.
        date: of the page.
        sentences: what came out.
        views: all photos, in the capture's order.
        masks: what the found masks are compared with.
        confidence: how far the masks that training started from agree with their own vote in 3D; None where unknown.
        losses, measures: curves over steps; or why there are none.
        last_step: where the curves' axes end.
        mesh: its turntable; or why there is none.
        figures, settings, versions: tables.
        video: an MP4, or None.
        parts: of the object; None where none were looked for.
        objects: of a run with several; None with one.
    """

    title: str
    method: str
    date: str
    sentences: Sequence[str]
    views: Sequence[ViewReport]
    masks: Compared
    confidence: float | None
    losses: Sequence[Curve] | str
    measures: Sequence[Curve]
    last_step: int
    mesh: Turntable | str
    figures: Sequence[Figure]
    settings: Sequence[Setting]
    versions: Sequence[Figure]
    video: bytes | None = None
    parts: PartsReport | None = None
    objects: ObjectsReport | None = None


def repairs(found: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W) bool that were added to a coarse mask, and those removed from it; masks (H, W) bool."""
    return found & ~coarse, coarse & ~found


def repair_map(photo: np.ndarray, found: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the photo in dim grey, brighter where both masks say object, `ADDED` and `REMOVED` in colour."""
    grey = photo.astype(np.float32).mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    picture = np.where((found & coarse)[..., None], 0.55 * grey + 95, 0.4 * grey + 10)
    for pixels, colour in zip(repairs(found, coarse), (ADDED, REMOVED), strict=True):
        picture[pixels] = 0.2 * grey[pixels] + 0.8 * np.array(colour)
    return np.rint(picture.clip(0, 255)).astype(np.uint8)
