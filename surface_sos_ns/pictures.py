"""Pictures of results as files: masks, mattes, cut-outs and colours from arrays in 0..1, as PNG."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from surface_sos_ns.metrics import THRESHOLD

__all__ = ["colour_picture", "cutout_picture", "data_url", "mask_picture", "matte_picture", "png", "write_new"]


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


def png(picture: np.ndarray) -> bytes:
    """The PNG file of a grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4) picture, uint8 or uint16."""
    return _encoded(".png", picture, [])


def data_url(picture: np.ndarray, lossless: bool) -> str:
    """A picture (H, W, 3) uint8 RGB as text for pages, PNG or JPEG."""
    if lossless:
        kind, data = "png", png(picture)
    else:
        kind, data = "jpeg", _encoded(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(suffix: str, picture: np.ndarray, options: list[int]) -> bytes:
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    if picture.ndim == 3:
        picture = np.ascontiguousarray(picture[..., order[picture.shape[2]]])  # as OpenCV has channels
    ok, data = cv2.imencode(suffix, picture, options)
    if not ok:
        raise OSError(f"could not encode a picture of shape {picture.shape} as {suffix}")
    return data.tobytes()


def write_new(folder: Path, stem: str, pictures: dict[str, np.ndarray]) -> list[Path]:
    """Writes pictures as `STEM_NUMBER_NAME.png` under the first number that is free; replaces nothing.

    Args:
        folder: made if absent.
        stem: what the files' names begin with.
        pictures: by name, see `png`.

    Returns:
        The files, in the order of the pictures. Each appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = [path.name[len(stem) + 1 :].split("_")[0] for path in folder.glob(f"{stem}_*")]
    number = max((int(digits) for digits in taken if digits.isdecimal()), default=0) + 1
    files = []
    for name, picture in pictures.items():
        path = folder / f"{stem}_{number:04d}_{name}.png"
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(png(picture))
            os.chmod(temporary, 0o644)  # mkstemp's files are the user's alone
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        files.append(path)
    return files
