"""Text that others wrote, such as the names of files, so that nothing acts on what it says."""

from __future__ import annotations

import unicodedata

__all__ = ["as_code", "printable"]

BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn the order of what follows


def printable(text: str) -> str:
    """Text for a terminal: control characters but line breaks and tabs, and what is no character, as escapes.

    A terminal would take them for commands: to move, to colour, to set its title.
    """
    return "".join(_escaped(letter) for letter in text)


def as_code(text: str) -> str:
    """Text as a piece of code in markdown, in one line.

    viser's page runs what stands in braces or tags in its markdown, unless it is code, and its server takes what looks
    like a picture for the name of a file to read.
    """
    line = printable(" ".join(text.splitlines()))
    return f"`{line.replace('`', chr(39)).replace('](', '] (')}`"


def _escaped(letter: str) -> str:
    harmless = letter in "\n\t" or (unicodedata.category(letter) not in ("Cc", "Cs") and letter not in BIDIRECTIONAL)
    return letter if harmless else letter.encode("unicode_escape").decode()
