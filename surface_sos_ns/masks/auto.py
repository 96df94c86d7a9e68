"""`auto`: runs the methods that work here and takes the best masks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.masks.features import FeatureChoice, FeatureProvider
from surface_sos_ns.masks.mask_scoring import PointScore
from surface_sos_ns.masks.methods import METHODS
from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.place import with_points
from surface_sos_ns.masks.prior import Prior
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.masks.selfment import Selfment
from surface_sos_ns.masks.vote import vote

__all__ = ["Auto"]

WITH_LABELS = ("sam2", "maskrcnn", "rembg")
"""Methods trained with human labels, the best first."""

WITHOUT_LABELS = ("selfment", "prior")
"""Methods that need no labels, weights or network. Neither is the better one on all captures."""


@dataclass(frozen=True)
class _Found:
    """Masks of one method, their agreement in 3D (IoU) and, if there are sparse points, their score by these."""

    provider: MaskProvider
    masks: CoarseMasks
    agreement: float
    points: float | None

    @property
    def rank(self) -> tuple[bool, float]:
        """Larger is better. Masks that hardly agree in 3D rank below all that do."""
        return self.agreement >= LOW_CONFIDENCE, self.agreement if self.points is None else self.points


class Auto(MaskProvider):
    """Takes the best method that can run, and says so.

    All methods without labels are tried, and sparse points decide (:class:`PointScore`), or the agreement in 3D where
    there are none. Where a network can be had, selfment is tried with its features and with the descriptor's: neither
    is the better one on all captures. If labels are allowed, their methods come first, and the first whose masks agree
    in 3D is taken.

    Args:
        allow_labels: whether methods that were trained with human labels may be taken.
        features: of selfment, see :class:`FeatureChoice`. Those that are named here, or by the two arguments below,
            are the only ones.
        model: of selfment.
        features_onnx: of selfment.
        objects, names: of several objects, see `object_choice.chosen_names`. The method is prior then.

    Raises:
        MaskError: features, or options about objects, that do not go together.
    """

    name: ClassVar[str] = "auto"
    labels: ClassVar[str] = "none"

    def __init__(
        self,
        allow_labels: bool = False,
        features: str = "auto",
        model: str | None = None,
        features_onnx: Path | None = None,
        objects: int | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._several = Prior(objects, names) if chosen_names(objects, names) else None
        if self._several is not None and (allow_labels or not FeatureChoice(features, model, features_onnx).left_to_us):
            raise MaskError(
                "For several objects --method auto is prior, which has no use for --allow-labels or options of features. "
                "Leave them out, or name the method: cosegment, maskrcnn, text or sam2."
            )
        self._candidates = (*(WITH_LABELS if allow_labels else ()), *WITHOUT_LABELS)
        self._options = {"selfment": {"features": features, "model": model, "features_onnx": features_onnx}}
        self._asked_for = () if FeatureChoice(features, model, features_onnx).left_to_us else ("selfment",)
        self._usable: list[MaskProvider] = []
        self._passed_over: list[str] = []
        self.chosen: MaskProvider = self
        """Whose masks were taken, once there are any."""

    def check(self) -> None:
        """See :meth:`MaskProvider.check`."""
        if self._several is not None:
            return
        self._usable, self._passed_over = [], []
        for name in self._candidates:
            try:
                provider = METHODS[name].load()(**self._options.get(name, {}))
                provider.check()
            except (MaskError, ImportError) as error:
                if name in self._asked_for:  # features that are named are never replaced
                    raise
                self._passed_over.append(f"{name} ({error})")
            else:
                self._usable.append(provider)
                if isinstance(provider, Selfment) and provider.by_network and not self._asked_for:
                    self._usable.append(Selfment("descriptor"))
        if not self._usable:
            raise MaskError(f"No method can run here: {'; '.join(self._passed_over)}")

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """See :meth:`MaskProvider.masks`; :meth:`check` comes before it."""
        if self._several is not None:
            self.chosen = self._several
            return self._several.masks(photos, progress)
        for words in self._passed_over:
            progress(f"auto: passed over {words}")
        photos = with_points(photos, progress)
        scoring: PointScore | None = None
        with suppress(MaskError):  # the object's place is not clear from geometry; a detector may still find it
            scoring = PointScore(photos)
        found: list[_Found] = []
        problems = []
        for provider in self._usable:
            progress(f"auto: trying {_named(provider)} (labels behind it: {provider.labels})")
            try:
                made = provider.masks(photos, progress)
                voted = vote(photos, made.masks)
            except MaskError as error:
                progress(f"auto: {_named(provider)} found nothing: {error}")
                problems.append(f"{_named(provider)}: {error}")
                continue
            points = None if scoring is None else scoring.score(made.masks)
            this = _Found(provider, made, 0.0 if voted is None else voted.mean, points)
            found.append(this)
            progress(f"auto: {_words(this)}")
            if provider.name in WITH_LABELS and this.agreement >= LOW_CONFIDENCE:
                break
        if not found:
            raise MaskError(" ".join(problems))
        best = max(found, key=lambda one: one.rank)
        self.chosen = best.provider
        return CoarseMasks(
            best.masks.masks, best.masks.confidence, [f"auto took {_named(best.provider)}", *best.masks.remarks]
        )


def _named(provider: MaskProvider) -> str:
    """The provider's name, and what its features are."""
    if isinstance(provider, FeatureProvider):
        return f"{provider.name} ({provider.features_name})"
    return provider.name


def _words(found: _Found) -> str:
    points = (
        ""
        if found.points is None
        else f", and they cover points on the object rather than others by {found.points:.2f} of 1"
    )
    return f"the masks of {_named(found.provider)} agree in 3D at IoU {found.agreement:.2f}{points}"
