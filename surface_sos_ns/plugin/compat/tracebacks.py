"""nerfstudio's commands catch no errors, so a message for the user is the last of a hundred lines of traceback.

Python asks `sys.excepthook` what to show of an error that ends the program. Errors that explain themselves are shown by
their message alone, everything else as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.utils.errors import explanation
from surface_sos_ns.utils.text import printable

__all__ = ["show_explanations_alone"]


def show_explanations_alone() -> None:
    """From here on, if this process is one of nerfstudio's commands. In a user's own program nothing changes."""
    command = Path(sys.argv[0])
    if command.name.startswith("ns-") or command.parts[-3:-1] == ("nerfstudio", "scripts"):
        patch(sys, "excepthook", lambda show: _explaining(show, command.stem if command.suffix else command.name))


def _explaining(show_trace: Callable[..., Any], command: str) -> Callable[..., None]:
    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        words = explanation(error)
        if words is None:
            show_trace(kind, error, trace)
        else:
            print(f"{command}: {printable(words)}", file=sys.stderr)

    return show
