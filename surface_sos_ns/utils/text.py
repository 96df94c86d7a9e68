"""Escapes text from outside, such as file names, for terminals, web pages and markdown."""

from __future__ import annotations

import sys
import unicodedata

__all__ = ["as_code", "ascii_only", "escape_in_output", "printable"]

BIDIRECTIONAL = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # change the direction of the text that follows


def printable(text: str) -> str:
    """Text with control characters escaped (``\\x1b``), except line breaks and tabs.

    A terminal would interpret them as commands. Lone surrogates (``\\udce9``), by which Python represents bytes of file
    names that are not UTF-8, are escaped as well, since they cannot be encoded.
    """
    return "".join(_escaped(letter) for letter in text)


def as_code(text: str) -> str:
    """Text as inline code in markdown, in one line.

    Outside of code, viser's page evaluates braces and tags in markdown (MDX), and its server reads files whose names
    look like image links.
    """
    line = printable(" ".join(text.splitlines()))
    return f"`{line.replace('`', chr(39)).replace('](', '] (')}`"


def ascii_only(text: str) -> str:
    """The text with question marks for characters that are not ASCII, which OpenCV's fonts lack."""
    return text.encode("ascii", "replace").decode("ascii")


def escape_in_output() -> None:
    """Makes standard output escape characters that it cannot encode, as standard error does by default."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _escaped(letter: str) -> str:
    harmless = letter in "\n\t" or (unicodedata.category(letter) not in ("Cc", "Cs") and letter not in BIDIRECTIONAL)
    return letter if harmless else letter.encode("unicode_escape").decode()
