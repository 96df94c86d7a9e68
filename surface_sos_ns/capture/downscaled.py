"""Smaller copies of a capture's photos and masks, in folders such as images_2, made where they are missing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.names import folded
from surface_sos_ns.utils.files import WriteError, made_whole, remove_leftovers, write_bytes
from surface_sos_ns.utils.image_io import ImageError, Size, read_image

__all__ = ["factor_for", "make_smaller", "smaller_mask", "smaller_names", "smaller_photo"]

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


def factor_for(sizes: Sequence[tuple[int, int]], longest: int) -> int:
    """The power of two that brings the largest of the sizes (width, height) to ``longest`` pixels or less."""
    factor = 1
    while max(max(size) for size in sizes) / factor > longest:
        factor *= 2
    return factor


def smaller_names(file_paths: Sequence[str]) -> list[str]:
    """Of each file its name in a folder of smaller copies: the bare name, as nerfstudio has it.

    Where two files in different folders share a bare name, names keep their folders, without the first one where it is
    the same for all.

    Args:
        file_paths: as in transforms.json.
    """
    paths = [PurePosixPath(Path(path).as_posix()) for path in file_paths]
    bare = [path.name for path in paths]
    if len({folded(name) for name in bare}) == len(set(paths)):  # as a folder may see them that knows no upper case
        return bare
    parts = [tuple(part for part in path.parts if part not in (path.anchor, "..")) for path in paths]
    skipped = 1 if len({part[0] for part in parts}) == 1 and min(map(len, parts)) > 1 else 0
    return [PurePosixPath(*part[skipped:]).as_posix() for part in parts]


def make_smaller(
    files: Sequence[tuple[Path, Size, Path]],
    folder: Path,
    factor: int,
    shrink: Callable[[Path, Size, int], Image.Image],
    say: Callable[[str], None],
) -> None:
    """Makes smaller copies that are not there yet. A file appears under its name only when it is complete.

    Args:
        files: of each its original, width and height of the camera that the original is for, and the copy.
        folder: of the copies; made where it does not exist.
        factor: at least 2.
        shrink: how a copy is made, `smaller_photo` or `smaller_mask`.
        say: told before a file is made.

    Raises:
        CaptureError: an original cannot be read.
        WriteError: a copy cannot be written.
    """
    missing = {target: (path, size) for path, size, target in files if not target.is_file()}
    if not missing:
        return
    checks.read_headers([path for path, _ in missing.values()])
    say(f"Making {len(missing)} files at 1/{factor} of their size in {folder}")
    for parent in {folder.parent, *(target.parent for target in missing)}:
        remove_leftovers(parent)
    try:
        with nullcontext(folder) if folder.exists() else made_whole(folder) as place:
            for target, (path, size) in missing.items():
                try:
                    small = shrink(path, size, factor)
                except ImageError as error:
                    raise CaptureError(str(error)) from error
                _save(small, place / target.relative_to(folder))
    except WriteError:
        if not all(target.is_file() for target in missing):  # else another process has made them at the same time
            raise


def smaller_photo(path: Path, size: Size, factor: int) -> Image.Image:
    """A photo at 1/factor of its size, upright as `read_image` has it.

    Whole blocks of ``factor`` pixels are averaged and a remainder is cut off, so that intrinsics divided by ``factor``
    fit exactly.

    Raises:
        ImageError: it cannot be read.
    """
    return _shrunk(read_image(path, size), factor, Image.Resampling.BOX)


def smaller_mask(path: Path, size: Size, factor: int) -> Image.Image:
    """A mask of valid pixels at 1/factor of its size: of each block of ``factor`` pixels the middle one.

    Raises:
        ImageError: it cannot be read.
    """
    valid = (read_mask(path, size) >= 0.5).astype(np.uint8) * 255
    return _shrunk(valid, factor, Image.Resampling.NEAREST)


def _shrunk(values: np.ndarray, factor: int, resampling: Image.Resampling) -> Image.Image:
    width, height = values.shape[1] // factor, values.shape[0] // factor
    return Image.fromarray(values).resize((width, height), resampling, box=(0, 0, width * factor, height * factor))


def _save(image: Image.Image, target: Path) -> None:
    options: dict[str, Any] = {"quality": 95} if target.suffix.lower() in JPEG else {}
    content = io.BytesIO()
    try:
        image.save(content, Image.registered_extensions()[target.suffix.lower()], **options)
    except (KeyError, ValueError, OSError) as error:  # Pillow knows no such suffix, or cannot write it
        raise CaptureError(f"{target} cannot be written ({error}). Rename the original to .jpg or .png.") from error
    write_bytes(target, content.getvalue())
