"""nerfstudio's older viewer is a page on the internet that connects to this machine, and writes files where told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nerfstudio.viewer_legacy.server.viewer_state import ViewerLegacyState

from surface_sos_ns.plugin.compat.patching import patch

__all__ = ["OLDER_VIEWER", "refuse_older_viewer"]

OLDER_VIEWER = (
    "--vis viewer_legacy is not possible: that viewer is a page on the internet that connects to this machine, and "
    "writes files where a message says. Use --vis viewer, which needs no internet."
)


def refuse_older_viewer() -> None:
    """From here on starting it ends the program with a sentence."""
    patch(ViewerLegacyState, "__init__", _refusing)


def _refusing(build: Callable[..., None]) -> Callable[..., None]:
    del build

    def __init__(self: ViewerLegacyState, *arguments: Any, **options: Any) -> None:
        raise SystemExit(OLDER_VIEWER)

    return __init__
