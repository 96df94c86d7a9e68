"""A training that is asked to stop, by Ctrl-C or SIGTERM, ends after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["StopRequest"]


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one acts as it would without this.

    Args:
        stop: called in the signal handler; must not print, since the interrupted code may be in the middle of printing.

    Attributes:
        signal: the one that came, or None.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.signal: signal.Signals | None = None
        self._stop = stop
        self._handlers_before: dict[signal.Signals, Any] = {}

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, signals are requests. Only in the main thread: elsewhere Python allows no handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers_before[number] = signal.signal(number, self._request)
        try:
            yield
        finally:
            self.release_signals()

    def release_signals(self) -> None:
        """Put the handlers back that were there before."""
        while self._handlers_before:
            number, handler = self._handlers_before.popitem()
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        del frame
        self.signal = signal.Signals(number)
        self._stop()
        self.release_signals()
