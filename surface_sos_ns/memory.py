"""How much main memory a process has taken at most."""

from __future__ import annotations

import sys
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_gb(usage: Any = None) -> float | None:
    """Most main memory in GB; None where the system does not tell.

    Args:
        usage: of a process that has ended (`os.wait4`); None is this one, so far.
    """
    if usage is None:
        if resource is None:
            return None
        usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
