"""What the plugin says in the terminal, in nerfstudio's console."""

from __future__ import annotations

from nerfstudio.utils.rich_utils import CONSOLE

from surface_sos_ns.utils.inert import printable


def say(words: str) -> None:
    """Print a line as it is. Paths and commands are for copying: no line breaks, no brackets taken for markup."""
    CONSOLE.print(printable(words), markup=False, highlight=False, soft_wrap=True)
