"""Shared by the tests: the demo's capture, small, a run trained on it, and a word now and then about the time left."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from surface_sos_ns.demo.capture import write_demo_capture
from tests.helpers.terminal import NO_NETWORK, STARTED, Terminal

# What a test takes on one core unless its marker `seconds` says otherwise, its fixtures included. Only the proportions
# matter: they are scaled by how fast the tests run here.
TYPICAL_SECONDS = 0.3
SILENCE = 20.0  # seconds after which a file that is still running says how far it is


@pytest.fixture(scope="session")
def demo_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scene in 32 small, coarsely lit photos, with everything a capture may have. Not to be written to."""
    folder = tmp_path_factory.mktemp("demo") / "capture"
    return write_demo_capture(folder, views=32, width=100, height=75, workers=1, progress=False, quality=0.3)


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    folder = tmp_path_factory.mktemp("end_to_end")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    (folder / "weights").mkdir()
    return Terminal(folder)


@pytest.fixture(scope="session")
def trained(terminal: Terminal, demo_capture: Path) -> Path:
    """Few of the lite preset's steps with half of its rays, started closer to the votes; otherwise as it is."""
    options = (
        *("--max-num-iterations", "500", "--pipeline.datamanager.train-num-rays-per-batch", "512"),
        *("--pipeline.model.hull-slack", "0.1"),  # there is less time to carve
    )
    run, output = terminal.train("surface-sos-lite", demo_capture, "trained", *options)
    assert "finding the object from the coarse masks" in output
    assert re.search(STARTED, output)
    return run


class TimeLeft:
    """Says how much of the tests is done and how long the rest will take, after each file and in long ones."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter
        self.started = self.last_word = time.monotonic()
        self.done = self.total = 0.0
        self.weights: dict[str, float] = {}
        self.left_in_file: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.left_in_file = Counter(item.location[0] for item in session.items)
        for item in session.items:
            marker = item.get_closest_marker("seconds")
            self.weights[item.nodeid] = TYPICAL_SECONDS if marker is None else float(marker.args[0])
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


@pytest.hookimpl(trylast=True)  # after pytest has set up its own reporter
def pytest_configure(config: pytest.Config) -> None:
    """Add the words about the time left, but not to quiet output and not in a worker of pytest-xdist."""
    config.addinivalue_line("markers", "seconds(n): about how long a slow test takes, to estimate the time left")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.get_verbosity() >= 0 and config.option.collectonly is False:
        config.pluginmanager.register(TimeLeft(reporter), "time-left")
