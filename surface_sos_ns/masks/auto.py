"""The best masks that can be had here without asking for anything."""

from __future__ import annotations

from typing import Any, ClassVar

from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.masks.methods import METHODS
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.masks.vote import vote

__all__ = ["Auto"]

WITHOUT_LABELS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("selfment", {}, "it did best where the true masks are known"),
    ("prior", {}, "it needs nothing but the photos and their poses"),
)
"""Methods, their options and why they are taken, the best first."""

WITH_LABELS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("sam2", {}, "labels are allowed"),
    ("maskrcnn", {}, "labels are allowed"),
    ("rembg", {}, "labels are allowed"),
)


class Auto(MaskProvider):
    """Takes the first method of a list that can run, and says so.

    Where its masks hardly agree in 3D, or there are none, the next one is tried, and the better is kept.

    Args:
        allow_labels: whether methods that were trained with human labels may be taken; they come first then.
    """

    name: ClassVar[str] = "auto"
    labels: ClassVar[str] = "none"

    def __init__(self, allow_labels: bool = False) -> None:
        self._candidates = (*(WITH_LABELS if allow_labels else ()), *WITHOUT_LABELS)
        self._usable: list[tuple[MaskProvider, str]] = []
        self._passed_over: list[str] = []
        self.chosen: MaskProvider = self
        """Whose masks were taken, once there are any."""

    def check(self) -> None:
        """See :meth:`MaskProvider.check`."""
        self._usable, self._passed_over = [], []
        for name, options, reason in self._candidates:
            try:
                provider = METHODS[name].load()(**options)
                provider.check()
            except (MaskError, ImportError) as error:
                self._passed_over.append(f"{name} ({error})")
            else:
                self._usable.append((provider, reason))
        if not self._usable:
            raise MaskError(f"No method can run here: {'; '.join(self._passed_over)}")

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """See :meth:`MaskProvider.masks`."""
        for words in self._passed_over:
            progress(f"auto: passed over {words}")
        best: tuple[float, MaskProvider, CoarseMasks] | None = None
        problems = []
        for provider, reason in self._usable:
            progress(f"auto: {provider.name}, as {reason} (labels behind it: {provider.labels})")
            try:
                found = provider.masks(photos, progress)
                voted = vote(photos, found.masks)
            except MaskError as error:
                progress(f"auto: {provider.name} found nothing: {error}")
                problems.append(f"{provider.name}: {error}")
                continue
            agreement = 0.0 if voted is None else voted.mean
            if best is None or agreement > best[0]:
                best = agreement, provider, found
            if agreement >= LOW_CONFIDENCE:
                break
            progress(f"auto: the masks of {provider.name} agree in 3D at IoU {agreement:.2f} only")
        if best is None:
            raise MaskError(" ".join(problems))
        _, self.chosen, found = best
        return CoarseMasks(found.masks, found.confidence, [f"auto took {self.chosen.name}", *found.remarks])
