"""nerfstudio's viewer finishes the picture of a browser that has been closed; those that are open wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.plugin.compat.patching import patch

__all__ = ["stop_drawing_for_closed_browsers"]


def stop_drawing_for_closed_browsers() -> None:
    """From here on a picture for a closed browser is broken off, as if its camera had moved."""
    patch(Viewer, "handle_disconnect", _stopping)


def _stopping(disconnect: Callable[..., None]) -> Callable[..., None]:
    def handle_disconnect(self: Viewer, client: Any) -> None:
        self.render_statemachines[client.client_id].interrupt_render_flag = True
        disconnect(self, client)

    return handle_disconnect
