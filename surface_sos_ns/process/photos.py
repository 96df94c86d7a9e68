"""A folder of photos as the scene's images: which files, under which names, upright."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surface_sos_ns.capture.lookup import visible_files
from surface_sos_ns.capture.names import listed
from surface_sos_ns.process.error import ProcessError

__all__ = ["Photo", "PhotoFolder", "copy_upright", "counting", "find_photos"]

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo")

AS_THEY_ARE = {".png": ".png"} | dict.fromkeys(JPEG, ".jpg")
"""Suffixes that every tool reads, and how they are spelt in the scene."""

TO_PNG = (".tif", ".tiff", ".webp", ".bmp", ".jp2", ".avif", ".pgm", ".ppm", ".pnm")
"""Suffixes of photos that are written anew, without loss."""

TO_CONVERT = (".heic", ".heif", ".hif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
"""Suffixes of photos that cannot be read here."""

MIN_PHOTOS = 3
"""Photos, at least, for poses to be found."""

MAX_NAME = 100
"""Characters of a name in the scene, of which the last are kept; file systems take 255 bytes."""

COMPANIONS = {
    "depth maps": re.compile(r"(?<![a-z])(depth(maps?|s)?|disparity|conf(idence)?)(?![a-z])"),
    "masks": re.compile(r"(?<![a-z])(masks?|mattes?)(?![a-z])"),
}
"""Words in the names of pictures that belong to a photo and are no photos themselves."""


@dataclass(frozen=True)
class Photo:
    """A photo and what it is called in the scene."""

    source: Path
    """The file."""
    name: str
    """Its name in the folder images/."""


@dataclass(frozen=True)
class PhotoFolder:
    """What was found in a folder."""

    photos: list[Photo]
    """In the order a person counts (IMG_9 before IMG_10)."""
    remarks: list[str]
    """Lines about files that are left out, and about names that had to be changed."""


def find_photos(folder: Path) -> PhotoFolder:
    """All photos in a folder and in those within it.

    Left out are depth maps, masks, edited copies beside their originals (IMG_E1234 beside IMG_1234), and files of
    other kinds. Names keep their letters, digits, ``-`` and ``_``, since COLMAP's lists of names and nerfstudio's
    converter take no others for sure; photos of several folders get the folders' names in front.

    Raises:
        ProcessError: fewer than three photos, two of one name, or some that cannot be read here (HEIC, raw).
        ImageError: a file is damaged.
    """
    files = [folder / path for path in visible_files(folder)]
    files.sort(key=lambda path: counting(path.relative_to(folder).as_posix()))
    readable = [path for path in files if path.suffix.lower() in (*AS_THEY_ARE, *TO_PNG)]
    names = {(path.parent, path.stem) for path in readable}
    others = [path for path in files if path.suffix.lower() not in (*AS_THEY_ARE, *TO_PNG)]
    # A phone may save a photo in both kinds of file: then the readable one is used.
    alone = [path for path in others if path.suffix.lower() in TO_CONVERT and (path.parent, path.stem) not in names]
    if alone:
        raise ProcessError(
            f"{alone[0]}: {len(alone)} photos are {alone[0].suffix.lower()} files, which cannot be read here. Convert "
            "them to JPEG first (HEIC: `heif-convert -q 95 IN.heic OUT.jpg` of Debian's libheif-examples, or export "
            "them from the photo app as JPEG; raw: develop them all with the same settings)."
        )
    left_out = _companions(readable, folder)
    found = [path for path in readable if path not in left_out]
    remarks = _left_out_words(left_out, others, folder)
    if len(found) < MIN_PHOTOS:
        raise ProcessError(
            f"{folder} holds {len(found)} photos ({', '.join([*AS_THEY_ARE, *TO_PNG])}); expected at least "
            f"{MIN_PHOTOS}, better 30 to 100, taken from different places around the object."
            f"{''.join(f' {one}' for one in remarks)}"
        )
    stems = _scene_stems(found, folder)
    photos = [Photo(path, stems[path] + AS_THEY_ARE.get(path.suffix.lower(), ".png")) for path in found]
    changed = [photo for photo in photos if _safe(photo.source.stem) != photo.source.stem]
    if changed:
        examples = listed([f"{photo.source.relative_to(folder)} is {photo.name}" for photo in changed], 3)
        remarks.append(f"Of {len(found)} photos {len(changed)} have other names in the scene: {examples}.")
    return PhotoFolder(photos, remarks)


def copy_upright(photos: Sequence[Photo], folder: Path, advance: Callable[[float], None] = lambda amount: None) -> None:
    """Copies photos into a folder, turned the way EXIF says they are held.

    Files are copied byte by byte where nothing has to change. Others are written anew, with their EXIF but for the
    orientation: cameras' focal lengths are in it.

    Args:
        photos: what to copy.
        folder: exists.
        advance: called with 1 after each photo.

    Raises:
        ImageError: a photo cannot be read to its end.
        WriteError: a copy cannot be written.
    """
    from PIL import Image

    from surface_sos_ns.utils.files import writing
    from surface_sos_ns.utils.image_io import read_exif, read_header, read_image

    plain = {".jpg": ("JPEG", "MPO"), ".png": ("PNG",)}
    for photo in photos:
        target = folder / photo.name
        header = read_header(photo.source)
        pixels = read_image(photo.source)  # decoded to its end, so that a truncated file is reported now
        with writing(target):
            if header.orientation == 1 and header.mode == "RGB" and header.format in plain[target.suffix]:
                shutil.copyfile(photo.source, target)
            else:
                best: dict[str, Any] = {"quality": 95, "subsampling": 0} if target.suffix == ".jpg" else {}
                Image.fromarray(pixels).save(target, exif=read_exif(photo.source), **best)
        advance(1)


def counting(name: str) -> list[tuple[int, str]]:
    """A sorting key by which numbers in names count as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part]


# ------------------------------------------------------------------ what is left out


def _companions(files: Sequence[Path], folder: Path) -> dict[Path, str]:
    """Pictures that belong to a photo and are no photos themselves, and what they are.

    A word in the name or in a folder's name tells them where the picture is grey, or where the rest of the name is a
    photo's. Grey pictures of more than 8 bits are depth maps, unless all pictures are of that kind.
    """
    from surface_sos_ns.utils.image_io import read_header

    words: dict[Path, str] = {}
    for path in files:
        inside = path.relative_to(folder).with_suffix("").as_posix().lower()
        kinds = [kind for kind, word in COMPANIONS.items() if word.search(inside)]
        if kinds:
            words[path] = kinds[0]
    if len(words) == len(files):  # all names have such a word: it tells nothing
        words = {}
    stems = {path.stem.lower() for path in files if path not in words}

    def belongs(path: Path, kind: str) -> bool:
        rest = COMPANIONS[kind].sub("", path.stem.lower()).strip("_-. ()")
        return rest in stems or read_header(path).mode not in ("RGB", "RGBA", "CMYK", "YCbCr", "LAB")

    found = {path: kind for path, kind in words.items() if belongs(path, kind)}
    rest = [path for path in files if path not in found]
    deep = [path for path in rest if path.suffix.lower() not in JPEG and read_header(path).deep_grey]
    if len(deep) < len(rest):
        found |= dict.fromkeys(deep, "depth maps")
    originals = {(path.parent, path.stem) for path in rest}
    for path in rest:
        edited = re.fullmatch(r"IMG_E(\d+)", path.stem)
        if edited and (path.parent, f"IMG_{edited[1]}") in originals:
            found[path] = "edited copies"
    return found


def _left_out_words(companions: dict[Path, str], others: Sequence[Path], folder: Path) -> list[str]:
    """One line about files that are left out, none where there are none."""
    by_kind: dict[str, list[str]] = {}
    for path, kind in companions.items():
        by_kind.setdefault(kind, []).append(path.relative_to(folder).as_posix())
    if others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
        words = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6))
        by_kind[f"files of other kinds ({words})"] = [path.relative_to(folder).as_posix() for path in others]
    parts = [f"{len(names)} {kind}: {listed(names, 3)}" for kind, names in by_kind.items()]
    return [f"Left out: {'; '.join(parts)}."] if parts else []


# ------------------------------------------------------------------ names


def _safe(stem: str) -> str:
    """A name of letters, digits, ``-`` and ``_``: accents are dropped, all else becomes an underscore."""
    letters = [letter for letter in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(letter)]
    return re.sub(r"[^A-Za-z0-9_-]", "_", "".join(letters))[-MAX_NAME:]


def _scene_stems(files: Sequence[Path], folder: Path) -> dict[Path, str]:
    """What each photo is called in the scene, without suffix. Names that had to be changed may get a number behind.

    Raises:
        ProcessError: two files have one name but for the suffix.
    """
    several = len({path.parent for path in files}) > 1
    owner: dict[Path, Path] = {}
    for path in files:
        within = path.with_suffix("")
        if within in owner:
            raise ProcessError(
                f"{owner[within]} and {path} would both be called '{_safe(path.stem)}' in the scene (masks go by names "
                "without suffix). Rename one, or take it away if it is the same photo."
            )
        owner[within] = path
    wanted = {}
    for path in files:
        within = path.relative_to(folder).with_suffix("")
        wanted[path] = "_".join(within.parts) if several else within.name
    taken: set[str] = set()  # in lower case: some file systems know no other
    stems = {}
    for path in sorted(files, key=lambda path: _safe(wanted[path]) != wanted[path]):  # names that can stay go first
        stem, number = _safe(wanted[path]), 1
        while (free := stem if number == 1 else f"{stem}_{number}").lower() in taken:
            number += 1
        taken.add(free.lower())
        stems[path] = free
    return stems
