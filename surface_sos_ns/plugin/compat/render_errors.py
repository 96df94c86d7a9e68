"""The thread that draws for a browser in nerfstudio's viewer ends with the first picture that fails.

The page then stands still until it is opened anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nerfstudio.viewer.render_state_machine import RenderStateMachine

from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.plugin.console import say

__all__ = ["go_on_after_failed_pictures"]

PAUSE = 0.5
"""Seconds after a failed picture, which may well fail again."""


def go_on_after_failed_pictures() -> None:
    """From here on these threads say what failed, once for each message, and go on."""
    patch(RenderStateMachine, "run", _going_on)


def _going_on(run: Callable[..., None]) -> Callable[..., None]:
    def run_on(self: RenderStateMachine) -> None:
        said = ""
        while self.running:
            try:
                run(self)
            except Exception as error:
                words = f"The viewer could not draw a picture ({type(error).__name__}: {error})."
                if words != said:
                    say(words)
                said = words
                time.sleep(PAUSE)

    return run_on
