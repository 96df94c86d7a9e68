"""nerfstudio's viewer of a small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from surface_sos_ns.plugin.model import SurfaceSOSModel
from tests.helpers.viewer_session import Session, Spy, remembered_icons, small_model, viewer_session


@pytest.fixture(scope="session", autouse=True)
def icons() -> Iterator[None]:
    with remembered_icons():
        yield


@pytest.fixture(scope="module")
def model() -> SurfaceSOSModel:
    return small_model()


@pytest.fixture
def session(model: SurfaceSOSModel, tmp_path: Path) -> Iterator[Session]:
    with viewer_session(model, tmp_path) as session:
        yield session


@pytest.fixture
def spy(model: SurfaceSOSModel, monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(model.scene, monkeypatch)
