"""Which part gets which number: by area, or as an earlier result had it."""

from __future__ import annotations

import numpy as np


def areas(labels: np.ndarray, parts: int) -> np.ndarray:
    """Share (K,) of each label among labels (P,) of points that are drawn evenly by area."""
    return np.bincount(labels, minlength=parts) / max(len(labels), 1)


def order_by_area(labels: np.ndarray, parts: int) -> np.ndarray:
    """(K,) the labels from the largest area to the smallest; ties in the order of the labels."""
    return np.argsort(-areas(labels, parts), kind="stable")


def order_by_overlap(labels: np.ndarray, parts: int, earlier: np.ndarray) -> np.ndarray:
    """(K,) which label comes in which place, so that parts keep the places they had in an earlier result.

    The assignment maximises the area over which the places agree. Labels that meet no earlier part, or one whose place
    is beyond K, take the places that are left, the largest first.

    Args:
        labels: (P,) 0 to K - 1.
        parts: K.
        earlier: (P,) places, from 0, of the same points in the earlier result, of any number of parts.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = np.zeros((parts, max(parts, int(earlier.max(initial=-1)) + 1)))
    np.add.at(overlap, (labels, earlier), 1)
    order = np.full(parts, -1)
    rows, columns = linear_sum_assignment(-overlap)
    for label, place in zip(rows, columns, strict=True):
        if overlap[label, place] > 0 and place < parts:
            order[place] = label
    left = [label for label in order_by_area(labels, parts) if label not in order]
    order[order < 0] = left
    return order
