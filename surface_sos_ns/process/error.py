"""What goes wrong for reasons a user can do something about."""

from __future__ import annotations

from surface_sos_ns.utils.errors import UserError


class ProcessError(UserError):
    """Photos cannot be made into a scene; the message names the file, what was expected and what to do."""
