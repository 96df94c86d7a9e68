"""TensorBoard's events on a full disk. Canary: nerfstudio's writer lets the error end the training."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest
from nerfstudio.utils import writer

from surface_sos_ns.plugin.compat.event_writers import go_on_without_events


class Full:
    """TensorBoard's own writer on a disk that is full."""

    def add_scalar(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Any:
    """nerfstudio's writer of such a disk, the only one that is set up."""
    events = object.__new__(writer.TensorboardWriter)
    events.tb_writer = Full()  # type: ignore[assignment]
    monkeypatch.setattr(writer, "EVENT_WRITERS", [events])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return events


def test_nerfstudio_still_passes_the_error_on(events: Any) -> None:
    with pytest.raises(OSError, match="No space"):
        events.write_scalar("loss", 1.0, 0)


def test_a_disk_that_is_full_ends_the_events_and_not_the_training(events: Any) -> None:
    said: list[str] = []
    go_on_without_events(said.append)
    (tolerated,) = writer.EVENT_WRITERS
    tolerated.write_scalar_dict("losses", {"a": 1.0, "b": 2.0}, 0)
    tolerated.write_scalar("loss", 1.0, 1)
    assert len(said) == 1 and "TensorBoard" in said[0] and "No space left" in said[0]
