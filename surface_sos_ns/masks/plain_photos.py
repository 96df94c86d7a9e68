"""Photos without cameras: one file or a folder of them, checked and read in groups."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from surface_sos_ns.capture.lookup import image_files
from surface_sos_ns.capture.names import IMAGE_SUFFIXES, distinct_stems, natural_order
from surface_sos_ns.masks.provider import MaskError, PlainPhotos
from surface_sos_ns.utils.image_io import read_image, resized
from surface_sos_ns.utils.pictures import size_within

__all__ = ["GROUP", "check_readable", "find_photos", "groups", "mask_files", "read_photos"]

LONGEST_SIDE = 800
"""Photos are shrunk to this many pixels, as those of a capture are."""

GROUP = 64
"""Photos, at most, that are looked at together: bounds the memory for features, 200 MB with DINOv2-S. Files that
follow each other by name mostly show the same thing."""


def find_photos(source: Path) -> list[Path]:
    """The photos that `--images` names, in the natural order of their names (2 before 10).

    Args:
        source: a folder, which is searched with its subfolders, or one image file.

    Raises:
        MaskError: there is no such file or folder, or no image file in it.
        CaptureError: a folder cannot be read.
    """
    if not source.exists():
        raise MaskError(f"--images {source} does not exist; expected a folder of photos, or one photo.")
    if not source.is_dir():
        return [source]
    names = image_files(source)
    if not names:
        raise MaskError(f"--images {source} has no image file in it ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return [source / names[index] for index in natural_order(names)]


def mask_files(source: Path, photos: Sequence[Path]) -> list[str]:
    """The name of each photo's mask: the photo's own with suffix .png, in the same subfolder.

    Photos that differ by their suffix alone keep it: `a.jpg.png` and `a.png.png` for `a.jpg` and `a.png`.

    Args:
        source, photos: see `find_photos`.
    """
    folder = source if source.is_dir() else source.parent
    return [f"{stem}.png" for stem in distinct_stems([photo.relative_to(folder).as_posix() for photo in photos])]


def check_readable(photos: Sequence[Path]) -> None:
    """Decodes all photos, so that a damaged one is told before any long work.

    Raises:
        ImageError: a file cannot be read as a photo; the message names it.
    """
    for path in photos:
        read_image(path)


def groups(count: int) -> list[range]:
    """Photos 0 to ``count`` - 1 in groups of nearly equal size, `GROUP` at most."""
    number = -(-count // GROUP)
    ends = [round(count * part / number) for part in range(number + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def read_photos(files: Sequence[Path]) -> PlainPhotos:
    """Reads some photos.

    Raises:
        ImageError: a file cannot be read as a photo.
    """
    images = [read_image(path) for path in files]
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    return PlainPhotos(
        files,
        [resized(image, *size_within(*size, LONGEST_SIDE)) for image, size in zip(images, sizes, strict=True)],
        sizes,
    )
