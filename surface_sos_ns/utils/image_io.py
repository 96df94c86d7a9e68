"""Image files: one decoder and one encoder. No path reaches a decoder, so any path that the system knows will do.

Photos and masks of every kind are decoded here (`read_picture`); `read_image` makes a photo of one,
`capture.mask_files` a mask. ICC profiles are ignored: values are taken as they are stored.
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
    "MOST_MEGAPIXELS",
    "ImageError",
    "ImageHeader",
    "Picture",
    "Size",
    "image_file",
    "read_exif",
    "read_header",
    "read_image",
    "read_picture",
    "resized",
    "turned",
    "turned_back",
    "write_image",
]

MOST_MEGAPIXELS = 250
"""Larger pictures are refused: phones make 200, and a file of a few kilobytes may say that it has thousands."""

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "PPM")
"""Pillow's names of what is read. Its other readers are for icons and documents; one of them starts Ghostscript."""

LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
"""Formats whose values are not exactly those that were written."""

ORIENTATION = 0x0112
"""EXIF's tag that says how the stored pixels have to be turned."""

QUARTER_TURNS = (5, 6, 7, 8)
"""Its values that exchange width and height."""

# Pillow warns from this number of pixels on and refuses twice as many; `_opened` refuses what it warns about.
Image.MAX_IMAGE_PIXELS = MOST_MEGAPIXELS * 1_000_000

Size = tuple[int, int]
"""Width and height in pixels."""


class ImageError(UserError):
    """A file cannot be read as a picture; the message names it, what was found and what to do."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        stored: width and height of the pixels as they are stored.
        orientation: EXIF's tag, 1 to 8; 1 where the file has none.
        format: Pillow's name, such as PNG.
        mode: Pillow's name of the kind of pixels, such as RGB or I;16.
        transparent: whether pixels may be transparent.
    """

    stored: Size
    orientation: int
    format: str
    mode: str
    transparent: bool

    @property
    def upright(self) -> Size:
        """Width and height once the picture is turned as its orientation tag says."""
        width, height = self.stored
        return (height, width) if self.orientation in QUARTER_TURNS else (width, height)

    @property
    def deep_grey(self) -> bool:
        """Whether the pixels are single numbers of more than 8 bits, as in depth maps and scientific images."""
        return self.mode.startswith(("I", "F"))

    def size_for(self, size: Size) -> Size:
        """Width and height of the picture that is read for a camera of a size, see `turn_for`."""
        return self.upright if self.turn_for(size) == self.orientation else self.stored

    def turn_for(self, size: Size | None) -> int:
        """The orientation to apply for a camera of a size, in any scale.

        It is that of the tag. Only where a quarter turn would make a landscape of a portrait camera's photo, or the
        reverse, the poses were estimated from the pixels as they are stored: then 1. COLMAP and nerfstudio ignore the
        tag, most other programs honour it.
        """
        if size is None or self.orientation not in QUARTER_TURNS:
            return self.orientation
        stored_fits = (self.stored[0] - self.stored[1]) * (size[0] - size[1]) > 0
        return 1 if stored_fits else self.orientation


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        values: grey values (H, W) or colours (H, W, 3); uint8 or uint16 over their whole range, or, grey only, int32
            or float32 as the file has them.
        alpha: (H, W) opacity, uint8 or uint16 over its whole range; None where the file has no transparency.
        palette_indices: (H, W) uint8, of a file with a palette each pixel's place in it.
        lossy: whether the format changes values a little.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette_indices: np.ndarray | None = None
    lossy: bool = False


def read_header(path: Path) -> ImageHeader:
    """Size, orientation and kind of an image file; its pixels are not decoded.

    Raises:
        ImageError: there is no readable image file, or it is too large or holds several pictures.
    """
    with _opened(path) as (image, file):
        return _header(image, file)


def read_exif(path: Path) -> Image.Exif:
    """What EXIF says about a photo, but for its orientation; nothing where it is damaged.

    Raises:
        ImageError: see `read_header`.
    """
    with _opened(path) as (image, file):
        exif = _exif(image, file)
        exif.pop(ORIENTATION, None)
        try:
            exif.tobytes()  # all parts of it
        except Exception:  # whatever comes to the parser
            return Image.Exif()
    return exif


def read_image(path: Path, size: Size | None = None) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB, upright.

    Grey, palette, CMYK, YCbCr and Lab files are converted; 16 bits become 8 by rounding. Transparency is dropped: a
    transparent pixel shows the colour that is stored beneath.

    Args:
        path: the file.
        size: width and height of the camera that the photo is for, in any scale: tells whether it is for the turned
            or the stored pixels, see `ImageHeader.turn_for`.

    Raises:
        ImageError: there is no readable photo.
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
    """A file's values, upright, with their bits and transparency.

    Args:
        path: the file.
        size: as for `read_image`.

    Raises:
        ImageError: there is no readable image file, or it is too large or holds several pictures.
    """
    with _opened(path) as (image, file):
        header = _header(image, file)
        deep_colours = image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]
        image.load()
        picture = (_sixteen_bits(image, file) if deep_colours else None) or _decoded(image, header)
    turn = header.turn_for(size)

    def turn_it(values: np.ndarray) -> np.ndarray:
        if header.format == "TIFF":  # Pillow has turned it already
            return values if turn == header.orientation else turned_back(values, header.orientation)
        return turned(values, turn)

    alpha, palette_indices = (
        None if layer is None else turn_it(layer) for layer in (picture.alpha, picture.palette_indices)
    )
    return Picture(turn_it(picture.values), alpha, palette_indices, picture.lossy)


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W[, C]) as EXIF's orientation (1 to 8) says that they are seen."""
    if orientation in QUARTER_TURNS:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def turned_back(values: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W[, C]) that were turned as EXIF's orientation says, as they were stored."""
    return turned(values, {6: 8, 8: 6}.get(orientation, orientation))


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``image`` (H, W[, C]) at another size: area average when it shrinks, linear when it grows."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def image_file(picture: np.ndarray, suffix: str = ".png", quality: int | None = None) -> bytes:
    """The content of an image file.

    Args:
        picture: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4); uint8, for PNG also uint16.
        suffix: .png, .jpg or .webp.
        quality: of .jpg and .webp, 0 to 100.
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
    """Writes a picture, see `image_file`, as the kind of file that its suffix says, whole or not at all."""
    write_bytes(path, image_file(picture, path.suffix, quality))


# ------------------------------------------------------------------ decoding


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """The file and its first picture, not decoded yet.

    Raises:
        ImageError: for whatever goes wrong inside, too.
    """
    advice = "Replace the file, or leave it out."
    try:
        _check_regular(path)
        with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            width, height = image.size
            if width * height > MOST_MEGAPIXELS * 1_000_000:
                raise ImageError(
                    f"{path} has {width} x {height} pixels; at most {MOST_MEGAPIXELS} megapixels are read. "
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
            f"{path} has more than {2 * MOST_MEGAPIXELS} megapixels; at most {MOST_MEGAPIXELS} megapixels are read. "
            "Make it smaller."
        ) from error
    except Exception as error:  # decoders raise whatever comes to them on damaged files
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ImageError(f"{path} cannot be read as an image ({reason}). {advice}") from error


def _check_regular(path: Path) -> None:
    if path.is_file():
        if path.stat().st_size == 0:
            raise ImageError(f"{path} cannot be read as an image: it is empty. Replace the file, or leave it out.")
        return
    found = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
    raise ImageError(f"{path} {found}; expected an image file.")


def _check_single(path: Path, image: Image.Image) -> None:
    """Refuses animations and stacks; further pages that are smaller are previews of the first.

    Raises:
        ImageError: there is another picture of the same size.
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
    orientation = _exif(image, file).get(ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    width, height = image.size
    if image.format == "TIFF" and orientation in QUARTER_TURNS:  # Pillow gives the size after the turn
        width, height = height, width
    return ImageHeader((width, height), orientation, str(image.format), image.mode, image.has_transparency_data)


def _exif(image: Image.Image, file: BinaryIO) -> Image.Exif:
    """EXIF, and XMP's orientation where EXIF has none; empty where it is damaged: the picture may be fine."""
    try:
        if image.format == "PNG":
            if "exif" not in image.info:
                image.info.update(_late_exif(file))
            exif = Image.Image.getexif(image)  # PngImageFile's own would decode all pixels first
        else:
            exif = image.getexif()
    except Exception:  # whatever comes to the parser
        return Image.Exif()
    return exif


def _late_exif(file: BinaryIO) -> dict[str, bytes]:
    """The EXIF of a PNG, which some programs write behind the pixels; found from chunk to chunk."""
    place = file.tell()
    try:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"eXIf":
                return {"exif": b"Exif\0\0" + file.read(length)}
            file.seek(length + 4, io.SEEK_CUR)
        return {}
    finally:
        file.seek(place)


def _decoded(image: Image.Image, header: ImageHeader) -> Picture:
    """Values, transparency and palette of a loaded image, turned as Pillow has it."""
    lossy, mode = header.format in LOSSY or image.info.get("compression") in ("jpeg", "webp"), image.mode
    if mode == "1":
        return Picture(np.array(image).astype(np.uint8) * 255)
    if mode.startswith("I;16"):
        values = np.array(image).astype(np.uint16)
        return Picture(65535 - values if _white_is_zero(image) else values)
    if mode == "I":
        values = np.array(image)
        return Picture(values.astype(np.uint16) if header.format == "PPM" else values)  # whose numbers Pillow scales
    if mode == "F":
        return Picture(np.array(image))
    alpha = np.array(image.convert("RGBA").getchannel("A")) if header.transparent else None
    if mode in ("L", "LA"):
        return Picture(np.array(image.getchannel("L")), alpha, lossy=lossy)
    palette_indices = np.array(image.getchannel("P")) if mode in ("P", "PA") else None
    plain = image.convert("RGBA") if mode == "P" and header.transparent else image  # Pillow warns of the direct way
    return Picture(np.array(plain.convert("RGB")), alpha, palette_indices, lossy)


def _sixteen_bits(image: Image.Image, file: BinaryIO) -> Picture | None:
    """Colours of 16 bits, of which Pillow keeps the upper 8; None where OpenCV does not see the same in them."""
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
    """Whether 0 is white in a TIFF of 16 bits; with 8 Pillow inverts it itself."""
    return image.format == "TIFF" and image.tag_v2.get(262) == 0
