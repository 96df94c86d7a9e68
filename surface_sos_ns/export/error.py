"""The error of `surface-sos export`."""

from __future__ import annotations

from surface_sos_ns.utils.errors import UserError

__all__ = ["ExportError"]


class ExportError(UserError):
    """An export cannot be made; the message says why, and what to do."""
