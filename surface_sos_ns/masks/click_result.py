"""`click` with a trained run: its own mattes are shown, the least certain photos first, and clicks correct them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.click import ClickSession
from surface_sos_ns.masks.points_to_masks import ClickedPoint, part_of_clicks
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.masks.surface_transfer import added_beyond, transferred
from surface_sos_ns.utils.overlap import intersection_over_union
from surface_sos_ns.utils.text import as_code

__all__ = ["ResultSession", "certainty", "corrected_mask"]

TASK = """The run's own masks are shown, those of the least certain photos first. **Click what is missing; where too
much is, tick *not the object* and click that.** Two or three photos from different sides are enough where they show all
that is wrong. *Propagate* carries it to all photos.
Scroll to zoom, drag with the right button to move."""

REACH = 3
"""Pixels around a click within which a changed region counts as clicked."""


def certainty(matte: np.ndarray, given: np.ndarray | None) -> float:
    """How sure a photo's matte is, 0 to 1: how nearly it is 0 or 1, times its IoU with the mask that was given.

    Args:
        matte: (H, W) float in [0, 1].
        given: (H, W) mask in [0, 1] that training started from; None where there was none.
    """
    solid = matte >= 0.5
    decided = 1.0 - float(np.minimum(matte, 1 - matte).sum() / max(matte.sum(), 1.0))
    return decided * (1.0 if given is None else intersection_over_union(solid, np.asarray(given) >= 0.5))


def corrected_mask(photo: np.ndarray, clicks: Sequence[ClickedPoint], before: np.ndarray) -> np.ndarray:
    """(H, W) bool: a mask with regions added that have a positive click, and regions removed that have a negative one.

    A click reaches pixels that are near by geodesic distance over the colours, and no farther away than
    `points_to_masks.PART`: large regions take several.

    Args:
        photo: (H, W, 3) uint8 RGB.
        clicks: of this photo, in its pixels.
        before: (H, W) the mask that they correct.
    """
    solid = np.asarray(before) >= 0.5
    missing = [click for click in clicks if click.positive and not solid[int(click.y), int(click.x)]]
    result = solid.copy()
    if missing:
        others = [click for click in clicks if not click.positive]
        result |= _regions_at(part_of_clicks(photo, [*missing, *others]) & ~solid, missing)
    wrong = [click for click in clicks if not click.positive and result[int(click.y), int(click.x)]]
    if wrong:
        exchanged = [replace(click, positive=not click.positive) for click in clicks]
        result &= ~_regions_at(part_of_clicks(photo, exchanged) & result, wrong)
    return result


def _regions_at(mask: np.ndarray, clicks: Sequence[ClickedPoint]) -> np.ndarray:
    """(H, W) bool: the connected regions of a mask that clicks are in or beside."""
    labels, _ = ndimage.label(mask)
    chosen = set[int]()
    for click in clicks:
        row, column = int(click.y), int(click.x)
        near = labels[max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1]
        chosen |= set(np.unique(near).tolist())
    return np.isin(labels, list(chosen - {0}))


class ResultSession(ClickSession):
    """Clicks that correct a run's result.

    Args:
        photos: of the run's capture, the least certain first.
        mattes: N mattes (H, W) float32 of the run, of the photos' images' sizes.
        views: N views of the depths' sizes, world frame of the run.
        depths: N depths (h, w) along the rays, world units.
    """

    task = TASK

    def __init__(
        self, photos: Photos, mattes: Sequence[np.ndarray], views: Views, depths: Sequence[np.ndarray]
    ) -> None:
        super().__init__(photos)
        self.mattes, self.views, self.depths = list(mattes), views, list(depths)
        self.masks: list[np.ndarray] = list(mattes)

    @property
    def touched(self) -> list[int]:
        """Photos in which anything was clicked."""
        return sorted({point.view for point in self.points})

    def propagate(self, progress: Callable[[str], None]) -> list[np.ndarray]:  # type: ignore[override]
        """Carries the corrections to all photos.

        Raises:
            MaskError: nothing was clicked, or clicks change nothing.
        """
        if not self.points:
            raise MaskError("Nothing is clicked, so there is nothing to correct. Ctrl-C where you started ends this.")
        if self._stale:
            corrected = {view: self._corrected(view) for view in self.touched}
            if not any((mask != (self.mattes[view] >= 0.5)).any() for view, mask in corrected.items()):
                raise MaskError("The clicks change nothing: what is clicked green is in the mask, red is not.")
            progress(f"carrying the corrections of {len(corrected)} photos to {len(self.photos)}")
            self.masks = transferred(self.views, self.mattes, self.depths, corrected)
            self._stale = False
            self._previews.clear()
        return self.masks

    def coarse_masks(self) -> CoarseMasks:
        """See `ClickSession.coarse_masks`."""
        changed = sum(
            bool(((new >= 0.5) != (old >= 0.5)).any()) for new, old in zip(self.masks, self.mattes, strict=True)
        )
        remark = (
            f"corrected in {len(self.touched)} photos ({len(self.points)} clicks), which changes {changed} masks; all "
            "others are the run's own"
        )
        return CoarseMasks(self.masks, np.ones(len(self.masks)), [remark])

    def added_beyond(self, centre: np.ndarray, radius: float) -> float:
        """Share of what was added that lies outside a sphere of the world frame, see `surface_transfer`."""
        return added_beyond(self.views, self.mattes, self.masks, self.depths, centre, radius)

    def mask(self, view: int) -> np.ndarray:
        """(H, W) bool, see `ClickSession.mask`."""
        if view not in self.touched or not self._stale:
            return self.masks[view] >= 0.5
        return self._corrected(view)

    def status(self, message: str = "") -> str:
        """Markdown: how far the user is, and what to do next."""
        lines = [as_code(message)] if message else []
        name = self.photos.files[self.shown].name
        lines.append(f"Photo {self.shown + 1} of {len(self.photos)}, the least certain first: {as_code(name)}")
        if not self.points:
            lines.append("The run's own mask is shown. Click what it lacks; *not the object*, then what is too much.")
        elif self._stale:
            lines.append(
                f"Photos with corrections: {len(self.touched)}. *Propagate* carries them to the others; a part that is "
                "not seen in these needs clicks in another photo."
            )
        else:
            lines.append("Corrections are carried over. Click what is still wrong, or *Done*.")
        return "\n\n".join(lines)

    def _changed(self, view: int) -> None:
        super()._changed(view)
        if not self.points:  # all of them were taken back
            self.masks = list(self.mattes)

    def _corrected(self, view: int) -> np.ndarray:
        if view not in self._previews:
            clicks = [point for point in self.points if point.view == view]
            self._previews[view] = corrected_mask(self.photos.images[view], clicks, self.mattes[view])
        return self._previews[view]
