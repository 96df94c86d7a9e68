"""Our pages, to be attacked while they run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from surface_sos_ns.plugin.model import SurfaceSOSModel
from tests.helpers.pages import Page, serving
from tests.helpers.terminal import Terminal
from tests.helpers.viewer_session import remembered_icons, small_model


@pytest.fixture(scope="session", autouse=True)
def icons() -> Iterator[None]:
    with remembered_icons():
        yield


@pytest.fixture(scope="module")
def model() -> SurfaceSOSModel:
    return small_model()


@pytest.fixture(scope="class")
def capture(demo_capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's capture: nerfstudio's viewer writes camera paths into it."""
    folder = tmp_path_factory.mktemp("attacked") / "a capture; touch pwned"
    shutil.copytree(demo_capture, folder)
    return folder


@pytest.fixture(scope="class")
def training(terminal: Terminal, capture: Path) -> Iterator[Page]:
    """ns-train with its viewer, of many small steps."""
    options = (
        *("--pipeline.datamanager.train-num-rays-per-batch", "64", "--pipeline.model.initial-fit-steps", "20"),
        *("--output-dir", capture.parent / "runs", "--timestamp", "run", "--max-num-iterations", "100000"),
    )
    yield from serving(
        *(terminal, capture.parent, "nerfstudio.scripts.train", "surface-sos-lite", "--data", capture, *options),
        port_option="--viewer.websocket-port",
    )


@pytest.fixture(scope="class")
def viewer(terminal: Terminal, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """ns-viewer of a run."""
    yield from serving(
        *(terminal, tmp_path_factory.mktemp("viewer"), "nerfstudio.scripts.viewer.run_viewer"),
        *("--load-config", trained / "config.yml"),
        port_option="--viewer.websocket-port",
    )


@pytest.fixture(scope="class")
def clicking(terminal: Terminal, demo_capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page on which the object is clicked; the capture's own masks are in the way, so they are left out."""
    folder = tmp_path_factory.mktemp("clicking")
    shutil.copytree(demo_capture, folder / "capture", ignore=shutil.ignore_patterns("coarse_masks"))
    yield from serving(
        *(terminal, folder, "surface_sos_ns.cli", "masks", "--data", folder / "capture"),
        *("--method", "click", "--overwrite"),
        port_option="--port",
    )
