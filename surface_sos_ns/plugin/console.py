"""What the plugin says in the terminal, in nerfstudio's console."""

from __future__ import annotations

from nerfstudio.utils.rich_utils import CONSOLE

from surface_sos_ns.utils.text import printable

__all__ = ["say", "warn"]


def say(words: str, style: str | None = None) -> None:
    """Print a line as it is. Paths and commands are for copying: no line breaks, no brackets taken for markup."""
    CONSOLE.print(printable(words), style=style, markup=False, highlight=False, soft_wrap=True)


def warn(words: str) -> None:
    """Print a warning."""
    say(f"Warning: {words}", style="yellow")
