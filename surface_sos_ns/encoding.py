"""Results as image files: masks, mattes, cut-outs and colours from arrays in 0..1."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from surface_sos_ns.metrics import THRESHOLD
from surface_sos_ns.utils.files import write_bytes

__all__ = [
    "colour_picture",
    "cutout_picture",
    "data_address",
    "image_file",
    "mask_picture",
    "matte_picture",
    "write_new",
]


def mask_picture(alpha: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """(H, W) uint8: 255 where alpha (H, W) is over the threshold, else 0."""
    return np.where(alpha > threshold, 255, 0).astype(np.uint8)


def matte_picture(alpha: np.ndarray) -> np.ndarray:
    """(H, W) uint16: alpha (H, W) from 0 to 65535."""
    return np.rint(np.clip(alpha, 0, 1) * 65535).astype(np.uint16)


def colour_picture(colours: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 of colours (H, W, C)."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def cutout_picture(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8: colours (H, W, 3), not premultiplied, with alpha (H, W)."""
    return colour_picture(np.concatenate([colours, alpha[..., None]], axis=-1))


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
    encoded, content = cv2.imencode(suffix, picture, [] if flag is None or quality is None else [flag, quality])
    if not encoded:
        raise OSError(f"a picture of shape {picture.shape} cannot be written as {suffix}")
    return content.tobytes()


def data_address(kind: str, content: bytes) -> str:
    """A file as an address that holds it; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_new(folder: Path, stem: str, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes pictures as `STEM_NUMBER_NAME.png` under the first number that is free; replaces nothing.

    Args:
        folder: made if absent.
        stem: what the files' names begin with.
        pictures: by name, see `image_file`.

    Returns:
        The files, in the order of the pictures. Each appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [path.name[len(stem) + 1 :].split("_")[0] for path in folder.glob(f"{stem}_*")]
    number = max((int(digits) for digits in taken if digits.isdecimal()), default=0) + 1
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{stem}_{number:04d}_{name}.png")
        write_bytes(files[-1], image_file(picture))
    return files
