"""What can be wrong with a batch."""

from __future__ import annotations

from surface_sos_ns.utils.errors import UserError

__all__ = ["BatchError"]


class BatchError(UserError):
    """A batch cannot be begun, or some of its captures failed; the message says which and why."""
