"""Cut-outs of the object: foreground colours and alpha, free of background colours."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.utils.cores import numba_threads
from surface_sos_ns.utils.extras import require_package
from surface_sos_ns.utils.kernel_cache import allow_unwritable_cache

__all__ = ["cutout_of_photo", "cutout_of_rendering"]

COLOUR_MARGIN = 8
"""Pixels around the matte that keep a colour, so that resampling a cut-out mixes no black into its edge."""

MOSTLY_OPAQUE = 0.8
"""Alpha from which on colours are blended from the smooth estimate to the solution of the compositing equation."""


def cutout_of_photo(photo: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The object in a photo, without the background colour in its semi-transparent pixels.

    A pixel is ``alpha F + (1 - alpha) B``. F and B are estimated by fast multi-level foreground estimation (Germer et
    al. 2020, pymatting), which prefers smooth colours.

    Args:
        photo: (H, W, 3) float, 0 to 1.
        alpha: (H, W) float, 0 to 1.

    Returns:
        (H, W, 4) float32 in [0, 1], not premultiplied; black and transparent away from the object.

    Raises:
        MissingPackageError: pymatting is not installed.
    """
    require_package("pymatting", "A cut-out of a photo")
    own = np.array(photo, dtype=np.float64)
    rows, columns = np.nonzero(alpha > 0)
    if len(rows) > 0 and ((alpha > 0) & (alpha < 1)).any():
        # Crop to the object: the estimation is slow.
        top, left = max(0, rows.min() - 2 * COLOUR_MARGIN), max(0, columns.min() - 2 * COLOUR_MARGIN)
        here = np.s_[top : rows.max() + 1 + 2 * COLOUR_MARGIN, left : columns.max() + 1 + 2 * COLOUR_MARGIN]
        own[here] = _foreground_colours(own[here].copy(), np.ascontiguousarray(alpha[here], np.float64))
    return _with_colour_margin(own, alpha)


def _foreground_colours(photo: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Foreground colours (H, W, 3) of a photo (H, W, 3) with alpha (H, W), float64."""
    allow_unwritable_cache()  # pymatting's import compiles
    with numba_threads():
        from pymatting import estimate_foreground_ml

        smooth, background = estimate_foreground_ml(photo, alpha, return_background=True)
    opaque = alpha[..., None].clip(MOSTLY_OPAQUE, 1)
    exact = (photo - (1 - opaque) * background) / opaque
    return smooth + (opaque - MOSTLY_OPAQUE) / (1 - MOSTLY_OPAQUE) * (exact - smooth)


def cutout_of_rendering(foreground: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """As `cutout_of_photo`, from a foreground (H, W, 3) rendered over black, which is divided by alpha (H, W)."""
    return _with_colour_margin(foreground / np.maximum(alpha, 1e-3)[..., None], alpha)


def _with_colour_margin(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) float32: colours and alpha, black farther than `COLOUR_MARGIN` from the matte."""
    size = 2 * COLOUR_MARGIN + 1
    near = cv2.dilate((alpha > 0.5 / 255).astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    return np.dstack([np.where(near[..., None], np.clip(colours, 0, 1), 0), alpha]).astype(np.float32)
