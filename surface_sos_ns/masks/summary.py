"""What is known about the masks of a capture: in lines for the user, and as json beside the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surface_sos_ns.capture.object_prior import LOW_CONFIDENCE
from surface_sos_ns.masks.object_votes import ObjectVotes
from surface_sos_ns.masks.provider import CoarseMasks, MaskProvider
from surface_sos_ns.masks.vote import DISAGREES, Vote

__all__ = ["about", "agreement_lines", "given_options"]


def agreement_lines(file_paths: Sequence[str], found: CoarseMasks, voted: Vote | ObjectVotes | None) -> list[str]:
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
    several = " over the objects" if isinstance(voted, ObjectVotes) else ""
    lines = [
        f"In 3D the views agree at IoU {voted.mean:.2f} (mean{several} of masks and projected hull; 1 is best{low}"
    ]
    if isinstance(voted, ObjectVotes):
        each = [
            f"{name} {one.mean:.2f} ({count} photos)"
            for name, one, count in zip(voted.names, voted.votes, voted.photos_showing(), strict=True)
        ]
        lines.append(f"Each object: {', '.join(each)}")
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
    voted: Vote | ObjectVotes | None,
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
    objects = _about_objects(voted) if isinstance(voted, ObjectVotes) else {}
    return {
        "method": chosen.name,
        "labels": chosen.labels,
        "options": given_options(options),
        "voted": replaced,
        "agreement": None if voted is None else round(voted.mean, 4),
        **objects,
        "remarks": list(masks.remarks),
        "views": [
            {
                "file_path": file_path,
                "mask": masks.masks[view] is not None,
                "confidence": round(float(masks.confidence[view]), 4),
                "agreement": None if voted is None else _number(voted.agreement[view]),
                **(_about_view(voted, view) if isinstance(voted, ObjectVotes) else {}),
                "disagrees": view in disagreeing,
            }
            for view, file_path in enumerate(file_paths)
        ],
    }


def _about_objects(voted: ObjectVotes) -> dict[str, Any]:
    """Of each object its identity, in how many photos it is, and how far these agree on it."""
    return {
        "objects": [
            {"name": name, "identity": identity, "photos": count, "agreement": round(one.mean, 4)}
            for identity, (name, one, count) in enumerate(
                zip(voted.names, voted.votes, voted.photos_showing(), strict=True), start=1
            )
        ]
    }


def _about_view(voted: ObjectVotes, view: int) -> dict[str, Any]:
    """The agreement on each object that a photo shows."""
    pairs = zip(voted.names, voted.votes, strict=True)
    found = {name: _number(one.agreement[view]) for name, one in pairs}
    return {"objects": {name: value for name, value in found.items() if value is not None}}


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command that were given, as json: those that are None, False or empty were not."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value not in (None, ()) and value is not False  # 0 is a value
    }


def _number(value: float) -> float | None:
    """The value for a json file, which knows no nan."""
    return round(float(value), 4) if value == value else None
