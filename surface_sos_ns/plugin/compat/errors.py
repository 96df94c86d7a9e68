"""In nerfstudio's commands, errors that their message explains end with that message instead of a traceback.

The commands catch nothing, so what a data parser or a checkpoint has to say is the last of a hundred lines. Python asks
`sys.excepthook` what to show of an error that ends the program; everything that is not explained is shown as before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from surface_sos_ns.utils.errors import explanation
from surface_sos_ns.utils.text import printable

__all__ = ["show_explanations_alone"]


def show_explanations_alone() -> None:
    """From here on, if this process is one of nerfstudio's commands. In a user's own program nothing changes."""
    command = Path(sys.argv[0])
    ours = command.name.startswith("ns-") or command.parts[-3:-1] == ("nerfstudio", "scripts")
    if not ours or hasattr(sys.excepthook, "__wrapped__"):
        return
    show_trace = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        words = explanation(error)
        if words is None:
            show_trace(kind, error, trace)
        else:
            print(f"{command.stem if command.suffix else command.name}: {printable(words)}", file=sys.stderr)

    show.__wrapped__ = show_trace  # type: ignore[attr-defined]
    sys.excepthook = show
