"""What is known about the masks of a capture: in lines for the user, and as json beside the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.masks.provider import CoarseMasks, MaskProvider
from surface_sos_ns.masks.vote import DISAGREES, Vote

__all__ = ["about", "agreement_lines", "given_options"]


def agreement_lines(file_paths: Sequence[str], found: CoarseMasks, voted: Vote | None) -> list[str]:
    """How far masks agree with each other in 3D, which do not, and how many photos have none.

    Args:
        file_paths: of each photo, as in transforms.json.
        found: the masks.
        voted: their vote; None where there was nothing to compare.
    """
    if voted is None:
        return ["Fewer than two masks have object pixels, so nothing can be said about how far they agree."]
    low = (
        f", under {LOW_CONFIDENCE} something else was found or the poses are wrong)."
        if voted.mean < LOW_CONFIDENCE
        else ")."
    )
    lines = [f"In 3D the views agree at IoU {voted.mean:.2f} (mean of masks and projected hull; 1 is best{low}"]
    if voted.disagreeing:
        names = [f"{file_paths[view]} ({voted.agreement[view]:.2f})" for view in voted.disagreeing]
        lines.append(
            f"{len(names)} views disagree with the others (IoU under {DISAGREES} of a good view's): {', '.join(names)}"
        )
    missing = sum(mask is None for mask in found.masks)
    if missing:
        lines.append(f"{missing} photos have no mask; --vote makes one for them from the others.")
    return lines


def about(
    file_paths: Sequence[str],
    provider: MaskProvider,
    options: Mapping[str, Any],
    masks: CoarseMasks,
    voted: Vote | None,
    replaced: bool,
) -> dict[str, Any]:
    """Where masks come from and how good they seem, as json.

    Args:
        file_paths: of each photo, as in transforms.json.
        provider: that made them.
        options: of the command; those that are None, False or empty were not given.
        masks: what is written.
        voted: the vote of what the provider made; None where there was nothing to compare.
        replaced: whether `masks` are what the vote made of them.
    """
    chosen = getattr(provider, "chosen", provider)
    disagreeing = set() if voted is None else set(voted.disagreeing)
    return {
        "method": chosen.name,
        "labels": chosen.labels,
        "options": given_options(options),
        "voted": replaced,
        "agreement": None if voted is None else round(voted.mean, 4),
        "remarks": list(masks.remarks),
        "views": [
            {
                "file_path": file_path,
                "mask": masks.masks[view] is not None,
                "confidence": round(float(masks.confidence[view]), 4),
                "agreement": None if voted is None else _number(voted.agreement[view]),
                "disagrees": view in disagreeing,
            }
            for view, file_path in enumerate(file_paths)
        ],
    }


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command that were given, as json: those that are None, False or empty were not."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value not in (None, (), False)
    }


def _number(value: float) -> float | None:
    """The value for a json file, which knows no nan."""
    return round(float(value), 4) if value == value else None
