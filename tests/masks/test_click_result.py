"""Corrections of a run's masks: clicked in a few photos, carried to the others over surfaces that are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from surface_sos_ns.cli.masks import Masks
from surface_sos_ns.masks.click_result import ResultSession, certainty, corrected_mask
from surface_sos_ns.masks.points_to_masks import ClickedPoint
from surface_sos_ns.masks.provider import MaskError, Photos
from surface_sos_ns.masks.surface_transfer import added_beyond, surface_places, transferred
from surface_sos_ns.plugin.command_line import changed_options
from tests.helpers.ball_views import iou, ring, sphere_masks

CENTRE, RADIUS = np.zeros(3), 0.6
VIEWS = ring(9, distance=3.6, size=(96, 72), focal=110.0).subset([1, 2, 4, 8, 7])
"""All of them see the floor; the first and the third look from the side of the disc on it."""


def floor_and_ball(view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (H, W) along the rays of a ball on the plane z = -0.6, what is ball, and places on the plane (H, W, 2)."""
    height, width = int(VIEWS.height[view]), int(VIEWS.width[view])
    rows, columns = np.mgrid[:height, :width] + 0.5
    rays = VIEWS.rays(view, np.stack([columns.ravel(), rows.ravel()], axis=-1))
    eye = VIEWS.centres()[view]
    along = -rays @ eye
    inside = RADIUS**2 - (eye @ eye - along**2)
    ball = np.where(inside > 0, along - np.sqrt(np.maximum(inside, 0)), np.inf)
    with np.errstate(divide="ignore"):
        floor = (-RADIUS - eye[2]) / rays[:, 2]
    floor = np.where(floor > 0, floor, 50.0)
    depth = np.minimum(ball, floor)
    places = (eye + rays * floor[:, None])[:, :2]
    return depth.reshape(height, width), (ball < floor).reshape(height, width), places.reshape(height, width, 2)


def beside_the_ball(view: int) -> np.ndarray:
    """(H, W) bool: a disc on the floor beside the ball, as a photo shows it."""
    depth, ball, places = floor_and_ball(view)
    return (np.linalg.norm(places - [0.0, 0.9], axis=-1) < 0.25) & ~ball & (depth < 40)


def test_places_of_pixels_are_on_the_surfaces():
    depth, ball, _ = floor_and_ball(0)
    places = surface_places(VIEWS, 0, depth)
    np.testing.assert_allclose(np.linalg.norm(places[ball], axis=-1), RADIUS, atol=1e-6)
    np.testing.assert_allclose(places[~ball & (depth < 40)][:, 2], -RADIUS, atol=1e-6)


@pytest.mark.parametrize("added", [True, False])
def test_what_changes_in_one_photo_changes_in_those_that_see_the_same_place(added):
    depths = [floor_and_ball(view)[0] for view in range(len(VIEWS))]
    balls = sphere_masks(VIEWS, CENTRE, RADIUS)
    both = [ball | beside_the_ball(view) for view, ball in enumerate(balls)]
    before, after = (balls, both) if added else (both, balls)
    found = transferred(VIEWS, [mask.astype(np.float32) for mask in before], depths, {0: after[0]})
    part = beside_the_ball(2)
    assert part.sum() > 60
    assert iou(found[2] >= 0.5, after[2]) > 0.97
    assert (found[2] >= 0.5)[part].mean() == pytest.approx(1.0 if added else 0.0, abs=0.15)


def test_places_that_no_corrected_photo_sees_stay():
    """The ball's far side is taken away in one photo only as far as that photo shows it."""
    depths = [floor_and_ball(view)[0] for view in range(len(VIEWS))]
    balls = sphere_masks(VIEWS, CENTRE, RADIUS)
    empty = np.zeros_like(balls[0])
    found = transferred(VIEWS, [mask.astype(np.float32) for mask in balls], depths, {0: empty})
    other = max(range(1, 5), key=lambda view: np.linalg.norm(VIEWS.centres()[view] - VIEWS.centres()[0]))
    places = surface_places(VIEWS, other, depths[other])
    hidden = balls[other] & (places @ VIEWS.centres()[0] < 0.0)  # on the side away from the first camera
    assert hidden.sum() > 50 and (found[other][hidden] >= 0.5).all()
    assert (found[other][balls[other] & ~hidden] < 0.5).mean() > 0.5


def test_contradictions_leave_a_mask_as_it_is():
    depths = [floor_and_ball(view)[0] for view in range(3)]
    three = VIEWS.subset([0, 2, 1])
    balls = [mask.astype(np.float32) for mask in sphere_masks(three, CENTRE, RADIUS)]
    with_disc = [(ball >= 0.5) | beside_the_ball(view) for view, ball in enumerate(balls)]
    balls[1] = with_disc[1].astype(np.float32)
    found = transferred(three, balls, depths, {0: with_disc[0], 1: balls[1] * ~beside_the_ball(1) >= 0.5})
    assert ((found[2] >= 0.5) == (balls[2] >= 0.5))[beside_the_ball(2)].mean() > 0.75


def three_squares() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A photo of three squares on grey, a mask of the first two, and each of them."""
    photo = np.full((120, 160, 3), 128, np.uint8)
    squares = []
    for column, colour in ((20, (200, 40, 40)), (70, (40, 180, 60)), (120, (50, 60, 210))):
        square = np.zeros((120, 160), bool)
        square[45:75, column : column + 28] = True
        photo[square] = colour
        squares.append(square)
    photo = cv2.GaussianBlur(photo, (0, 0), 0.6)
    return photo, squares[0] | squares[1], squares


def test_clicks_add_and_remove_what_they_are_on_and_nothing_else():
    photo, mask, squares = three_squares()
    less = corrected_mask(photo, [ClickedPoint(0, 84, 60, False)], mask)
    assert iou(less, squares[0]) > 0.9
    more = corrected_mask(photo, [ClickedPoint(0, 134, 60, True)], mask)
    assert iou(more, squares[0] | squares[1] | squares[2]) > 0.9
    both = corrected_mask(photo, [ClickedPoint(0, 84, 60, False), ClickedPoint(0, 134, 60, True)], mask)
    assert iou(both, squares[0] | squares[2]) > 0.9


def test_a_wrong_piece_that_touches_the_object_goes_alone():
    """As a white wall behind a white cat: clicks on other parts of the object do not make the rest of it go."""
    photo, _, squares = three_squares()
    column = np.nonzero(squares[1])[1].max() + 1
    wall = np.zeros_like(squares[1])
    wall[45:75, column : column + 12] = True
    photo[wall] = (60, 190, 80)  # nearly the colour of the square that it touches
    photo[45:75, column] = 30
    mask = squares[0] | squares[1] | wall
    clicks = [ClickedPoint(0, 34, 60, True), ClickedPoint(0, 134, 60, True), ClickedPoint(0, column + 6.5, 60, False)]
    found = corrected_mask(photo, clicks, mask)
    assert iou(found, squares[0] | squares[1] | squares[2]) > 0.9


def test_certainty_is_one_minus_what_is_undecided_times_the_agreement():
    matte = np.zeros((10, 10))
    matte[:, :4] = 1.0
    assert certainty(matte, None) == 1.0
    matte[:, 4] = 0.25  # undecided: 10 * 0.25 of 42.5
    assert certainty(matte, None) == pytest.approx(1 - 2.5 / 42.5)
    given = np.zeros((10, 10))
    given[:, :8] = 1.0
    assert certainty(matte, given) == pytest.approx((1 - 2.5 / 42.5) * 0.5)


def session() -> ResultSession:
    photo, mask, _ = three_squares()
    views = ring(2, size=(160, 120))
    photos = Photos([Path("a.jpg"), Path("b.jpg")], [photo, photo], views, [(160, 120)] * 2)
    return ResultSession(photos, [mask.astype(np.float32)] * 2, views, [np.full((120, 160), 4.0)] * 2)


def test_a_session_shows_the_runs_masks_and_wants_a_change():
    one = session()
    assert (one.mask(0) == (one.mattes[0] >= 0.5)).all() and "least certain first: `a.jpg`" in one.status()
    with pytest.raises(MaskError, match="Nothing is clicked"):
        one.propagate(print)
    one.click(0, 34, 60, True)  # in the mask already
    with pytest.raises(MaskError, match="change nothing"):
        one.propagate(print)
    one.click(0, 84, 60, False)
    assert one.mask(0)[60, 84] == 0 and one.mask(1)[60, 84] == 1 and "*Propagate*" in one.status()
    one.propagate(print)
    found = one.coarse_masks()
    assert found.masks[0][60, 84] == 0 and found.masks[0][60, 34] == 1
    assert "corrected in 1 photos (2 clicks), which changes" in found.remarks[0]
    one.undo()
    one.undo()
    assert (one.mask(0) == (one.mattes[0] >= 0.5)).all()


@dataclasses.dataclass
class Inner:
    size: int = 3
    shape: tuple[int, int] = (1, 2)


@dataclasses.dataclass
class Outer:
    name: str = "a"
    inner: Inner = dataclasses.field(default_factory=Inner)
    many: dict[str, int] = dataclasses.field(default_factory=dict)


def test_options_that_lead_from_a_preset_to_a_run():
    assert changed_options(Outer(), Outer()) == []
    run = Outer("b c", Inner(4, (1, 5)), {"x": 1})
    assert changed_options(run, Outer()) == ["--name", "b c", "--inner.size", "4", "--inner.shape", "1", "5"]
    assert changed_options(run, Outer(), without=("name", "inner.size")) == ["--inner.shape", "1", "5"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "prior"}, "--load-config goes with --method click"),
        ({"method": "click", "images": Path("x")}, "--images does not go with --load-config"),
        ({"method": "click", "names": ("a",)}, "--names does not go with --load-config"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(options, words, tmp_path):
    with pytest.raises(MaskError, match=words):
        Masks(load_config=tmp_path / "config.yml", **options).main()


def test_share_of_what_was_added_outside_a_sphere():
    depths = [floor_and_ball(view)[0] for view in range(3)]
    three = VIEWS.subset([0, 1, 2])
    balls = [mask.astype(np.float32) for mask in sphere_masks(three, CENTRE, RADIUS)]
    after = [np.maximum(ball, beside_the_ball(view)) for view, ball in enumerate(balls)]
    middle = np.array([0.0, 0.9, -RADIUS])  # of the disc on the floor
    assert added_beyond(three, balls, after, depths, middle, 0.3) == pytest.approx(0.0, abs=0.02)
    assert added_beyond(three, balls, after, depths, CENTRE, 0.3) == 1.0
    assert added_beyond(three, balls, balls, depths, CENTRE, 0.3) == 0.0
    # A circle of half the radius has a quarter of the area.
    assert added_beyond(three, balls, after, depths, middle, 0.125) == pytest.approx(0.75, abs=0.08)
