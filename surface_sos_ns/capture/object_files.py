"""Coarse masks of several objects: which file is whose, how many objects they show, and what is wrong with them.

A photo's coarse mask is one file (the mask of one object, or an identity image), or a mask for each object by its name.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.identity_files import identity_counts, read_identities
from surface_sos_ns.capture.lookup import files_by_name, image_files
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.names import folded, listed, match_files, natural_order
from surface_sos_ns.capture.object_names import MAX_OBJECTS, check_object_names, default_object_names
from surface_sos_ns.utils.image_io import Size, resized
from surface_sos_ns.utils.overlap import intersection_over_union

__all__ = [
    "KIND",
    "CoarseFile",
    "check_different",
    "check_shown",
    "check_true_identities",
    "count_identities",
    "few_photos_remark",
    "files_by_object",
    "identities_of",
    "known_identities",
    "name_objects",
    "read_coarse_mask",
    "single_files",
]

KIND = "objects"
"""What identity images show, for messages."""
FEWEST_PHOTOS = 5
"""Photos of an object below which a remark says that its shape cannot be told."""
LOOKED_AT = 16
"""Files that are looked at first to tell whether there are identities in them, and to compare masks by name."""
SAME_THING = 0.8
"""IoU of the masks of two names above which they are of one thing."""

CoarseFile = Path | dict[str, Path]
"""A photo's coarse mask: one file, or one for each object that the photo shows, by name."""


# ------------------------------------------------------------------------------------------------- which file is whose


def files_by_object(folder: Path, photos: Sequence[str], names: Sequence[str]) -> list[CoarseFile | None] | None:
    """The masks in a folder that has one folder for each object: `coarse_masks/cup/0001.png`.

    A folder is an object's only if its files would not be the photos' otherwise: `coarse_masks/left/0001.png` is the
    mask of `images/left/0001.jpg`. In an object's folder, files are matched as in a folder without objects.

    Args:
        folder: with or without folders of objects; need not exist.
        photos: N paths; see `names.photo_paths`.
        names: of the objects, as the capture says; empty if it does not.

    Returns:
        For each photo its masks, or None; None in place of the list if no folder is an object's.

    Raises:
        CaptureError: a folder's name cannot be an object's, or its files do not belong to the photos one to one.
    """
    files = image_files(folder)
    matched = {index for found in match_files(photos, files) for index in found}
    theirs = {files[index].split("/")[0] for index in matched}
    inside = sorted({file.split("/")[0] for file in files if "/" in file} - theirs)
    if names:
        by_name = {folded(place): place for place in inside}
        places = {name: by_name[folded(name)] for name in names if folded(name) in by_name}
    else:
        places = {} if matched else {inside[index]: inside[index] for index in natural_order(inside)}
        if not any(any(match_files(photos, image_files(folder / place))) for place in places.values()):
            return None
        check_object_names(list(places), f"The folder {listed([folder])}")
    if not places:
        return None
    found: list[dict[str, Path]] = [{} for _ in photos]
    for name, place in places.items():
        for masks, path in zip(found, files_by_name(folder / place, photos), strict=True):
            if path is not None:
                masks[name] = path
    return [masks or None for masks in found]


def single_files(files: Iterable[CoarseFile | None]) -> list[Path]:
    """All files, one after the other."""
    return [
        path for file in files if file is not None for path in (file.values() if isinstance(file, dict) else (file,))
    ]


def name_objects(files: Sequence[CoarseFile | None], names: Sequence[str], source: Path) -> tuple[str, ...]:
    """Names of a capture's objects; empty if it has one object.

    Args:
        files: N coarse masks.
        names: as the capture says; empty if it does not. Then they are those of folders or mappings, else numbers up to
            the largest identity.
        source: transforms.json, for messages.

    Raises:
        CaptureError: a mask has a name that the capture does not have, or a name has no mask; or the masks hold
            identities, and cannot be read.
    """
    used = list(dict.fromkeys(name for file in files if isinstance(file, dict) for name in file))
    images = [file for file in files if isinstance(file, Path)]
    if used and not names:
        names = check_object_names(used, f"{source} (coarse_mask_path)")
    unknown = [name for name in used if name not in names]
    if unknown:
        raise CaptureError(
            f"{source}: coarse masks are given for {listed(unknown)}, which are none of the objects "
            f"({listed(names, MAX_OBJECTS)}). Correct the names, or add them to object_names."
        )
    without = [name for name in names if name not in used]
    if used and without and not images:
        raise CaptureError(
            f"{source}: no photo has a coarse mask of {listed(without)}. Add masks, or take the names out of "
            "object_names."
        )
    largest = 0 if used or len(names) > 1 else largest_identity(images)
    if largest and names:
        raise CaptureError(
            f"{source} names one object ({names[0]}) under object_names, and the coarse masks hold identities up to "
            f"{largest}. Name all of these objects, the first that of identity 1."
        )
    names = names or default_object_names(largest)
    return tuple(names) if len(names) > 1 else ()


def largest_identity(paths: Sequence[Path]) -> int:
    """The number of objects whose identities files hold; 0 if the files are masks of one object.

    Identities are in lossless files of one channel, without opacities, that hold 0 and numbers up to `MAX_OBJECTS`
    only; together these hold two numbers over 0 or more. If some files look so and others like masks, the majority
    counts.

    Raises:
        ImageError: a file cannot be read as an image.
    """
    counts = {index: identity_counts(paths[index], MAX_OBJECTS) for index in _spread(len(paths))}
    if None in counts.values() and not any(found and max(found) > 1 for found in counts.values()):
        return 0
    counts |= {index: identity_counts(path, MAX_OBJECTS) for index, path in enumerate(paths) if index not in counts}
    numbers = {number for found in counts.values() for number in found or ()}
    coded = sum(bool(found) and max(found) > 1 for found in counts.values())  # type: ignore[arg-type]
    plain = sum(found is None for found in counts.values())
    return max(numbers) if len(numbers) > 1 and coded > plain else 0


def _spread(count: int) -> list[int]:
    """A few indices spread over ``range(count)``."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int)).tolist()


# ------------------------------------------------------------------------------------------------------------- reading


def read_coarse_mask(file: CoarseFile, names: Sequence[str], size: Size) -> tuple[np.ndarray, np.ndarray | None]:
    """A photo's coarse mask, and which object each of its pixels belongs to.

    Args:
        file: of the photo.
        names: of the objects; empty for one object.
        size: width and height of the view, pixels.

    Returns:
        The mask of all objects (H, W) float32 in [0, 1]; identities (H, W) uint8, 0 for none, None for one object.

    Raises:
        ImageError: a file cannot be read as a mask.
        CaptureError: an identity image cannot be read, or holds an identity that there is not.
    """
    if names and isinstance(file, Path):
        identities = read_identities(file, size, KIND, len(names), known_identities(names))
        return (identities > 0).astype(np.float32), identities.astype(np.uint8)
    masks = {name: resized(read_mask(path, size), *size) for name, path in _named(file).items()}
    if names:
        return identities_of({names.index(name) + 1: mask for name, mask in masks.items()})
    return next(iter(masks.values())), None


def _named(file: CoarseFile) -> dict[str, Path]:
    return file if isinstance(file, dict) else {"": file}


def known_identities(names: Sequence[str]) -> str:
    """What the largest identity is and how that is known, for messages."""
    return f"{len(names)}, the number of objects ({listed(names, MAX_OBJECTS)})"


def identities_of(masks: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mask of all objects, and their identities, from a mask for each.

    Where masks overlap, a pixel belongs to the object with the largest value; of equals, to the object whose mask is
    smaller.

    Args:
        masks: (H, W) float in [0, 1] by identity, one or more.

    Returns:
        The largest value at each pixel (H, W) float32, and the identity (H, W) uint8, 0 where all values are 0.
    """
    ordered = sorted(masks, key=lambda identity: float(masks[identity].sum()))
    mask = np.zeros(masks[ordered[0]].shape, np.float32)
    identities = np.zeros(mask.shape, np.uint8)
    for identity in ordered:
        more = masks[identity] > mask
        identities[more] = identity
        mask = np.where(more, masks[identity], mask)
    return mask, identities


# -------------------------------------------------------------------------------------------------------------- checks


def count_identities(files: Iterable[CoarseFile | None]) -> dict[int, list[int]]:
    """Of each identity that identity images hold, the pixels in each image that shows it; others are left out.

    Raises:
        CaptureError: a file cannot hold identities.
    """
    found: dict[int, list[int]] = {}
    for path in files:
        if isinstance(path, Path):
            for identity, pixels in (identity_counts(path, MAX_OBJECTS, KIND) or {}).items():
                found.setdefault(identity, []).append(pixels)
    return dict(sorted(found.items()))


def check_shown(files: Sequence[CoarseFile | None], names: Sequence[str], named: bool, source: Path) -> Counter[str]:
    """Checks that coarse masks show the objects that there are, each in two photos or more.

    Args:
        files: N coarse masks.
        names: of the objects, more than one.
        named: whether these are names that the user gave. Numbers that stand for objects may be a detector's, which
            differ between photos until they are matched; how many photos show them means nothing before.
        source: transforms.json, for messages.

    Returns:
        In how many photos each object is.

    Raises:
        CaptureError: identity images cannot be read as such, or hold identities that have no name; or no two photos
            show a named object; or no photo shows a number's.
    """
    counts = count_identities(files)
    unknown = {identity: pixels for identity, pixels in counts.items() if identity > len(names)}
    if unknown:
        found = [f"{identity} ({len(pixels)} photos, {sum(pixels)} pixels)" for identity, pixels in unknown.items()]
        raise CaptureError(
            f"{source}: coarse masks hold identities that no object has: {listed(found)}; expected 0 for the "
            f"background, and 1 to {known_identities(names)}. Name these objects under object_names, or set their "
            "pixels to 0."
        )
    shown = Counter(dict.fromkeys(names, 0))
    shown.update({names[identity - 1]: len(pixels) for identity, pixels in counts.items()})
    shown.update(name for file in files if isinstance(file, dict) for name in file)
    lone = [f"{name} ({shown[name]} photos)" for name in names if shown[name] < (2 if named else 1)]
    if lone and named:
        raise CaptureError(
            f"{source}: fewer than two photos have a coarse mask of {listed(lone)}; an object is placed in space by "
            "two or more. Add masks, or take the names out of object_names and the numbers out of the masks."
        )
    if lone:
        raise CaptureError(
            f"{source}: coarse masks hold identities up to {len(names)}, and none holds those of {listed(lone)}. "
            "Number the objects without gaps, or name them under object_names."
        )
    return shown


def check_different(files: Sequence[CoarseFile | None], source: Path) -> None:
    """Checks that masks given by name are of different things, in some of the photos.

    Raises:
        CaptureError: the masks of two names cover the same pixels in most photos.
        ImageError: a file cannot be read as a mask.
    """
    named = [file for file in files if isinstance(file, dict) and len(file) > 1]
    overlaps: dict[tuple[str, str], list[float]] = {}
    for index in _spread(len(named)):
        masks = {name: read_mask(path) >= 0.5 for name, path in named[index].items()}
        for first, second in itertools.combinations(masks, 2):
            if masks[first].shape == masks[second].shape and masks[first].any() and masks[second].any():
                overlap = intersection_over_union(masks[first], masks[second])
                overlaps.setdefault((first, second), []).append(overlap)
    for (first, second), found in overlaps.items():
        if len(found) > 1 and np.median(found) > SAME_THING:
            raise CaptureError(
                f"{source}: the coarse masks of {first} and {second} are of one thing: they cover the same pixels "
                f"(IoU {np.median(found):.2f}). Take one of the two away."
            )


def check_true_identities(files: Sequence[Path | None], names: Sequence[str]) -> None:
    """Checks that true identity images hold no others than those of the objects with these names; () for unknown names.

    Raises:
        CaptureError: they do, or cannot be read.
    """
    highest = len(names) or MAX_OBJECTS
    more = {identity: len(pixels) for identity, pixels in count_identities(files).items() if identity > highest}
    if more:
        first = next(path for path in files if path is not None)
        found = [f"{identity} ({photos} photos)" for identity, photos in more.items()]
        raise CaptureError(
            f"The true identities in {first.parent} are of other objects than the coarse masks: they hold "
            f"{listed(found)}; expected 0 for the background, and 1 to "
            + (known_identities(names) if names else str(MAX_OBJECTS))
            + ". Name all objects under object_names in transforms.json, or set their pixels to 0."
        )


def few_photos_remark(shown: Counter[str]) -> str | None:
    """A remark about objects in few photos (`check_shown`); None if there are none."""
    few = [f"{name} ({count})" for name, count in shown.items() if count < FEWEST_PHOTOS]
    if not few:
        return None
    return (
        f"few photos have a coarse mask of {listed(few)}; the shape of what is in fewer than {FEWEST_PHOTOS} cannot be "
        "told. If these masks are mistakes, set their pixels to 0."
    )
