"""The panel's own controls in the viewer: what they do to pictures, and that nothing they are set to ends a render."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer
from PIL import Image

from surface_sos_ns.plugin.outputs import NEEDS, OVERLAY_COLOUR, Need
from surface_sos_ns.plugin.viewer.controls import ViewerControls, sphere_options
from surface_sos_ns.plugin.viewer.display_settings import CUT_COLOUR, DisplaySettings, Slice, threshold_at_half
from surface_sos_ns.plugin.viewer.nearest_photo import coarse_mask, mask_over_photo, nearest_view
from surface_sos_ns.plugin.viewer.rendering import render_displayed
from surface_sos_ns.utils.encoding import cutout_picture, mask_picture, matte_picture, write_new
from surface_sos_ns.utils.image_io import encode_image
from tests.helpers.viewer_session import WAIT, Browser, Machine, Session


def controls_of(session: Session) -> ViewerControls:
    return session.model.viewer_controls


def wait_until(true: Callable[[], bool]) -> None:
    """Callbacks of the panel run in threads of their own."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def rendered(session: Session) -> dict[str, torch.Tensor]:
    """All images of the session's view as the model has them, without a viewer's controls."""
    with torch.no_grad(), session.viewer.train_lock:
        camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
        rays = camera.generate_rays(camera_indices=0, keep_shape=True)
        was_training = session.model.training
        images = session.model.eval().render_view(rays, Need.PLATE)
        session.model.train(was_training)
    return images


def as_sent(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).byte().numpy()


# ------------------------------------------------------------------ what is shown


def test_the_mask_ends_where_the_threshold_is(session):
    alpha = rendered(session)["alpha"][..., 0].numpy()
    counts = []
    for threshold in (0.1, 0.5, 0.9):
        controls_of(session).threshold.value = threshold
        mask = session.image("mask")
        assert np.array_equal(mask[..., 0] == 255, alpha > threshold) and set(np.unique(mask)) == {0, 255}
        counts.append((mask[..., 0] == 255).sum())
    assert counts[0] > counts[1] > counts[2] > 0


def test_the_overlay_is_half_tinted_at_the_threshold(session):
    images = rendered(session)
    rgb, alpha = images["rgb"].numpy(), images["alpha"][..., 0].numpy()
    controls_of(session).threshold.value = 0.8
    tint = np.interp(alpha, [0, 0.8, 1], [0, 0.5, 1])[..., None] / 2
    expected = (1 - tint) * rgb + tint * np.array(OVERLAY_COLOUR)
    assert np.abs(session.image("overlay") - np.floor(expected * 255)).max() <= 1
    alpha = torch.linspace(0, 1, 101)
    for threshold in (0.0, 0.3, 0.5, 1.0):
        bent = threshold_at_half(alpha, threshold)
        assert torch.isfinite(bent).all() and (bent.diff() >= 0).all() and bent[0] >= 0 and bent[-1] <= 1
    assert torch.allclose(threshold_at_half(alpha, 0.5), alpha)


def test_rgb_shows_the_layer_that_is_chosen_and_renders_no_more(session, spy):
    controls, images = controls_of(session), rendered(session)
    spy.so_far()
    both = session.image("rgb")
    assert np.array_equal(both, as_sent(images["rgb"])) and spy.so_far() == {Need.LAYERS}
    controls.colour.value = (255, 128, 0)
    assert np.array_equal(session.image("rgb"), both), "the colour is behind cut-outs alone"
    controls.show.value = "object"
    spy.so_far()
    behind = (1 - images["alpha"]) * torch.tensor([1.0, 128 / 255, 0.0])
    over = as_sent(images["foreground"] + behind)
    assert np.abs(session.image("rgb").astype(int) - over).max() <= 1 and spy.so_far() == {Need.LAYERS}
    assert tuple(session.image("rgb")[0, 0]) == (255, 128, 0)
    assert np.abs(session.image("foreground").astype(int) - over).max() <= 1
    controls.show.value = "background"
    spy.so_far()
    assert np.array_equal(session.image("rgb"), as_sent(images["background"])) and spy.so_far() == {Need.PLATE}
    assert np.array_equal(session.image("mask"), as_sent(images["mask"])) and spy.so_far() == {Need.MATTE}
    controls.show.value = "both"
    assert np.array_equal(session.image("rgb"), both)


def test_a_layer_chosen_while_another_output_is_rendered_is_rendered_late():
    alpha = torch.full((2, 2, 1), 0.25)
    partial = DisplaySettings(show="background").applied({"alpha": alpha, "mask": alpha, "rgb": torch.zeros(2, 2, 3)})
    assert "rgb" not in partial, "it would be the whole view"
    assert (
        DisplaySettings(show="background").needs(NEEDS) == {**NEEDS, "rgb": Need.PLATE}
        and DisplaySettings(show="object").needs(NEEDS) == NEEDS
    )


def test_commands_do_not_see_what_the_panel_is_set_to(session):
    pose = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]])
    camera = Cameras(pose, fx=40.0, fy=40.0, cx=16.0, cy=12.0, width=32, height=24)
    names = ("rgb", "mask", "foreground", "overlay", "depth")

    def command() -> dict[str, torch.Tensor]:
        with torch.no_grad(), session.viewer.train_lock:
            images = session.model.get_outputs_for_camera(camera)
            return {name: images[name] for name in names}

    before, controls = command(), controls_of(session)
    controls.show.value, controls.threshold.value, controls.colour.value = "object", 0.9, (255, 0, 0)
    controls.slice.value = "facing you"
    assert controls.settings() == DisplaySettings("object", 0.9, (1.0, 0.0, 0.0), Slice("camera", 0.0))
    after = command()
    assert all(torch.equal(before[name], after[name]) for name in names)


# ------------------------------------------------------------------ slice


def test_how_far_along_a_ray_the_plane_is():
    centre, radius = torch.tensor([1.0, 0.0, 0.0]), torch.tensor(2.0)
    eye = torch.tensor([5.0, 0.0, 0.0]).expand(4, 3)
    rays = torch.tensor([[-1.0, 0.0, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    facing = Slice("camera", 0.5).cut(eye, rays, centre, radius)  # the plane x = 0, a radius is 2
    assert torch.allclose(facing.distance[:2, 0], torch.tensor([5.0, 5 / 0.6]))
    assert torch.isinf(facing.distance[2:]).all() and torch.allclose(facing.normal, torch.tensor([-1.0, 0.0, 0.0]))
    along = Slice("x", 0.5).cut(eye, rays, centre, radius)  # x = 2, and the camera is beyond it
    assert torch.allclose(along.distance[:2, 0], torch.tensor([3.0, 5.0])) and along.normal[0] == -1
    other = Slice("x", 0.5).cut(-eye, -rays, centre, radius)
    assert torch.allclose(other.distance[:2, 0], torch.tensor([7.0, 7 / 0.6])) and other.normal[0] == 1
    assert (Slice("camera", -1e9).cut(eye, rays, centre, radius).distance == 0).all()
    at_centre = Slice("camera", 0.0).cut(centre.expand(4, 3), rays, centre, radius)
    assert not torch.isnan(at_centre.distance).any()


def test_a_slice_through_a_ball_takes_its_near_half_away(session):
    """The ball: radius 0.5 about the origin, seen from (0, 0, 2); the plane: z = 0."""
    settings, images = DisplaySettings(slice=Slice("camera", 0.0)), rendered(session)
    camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    with torch.no_grad(), session.viewer.train_lock:
        session.model.eval()
        cut = render_displayed(session.model, rays, Need.PLATE, settings)
        beyond = render_displayed(session.model, rays, Need.PLATE, DisplaySettings(slice=Slice("camera", 0.9)))
        nowhere = render_displayed(session.model, rays, Need.PLATE, DisplaySettings(slice=Slice("camera", -1e9)))
        session.model.train()
    to_plane = rays.origins[..., 2] / -rays.directions[..., 2]
    off_axis = (rays.origins + to_plane[..., None] * rays.directions).norm(dim=-1)
    inside, outside = off_axis < 0.4, off_axis > 0.62
    assert images["depth"][..., 0][inside].max() < to_plane.min() - 0.15, "whole, its near side is seen"
    assert torch.allclose(cut["depth"][..., 0][inside], to_plane[inside], atol=0.02)
    assert (cut["alpha"][..., 0][inside] > 0.98).all() and (cut["alpha"][..., 0][outside] < 0.1).all()
    assert torch.allclose(cut["foreground"][inside], torch.tensor(CUT_COLOUR).expand(int(inside.sum()), 3), atol=0.03)
    assert torch.allclose(cut["normals"][inside][:, 2], torch.ones(int(inside.sum())), atol=0.03), "towards the camera"
    assert beyond["alpha"].max() < 0.05 and images["alpha"].max() > 0.95, "nothing of the ball is behind z = -0.9"
    assert all(torch.equal(nowhere[name], images[name]) for name in NEEDS)
    controls = controls_of(session)
    controls.slice.value = "facing you"
    assert np.abs(session.image("foreground").astype(int) - as_sent(cut["foreground"])).max() <= 1


# ------------------------------------------------------------------ the render thread


@pytest.mark.seconds(6)
def test_no_setting_ends_the_render_thread_of_any_browser(session):
    browser = Browser()
    browser.camera.position = np.array([30.0, 1.0, -4.0])
    machine = Machine(session.viewer, 10.0, browser)  # type: ignore[arg-type]
    machine.start()
    second = Session(model=session.model, viewer=session.viewer, machine=machine, browser=browser)
    controls, panel = controls_of(session), session.viewer.control_panel
    try:
        session.image()
        for threshold, show, colour in ((0.0, "background", (0, 0, 0)), (1.0, "object", (255, 255, 255))):
            controls.threshold.value, controls.show.value, controls.colour.value = threshold, show, colour
            names = itertools.cycle(("rgb", "overlay", "depth"))
            for facing, offset in itertools.product(("off", "facing you", "x", "y", "z"), (-1.0, 1.0)):
                controls.slice.value, controls.offset.value = facing, offset
                assert session.image(next(names)).shape == second.image().shape == (48, 64, 3)
        panel._layer_depth.value = True
        assert session.image("normals").any() and second.image().any()
        session.browser.camera.position = np.zeros(3)  # in the object's centre, which a plane cannot face
        controls.slice.value = "facing you"
        assert session.image("mask").shape == (48, 64, 3)
        assert session.machine.is_alive() and machine.is_alive()
    finally:
        machine.running = False
        machine.join(WAIT)
    with session.viewer.train_lock:
        assert session.model.training


# ------------------------------------------------------------------ sphere


def test_a_sphere_is_named_in_the_frame_of_the_capture():
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = 0.25 * turn, (1.0, 2.0, 3.0)
    point = np.array([0.4, -0.8, 1.2])  # in the capture
    words = sphere_options(to_world[:3, :3] @ point + to_world[:3, 3], 0.5, to_world).split()
    assert words[0] == "--pipeline.datamanager.dataparser.object-point" and words[-2].endswith(".object-radius")
    assert np.allclose([float(word) for word in words[1:4]], point) and float(words[-1]) == pytest.approx(2.0)


def test_a_sphere_in_map_coordinates_is_named_exactly():
    middle = np.array([441548.4321, 5121947.8765, 2345.0])
    to_world = np.eye(4) * [0.25, 0.25, 0.25, 1]
    to_world[:3, 3] = -0.25 * middle
    words = sphere_options(0.25 * np.array([0.1, 0.2, 0.3]), 0.5, to_world).split()
    assert np.allclose([float(word) for word in words[1:4]], middle + np.array([0.1, 0.2, 0.3]), atol=2e-4, rtol=0)


def test_the_drawn_sphere_is_moved_and_the_run_keeps_its_own(session):
    controls = controls_of(session)
    session.viewer.pipeline.datamanager.train_dataset = SimpleNamespace(metadata={"capture_to_world": np.eye(4) * 0.5})
    controls.sphere.value = True
    wait_until(lambda: controls.sphere_text.value.endswith("object-radius 2"))
    assert "object-point 0 0 0 " in controls.sphere_text.value
    controls._gizmo._impl.position = np.array([1.0, 2.0, -3.0])  # ten times the world's, as nerfstudio draws it
    for callback in controls._gizmo._impl_aux.update_cb:
        callback(controls._gizmo)
    assert "object-point 0.2 0.4 -0.6 " in controls.sphere_text.value
    controls.sphere_size.value = 0.5
    wait_until(lambda: controls.sphere_text.value.endswith("object-radius 1"))
    assert (session.model.scene.frame.centre == 0).all() and float(session.model.scene.frame.radius) == 1
    controls._reset_sphere()
    wait_until(lambda: "object-point 0 0 0 " in controls.sphere_text.value and controls.sphere_size.value == 1)
    controls.sphere.value = False
    wait_until(lambda: not controls._gizmo.visible)
    assert session.image("mask").any()


# ------------------------------------------------------------------ nearest photo


def test_the_nearest_photo_shows_the_same_side():
    centre = np.array([1.0, 1.0, 1.0])
    cameras = centre + np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [6.0, 0, 0]])
    assert nearest_view(centre + np.array([3.0, 0.3, 0]), cameras, centre) == 0
    assert nearest_view(centre + np.array([5.0, 0.3, 0]), cameras, centre) == 3
    assert nearest_view(centre + np.array([0.2, 0.3, 0.9]), cameras, centre) == 2
    assert nearest_view(centre, cameras, centre) in range(4)


def test_a_coarse_mask_is_tinted_over_its_photo():
    photo = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), np.float32)
    mask[:, :40] = 1
    shown = mask_over_photo(photo, mask, width=40)
    assert shown.shape == (30, 40, 3) and (shown[:, 25:] == 100).all()
    assert np.allclose(shown[15, 10], 50 + 127.5 * np.array(OVERLAY_COLOUR), atol=1)
    assert (mask_over_photo(photo, None, width=40) == 100).all()


def test_the_picture_in_the_panel_follows_the_camera(session, monkeypatch):
    poses = torch.eye(4)[None, :3].repeat(2, 1, 1)
    poses[:, :, 3] = torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
    masks = [(np.ones((6, 8), np.float32), None), (None, None)]
    reads: list[int] = []

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return np.full((6, 8, 3), 40, np.uint8)

    class Photos(SimpleNamespace):
        def __len__(self) -> int:
            return 2

    dataset: Any = Photos(
        cameras=SimpleNamespace(camera_to_worlds=poses),
        image_filenames=[Path("a.jpg"), Path("b`.jpg")],
        read_coarse_mask=masks.__getitem__,
        get_numpy_image=read,
    )
    monkeypatch.setattr(session.viewer.pipeline.datamanager, "train_dataset", dataset, raising=False)
    controls, browser = controls_of(session), session.browser
    moved: list[Callable[[Any], None]] = []
    browser.camera.on_update = moved.append
    controls._follow(browser)

    def move(*position: float) -> None:
        browser.camera.position = np.array(position)
        moved[0](browser.camera)

    def wait_for(start: str) -> None:
        wait_until(lambda: controls.nearest_picture.content.startswith(start))

    move(0, 0, 21)
    assert controls.nearest_picture.content == "" and not reads, "nothing is read as long as it is not shown"
    controls.nearest.value = True
    wait_for("`a.jpg`\n\n![0](data:image/webp;base64,")
    move(21, 0, 1)
    wait_for("`b'.jpg`: no coarse mask")
    move(0, 1, 21)
    wait_for("`a.jpg`")
    assert reads == [0, 1], "each photo is read once"
    found: Any = SimpleNamespace(masks=[None, masks[0][0]], objects=())
    assert coarse_mask(dataset, found, 1) == masks[0] and coarse_mask(dataset, None, 1) == (None, None)
    controls.nearest.value = False
    wait_until(lambda: controls.nearest_picture.content == "")


def test_a_camera_that_moves_while_a_photo_is_read_is_not_forgotten(session, monkeypatch):
    controls = controls_of(session)
    wanted, reading, go_on = iter([0, 1, 1, 1]), threading.Event(), threading.Event()
    monkeypatch.setattr(controls, "_wanted_view", lambda: next(wanted))

    def thumbnail(view: int) -> str:
        reading.set()
        assert go_on.wait(WAIT)
        return f"photo {view}"

    monkeypatch.setattr(controls, "_thumbnail", thumbnail)
    first = threading.Thread(target=controls._show_nearest)
    first.start()
    assert reading.wait(WAIT)
    controls._show_nearest()  # the camera has moved on: returns at once, the thread that reads is told by nobody
    assert controls.nearest_picture.content == ""
    go_on.set()
    first.join(WAIT)
    assert controls.nearest_picture.content == "photo 1"


# ------------------------------------------------------------------ export


def test_pictures_are_written_exactly(tmp_path):
    alpha = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]])
    assert mask_picture(alpha).tolist() == [[0, 0, 0, 255, 255]]
    matte = matte_picture(alpha)
    assert matte.tolist() == [[0, 16384, 32768, 49151, 65535]]
    with Image.open(io.BytesIO(encode_image(matte))) as file:
        assert np.array(file).tolist() == matte.tolist()
    colours = np.random.default_rng(0).random((1, 5, 3))
    with Image.open(io.BytesIO(encode_image(cutout_picture(colours, alpha)))) as file:
        assert file.mode == "RGBA" and np.abs(np.array(file) / 255 - np.dstack([colours, alpha])).max() <= 0.5 / 255
    (tmp_path / "view_0007_other.txt").write_text("mine")
    assert [path.name for path in write_new(tmp_path, "view", {"mask": mask_picture(alpha)})] == ["view_0008_mask.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view_0007_other.txt", "view_0008_mask.png"]


def test_the_button_writes_what_the_browser_sees(session, tmp_path):
    controls = controls_of(session)
    session.image("mask")
    controls.threshold.value, controls.export_height.value = 0.8, 48
    controls.slice.value, controls.colour.value = "facing you", (255, 0, 0)
    press: Any = SimpleNamespace(client=session.browser)
    for callback in controls.export_button._impl.update_cb:
        callback(press)
    folder = tmp_path / "exports"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = [f"view_0001_{name}.png" for name in ("clean_plate", "cutout", "mask", "matte")]
    assert sorted(first) == names
    words = controls.export_words.content
    assert str(folder) in words and all(name in words for name in names) and "alpha over 0.80" in words

    controls.slice.value = "off"
    with session.viewer.train_lock:
        assert session.model.training
        camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
        expected = session.model.images(camera, ["alpha", "foreground", "background"])
    alpha = expected["alpha"][..., 0].numpy()
    matte = cv2.imread(str(folder / names[3]), cv2.IMREAD_UNCHANGED)
    assert matte.dtype == np.uint16 and np.abs(matte / 65535 - alpha).max() < 1e-4
    mask = cv2.imread(str(folder / names[2]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask > 0, alpha > 0.8) and mask.any()
    with Image.open(folder / names[1]) as file:
        cutout = np.array(file) / 255
    assert np.abs(cutout[..., 3] - alpha).max() <= 0.51 / 255
    assert np.abs(cutout[..., :3] * alpha[..., None] - expected["foreground"].numpy())[alpha > 0.1].max() < 0.01
    with Image.open(folder / names[0]) as file:
        assert np.abs(np.array(file) / 255 - expected["background"].numpy()).max() <= 0.51 / 255

    controls._export(press)
    assert len(list(folder.iterdir())) == 8 and all((folder / name).read_bytes() == first[name] for name in first)
    assert not controls.export_button.disabled and not controls.export_progress.visible
    assert session.image("mask").any() and session.machine.is_alive()


def test_an_export_that_cannot_be_written_is_said(session, tmp_path):
    (tmp_path / "exports").write_text("a file where the folder would be")
    controls = controls_of(session)
    controls.export_height.value = 16
    controls._export(SimpleNamespace(client=session.browser))  # type: ignore[arg-type]
    assert "Nothing more is written" in controls.export_words.content and not controls.export_button.disabled
    assert (tmp_path / "exports").read_text() == "a file where the folder would be"


# ------------------------------------------------------------------ a real browser


def render_area(page: Any) -> np.ndarray:
    """(H, W, 3) what the browser shows left of the panel."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return np.array(picture.convert("RGB"))[100:560, 40:600]


@pytest.mark.browser
@pytest.mark.seconds(15)
def test_in_a_browser(model, browser, tmp_path, monkeypatch):
    monkeypatch.setattr("nerfstudio.viewer.viewer.RenderStateMachine", Machine)
    pipeline: Any = SimpleNamespace(model=model, datamanager=SimpleNamespace(includes_time=False))
    config = ViewerConfig(websocket_host="127.0.0.1", websocket_port_default=7301)
    model.train()
    viewer = Viewer(config, tmp_path / "viewer.log", tmp_path, pipeline, train_lock=threading.RLock())  # type: ignore[arg-type]
    try:
        page = browser.new_page(viewport={"width": 960, "height": 900})
        page.goto(f"http://127.0.0.1:{viewer.viser_server.get_port()}")
        page.get_by_text("Mask threshold").wait_for(timeout=1e3 * WAIT)
        wait_until(lambda: viewer.control_panel.output_render == "rgb")
        (client,) = viewer.viser_server.get_clients().values()
        client.camera.position, client.camera.look_at = (0.0, -20.0, 0.0), (0.0, 0.0, 0.0)
        page.get_by_role("textbox", name="Output type").click()
        page.get_by_role("option", name="mask", exact=True).click()
        wait_until(lambda: viewer.control_panel.output_render == "mask")

        def shows(share: Callable[[float], bool]) -> bool:
            page.wait_for_timeout(200)
            picture = render_area(page)
            return share(float((picture > 200).all(-1).mean())) and bool((picture < 20).all(-1).any())

        wait_until(lambda: shows(lambda white: 0.02 < white < 0.9))
        slider = page.get_by_role("slider").first
        slider.focus()
        slider.press("End")
        wait_until(lambda: model.viewer_controls.threshold.value == 1.0)
        wait_until(lambda: shows(lambda white: white < 1e-3))  # no alpha is over 1
        slider.press("Home")
        slider.press("ArrowRight")
        wait_until(lambda: 0 < model.viewer_controls.threshold.value < 0.1)
        wait_until(lambda: shows(lambda white: 0.02 < white < 0.9))
        assert all(machine.is_alive() for machine in viewer.render_statemachines.values())
        with viewer.train_lock:
            assert model.training
    finally:
        viewer.viser_server.stop()
