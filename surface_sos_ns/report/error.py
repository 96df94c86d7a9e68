"""The error of `surface-sos report`."""

from __future__ import annotations

from surface_sos_ns.utils.errors import UserError

__all__ = ["ReportError"]


class ReportError(UserError):
    """A report cannot be written; the message says why, and what to do."""
