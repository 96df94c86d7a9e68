"""Schedules as fractions of a run."""

from __future__ import annotations

import pytest

from surface_sos_ns.training.schedules import fade_out, geometric, ramp


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.25), (0.4, 0.5), (0.6, 1.0), (1.0, 1.0), (1.7, 1.0)]
)
def test_ramp(progress, value):
    assert ramp(progress, 0.2, 0.6) == pytest.approx(value)


def test_a_ramp_without_length_is_a_step():
    assert ramp(0.29, 0.3, 0.3) == 0.0
    assert ramp(0.3, 0.3, 0.3) == 1.0


@pytest.mark.parametrize(("progress", "value"), [(0.0, 1.0), (0.1, 1.0), (0.2, 0.5), (0.3, 0.0), (1.0, 0.0)])
def test_fade_out(progress, value):
    """The mask loss: full to 10 % of training, off from 30 %."""
    assert fade_out(progress, 0.1, 0.3) == pytest.approx(value)


def test_geometric():
    assert geometric(0.0, 20.0, 400.0) == pytest.approx(20.0)
    assert geometric(1.0, 20.0, 400.0) == pytest.approx(400.0)
    assert geometric(0.5, 20.0, 500.0) == pytest.approx(100.0)
    assert geometric(0.4, 20.0, 500.0, end=0.8) == pytest.approx(100.0)
    assert geometric(0.9, 20.0, 500.0, end=0.8) == pytest.approx(500.0)
    assert geometric(0.5, 16.0, 1.0) == pytest.approx(4.0)
