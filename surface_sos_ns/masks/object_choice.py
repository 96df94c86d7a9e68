"""How many objects the options `--objects` and `--names` ask for, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from surface_sos_ns.capture.object_names import MAX_OBJECTS, check_object_names, default_object_names
from surface_sos_ns.masks.provider import MaskError

__all__ = ["check_agree", "chosen_names"]


def check_agree(objects: int | None, names: Sequence[str]) -> tuple[str, ...]:
    """Checks the two options against each other.

    Args:
        objects: number of objects; 0 for as many as there are, None if it was not given.
        names: of the objects; empty if they were not given.

    Returns:
        The names.

    Raises:
        MaskError: there is one object only, more than `MAX_OBJECTS`, or the two numbers differ.
        CaptureError: a name cannot be an object's.
    """
    if len(names) == 1 or objects == 1:
        raise MaskError("--objects and --names are for several objects; leave them out for one.")
    if objects is not None and objects > MAX_OBJECTS:
        raise MaskError(f"--objects says {objects}; expected {MAX_OBJECTS} at most.")
    if names and objects and objects != len(names):
        raise MaskError(f"--objects says {objects}, and --names has {len(names)} names; leave one of the two out.")
    return check_object_names(names, "--names") if names else ()


def chosen_names(objects: int | None, names: Sequence[str]) -> tuple[str, ...]:
    """The names of the objects that are asked for: `object_1` and so on without names; empty for one object.

    Args:
        objects, names: see `check_agree`.

    Raises:
        MaskError, CaptureError: see `check_agree`; or the number of objects is not said.
    """
    named = check_agree(objects, names)
    if objects == 0 and not named:
        raise MaskError("--objects needs the number of objects here, such as --objects 3; or name them with --names.")
    return named or default_object_names(objects or 0)
