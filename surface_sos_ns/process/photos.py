"""A folder of photos as the scene's images: which files, under which names, upright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surface_sos_ns.capture.lookup import visible_files
from surface_sos_ns.process.error import ProcessError

__all__ = ["Photo", "copy_upright", "counting", "list_photos"]

AS_THEY_ARE = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png"}
"""Suffixes that every tool reads, and how they are spelt in the scene."""

TO_PNG = (".tif", ".tiff", ".webp", ".bmp")
"""Suffixes of photos that are written anew, without loss."""

TO_CONVERT = (".heic", ".heif", ".hif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
"""Suffixes of photos that cannot be read here."""

FEWEST = 3
"""Photos that poses can be found for at all."""

ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Photo:
    """A photo and what it is called in the scene."""

    source: Path
    """The file."""
    name: str
    """Its name in the folder images/."""


def list_photos(folder: Path) -> list[Photo]:
    """All photos in a folder and in those within it, in the order a person counts (IMG_9 before IMG_10).

    Names stay, but for white space and dots before the suffix, which become underscores; photos of several folders get
    the folders' names in front.

    Raises:
        ProcessError: fewer than three photos, two of one name, or some that cannot be read here (HEIC, raw).
    """
    files = [folder / path for path in visible_files(folder)]
    files.sort(key=lambda path: counting(path.relative_to(folder).as_posix()))
    found = [path for path in files if path.suffix.lower() in (*AS_THEY_ARE, *TO_PNG)]
    readable = {(path.parent, path.stem) for path in found}
    foreign = [path for path in files if path.suffix.lower() in TO_CONVERT]
    alone = [path for path in foreign if (path.parent, path.stem) not in readable]  # a phone may save both
    if alone:
        raise ProcessError(
            f"{alone[0]}: {len(alone)} photos are {alone[0].suffix.lower()} files, which cannot be read here. Convert "
            "them to JPEG first (HEIC: `heif-convert -q 95 IN.heic OUT.jpg` of Debian's libheif-examples, or export "
            "them from the photo app as JPEG; raw: develop them all with the same settings)."
        )
    if len(found) < FEWEST:
        raise ProcessError(
            f"{folder} holds {len(found)} photos ({', '.join([*AS_THEY_ARE, *TO_PNG])}); expected at least {FEWEST}, "
            "better 30 to 100, taken from different places around the object."
        )
    several = len({path.parent for path in found}) > 1
    photos: dict[str, Photo] = {}
    for path in found:
        within = path.relative_to(folder).with_suffix("")
        stem = re.sub(r"[\s.]", "_", "_".join(within.parts) if several else within.name)
        if stem in photos:
            raise ProcessError(
                f"{photos[stem].source} and {path} would both be called '{stem}' in the scene (masks go by names "
                "without suffix). Rename one, or take it away if it is the same photo."
            )
        photos[stem] = Photo(path, stem + AS_THEY_ARE.get(path.suffix.lower(), ".png"))
    return list(photos.values())


def copy_upright(photos: Sequence[Photo], folder: Path, advance: Callable[[float], None] = lambda amount: None) -> None:
    """Copies photos into a folder, turned the way EXIF says they are held.

    Files are copied byte by byte where nothing has to change. Others are written anew, with their EXIF but for the
    orientation: cameras' focal lengths are in it.

    Args:
        photos: what to copy.
        folder: exists.
        advance: called with 1 after each photo.

    Raises:
        ProcessError: a photo cannot be read to its end.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    for photo in photos:
        target = folder / photo.name
        try:
            with Image.open(photo.source) as image:
                image.load()  # all of it: half a photo is found out here and not hours later
                if image.mode[0] in "IF":
                    raise ProcessError(f"{photo.source} has {image.mode} pixels; expected 8 bits. Convert it to PNG.")
                kept = photo.source.suffix.lower() in AS_THEY_ARE and image.mode == "RGB"
                if kept and image.getexif().get(ORIENTATION, 1) == 1:
                    shutil.copyfile(photo.source, target)
                else:
                    upright = ImageOps.exif_transpose(image)
                    exif = upright.getexif()
                    best: dict[str, Any] = {"quality": 95, "subsampling": 0} if target.suffix == ".jpg" else {}
                    upright.convert("RGB").save(target, exif=exif, **best)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, UnidentifiedImageError):
                raise  # the disk's trouble, not the photo's
            raise ProcessError(
                f"{photo.source} cannot be read as a photo ({error}). Copy it from the camera again, or take it away."
            ) from error
        advance(1)


def counting(name: str) -> list[tuple[int, str]]:
    """A sorting key by which numbers in names count as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part]
