"""Photos that disagree with all others are named."""

from __future__ import annotations

import re

import numpy as np
import pytest

from surface_sos_ns.plugin.photo_agreement import disagreeing_photos, photos_remark

USUAL = 1e-3 * np.exp(0.3 * np.random.default_rng(0).normal(size=40))
NAMES = [f"images/{view:02}.jpg" for view in range(40)]


def with_errors(**ratios: float) -> np.ndarray:
    errors = USUAL.copy()
    for name, ratio in ratios.items():
        errors[int(name[1:])] = ratio * np.median(USUAL)
    return errors


def test_only_photos_that_are_far_worse_are_named() -> None:
    assert photos_remark(NAMES, USUAL) is None
    found = with_errors(v7=30.0, v21=8.0, v30=3.0)
    assert disagreeing_photos(found).tolist() == [7, 21]
    said = photos_remark(NAMES, found)
    assert said is not None and "2 of 40 photos disagree" in said
    times = dict(re.findall(r"(images/\d+\.jpg) \((\d+) times\)", said))
    assert list(times) == ["images/07.jpg", "images/21.jpg"]
    assert abs(int(times["images/07.jpg"]) - 30) <= 3 and abs(int(times["images/21.jpg"]) - 8) <= 1


def test_where_errors_differ_much_more_is_needed() -> None:
    errors = 1e-3 * np.exp(np.random.default_rng(1).normal(size=40))
    errors[3] = 10 * np.median(errors)
    assert 3 not in disagreeing_photos(errors), "10 times is three standard deviations of these"
    errors[3] = 200 * np.median(errors)
    assert disagreeing_photos(errors).tolist() == [3]


@pytest.mark.parametrize("errors", [np.full(40, np.nan), np.array([1.0, 50.0, 1.0]), np.zeros(40)])
def test_what_is_not_known_is_not_said(errors) -> None:
    assert photos_remark(NAMES, errors) is None
