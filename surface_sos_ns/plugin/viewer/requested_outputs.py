"""The images of a view, rendered only as far as somebody looks at them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, KeysView, Mapping, MutableMapping
from typing import TYPE_CHECKING

from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from surface_sos_ns.plugin.compat.viewer import guard_viewer

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel
    from nerfstudio.viewer.viewer import Viewer

_CPU_VIEWER_RESOLUTION = 256  # pixels; what the viewer's own "Fast" setting uses


class Need(enum.IntEnum):
    """How much of a view has to be rendered for an image of it. Each holds what those before it hold."""

    MATTE = 0
    """The object's alpha alone."""
    LAYERS = 1
    """Colours and geometry of both layers, as far as they can be seen."""
    PLATE = 2
    """What the object hides as well."""


NEEDS: dict[str, Need] = {
    "rgb": Need.LAYERS,
    "mask": Need.MATTE,
    "alpha": Need.MATTE,
    "foreground": Need.LAYERS,
    "background": Need.PLATE,
    "background_confidence": Need.PLATE,
    "shadow": Need.PLATE,
    "overlay": Need.LAYERS,
    "depth": Need.LAYERS,
    "object_depth": Need.LAYERS,
    "normals": Need.LAYERS,
    "accumulation": Need.LAYERS,
}
"""Every output by name, in the order in which the viewer offers them, and what it takes."""


class ViewImages(MutableMapping[str, Tensor]):
    """All outputs of a view by name, (H, W, 1) or (H, W, 3); those not there yet are rendered when they are asked for.

    Names are known from the start. An image that was handed out stays the same object, also when more is rendered.

    Args:
        render: returns all images of a need, those of lesser needs included.
        images: what is rendered already.
        needs: what each output takes.
    """

    def __init__(
        self,
        render: Callable[[Need], dict[str, Tensor]],
        images: dict[str, Tensor] | None = None,
        needs: Mapping[str, Need] = NEEDS,
    ):
        self._render, self._needs = render, needs
        self._images = dict(images or {})
        self._names = dict.fromkeys(NEEDS)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._names and name not in self._images:
            self._images = {**self._render(self._needs[name]), **self._images}
        return self._images[name]

    def __setitem__(self, name: str, image: Tensor) -> None:
        self._names[name] = None
        self._images[name] = image

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._images.pop(name, None)

    def __contains__(self, name: object) -> bool:  # the inherited one would render
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def keys(self) -> KeysView[str]:
        """The names; printed as those of a dict, which ns-render does when it is given a wrong one."""
        return self._names.keys()


def shown_in(panel: ControlPanel, needs: Mapping[str, Need] = NEEDS) -> Need:
    """What the images take that a viewer's panel is set to show, each of them by `needs`.

    Before the first image there is no choice to read yet; the viewer then shows the first output, the colours.
    """
    names = [panel.output_render]
    if panel.split:
        names.append(panel.split_output_render)
    if panel.layer_depth:  # to hide what stands behind a surface
        names.append("depth")
    return max(needs.get(name, needs["rgb"]) for name in names)


class ViewerDefaults(ViewerControl):
    """Where a model is drawn on a CPU, lets its viewers start smaller and without compositing depth.

    For depth the background has to be rendered whatever is looked at; the mask alone takes a fifth of that. Both can be
    set in the panel. nerfstudio finds this among the model's attributes and calls `_setup`, in ns-train and ns-viewer.
    """

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        guard_viewer()  # done before, but for a viewer that is built around a model by hand
        if viewer.get_model().device.type == "cpu":
            viewer.control_panel._max_res.value = _CPU_VIEWER_RESOLUTION
            viewer.control_panel._layer_depth.value = False
