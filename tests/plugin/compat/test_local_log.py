"""nerfstudio's log in the terminal where no step follows. Canary: it fails unless it is told a step."""

from __future__ import annotations

from typing import Any

import pytest
from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.utils import writer

from surface_sos_ns.plugin.compat.local_log import start_log_at


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A log that no step has been written to."""
    monkeypatch.setattr(writer, "GLOBAL_BUFFER", {"max_iter": 10, "steps_per_log": 10, "events": {}})
    return writer.LocalWriter(LocalWriterConfig())


def test_nerfstudio_still_asks_for_a_step(log: Any) -> None:
    with pytest.raises(KeyError, match="step"):
        log._print_stats({})


def test_told_a_step_it_prints(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    start_log_at(10)
    log._print_stats({})
    assert "10 (100.00%)" in capsys.readouterr().out
