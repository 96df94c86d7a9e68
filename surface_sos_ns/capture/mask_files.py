"""Reads mask files: grey, palette, flat colours or alpha; coarse masks, true masks, masks of valid pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.object_names import MAX_OBJECTS
from surface_sos_ns.utils.image_io import ImageError, Size, read_picture

__all__ = ["MaskLayer", "label_shares", "read_layer", "read_mask"]

MIN_COLOUR_DIFFERENCE = 24
"""Range of a pixel's channels (of 255) above which it is coloured; less may be a colour cast or JPEG noise."""
MIN_BRIGHTNESS = 64
"""Largest channel (of 255) up to which a pixel is too dark to tell whether it is coloured."""
MAX_COLOURED_FRACTION = 0.1
"""Fraction of the bright pixels that may be coloured in a mask; with more, the file is taken for a photo."""
MAX_LABELS = 100
"""Largest number of distinct values that are taken for labels; more are shades."""
LUMA_WEIGHTS = (19595, 38470, 7471)
"""Weights of red, green and blue in luma (ITU-R BT.601), in units of 1/65536."""


@dataclass(frozen=True)
class MaskLayer:
    """The mask in a file, in the file's own data type: a capture may have hundreds of large masks.

    Attributes:
        name: of the file, for messages.
        values: (H, W) brightness or opacity from 0 to `white`; or, if there are labels, indices into `labels`.
        white: the value of object pixels.
        labels: (L,) int, sorted labels, 0 is the background; None if the values are shades.
        exact: whether grey values are exactly as written and may be labels after all: they are not opacities, and the
            format is lossless.
    """

    name: str
    values: np.ndarray
    white: float
    labels: np.ndarray | None = None
    exact: bool = False

    def counts(self) -> dict[int, int]:
        """Number of pixels of each label; empty without labels."""
        if self.labels is None:
            return {}
        counts = np.bincount(self.values.ravel(), minlength=len(self.labels))
        return {int(label): int(count) for label, count in zip(self.labels, counts, strict=True)}


def read_mask(path: Path, size: Size | None = None) -> np.ndarray:
    """A mask of one object as (H, W) float32 in [0, 1], upright, with soft values.

    The mask is the alpha channel of a cut-out (alpha 0 everywhere: no object), the brightness of a grey file, or the
    label in a file with a coloured palette or a few flat colours, where 0 or black is the background. If a grey file
    has one value besides 0, that value counts as white; not in lossy formats such as JPEG, where it may be noise.

    Args:
        path: the file.
        size: width and height of the photo's camera, see `utils.image_io.read_image`.

    Raises:
        ImageError: the file cannot be read as an image, is a photo, or holds labels of several objects.
    """
    layer = read_layer(path, size)
    values = layer.values
    if layer.labels is not None:
        if np.count_nonzero(layer.labels) > 1:
            raise ImageError(
                f"{path} holds labels of several objects: {label_shares(layer.counts(), values.size)}. Expected one "
                "object in white; `surface-sos masks --method folder --source FOLDER --instance LABEL` makes that of "
                f"a folder of such files. Masks of several objects hold the numbers 0 to {MAX_OBJECTS} at most, or are "
                "one file for each object."
            )
        return (layer.labels != 0).astype(np.float32)[values]
    white = values.max(initial=0) if layer.exact and _is_binary(values) else layer.white
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)


def read_layer(path: Path, size: Size | None = None, name: str | None = None) -> MaskLayer:
    """The mask layer of a file, see `read_mask`.

    Args:
        path: the file.
        size: width and height of the photo's camera, see `utils.image_io.read_image`.
        name: of the file in messages; its path by default.

    Raises:
        ImageError: the file cannot be read as an image, or is a photo.
    """
    picture, name = read_picture(path, size), name or str(path)
    alpha, values = picture.alpha, picture.values
    # A constant alpha channel carries no mask, unless it is 0 everywhere.
    if alpha is not None and (alpha.max(initial=0) == 0 or alpha.min() < alpha.max()):
        return MaskLayer(name, alpha, np.iinfo(alpha.dtype).max)
    if values.ndim == 2:
        return MaskLayer(name, values, _white(values, path), exact=not picture.lossy)
    shallow = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    spread = int(_channel_range(shallow).max(initial=0))
    if picture.palette_indices is not None and spread > 0:
        coded = picture.palette_indices
    elif spread > MIN_COLOUR_DIFFERENCE:
        coded = _weighted(shallow, (65536, 256, 1))
    else:
        coded = None
    if coded is not None:
        # A subsample first: np.unique is slow on large photos.
        few = not picture.lossy and len(np.unique(coded.ravel()[::101])) <= MAX_LABELS
        labels = np.unique(coded) if few else None
        if labels is not None and len(labels) <= MAX_LABELS:
            return MaskLayer(name, label_indices(coded, labels), 1, labels)
        if _is_coloured(shallow):
            raise ImageError(
                f"{path} looks like a photo, not like a mask: it has many colours. Expected black and white, labels, "
                "or a cut-out with transparency (labels in colour: as PNG, not as JPEG)."
            )
    brightness = ((_weighted(values, LUMA_WEIGHTS) + np.uint32(32768)) >> 16).astype(values.dtype)
    return MaskLayer(name, brightness, np.iinfo(values.dtype).max, exact=not picture.lossy)


def _weighted(colours: np.ndarray, weights: tuple[int, int, int]) -> np.ndarray:
    """(H, W) uint32 weighted sum of the channels, one channel at a time to save memory."""
    total = np.zeros(colours.shape[:2], np.uint32)
    for channel, weight in enumerate(weights):
        total += colours[..., channel].astype(np.uint32) * np.uint32(weight)
    return total


def label_indices(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 index of each value in the sorted labels; at most 256 labels."""
    return np.searchsorted(labels, values).astype(np.uint8)


def label_shares(counts: Mapping[int, int], pixels: int) -> str:
    """Labels with their fraction of all pixels, as text for a message."""
    words = [f"{label} ({count / pixels:.1%})" for label, count in sorted(counts.items())]
    return ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")


def _is_binary(values: np.ndarray) -> bool:
    """Whether the values are 0 and one other whole number, or 1 everywhere."""
    lowest, highest = values.min(initial=1), values.max(initial=0)
    if highest != np.rint(highest) or highest == 0 or (lowest != 0 and highest != 1):
        return False
    return bool(((values == 0) | (values == highest)).all())


def _white(values: np.ndarray, path: Path) -> float:
    """The value of white: the maximum of 8- and 16-bit types; else 1, 255 or 65535, by the largest value."""
    if values.dtype in (np.uint8, np.uint16):
        return np.iinfo(values.dtype).max
    if not np.isfinite(values).all():
        raise ImageError(f"{path} holds values that are no numbers (NaN or infinite); expected a mask, 0 to 1.")
    highest = float(values.max(initial=0))
    return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _is_coloured(colours: np.ndarray) -> bool:
    """Whether more than `MAX_COLOURED_FRACTION` of the bright pixels of an image (H, W, 3) uint8 are coloured."""
    bright = (colours > MIN_BRIGHTNESS).any(axis=2)
    coloured = bright & (_channel_range(colours) > MIN_COLOUR_DIFFERENCE)
    return bool(coloured.sum() > MAX_COLOURED_FRACTION * bright.sum())


def _channel_range(colours: np.ndarray) -> np.ndarray:
    """(H, W) difference between the largest and the smallest channel."""
    red, green, blue = np.moveaxis(colours, 2, 0)
    largest: np.ndarray = np.maximum(np.maximum(red, green), blue)
    return largest - np.minimum(np.minimum(red, green), blue)
