"""Reads identity images: a whole number for each pixel, 0 for the background, 1, 2, ... for objects or for parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.object_names import MAX_OBJECTS
from surface_sos_ns.utils.image_io import LOSSY_FORMATS, ImageError, Picture, Size, read_header, read_picture

__all__ = ["check_identity_images", "identity_counts", "read_identities", "resized_identities"]

EXPECTED = (
    "a PNG (or another lossless format) of one channel with 8 or 16 bits, or a palette: 0 for the background, "
    "1, 2, ... for the {kind}"
)
ONE_CHANNEL = ("L", "P", "I", "I;16", "I;16B", "I;16L")
"""Pillow's names of the pixel formats that hold one whole number a pixel."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_identity_images(
    files: Sequence[Path | None], photos: Sequence[Path], accepted: Sequence[Sequence[Size]], kind: str
) -> None:
    """Checks what the headers of identity images tell, before any of them is read.

    Args:
        files: for each photo its identities, or None.
        photos: for messages.
        accepted: for each photo the accepted sizes (width, height): as used, and as stored.
        kind: what has the identities, for messages: "objects", "true parts".

    Raises:
        CaptureError: a file is missing or unreadable, has another size than its photo, or cannot hold identities.
    """
    checks.check_mask_sizes(files, photos, accepted, f"image of {kind}", tolerance=0)
    for path in files:
        if path is not None:
            _check_format(path, kind)


def read_identities(path: Path, size: Size, kind: str, highest: int, known: str) -> np.ndarray:
    """The identities in a view.

    An image of several times the size is reduced by taking the middle pixel of each block, as photos are reduced by
    averaging blocks; identities are never interpolated.

    Args:
        path: the file.
        size: width and height of the view, pixels; see `utils.image_io.read_image` for its part in the orientation.
        kind: what has the identities, for messages: "objects", "true parts".
        highest: the largest identity that there is.
        known: what says so, for messages: "5, the number of object_names in transforms.json".

    Returns:
        (H, W) int64, 0 for the background.

    Raises:
        CaptureError: the file cannot be read, cannot hold identities, is smaller than the view, or holds an identity
            that there is not.
    """
    values = _read(path, size, kind, highest)
    width, height = size
    factor = min(values.shape[1] // width, values.shape[0] // height)
    if factor < 1:
        raise CaptureError(
            f"The image of {kind} {path} is {values.shape[1]} x {values.shape[0]} pixels, its photo {width} x "
            f"{height}. Make it for this photo, at the photo's size."
        )
    if int(values.max()) > highest:
        raise CaptureError(
            f"{path} holds the identity {int(values.max())}; expected 0 for the background, and 1 to {known}."
        )
    middle = slice(factor // 2, None, factor)
    return values[middle, middle][:height, :width].astype(np.int64)


def identity_counts(path: Path, highest: int, kind: str | None = None) -> dict[int, int] | None:
    """How many pixels of an image have each identity over 0.

    Args:
        path: the file.
        highest: the largest identity that there may be.
        kind: what has the identities, where it is known that the file holds some; None to find that out.

    Returns:
        Pixels by identity. None where it is not known whether the file holds identities, and it looks like something
        else: it has opacities, colours, values over ``highest``, no background, or its format is lossy.

    Raises:
        CaptureError: the file is known to hold identities, and cannot.
        ImageError: it cannot be read as an image.
    """
    if kind is not None:
        values = _read(path, None, kind, highest)
    else:
        picture = read_picture(path)
        with_opacity = picture.alpha is not None and picture.alpha.min() < picture.alpha.max()
        codes = None if picture.lossy or with_opacity else _codes(picture, None)
        if codes is None or codes.dtype.kind not in "iu" or codes.max() > highest or codes.min() != 0:
            return None
        values = codes
    if values.max() > np.iinfo(np.uint16).max:
        raise CaptureError(f"{path} holds the number {values.max()}, which is no identity; expected 0 to {highest}.")
    counts = np.bincount(values.ravel())
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts) if number > 0}


def resized_identities(identities: np.ndarray, width: int, height: int) -> np.ndarray:
    """Identities (H, W) at another size: those of the nearest pixels."""
    if identities.shape == (height, width):
        return identities
    rows, columns = (
        ((np.arange(count) + 0.5) * there / count).astype(np.int64)
        for count, there in zip((height, width), identities.shape, strict=True)
    )
    return identities[rows[:, None], columns]


def _read(path: Path, size: Size | None, kind: str, highest: int) -> np.ndarray:
    """The identities in a file, as they are stored; CaptureErrors as for `read_identities`."""
    _check_format(path, kind)
    try:
        picture = read_picture(path, size)
    except ImageError as error:
        raise CaptureError(str(error)) from error
    codes = _codes(picture, highest)
    if codes is None or picture.lossy or codes.dtype.kind not in "iu" or codes.min() < 0:
        raise CaptureError(f"{path} holds no identities; expected {EXPECTED.format(kind=kind)}.")
    return codes


def _codes(picture: Picture, highest: int | None) -> np.ndarray | None:
    """(H, W) the identities of a picture if it has one channel.

    With a palette the identities are the palette's indices; with a palette of greys they are the grey values, if these
    can be identities: programs that make files smaller store grey pictures with a palette.

    Args:
        picture: with or without a palette.
        highest: the largest identity; None where it is not known whether there are any, and greys are shades.
    """
    if picture.palette_indices is None:
        return picture.values if picture.values.ndim == 2 else None
    red = picture.values[..., 0]
    grey = bool((picture.values == red[..., None]).all())
    return red if grey and (highest is None or red.max() <= min(highest, MAX_OBJECTS)) else picture.palette_indices


def _check_format(path: Path, kind: str) -> None:
    """Whether a file stores whole numbers, one a pixel, exactly as written.

    Grey values of fewer than 8 bits are brightness: decoders spread them over the full range.

    Raises:
        CaptureError: it does not, or cannot be opened.
    """
    try:
        header = read_header(path)
        with path.open("rb") as file:
            start = file.read(26)
    except (ImageError, OSError) as error:
        raise CaptureError(f"{error}") from error
    bits = start[24] if start.startswith(PNG_SIGNATURE) and header.mode == "L" else 8
    if header.format in LOSSY_FORMATS or header.mode not in ONE_CHANNEL or bits < 8:
        found = "black and white" if header.mode == "1" else f"grey of {bits} bits" if bits < 8 else header.mode
        raise CaptureError(
            f"The image of {kind} {path} is {header.format} ({found}); expected {EXPECTED.format(kind=kind)}."
        )
