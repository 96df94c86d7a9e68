"""nerfstudio's viewer of a small model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.plugin.model import SurfaceSOSModel
from tests.helpers.viewer_session import WAIT, Browser, Machine, Session, Spy, remembered_icons, small_model


@pytest.fixture(scope="session", autouse=True)
def icons() -> Iterator[None]:
    with remembered_icons():
        yield


@pytest.fixture(scope="module")
def model() -> SurfaceSOSModel:
    return small_model()


@pytest.fixture
def session(model: SurfaceSOSModel, tmp_path: Path) -> Iterator[Session]:
    pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
    model.train()
    viewer = Viewer(
        ViewerConfig(websocket_host="127.0.0.1", websocket_port_default=0),
        tmp_path / "viewer.log",
        tmp_path,
        pipeline,
        train_lock=threading.Lock(),
    )
    viewer.control_panel._max_res.value = 64
    browser = Browser()
    machine = Machine(viewer, 10.0, browser)  # type: ignore[arg-type]
    machine.start()
    try:
        yield Session(model=model, viewer=viewer, machine=machine, browser=browser)
    finally:
        machine.running = False
        machine.join(WAIT)
        viewer.viser_server.stop()


@pytest.fixture
def spy(model: SurfaceSOSModel, monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(model.scene, monkeypatch)
