"""Paths with brackets in nerfstudio's messages.

nerfstudio prints paths through rich, which reads words in brackets as markup: a folder called ``[/red]`` ends ns-train
with a MarkupError before it has begun.
"""

from __future__ import annotations

from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE
from rich.errors import MarkupError
from rich.text import Text

__all__ = ["print_broken_markup_as_it_is"]


def print_broken_markup_as_it_is() -> None:
    """From here on nerfstudio's console prints text that is no valid markup letter by letter."""
    render = type(CONSOLE).render_str

    def render_str(text: str, **options: Any) -> Text:
        try:
            return render(CONSOLE, text, **options)
        except MarkupError:
            return render(CONSOLE, text, **{**options, "markup": False})

    CONSOLE.render_str = render_str  # type: ignore[method-assign, assignment]
