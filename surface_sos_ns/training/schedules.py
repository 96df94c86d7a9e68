"""Schedules as functions of the fraction of a run that is done: they scale with its length, and resume with it.

That fraction is a number, or where a step must not depend on the host (a captured CUDA graph) a scalar on the device;
results are of the same kind.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

Progress: TypeAlias = "float | Tensor"
"""Fraction of a run that is done, in [0, 1]: a number, or () on the device."""


def ramp(progress: Progress, start: float, end: float) -> Progress:
    """0 before `start`, 1 after `end`, linear between; all are fractions of the run in [0, 1]."""
    if isinstance(progress, Tensor):
        if end <= start:
            return (progress >= end).to(progress.dtype)
        return ((progress - start) / (end - start)).clamp(0.0, 1.0)
    if end <= start:
        return float(progress >= end)
    return min(max((progress - start) / (end - start), 0.0), 1.0)


def fade_out(progress: Progress, hold: float, end: float) -> Progress:
    """1 until `hold`, linear to 0 at `end`: the schedule of the initial mask loss (eq. 12)."""
    return 1.0 - ramp(progress, hold, end)


def geometric(progress: Progress, first: float, last: float, end: float = 1.0) -> Progress:
    """Exponential interpolation from `first` to `last`, which is reached at the fraction `end`."""
    exponent = math.log(last / first) * ramp(progress, 0.0, end)
    return first * (torch.exp(exponent) if isinstance(exponent, Tensor) else math.exp(exponent))
