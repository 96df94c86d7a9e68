"""Image sharpness, to choose the sharpest of several similar photos."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["sharpness"]


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of a grey image (H, W) uint8; blurred images have a smaller one."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())
