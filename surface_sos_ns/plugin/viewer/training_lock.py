"""The lock that a training and its viewer's threads take in turns."""

from __future__ import annotations

import threading
import time
from typing import Any

from nerfstudio.viewer.viewer import Viewer

__all__ = ["let_browsers_draw", "training_lock"]

PAUSE = 0.001
"""Seconds in which a waiting thread wakes up."""


def training_lock() -> Any:
    """A lock for nerfstudio's trainer, which hands it to the viewer.

    Reentrant, unlike nerfstudio's own: the set-up runs under it and may move a control, whose hook takes it as well.
    """
    return threading.RLock()


def let_browsers_draw(viewer: Any) -> None:
    """To be called between two steps, without the lock.

    A lock is not fair: without a pause the training takes it again before a browser's thread, which waits for it, wakes
    up.

    Args:
        viewer: the trainer's; None, or nerfstudio's older one, draws nothing.
    """
    if isinstance(viewer, Viewer) and viewer.render_statemachines:
        time.sleep(PAUSE)
