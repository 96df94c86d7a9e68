"""Names of files: which belong to which photos, which are hidden, and the order that people give them.

Everything here is a pure function on names; nothing is read from the disk. See `capture.lookup` for that.
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
    "clash",
    "distinct_stems",
    "find_photos",
    "folded",
    "hidden",
    "is_image",
    "listed",
    "mask_names",
    "match_files",
    "match_references",
    "natural_order",
    "normal_form",
    "photo_paths",
    "similar_names",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp"})
"""Of files that are read as photos and masks, in lower case."""

SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "@tmp", "@recycle", "#recycle", "$recycle.bin"}
)
"""Files and folders that Windows, macOS and network drives put beside the user's own, in lower case."""

Parts = tuple[str, ...]
"""Folders and file name of a path."""


def hidden(path: str) -> bool:
    """Whether a path, relative to the folder that is listed, is none of the user's own files.

    Those are names with a dot in front (`._0001.jpg` and `.DS_Store` of macOS), thumbnails and bins of operating
    systems and network drives, and all that lies in such folders.
    """
    return any(part[0] == "." or part.lower() in SYSTEM_FILES for part in _parts(path))


def is_image(name: str) -> bool:
    """Whether a file has the suffix of an image that can be read here."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def natural_order(names: Sequence[str]) -> list[int]:
    """Indices that sort names, the numbers in them by value: 2 before 10."""
    parts = [re.split(r"(\d+)", name) for name in names]
    keys = [[(int(part), part) if place % 2 else (0, part) for place, part in enumerate(name)] for name in parts]
    return sorted(range(len(names)), key=lambda index: keys[index])


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first few names and how many more there are, for a message.

    Characters that no terminal shows are escaped, see `utils.text.printable`.
    """
    shown = printable(", ".join(str(name) for name in names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# ------------------------------------------------------------------------------------------------------- spelling


def normal_form(name: str) -> str:
    """A name in Unicode's composed form: macOS stores 'é' as 'e' and an accent, other systems as one character."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name without upper case, in Unicode's composed form."""
    return normal_form(unicodedata.normalize("NFD", name).casefold())


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    lambda path: normal_form(_slashes(path)),
    lambda path: folded(_slashes(path)),
)
"""In what two paths may differ and still be equal: nothing; Unicode form and Windows' separators; upper case as well.
An earlier one counts more."""


def _parts(path: str) -> Parts:
    """Without the root, and without what leads out of a folder."""
    return tuple(part for part in posixpath.normpath(path).split("/") if part not in ("", ".", ".."))


def _whole(path: Parts) -> Parts:
    return path


def _stem(path: Parts) -> Parts:
    """'left/0001.jpg' is 'left/0001'."""
    return (*path[:-1], posixpath.splitext(path[-1])[0])


def _inner_stem(path: Parts) -> Parts:
    """'left/0001.jpg.png' is 'left/0001'; () of names with one suffix."""
    stem = _stem(path)
    return _stem(stem) if is_image(stem[-1]) else ()


# ------------------------------------------------------------------------------------------------------- matching

Kind = tuple[Callable[[Parts], Parts], Callable[[Parts], Parts]]
"""What has to be equal: a part of the photo's path, and a part of the file's."""

MADE_OF_PHOTOS: tuple[Kind, ...] = (
    (_whole, _stem),  # 0001.jpg has 0001.jpg.png
    (_stem, _stem),  # 0001.jpg has 0001.png
    (_stem, _inner_stem),  # 0001.png, once a JPEG, has 0001.jpg.png
)
NAMES_OF_PHOTOS: tuple[Kind, ...] = (
    (_whole, _whole),
    (_stem, _stem),  # photos that were written anew in another format
)


def match_files(photos: Sequence[str], files: Sequence[str], anywhere: bool = False) -> list[list[int]]:
    """Files made of photos (masks, clean plates), matched by their names.

    As much of a path as possible has to be equal. First the files lie as the photos do, below the capture's folder or
    below one of the photos' common folders: `images/left/0001.jpg` has `images/left/0001.png` or `left/0001.png`.
    What is left goes by ever shorter ends of the photos' paths, at last by `0001.png` alone. A file has its photo's
    whole name and one suffix more (`0001.jpg.png`), else its name with another suffix. Equal Unicode normal forms,
    Windows' separators and upper case come after equal spelling. A file that matched is not matched again.

    Args:
        photos: N paths, all relative to one folder or all absolute; see `photo_paths`.
        files: M paths relative to their folder.
        anywhere: also match files in folders that the photos do not have (`export/0001.png`).

    Returns:
        Of each photo the indices of its files: none, one, or several where nothing decides between them. An index may
        stand with several photos, for the same reason. `clash` has the words for both.
    """
    found = _match(photos, files, MADE_OF_PHOTOS)
    return _match_anywhere(photos, files, MADE_OF_PHOTOS, found) if anywhere else found


def match_references(photos: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """Names that another program has for the photos (COLMAP's images), matched with the photos' paths.

    As `match_files`, but equal names with equal suffixes come first; and all names may have the same folders in front
    that the photos do not have.

    Args:
        photos: N paths, all relative to one folder or all absolute; see `photo_paths`.
        names: M paths, relative to any folder.

    Returns:
        Of each photo the indices of its names: none, one, or several where nothing decides between them.
    """
    front = _common_folders([_parts(_slashes(name)) for name in names])
    shorter = ["/".join(_parts(_slashes(name))[front:]) for name in names]
    readings = [_match(photos, some, NAMES_OF_PHOTOS) for some in (names, shorter)]
    return max(readings, key=lambda found: len(_used(found)))  # the first, where both are equally good


def clash(found: Sequence[Sequence[int]], photos: Sequence[str], files: Sequence[str], folder: object) -> str | None:
    """What is to be said when files and photos do not belong together one to one.

    Args:
        found: of each photo its files, see `match_files`.
        photos: N paths, for the message.
        files: M paths relative to their folder, for the message.
        folder: of the files, for the message.

    Returns:
        A sentence and what to do, or None when all is clear.
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
    """The photos that names mean: whole paths, or as much of a path's end as a user types, with or without suffix.

    Args:
        names: what is looked for, such as `images/left/0001.jpg`, `left/0001.jpg` or `0001`.
        photos: N paths, as in transforms.json.
        folder: of the capture, where names or photos may be absolute.

    Returns:
        Of each name the indices of the photos that fit it best: none, one, or several.
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
    """Paths whose file names resemble that of one that is not among them, the most similar first; for messages."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_name[folded(posixpath.basename(_slashes(path)))].append(path)
    close = difflib.get_close_matches(folded(posixpath.basename(_slashes(name))), by_name, most)
    return [path for key in close for path in by_name[key]][:most]


def _spelt(paths: Sequence[str]) -> list[list[Parts]]:
    """The parts of each path in each spelling."""
    return [[_parts(spelling(path)) for path in paths] for spelling in SPELLINGS]


def _match(photos: Sequence[str], files: Sequence[str], kinds: Sequence[Kind]) -> list[list[int]]:
    """Files whose whole paths are the photos' or ends of them; see `match_files`."""
    ours, theirs = _spelt(photos), _spelt(files)
    root = max(_common_folders(paths) for paths in ours)
    depth = max((len(path) for paths in theirs for path in paths), default=0)
    # The files lie as the photos do: of all photos' paths the same number of folders is left out.
    unmatched: list[list[int]] = [[] for _ in photos]
    layouts = [_equal(_cut(ours, left_out), theirs, kinds, unmatched) for left_out in range(root + 1)]
    found = max(layouts, key=lambda layout: len(_used(layout)))  # the first, where several are equally good
    for length in range(depth, 0, -1):
        found = _equal(_cut(ours, -length), _of_length(theirs, length), kinds, found)
    return found


def _match_anywhere(
    photos: Sequence[str], files: Sequence[str], kinds: Sequence[Kind], found: list[list[int]]
) -> list[list[int]]:
    """`found` and files whose paths end with all that is a photo's own: its path below the photos' common folders."""
    ours, theirs = _spelt(photos), _spelt(files)
    roots = [_common_folders(paths) for paths in ours]
    own = [[path[root:] for path in paths] for paths, root in zip(ours, roots, strict=True)]
    for length in sorted({len(path) for paths in own for path in paths}, reverse=True):
        found = _equal(_of_length(own, length), _cut(theirs, -length), kinds, found)
    return found


def _equal(
    ours: Sequence[Sequence[Parts]], theirs: Sequence[Sequence[Parts]], kinds: Sequence[Kind], found: list[list[int]]
) -> list[list[int]]:
    """Matches what is not matched yet and has equal paths.

    Args:
        ours: in each spelling the photos' paths; () is not to be matched.
        theirs: in each spelling the files' paths.
        kinds: what is compared, best first.
        found: of each photo the files that it has already.

    Returns:
        `found` with what was added.
    """
    found = list(found)
    taken = _used(found)
    for of_photo, of_file in kinds:
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
                pairs = _paired(photos[key], files[key], paths, names)
                for photo in photos[key]:
                    found[photo] = [pairs[photo]] if pairs else files[key]
                taken.update(files[key])
    return found


def _used(found: Sequence[Sequence[int]]) -> set[int]:
    """The files that matched."""
    return {index for indices in found for index in indices}


def _paired(
    photos: Sequence[int], files: Sequence[int], paths: Sequence[Parts], names: Sequence[Parts]
) -> dict[int, int] | None:
    """Each photo's file where there is one of each, or all have their photo's whole name; None where it is not clear.

    `a.jpg` and `a.png` are the masks of `a.jpg` and `a.png`, but of `a.jpg` alone they would be two.
    """
    if len(photos) == len(files) == 1:
        return {photos[0]: files[0]}
    by_name = {names[index]: index for index in files}
    pairs = {index: by_name[paths[index]] for index in photos if paths[index] in by_name}
    return pairs if len(pairs) == len(photos) == len(set(pairs.values())) == len(files) else None


def _cut(spelt: Sequence[Sequence[Parts]], start: int) -> list[list[Parts]]:
    """Paths from a part on, which may be counted from the end; () of those that are too short."""
    return [[path[start:] if len(path) >= -start else () for path in paths] for paths in spelt]


def _of_length(spelt: Sequence[Sequence[Parts]], length: int) -> list[list[Parts]]:
    """The paths of so many parts, the others ()."""
    return [[path if len(path) == length else () for path in paths] for paths in spelt]


def _common_folders(paths: Sequence[Parts]) -> int:
    """The number of leading folders that all paths have in common."""
    folders = [path[:-1] for path in paths]
    first, last = min(folders, default=()), max(folders, default=())
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return sum(1 for _ in same)


# -------------------------------------------------------------------------------------------------------- writing


def photo_paths(file_paths: Sequence[str], folder: str = "") -> list[str]:
    """The paths that photos are matched by: relative to the capture's folder, or all absolute if one lies outside.

    Args:
        file_paths: as in transforms.json.
        folder: of the capture.
    """
    slashed = [_slashes(path) for path in file_paths]
    distinct = len(set(slashed)) == len(set(file_paths))  # elsewhere than on Windows a name may have a backslash
    paths = [posixpath.normpath(path) for path in (slashed if distinct else file_paths)]
    if not any(os.path.isabs(path) or path.split("/")[0] == ".." for path in paths):
        return paths
    return [Path(os.path.abspath(os.path.join(folder, path))).as_posix() for path in paths]


def mask_names(file_paths: Sequence[str], folder: str = "") -> list[str]:
    """Of each photo the mask's path in the folder of masks: subfolders stay, the photos' own first folder goes.

    Photos that differ only by their suffix keep it: `a.jpg` and `a.png` have `a.jpg.png` and `a.png.png`. `match_files`
    finds every photo's mask again, whichever of them are there.

    Args:
        file_paths: as in transforms.json, no file twice.
        folder: of the capture.
    """
    photos = photo_paths(file_paths, folder)
    paths = [_parts(path) for path in photos]
    left_out = _common_folders(paths)
    if not any(os.path.isabs(path) for path in photos):
        left_out = min(left_out, 1)
    # Of images/1.jpg and images/images/1.jpg, images/1.png would be either's mask; then no folder is left out.
    folders = {folded("/".join(path[left_out:-1])) for path in paths}
    if any(folded("/".join(path[fewer:-1])) in folders for path in paths for fewer in range(left_out)):
        left_out = 0
    return [f"{stem}.png" for stem in distinct_stems(["/".join(path[left_out:]) for path in paths])]


def distinct_stems(paths: Sequence[str]) -> list[str]:
    """Paths without suffix; with it where another photo's could be taken for it.

    `a.jpg` and `b.jpg` become `a` and `b`; `a.jpg` and `a.png`, which both would be `a`, stay.
    """
    stems = [posixpath.splitext(path)[0] for path in paths]
    count = Counter(folded(stem) for stem in stems)
    wholes = {folded(path) for path in paths}
    clear = [count[folded(stem)] == 1 and folded(stem) not in wholes for stem in stems]
    return [stem if alone else path for path, stem, alone in zip(paths, stems, clear, strict=True)]
