"""File names in the order that people give them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["natural_order"]


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names, the numbers in them by value: 2 before 10."""
    parts = [re.split(r"(\d+)", name) for name in names]
    keys = [[(int(part), part) if place % 2 else (0, part) for place, part in enumerate(name)] for name in parts]
    return sorted(range(len(names)), key=lambda index: keys[index])
