"""Errors that their message explains, and how a command tells them from faults of the code.

There is one rule. A `UserError`, an error of the system that names a file, or a lack of memory is something that the
user can do something about: a command prints its sentence alone and ends with status 1. Everything else is a fault of
this package or of one it uses, whatever its message says: its trace is shown, since only the trace tells where it is.
With the environment variable SURFACE_SOS_DEBUG=1 the trace of every error is shown.
"""

from __future__ import annotations

import os

__all__ = ["DEBUG", "UserError", "explanation"]

DEBUG = "SURFACE_SOS_DEBUG"
"""Environment variable that makes commands show the trace of every error."""


class UserError(ValueError):
    """Something is wrong that the message explains.

    The message names the file or option, what was found, what was expected and what to do. Commands print it alone,
    without a traceback, and end with status 1.
    """


def explanation(error: BaseException) -> str | None:
    """The sentence of an error that is to be shown without its trace; None where the trace is to be shown."""
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        return None
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is None:
        return str(error)  # raised with a sentence
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"There is not enough memory ({error})." if str(error) else "There is not enough memory."
    return None
