"""What a report says about each of several objects: where it is, how far its masks agree, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.report.content import ObjectReport, ObjectsReport, ViewReport
from surface_sos_ns.report.views import small_camera
from surface_sos_ns.utils.cutouts import cutout_of_photo
from surface_sos_ns.utils.encoding import colour_picture
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.pictures import size_within

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, View
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.plugin.dataset import SurfaceSOSDataset

__all__ = ["objects_report"]


def objects_report(
    run: Run, dataset: SurfaceSOSDataset, prior: ObjectPrior | None, views: Sequence[ViewReport], longest: int
) -> ObjectsReport | None:
    """Measures the objects in every view; None where the run has one object.

    Agreement is with the coarse masks that training started from. The truth is that of photos that training has not
    seen; where it is known of none of these, that of the others.

    Args:
        run: opened.
        dataset: all of its views, with their truth.
        prior: what training started from; None where that is not known.
        views: all of them, with the identities that were found.
        longest: pixels along the longer side of a view at which it is measured, at most.

    Raises:
        ImageError: a photo cannot be read.
        CaptureError: an image of true identities cannot be read.
    """
    if not run.objects:
        return None
    files = dataset.metadata.get("gt_objects_filenames") or [None] * len(run.views)
    with_truth = [index for index, file in enumerate(files) if file is not None]
    held_out = [index for index in with_truth if run.views[index].held_out]
    measured = held_out or with_truth
    coarse = iter(prior.identities if prior is not None else ())
    objects = [_Measured(identity) for identity in range(1, len(run.objects) + 1)]
    swapped = _Share()
    for view, report in zip(run.views, views, strict=True):
        assert report.identities is not None
        height, width = report.identities.shape
        found = resized_identities(report.identities, *size_within(width, height, longest))
        given = _fitted(None if view.held_out else next(coarse, None), found)
        truth = _fitted(dataset.get_true_identities(view.index) if view.index in measured else None, found)
        for one in objects:
            one.add(view, found, given, truth)
        if truth is not None:
            swapped.add((found > 0) & (truth > 0) & (found != truth), (found > 0) & (truth > 0))
    colours = identity_bytes(len(objects)).tolist()
    rows = [
        ObjectReport(
            name,
            (red, green, blue),
            one.photos,
            one.area.value or 0.0,
            one.agreement.value,
            one.truth.value,
            one.true_pixels,
            _picture(run, one.best, name, longest),
        )
        for name, (red, green, blue), one in zip(run.objects, colours, objects, strict=True)
    ]
    return ObjectsReport(rows, swapped.value, (len(measured), bool(held_out)))


@dataclass
class _Share:
    """Pixels of some kind, of all photos together, over those of another."""

    part: int = 0
    whole: int = 0

    def add(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Count pixels (H, W) bool."""
        self.part, self.whole = self.part + int(part.sum()), self.whole + int(whole.sum())

    @property
    def value(self) -> float | None:
        """None where there is nothing to compare with."""
        return self.part / self.whole if self.whole else None


@dataclass
class _Measured:
    """What is counted of one object."""

    identity: int
    photos: int = 0
    true_pixels: int = 0
    area: _Share = field(default_factory=_Share)  # of the photos that show it
    agreement: _Share = field(default_factory=_Share)
    truth: _Share = field(default_factory=_Share)
    best: View | None = None  # that shows most of it
    largest: int = 0

    def add(self, view: View, found: np.ndarray, given: np.ndarray | None, truth: np.ndarray | None) -> None:
        """Count a view's identities (H, W): found, of its coarse mask, and true."""
        own = found == self.identity
        if own.any():
            self.photos += 1
            self.area.add(own, np.ones_like(own))
        if int(own.sum()) > self.largest:
            self.best, self.largest = view, int(own.sum())
        for overlap, other in ((self.agreement, given), (self.truth, truth)):
            if other is not None:
                overlap.add(own & (other == self.identity), own | (other == self.identity))
        if truth is not None:
            self.true_pixels += int((truth == self.identity).sum())


def _fitted(identities: np.ndarray | None, like: np.ndarray) -> np.ndarray | None:
    """Identities at the size of an image (H, W)."""
    return None if identities is None else resized_identities(identities, like.shape[1], like.shape[0])


def _picture(run: Run, view: View | None, name: str, longest: int) -> np.ndarray | None:
    """(H, W, 4) uint8: the object cut out of a photo."""
    if view is None:
        return None
    matte = run.matte(small_camera(run, view, longest), name)
    photo = resized(run.photo(view, size="training"), matte.shape[1], matte.shape[0])
    return colour_picture(cutout_of_photo(photo / np.float32(255), matte))
