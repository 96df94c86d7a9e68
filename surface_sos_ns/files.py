"""Files of results: a reader never meets half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".part"
"""How the names of files end that are being written; they begin with a dot."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name when all went well and is removed when it did not."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o644)  # mkstemp's files are the user's alone
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes the whole file or leaves what was there."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes the whole file or leaves what was there."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes a result as `write_text` does."""
    write_text(path, json.dumps(result, indent=1) + "\n")
