"""Names of the objects of a capture that has several. Identity k is that of the k-th name; 0 is the background."""

from __future__ import annotations

import re
from collections.abc import Sequence

from surface_sos_ns.capture.checks import CaptureError

__all__ = ["MAX_OBJECTS", "check_object_names", "default_object_names"]

MAX_OBJECTS = 32
"""Most objects of a capture: identities are 1 to this."""
RESERVED = ("all", "bg")
"""Names with a meaning of their own: every object in options and the viewer, the background in metrics."""
RESERVED_END = "_std"
"""How metrics of ns-eval end that are standard deviations."""

DEPTH = "depth"
"""nerfstudio takes outputs with this in their name for depth maps."""


def default_object_names(count: int) -> tuple[str, ...]:
    """`object_1` to `object_K`, for K objects without names."""
    return tuple(f"object_{identity}" for identity in range(1, count + 1))


def check_object_names(names: Sequence[str], source: str) -> tuple[str, ...]:
    """The names, if they can be those of a capture's objects.

    Names become parts of names of outputs (`mask_cup`), metrics (`mask_iou_cup`) and folders.

    Args:
        names: of K objects; the first has identity 1.
        source: where they stand, for messages.

    Raises:
        CaptureError: there are none or more than `MAX_OBJECTS`, two are equal but for capital letters, or one holds
            other characters than letters, digits and `_`, or is reserved.
    """
    if not 1 <= len(names) <= MAX_OBJECTS:
        raise CaptureError(f"{source} names {len(names)} objects; expected 1 to {MAX_OBJECTS}.")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise CaptureError(
                f"{source} names an object {name!r}; expected letters, digits and _ only, since the name becomes part "
                "of the names of outputs and folders."
            )
        if name.lower() in RESERVED or name.lower().endswith(RESERVED_END):
            raise CaptureError(
                f"{source} names an object {name!r}; {', '.join(RESERVED)} and names that end in {RESERVED_END} have a "
                "meaning of their own. Choose another name."
            )
        if DEPTH in name.lower():
            raise CaptureError(
                f"{source} names an object {name!r}; nerfstudio draws what has {DEPTH!r} in its name as distances. "
                "Choose another name."
            )
    folded = [name.lower() for name in names]
    twice = sorted({name for name in folded if folded.count(name) > 1})
    if twice:
        raise CaptureError(
            f"{source} names two objects {twice[0]!r} (capital letters make no difference). Give each its own name."
        )
    return tuple(names)
