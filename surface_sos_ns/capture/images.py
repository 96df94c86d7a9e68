"""Photos and masks read from files of many kinds, and resized."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from surface_sos_ns.capture.checks import CaptureError

__all__ = ["mask_layer", "read_image", "read_mask", "resized"]


def read_image(path: Path) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB; grey, palette and CMYK files are converted, an alpha channel is dropped.

    Raises:
        CaptureError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise CaptureError(
            f"{path} cannot be read as an image ({error}). Replace the file or remove its frame from transforms.json."
        ) from error


def read_mask(path: Path) -> np.ndarray:
    """A mask as (H, W) float32 in 0..1, soft values kept.

    Understood are 8- and 16-bit grey files, files with the values 0 and 1, 1-bit files, label maps with a colour
    palette (every label but 0 is the object), colour files (their brightness) and cut-outs (their alpha channel).

    Raises:
        CaptureError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            values, labels = mask_layer(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise CaptureError(
            f"{path} cannot be read as a mask image ({error}). Write it again, as an 8-bit grey PNG."
        ) from error
    if labels:
        values = (values > 0).astype(np.uint8) * 255
    highest = float(values.max(initial=0))
    scale = 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0
    return np.clip(values.astype(np.float32) / scale, 0, 1)


def mask_layer(image: Image.Image) -> tuple[np.ndarray, bool]:
    """The layer of an image that is its mask, (H, W) as it stands, and whether its values are labels, not brightness.

    Labels are those of a colour palette. Else it is the grey values, the alpha channel of a cut-out (where it is the
    same all over, the brightness), the brightness of a colour file.
    """
    if image.mode == "P":
        colours = np.array(image.convert("RGB"))
        grey = bool((colours == colours[..., :1]).all())
        return (colours[..., 0] if grey else np.array(image)), not grey
    if image.mode in ("LA", "RGBA", "PA"):
        alpha = np.array(image.getchannel("A"))
        return (np.array(image.convert("L")) if alpha.min() == alpha.max() else alpha), False
    if image.mode in ("L", "1") or image.mode.startswith(("I", "F")):
        return np.array(image), False
    return np.array(image.convert("L")), False


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``image`` (H, W[, C]) at another size: area average when it shrinks, linear when it grows."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
