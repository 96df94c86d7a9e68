"""Masks of a detector that is wrong about the same thing in many photos: shares and errors as stated."""

from __future__ import annotations

import numpy as np

from surface_sos_ns.demo.detector_masks import chosen_photos, noisy_outline, with_neighbour, without_part
from surface_sos_ns.utils.overlap import intersection_over_union

TRUTH, OTHER, PART = (np.zeros((120, 160), bool) for _ in range(3))
TRUTH[30:90, 40:100] = True
OTHER[60:90, 110:140] = True
PART[30:90, 90:100] = True


def test_the_share_holds_in_each_group_and_larger_ones_add_photos() -> None:
    groups = [list(range(40)), [40, 41, 42, 43, 44]]
    some, more = chosen_photos(groups, 0.6, 0), chosen_photos(groups, 0.8, 0)
    assert len(some & set(groups[0])) == 24 and len(some & set(groups[1])) == 3
    assert some < more and len(more) == 36
    assert chosen_photos(groups, 0.6, 0) == some != chosen_photos(groups, 0.6, 1)


def test_outlines_are_soft_and_a_pixel_or_two_off() -> None:
    mask = noisy_outline(TRUTH, np.random.default_rng(0))
    assert mask.dtype == np.uint8 and ((mask > 0) & (mask < 255)).any()
    inner, outer = TRUTH.copy(), TRUTH.copy()
    inner[:] = False
    inner[36:84, 46:94] = True
    outer[24:96, 34:106] = True
    assert (mask[inner] == 255).all() and (mask[~outer] == 0).all()
    assert 0.85 < intersection_over_union(mask > 127, TRUTH) < 0.99
    assert not noisy_outline(np.zeros_like(TRUTH), np.random.default_rng(0)).any()


def test_a_neighbour_comes_as_a_whole_and_a_part_goes_as_a_whole() -> None:
    inside, middle = np.s_[66:84, 116:134], np.s_[36:84, 95:98]
    for wrong in (True, False):
        taken = with_neighbour(TRUTH, OTHER, wrong, np.random.default_rng(0))
        assert (taken[inside] == 255 * wrong).all()
        lost = without_part(TRUTH, PART, wrong, np.random.default_rng(0))
        assert lost[middle].mean() < 60 if wrong else lost[middle].mean() > 195
