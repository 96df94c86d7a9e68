"""How a viewer of a model on a CPU starts: with small pictures, and without compositing depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerfstudio.viewer.viewer_elements import ViewerControl

from surface_sos_ns.plugin.compat.viewer import guard_viewer

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

__all__ = ["ViewerDefaults"]

CPU_RESOLUTION = 256
"""Longer side of a picture in pixels; what the viewer's own "Fast" setting uses."""


class ViewerDefaults(ViewerControl):
    """Sets the panel's resolution and depth compositing where a model is drawn on a CPU; both can be changed there.

    For depth the background has to be rendered whatever is looked at; the mask alone takes a fifth of that. nerfstudio
    finds this among the model's attributes and calls `_setup`, in ns-train and ns-viewer.
    """

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        guard_viewer()  # done before, but for a viewer that is built around a model by hand
        if viewer.get_model().device.type == "cpu":
            viewer.control_panel._max_res.value = CPU_RESOLUTION
            viewer.control_panel._layer_depth.value = False
