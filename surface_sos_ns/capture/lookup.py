"""Files on the disk: listing a folder, matching files to photos, and finding files whose path is spelt differently."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import (
    folded,
    hidden,
    is_image,
    listed,
    match_files,
    match_problem,
    normal_form,
    similar_names,
)

__all__ = ["FileFinder", "downscaled_copy", "files_by_name", "image_files", "visible_files"]


def visible_files(folder: Path) -> list[str]:
    """Files below a folder, including linked folders: sorted POSIX paths relative to it.

    Hidden files are left out, see `names.hidden`. A folder that does not exist has none.

    Raises:
        CaptureError: a folder cannot be read.
    """
    return sorted(_files(folder, "", ())) if os.path.isdir(folder) else []


def _files(folder: Path, inside: str, above: tuple[str, ...]) -> Iterator[str]:
    place = os.path.join(folder, inside)
    real = os.path.realpath(place)
    if real in above:  # a link to a parent folder
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
    """The file of each photo in a folder (masks, clean plates), matched by name; see `names.match_files`.

    Args:
        folder: searched with its subfolders; need not exist.
        photos: N paths; see `names.photo_paths`.
        given: for each photo the file that transforms.json names, or None. Such files are not matched to other photos.

    Returns:
        N files, the given ones included, or None where a photo has none.

    Raises:
        CaptureError: the match is not one to one, or there are images and none matches a photo.
    """
    found = list(given) or [None] * len(photos)
    taken = {os.path.abspath(path) for path in found if path is not None}
    files = [file for file in image_files(folder) if os.path.abspath(folder / file) not in taken]
    without = [index for index, path in enumerate(found) if path is None]
    matches = match_files([photos[index] for index in without], files)
    problem = match_problem(matches, [photos[index] for index in without], files, folder)
    if problem:
        raise CaptureError(problem)
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


def downscaled_copy(path: Path, capture: Path, factor: int) -> Path:
    """The downscaled copy of a mask or clean plate if the capture has one, else the file itself.

    Copies are in folders with the factor as a suffix: `coarse_masks_4/left/1.png` for `coarse_masks/left/1.png`.

    Args:
        path: the file.
        capture: folder of the capture.
        factor: of the downscaling.
    """
    folders = [folder for folder in path.parents if capture in folder.parents] or [path.parent]
    for folder in reversed(folders):
        copy = folder.with_name(f"{folder.name}_{factor}") / path.relative_to(folder)
        if copy.is_file():
            return copy
    return path


class FileFinder:
    """Finds files whose paths in transforms.json are spelt differently from those on the disk.

    Each folder is listed at most once.

    Args:
        folder: base of relative paths.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[tuple[str, Callable[[str], str]], dict[str, list[str]]] = {}
        self._backslashes: list[tuple[str, str]] = []
        self._other_case: list[tuple[str, str]] = []

    def find(self, written: str) -> str | None:
        """The path of a file as on the disk.

        If no file has the written path, one is accepted that differs in Unicode normal form, then in path separators
        (Windows), then in letter case, provided that it is the only one.

        Args:
            written: relative to the folder, or absolute.

        Returns:
            The path, relative to the folder or absolute as written; None if no file, or more than one, matches.
        """
        if os.path.isfile(self._folder / written):
            return written
        slashed = written.replace("\\", "/")
        for spelling, path in ((normal_form, written), (normal_form, slashed), (folded, written), (folded, slashed)):
            fitting = [found for found in self._matching_paths(path, spelling) if os.path.isfile(self._folder / found)]
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
        """Paths of files that must exist; see `find`.

        Args:
            written: relative to the folder, or absolute.
            kind: what the files are called in messages, such as "photos (file_path)".
            distinct: whether no file may occur twice.

        Raises:
            CaptureError: a file does not exist (the message suggests files with similar names), or occurs twice.
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
        """Files with names similar to one that does not exist, the most similar first.

        They are searched in its folder, or among all images of the capture if that folder does not exist.
        """
        parent = Path(written.replace("\\", "/")).parent
        if os.path.isdir(self._folder / parent):
            beside = [(parent / name).as_posix() for name in os.listdir(self._folder / parent) if not hidden(name)]
            return similar_names(written, [path for path in beside if os.path.isfile(self._folder / path)], most)
        return similar_names(written, image_files(self._folder), most)

    @property
    def remarks(self) -> list[str]:
        """Sentences about the differences between written and real paths so far, one for each kind of difference."""
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

    def _matching_paths(self, path: str, spelling: Callable[[str], str]) -> list[str]:
        """Paths on the disk that equal ``path`` once both are normalised by ``spelling``, of files or folders."""
        start, *parts = Path(path).parts if os.path.isabs(path) else ("", *Path(path).parts)
        places = [start]
        for part in parts:
            wanted = spelling(part)
            places = [
                os.path.join(place, name)
                for place in places
                for name in self._entries_by_spelling(place, spelling).get(wanted) or self._written_part(place, part)
            ]
        return places

    def _written_part(self, place: str, part: str) -> list[str]:
        """A part of a path as written, if it exists: '..', or an entry of a folder that cannot be listed."""
        return [part] if os.path.lexists(os.path.join(self._folder, place, part)) else []

    def _entries_by_spelling(self, place: str, spelling: Callable[[str], str]) -> dict[str, list[str]]:
        """Names of a folder's entries, by their normalised spelling."""
        if (place, spelling) not in self._entries:
            entries: dict[str, list[str]] = defaultdict(list)
            try:
                for name in os.listdir(self._folder / place):
                    entries[spelling(name)].append(name)
            except (OSError, ValueError):  # not a folder, not readable, or not a valid name
                pass
            self._entries[place, spelling] = entries
        return self._entries[place, spelling]
