"""Masks in files of every kind, by one decoder: coarse masks, true masks, masks of valid pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_sos_ns.utils.image_io import ImageError, Size, read_picture

__all__ = ["MaskLayer", "label_shares", "read_layer", "read_mask"]

COLOURED = 24
"""Channels (0 to 255) that differ by more are a colour, not a grey with a cast or the noise of JPEG."""
DARK = 64
"""A pixel without a brighter channel says nothing about colours."""
FEW_COLOURED = 0.1
"""Part of the pixels that are not dark, up to which coloured ones are no reason to refuse a file."""
MOST_LABELS = 100
"""More different values than this in one file are shades, not labels."""
LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue in brightness (ITU-R 601), as 65536ths."""


@dataclass(frozen=True)
class MaskLayer:
    """The layer of a file that is its mask, kept small: a capture may have hundreds of large ones.

    Attributes:
        name: of the file, for messages.
        values: (H, W) brightness or opacity, 0 to `white`; or for each pixel the place of its label in `labels`.
        white: the value of a pixel that is wholly object.
        labels: (L,) int, sorted, of which 0 is the background; None where the values are shades.
        exact: whether shades are the values that were written, and may be labels after all: neither changed by a lossy
            format, nor opacities.
    """

    name: str
    values: np.ndarray
    white: float
    labels: np.ndarray | None = None
    exact: bool = False

    def counts(self) -> dict[int, int]:
        """Pixels of each label."""
        if self.labels is None:
            return {}
        counts = np.bincount(self.values.ravel(), minlength=len(self.labels))
        return {int(label): int(count) for label, count in zip(self.labels, counts, strict=True)}


def read_mask(path: Path, size: Size | None = None) -> np.ndarray:
    """A mask of one object as (H, W) float32 in 0..1, upright, soft values kept.

    What counts is the opacity of a cut-out (0 all over: no object), the brightness of a grey file, and the label in a
    file with a coloured palette or a few flat colours, where 0 or black is the background. In a grey file that has but
    one value besides 0, that value is white, whatever it is; not so in a lossy one such as JPEG, where it is noise.

    Args:
        path: the file.
        size: width and height of the photo's camera, see `utils.image_io.read_image`.

    Raises:
        ImageError: there is no readable image file, or it holds a photo, or labels of several objects.
    """
    layer = read_layer(path, size)
    values = layer.values
    if layer.labels is not None:
        if np.count_nonzero(layer.labels) > 1:
            raise ImageError(
                f"{path} holds labels of several objects: {label_shares(layer.counts(), values.size)}. Expected one "
                "object in white; `surface-sos masks --method folder --source FOLDER --instance LABEL` makes that of "
                "a folder of such files."
            )
        return (layer.labels != 0).astype(np.float32)[values]
    white = values.max(initial=0) if layer.exact and _is_binary(values) else layer.white
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)


def read_layer(path: Path, size: Size | None = None, name: str | None = None) -> MaskLayer:
    """The mask layer of a file, see `read_mask`.

    Args:
        path: the file.
        size: width and height of the photo's camera, see `utils.image_io.read_image`.
        name: what the file is called in messages; its path by default.

    Raises:
        ImageError: there is no readable image file, or it is a photo.
    """
    picture, name = read_picture(path, size), name or str(path)
    alpha, values = picture.alpha, picture.values
    # An opacity that is the same all over says nothing, unless all was cut away.
    if alpha is not None and (alpha.max(initial=0) == 0 or alpha.min() < alpha.max()):
        return MaskLayer(name, alpha, np.iinfo(alpha.dtype).max)
    if values.ndim == 2:
        return MaskLayer(name, values, _white(values, path), exact=not picture.lossy)
    shallow = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    spread = int(_spread(shallow).max(initial=0))
    if picture.places is not None and spread > 0:
        coded = picture.places
    elif spread > COLOURED:
        coded = _weighted(shallow, (65536, 256, 1))
    else:
        coded = None
    if coded is not None:
        few = not picture.lossy and len(np.unique(coded.ravel()[::101])) <= MOST_LABELS  # quick, for large photos
        labels = np.unique(coded) if few else None
        if labels is not None and len(labels) <= MOST_LABELS:
            return MaskLayer(name, places_of(coded, labels), 1, labels)
        if _is_coloured(shallow):
            raise ImageError(
                f"{path} looks like a photo, not like a mask: it has many colours. Expected black and white, labels, "
                "or a cut-out with transparency (labels in colour: as PNG, not as JPEG)."
            )
    brightness = ((_weighted(values, LUMA) + np.uint32(32768)) >> 16).astype(values.dtype)
    return MaskLayer(name, brightness, np.iinfo(values.dtype).max, exact=not picture.lossy)


def _weighted(colours: np.ndarray, weights: tuple[int, int, int]) -> np.ndarray:
    """(H, W) uint32 sum of the channels times weights, one channel after the other: files may be large."""
    total = np.zeros(colours.shape[:2], np.uint32)
    for channel, weight in enumerate(weights):
        total += colours[..., channel].astype(np.uint32) * np.uint32(weight)
    return total


def places_of(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 place of each value in the sorted labels, of which there are no more than 256."""
    return np.searchsorted(labels, values).astype(np.uint8)


def label_shares(counts: Mapping[int, int], pixels: int) -> str:
    """Labels with their shares of all pixels, for a message."""
    words = [f"{label} ({count / pixels:.1%})" for label, count in sorted(counts.items())]
    return ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")


def _is_binary(values: np.ndarray) -> bool:
    """Whether there are 0 and one other whole number, and none else; or 1 everywhere."""
    lowest, highest = values.min(initial=1), values.max(initial=0)
    if highest != np.rint(highest) or highest == 0 or (lowest != 0 and highest != 1):
        return False
    return bool(((values == 0) | (values == highest)).all())


def _white(values: np.ndarray, path: Path) -> float:
    """The value of white: the highest of the type, or what the values themselves suggest where they have many bits."""
    if values.dtype in (np.uint8, np.uint16):
        return np.iinfo(values.dtype).max
    if not np.isfinite(values).all():
        raise ImageError(f"{path} holds values that are no numbers (NaN or infinite); expected a mask, 0 to 1.")
    highest = float(values.max(initial=0))
    return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _is_coloured(colours: np.ndarray) -> bool:
    """Whether many of the pixels (H, W, 3) uint8 that are not dark are no shade of grey."""
    bright = (colours > DARK).any(axis=2)
    coloured = bright & (_spread(colours) > COLOURED)
    return bool(coloured.sum() > FEW_COLOURED * bright.sum())


def _spread(colours: np.ndarray) -> np.ndarray:
    """(H, W) difference of the largest and the smallest channel."""
    red, green, blue = np.moveaxis(colours, 2, 0)
    largest: np.ndarray = np.maximum(np.maximum(red, green), blue)
    return largest - np.minimum(np.minimum(red, green), blue)
