"""nerfstudio's log in the terminal fails with a KeyError where no training step follows.

It asks a buffer for the step, which only a step puts there: a finished run that is resumed, or a run that is stopped
before its first step, ends with a traceback.
"""

from __future__ import annotations

from nerfstudio.utils import writer

__all__ = ["start_log_at"]


def start_log_at(step: int) -> None:
    """Tell nerfstudio's log which step comes next; to be called once its writers are set up."""
    writer.GLOBAL_BUFFER["step"] = step
