"""Downscaled copies of a capture's photos and masks, in folders such as images_2."""

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
from surface_sos_ns.utils.files import WriteError, atomic_folder, remove_leftovers, write_bytes
from surface_sos_ns.utils.image_io import ImageError, Size, read_image

__all__ = ["downscaled_mask", "downscaled_names", "downscaled_photo", "factor_for", "write_downscaled"]

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")


def factor_for(sizes: Sequence[tuple[int, int]], longest: int) -> int:
    """The smallest power of two that reduces the longer side of all sizes (width, height) to ``longest`` pixels."""
    factor = 1
    while max(max(size) for size in sizes) / factor > longest:
        factor *= 2
    return factor


def downscaled_names(file_paths: Sequence[str]) -> list[str]:
    """Paths of the copies of files, relative to the folder of downscaled copies.

    These are the base names, as in nerfstudio. If two files in different folders have the same base name, paths keep
    their folders, except a first folder that all have in common.

    Args:
        file_paths: N paths as in transforms.json.
    """
    paths = [PurePosixPath(Path(path).as_posix()) for path in file_paths]
    base_names = [path.name for path in paths]
    if len({folded(name) for name in base_names}) == len(set(paths)):  # distinct on case-insensitive file systems too
        return base_names
    parts = [tuple(part for part in path.parts if part not in (path.anchor, "..")) for path in paths]
    skipped = 1 if len({part[0] for part in parts}) == 1 and min(map(len, parts)) > 1 else 0
    return [PurePosixPath(*part[skipped:]).as_posix() for part in parts]


def write_downscaled(
    files: Sequence[tuple[Path, Size, Path]],
    folder: Path,
    factor: int,
    downscale: Callable[[Path, Size, int], Image.Image],
    say: Callable[[str], None],
) -> None:
    """Writes the downscaled copies that do not exist yet, each atomically.

    Args:
        files: for each file the original, the size (width, height) of its camera, and the path of the copy.
        folder: of the copies; created if it does not exist.
        factor: of the downscaling, at least 2.
        downscale: makes a copy: `downscaled_photo` or `downscaled_mask`.
        say: called with a line of text before the first file is written.

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
        with nullcontext(folder) if folder.exists() else atomic_folder(folder) as place:
            for target, (path, size) in missing.items():
                try:
                    small = downscale(path, size, factor)
                except ImageError as error:
                    raise CaptureError(str(error)) from error
                _save(small, place / target.relative_to(folder))
    except WriteError:
        if not all(target.is_file() for target in missing):  # else another process has written them meanwhile
            raise


def downscaled_photo(path: Path, size: Size, factor: int) -> Image.Image:
    """A photo at 1/factor of its size, upright as from `read_image`.

    Blocks of ``factor`` x ``factor`` pixels are averaged, and a remainder is cropped, so that intrinsics divided by
    ``factor`` are exact.

    Raises:
        ImageError: it cannot be read.
    """
    return _resized(read_image(path, size), factor, Image.Resampling.BOX)


def downscaled_mask(path: Path, size: Size, factor: int) -> Image.Image:
    """A mask of valid pixels at 1/factor of its size, by nearest neighbour: the middle pixel of each block.

    Raises:
        ImageError: it cannot be read.
    """
    valid = (read_mask(path, size) >= 0.5).astype(np.uint8) * 255
    return _resized(valid, factor, Image.Resampling.NEAREST)


def _resized(values: np.ndarray, factor: int, resampling: Image.Resampling) -> Image.Image:
    width, height = values.shape[1] // factor, values.shape[0] // factor
    return Image.fromarray(values).resize((width, height), resampling, box=(0, 0, width * factor, height * factor))


def _save(image: Image.Image, target: Path) -> None:
    options: dict[str, Any] = {"quality": 95} if target.suffix.lower() in JPEG_SUFFIXES else {}
    content = io.BytesIO()
    try:
        image.save(content, Image.registered_extensions()[target.suffix.lower()], **options)
    except (KeyError, ValueError, OSError) as error:  # Pillow has no writer for the suffix, or it failed
        raise CaptureError(f"{target} cannot be written ({error}). Rename the original to .jpg or .png.") from error
    write_bytes(target, content.getvalue())
