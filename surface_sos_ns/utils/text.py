"""Text that others wrote, such as names of files, so that it can be shown and nothing acts on what it says."""

from __future__ import annotations

import sys
import unicodedata

__all__ = ["as_code", "ascii_only", "escape_in_output", "printable"]

BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn the order of what follows


def printable(text: str) -> str:
    """Text for a terminal, a page or a file: control characters but line breaks and tabs as escapes, ``\\x1b``.

    A terminal would take them for commands: to move, to colour, to set its title. So are bytes of names that are not
    UTF-8, ``\\udce9``: Python keeps them as code points that no encoder takes.
    """
    return "".join(_escaped(letter) for letter in text)


def as_code(text: str) -> str:
    """Text as a piece of code in markdown, in one line.

    viser's page runs what stands in braces or tags in its markdown, unless it is code, and its server takes what looks
    like a picture for the name of a file to read.
    """
    line = printable(" ".join(text.splitlines()))
    return f"`{line.replace('`', chr(39)).replace('](', '] (')}`"


def ascii_only(text: str) -> str:
    """The text with a question mark for each character that is not ASCII, for OpenCV, whose fonts have no others."""
    return text.encode("ascii", "replace").decode("ascii")


def escape_in_output() -> None:
    """From here on standard output takes any text and escapes what it cannot encode, as standard error does anyway."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _escaped(letter: str) -> str:
    harmless = letter in "\n\t" or (unicodedata.category(letter) not in ("Cc", "Cs") and letter not in BIDIRECTIONAL)
    return letter if harmless else letter.encode("unicode_escape").decode()
