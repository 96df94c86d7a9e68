"""Several objects in the viewer: which one the panel shows, and what a slice does to them.

The object is a ball of radius 0.5 about the origin; its halves along x are two objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.viewer.utils import get_camera

from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.plugin.outputs import NEEDS, OVERLAY_COLOUR, Need
from surface_sos_ns.plugin.viewer.display_settings import CUT_COLOUR, Cut, DisplaySettings, cut_open
from surface_sos_ns.plugin.viewer.nearest_photo import coarse_mask, mask_over_photo
from surface_sos_ns.plugin.viewer.object_boxes import frame_of_box
from surface_sos_ns.utils.identity_colours import identity_bytes, identity_colours
from tests.helpers.viewer_session import Session, small_model, viewer_session
from tests.plugin.viewer.test_controls import as_sent, rendered, wait_until

NAMES = ("left", "right")


@pytest.fixture(scope="module")
def model() -> SurfaceSOSModel:
    return small_model(NAMES)


@pytest.fixture
def session(model: SurfaceSOSModel, tmp_path: Path) -> Iterator[Session]:
    with viewer_session(model, tmp_path) as session:
        yield session


def sides(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) pixels that see the left half, and those that see the right one, both away from outlines."""
    camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    middle = -(rays.origins * rays.directions).sum(-1)
    missed = (rays.origins + middle[..., None] * rays.directions).square().sum(-1)
    depth = middle - (0.25 - missed).clamp(min=0).sqrt()
    x = (rays.origins + depth[..., None] * rays.directions)[..., 0]
    sure = (missed < 0.18).numpy()
    return sure & (x < -0.06).numpy(), sure & (x > 0.06).numpy()


# ------------------------------------------------------------------ what is shown


@pytest.mark.seconds(4)
def test_the_outputs_show_the_object_that_the_panel_names(session: Session) -> None:
    controls, (left, right) = session.model.viewer_controls, sides(session)
    assert controls.object is not None and list(controls.object.options) == ["all", "left", "right"]
    assert left.sum() > 100 and right.sum() > 100
    for name in ("mask", "foreground"):
        assert (session.image(name)[left | right].max(-1) > 0).all()
    photo = session.image("rgb")
    controls.object.value = "left"
    mask, overlay = session.image("mask"), session.image("overlay").astype(int)
    assert (mask[left] == 255).all() and (mask[right] == 0).all()
    assert (session.image("foreground")[right].max(-1) < 40).all()
    assert np.abs(overlay - photo)[right].mean() < 4, "the other object is not tinted"
    tinted = photo[left] / 2 + 127.5 * np.array(OVERLAY_COLOUR)
    assert np.abs(overlay[left] - tinted).mean() < 12
    controls.show.value, controls.colour.value = "object", (0, 255, 0)
    shown = session.image("rgb")
    assert np.abs(shown[left].astype(int) - photo[left]).mean() < 20 and (shown[right][:, 1] > 200).all()


def test_the_list_of_outputs_stays_short(session: Session) -> None:
    session.image()
    offered = list(session.viewer.control_panel._output_render.options)
    assert offered == [*NEEDS, "objects"], "the panel's own choice is for each of them"
    commands = set(session.model.output_needs())
    assert {"object_ids", *(f"{output}_{name}" for output in ("mask", "alpha") for name in NAMES)} <= commands


def test_objects_have_the_colours_of_the_legend(session: Session) -> None:
    image, colours = session.image("objects").astype(int), 255 * identity_colours(2)
    for pixels, colour in zip(sides(session), colours, strict=True):
        assert np.abs(image[pixels] - colour).mean() < 16


def test_the_threshold_counts_for_all_objects_and_the_larger_share_decides(session: Session) -> None:
    images, controls = rendered(session), session.model.viewer_controls
    alpha = images["alpha"][..., 0].numpy()
    owner = (images["alpha_right"] > images["alpha_left"])[..., 0].numpy()
    controls.object.value = "right"
    for threshold in (0.5, 0.1, 0.9):
        controls.threshold.value = threshold
        assert np.array_equal(session.image("mask")[..., 0] == 255, (alpha > threshold) & owner)


def test_one_object_has_no_choice_and_all_its_outputs() -> None:
    names = dict.fromkeys(("rgb", "mask", "object_depth", "mask_left"), Need.LAYERS)
    assert DisplaySettings().needs(names) == names
    assert DisplaySettings().needs(names, NAMES).keys() == names.keys() - {"mask_left"}


@pytest.mark.seconds(2)
def test_the_view_without_the_named_object_keeps_the_other(session: Session) -> None:
    controls, (left, right) = session.model.viewer_controls, sides(session)
    photo, plate = session.image("rgb").astype(int), session.image("background").astype(int)
    controls.object.value, controls.show.value = "left", "background"
    shown = session.image("rgb").astype(int)
    stays, goes = (np.abs(shown - photo)[pixels].mean() for pixels in (right, left))
    assert stays < 1.5 and goes > 2.5, "colours are not trained: all is nearly grey"
    assert np.abs(shown - plate)[left].mean() < 12, "behind the left half there is nothing of the right one"
    controls.object.value = "all"
    assert np.array_equal(session.image("rgb"), plate)


# ------------------------------------------------------------------ slice


def test_where_a_slice_opens_an_object_its_face_is_that_objects() -> None:
    """Of four rays two begin inside, one in each object; the third misses both, the fourth sees nothing."""
    images = {
        "alpha": torch.tensor([[0.2], [0.9], [0.6], [1.0]]),
        "rgb": torch.full((4, 3), 0.5),
        "foreground": torch.full((4, 3), 0.3),
        "objects": torch.zeros(4, 3),
        "object_ids": torch.zeros(4, 1),
        "alpha_left": torch.tensor([[0.2], [0.0], [0.6], [1.0]]),
        "alpha_right": torch.tensor([[0.0], [0.9], [0.0], [0.0]]),
    }
    cut = Cut(torch.tensor([[1.0], [1.0], [1.0], [torch.inf]]), torch.tensor([0.0, 0.0, 1.0]))
    opened = cut_open(images, cut, torch.tensor([[2], [1], [0], [0]]), NAMES)
    assert opened["object_ids"].flatten().tolist() == [2, 1, 1, 0]
    assert opened["alpha"].flatten().tolist() == pytest.approx([1, 1, 0.6, 0])
    assert opened["alpha_left"].flatten().tolist() == pytest.approx([0, 1, 0.6, 0])
    assert opened["mask_right"].tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]
    assert np.allclose(opened["objects"][:2], identity_colours(2)[::-1])
    face = torch.tensor(CUT_COLOUR)
    assert torch.allclose(opened["foreground_right"], torch.stack([face, 0 * face, 0 * face, 0 * face]))
    assert torch.allclose(opened["overlay_left"][0], face), "of the other object"


def test_a_slice_through_the_middle_opens_both(session: Session) -> None:
    controls, (left, right) = session.model.viewer_controls, sides(session)
    controls.slice.value, controls.object.value = "facing you", "right"
    face = np.floor(255 * np.array(CUT_COLOUR))
    shown = session.image("foreground").astype(int)
    assert np.abs(shown[right] - face).mean() < 6 and (shown[left].max(-1) < 40).mean() > 0.98


def test_where_a_point_lies(model: SurfaceSOSModel) -> None:
    points = torch.tensor([[-0.2, 0.1, 0.0], [0.3, 0.0, 0.1], [0.0, 0.0, 0.9], [-0.4, 0.0, 0.0]])
    assert model.object_at(points).tolist() == [1, 2, 0, 1]
    assert model.inside_object(points).tolist() == [True, True, False, True]


# ------------------------------------------------------------------ boxes, photos, export


def test_a_box_is_drawn_about_each_object(session: Session, model: SurfaceSOSModel) -> None:
    cell = 2 / 16  # of the grid that boxes are read from
    for name, x in (("left", (-0.5, 0.0)), ("right", (0.0, 0.5))):
        expected = torch.tensor([[x[0], -0.5, -0.5], [x[1], 0.5, 0.5]])
        assert (model.object_box(name) - expected).abs().max() < 1.5 * cell + 0.05
    controls = session.model.viewer_controls
    controls.boxes.value = True
    wait_until(lambda: len(controls._boxes) == 4)
    assert {handle._impl.name for handle in controls._boxes} >= {"/object_boxes/left", "/object_names/right"}
    controls.boxes.value = False
    wait_until(lambda: not controls._boxes)


def test_a_frame_has_the_twelve_edges_of_its_box() -> None:
    corners = np.array([[0.0, 1.0, 2.0], [4.0, 5.0, 4.0]])
    frame = frame_of_box(corners)
    width = 0.01 * 6  # its diagonal is 6
    assert np.allclose(frame.bounds, corners + np.array([[-width], [width]]) / 2)
    beams = frame.split()
    assert len(beams) == 12 and frame.volume == pytest.approx(4 * width**2 * (10 + 3 * width))
    middles = {tuple(beam.centroid.round(6)) for beam in beams}
    assert {(2, 1, 2), (2, 5, 4), (0, 3, 2), (4, 3, 4), (0, 1, 3), (4, 5, 3)} < middles


def test_coarse_identities_are_tinted_in_their_colours() -> None:
    photo, identities = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80), np.uint8)
    identities[:, :20], identities[:, 20:40] = 1, 2
    shown = mask_over_photo(photo, (identities > 0).astype(np.float32), identities, 40)
    assert shown.shape == (30, 40, 3) and (shown[:, 25:] == 100).all()
    for column, colour in ((5, identity_bytes(2)[0]), (15, identity_bytes(2)[1])):
        assert np.abs(shown[15, column] - (50 + colour / 2)).max() <= 1


def test_masks_found_before_training_bring_their_identities() -> None:
    mask, identity = np.ones((2, 2), np.float32), np.ones((2, 2), np.uint8)

    class Photos(SimpleNamespace):
        def __len__(self) -> int:
            return 2

    photos: Any = Photos(read_coarse_mask=[(None, None), (mask, 2 * identity)].__getitem__)
    prior: Any = SimpleNamespace(masks=[mask, mask], objects=NAMES, identities=[identity, identity])
    assert coarse_mask(photos, prior, 0) == (mask, identity)
    assert coarse_mask(photos, prior, 1)[1].max() == 2, "what was given comes first"
    assert coarse_mask(photos, None, 0) == (None, None)


def test_the_pictures_of_the_named_object_are_exported(session: Session, tmp_path: Path) -> None:
    controls, (left, right) = session.model.viewer_controls, sides(session)
    camera = get_camera(session.viewer.get_camera_state(session.browser), 48, 64)
    controls.object.value, controls.threshold.value = "right", 0.4
    assert "view_right_0001_mask.png" in controls.export_view(camera)
    pictures = {
        name: tmp_path / "exports" / f"view_right_0001_{name}.png"
        for name in ("mask", "matte", "cutout", "clean_plate")
    }
    mask, matte, cutout, plate = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in pictures.values())
    assert mask is not None and matte is not None and cutout is not None
    for picture, most in ((mask, 255), (matte / 65535, 1), (cutout[..., 3], 255)):
        assert (picture[right] > 0.9 * most).all() and (picture[left] < 0.1 * most).all()
    assert plate is not None
    photo = as_sent(rendered(session)["rgb"])[..., ::-1].astype(int)
    stays, goes = (np.abs(plate - photo)[pixels].mean() for pixels in (left, right))
    assert stays < 1.5 and goes > 2.5
    controls.object.value = "all"
    assert "view_0001_mask.png" in controls.export_view(camera)
    mask = cv2.imread(str(tmp_path / "exports" / "view_0001_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None and (mask[left | right] == 255).all()


def test_commands_get_the_outputs_of_each_object_whatever_the_panel_names(session: Session) -> None:
    controls = session.model.viewer_controls
    controls.object.value = "left"
    images = rendered(session)
    both = images["mask"].bool()
    assert torch.equal(images["mask_left"].bool() | images["mask_right"].bool(), both)
    assert np.array_equal(session.image("mask"), as_sent(images["mask_left"]))
