"""How far pixels are from a mask's outline."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["signed_distance"]


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) float32: distance of each pixel to a mask's outline in pixels, positive inside.

    Args:
        mask: (H, W) bool, with pixels of both sides.
    """
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)
