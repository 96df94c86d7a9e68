"""Numbers of parts."""

from __future__ import annotations

import numpy as np

from surface_sos_ns.models.parts.identities import areas, order_by_area, order_by_overlap


def test_numbers_go_by_area():
    labels = np.repeat([0, 1, 2], [20, 50, 30])
    assert areas(labels, 3).tolist() == [0.2, 0.5, 0.3]
    assert order_by_area(labels, 3).tolist() == [1, 2, 0]


def test_parts_keep_the_places_they_had():
    earlier = np.repeat([0, 1, 2], [50, 30, 20])
    labels = np.repeat([2, 0, 1], [50, 30, 20])
    assert order_by_overlap(labels, 3, earlier).tolist() == [2, 0, 1]


def test_places_are_kept_where_another_part_has_grown_larger():
    earlier = np.repeat([0, 1], [60, 40])
    labels = np.concatenate([np.repeat(1, 45), np.repeat(0, 55)])  # label 0 took 15 points, and is the larger now
    assert order_by_overlap(labels, 2, earlier).tolist() == [1, 0]


def test_more_parts_than_before_take_the_places_that_are_left():
    earlier = np.repeat([0, 1], [60, 40])
    labels = np.concatenate([np.repeat(3, 10), np.repeat(1, 50), np.repeat(0, 25), np.repeat(2, 15)])
    assert order_by_overlap(labels, 4, earlier).tolist() == [1, 0, 2, 3]


def test_fewer_parts_than_before_have_no_place_beyond_their_number():
    earlier = np.repeat([0, 1, 2], [20, 30, 50])
    labels = np.repeat([0, 0, 1], [20, 30, 50])
    order = order_by_overlap(labels, 2, earlier)
    assert sorted(order.tolist()) == [0, 1]


def test_an_empty_part_comes_last():
    assert order_by_overlap(np.zeros(10, dtype=int), 3, np.ones(10, dtype=int)).tolist()[1] == 0
