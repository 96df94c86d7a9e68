"""A tiny capture of three objects, known pixel for pixel, with its coarse masks as images or by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.capture_files import Capture

NAMES = ("cup", "lemon", "book")


def true_identities(index: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    """(H, W) uint8: three rectangles side by side that move with the view; the book is missing from every third."""
    width, height = size
    identities = np.zeros((height, width), np.uint8)
    unit, shift = width // 8, index % 3
    for identity in (1, 2, 3):
        left = unit * (2 * identity - 1) + shift
        identities[height // 4 : height // 4 * 3 - identity, left : left + unit] = identity
    if index % 3 == 2:
        identities[identities == 3] = 0
    return identities


def object_capture(folder: Path, count: int = 12, size: tuple[int, int] = (32, 24), **options) -> Capture:
    """The capture, without coarse masks; its true identities are in gt_objects/, its matte in gt_masks/."""
    capture = Capture(folder, count=count, size=size, **options)
    for index in range(count):
        truth = true_identities(index, size)
        save(folder / "gt_objects" / f"{capture.stem(index)}.png", truth)
        save(folder / "gt_masks" / f"{capture.stem(index)}.png", (truth > 0) * np.uint8(255))
    return capture


def save(path: Path, values: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def add_identity_masks(capture: Capture, folder: str = "coarse_masks") -> None:
    """One identity image for each photo."""
    for index in range(capture.count):
        save(capture.folder / folder / f"{capture.stem(index)}.png", true_identities(index, capture.size))


def add_masks_by_name(capture: Capture, folder: str = "coarse_masks", inside: str = "") -> None:
    """One folder for each object, with a white mask for each photo that shows it."""
    for index in range(capture.count):
        truth = true_identities(index, capture.size)
        for identity, name in enumerate(NAMES, start=1):
            if (truth == identity).any():
                path = capture.folder / folder / name / inside / f"{capture.stem(index)}.png"
                save(path, (truth == identity) * np.uint8(255))
