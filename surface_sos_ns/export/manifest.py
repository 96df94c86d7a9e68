"""The manifest in an export's folder: of which run and settings its files are, and which are still to be replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surface_sos_ns.export.error import ExportError
from surface_sos_ns.utils.files import write_json

__all__ = ["COMMON", "MANIFEST", "Identity", "Manifest"]

MANIFEST = "export.json"
COMMON, REPLACED = "all", "to be replaced"

Identity = dict[str, dict[str, Any]]
"""Settings by section: those of all files under `COMMON`, those of each kind under its name."""


class Manifest:
    """Which run and settings the files in a folder are of, and which files have to be written.

    Files of an older export are replaced one by one, so that there always is the old one or the new one. Until all are,
    the manifest lists the old ones with their size and the time they were written.
    """

    def __init__(self, folder: Path, identity: Identity, old: dict[str, list[int]]) -> None:
        self._folder, self._identity, self._old = folder, identity, old

    @classmethod
    def of(
        cls, folder: Path, wanted: Identity, targets: Sequence[tuple[Path, str | None]], overwrite: bool
    ) -> Manifest:
        """Makes sure that the files may be written, and writes down what they are of.

        Args:
            folder: of the export; exists.
            wanted: what is to be exported.
            targets: the files, and of which kind each is; None for those that follow from the others.
            overwrite: whether files of another export, or of anything else, may be replaced.

        Raises:
            ExportError: some are in the way.
        """
        known, old = _read(folder / MANIFEST, overwrite)
        goes_on = bool(old) and all(known.get(section) == settings for section, settings in wanted.items())
        if overwrite and not goes_on:
            old = {path.relative_to(folder).as_posix(): _stamp(path) for path, _ in targets if path.is_file()}
            known = known if known.get(COMMON) == wanted[COMMON] else {}
        else:
            _check(folder, known, wanted, targets)
        manifest = cls(folder, known | wanted, old)
        manifest._write()
        return manifest

    def lacks(self, path: Path) -> bool:
        """Whether a file is to be written: it is not there, or is the old one."""
        return not path.is_file() or self._old.get(path.relative_to(self._folder).as_posix()) == _stamp(path)

    def finish(self) -> None:
        """To be called when all files are written: no old one is left."""
        self._old = {}
        self._write()

    def _write(self) -> None:
        write_json(self._folder / MANIFEST, self._identity | ({REPLACED: self._old} if self._old else {}))


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _read(path: Path, overwrite: bool) -> tuple[Identity, dict[str, list[int]]]:
    """Content of a manifest, and the files that are still to be replaced."""
    try:
        known = json.loads(path.read_bytes())
        old = known.pop(REPLACED, {})
        if not all(isinstance(part, dict) for part in (old, *known.values())):
            raise TypeError("expected objects in an object")
        return known, old
    except FileNotFoundError:
        return {}, {}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        if overwrite:
            return {}, {}
        raise ExportError(f"{path} cannot be read ({error}). Replace the export with --overwrite.") from error


def _check(folder: Path, known: Identity, wanted: Identity, targets: Sequence[tuple[Path, str | None]]) -> None:
    """Refuses to add to a folder what does not belong to the rest of it."""
    for section in sorted(set(known) & set(wanted)):
        for key, value in wanted[section].items():
            if known[section].get(key) != value:
                raise ExportError(
                    f"{folder} holds an export with {key} {known[section].get(key)}, this one is with {value}. Choose "
                    "another --output-dir, or replace it with --overwrite."
                )
    strange = next((path for path, kind in targets if (kind or COMMON) not in known and path.exists()), None)
    if strange is not None:
        raise ExportError(
            f"{strange} exists and is of no export that {folder / MANIFEST} knows of. Choose another --output-dir, or "
            "replace it with --overwrite."
        )
