"""Results as pictures: masks, mattes, cut-outs and colours from arrays in 0..1."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surface_sos_ns.utils.image_io import write_image
from surface_sos_ns.utils.metrics import THRESHOLD

__all__ = [
    "colour_picture",
    "cutout_picture",
    "data_address",
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


def data_address(kind: str, content: bytes) -> str:
    """A file as an address that holds it; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_new(folder: Path, stem: str, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Writes pictures as `STEM_NUMBER_NAME.png` under the first number that is free; replaces nothing.

    Args:
        folder: made if absent.
        stem: what the files' names begin with.
        pictures: by name, see `utils.image_io.image_file`.

    Returns:
        The files, in the order of the pictures. Each appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [path.name[len(stem) + 1 :].split("_")[0] for path in folder.glob(f"{stem}_*")]
    number = max((int(digits) for digits in taken if digits.isdecimal()), default=0) + 1
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{stem}_{number:04d}_{name}.png")
        write_image(files[-1], picture)
    return files
