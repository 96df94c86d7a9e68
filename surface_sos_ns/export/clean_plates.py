"""Clean plates: photos completed where the object stands."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from surface_sos_ns.rendering.colour_space import to_display, to_light

__all__ = ["completed_photo"]

TRANSITION = 0.01
"""Width of the transition from photo to plate around the matte, and its distance from it: share of the longer side."""

MAX_EXPOSURE_RATIO = 1.5
"""Bound of the factor, per channel, between the exposures of photo and plate."""


def completed_photo(photo: np.ndarray, plate: np.ndarray, alpha: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """The photo where the object is not, the rendered background where it is, and a soft transition around it.

    The photo gets the light back that the object keeps away, as the background has. The background is rendered at the
    mean exposure and white balance; it is brought to the photo's, by a factor per channel, from the pixels of the
    transition, where both show the same.

    Args:
        photo: (H, W, 3) float, 0 to 1.
        plate: (H, W, 3) float, 0 to 1, rendered.
        alpha: (H, W) float, 0 to 1, the matte.
        shadow: (H, W) float, 0 to 1, share of the light that the object keeps away.

    Returns:
        (H, W, 3) float32; the photo, bit for bit, beyond the transition and the shadow.
    """
    photo = np.where(shadow[..., None] > 0, _in_full_light(photo, shadow), photo)
    width = max(2, round(TRANSITION * max(alpha.shape)))
    # Dilated by more than the blur reaches, so that the matte itself is all plate.
    near = cv2.dilate(np.minimum(1.0, alpha * 2).astype(np.float32), _disc(2 * width))
    weight = cv2.blur(near, (2 * width + 1, 2 * width + 1), borderType=cv2.BORDER_REPLICATE)[..., None]
    around = (weight[..., 0] > 1e-3) & (weight[..., 0] < 1 - 1e-3)
    if around.any():
        plate = np.clip(plate * _exposure(photo[around], plate[around]), 0, 1)
    return np.where(weight > 0, photo + weight * (plate - photo), photo).astype(np.float32)


def _in_full_light(photo: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    light = to_light(torch.as_tensor(photo)) / (1.0 - torch.as_tensor(shadow)[..., None]).clamp(min=1e-3)
    return to_display(light).clamp(0, 1).numpy()


def _exposure(photo: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """(3,) by how much pixels (P, 3) of the photo are brighter than the same of the plate."""
    factor = np.median(photo, axis=0) / np.maximum(np.median(plate, axis=0), 1e-3)
    return factor.clip(1 / MAX_EXPOSURE_RATIO, MAX_EXPOSURE_RATIO)


def _disc(radius: int) -> np.ndarray:
    size = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
