"""A viewer of a small model, with its own panel and render thread and a recorder as the browser."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import viser._gui_api
import viser._gui_handles
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from viser._icons import svg_from_icon

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.renderer import Mattes
from surface_sos_ns.models.surface_sos.scene import Rendering, SceneConfig, SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig
from surface_sos_ns.plugin.outputs import Need
from tests.helpers.small_scene import slice_of

WAIT = 30.0  # seconds; a render takes a fraction of one, but kernels may have to be compiled first


@contextmanager
def remembered_icons() -> Iterator[None]:
    """viser reads its archive of all icons, a second's work, for each icon of each viewer; here once for each."""
    remembering = cache(svg_from_icon)
    with pytest.MonkeyPatch.context() as patch:
        for module in (viser._gui_api, viser._gui_handles):
            patch.setattr(module, "svg_from_icon", remembering)
        yield


class Browser:
    """What the render thread needs of a connected browser: a camera, and a place to put images."""

    def __init__(self) -> None:
        self.camera = SimpleNamespace(
            wxyz=np.array([0.0, 1.0, 0.0, 0.0]), position=np.array([0.0, 0.0, 20.0]), fov=0.8, aspect=4 / 3
        )
        self.images: queue.Queue[np.ndarray] = queue.Queue()
        self.scene = SimpleNamespace(set_background_image=lambda image, **_: self.images.put(image))


class Machine(RenderStateMachine):
    """The render thread, which draws when it is told to and always at one size: the host's follows the last speed."""

    def _calculate_image_res(self, aspect_ratio: float) -> tuple[int, int]:
        return round(64 / aspect_ratio), 64

    def action(self, action: RenderAction) -> None:
        if action.action != "static":
            super().action(action)


class Session(SimpleNamespace):
    """A viewer with one browser."""

    model: SurfaceSOSModel
    viewer: Viewer
    machine: RenderStateMachine
    browser: Browser

    def image(self, output: str | None = None) -> np.ndarray:
        """Ask for an image as a click in the panel does, and wait for it."""
        if output is not None:
            self.viewer.control_panel._output_render.value = output
            assert self.viewer.control_panel.output_render == output
        with suppress(queue.Empty):
            while True:
                self.browser.images.get_nowait()
        self.machine.action(RenderAction("rerender", self.viewer.get_camera_state(self.browser)))  # type: ignore[arg-type]
        return self.browser.images.get(timeout=WAIT)


@contextmanager
def viewer_session(model: Any, folder: Path) -> Iterator[Session]:
    """A viewer of a model that is being trained, with its render thread and a browser."""
    pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
    model.train()
    viewer = Viewer(
        ViewerConfig(websocket_host="127.0.0.1", websocket_port_default=0),
        folder / "viewer.log",
        folder,
        pipeline,
        train_lock=threading.Lock(),
    )
    viewer.control_panel._max_res.value = 64
    browser = Browser()
    machine = Machine(viewer, 10.0, browser)  # type: ignore[arg-type]
    machine.start()
    try:
        yield Session(model=model, viewer=viewer, machine=machine, browser=browser)
    finally:
        machine.running = False
        machine.join(WAIT)
        viewer.viser_server.stop()


def small_model(objects: Sequence[str] = ()) -> SurfaceSOSModel:
    """A small model started at a ball of half the sphere's radius; several objects are equal slices of it along x."""
    torch.manual_seed(0)
    grid = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=4, max_resolution=32)
    scene = SceneConfig(
        foreground_grid=grid,
        background_grid=grid,
        samples=8,
        cache_resolution=16,
        probability_resolution=16,
        backend="numba",
    )
    config = SurfaceSOSModelConfig(scene=scene, eval_num_rays_per_chunk=512)
    model: SurfaceSOSModel = config.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=2)
    model.take_objects(objects)
    axis = torch.linspace(-1, 1, 24)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    distance = points.norm(dim=-1) - 0.5
    identity = slice_of(points.reshape(-1, 3), len(objects)).reshape(distance.shape).byte() if objects else None
    model.scene.initialise(
        ObjectFrame(), 4.0, (distance < 0).float(), distance, steps=200 if objects else 60, identity=identity
    )
    return model


class Spy:
    """What the scene is asked to render, as a set of needs; it renders it."""

    def __init__(self, scene: SurfaceSOS, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: set[Need] = set()
        mattes, render = scene.mattes, scene.render

        def spy_mattes(*rays: torch.Tensor, **options: Any) -> Mattes:
            self.asked.add(Need.MATTE)
            return mattes(*rays, **options)

        def spy_render(*rays: torch.Tensor, plate: bool, **options: Any) -> Rendering:
            self.asked.add(Need.PLATE if plate else Need.LAYERS)
            return render(*rays, plate=plate, **options)

        monkeypatch.setattr(scene, "mattes", spy_mattes)
        monkeypatch.setattr(scene, "render", spy_render)

    def so_far(self) -> set[Need]:
        """What was asked since the last call."""
        asked, self.asked = self.asked, set()
        return asked
