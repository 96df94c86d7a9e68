"""The scene's folder while it is being made: begun, gone on with, or refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surface_sos_ns.process.error import ProcessError

__all__ = ["begin", "whole_folder"]

SETTINGS = Path("colmap/settings.json")
"""What a scene was begun with; tells a scene in the making from folders that are something else."""


def begin(output: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder, or finds one that was begun with the same settings.

    Args:
        output: the scene's folder.
        settings: what images and features depend on, as JSON gives it back.
        overwrite: renames what is there and begins anew.

    Raises:
        ProcessError: there is a finished scene, one begun with other settings, or something else.
    """
    from surface_sos_ns.files import write_json

    known = output / SETTINGS
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        if overwrite:
            aside = _free_name(output)
            os.rename(output, aside)
            print(f"{output} existed; it is {aside} now.", file=sys.stderr)
        elif (output / "transforms.json").exists():
            raise ProcessError(f"{output} has a scene already. Name another folder, or --overwrite to begin anew.")
        elif not known.is_file():
            raise ProcessError(f"{output} exists and is not empty. Name another folder, or --overwrite to begin anew.")
        elif json.loads(known.read_text(encoding="utf-8")) != settings:
            raise ProcessError(
                f"{output} was begun with other photos or settings ({known}). Give the same again to go on, or "
                "--overwrite to begin anew."
            )
        else:
            print(f"Going on with {output}.", file=sys.stderr)
            return
    known.parent.mkdir(parents=True, exist_ok=True)
    write_json(known, settings)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which gets its name when all of it is written."""
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's folders are the user's alone
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _free_name(folder: Path) -> Path:
    """A name beside a folder that nothing has."""
    folder = folder.resolve()
    number = 1
    while (aside := folder.with_name(f"{folder.name}_old{number}")).exists():
        number += 1
    return aside
