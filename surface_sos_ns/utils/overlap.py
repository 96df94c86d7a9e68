"""How far two masks overlap."""

from __future__ import annotations

import numpy as np

__all__ = ["intersection_over_union"]


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two bool masks of one shape; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
