"""Schedules as functions of the fraction of a run that is done: they scale with its length, and resume with it."""

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
    """Exponential interpolation from `first` to `last`, which is reached at the fraction `end`."""
    return first * math.exp(math.log(last / first) * ramp(progress, 0.0, end))
