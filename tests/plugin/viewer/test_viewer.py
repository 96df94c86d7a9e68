"""nerfstudio's viewer draws the model: its own panel, render thread and colour maps, with a recorder as the browser."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer.render_state_machine import RenderAction
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer

from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig, lite_model
from surface_sos_ns.plugin.outputs import NEEDS, Need
from surface_sos_ns.rendering.antialiasing import edge_pixels
from tests.helpers.viewer_session import WAIT, Browser, Machine, Session

OUTPUTS = (
    "rgb",
    "mask",
    "alpha",
    "foreground",
    "background",
    "background_confidence",
    "shadow",
    "overlay",
    "depth",
    "object_depth",
    "normals",
    "accumulation",
)


CUT_OUT = {Need.MATTE, Need.LAYERS}
"""What the scene is asked for a cut-out: the matte, and colours on the rays that meet the object."""


@pytest.mark.seconds(4)
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


def test_a_break_where_the_kernels_threads_are_locked_does_not_happen(session, monkeypatch):
    """The camera moves at the one line after which a lock would stay held: the end of a block that holds it."""
    for name, value in {"_threads": 2, "_pool": None, "_pool_lock": threading.Lock()}.items():
        monkeypatch.setattr(threads, name, value)
    check, entrance = session.machine.check_interrupt, threads._workers.__code__
    seen: list[int] = []

    def move_at_the_end_of_the_block(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is entrance and event == "line":
            session.machine.interrupt_render_flag |= frame.f_lineno in seen  # back at the line of its `with`
            seen.append(frame.f_lineno)
        check(frame, event, argument)
        return move_at_the_end_of_the_block

    monkeypatch.setattr(session.machine, "check_interrupt", move_at_the_end_of_the_block)
    for output in ("mask", "rgb", "background"):
        assert session.image(output).any()
    assert threads._pool is not None, "more than one thread must have run for this test"
    assert threads._pool_lock.acquire(timeout=WAIT)
    threads._pool_lock.release()

    with session.viewer.train_lock:  # and training goes on
        assert session.model.training
        origins = torch.tensor([[0.0, 0.0, 2.0]]).expand(16, 3)
        rendering = session.model.scene.render(origins, torch.tensor([[0.0, 0.0, -1.0]]).expand(16, 3))
        rendering.rgb.sum().backward()
        session.model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("output, method", [("rgb", "render"), ("mask", "mattes")])
def test_an_interrupted_render_stops_at_the_next_chunk(session, monkeypatch, output, method):
    session.image(output)
    chunks: list[int] = []
    move = RenderAction("move", session.viewer.get_camera_state(session.browser))
    rendered = getattr(session.model.scene, method)

    def move_meanwhile(origins: torch.Tensor, directions: torch.Tensor, **options: Any) -> Any:
        chunks.append(len(origins))
        if len(chunks) == 1:
            session.machine.next_action = move
            session.machine.render_trigger.set()
            session.machine.interrupt_render_flag = True
        return rendered(origins, directions, **options)

    monkeypatch.setattr(session.model.scene, method, move_meanwhile)
    image = session.image()
    total = image.shape[0] * image.shape[1]
    assert total > 2 * 512, "one image must take several chunks for this test"
    # The interrupted image got one chunk, the one that was sent all of its own.
    assert sum(chunks) <= 512 + total
    assert session.machine.is_alive()


# ------------------------------------------------------------------ only what is looked at


def offered(session: Session) -> list[str]:
    return list(session.viewer.control_panel._output_render.options)


@pytest.mark.seconds(3)
def test_only_what_the_panel_shows_is_rendered_and_all_is_offered(session, spy):
    panel = session.viewer.control_panel
    session.image()
    assert spy.so_far() == {Need.LAYERS}, "the first image is of the colours"
    assert offered(session) == list(OUTPUTS) and panel.output_render == "rgb"
    for name in (*OUTPUTS, "mask"):
        session.image(name)
        assert spy.so_far() == (CUT_OUT if name == "foreground" else {NEEDS[name]}), name
        assert offered(session) == list(OUTPUTS)
    panel._split.value = True
    for name in ("alpha", "normals", "background"):
        panel._split_output_render.value = name
        session.image("mask")
        assert spy.so_far() == {NEEDS[name]}, name
    panel._split.value = False
    panel._layer_depth.value = True
    session.image("mask")
    assert spy.so_far() == {Need.LAYERS}, "3D widgets behind surfaces are hidden by depth"
    assert offered(session) == [*OUTPUTS, "gl_z_buf_depth"]
    assert session.image("gl_z_buf_depth").any()
    panel._layer_depth.value = False  # which takes the output that is shown away
    session.image()
    assert panel.output_render == "rgb" and offered(session) == list(OUTPUTS)
    assert session.machine.is_alive()


@pytest.mark.seconds(2)
def test_what_is_shown_does_not_depend_on_what_is_not_rendered(session, monkeypatch):
    monkeypatch.setattr(session.model.config, "edge_samples", 1)  # the viewer renders the pixels' middles alone
    with torch.no_grad():
        camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
        everything = dict(session.model.eval().get_outputs_for_camera(camera))
        session.model.train()
    session.image()
    for name in OUTPUTS:
        image = session.image(name)
        assert image.shape == (48, 64, 3)
        if everything[name].shape[2] == 3:  # the others are drawn in false colours
            assert np.array_equal(image, (everything[name] * 255).byte().numpy()), name


def test_commands_get_smooth_outlines(model):
    pose = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]])
    camera = Cameras(pose, fx=40.0, fy=40.0, cx=20.0, cy=20.0, width=40, height=40)
    images = {}
    for per_axis in (1, 3):
        model.config.edge_samples = per_axis
        with torch.no_grad():
            images[per_axis] = dict(model.eval().get_outputs_for_camera(camera))
    moved = (images[1]["alpha"] - images[3]["alpha"]).abs()[..., 0]
    edge = edge_pixels(images[1]["alpha"][..., 0])
    assert moved.max() > 0.02 and (moved[~edge] == 0).all()
    for name in ("rgb", "foreground", "background", "depth"):
        assert torch.equal(images[1][name][~edge], images[3][name][~edge]), name
    assert torch.equal(images[3]["mask"][..., :1] > 0, images[3]["alpha"] > 0.5)
    assert (images[3]["foreground"] <= images[3]["alpha"] + 1e-5).all(), "colours are multiplied by the same alpha"


def test_a_choice_that_changes_while_it_is_rendered_gets_its_image(session, spy, monkeypatch):
    """The panel is read again when the image is sent, and the model may be in training by then."""
    expected = session.image("background")
    session.image("mask")
    spy.so_far()
    send, modes = session.machine._send_output_to_viewer, []

    def change_and_send(outputs: Any, **options: Any) -> None:
        if not modes:
            modes.append(session.model.training)
            session.viewer.control_panel._output_render.value = "background"
        send(outputs, **options)

    monkeypatch.setattr(session.machine, "_send_output_to_viewer", change_and_send)
    image = session.image()
    assert modes == [True] and spy.so_far() >= {Need.MATTE, Need.PLATE}
    assert np.array_equal(image, expected)
    with session.viewer.train_lock:
        assert session.model.training
    assert session.machine.is_alive()


def test_a_second_browser_sees_what_the_first_one_does(session, spy):
    session.image("mask")
    browser = Browser()
    machine = Machine(session.viewer, 10.0, browser)  # type: ignore[arg-type]
    machine.start()
    second = Session(model=session.model, viewer=session.viewer, machine=machine, browser=browser)
    try:
        spy.so_far()
        assert np.array_equal(second.image(), session.image())
        assert spy.so_far() == {Need.MATTE} and offered(session) == list(OUTPUTS)
        assert second.image("rgb").shape == session.image("rgb").shape
        assert spy.so_far() == {Need.LAYERS}
    finally:
        machine.running = False
        machine.join(WAIT)
    assert session.machine.is_alive()


def test_commands_get_what_they_ask_for_and_no_more(model, spy):
    """ns-render takes single outputs, ns-eval the metrics, both from the main thread."""
    model._need_so_far = Need.MATTE  # a fresh process
    model.eval()
    pose = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]])
    camera = Cameras(pose, fx=40.0, fy=40.0, cx=16.0, cy=12.0, width=32, height=24)

    def view() -> Any:
        return model.get_outputs_for_camera(camera)

    outputs = view()
    assert list(outputs) == list(outputs.keys()) == list(OUTPUTS) and len(outputs) == len(OUTPUTS)
    assert "rgb" in outputs and "rgba" not in outputs and str(outputs.keys()) == str(dict.fromkeys(OUTPUTS).keys())
    assert spy.so_far() == set(), "names cost nothing"
    mask = outputs["mask"]
    assert spy.so_far() == {Need.MATTE} and mask.shape == (24, 32, 3) and outputs["alpha"].shape == (24, 32, 1)
    outputs["rgba"] = model.get_rgba_image(outputs)
    assert spy.so_far() == CUT_OUT and list(outputs) == [*OUTPUTS, "rgba"]
    assert outputs["mask"] is mask, "nerfstudio scales some in place"
    with pytest.raises(KeyError):
        outputs["no such output"]
    view()["mask"]
    assert spy.so_far() == CUT_OUT, "as in the view before"
    metrics, images = model.get_image_metrics_and_images(view(), {"image": torch.rand(24, 32, 3)})
    assert spy.so_far() == {Need.PLATE, Need.LAYERS}, "once whole, and more rays of its outline without the plate"
    assert np.isfinite(metrics["psnr"]) and "background" in images
    outputs = view()
    model.train()  # whatever the mode is by then
    assert outputs["background"].shape == (24, 32, 3) and model.training
    rays = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
    with torch.no_grad():
        assert set(model.eval().get_outputs(rays)) == set(OUTPUTS), "single rays get everything"
    model.train()


def test_another_thread_gets_everything_at_once(model, spy):
    pose = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]])
    camera = Cameras(pose, fx=40.0, fy=40.0, cx=16.0, cy=12.0, width=32, height=24)
    found: list[set[str]] = []
    model.eval()
    thread = threading.Thread(target=lambda: found.append(set(model.get_outputs_for_camera(camera))))
    thread.start()
    thread.join(WAIT)
    model.train()
    assert found == [set(OUTPUTS)] and spy.so_far() == {Need.PLATE}


def test_on_a_cpu_the_viewer_starts_small_and_without_depth(model, tmp_path):
    pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
    config = ViewerConfig(websocket_host="127.0.0.1", websocket_port_default=0)
    viewer = Viewer(config, tmp_path / "viewer.log", tmp_path, pipeline, train_lock=threading.Lock())
    try:
        assert viewer.control_panel.max_res == 256 and not viewer.control_panel.layer_depth
    finally:
        viewer.viser_server.stop()


def test_lite_renders_in_chunks_short_enough_to_turn_the_view():
    assert lite_model(SurfaceSOSModelConfig()).eval_num_rays_per_chunk <= 1 << 12
