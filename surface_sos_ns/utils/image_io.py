"""Reads and writes image files.

All photos and masks are decoded by `read_picture`; `read_image` converts to a photo, `capture.mask_files` to a mask.
Decoders get open files, not paths, so that any path of the file system works. ICC profiles are ignored.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import write_bytes

__all__ = [
    "MAX_MEGAPIXELS",
    "ImageError",
    "ImageHeader",
    "Picture",
    "Size",
    "apply_orientation",
    "encode_image",
    "read_exif",
    "read_header",
    "read_image",
    "read_picture",
    "resized",
    "undo_orientation",
    "write_image",
]

MAX_MEGAPIXELS = 250
"""Larger images are rejected. Phones take 200 megapixels; a small file (decompression bomb) may have thousands."""

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "PPM")
"""Formats that are read, by Pillow's names. Its others are for icons and documents; one of them starts Ghostscript."""

LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
"""Formats that do not store pixel values exactly."""

ORIENTATION_TAG = 0x0112
"""EXIF tag with the orientation of the stored pixels, 1 to 8."""

QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

# Pillow warns above this number of pixels and raises above twice as many; `_opened` raises for both.
Image.MAX_IMAGE_PIXELS = MAX_MEGAPIXELS * 1_000_000

Size = tuple[int, int]
"""Width and height in pixels."""


class ImageError(UserError):
    """A file cannot be read as an image. The message names it, what was found and what to do."""


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        stored: width and height of the stored pixels.
        orientation: EXIF orientation, 1 to 8; 1 if the file has none.
        format: Pillow's name of the format, such as PNG.
        mode: Pillow's name of the pixel format, such as RGB or I;16.
        transparent: whether the image has transparency.
    """

    stored: Size
    orientation: int
    format: str
    mode: str
    transparent: bool

    @property
    def upright(self) -> Size:
        """Width and height after the EXIF orientation is applied."""
        width, height = self.stored
        return (height, width) if self.orientation in QUARTER_TURNS else (width, height)

    @property
    def deep_grey(self) -> bool:
        """Whether the image has one channel of more than 8 bits, as depth maps and scientific images have."""
        return self.mode.startswith(("I", "F"))

    def size_for(self, size: Size) -> Size:
        """Width and height of the image as read for a camera of size ``size``, see `orientation_for`."""
        return self.upright if self.orientation_for(size) == self.orientation else self.stored

    def orientation_for(self, size: Size | None) -> int:
        """The orientation to apply for a camera of size ``size`` (width, height), at any scale.

        That of the EXIF tag, unless a rotation by 90 degrees would turn a landscape photo into portrait format for a
        landscape camera, or the reverse. Then the poses were estimated from the stored pixels, and the result is 1.
        COLMAP and nerfstudio ignore the tag, most other programs apply it.
        """
        if size is None or self.orientation not in QUARTER_TURNS:
            return self.orientation
        stored_fits = (self.stored[0] - self.stored[1]) * (size[0] - size[1]) > 0
        return 1 if stored_fits else self.orientation


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        values: grey values (H, W) or colours (H, W, 3); uint8 or uint16 over their full range, or, grey only, int32
            or float32 as in the file.
        alpha: (H, W), uint8 or uint16 over its full range; None if the file has no transparency.
        palette_indices: (H, W) uint8; None if the file has no palette.
        lossy: whether the compression is lossy.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette_indices: np.ndarray | None = None
    lossy: bool = False


def read_header(path: Path) -> ImageHeader:
    """Reads the header of an image file, without decoding its pixels.

    Raises:
        ImageError: the file cannot be read as an image, is too large, or holds several images.
    """
    with _opened(path) as (image, file):
        return _header(image, file)


def read_exif(path: Path) -> Image.Exif:
    """The EXIF data of a photo without its orientation; empty if damaged.

    Raises:
        ImageError: see `read_header`.
    """
    with _opened(path) as (image, file):
        exif = _exif(image, file)
        exif.pop(ORIENTATION_TAG, None)
        try:
            exif.tobytes()  # parses all of it
        except Exception:  # the parser raises many types
            return Image.Exif()
    return exif


def read_image(path: Path, size: Size | None = None) -> np.ndarray:
    """Reads a photo as (H, W, 3) uint8 RGB, upright.

    Grey, palette, CMYK, YCbCr and Lab images are converted, 16 bits are rounded to 8. The alpha channel is dropped:
    transparent pixels have the colour that is stored in them.

    Args:
        path: the file.
        size: width and height of the photo's camera, at any scale; decides whether the EXIF orientation is applied,
            see `ImageHeader.orientation_for`.

    Raises:
        ImageError: the file cannot be read as a photo.
    """
    values = read_picture(path, size).values
    if values.dtype == np.uint16:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype != np.uint8:
        kind = "floating-point" if values.dtype.kind == "f" else "32-bit"
        raise ImageError(
            f"{path} has {kind} pixels, which have no known white; expected 8 or 16 bits. Convert it, for "
            "example to a 16-bit PNG."
        )
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def read_picture(path: Path, size: Size | None = None) -> Picture:
    """Reads an image file upright, with its bit depth and transparency.

    Args:
        path: the file.
        size: as for `read_image`.

    Raises:
        ImageError: the file cannot be read as an image, is too large, or holds several images.
    """
    with _opened(path) as (image, file):
        header = _header(image, file)
        deep_colours = image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]
        image.load()
        picture = (_sixteen_bits(image, file) if deep_colours else None) or _decoded(image, header)
    turn = header.orientation_for(size)

    def turn_it(values: np.ndarray) -> np.ndarray:
        if header.format == "TIFF":  # Pillow has applied the orientation already
            return values if turn == header.orientation else undo_orientation(values, header.orientation)
        return apply_orientation(values, turn)

    alpha, palette_indices = (
        None if layer is None else turn_it(layer) for layer in (picture.alpha, picture.palette_indices)
    )
    return Picture(turn_it(picture.values), alpha, palette_indices, picture.lossy)


def apply_orientation(values: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W[, C]) with an EXIF orientation (1 to 8) applied."""
    if orientation in QUARTER_TURNS:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def undo_orientation(values: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `apply_orientation`."""
    return apply_orientation(values, {6: 8, 8: 6}.get(orientation, orientation))


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``image`` (H, W[, C]) at another size: area averaging if no side grows, else bilinear interpolation."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def encode_image(picture: np.ndarray, suffix: str = ".png", quality: int | None = None) -> bytes:
    """Encodes an image file.

    Args:
        picture: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4); uint8, for PNG also uint16.
        suffix: .png, .jpg or .webp.
        quality: of .jpg and .webp, 0 to 100.

    Raises:
        OSError: the array cannot be encoded in this format.
    """
    if picture.ndim == 3:
        order = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
        picture = cv2.cvtColor(np.ascontiguousarray(picture), order)
    flag = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}.get(suffix)
    done, content = cv2.imencode(suffix, picture, [] if flag is None or quality is None else [flag, quality])
    if not done:
        raise OSError(f"a picture of shape {picture.shape} cannot be written as {suffix}")
    return content.tobytes()


def write_image(path: Path, picture: np.ndarray, quality: int | None = None) -> None:
    """Writes an image (see `encode_image`) in the format of the path's suffix, atomically."""
    write_bytes(path, encode_image(picture, path.suffix, quality))


# ------------------------------------------------------------------ decoding


@functools.cache
def _formats() -> tuple[str, ...]:
    """The `FORMATS` that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """Context manager: the image, not decoded yet, and its open file.

    Raises:
        ImageError: for all errors inside, too.
    """
    advice = "Replace the file, or leave it out."
    try:
        _check_regular(path)
        with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_MEGAPIXELS * 1_000_000:
                raise ImageError(
                    f"{path} has {width} x {height} pixels; at most {MAX_MEGAPIXELS} megapixels are read. "
                    "Make it smaller."
                )
            _check_single(path, image)
            yield image, file
    except UserError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(_formats())
        raise ImageError(f"{path} cannot be read as an image; expected one of {known}. {advice}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} has more than {2 * MAX_MEGAPIXELS} megapixels; at most {MAX_MEGAPIXELS} megapixels are read. "
            "Make it smaller."
        ) from error
    except Exception as error:  # decoders raise many types on damaged files
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ImageError(f"{path} cannot be read as an image ({reason}). {advice}") from error


def _check_regular(path: Path) -> None:
    """Raises an ImageError if a path is not a regular, non-empty file."""
    if path.is_file():
        if path.stat().st_size == 0:
            raise ImageError(f"{path} cannot be read as an image: it is empty. Replace the file, or leave it out.")
        return
    found = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
    raise ImageError(f"{path} {found}; expected an image file.")


def _check_single(path: Path, image: Image.Image) -> None:
    """Rejects animations and stacks. Smaller pages of a TIFF are allowed, as they are previews.

    Raises:
        ImageError: the file holds another image of the same size.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return
    count, size = getattr(image, "n_frames", 1), image.size
    if image.format == "TIFF":
        image.seek(1)
        another = image.size == size
        image.seek(0)
        if not another:
            return
    raise ImageError(
        f"{path} holds {count} pictures (an animation, or pages); expected one. Save the one that is meant as a file "
        "of its own."
    )


def _header(image: Image.Image, file: BinaryIO) -> ImageHeader:
    """The header of an opened image."""
    orientation = _exif(image, file).get(ORIENTATION_TAG, 1)
    if orientation not in range(1, 9):
        orientation = 1
    width, height = image.size
    if image.format == "TIFF" and orientation in QUARTER_TURNS:  # Pillow gives the size after rotation
        width, height = height, width
    return ImageHeader((width, height), orientation, str(image.format), image.mode, image.has_transparency_data)


def _exif(image: Image.Image, file: BinaryIO) -> Image.Exif:
    """EXIF data, with the orientation from XMP if EXIF has none; empty if damaged, since the pixels may be intact."""
    try:
        if image.format == "PNG":
            if "exif" not in image.info:
                image.info.update(_exif_after_pixels(file))
            exif = Image.Image.getexif(image)  # PngImageFile.getexif would decode all pixels first
        else:
            exif = image.getexif()
    except Exception:  # the parser raises many types
        return Image.Exif()
    return exif


def _exif_after_pixels(file: BinaryIO) -> dict[str, bytes]:
    """The eXIf chunk of a PNG file, which may come after the pixels; the file position is restored."""
    position = file.tell()
    try:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"eXIf":
                return {"exif": b"Exif\0\0" + file.read(length)}
            file.seek(length + 4, io.SEEK_CUR)
        return {}
    finally:
        file.seek(position)


def _decoded(image: Image.Image, header: ImageHeader) -> Picture:
    """Values, alpha and palette indices of a loaded image, in Pillow's orientation."""
    lossy, mode = header.format in LOSSY_FORMATS or image.info.get("compression") in ("jpeg", "webp"), image.mode
    if mode == "1":
        return Picture(np.array(image).astype(np.uint8) * 255)
    if mode.startswith("I;16"):
        values = np.array(image).astype(np.uint16)
        return Picture(65535 - values if _white_is_zero(image) else values)
    if mode == "I":
        values = np.array(image)
        return Picture(
            values.astype(np.uint16) if header.format == "PPM" else values
        )  # Pillow scales PPM values to 16 bits
    if mode == "F":
        return Picture(np.array(image))
    alpha = np.array(image.convert("RGBA").getchannel("A")) if header.transparent else None
    if mode in ("L", "LA"):
        return Picture(np.array(image.getchannel("L")), alpha, lossy=lossy)
    palette_indices = np.array(image.getchannel("P")) if mode in ("P", "PA") else None
    plain = (
        image.convert("RGBA") if mode == "P" and header.transparent else image
    )  # Pillow warns about converting these to RGB directly
    return Picture(np.array(plain.convert("RGB")), alpha, palette_indices, lossy)


def _sixteen_bits(image: Image.Image, file: BinaryIO) -> Picture | None:
    """Colours of 16 bits by OpenCV, since Pillow keeps the upper 8; None if both decode differently."""
    file.seek(0)
    read: np.ndarray | None = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    upper = np.array(image)
    if read is None or read.dtype != np.uint16 or read.shape != upper.shape:
        return None
    values: np.ndarray = cv2.cvtColor(read, cv2.COLOR_BGRA2RGBA if read.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if not np.array_equal(values >> 8, upper):
        return None
    return Picture(values[..., :3], values[..., 3] if values.shape[2] == 4 else None)


def _white_is_zero(image: Any) -> bool:
    """Whether a 16-bit TIFF has the photometric interpretation WhiteIsZero; Pillow only inverts 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(262) == 0
