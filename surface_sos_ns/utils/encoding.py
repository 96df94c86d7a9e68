"""Converts arrays in [0, 1] to images: masks, mattes, cut-outs, colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from surface_sos_ns.utils.identity_colours import identity_bytes
from surface_sos_ns.utils.image_io import write_image
from surface_sos_ns.utils.metrics import THRESHOLD

__all__ = [
    "colour_picture",
    "cutout_picture",
    "data_uri",
    "identity_file",
    "mask_picture",
    "matte_picture",
    "write_new",
]


def mask_picture(alpha: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """(H, W) uint8: 255 where alpha (H, W) is above the threshold, else 0."""
    return np.where(alpha > threshold, 255, 0).astype(np.uint8)


def matte_picture(alpha: np.ndarray) -> np.ndarray:
    """(H, W) uint16: alpha (H, W) in [0, 1], scaled to 65535."""
    return np.rint(np.clip(alpha, 0, 1) * 65535).astype(np.uint16)


def colour_picture(colours: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8: colours (H, W, C) in [0, 1], scaled to 255."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def cutout_picture(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8, not premultiplied: colours (H, W, 3) and alpha (H, W), both in [0, 1]."""
    return colour_picture(np.concatenate([colours, alpha[..., None]], axis=-1))


def identity_file(identities: np.ndarray, count: int) -> bytes:
    """The content of a PNG file with a palette of 8 bits: the index is the identity, shown in its colour; 0 is black.

    Args:
        identities: (H, W) in 0 to `count`.
        count: number of identities.
    """
    height, width = identities.shape
    image = Image.frombytes("P", (width, height), np.ascontiguousarray(identities, np.uint8).tobytes())
    image.putpalette([0, 0, 0, *identity_bytes(count).ravel().tolist()])
    content = io.BytesIO()
    image.save(content, "PNG", bits=8)
    return content.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """A data URI of a file's content; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_new(folder: Path, stem: str, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes images as `STEM_NUMBER_NAME.png` with the number after the largest existing one; overwrites nothing.

    Args:
        folder: created if it does not exist.
        stem: first part of the file names.
        pictures: images by name, see `utils.image_io.encode_image`.

    Returns:
        The files, in the order of the images. Each is written atomically.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [path.name[len(stem) + 1 :].split("_")[0] for path in folder.glob(f"{stem}_*")]
    number = max((int(digits) for digits in taken if digits.isdecimal()), default=0) + 1
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{stem}_{number:04d}_{name}.png")
        write_image(files[-1], picture)
    return files
