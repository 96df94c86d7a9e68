"""Masks of photos without a capture: a folder with a PNG for each photo, a contact sheet, and what is known of them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.utils.files import check_writable, remove_leftovers, temporary_folder, write_text, writing
from surface_sos_ns.utils.image_io import Size, resized, write_image

__all__ = ["ABOUT", "SHEET", "MaskFolder", "check_output", "mask_folder"]

SHEET = "contact_sheet.jpg"
ABOUT = "about.json"


class MaskFolder:
    """A folder that is being filled.

    Args:
        folder: where it is written meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write_mask(self, name: str, mask: np.ndarray | None, size: Size) -> None:
        """Writes a mask.

        Args:
            name: of the file, may have subfolders.
            mask: (h, w) float in [0, 1] with the proportions of the photo; None, where nothing was found, is written
                as a black one.
            size: of the photo, width and height; the mask is written at that size, in 8 bits.
        """
        width, height = size
        found = np.zeros((height, width), np.float32) if mask is None else resized(mask.astype(np.float32), *size)
        write_image(self._folder / name, np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8))

    def write_sheet(self, sheet: np.ndarray) -> None:
        """Writes the contact sheet, (H, W, 3) uint8 RGB."""
        write_image(self._folder / SHEET, sheet)

    def write_about(self, about: dict[str, Any]) -> None:
        """Writes what is known about the masks."""
        write_text(self._folder / ABOUT, json.dumps(about, indent=1) + "\n")


def check_output(output: Path, images: Path, overwrite: bool) -> None:
    """Checks where masks are to go, before any long work.

    Args:
        output: folder for the masks.
        images: the photos: a folder, or a file.
        overwrite: whether what the folder holds may be moved away.

    Raises:
        MaskError: the folder holds something, or belongs to the photos.
        WriteError: it cannot be written.
    """
    place, photos = output.resolve(), images.resolve()
    if place == photos or photos in place.parents or place in photos.parents:
        raise MaskError(
            f"--output {output} lies in --images {images}, or the other way round: masks would be taken for photos, or "
            "photos for old masks. Name a folder beside the photos."
        )
    if place.exists() and not place.is_dir():
        raise MaskError(f"--output {output} is a file; name a folder that does not exist yet.")
    if place.is_dir() and any(place.iterdir()) and not overwrite:
        raise MaskError(
            f"--output {output} exists and is not empty. Name another folder; or --overwrite keeps what it holds under "
            f"{_unused(place).name}."
        )
    check_writable(place.parent)


@contextmanager
def mask_folder(output: Path) -> Iterator[MaskFolder]:
    """Context manager: a folder to fill, which becomes `output` at the end; on an error all is as it was.

    What `output` held is moved to `output_old` (or `output_old_2` ...) first.

    Raises:
        WriteError: a file cannot be written.
    """
    place = output.resolve()
    if place.parent.is_dir():
        remove_leftovers(place.parent)
    with temporary_folder(place.parent) as part, writing(output):
        filled = part / place.name
        filled.mkdir()
        yield MaskFolder(filled)
        kept = _unused(place) if place.is_dir() and any(place.iterdir()) else None
        if kept is not None:
            os.rename(place, kept)
        try:
            os.replace(filled, place)
        except OSError:
            if kept is not None:
                os.rename(kept, place)
            raise


def _unused(place: Path) -> Path:
    """A name for what was there before."""
    names = itertools.chain([f"{place.name}_old"], (f"{place.name}_old_{number}" for number in itertools.count(2)))
    return next(place.with_name(name) for name in names if not os.path.lexists(place.with_name(name)))
