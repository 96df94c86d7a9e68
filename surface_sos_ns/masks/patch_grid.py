"""Grids of patches made smaller and larger."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["doubled", "enlarged", "halved"]


def halved(grid: np.ndarray) -> np.ndarray:
    """(h, w[, C]) to (ceil(h / 2), ceil(w / 2)[, C]): means of two by two; a last odd row or column counts twice."""
    height, width = grid.shape[:2]
    padded = np.pad(grid, [(0, height % 2), (0, width % 2)] + [(0, 0)] * (grid.ndim - 2), mode="edge")
    return padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, *grid.shape[2:]).mean(axis=(1, 3))


def doubled(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The way back from :func:`halved`: every patch becomes four, cut to ``shape``."""
    return grid.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def enlarged(odds: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Log-odds (h, w) of patches as probabilities (H, W) float32 of pixels, linear in the log-odds between patches."""
    fine = cv2.resize(odds.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (1 / (1 + np.exp(-fine))).astype(np.float32)
