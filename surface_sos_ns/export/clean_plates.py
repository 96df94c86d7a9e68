"""Clean plates: photos completed where the object stands."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["completed_photo"]

REACH = 0.01
"""How far around the matte a photo is given up, and again how wide the transition is: a fraction of the longer side."""


def completed_photo(photo: np.ndarray, plate: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The photo where the object is not, the rendered background where it is, and a soft transition around it.

    Args:
        photo: (H, W, 3) float, 0 to 1.
        plate: (H, W, 3) float, 0 to 1, rendered.
        alpha: (H, W) float, 0 to 1, the matte.

    Returns:
        (H, W, 3) float32; the photo, bit for bit, beyond the transition.
    """
    reach = max(2, round(REACH * max(alpha.shape)))
    given_up = cv2.dilate(alpha.astype(np.float32), _disc(2 * reach))
    # Dilated by more than the blur's reach, so that the matte itself and a seam around it are all plate.
    weight = cv2.blur(np.minimum(1.0, given_up * 2), (2 * reach + 1, 2 * reach + 1), borderType=cv2.BORDER_REPLICATE)
    weight = weight[..., None]
    return np.where(weight > 0, photo + weight * (plate - photo), photo).astype(np.float32)


def _disc(radius: int) -> np.ndarray:
    size = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
