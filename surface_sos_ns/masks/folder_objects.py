"""Masks of several objects in a folder: identity images of any coding, or one folder of masks for each object.

An object is a whole number, an index into a palette, or a flat colour; the same one stands for the same object in all
files. Identities are given in the order of these numbers (a colour's is 65536 R + 256 G + B).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from surface_sos_ns.capture.mask_files import MAX_LABELS, label_indices
from surface_sos_ns.capture.names import folded, listed
from surface_sos_ns.capture.object_names import MAX_OBJECTS, check_object_names, default_object_names
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.utils.image_io import read_picture

__all__ = ["AnyObject", "ObjectLabels", "folders_of_objects", "number_objects", "read_object_labels"]

FEWEST_PIXELS = 25
"""Pixels of an object that a mask has to have to count, for whether the folder shows it at all."""
FEWEST_MASKS = 2
"""Masks that have to show an object."""


@dataclass(frozen=True)
class ObjectLabels:
    """What a file says about objects.

    Attributes:
        name: of the file, for messages.
        values: (H, W) uint8 indices into `labels`.
        labels: (L,) int64 numbers that stand for objects, sorted; 0 is the background.
        colours: (L, 3) uint8 RGB of the labels, where the file has a palette; None if the labels are all there is.
        coloured: whether labels are colours, 65536 R + 256 G + B.
    """

    name: str
    values: np.ndarray
    labels: np.ndarray
    colours: np.ndarray | None = None
    coloured: bool = False

    def counts(self) -> dict[int, int]:
        """Number of pixels of each label."""
        counts = np.bincount(self.values.ravel(), minlength=len(self.labels))
        return {int(label): int(count) for label, count in zip(self.labels, counts, strict=True)}


class AnyObject(Sequence[np.ndarray | None]):
    """Masks (h, w) float32 0/1 of all objects, made from identities when they are asked for."""

    def __init__(self, identities: Sequence[np.ndarray | None]) -> None:
        self._identities = identities

    def __len__(self) -> int:
        return len(self._identities)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return AnyObject(self._identities[index])
        identities = self._identities[index]
        return None if identities is None else (identities > 0).astype(np.float32)


def folders_of_objects(files: Sequence[str], photos: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Folders of a source that hold the masks of one object each: `cup/0001.png`, `lemon/0001.png`.

    Args:
        files: image files of the source, paths relative to it.
        photos: N files. A folder with the name of one of theirs is no object's: it holds the masks of those photos.
        names: of the objects, as the user said; empty if not.

    Returns:
        The folders in the order of the names; empty if files lie beside folders, or there is one folder only.

    Raises:
        MaskError: there are folders, and they are not those of the names.
        CaptureError: a folder's name cannot be an object's.
    """
    tops = sorted({file.split("/")[0] for file in files if "/" in file})
    if len(tops) < 2 or any("/" not in file for file in files):
        return []
    if {folded(top) for top in tops} & _folders(photos):
        return []
    if not names:
        return list(check_object_names(tops, "The source of the masks"))
    by_name = {folded(top): top for top in tops}
    unknown = [name for name in names if folded(name) not in by_name]
    if unknown:
        raise MaskError(
            f"--names: the source has no folder {listed(unknown)}; its folders are {listed(tops, MAX_OBJECTS)}."
        )
    return [by_name[folded(name)] for name in names]


def _folders(photos: Sequence[Path]) -> set[str]:
    """Names of the folders that photos lie in, from the one that holds them all."""
    parents = [photo.parent.parts for photo in photos]
    shared = 0
    while all(len(parts) > shared for parts in parents) and len({parts[shared] for parts in parents}) == 1:
        shared += 1
    return {folded(part) for parts in parents for part in parts[max(0, shared - 1) :]}


def read_object_labels(path: Path, name: str) -> ObjectLabels:
    """Reads a file that shows several objects.

    Args:
        path: the file.
        name: of it in messages.

    Raises:
        ImageError: it cannot be read as an image.
        MaskError: it holds shades, or is a photo.
    """
    picture = read_picture(path)
    values, indices = picture.values, picture.palette_indices
    colours, coloured = None, False
    if indices is not None:
        codes = indices.astype(np.int64)
    elif values.ndim == 2:
        codes = values
    else:
        grey = bool((values == values[..., :1]).all())
        coloured = not grey
        codes = values[..., 0] if grey else values.astype(np.int64) @ np.array([65536, 256, 1])
    whole = codes.dtype.kind in "iu" or bool((codes == np.rint(codes)).all())
    # A subsample first: np.unique is slow on large pictures.
    few = whole and not picture.lossy and len(np.unique(codes.ravel()[::101])) <= MAX_LABELS
    labels = np.unique(codes).astype(np.int64) if few else None
    if labels is None or len(labels) > MAX_LABELS or labels[0] < 0:
        raise MaskError(
            f"{path} shows no objects by numbers or flat colours: it has "
            + ("lossy compression" if picture.lossy else f"more than {MAX_LABELS} values")
            + ". Expected a PNG with a number or a colour for each object and black for the rest; leave --objects out "
            "if these are masks of one object."
        )
    if indices is not None:
        first = np.array([np.argmax(codes.ravel() == label) for label in labels])
        colours = values.reshape(-1, 3)[first]
    return ObjectLabels(name, label_indices(codes, labels), labels, colours, coloured)


def number_objects(
    files: Mapping[int, ObjectLabels], names: Sequence[str], count: int, source: PurePath
) -> tuple[dict[int, np.ndarray], tuple[str, ...], str]:
    """Identities 1 to K for what stands for objects in all files of a folder.

    Args:
        files: by any index.
        names: of the objects in the order of their numbers; empty for `object_1` and so on.
        count: of the objects, if the user said so; else 0.
        source: the folder, for messages.

    Returns:
        Identities (H, W) uint8 of each file, the objects' names, and a line that says which number or colour is which.

    Raises:
        MaskError: the files show one object or none, more than `MAX_OBJECTS`, another number than there are names, or
            one that is in fewer than two masks.
    """
    if _palettes_differ(files.values()):
        files = {index: _by_colour(file) for index, file in files.items()}
    pixels, masks = Counter[int](), Counter[int]()
    for file in files.values():
        for label, number in file.counts().items():
            pixels[label] += number
            masks[label] += number >= FEWEST_PIXELS
    labels = sorted(set(pixels) - {0})
    words = _label_words(files.values())
    if len(labels) <= 1:
        found = f"{words[labels[0]]} only" if labels else "no object"
        raise MaskError(f"{source} shows {found}; --objects is for several. Leave it out for masks of one object.")
    small = [f"{words[label]} ({pixels[label]} pixels)" for label in labels if masks[label] < FEWEST_MASKS]
    if small:
        raise MaskError(
            f"{source}: of {len(labels)} values, {len(small)} have {FEWEST_PIXELS} pixels in fewer than "
            f"{FEWEST_MASKS} masks: {listed(small)}. Numbers and colours have to be flat, without blended outlines, "
            "and the same for an object in all masks; set pixels that belong to no object to 0."
        )
    if len(labels) > MAX_OBJECTS:
        raise MaskError(f"{source} shows {len(labels)} objects; expected {MAX_OBJECTS} at most.")
    given = len(names) or count
    if given and given != len(labels):
        said = f"--names has {len(names)} names" if names else f"--objects says {count}"
        raise MaskError(
            f"{source} shows {len(labels)} objects ({listed([words[label] for label in labels], MAX_OBJECTS)}), and "
            f"{said}; expected one for each."
        )
    names = tuple(names) or default_object_names(len(labels))
    table = {label: identity for identity, label in enumerate(labels, start=1)}
    identities = {
        index: np.array([table.get(int(label), 0) for label in file.labels], np.uint8)[file.values]
        for index, file in files.items()
    }
    which = [f"{words[label]} is {name} ({masks[label]} masks)" for label, name in zip(labels, names, strict=True)]
    return identities, names, "objects: " + ", ".join(which)


def _palettes_differ(files: Collection[ObjectLabels]) -> bool:
    """Whether an index has different colours in two files: then the colours say which object it is."""
    seen: dict[int, bytes] = {}
    for file in files:
        if file.colours is not None:
            for label, colour in zip(file.labels.tolist(), file.colours, strict=True):
                if seen.setdefault(label, colour.tobytes()) != colour.tobytes():
                    return True
    return False


def _by_colour(file: ObjectLabels) -> ObjectLabels:
    """The file with colours in place of the indices of its palette."""
    if file.colours is None:
        return file
    codes = file.colours.astype(np.int64) @ np.array([65536, 256, 1])
    labels, place = np.unique(codes, return_inverse=True)
    return replace(file, values=place.astype(np.uint8)[file.values], labels=labels, colours=None, coloured=True)


def _label_words(files: Collection[ObjectLabels]) -> dict[int, str]:
    """Labels as text: `3`, `3 (#e67321)` with a palette, `#e67321` for colours."""
    words: dict[int, str] = {}
    for file in files:
        for position, label in enumerate(file.labels.tolist()):
            if file.coloured:
                words[label] = f"#{label:06x}"
            elif file.colours is not None:
                words[label] = f"{label} (#{''.join(f'{part:02x}' for part in file.colours[position].tolist())})"
            else:
                words.setdefault(label, str(label))
    return words
