"""The scene's folder while it is being made: begun, gone on with, or refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from surface_sos_ns.process.error import ProcessError

__all__ = ["begin"]

IN_USE = "Wait until it is done, or name another --output."

SETTINGS = Path("colmap/settings.json")
"""What a scene was begun with; tells a scene in the making from folders that are something else."""


def begin(output: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder, or finds one that was begun with the same settings; keeps other processes from writing to it.

    Args:
        output: the scene's folder.
        settings: what images and features depend on, as JSON gives it back.
        overwrite: renames what is there and begins anew.

    Raises:
        ProcessError: there is a finished scene, one begun with other settings, or something else.
        InUseError: another process is making it.
        WriteError: it cannot be written.
    """
    from surface_sos_ns.utils.files import remove_leftovers, write_json, writing
    from surface_sos_ns.utils.locks import lock_folder, unlock_folder

    known = output / SETTINGS
    if output.is_dir():
        lock_folder(output, IN_USE)
        remove_leftovers(output)
        remove_leftovers(known.parent)
    if output.exists() and not _is_empty(output):
        if overwrite:
            aside = _free_name(output)
            os.rename(output, aside)
            unlock_folder(output)
            print(f"{output} existed; it is {aside} now.", file=sys.stderr)
        elif (output / "transforms.json").exists():
            raise ProcessError(f"{output} has a scene already. Name another folder, or --overwrite to begin anew.")
        elif not known.is_file():
            raise ProcessError(f"{output} exists and is not empty. Name another folder, or --overwrite to begin anew.")
        elif _settings(known) != settings:
            raise ProcessError(
                f"{output} was begun with other photos or settings ({known}). Give the same again to go on, or "
                "--overwrite to begin anew."
            )
        else:
            print(f"Going on with {output}.", file=sys.stderr)
            return
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    lock_folder(output, IN_USE)
    write_json(known, settings)


def _settings(known: Path) -> Any:
    """What a scene was begun with.

    Raises:
        ProcessError: the file is damaged.
    """
    try:
        return json.loads(known.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ProcessError(f"{known} cannot be read ({error}). Begin anew with --overwrite.") from error


def _is_empty(path: Path) -> bool:
    """Whether a folder has no files, in its subfolders neither. A start that was killed may leave such ones."""
    return path.is_dir() and all(inner.is_dir() for inner in path.rglob("*"))


def _free_name(folder: Path) -> Path:
    """A name beside a folder that nothing has."""
    folder = folder.resolve()
    number = 1
    while (aside := folder.with_name(f"{folder.name}_old{number}")).exists():
        number += 1
    return aside
