"""What compiled libraries write to standard error goes to a file, and the terminal keeps its progress bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["library_output_to"]


@contextmanager
def library_output_to(log: Path) -> Iterator[None]:
    """Appends to a file what compiled libraries write to standard error, where Python's own messages still appear."""
    before = sys.stderr
    before.flush()
    terminal = os.dup(2)
    own = None
    try:
        if _descriptor(before) == 2:
            own = os.fdopen(os.dup(terminal), "w", buffering=1, encoding=before.encoding, errors="replace")
            sys.stderr = own
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr = before
        if own is not None:
            own.close()


def _descriptor(stream: object) -> int | None:
    """A stream's file descriptor, None where it has none, as with those that tests put in its place."""
    try:
        return stream.fileno()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError):
        return None
