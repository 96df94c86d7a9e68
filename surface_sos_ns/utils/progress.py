"""Progress bar with the time left, in a log file lines of text; and durations in words."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Stage", "duration"]


def duration(seconds: float) -> str:
    """Text in a fitting unit: ``45 s``, ``12 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Stage:
    """Progress of a long step: a bar on a terminal, else a line every `EVERY` seconds, both on standard error.

    Args:
        title: what is done.
        total: amount of work, in the unit of `advance` and `reach`.
        show: print anything at all.
    """

    EVERY = 20.0
    """Seconds between lines."""

    def __init__(self, title: str, total: float, show: bool = True):
        self.title, self.total, self.show = title, max(total, 1e-9), show
        self.done = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Stage:
        self._start = self._said = time.monotonic()
        if not self.show:
            return self
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("left:"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total)
        else:
            print(f"{self.title} ...", file=sys.stderr, flush=True)
        return self

    def advance(self, amount: float) -> None:
        """Adds `amount` to the work that is done."""
        self.reach(self.done + amount)

    def reach(self, done: float) -> None:
        """Sets the work that is done."""
        self.done = min(done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
        elif self.show and time.monotonic() - self._said > self.EVERY:
            self._said = time.monotonic()
            spent = self._said - self._start
            left = f", about {spent * (self.total / self.done - 1):.0f} s left" if self.done > 0 else ""
            print(f"  {self.title}: {100 * self.done / self.total:.0f} %{left}", file=sys.stderr, flush=True)

    def describe(self, text: str) -> None:
        """Changes the title."""
        self.title = text
        if self._bar is not None:
            self._bar.update(self._task, description=text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.show and kind is None:
            print(f"  done in {time.monotonic() - self._start:.0f} s", file=sys.stderr, flush=True)
