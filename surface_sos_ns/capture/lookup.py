"""Files of a capture on the disk: listed without hidden ones, and found where transforms.json spells them otherwise."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import (
    clash,
    folded,
    hidden,
    is_image,
    listed,
    match_files,
    normal_form,
    similar_names,
)

__all__ = ["FileFinder", "files_by_name", "image_files", "smaller_copy", "visible_files"]


def visible_files(folder: Path) -> list[str]:
    """The user's own files below a folder, linked folders included: sorted paths relative to it, with slashes.

    See `names.hidden` for those that are left out. A folder that does not exist has none.

    Raises:
        CaptureError: a folder cannot be read.
    """
    return sorted(_files(folder, "", ())) if os.path.isdir(folder) else []


def _files(folder: Path, inside: str, above: tuple[str, ...]) -> Iterator[str]:
    place = os.path.join(folder, inside)
    real = os.path.realpath(place)
    if real in above:  # a link that leads back
        return
    try:
        entries = [entry for entry in os.scandir(place) if not hidden(entry.name)]
    except OSError as error:
        raise CaptureError(
            f"The folder {listed([place])} cannot be read ({error.strerror}). Make it readable, or take it away."
        ) from error
    for entry in entries:
        path = posixpath.join(inside, entry.name)
        if entry.is_dir():
            yield from _files(folder, path, (*above, real))
        elif entry.is_file():
            yield path


def image_files(folder: Path) -> list[str]:
    """The image files among `visible_files`."""
    return [path for path in visible_files(folder) if is_image(path)]


def files_by_name(folder: Path, photos: Sequence[str], given: Sequence[Path | None] = ()) -> list[Path | None]:
    """Of each photo its file in a folder (masks, clean plates), by their names; see `names.match_files`.

    Args:
        folder: is searched with its subfolders; need not exist.
        photos: N paths; see `names.photo_paths`.
        given: of each photo the file that transforms.json names, or None. Such a file is that photo's alone.

    Returns:
        N files, those given among them, or None.

    Raises:
        CaptureError: photos and files do not belong together one to one, or there are images and none is a photo's.
    """
    found = list(given) or [None] * len(photos)
    named = {os.path.abspath(path) for path in found if path is not None}
    files = [file for file in image_files(folder) if os.path.abspath(folder / file) not in named]
    without = [index for index, path in enumerate(found) if path is None]
    matches = match_files([photos[index] for index in without], files)
    unclear = clash(matches, [photos[index] for index in without], files, folder)
    if unclear:
        raise CaptureError(unclear)
    for index, match in zip(without, matches, strict=True):
        if match:
            found[index] = folder / files[match[0]]
    if files and not any(found):
        example = Path(photos[0]).with_suffix(".png").name
        raise CaptureError(
            f"No file in {listed([folder])} belongs to a photo: expected the photos' names, such as "
            f"{listed([example])}, found {listed(files, 3)}. Rename the files, or take them away."
        )
    return found


def smaller_copy(path: Path, capture: Path, factor: int) -> Path:
    """The copy of a mask or clean plate at 1/factor of its size, where the capture has one; else the file itself.

    It is in a folder whose name has the factor behind: `coarse_masks_4/left/1.png` of `coarse_masks/left/1.png`.
    """
    folders = [folder for folder in path.parents if capture in folder.parents] or [path.parent]
    for folder in reversed(folders):
        copy = folder.with_name(f"{folder.name}_{factor}") / path.relative_to(folder)
        if copy.is_file():
            return copy
    return path


class FileFinder:
    """Finds the files that a capture's transforms.json names, as they are spelt on the disk.

    Every folder is read at most once.

    Args:
        folder: what relative paths are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[tuple[str, Callable[[str], str]], dict[str, list[str]]] = {}
        self._backslashes: list[tuple[str, str]] = []
        self._other_case: list[tuple[str, str]] = []

    def find(self, written: str) -> str | None:
        """The path of a file, spelt as on the disk.

        It is the written one where that exists. Otherwise it may differ in Unicode's normal form, then in Windows'
        separators, then in upper case, if only one file fits.

        Args:
            written: relative to the folder, or absolute.

        Returns:
            A path relative to the folder, or absolute as the written one was. None if there is no such file, or several
            fit.
        """
        if os.path.isfile(self._folder / written):
            return written
        slashed = written.replace("\\", "/")
        for spelling, path in ((normal_form, written), (normal_form, slashed), (folded, written), (folded, slashed)):
            fitting = [found for found in self._spelt_so(path, spelling) if os.path.isfile(self._folder / found)]
            if len(fitting) == 1:
                if path != written:
                    self._backslashes.append((written, fitting[0]))
                if spelling is folded:
                    self._other_case.append((written, fitting[0]))
                return fitting[0]
            if fitting:
                return None
        return None

    def find_all(self, written: Sequence[str], kind: str, distinct: bool = False) -> list[str]:
        """The paths of files that all have to be there; see `find`.

        Args:
            written: relative to the folder, or absolute.
            kind: what they are, for messages, such as "photos (file_path)".
            distinct: whether each has to be another file.

        Raises:
            CaptureError: files do not exist (says which files with similar names do), or two paths are of one file.
        """
        found = [self.find(path) for path in written]
        missing = [path for path, there in zip(written, found, strict=True) if there is None]
        if missing:
            similar = self.similar(missing[0])
            raise CaptureError(
                f"{len(missing)} of {len(written)} {kind} do not exist in {listed([self._folder])}: {listed(missing)}. "
                + (f"There is {listed(similar, 3)}. " if similar else "")
                + "Copy the files there, or correct the paths in transforms.json."
            )
        paths = [path for path in found if path is not None]
        if distinct:
            first: dict[str, str] = {}
            for path, file in zip(written, paths, strict=True):
                place = os.path.abspath(self._folder / file)
                if place in first:
                    raise CaptureError(
                        f"{listed([first[place]])} and {listed([path])} among the {kind} are one file, "
                        f"{listed([self._folder / file])}. Each may be named once; remove one of the frames."
                    )
                first[place] = path
        return paths

    def similar(self, written: str, most: int = 3) -> list[str]:
        """Files whose names resemble one that is not there, the most similar first.

        They are looked for beside it, or among all images of the capture if its folder does not exist either.
        """
        parent = Path(written.replace("\\", "/")).parent
        if os.path.isdir(self._folder / parent):
            beside = [(parent / name).as_posix() for name in os.listdir(self._folder / parent) if not hidden(name)]
            return similar_names(written, [path for path in beside if os.path.isfile(self._folder / path)], most)
        return similar_names(written, image_files(self._folder), most)

    @property
    def remarks(self) -> list[str]:
        """What is to be said about the paths so far: one sentence for each way in which they differ from the files."""
        kinds = (
            (self._backslashes, "have backslashes, as on Windows"),
            (self._other_case, "differ from the files' names in upper and lower case"),
        )
        said = []
        for pairs, words in kinds:
            if pairs:
                written, found = (listed([path]) for path in pairs[0])
                said.append(f"{len(pairs)} paths in transforms.json {words}: {written} is read as {found}.")
        return said

    def _spelt_so(self, path: str, spelling: Callable[[str], str]) -> list[str]:
        """Paths on the disk that are equal in a spelling, whatever they lead to."""
        start, *parts = Path(path).parts if os.path.isabs(path) else ("", *Path(path).parts)
        places = [start]
        for part in parts:
            wanted = spelling(part)
            places = [
                os.path.join(place, name)
                for place in places
                for name in self._named(place, spelling).get(wanted) or self._if_there(place, part)
            ]
        return places

    def _if_there(self, place: str, part: str) -> list[str]:
        """The part of a path as it is written: '..', or what is in a folder whose names may not be read."""
        return [part] if os.path.lexists(os.path.join(self._folder, place, part)) else []

    def _named(self, place: str, spelling: Callable[[str], str]) -> dict[str, list[str]]:
        """What there is in a folder, by names in a spelling."""
        if (place, spelling) not in self._entries:
            entries: dict[str, list[str]] = defaultdict(list)
            try:
                for name in os.listdir(self._folder / place):
                    entries[spelling(name)].append(name)
            except (OSError, ValueError):  # no folder, one that may not be read, or no name that a folder can have
                pass
            self._entries[place, spelling] = entries
        return self._entries[place, spelling]
