"""nerfstudio's viewer draws the model: its own panel, render thread and colour maps, with a recorder as the browser."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.fields.hash_grid import GridLayout
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig, lite_model
from surface_sos_ns.scene_model import SceneConfig

OUTPUTS = ("rgb", "mask", "alpha", "foreground", "background", "overlay", "depth", "normals", "accumulation")
WAIT = 30.0  # seconds; a render takes a fraction of one, but kernels may have to be compiled first


class Browser:
    """What the render thread needs of a connected browser: a camera, and a place to put images."""

    def __init__(self) -> None:
        self.camera = SimpleNamespace(
            wxyz=np.array([0.0, 1.0, 0.0, 0.0]), position=np.array([0.0, 0.0, 20.0]), fov=0.8, aspect=4 / 3
        )
        self.images: queue.Queue[np.ndarray] = queue.Queue()
        self.scene = SimpleNamespace(set_background_image=lambda image, **_: self.images.put(image))


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


@pytest.fixture(scope="module")
def model() -> SurfaceSOSModel:
    """A small model started at a ball of half the sphere's radius."""
    torch.manual_seed(0)
    grid = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=4, max_resolution=32)
    scene = SceneConfig(
        foreground_grid=grid,
        background_grid=grid,
        samples=8,
        cache_resolution=16,
        probability_resolution=16,
        grid_backend="numba",
    )
    config = SurfaceSOSModelConfig(scene=scene, eval_num_rays_per_chunk=512)
    model: SurfaceSOSModel = config.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=2)
    axis = torch.linspace(-1, 1, 24)
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) - 0.5
    model.scene.initialise(torch.zeros(3), 1.0, (distance < 0).float(), distance, 60)
    return model


@pytest.fixture
def session(model, tmp_path) -> Iterator[Session]:  # type: ignore[no-untyped-def]
    pytest.importorskip("numba")
    pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
    model.train()
    viewer = Viewer(
        ViewerConfig(websocket_host="127.0.0.1", websocket_port_default=0),
        tmp_path / "viewer.log",
        tmp_path,
        pipeline,
        train_lock=threading.Lock(),
    )
    viewer.control_panel._max_res.value = 64
    browser = Browser()
    machine = RenderStateMachine(viewer, 10.0, browser)  # type: ignore[arg-type]
    machine.start()
    try:
        yield Session(model=model, viewer=viewer, machine=machine, browser=browser)
    finally:
        machine.running = False
        machine.join(WAIT)
        viewer.viser_server.stop()


def test_every_output_can_be_shown_while_training(session):
    session.image()  # the first one fills the list of outputs
    # nerfstudio adds one of its own, where 3D widgets are hidden behind surfaces.
    assert set(session.viewer.control_panel._output_render.options) - {"gl_z_buf_depth"} == set(OUTPUTS)
    shown = {}
    for split in (False, True):  # beside itself and beside another output
        session.viewer.control_panel._split.value = split
        for name in OUTPUTS:
            image = session.image(name)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert session.machine.is_alive()
            if not split:
                shown[name] = image.astype(int)
    with session.viewer.train_lock:
        assert session.model.training
    height, width = shown["mask"].shape[:2]
    assert set(np.unique(shown["mask"])) == {0, 255}
    assert (shown["mask"][height // 2, width // 2] == 255).all() and (shown["mask"][0, 0] == 0).all()
    assert (shown["foreground"][0, 0] == 0).all()
    outside = (shown["mask"][..., 0] == 0) & (shown["foreground"].max(-1) == 0)
    assert np.abs(shown["overlay"] - shown["rgb"])[outside].max() <= 3


def test_moving_the_camera_during_a_render_leaves_no_lock_held(session, monkeypatch):
    from surface_sos_ns.fields import grid_numba

    kernel, calls = grid_numba._gather, []
    move = RenderAction("move", session.viewer.get_camera_state(session.browser))
    session.image()

    def move_meanwhile(*arguments: Any) -> None:
        kernel(*arguments)
        calls.append(threading.current_thread())
        if len(calls) == 1:
            session.machine.next_action = move
            session.machine.render_trigger.set()
            # Last, as the next line the render thread reaches is then the end of the block that holds the lock.
            session.machine.interrupt_render_flag = True

    monkeypatch.setattr(grid_numba, "_gather", move_meanwhile)
    for _ in range(3):
        calls.clear()
        image = session.image("alpha")
        assert calls[0] is session.machine
        assert session.machine.is_alive() and image.any()
    free = grid_numba._LOCK.acquire(timeout=WAIT)
    assert free
    grid_numba._LOCK.release()

    with session.viewer.train_lock:  # and training goes on
        assert session.model.training
        origins = torch.tensor([[0.0, 0.0, 2.0]]).expand(16, 3)
        rendering = session.model.scene.render(origins, torch.tensor([[0.0, 0.0, -1.0]]).expand(16, 3))
        rendering.rgb.sum().backward()
        session.model.zero_grad(set_to_none=True)


def test_an_interrupted_render_stops_at_the_next_chunk(session, monkeypatch):
    session.image()
    chunks: list[int] = []
    move = RenderAction("move", session.viewer.get_camera_state(session.browser))
    render = session.model.scene.render

    def move_meanwhile(origins: torch.Tensor, directions: torch.Tensor) -> Any:
        chunks.append(len(origins))
        if len(chunks) == 1:
            session.machine.next_action = move
            session.machine.render_trigger.set()
            session.machine.interrupt_render_flag = True
        return render(origins, directions)

    monkeypatch.setattr(session.model.scene, "render", move_meanwhile)
    image = session.image("rgb")
    total = image.shape[0] * image.shape[1]
    assert total > 2 * 512, "one image must take several chunks for this test"
    # The interrupted image got one chunk, the one that was sent all of its own.
    assert sum(chunks) <= 512 + total
    assert session.machine.is_alive()


def test_lite_renders_in_chunks_short_enough_to_turn_the_view():
    assert lite_model(SurfaceSOSModelConfig()).eval_num_rays_per_chunk <= 1 << 12
