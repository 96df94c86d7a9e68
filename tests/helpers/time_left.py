"""Says how much of the tests is done and how long the rest will take."""

from __future__ import annotations

import time
from collections import Counter

import pytest

TYPICAL_SECONDS = 0.3
"""What a test takes unless its marker `seconds` says otherwise."""
SILENCE = 20.0
"""Seconds after which a file that is still running says how far it is."""


def stated_seconds(item: pytest.Item) -> float:
    """About how long a test takes on one core. Proportions matter: they are scaled by what is measured."""
    marker = item.get_closest_marker("seconds")
    return TYPICAL_SECONDS if marker is None else float(marker.args[0])


class TimeLeft:
    """A plugin of pytest that speaks after each file, and in long ones now and then."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter
        self.started = self.last_word = time.monotonic()
        self.done = self.total = 0.0
        self.weights: dict[str, float] = {}
        self.left_in_file: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.left_in_file = Counter(item.location[0] for item in session.items)
        self.weights = {item.nodeid: stated_seconds(item) for item in session.items}
        self.total = sum(self.weights.values())
        self.started = self.last_word = time.monotonic()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self.done += self.weights.get(nodeid, 0.0)
        name = location[0]
        self.left_in_file[name] -= 1
        now = time.monotonic()
        if self.done >= self.total or (self.left_in_file[name] > 0 and now - self.last_word < SILENCE):
            return
        self.last_word = now
        left = (now - self.started) * (self.total - self.done) / self.done
        words = f"{100 * self.done / self.total:.0f} % done, " + (
            f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
        )
        if self.reporter.verbosity > 0:
            self.reporter.ensure_newline()
            self.reporter.write_line(f"    {words}")
        else:  # among the dots
            self.reporter.write(f" ({words}) ")
