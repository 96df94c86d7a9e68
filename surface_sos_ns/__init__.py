"""Surface-SOS for nerfstudio: an object segmented in every view of a capture, without labels, through its surface.

A trained run from Python::

    from surface_sos_ns import load_run

    run = load_run("outputs/SCENE/surface-sos-lite/TIME/config.yml")
    matte = run.matte("frame_00001.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surface_sos_ns.api import Run, RunError, View, load_run

    __version__: str

__all__ = ["Run", "RunError", "View", "load_run"]


def __getattr__(name: str) -> Any:
    """What is listed above, imported when it is first asked for: it brings nerfstudio along. And the version."""
    if name == "__version__":
        from importlib.metadata import version

        return version("surface-sos-ns")
    if name in __all__:
        from surface_sos_ns import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
