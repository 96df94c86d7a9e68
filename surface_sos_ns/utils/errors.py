"""The base class of errors that a user can do something about."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """Something is wrong that the message explains.

    The message names the file or option, what was found, what was expected and what to do. Commands print it alone,
    without a traceback, and end with status 1.
    """
