"""Schedules as fractions of a run, so that a longer run stretches them and a resumed one continues them."""

from __future__ import annotations

import math


def ramp(progress: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, linear between; all are fractions of the run in [0, 1]."""
    if end <= start:
        return float(progress >= end)
    return min(max((progress - start) / (end - start), 0.0), 1.0)


def fade_out(progress: float, hold: float, end: float) -> float:
    """1 until `hold`, linear to 0 at `end`: the schedule of the initial mask loss (eq. 12)."""
    return 1.0 - ramp(progress, hold, end)


def geometric(progress: float, first: float, last: float, end: float = 1.0) -> float:
    """From `first` to `last` with constant ratio a step, reached at the fraction `end`."""
    return first * math.exp(math.log(last / first) * ramp(progress, 0.0, end))
