"""Which photos share a camera, as far as their files tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from surface_sos_ns.process.error import ProcessError

__all__ = ["Sharing", "group_by_camera"]

Sharing = Literal["auto", "shared", "per-image"]

EXIF_FOLDER = 0x8769
CAMERA = (0x010F, 0x0110)  # maker and model, in the main folder
LENS = (0x920A, 0xA405, 0xA404)  # focal length, the same for 35 mm film, digital zoom


def group_by_camera(paths: Sequence[Path], sharing: Sharing) -> list[list[Path]]:
    """Groups of photos that are given one camera (focal length, distortion) each.

    Args:
        paths: the photos.
        sharing: ``auto`` puts together what has one size, camera model and focal length; ``shared`` all photos;
            ``per-image`` none.

    Raises:
        ProcessError: all photos are to share a camera and differ in size.
    """
    if sharing == "per-image":
        return [[path] for path in paths]
    groups: dict[tuple, list[Path]] = {}
    for path in paths:
        size, lens = _size_and_lens(path)
        groups.setdefault(size if sharing == "shared" else (size, lens), []).append(path)
    if sharing == "shared" and len(groups) > 1:
        sizes = ", ".join(f"{width} x {height}" for width, height in groups)
        raise ProcessError(f"--camera shared needs photos of one size; these are {sizes}. Use --camera auto.")
    return list(groups.values())


def _size_and_lens(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    from surface_sos_ns.utils.image_io import read_exif, read_header

    exif = read_exif(path)
    lens = exif.get_ifd(EXIF_FOLDER)
    words = [*(exif.get(key) for key in CAMERA), *(lens.get(key) for key in LENS)]
    return read_header(path).upright, tuple(str(word) for word in words)
