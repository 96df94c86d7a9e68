"""Which mask file is which photo's: by name, by what all names have in front or behind, or by order."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.capture.names import folded, is_image, listed, match_files, match_problem, natural_order
from surface_sos_ns.masks.provider import MaskError

__all__ = ["Matches", "by_name", "by_order"]

MAX_COMPARED = 200
"""Mask files, at most, whose names are compared with those of all photos to find common prefixes and suffixes."""


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


def by_name(files: Sequence[Path], masks: Sequence[str], source: Path) -> Matches:
    """The mask files whose names are the photos', or differ from them by the same beginning and end everywhere.

    Args:
        files: of the N photos.
        masks: M paths relative to `source`.
        source: the folder of masks, for messages.

    Raises:
        MaskError: no rule matches any photo, two rules match equally many, or files and photos do not belong together
            one to one.
    """
    photos = [path.as_posix() for path in files]
    rules = [(match_files(photos, masks, anywhere=True), EQUAL)]
    if not all(rules[0][0]):
        for renamed, words in (*_around(photos, masks), *_cores(photos, masks)):
            rules.append((match_files(renamed, masks, anywhere=True), words))
    most = max(_count(rule[0]) for rule in rules)
    if most == 0:
        names = [posixpath.basename(photo) for photo in photos]
        raise MaskError(
            f"No file in {source} has the name of a photo: the photos are {listed(names, 3)}, the files "
            f"{listed(masks, 3)}. Rename them, or take them in sorted order with --by-order."
        )
    (found, how), *others = [rule for rule in rules if _count(rule[0]) == most]
    if how != EQUAL and 2 * most < min(len(photos), len(masks)):
        raise MaskError(
            f"Only {most} of {len(masks)} files in {source} have the name of a photo ({how}). Rename them as the "
            "photos, or take them in sorted order with --by-order."
        )
    for other, words in others:
        if other != found and how != EQUAL:
            raise MaskError(
                f"The names of the files in {source} can be read in two ways: {how}, or {words}. Leave the masks of "
                "one object in the folder, named as the photos."
            )
    unclear = match_problem(found, photos, masks, source)
    if unclear:
        raise MaskError(unclear)
    return Matches([indices[0] if indices else None for indices in found], how)


EQUAL = "by name"
Rule = tuple[list[str], str]
"""Photos' paths as their masks would be called, and the rule in words."""
NO_NAME = "\0"
"""Of a photo that a rule does not fit: no file is called so."""


def _count(found: Sequence[Sequence[int]]) -> int:
    return sum(map(bool, found))


def _bare(path: str) -> str:
    """A file's name without suffix, nor the photo's suffix before it, in lower case."""
    stem = posixpath.splitext(posixpath.basename(path))[0]
    return folded(posixpath.splitext(stem)[0] if is_image(stem) else stem)


def _renamed(photos: Sequence[str], rename: Callable[[str], str]) -> list[str]:
    """Photos' paths with other names in the same folders."""
    return [posixpath.join(posixpath.dirname(photo), f"{rename(_bare(photo)) or NO_NAME}.png") for photo in photos]


def _around(photos: Sequence[str], masks: Sequence[str]) -> list[Rule]:
    """Rules of names that are the other name with a beginning and an end of its own; the most frequent few."""
    ours, theirs = [_bare(path) for path in photos], [_bare(path) for path in masks]
    some = theirs[:: max(1, len(theirs) // MAX_COMPARED)]
    rules = []
    for longer_is_mask in (True, False):
        frames: Counter[tuple[str, str]] = Counter()
        for mask in some:
            for photo in ours:
                long, short = (mask, photo) if longer_is_mask else (photo, mask)
                at = long.find(short) if short and long != short else -1
                if at >= 0:
                    frames[long[:at], long[at + len(short) :]] += 1
        for (start, end), _ in frames.most_common(3):
            if longer_is_mask:
                names = _renamed(photos, lambda name: f"{start}{name}{end}")  # noqa: B023  # called here
            else:
                names = _renamed(photos, lambda name: _inside(name, start, end))  # noqa: B023  # called here
            whose = "the masks" if longer_is_mask else "the photos"
            rules.append((names, f"by name, {whose}' with {_quoted(start, end)}"))
    return rules


def _cores(photos: Sequence[str], masks: Sequence[str]) -> list[Rule]:
    """The rule that ignores the beginning and end common to all photos' names, and those common to all masks' names."""
    ours, theirs = [_bare(path) for path in photos], [_bare(path) for path in masks]
    if len(ours) < 2 or len(theirs) < 2:
        return []
    (our_start, our_end), (their_start, their_end) = _common(ours), _common(theirs)
    names = _renamed(photos, lambda name: f"{their_start}{name[len(our_start) : len(name) - len(our_end)]}{their_end}")
    words = (
        f"by name, the photos' with {_quoted(our_start, our_end)}, the masks' with {_quoted(their_start, their_end)}"
    )
    return [(names, words)]


def _common(names: Sequence[str]) -> tuple[str, str]:
    """What all names start with and end with, digits that touch the rest not counted."""
    start = _beginning(names)
    end = _beginning([name[len(start) :][::-1] for name in names])[::-1]
    return start, end


def _beginning(names: Sequence[str]) -> str:
    """What all names start with, without digits at its end."""
    return re.sub(r"\d+$", "", posixpath.commonprefix(names))


def _inside(name: str, start: str, end: str) -> str:
    """What a name has between a beginning and an end, '' if it has not both."""
    fits = len(name) > len(start) + len(end) and name.startswith(start) and name.endswith(end)
    return name[len(start) : len(name) - len(end)] if fits else ""


def _quoted(start: str, end: str) -> str:
    parts = [f"'{start}' in front" if start else "", f"'{end}' behind" if end else ""]
    return " and ".join(part for part in parts if part) or "nothing added"
