"""Parts in the viewer: which result is shown, and what a slice does to them. The object is a ball, its parts bands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.viewer.utils import get_camera

from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.plugin.viewer.display_settings import CUT_COLOUR, Cut, DisplaySettings, cut_open
from surface_sos_ns.utils.identity_colours import identity_colours
from tests.helpers.part_heads import bands, save_bands
from tests.helpers.viewer_session import Session, viewer_session


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With results of 2 and of 4 parts, the former the latest."""
    folder = tmp_path_factory.mktemp("run")
    save_bands(folder, 4, order=1)
    save_bands(folder, 2, order=2)
    return folder


@pytest.fixture
def session(model: SurfaceSOSModel, run: Path, tmp_path: Path) -> Iterator[Session]:
    model.attach_parts(run, "step-1.ckpt")
    with viewer_session(model, tmp_path) as session:
        yield session


def expected(session: Session, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) colours of the bands that the browser sees, and (H, W) where they are sure: away from every border."""
    camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    middle = -(rays.origins * rays.directions).sum(-1)
    missed = (rays.origins + middle[..., None] * rays.directions).square().sum(-1)
    depth = middle - (0.25 - missed).clamp(min=0).sqrt()
    points = rays.origins + depth[..., None] * rays.directions
    band = bands(points, parts)
    border = ((points[..., :1] + 0.5) * parts - torch.arange(1, parts)).abs().min(-1).values
    sure = (missed < 0.15) & (border > 0.3)
    return (255 * identity_colours(parts))[band.numpy() - 1], sure.numpy()


def differs(image: np.ndarray, colours: np.ndarray, where: np.ndarray) -> float:
    """Share of the pixels whose colour is another."""
    return float((np.abs(image[where] - colours[where]).max(-1) > 40).mean())


@pytest.mark.seconds(4)
def test_the_panel_chooses_which_result_is_shown(session: Session) -> None:
    controls = session.model.viewer_controls
    assert controls.parts is not None and controls.parts.value == "2", "the latest"
    (two, sure_of_two), (four, sure_of_four) = expected(session, 2), expected(session, 4)
    assert sure_of_two.sum() > 40 and sure_of_four.sum() > 20
    assert differs(session.image("parts"), two, sure_of_two) < 0.05
    controls.parts.value = "4"
    chosen = session.image("parts")
    assert differs(chosen, four, sure_of_four) < 0.05 < differs(chosen, two, sure_of_two)
    assert (session.image("parts_4") == chosen).all()
    assert differs(session.image("parts_2"), two, sure_of_two) < 0.05, "by its name each is what it is"


def test_numbers_of_parts_are_not_offered(session: Session) -> None:
    session.image("rgb")
    offered = session.viewer.control_panel._output_render.options
    assert {"parts", "parts_2", "parts_4"} <= set(offered) and not [name for name in offered if "part_ids" in name]


def test_one_result_needs_no_choice(model: SurfaceSOSModel, run: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    model.attach_parts(tmp_path, "step-1.ckpt")
    with viewer_session(model, tmp_path / "none") as session:
        assert session.model.viewer_controls.parts is None
        assert "parts" not in model.output_needs()
    shutil.copy(run / "parts" / "parts_2.npz", tmp_path / "parts")
    model.attach_parts(tmp_path, "step-1.ckpt")
    with viewer_session(model, tmp_path / "one") as session:
        assert session.model.viewer_controls.parts is None
        colours, sure = expected(session, 2)
        assert differs(session.image("parts"), colours, sure) < 0.05


def test_a_slice_shows_no_part_where_it_opens_the_object(session: Session) -> None:
    controls = session.model.viewer_controls
    whole = session.image("parts")
    controls.slice.value, controls.offset.value = "facing you", 0.0
    cut = session.image("parts")
    face = np.floor(255 * np.array(CUT_COLOUR))
    opened = (np.abs(cut - face) <= 1).all(-1)
    assert opened.sum() > 0.5 * (whole > 60).any(-1).sum(), "a plane through the middle opens the ball"
    assert (cut[~opened] < 60).all(-1).mean() > 0.95, "what is behind the plane there is hidden by the face"


def test_where_rays_begin_inside_there_is_no_part_and_beyond_the_plane_nothing() -> None:
    images = {
        "alpha": torch.ones(3, 1),
        "parts_2": torch.full((3, 3), 0.4),
        "part_ids_2": torch.full((3, 1), 2.0),
    }
    cut = Cut(torch.tensor([[1.0], [1.0], [torch.inf]]), torch.tensor([0.0, 0.0, 1.0]))
    opened = cut_open(images, cut, torch.tensor([[True], [False], [False]]))
    assert torch.allclose(opened["parts_2"], torch.tensor([CUT_COLOUR, (0.4,) * 3, (0.0,) * 3]))
    assert opened["part_ids_2"].tolist() == [[0.0], [2.0], [0.0]]


def test_settings_for_commands_leave_parts_as_they_are() -> None:
    images = {"alpha": torch.ones(1, 1), "parts": torch.zeros(1, 3), "parts_4": torch.ones(1, 3)}
    assert DisplaySettings().applied(images)["parts"] is images["parts"]
    assert DisplaySettings(parts=4).applied(images)["parts"] is images["parts_4"]
    assert "parts" not in DisplaySettings(parts=4).applied({"alpha": torch.ones(1, 1)})
