"""nerfstudio's viewer fails for windows of extreme shape, and for cameras from path files: no pixels, or too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.web.messages import clamped_camera

if TYPE_CHECKING:
    from nerfstudio.viewer.utils import CameraState

__all__ = ["draw_windows_of_any_shape"]


def draw_windows_of_any_shape() -> None:
    """From here on each camera has the nearest field of view and aspect that can be drawn."""
    patch(Viewer, "get_camera_state", _drawable_cameras)


def _drawable_cameras(read: Callable[..., CameraState]) -> Callable[..., CameraState]:
    def get_camera_state(self: Viewer, client: Any) -> CameraState:
        state = read(self, client)
        state.fov, state.aspect = clamped_camera(state.fov, state.aspect)
        return state

    return get_camera_state
