"""File names: matching files to photos, hidden files, natural order, names of masks.

Pure functions on strings. `capture.lookup` reads the disk.
"""

from __future__ import annotations

import difflib
import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from surface_sos_ns.utils.text import printable

__all__ = [
    "IMAGE_SUFFIXES",
    "distinct_stems",
    "find_photos",
    "folded",
    "hidden",
    "is_image",
    "listed",
    "mask_names",
    "match_files",
    "match_problem",
    "match_references",
    "natural_order",
    "normal_form",
    "photo_paths",
    "similar_names",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp"})
"""Suffixes of files that are read as photos and masks, lower case."""

SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "@tmp", "@recycle", "#recycle", "$recycle.bin"}
)
"""Files and folders that Windows, macOS and network drives create, lower case."""

Parts = tuple[str, ...]
"""The parts of a path: folders and file name."""


def hidden(path: str) -> bool:
    """Whether a path, relative to the listed folder, is hidden or a system file, or lies in such a folder.

    Hidden names begin with a dot (`._0001.jpg` and `.DS_Store` of macOS). System files are thumbnails and recycle bins
    of operating systems and network drives.
    """
    return any(part[0] == "." or part.lower() in SYSTEM_FILES for part in _parts(path))


def is_image(name: str) -> bool:
    """Whether a file name has one of the `IMAGE_SUFFIXES`."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names with the numbers in them by value: 2 before 10."""
    parts = [re.split(r"(\d+)", name) for name in names]
    keys = [[(int(part), part) if place % 2 else (0, part) for place, part in enumerate(name)] for name in parts]
    return sorted(range(len(names)), key=lambda index: keys[index])


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first ``most`` names and the number of the others, as text for a message.

    Control characters are escaped, see `utils.text.printable`.
    """
    shown = printable(", ".join(str(name) for name in names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# ------------------------------------------------------------------------------------------------------- spelling


def normal_form(name: str) -> str:
    """A name in Unicode normal form C. macOS stores 'é' as 'e' and an accent, other systems as one character."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A case-folded name in Unicode normal form C."""
    return normal_form(unicodedata.normalize("NFD", name).casefold())


def _posix(path: str) -> str:
    return path.replace("\\", "/")


SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    lambda path: normal_form(_posix(path)),
    lambda path: folded(_posix(path)),
)
"""Normalisations under which two paths are compared, in order of preference: none; Unicode normal form and Windows'
path separators; letter case as well."""


def _parts(path: str) -> Parts:
    """The parts of a normalised path, without its root and '..'."""
    return tuple(part for part in posixpath.normpath(path).split("/") if part not in ("", ".", ".."))


def _whole(path: Parts) -> Parts:
    return path


def _stem(path: Parts) -> Parts:
    """The path without its suffix: 'left/0001' for 'left/0001.jpg'."""
    return (*path[:-1], posixpath.splitext(path[-1])[0])


def _inner_stem(path: Parts) -> Parts:
    """The path without two suffixes: 'left/0001' for 'left/0001.jpg.png'; () if it has only one."""
    stem = _stem(path)
    return _stem(stem) if is_image(stem[-1]) else ()


# ------------------------------------------------------------------------------------------------------- matching

Comparison = tuple[Callable[[Parts], Parts], Callable[[Parts], Parts]]
"""Functions of the photo's path and of the file's path whose results have to be equal."""

DERIVED_FILES: tuple[Comparison, ...] = (
    (_whole, _stem),  # 0001.jpg and 0001.jpg.png
    (_stem, _stem),  # 0001.jpg and 0001.png
    (_stem, _inner_stem),  # 0001.png, converted from a JPEG, and 0001.jpg.png
)
"""How files made from photos are named, in order of preference."""
RENAMED_PHOTOS: tuple[Comparison, ...] = (
    (_whole, _whole),
    (_stem, _stem),  # photos converted to another format
)
"""How other programs name the photos, in order of preference."""


def match_files(photos: Sequence[str], files: Sequence[str], anywhere: bool = False) -> list[list[int]]:
    """Matches files made from photos (masks, clean plates) to the photos, by name.

    1. The files have the photos' folder structure, relative to the capture or to one of the photos' common folders:
       `images/left/0001.png` or `left/0001.png` for `images/left/0001.jpg`.
    2. Files not matched yet are compared with ever shorter ends of the photos' paths, at last by `0001.png` alone.

    Within each step, the photo's whole name with one more suffix (`0001.jpg.png`) is preferred to another suffix, and
    identical spelling to one that differs in Unicode normal form, Windows' separators or letter case. A file is matched
    once.

    Args:
        photos: N paths, all relative to one folder or all absolute; see `photo_paths`.
        files: M paths relative to their folder.
        anywhere: also match files in folders that the photos do not have (`export/0001.png`).

    Returns:
        For each photo the indices of its files: none, one, or several if the match is ambiguous. Then an index may also
        occur for several photos. `match_problem` describes both cases.
    """
    found = _match(photos, files, DERIVED_FILES)
    return _match_anywhere(photos, files, DERIVED_FILES, found) if anywhere else found


def match_references(photos: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """Matches another program's names of the photos (COLMAP's images) to the photos' paths.

    As `match_files`, but names with equal suffixes are preferred; and the names may have a common leading folder that
    the photos do not have.

    Args:
        photos: N paths, all relative to one folder or all absolute; see `photo_paths`.
        names: M paths, relative to any folder.

    Returns:
        For each photo the indices of its names: none, one, or several if the match is ambiguous.
    """
    common = _common_folders([_parts(_posix(name)) for name in names])
    shorter = ["/".join(_parts(_posix(name))[common:]) for name in names]
    candidates = [_match(photos, some, RENAMED_PHOTOS) for some in (names, shorter)]
    return max(candidates, key=lambda found: len(_matched(found)))  # the first one of equals


def match_problem(
    found: Sequence[Sequence[int]], photos: Sequence[str], files: Sequence[str], folder: object
) -> str | None:
    """A message about a match that is not one to one.

    Args:
        found: for each photo the indices of its files, see `match_files`.
        photos: N paths.
        files: M paths relative to their folder.
        folder: of the files.

    Returns:
        What is wrong and what to do; None if the match is one to one.
    """
    several = [photo for photo, indices in enumerate(found) if len(indices) > 1]
    if several:
        example = listed([files[index] for index in found[several[0]]])
        return (
            f"{len(several)} photos have more than one file in {listed([folder])}: {listed([photos[several[0]]])} has "
            f"{example}. Leave one of each."
        )
    owners = Counter(index for indices in found for index in indices)
    shared = [index for index, count in owners.items() if count > 1]
    if shared:
        owned = [path for path, indices in zip(photos, found, strict=True) if shared[0] in indices]
        return (
            f"{listed([posixpath.join(str(folder), files[shared[0]])])} has the name of {len(owned)} photos: "
            f"{listed(owned, 2)}. Put the files into folders named as the photos'."
        )
    return None


def find_photos(names: Sequence[str], photos: Sequence[str], folder: str = "") -> list[list[int]]:
    """Finds photos by whole paths, or by the ends of paths that a user types, with or without suffix.

    Args:
        names: what to find, such as `images/left/0001.jpg`, `left/0001.jpg` or `0001`.
        photos: N paths, as in transforms.json.
        folder: of the capture; needed if names or photos may be absolute.

    Returns:
        For each name the indices of the photos that match it best: none, one, or several.
    """
    found: list[list[int]] = [[] for _ in names]
    comparable = photo_paths([*photos, *names], folder)
    for spelling in SPELLINGS:
        paths = [_parts(spelling(path)) for path in comparable[: len(photos)]]
        wanted_wholes = [_parts(spelling(path)) for path in comparable[len(photos) :]]
        wanted_ends = [_parts(spelling(name)) for name in names]
        for part in (_whole, _stem):
            wholes, ends = defaultdict(list), defaultdict(list)
            for index, path in enumerate(paths):
                key = part(path) if path else ()
                wholes[key].append(index)
                for start in range(len(key)):
                    ends[key[start:]].append(index)
            for place, (whole, end) in enumerate(zip(wanted_wholes, wanted_ends, strict=True)):
                if end and not found[place]:
                    found[place] = list(wholes.get(whole) or ends.get(end) or ())
    return found


def similar_names(name: str, paths: Sequence[str], most: int = 3) -> list[str]:
    """At most ``most`` paths with file names similar to that of ``name``, the most similar first; for messages."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_name[folded(posixpath.basename(_posix(path)))].append(path)
    close = difflib.get_close_matches(folded(posixpath.basename(_posix(name))), by_name, most)
    return [path for key in close for path in by_name[key]][:most]


def _normalised(paths: Sequence[str]) -> list[list[Parts]]:
    """The parts of each path under each normalisation of `SPELLINGS`."""
    return [[_parts(spelling(path)) for path in paths] for spelling in SPELLINGS]


def _match(photos: Sequence[str], files: Sequence[str], comparisons: Sequence[Comparison]) -> list[list[int]]:
    """Matches files whose whole paths are equal to the photos' paths or to ends of them; see `match_files`."""
    ours, theirs = _normalised(photos), _normalised(files)
    root = max(_common_folders(paths) for paths in ours)
    depth = max((len(path) for paths in theirs for path in paths), default=0)
    # The same folder structure: the same number of leading folders is removed from all photos' paths.
    unmatched: list[list[int]] = [[] for _ in photos]
    layouts = [
        _match_equal_paths(_from(ours, left_out), theirs, comparisons, unmatched) for left_out in range(root + 1)
    ]
    found = max(layouts, key=lambda layout: len(_matched(layout)))  # the first one of equals
    for length in range(depth, 0, -1):
        found = _match_equal_paths(_from(ours, -length), _of_length(theirs, length), comparisons, found)
    return found


def _match_anywhere(
    photos: Sequence[str], files: Sequence[str], comparisons: Sequence[Comparison], found: list[list[int]]
) -> list[list[int]]:
    """Adds files whose paths end with a photo's path below the photos' common folders."""
    ours, theirs = _normalised(photos), _normalised(files)
    roots = [_common_folders(paths) for paths in ours]
    own = [[path[root:] for path in paths] for paths, root in zip(ours, roots, strict=True)]
    for length in sorted({len(path) for paths in own for path in paths}, reverse=True):
        found = _match_equal_paths(_of_length(own, length), _from(theirs, -length), comparisons, found)
    return found


def _match_equal_paths(
    ours: Sequence[Sequence[Parts]],
    theirs: Sequence[Sequence[Parts]],
    comparisons: Sequence[Comparison],
    found: list[list[int]],
) -> list[list[int]]:
    """Matches photos and files that have equal paths and are not matched yet.

    Args:
        ours: the photos' paths under each normalisation; () is not matched.
        theirs: the files' paths under each normalisation.
        comparisons: what is compared, in order of preference.
        found: for each photo the files that it has already.

    Returns:
        `found` with the new matches.
    """
    found = list(found)
    taken = _matched(found)
    for of_photo, of_file in comparisons:
        for paths, names in zip(ours, theirs, strict=True):
            lengths = {len(name) for name in names}
            photos: dict[Parts, list[int]] = defaultdict(list)
            files: dict[Parts, list[int]] = defaultdict(list)
            for index, path in enumerate(paths):
                if path and not found[index] and len(path) in lengths:
                    photos[of_photo(path)].append(index)
            for index, name in enumerate(names) if photos else ():
                if name and index not in taken:
                    files[of_file(name)].append(index)
            for key in photos.keys() & files.keys():
                pairs = _pairs(photos[key], files[key], paths, names)
                for photo in photos[key]:
                    found[photo] = [pairs[photo]] if pairs else files[key]
                taken.update(files[key])
    return found


def _matched(found: Sequence[Sequence[int]]) -> set[int]:
    """The indices of files that are matched."""
    return {index for indices in found for index in indices}


def _pairs(
    photos: Sequence[int], files: Sequence[int], paths: Sequence[Parts], names: Sequence[Parts]
) -> dict[int, int] | None:
    """File by photo, if there is one of each, or every file has the whole name of its photo; None if ambiguous.

    `a.jpg` and `a.png` are the masks of the photos `a.jpg` and `a.png`; for the photo `a.jpg` alone they are ambiguous.
    """
    if len(photos) == len(files) == 1:
        return {photos[0]: files[0]}
    by_name = {names[index]: index for index in files}
    pairs = {index: by_name[paths[index]] for index in photos if paths[index] in by_name}
    return pairs if len(pairs) == len(photos) == len(set(pairs.values())) == len(files) else None


def _from(spelt: Sequence[Sequence[Parts]], start: int) -> list[list[Parts]]:
    """Paths from the part ``start`` on, counted from the end if negative; () for paths that are too short."""
    return [[path[start:] if len(path) >= -start else () for path in paths] for paths in spelt]


def _of_length(spelt: Sequence[Sequence[Parts]], length: int) -> list[list[Parts]]:
    """The paths with ``length`` parts; () for the others."""
    return [[path if len(path) == length else () for path in paths] for paths in spelt]


def _common_folders(paths: Sequence[Parts]) -> int:
    """The number of leading folders that all paths have in common."""
    folders = [path[:-1] for path in paths]
    first, last = min(folders, default=()), max(folders, default=())
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return sum(1 for _ in same)


# -------------------------------------------------------------------------------------------------------- writing


def photo_paths(file_paths: Sequence[str], folder: str = "") -> list[str]:
    """The paths by which photos are matched: relative to the capture's folder, or all absolute if one lies outside.

    Args:
        file_paths: as in transforms.json.
        folder: of the capture.
    """
    slashed = [_posix(path) for path in file_paths]
    distinct = len(set(slashed)) == len(set(file_paths))  # except on Windows, a file name may contain a backslash
    paths = [posixpath.normpath(path) for path in (slashed if distinct else file_paths)]
    if not any(os.path.isabs(path) or path.split("/")[0] == ".." for path in paths):
        return paths
    return [Path(os.path.abspath(os.path.join(folder, path))).as_posix() for path in paths]


def mask_names(file_paths: Sequence[str], folder: str = "") -> list[str]:
    """The path of each photo's mask, relative to the folder of masks: the photos' first common folder is removed.

    Photos that differ only by their suffix keep it: `a.jpg.png` and `a.png.png` for `a.jpg` and `a.png`. `match_files`
    matches any subset of these masks to their photos.

    Args:
        file_paths: as in transforms.json, without repetition.
        folder: of the capture.
    """
    photos = photo_paths(file_paths, folder)
    paths = [_parts(path) for path in photos]
    left_out = _common_folders(paths)
    if not any(os.path.isabs(path) for path in photos):
        left_out = min(left_out, 1)
    # images/1.png could be the mask of images/1.jpg and of images/images/1.jpg; then no folder is removed.
    folders = {folded("/".join(path[left_out:-1])) for path in paths}
    if any(folded("/".join(path[fewer:-1])) in folders for path in paths for fewer in range(left_out)):
        left_out = 0
    return [f"{stem}.png" for stem in distinct_stems(["/".join(path[left_out:]) for path in paths])]


def distinct_stems(paths: Sequence[str]) -> list[str]:
    """Paths without suffix, except where that would be ambiguous.

    `a.jpg` and `b.jpg` become `a` and `b`; `a.jpg` and `a.png` stay, since both would be `a`.
    """
    stems = [posixpath.splitext(path)[0] for path in paths]
    count = Counter(folded(stem) for stem in stems)
    wholes = {folded(path) for path in paths}
    unique = [count[folded(stem)] == 1 and folded(stem) not in wholes for stem in stems]
    return [stem if alone else path for path, stem, alone in zip(paths, stems, unique, strict=True)]
