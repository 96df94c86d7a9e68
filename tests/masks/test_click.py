"""Clicks to masks on a small textured scene, the session around them, and the page in a real browser."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.masks import points_to_masks
from surface_sos_ns.masks.click import Click, ClickSession
from surface_sos_ns.masks.click_page import pixel_of_ray
from surface_sos_ns.masks.points_to_masks import ClickedPoint, mask_of_clicks, masks_from_clicks
from surface_sos_ns.masks.provider import MaskError, Photos
from tests.helpers.ball_views import iou
from tests.helpers.textured_ball import cameras_above, textured_ball


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    """A ball on a floor in 8 photos, and its true masks."""
    views = cameras_above(4)
    images, masks, _ = textured_ball(views)
    sizes = [(int(w), int(h)) for w, h in zip(views.width, views.height, strict=True)]
    return Photos([Path(f"images/{index}.png") for index in range(8)], images, views, sizes), masks


@pytest.fixture(autouse=True)
def coarse_hull(monkeypatch) -> None:
    monkeypatch.setattr(points_to_masks, "RESOLUTION", 48)  # enough for small photos


def on_ball(mask: np.ndarray) -> tuple[float, float]:
    """The middle of a mask, in pixels."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def clicks_on(masks: list[np.ndarray], views: tuple[int, ...]) -> list[ClickedPoint]:
    return [ClickedPoint(view, *on_ball(masks[view]), True) for view in views]


def test_clicks_in_one_photo_select_what_looks_alike():
    photo = np.full((60, 100, 3), 40, np.uint8)
    photo[10:50, 10:40] = [200, 60, 40]
    photo[10:50, 60:90] = [40, 60, 200]
    photo = np.clip(photo + np.random.default_rng(0).integers(-8, 9, photo.shape), 0, 255).astype(np.uint8)
    left, right = np.zeros((60, 100), bool), np.zeros((60, 100), bool)
    left[10:50, 10:40] = right[10:50, 60:90] = True
    assert iou(mask_of_clicks(photo, [ClickedPoint(0, 25, 30, True)]), left) > 0.9
    both = [ClickedPoint(0, 25, 30, True), ClickedPoint(0, 75, 30, True)]
    assert iou(mask_of_clicks(photo, both), left | right) > 0.9
    # A negative click takes a part of a mask away that was too large.
    corrected = mask_of_clicks(photo, [ClickedPoint(0, 75, 30, False), ClickedPoint(0, 25, 30, True)], left | right)
    assert iou(corrected, left) > 0.9
    assert not mask_of_clicks(photo, [ClickedPoint(0, 75, 30, False)]).any()


@pytest.mark.seconds(2)
def test_clicks_in_two_photos_find_the_object_in_all(scene):
    photos, truth = scene
    lines: list[str] = []
    found = masks_from_clicks(photos.images, photos.views, clicks_on(truth, (0, 3)), progress=lines.append)
    overlaps = [iou(mask >= 0.5, true) for mask, true in zip(found.masks, truth, strict=True)]
    assert min(overlaps) > 0.8 and np.mean(overlaps) > 0.88
    assert found.agreement.min() > 0.8
    assert np.linalg.norm(found.sphere.centre - [0, 0, 0.6]) < 0.2
    assert any("GrabCut of 8 photos" in line for line in lines)


@pytest.mark.seconds(2)
def test_negative_clicks_are_obeyed_in_the_end_result(scene):
    photos, truth = scene
    x, y = on_ball(truth[5])
    points = [*clicks_on(truth, (0, 3)), ClickedPoint(5, x, y, True), ClickedPoint(5, x + 12, y, False)]
    found = masks_from_clicks(photos.images, photos.views, points)
    assert found.masks[5][int(y), int(x)] == 1 and found.masks[5][int(y), int(x + 12)] == 0


def test_clicks_in_one_photo_are_too_few(scene):
    photos, truth = scene
    with pytest.raises(ValueError, match=r"clicked in 1 photo\(s\); click it in two"):
        masks_from_clicks(photos.images, photos.views, clicks_on(truth, (2,)))


def test_session(scene):
    photos, truth = scene
    session = ClickSession(photos)
    with pytest.raises(ValueError, match="Nothing is clicked yet"):
        session.propagate(str)
    session.click(0, -3.0, 20.0, True)
    session.click(0, 20.0, 1e4, True)
    assert session.points == [] and session.mask(0) is None
    np.testing.assert_array_equal(session.picture(), photos.images[0])
    x, y = on_ball(truth[0])
    session.click(0, x, y, True)
    session.click(0, 3.0, 3.0, False)
    assert iou(session.mask(0), truth[0]) > 0.8
    picture = session.picture()
    assert picture[int(y), int(x), 1] > 200 > picture[int(y), int(x), 0]  # a green dot
    assert picture[3, 3, 0] > 200 > picture[3, 3, 1]  # a red one
    assert session.clicked == [0]
    session.show(-1)
    assert session.shown == 7 and session.mask(7) is None
    session.undo()  # goes to where the point was
    assert session.shown == 0 and [point.positive for point in session.points] == [True]
    session.undo()
    session.undo()  # nothing is left
    assert session.points == [] and session.mask(0) is None


@pytest.mark.seconds(4)
def test_session_shows_clicks_after_propagating(scene):
    photos, truth = scene
    session = ClickSession(photos)
    for point in clicks_on(truth, (0, 3)):
        session.click(point.view, point.x, point.y, point.positive)
    assert "Propagate" in session.status()
    found = session.propagate(str)
    assert session.propagate(str) is found  # nothing was clicked since
    assert iou(session.mask(6), truth[6]) > 0.8
    assert "agree in 3D" in session.status()
    x, y = on_ball(truth[6])
    session.click(6, x + 10, y, False)
    assert not session.mask(6)[int(y), int(x + 10)] and iou(session.mask(5), truth[5]) > 0.8
    assert "since the last" in session.status()
    assert session.propagate(str) is not found


def test_names_and_errors_are_code_in_the_words_beside_the_photo(scene):
    photos, _ = scene
    named = dataclasses.replace(photos, files=[Path("images/{alert(1)}`<b>.png"), *photos.files[1:]])
    status = ClickSession(named).status("{alert(2)} in a\n\n{name}")
    assert "`{alert(1)}'<b>.png`" in status and status.startswith("`{alert(2)} in a  {name}`\n")


def test_pixel_of_ray():
    # From straight ahead through a point 0.1 right of and 0.2 above the middle of a photo of 100 x 200 (height, width).
    x, y = pixel_of_ray((0.0, -2.0, 0.0), (0.1, 2.0, 0.2), 100, 200)
    assert (x, y) == pytest.approx((110, 30))
    # The same point seen from elsewhere is the same pixel.
    assert pixel_of_ray((1.0, -3.0, 0.5), (-0.9, 3.0, -0.3), 100, 200) == pytest.approx((110, 30))
    assert pixel_of_ray((0.0, -2.0, 0.0), (0.0, -1.0, 0.0), 100, 200) is None  # looks away
    assert pixel_of_ray((0.0, -2.0, 0.0), (1.0, 0.0, 0.0), 100, 200) is None


def test_mistakes_are_told_before_any_work(scene):
    with pytest.raises(MaskError, match="from 1 to 65535"):
        Click(port=0)
    with pytest.raises(MaskError, match="No page can be served at 192.0.2.1"):
        Click(host="192.0.2.1").check()
    photos, _ = scene
    one = Photos(photos.files[:1], photos.images[:1], photos.views.subset([0]), photos.sizes[:1])
    with pytest.raises(MaskError, match="needs 2 at least"):
        Click().masks(one, str)


class Running:
    """The provider in a thread of its own, as long as a browser is tried out on it."""

    def __init__(self, photos: Photos) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.lines: list[str] = []
        self.result = self.error = None
        self.session: ClickSession | None = None
        self.thread = threading.Thread(target=self._run, args=(Click(port=port), photos), daemon=True)
        self.thread.start()
        wait(lambda: any("http://" in line for line in self.lines))
        self.address = next(word for word in self.lines[0].split() if word.startswith("http://")).rstrip(",")

    def _run(self, provider: Click, photos: Photos) -> None:
        provider.check()
        try:
            self.result = provider.masks(photos, self.lines.append)
        except Exception as error:
            self.error = error


def wait(condition, seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def _corners(page) -> tuple[float, float, float, float]:
    """Left, top, width, height of the photo on the screen: what is not of the page's white background."""
    import io

    from PIL import Image

    box = page.locator("canvas[data-engine]").bounding_box()  # three.js's own
    clip = {key: box[key] for key in ("x", "y", "width", "height")}
    screen = np.array(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).astype(int)
    rows, columns = np.nonzero(screen.min(axis=2) < 235)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return box["x"] + float(left), box["y"] + float(top), float(right - left), float(bottom - top)


def _settled_corners(page) -> tuple[float, float, float, float]:
    """As above, once the picture is loaded and drawn and the camera stands still."""
    before = None
    for _ in range(40):
        page.wait_for_timeout(500)
        try:
            now = _corners(page)
        except ValueError:  # nothing is drawn yet
            continue
        if now == before:
            return now
        before = now
    raise AssertionError("the photo never came to rest")


@pytest.mark.browser
@pytest.mark.seconds(25)
def test_clicking_in_a_browser(scene, browser, monkeypatch, tmp_path):
    photos, truth = scene
    sessions: list[ClickSession] = []
    begin = ClickSession.__init__
    monkeypatch.setattr(ClickSession, "__init__", lambda self, photos: (begin(self, photos), sessions.append(self))[0])
    running = Running(photos)
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    page.goto(running.address)
    page.get_by_text("Photo 1 of 8").wait_for()
    page.get_by_text("Done", exact=True).click()
    page.get_by_text("Nothing is clicked yet").wait_for()

    def click_ball(view: int) -> None:
        page.get_by_text(f"Photo {view + 1} of 8").wait_for()
        x, y = on_ball(truth[view])
        rows, columns = truth[view].shape
        left, top, width, height = _settled_corners(page)
        assert width / height == pytest.approx(columns / rows, rel=0.02)
        count = len(sessions[0].points)
        page.mouse.click(left + x / columns * width, top + y / rows * height)
        wait(lambda: len(sessions[0].points) > count)
        point = sessions[0].points[-1]
        assert (point.view, point.positive) == (view, True)
        assert np.hypot(point.x - x, point.y - y) < 2

    click_ball(0)
    left, top, _, _ = _settled_corners(page)
    page.mouse.click(left - 6, top - 6)  # beside the photo: nothing happens
    page.get_by_text("Next photo").click()
    click_ball(1)
    page.set_viewport_size({"width": 800, "height": 700})  # another window: the photo is fitted again
    other = browser.new_page(viewport={"width": 700, "height": 500})  # a second browser looks on
    other.goto(running.address)
    other.get_by_text("Photo 2 of 8").wait_for()
    page.get_by_text("Next photo").click()
    click_ball(2)
    other.get_by_text("Photo 3 of 8").wait_for()
    other.close()
    page.screenshot(path=tmp_path / "page.png")
    page.get_by_text("Done", exact=True).click()
    page.get_by_text("Working").wait_for()
    page.close()  # what was begun goes on
    running.thread.join(240)
    assert running.error is None and running.result is not None
    assert len(sessions[0].points) == 3
    assert any("the page was closed" in line for line in running.lines)
    overlaps = [iou(mask >= 0.5, true) for mask, true in zip(running.result.masks, truth, strict=True)]
    assert np.mean(overlaps) > 0.85
