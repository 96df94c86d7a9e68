"""Errors that the user can mend, and how commands print them.

For a `UserError`, an OSError that names a file, or a MemoryError, a command prints the message without a traceback and
ends with status 1. All other errors are faults of the code, and are shown with their traceback. With the environment
variable SURFACE_SOS_DEBUG=1 every traceback is shown.
"""

from __future__ import annotations

import os

__all__ = ["DEBUG", "UserError", "explanation"]

DEBUG = "SURFACE_SOS_DEBUG"
"""Environment variable; if it is set (and not 0), commands show the traceback of every error."""


class UserError(ValueError):
    """An error that the user can mend.

    The message names the file or option, what was found, what was expected and what to do. Commands print it without a
    traceback, and end with status 1.
    """


def explanation(error: BaseException) -> str | None:
    """The message of an error that is shown without its traceback; None for errors that are shown with it."""
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        return None
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is None:
        return str(error)  # raised by a library with a message only
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"There is not enough memory ({error})." if str(error) else "There is not enough memory."
    return None
