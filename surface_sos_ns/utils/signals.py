"""Being stopped: Ctrl-C and SIGTERM end a program by way of an exception, so that nothing unfinished is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["leaving_on", "stopped_by"]


@contextmanager
def leaving_on(*numbers: signal.Signals) -> Iterator[None]:
    """Inside, the first of these signals raises SystemExit with the status that shells give it, 128 + its number.

    Python hears a signal between two of its own instructions: a long call of a library is finished first. Outside of
    the main thread, where signals are not heard at all, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_by(status: object) -> signal.Signals | None:
    """The signal that an exit status stands for; None where it stands for none."""
    return next((number for number in signal.Signals if status == 128 + number), None)


def _leave(number: int, frame: Any) -> None:
    del frame
    raise SystemExit(128 + number)
