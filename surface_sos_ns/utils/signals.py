"""Signals that end a program by an exception, so that its context managers clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["exit_on_signal", "signal_of_status"]


@contextmanager
def exit_on_signal(*numbers: signal.Signals) -> Iterator[None]:
    """Context manager: these signals raise SystemExit with the status 128 + number, as shells report it.

    Python handles signals between bytecode instructions: a call into a library is finished first. Does nothing outside
    of the main thread, where handlers cannot be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def signal_of_status(status: object) -> signal.Signals | None:
    """The signal of an exit status 128 + number; None for other statuses."""
    return next((number for number in signal.Signals if status == 128 + number), None)


def _raise_exit(number: int, frame: Any) -> None:
    del frame
    raise SystemExit(128 + number)
