"""Which file is which photo's: by name, with common beginnings and ends, or by order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from surface_sos_ns.capture.checks import listed
from surface_sos_ns.capture.names import natural_order
from surface_sos_ns.masks.provider import MaskError

__all__ = ["Matches", "by_name", "by_order"]

IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Matches:
    """Files matched to photos.

    Attributes:
        files: of each photo the index of its file, or None.
        how: the rule, in words.
    """

    files: list[int | None]
    how: str


def by_order(photos: Sequence[Path], count: int, order: Sequence[int], what: str) -> Matches:
    """The files one after the other, for the photos in the order of their names.

    Args:
        photos: N files.
        count: number of mask files or frames; has to be N.
        order: of the mask files.
        what: the mask files or frames in words.

    Raises:
        MaskError: the numbers differ.
    """
    if count != len(photos):
        raise MaskError(
            f"There are {count} {what} and {len(photos)} photos; by order they can only be matched one to one. Name "
            "the masks as their photos, or bring as many as there are photos."
        )
    files: list[int | None] = [None] * len(photos)
    for photo, file in zip(natural_order([path.as_posix() for path in photos]), order, strict=True):
        files[photo] = file
    return Matches(files, "by order, photos sorted by name")


def by_name(photos: Sequence[Path], masks: Sequence[Path], source: Path) -> Matches:
    """The mask files whose names are the photos', or differ from them by the same beginning and end everywhere.

    Suffixes do not count (`0001.jpg` has `0001.png` or `0001.jpg.png`), nor does upper case. Photos in folders look
    for their folder first (`left/0001`), then for the bare name.

    Args:
        photos: N files.
        masks: M files below `source`.
        source: the folder of masks.

    Raises:
        MaskError: no rule matches any photo, two rules match equally many, or a photo has two files.
    """
    rules = [_equal_names(photos, masks, source), *_around(photos, masks), *_cores(photos, masks)]
    most = max((sum(bool(found) for found in files) for files, _ in rules), default=0)
    best = [rule for rule in rules if most and sum(bool(found) for found in rule[0]) == most]
    if not best:
        raise MaskError(
            f"No file in {source} has the name of a photo: the photos are {listed([p.name for p in photos], 3)}, the "
            f"files {listed([p.name for p in masks], 3)}. Rename them, or take them in sorted order with --by-order."
        )
    files, how = best[0]
    if how != EQUAL and 2 * most < min(len(photos), len(masks)):
        raise MaskError(
            f"Only {most} of {len(masks)} files in {source} have the name of a photo ({how}). Rename them as the "
            "photos, or take them in sorted order with --by-order."
        )
    for other, words in best[1:]:
        if other != files and how != EQUAL:
            raise MaskError(
                f"The names of the files in {source} can be read in two ways: {how}, or {words}. Leave the masks of "
                "one object in the folder, named as the photos."
            )
    twice = [photo for photo, found in zip(photos, files, strict=True) if len(found) > 1]
    if twice:
        example = files[list(photos).index(twice[0])]
        raise MaskError(
            f"{len(twice)} photos have more than one file in {source}: {twice[0].name} has "
            f"{listed([masks[index].relative_to(source).as_posix() for index in example])}. Leave one of each."
        )
    owners = Counter(found[0] for found in files if found)
    shared = [index for index, count in owners.items() if count > 1]
    if shared:
        owned = [photo.as_posix() for photo, found in zip(photos, files, strict=True) if shared[0] in found]
        raise MaskError(
            f"{masks[shared[0]]} has the name of {len(owned)} photos: {listed(owned, 2)}. Put the masks into folders "
            "named as the photos'."
        )
    return Matches([found[0] if found else None for found in files], how)


EQUAL = "by name"
Rule = tuple[list[list[int]], str]
"""Of each photo the files that it could have, and the rule in words."""


def _stem(path: PurePath) -> str:
    """A path's name without suffix, nor the photo's suffix before it, in lower case."""
    return IMAGE_SUFFIX.sub("", IMAGE_SUFFIX.sub("", path.as_posix())).lower()


def _equal_names(photos: Sequence[Path], masks: Sequence[Path], source: Path) -> Rule:
    below: dict[str, list[int]] = {}
    bare: dict[str, list[int]] = {}
    for index, mask in enumerate(masks):
        inside = mask.relative_to(source)
        below.setdefault(_stem(inside), []).append(index)
        if len(inside.parts) > 1:
            bare.setdefault(_stem(PurePath(mask.name)), []).append(index)
    found = []
    for photo in photos:
        parts = PurePath(_stem(photo)).parts
        # 'images/left/0001' before 'left/0001' before '0001'
        keys = ["/".join(parts[start:]) for start in range(len(parts))]
        match = next((below[key] for key in keys if key in below), None)
        found.append(match or bare.get(parts[-1], []))
    return found, EQUAL


def _around(photos: Sequence[Path], masks: Sequence[Path]) -> list[Rule]:
    """Rules of names that are the other name with a beginning and an end of its own; the most frequent few."""
    ours, theirs = [_stem(PurePath(p.name)) for p in photos], [_stem(PurePath(p.name)) for p in masks]
    rules = []
    for longer_is_mask in (True, False):
        frames: Counter[tuple[str, str]] = Counter()
        for mask in theirs:
            for photo in ours:
                long, short = (mask, photo) if longer_is_mask else (photo, mask)
                at = long.find(short) if short and long != short else -1
                if at >= 0:
                    frames[long[:at], long[at + len(short) :]] += 1
        for (start, end), _ in frames.most_common(3):
            whose = "the masks" if longer_is_mask else "the photos"
            words = f"by name, {whose}' with {_quoted(start, end)}"
            if longer_is_mask:
                rules.append((_lookup([f"{start}{name}{end}" for name in ours], theirs), words))
            else:
                bare = [name[len(start) : len(name) - len(end)] if _has(name, start, end) else "" for name in ours]
                rules.append((_lookup(bare, theirs), words))
    return rules


def _cores(photos: Sequence[Path], masks: Sequence[Path]) -> list[Rule]:
    """The rule that what all photos' names and what all masks' names have in common does not count."""
    ours, theirs = [_stem(PurePath(p.name)) for p in photos], [_stem(PurePath(p.name)) for p in masks]
    if len(ours) < 2 or len(theirs) < 2:
        return []
    (our_start, our_end), (their_start, their_end) = _common(ours), _common(theirs)
    bare = [name[len(our_start) : len(name) - len(our_end)] for name in ours]
    files = _lookup([f"{their_start}{name}{their_end}" for name in bare], theirs)
    words = (
        f"by name, the photos' with {_quoted(our_start, our_end)}, the masks' with {_quoted(their_start, their_end)}"
    )
    return [(files, words)]


def _common(names: Sequence[str]) -> tuple[str, str]:
    """What all names start with and end with, digits that touch the rest not counted."""
    start = _beginning(names)
    end = _beginning([name[len(start) :][::-1] for name in names])[::-1]
    return start, end


def _beginning(names: Sequence[str]) -> str:
    """What all names start with, without digits at its end."""
    first, last = min(names), max(names)
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return re.sub(r"\d+$", "", first[:same])


def _lookup(names: Sequence[str], theirs: Sequence[str]) -> list[list[int]]:
    """Of each name the places where it stands among theirs; none of an empty name."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(theirs):
        places.setdefault(name, []).append(index)
    return [places.get(name, []) if name else [] for name in names]


def _has(name: str, start: str, end: str) -> bool:
    return len(name) > len(start) + len(end) and name.startswith(start) and name.endswith(end)


def _quoted(start: str, end: str) -> str:
    parts = [f"'{start}' in front" if start else "", f"'{end}' behind" if end else ""]
    return " and ".join(part for part in parts if part) or "nothing added"
