"""Shared by the tests: the demo's capture, small, a run trained on it, a browser; and which tests run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from surface_sos_ns.demo.capture import write_demo_capture
from tests.helpers.browser import chromium
from tests.helpers.terminal import NO_NETWORK, STARTED, Terminal
from tests.helpers.time_left import TimeLeft, stated_seconds

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WHOLE_RUNS = {"demo_capture", "objects_capture", "terminal", "trained", "corner"}
"""Fixtures that render, find poses, train or start a command of the user's: nothing that uses one is quick."""


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A training run flushes denormals of this process; what other tests compute must not depend on that."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def demo_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scene in 32 small, coarsely lit photos, with everything a capture may have. Not to be written to."""
    folder = tmp_path_factory.mktemp("demo") / "capture"
    return write_demo_capture(folder, views=32, width=100, height=75, workers=1, progress=False, quality=0.3)


@pytest.fixture(scope="session")
def objects_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scene with five objects in 12 small photos; plates without the can and the mug. Not to be written to.

    12 seconds.
    """
    folder = tmp_path_factory.mktemp("objects") / "capture"
    options = {"workers": 1, "progress": False, "quality": 0.4, "objects": True, "removed": ("can", "mug")}
    return write_demo_capture(folder, 12, 96, 72, **options)


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


@pytest.fixture
def browser() -> Iterator[Browser]:
    """For tests that are marked `browser`."""
    with chromium() as started:
        yield started


# ------------------------------------------------------------------ which tests run, and what is said meanwhile


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out what says that it takes long, and all whole runs")


def takes_long(item: pytest.Function) -> bool:
    """By what a test says of itself and by what it uses, so that there is no list to be kept."""
    return stated_seconds(item) > 1 or not WHOLE_RUNS.isdisjoint(item.fixturenames)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if takes_long(item)])
        items[:] = [item for item in items if not takes_long(item)]


@pytest.hookimpl(trylast=True)  # after pytest has set up its own reporter
def pytest_configure(config: pytest.Config) -> None:
    """Add the words about the time left, but not to quiet output and not in a worker of pytest-xdist."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.get_verbosity() >= 0 and config.option.collectonly is False:
        config.pluginmanager.register(TimeLeft(reporter), "time-left")
