"""At which steps of a training run what happens; fractions of the run, as in the settings, become steps here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surface_sos_ns.plugin.model import SurfaceSOSModelConfig

__all__ = ["RunSchedule"]

AVERAGE_EVERY = 5
"""Steps between two weights that are averaged: neighbours are nearly alike, and each takes a pass over all tables."""


@dataclass(frozen=True)
class RunSchedule:
    """Steps are counted from 0, those before a resume included."""

    total_steps: int
    """Length of the run."""
    mask_refreshes: Mapping[int, int]
    """Step before which the object's mattes become its masks -> the number of this refresh in the run, from 1."""
    probability_refreshes: frozenset[int]
    """Steps before which m^P is estimated again."""
    cache_interval: int
    """Steps between two refreshes of the cached fields."""
    average_from: float
    """Fraction of the run from which on weights are averaged; over as long a part before each refresh of the masks."""

    @classmethod
    def of(cls, config: SurfaceSOSModelConfig, average_from: float) -> RunSchedule:
        """The schedule that a model's settings ask for; their length of the run must be set."""
        total = config.total_steps
        assert total is not None, "SurfaceSOSTrainerConfig sets it"
        mask_steps = sorted({int(fraction * total) for fraction in config.mask_refresh} - {0})
        return cls(
            total_steps=total,
            mask_refreshes={step: number for number, step in enumerate(mask_steps, 1)},
            probability_refreshes=frozenset(int(fraction * total) for fraction in config.probability_refresh),
            cache_interval=config.cache_interval,
            average_from=average_from,
        )

    def last_mask_refresh(self, first_step: int) -> int | None:
        """The number of the last refresh of masks before the step a run is resumed at; None where there is none."""
        return max((number for step, number in self.mask_refreshes.items() if step < first_step), default=None)

    def averages(self, steps_done: int) -> bool:
        """Whether the weights after so many steps are averaged: in the window before a mask refresh or the end."""
        part = (1.0 - self.average_from) * self.total_steps
        return any(end - part < steps_done <= end for end in (*self.mask_refreshes, self.total_steps))
