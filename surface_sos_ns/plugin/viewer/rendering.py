"""Views for nerfstudio's viewer: only what its panel shows, as its panel has it, and broken off between chunks of rays.

The viewer has a thread for each browser (`RenderStateMachine`). When the camera moves, nerfstudio raises an exception
at whichever line that thread has reached, by means of a trace function. Raised where a ``with`` block ends, it leaves
the block's lock held for ever (that of the kernels' threads, or one in numba or torch), and training stands still. So
the trace function is switched off while a view is rendered, and asked before each chunk of rays instead.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from torch import Tensor

from surface_sos_ns.plugin.outputs import Need, ViewImages
from surface_sos_ns.plugin.view_rendering import BeforeChunk
from surface_sos_ns.plugin.viewer.display_settings import Cut, DisplaySettings, Slice, cut_open
from surface_sos_ns.plugin.viewer.viewed_model import ViewedModel

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel

__all__ = ["displayed_view", "in_main_thread", "need_of_panel", "render_displayed", "viewer_thread"]


def viewer_thread() -> RenderStateMachine | None:
    """The thread that this is called in, if it draws for a browser."""
    thread = threading.current_thread()
    return thread if isinstance(thread, RenderStateMachine) else None


def in_main_thread() -> bool:
    """Whether this is called in the main thread, as by commands."""
    return threading.current_thread() is threading.main_thread()


def displayed_view(thread: RenderStateMachine, model: ViewedModel, rays: RayBundle) -> ViewImages:
    """Images (H, W, C) of a view's rays (H, W), world frame, as the viewer's panel has them.

    What the panel shows is rendered at once, and a move of the camera can break that off. Where the choice in the panel
    changes meanwhile, the rest is rendered when the viewer asks for it; it has given its lock back by then.

    Args:
        thread: that draws for a browser; this is called in it.
        model: in evaluation mode.
        rays: of the view.

    Raises:
        IOChangeException: nerfstudio's, where the camera has moved.
    """
    viewer = thread.viewer

    def break_off_if_moved(_: int) -> None:
        thread.check_interrupt(sys._getframe(), "line", None)

    with _untraced():
        settings = model.display_settings()
        needs = settings.needs(model.output_needs(), model.object_names)
        need = need_of_panel(viewer.control_panel, needs)
        images = render_displayed(model, rays, need, settings, break_off_if_moved)

    def render_late(need: Need) -> dict[str, Tensor]:
        with viewer.train_lock or nullcontext():
            return render_displayed(model, rays, need, settings)

    return ViewImages(render_late, images, needs)


def need_of_panel(panel: ControlPanel, needs: Mapping[str, Need]) -> Need:
    """What the images take that a viewer's panel is set to show, each of them by `needs`.

    Before the first image there is no choice to read yet; the viewer then shows the first output, the colours.
    """
    names = [panel.output_render]
    if panel.split:
        names.append(panel.split_output_render)
    if panel.layer_depth:  # to hide what stands behind a surface
        names.append("depth")
    return max(needs.get(name, needs["rgb"]) for name in names)


def render_displayed(
    model: ViewedModel,
    rays: RayBundle,
    need: Need,
    settings: DisplaySettings,
    before_chunk: BeforeChunk | None = None,
) -> dict[str, Tensor]:
    """Images (H, W, C) of rays (H, W), world frame, under a panel's settings."""
    objects, cut = model.object_names, None
    if settings.slice is not None:
        rays, cut = _cut_rays(model, rays, settings.slice)
    images = model.render_view(rays, need, before_chunk=before_chunk)
    if cut is not None:
        images = cut_open(images, cut, _begun_in(model, rays, cut), objects)
    shown = settings.applied(images, objects)
    if settings.without is not None and need is Need.PLATE:
        shown["rgb"] = model.render_without(rays, [settings.without], before_chunk=before_chunk)["background"]
    return shown


def _cut_rays(model: ViewedModel, rays: RayBundle, plane: Slice) -> tuple[RayBundle, Cut]:
    """Rays (H, W) from a plane on, and what it cuts away."""
    cut = plane.cut(rays.origins, rays.directions, *model.object_sphere())
    reached = torch.where(torch.isfinite(cut.distance), cut.distance, 0.0)
    return replace(rays, origins=rays.origins + reached * rays.directions), cut


def _begun_in(model: ViewedModel, rays: RayBundle, cut: Cut) -> Tensor:
    """(H, W, 1) int64: the object in which rays that begin at a cut begin, 1 to K, or 0 for none."""
    begun = (torch.isfinite(cut.distance) & (cut.distance > 0))[..., 0]
    times = None if rays.times is None else rays.times[begun][..., 0]
    found = torch.zeros_like(begun, dtype=torch.int64)
    found[begun] = model.object_at(rays.origins[begun], times).to(found.device)
    return found[..., None]


@contextmanager
def _untraced() -> Iterator[None]:
    """Inside, this thread's trace function is switched off."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
