"""Durations in words."""

from __future__ import annotations

from surface_sos_ns.utils.progress import duration


def test_durations_are_in_the_unit_that_people_would_take() -> None:
    found = [duration(seconds) for seconds in (0.0, 89.4, 95.0, 754.0, 5399.0, 9000.0)]
    assert found == ["0 s", "89 s", "2 min", "13 min", "90 min", "2.5 h"]
