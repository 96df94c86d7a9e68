"""Puts masks into a capture: `coarse_masks/`, and `coarse_mask_path` in its json file. All of it or nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.names import mask_names
from surface_sos_ns.files import write_text
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.utils.image_io import resized, write_image

__all__ = ["ABOUT", "FOLDER", "SHEET", "Written", "check_free", "write_masks"]

FOLDER = "coarse_masks"
"""Folder of the masks, in the capture's folder."""
SHEET = "coarse_masks.jpg"
"""The contact sheet, beside it."""
ABOUT = "about.json"
"""What is known about the masks, in their folder; the data parser looks at image files only."""
KEY = "coarse_mask_path"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: of the masks.
        count: number of masks.
        kept: the folder that now holds what was there before, or None.
    """

    folder: Path
    count: int
    kept: Path | None


def check_free(source: Path, overwrite: bool) -> None:
    """Refuses to touch a capture that has coarse masks, unless told to.

    Args:
        source: the capture's json file.
        overwrite: whether the user said that they may be replaced.

    Raises:
        MaskError: there are coarse masks, or the capture's folder cannot be written to.
    """
    folder = source.parent
    if not os.access(folder, os.W_OK):
        raise MaskError(f"{folder} cannot be written to. Copy the capture, or make its folder writable.")
    if overwrite:
        return
    there = _there(folder)
    if there:
        raise MaskError(f"{there[0]} exists. --overwrite makes new masks and keeps those under {FOLDER}_old.")
    named = sum(KEY in frame for frame in _read(source)["frames"])
    if named:
        raise MaskError(
            f"{source} names a {KEY} for {named} photos already. --overwrite replaces the names and keeps the file as "
            f"it is under {FOLDER}_old."
        )


def write_masks(
    source: Path,
    file_paths: Sequence[str],
    masks: Sequence[np.ndarray | None],
    sizes: Sequence[tuple[int, int]],
    about: dict[str, Any],
    sheet: np.ndarray | None = None,
    overwrite: bool = False,
) -> Written:
    """Writes the masks of a whole capture.

    What was there is moved to `coarse_masks_old/` (or `coarse_masks_old_2/` ...), with a copy of the json file that
    named it. When anything fails on the way, all is as it was.

    Args:
        source: the capture's json file; its frames get `coarse_mask_path`, all else in it stays.
        file_paths: of each frame, in its order.
        masks: N masks (h, w) float in [0, 1] with the proportions of the photos; a frame with None gets no key.
        sizes: of each photo width and height in pixels; the masks are written at that size, in 8 bits.
        about: what is known about the masks.
        sheet: (H, W, 3) uint8 RGB contact sheet, if there is one.
        overwrite: whether masks that are there may be moved away.

    Raises:
        MaskError: there are masks already, or the json file no longer lists these photos.
        OSError: a file cannot be written.
    """
    check_free(source, overwrite)
    folder = source.parent
    before = source.read_text(encoding="utf-8")
    meta = json.loads(before)
    if [frame["file_path"] for frame in meta["frames"]] != list(file_paths):
        raise MaskError(f"{source} has changed since the photos were read. Run the command again.")
    names = mask_names(file_paths, str(folder))
    replaces = bool(_there(folder)) or any(KEY in frame for frame in meta["frames"])
    part = folder / f".{FOLDER}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    moves: list[tuple[Path, Path]] = []
    kept = None
    try:
        for frame, name, mask, size in zip(meta["frames"], names, masks, sizes, strict=True):
            frame.pop(KEY, None)
            if mask is not None:
                frame[KEY] = f"{FOLDER}/{name}"
                _write_mask(part / FOLDER / name, mask, *size)
        (part / FOLDER).mkdir(parents=True, exist_ok=True)
        write_text(part / FOLDER / ABOUT, json.dumps(about, indent=1) + "\n")
        if sheet is not None:
            write_image(part / SHEET, sheet)
        if replaces:
            kept = _unused(folder)
            (part / kept.name).mkdir()
            shutil.copy2(source, part / kept.name / source.name)
            moves.append((part / kept.name, kept))
            moves += [(path, kept / path.name) for path in _there(folder)]
        moves += [(part / name, folder / name) for name in (FOLDER, SHEET) if (part / name).exists()]
        # From here on nothing is computed: a few renames, and the json file last.
        done: list[tuple[Path, Path]] = []
        try:
            for old, new in moves:
                os.rename(old, new)
                done.append((old, new))
            write_text(source.resolve(), _as_before(meta, before))
        except BaseException:
            for old, new in reversed(done):
                os.rename(new, old)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Written(folder / FOLDER, sum(mask is not None for mask in masks), kept)


def _there(folder: Path) -> list[Path]:
    """What a capture has of coarse masks: the folder, smaller copies of it (`coarse_masks_2`), the contact sheet."""
    ours = re.compile(rf"{FOLDER}(_\d+|\.jpg)?")
    return sorted(path for path in folder.glob(f"{FOLDER}*") if ours.fullmatch(path.name))


def _unused(folder: Path) -> Path:
    """A name for what was there before."""
    names = [f"{FOLDER}_old", *(f"{FOLDER}_old_{number}" for number in range(2, 10_000))]
    return next(folder / name for name in names if not (folder / name).exists())


def _write_mask(path: Path, mask: np.ndarray, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.rint(np.clip(resized(np.asarray(mask, np.float32), width, height), 0, 1) * 255).astype(np.uint8)
    write_image(path, grey)


def _read(source: Path) -> dict[str, Any]:
    return json.loads(source.read_text(encoding="utf-8"))


def _as_before(meta: dict[str, Any], before: str) -> str:
    """The content of the json file, indented as it was."""
    indent = re.match(r"\s*[{\[]\r?\n( +|\t+)", before)
    spaces = indent.group(1) if indent else None
    end = "\n" if before.endswith("\n") else ""
    text = json.dumps(meta, indent=spaces, ensure_ascii=False) + end
    # A name's bytes that are not UTF-8 are escaped (\udce9), which JSON reads as the same name.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
