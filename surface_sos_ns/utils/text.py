"""Names of files as text that can be shown: Python keeps bytes that are not UTF-8 as code points no encoder takes."""

from __future__ import annotations

import sys

__all__ = ["ascii_only", "escape_in_output", "printable"]


def printable(text: str) -> str:
    """The text with such bytes as escapes (``caf\\udce9.jpg``), for a page, a panel or a file."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def ascii_only(text: str) -> str:
    """The text with a question mark for each character that is not ASCII, for OpenCV, whose fonts have no others."""
    return text.encode("ascii", "replace").decode("ascii")


def escape_in_output() -> None:
    """From here on standard output takes any text and escapes what it cannot encode, as standard error does anyway."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
