"""Pictures for people to look at: masks and errors in colours, cut-outs over a checkerboard, contact sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.utils.encoding import data_uri
from surface_sos_ns.utils.image_io import encode_image

COLUMNS = (
    ("photo", "photo"),
    ("coarse", "coarse mask (input)"),
    ("mask", "our mask"),
    ("truth", "true mask"),
    ("error", "error: red extra, blue missed"),
    ("cutout", "object, cut out"),
    ("plate", "our clean plate"),
    ("true_plate", "true clean plate"),
)
MISSED, EXTRA = (50, 110, 230), (220, 60, 50)


@dataclass(frozen=True)
class ViewPictures:
    """The pictures of one view, (H, W, 3) uint8 by column name of `COLUMNS` (absent ones are left out)."""

    name: str
    tiles: dict[str, np.ndarray]


def eight_bit(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 of an image (H, W), (H, W, 1) or (H, W, 3) in 0..1."""
    values = np.asarray(image, dtype=np.float32)
    values = values[..., None] if values.ndim == 2 else values
    return np.rint(np.broadcast_to(values, (*values.shape[:2], 3)).clip(0, 1) * 255).astype(np.uint8)


def size_within(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height of a picture shrunk so that its longer side is `longest` pixels; never enlarged."""
    factor = min(1.0, longest / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def checkerboard(height: int, width: int, cell: int = 8) -> np.ndarray:
    """(H, W, 3) float32 light grey checkerboard in 0..255."""
    y, x = np.mgrid[0:height, 0:width] // cell
    return np.repeat(np.where((x + y) % 2, 232.0, 200.0)[..., None], 3, axis=-1).astype(np.float32)


def over_checkerboard(foreground: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a foreground over black (premultiplied) put on a checkerboard; alpha (H, W) in 0..1."""
    board = checkerboard(*alpha.shape) * (1 - alpha[..., None])
    return np.clip(foreground + board, 0, 255).astype(np.uint8)


def error_map(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: object pixels white, extra ones red, missed ones blue; masks (H, W) bool."""
    picture = np.full((*mask.shape, 3), 24, np.uint8)
    picture[mask & truth] = 225
    picture[truth & ~mask] = MISSED
    picture[mask & ~truth] = EXTRA
    return picture


def embedded(picture: np.ndarray, quality: int = 82) -> str:
    """A picture as a data URI, to be put into a page: WebP, (H, W, 3) or with alpha (H, W, 4), uint8."""
    return data_uri("image/webp", encode_image(picture, ".webp", quality))


def contact_sheet(views: list[ViewPictures], scale: int = 1) -> np.ndarray:
    """(H, W, 3) uint8: one row per view, one column per kind of picture, with a heading."""
    columns = [(key, label) for key, label in COLUMNS if any(key in v.tiles for v in views)]
    height, width = (s * scale for s in views[0].tiles["photo"].shape[:2])
    gap, head = 6, 26
    sheet = np.full((head + len(views) * (height + gap), gap + len(columns) * (width + gap), 3), 250, np.uint8)
    for c, (key, label) in enumerate(columns):
        x = gap + c * (width + gap)
        font = min(0.45, 0.45 * width / max(cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0], 1))
        cv2.putText(sheet, label, (x, 18), cv2.FONT_HERSHEY_SIMPLEX, font, (40, 40, 40), 1, cv2.LINE_AA)
        for r, view in enumerate(views):
            if key in view.tiles:
                y = head + r * (height + gap)
                tile = view.tiles[key]
                sheet[y : y + height, x : x + width] = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
    return sheet


def tinted(photo: np.ndarray, alpha: np.ndarray, colour: tuple[int, int, int], share: float = 0.5) -> np.ndarray:
    """(H, W, 3) uint8: a photo (uint8) mixed with a colour where a mask (H, W) 0..1 is, its outline drawn."""
    amount = share * alpha.astype(np.float32)[..., None]
    picture = np.rint(photo * (1 - amount) + np.array(colour, np.float32) * amount).clip(0, 255).astype(np.uint8)
    outlines, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture, outlines, -1, colour, 1))
