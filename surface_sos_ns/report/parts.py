"""What a report says about the parts of an object of a run: the latest result of `surface-sos parts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from surface_sos_ns.report.content import PartReport, PartsReport
from surface_sos_ns.report.views import chosen_views, small_camera
from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.part_metrics import part_metrics
from surface_sos_ns.utils.pictures import tinted
from surface_sos_ns.utils.progress import Stage

if TYPE_CHECKING:
    from surface_sos_ns.api import Run
    from surface_sos_ns.plugin.dataset import SurfaceSOSDataset
    from surface_sos_ns.plugin.part_results import PartResult

__all__ = ["over_photo", "parts_report"]

PICTURES = 6
TINT = 0.65
"""Share of the part's colour over the photo."""


def parts_report(run: Run, dataset: SurfaceSOSDataset, longest: int) -> PartsReport | None:
    """Renders the parts of some views, and of all that training has not seen and whose true parts are known.

    Where all that have true parts were trained on, those are measured. None where the run has no parts.

    Args:
        run: opened.
        dataset: all of its views, with their truth.
        longest: pixels along the longer side of a view, at most.

    Raises:
        ImageError: a photo cannot be read.
        CaptureError: an image of true parts cannot be read.
    """
    if not run.part_results:
        return None
    result = run.part_results[0]
    files = dataset.metadata.get("gt_parts_filenames") or []
    with_truth = [index for index, file in enumerate(files) if file is not None]
    held_out = [index for index in with_truth if run.views[index].held_out]
    measured = held_out or with_truth
    shown = chosen_views(len(run.views), PICTURES, measured)
    pictures: dict[str, np.ndarray] = {}
    found: list[np.ndarray] = []
    true: list[np.ndarray] = []
    needed = sorted({*shown, *measured})
    with Stage(f"Rendering the parts of {len(needed)} views", len(needed)) as stage:
        for index in needed:
            camera = small_camera(run, run.views[index], longest)
            identities = run.parts(camera)
            size = identities.shape[1], identities.shape[0]
            if index in shown:
                photo = resized(run.photo(run.views[index], size="training"), *size)
                pictures[run.views[index].name] = over_photo(photo, identities, result.parts)
            known = dataset.get_part_identities(index) if index in measured else None
            if known is not None:
                found.append(identities.ravel())
                true.append(cv2.resize(known.astype(np.int32), size, interpolation=cv2.INTER_NEAREST_EXACT).ravel())
            stage.advance(1)
    return PartsReport(
        features=result.facts.features,
        parts=_rows(result),
        pictures=pictures,
        metrics=part_metrics(np.concatenate(found), np.concatenate(true)) if measured else {},
        measured=(len(measured), bool(held_out)),
        others=[other.parts for other in run.part_results[1:] if other.facts.object == result.facts.object],
        object=result.facts.object,
    )


def over_photo(photo: np.ndarray, identities: np.ndarray, parts: int) -> np.ndarray:
    """(H, W, 3) uint8: a photo (uint8) with each of K parts, identities (H, W) from 1, tinted and outlined."""
    for number, colour in enumerate(identity_bytes(parts).tolist(), start=1):
        photo = tinted(photo, identities == number, tuple(colour), TINT)
    return photo


def _rows(result: PartResult) -> list[PartReport]:
    colours = identity_bytes(result.parts).tolist()
    rows = zip(colours, result.facts.areas, result.facts.pieces, strict=True)
    return [
        PartReport(number, (red, green, blue), share, pieces)
        for number, ((red, green, blue), share, pieces) in enumerate(rows, start=1)
    ]
