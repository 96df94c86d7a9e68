"""The render and export tabs of nerfstudio's viewer put the paths of run and capture into shell commands as they are.

A folder with a blank in its name breaks the command that the user copies, and one with a semicolon runs another one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nerfstudio.viewer import viewer as viewer_module

from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.utils.text import printable
from surface_sos_ns.web.messages import sanitised_path

__all__ = ["quote_paths_in_commands"]


def quote_paths_in_commands() -> None:
    """From here on both tabs get paths that quote themselves where they are formatted."""
    patch(viewer_module, "populate_render_tab", _with_quoted_paths)
    patch(viewer_module, "populate_export_tab", _with_quoted_paths)


class _QuotedPath(type(Path())):  # type: ignore[misc]
    """A path that stands in a command as one word, whatever it is called."""

    def __format__(self, _: str) -> str:
        return shlex.quote(printable(str(self)))


class _QuotedFolder(_QuotedPath):
    """One whose name becomes part of another path in a command."""

    @property
    def name(self) -> str:
        return sanitised_path(super().name)

    def __truediv__(self, name: Any) -> _QuotedPath:
        return _QuotedPath(str(self)) / name


def _with_quoted_paths(populate: Callable[..., Any]) -> Callable[..., Any]:
    def populate_tab(*arguments: Any, **options: Any) -> Any:
        return populate(*map(_quoted, arguments), **{name: _quoted(value) for name, value in options.items()})

    return populate_tab


def _quoted(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    return _QuotedFolder(value) if value.is_dir() else _QuotedPath(value)
