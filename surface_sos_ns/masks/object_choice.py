"""How many objects the options `--objects` and `--names` ask for, and what they are called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from surface_sos_ns.capture.object_names import MAX_OBJECTS, check_object_names, default_object_names
from surface_sos_ns.masks.provider import MaskError

__all__ = ["check_agree", "chosen_names", "names_of"]


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


def names_of(descriptions: Sequence[str]) -> tuple[str, ...]:
    """Names for objects out of what they are called in words: `wine glass`, `cup`, `cup` become wine_glass, cup, cup_2.

    Args:
        descriptions: of the objects, any text.

    Raises:
        CaptureError: a name would have a meaning of its own, such as `bg`.
    """
    names: list[str] = []
    for words in descriptions:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_") or "object"
        taken = {name.lower() for name in names}
        numbers = (plain if number == 1 else f"{plain}_{number}" for number in itertools.count(1))
        names.append(next(name for name in numbers if name.lower() not in taken))
    return check_object_names(names, "The description of the objects")
