"""The one way in which functions of the host are replaced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["patch", "unpatched"]


def patch(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function for the rest of this process. Doing so again starts from the host's own function again.

    Args:
        owner: the class, module or object that has the function.
        name: of the function.
        wrap: makes the new function of the host's own.
    """
    original = unpatched(getattr(owner, name))
    patched: Any = functools.wraps(original)(wrap(original))
    patched.unpatched = original
    setattr(owner, name, patched)


def unpatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The host's own function where `patch` has replaced it, else the function itself."""
    original: Callable[..., Any] = getattr(function, "unpatched", function)
    return original
