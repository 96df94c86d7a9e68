"""nerfstudio prints paths through rich, which reads words in brackets as markup.

A folder called ``[/red]`` ends ns-train with a MarkupError before it has begun.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE
from rich.errors import MarkupError
from rich.text import Text

from surface_sos_ns.plugin.compat.patching import patch

__all__ = ["print_broken_markup_as_it_is"]


def print_broken_markup_as_it_is() -> None:
    """From here on nerfstudio's console prints text that is no valid markup letter by letter."""
    patch(CONSOLE, "render_str", _tolerant)


def _tolerant(render: Callable[..., Text]) -> Callable[..., Text]:
    def render_str(text: str, **options: Any) -> Text:
        try:
            return render(text, **options)
        except MarkupError:
            return render(text, **{**options, "markup": False})

    return render_str
