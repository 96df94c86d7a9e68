"""Smaller copies of a capture's photos and masks, in folders such as images_2, made where they are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import folded

__all__ = ["factor_for", "make_smaller", "smaller_names"]


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
    paths: Sequence[Path],
    targets: Sequence[Path],
    folder: Path,
    factor: int,
    resampling: Image.Resampling,
    say: Callable[[str], None],
) -> None:
    """Makes the targets that are not there yet, at 1/factor of their originals' size.

    Whole blocks of ``factor`` pixels are averaged and a remainder is cut off, so that intrinsics divided by ``factor``
    fit exactly. A file appears under its name only when it is complete.

    Args:
        paths: the originals.
        targets: of each original its smaller copy, in ``folder``.
        folder: of the copies; made where it does not exist.
        factor: at least 2.
        resampling: how pixels are put together.
        say: told before a file is made.

    Raises:
        CaptureError: an original cannot be read.
        OSError: a copy cannot be written.
    """
    missing = {target: path for path, target in zip(paths, targets, strict=True) if not target.is_file()}
    if not missing:
        return
    checks.read_image_sizes(list(missing.values()))
    say(f"Making {len(missing)} files at 1/{factor} of their size in {folder}")
    new = not folder.exists()
    place = folder.with_name(f".{folder.name}.{os.getpid()}") if new else folder
    place.mkdir(parents=True, exist_ok=True)
    try:
        for target, path in missing.items():
            final = place / target.relative_to(folder)
            final.parent.mkdir(parents=True, exist_ok=True)
            _make_one(path, final, factor, resampling)
        if new:
            os.replace(place, folder)
    finally:
        if new:
            shutil.rmtree(place, ignore_errors=True)


def _make_one(path: Path, target: Path, factor: int, resampling: Image.Resampling) -> None:
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        with Image.open(path) as image:
            width, height = image.width // factor, image.height // factor
            ready = (
                image
                if image.mode in ("L", "RGB", "RGBA") or resampling == Image.Resampling.NEAREST
                else image.convert("RGB")
            )
            small = ready.resize((width, height), resampling, box=(0, 0, width * factor, height * factor))
            small.save(part, **({"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}))
    except (ValueError, SyntaxError) as error:
        raise CaptureError(f"{path} cannot be read as an image ({error}). Replace the file.") from error
    except OSError as error:
        part.unlink(missing_ok=True)
        # Decoding errors carry no errno; those of the file system do.
        if error.errno is not None:
            raise
        raise CaptureError(f"{path} cannot be read as an image ({error}). Replace the file.") from error
    os.replace(part, target)
