"""Curves over training steps as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Curve", "curve_points", "curve_svg", "curves_of"]

WIDTH, HEIGHT, MARGIN = 260.0, 96.0, 4.0  # of a picture, in the units of its viewBox
MAX_POINTS = 240  # of a curve


@dataclass(frozen=True)
class Curve:
    """Values over steps, both (N,), in order; `log`: drawn on a logarithmic scale (then values <= 0 are left out)."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    log: bool = False


def curves_of(records: Sequence[tuple[int, dict[str, float]]], log: bool) -> list[Curve]:
    """A curve for each name in records of (step, values by name), in the order in which the names appear."""
    names = dict.fromkeys(name for _, values in records for name in values)
    found = []
    for name in names:
        pairs = [(step, values[name]) for step, values in records if math.isfinite(values.get(name, math.nan))]
        if pairs:
            found.append(Curve(name, [step for step, _ in pairs], [value for _, value in pairs], log))
    return found


def curve_points(curve: Curve, last_step: int) -> list[tuple[float, float]]:
    """Where a curve goes in a picture of `WIDTH` x `HEIGHT`, x to the right, y down, steps 0 to `last_step`.

    The lowest value lies `MARGIN` above the bottom, the highest `MARGIN` below the top; a constant is halfway. Of more
    than `MAX_POINTS` values, each of as many equal parts is shown by its mean.
    """
    pairs = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if not curve.log or v > 0]
    if not pairs:
        return []
    size = -(-len(pairs) // MAX_POINTS)
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    steps = [sum(step for step, _ in part) / len(part) for part in parts]
    values = [sum(math.log10(v) if curve.log else v for _, v in part) / len(part) for part in parts]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    raised = 0.0 if high > low else 0.5
    return [
        (
            MARGIN + step / max(last_step, 1) * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - ((value - low) / span + raised) * (HEIGHT - 2 * MARGIN),
        )
        for step, value in zip(steps, values, strict=True)
    ]


def curve_svg(curve: Curve, last_step: int, label: str) -> str:
    """The curve as an SVG element that takes the page's colour; `label` is what a screen reader says, escaped."""
    path = " ".join(
        f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(curve_points(curve, last_step))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">'
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round"></path></svg>'
    )
