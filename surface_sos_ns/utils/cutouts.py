"""The object cut out: its own colours and its matte, with nothing of what was behind it."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.utils.extras import require_package

__all__ = ["cutout_of_photo", "cutout_of_rendering"]

RIM = 8
"""Pixels around the matte that keep a colour, so that scaling the picture later mixes no black into its outline."""

NEARLY_OPAQUE = 0.8
"""Alpha from which colours change from the estimated ones to the photo's own, minus the background's share."""


def cutout_of_photo(photo: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The object as a photo shows it, without the background that shines through at its outline.

    A photo's pixel is ``alpha F + (1 - alpha) B``. F and B are found as the smoothest that explain it (multi-level
    estimation, Germer et al. 2020, by pymatting).

    Args:
        photo: (H, W, 3) float, 0 to 1.
        alpha: (H, W) float, 0 to 1.

    Returns:
        (H, W, 4) float32, colours not premultiplied; black and transparent away from the object.

    Raises:
        MissingPackageError: pymatting is not installed.
    """
    require_package("pymatting", "A cut-out of a photo")
    own = np.array(photo, dtype=np.float64)
    rows, columns = np.nonzero(alpha > 0)
    if len(rows) > 0 and ((alpha > 0) & (alpha < 1)).any():
        # Far from the object nothing is to be estimated.
        top, left = max(0, rows.min() - 2 * RIM), max(0, columns.min() - 2 * RIM)
        here = np.s_[top : rows.max() + 1 + 2 * RIM, left : columns.max() + 1 + 2 * RIM]
        own[here] = _unmixed(own[here].copy(), np.ascontiguousarray(alpha[here], np.float64))
    return _with_rim(own, alpha)


def _unmixed(photo: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The foreground's colours (H, W, 3) in a photo (H, W, 3) with a matte (H, W), float64."""
    from pymatting import estimate_foreground_ml

    smooth, behind = estimate_foreground_ml(photo, alpha, return_background=True)
    opaque = alpha[..., None].clip(NEARLY_OPAQUE, 1)
    exact = (photo - (1 - opaque) * behind) / opaque
    return smooth + (opaque - NEARLY_OPAQUE) / (1 - NEARLY_OPAQUE) * (exact - smooth)


def cutout_of_rendering(foreground: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The same from a rendered foreground (H, W, 3) over black: its colours are divided by alpha (H, W)."""
    return _with_rim(foreground / np.maximum(alpha, 1e-3)[..., None], alpha)


def _with_rim(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    size = 2 * RIM + 1
    near = cv2.dilate((alpha > 0.5 / 255).astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    return np.dstack([np.where(near[..., None], np.clip(colours, 0, 1), 0), alpha]).astype(np.float32)
