"""Clicks on several objects: points to masks, the session, and the page in a real browser."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.masks import points_to_masks
from surface_sos_ns.masks.click import Click
from surface_sos_ns.masks.click_objects import ObjectClickSession, clicks_on, objects_from_clicks
from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.points_to_masks import ClickedPoint
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos
from surface_sos_ns.utils.identity_colours import identity_bytes
from tests.helpers.ball_views import iou
from tests.helpers.three_balls import cameras_around_balls, three_balls

NAMES = ("big_can", "cup")


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    """Three balls in 8 photos, and their true identities; the third is part of the background here."""
    views = cameras_around_balls(8)
    images, identities, _ = three_balls(views)
    files = [Path(f"images/{index}.png") for index in range(8)]
    return Photos(files, images, views, views.sizes()), identities


@pytest.fixture(autouse=True)
def coarse_hull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points_to_masks, "RESOLUTION", 48)  # enough for small photos


def middle(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def on_object(truth: list[np.ndarray], view: int, identity: int) -> ClickedPoint:
    return ClickedPoint(view, *middle(truth[view] == identity), True, identity)


def test_points_of_others_count_against_an_object() -> None:
    points = [
        ClickedPoint(0, 1, 2, True, 1),
        ClickedPoint(0, 3, 4, False, 1),
        ClickedPoint(0, 5, 6, True, 2),
        ClickedPoint(0, 7, 8, False, 2),  # not the cup: it may well be the can
    ]
    assert [(point.x, point.positive) for point in clicks_on(points, 1)] == [(1, True), (3, False), (5, False)]
    assert [(point.x, point.positive) for point in clicks_on(points, 2)] == [(5, True), (7, False), (1, False)]


@pytest.mark.seconds(5)
def test_two_clicks_on_each_object_find_both_in_all_photos(scene: tuple[Photos, list[np.ndarray]]) -> None:
    photos, truth = scene
    points = [on_object(truth, view, identity) for view in (1, 3) for identity in (1, 2)]
    lines: list[str] = []
    found = objects_from_clicks(photos, points, NAMES, lines.append)
    assert any(line.startswith("cup: clicks: round 1") for line in lines)
    for identity in (1, 2):
        pairs = zip(found.identities, truth, strict=True)
        ious = [iou(owner == identity, true == identity) for owner, true in pairs if (true == identity).sum() > 100]
        assert np.mean(ious) > 0.85
    swapped = np.mean([((owner == 1) & (true == 2)).sum() for owner, true in zip(found.identities, truth, strict=True)])
    assert swapped < 10  # pixels a photo
    assert found.agreement.min() > 0.6


def test_every_object_has_to_be_clicked_in_two_photos(scene: tuple[Photos, list[np.ndarray]]) -> None:
    photos, truth = scene
    points = [on_object(truth, 1, 1), on_object(truth, 3, 1), on_object(truth, 1, 2)]
    with pytest.raises(MaskError, match="so far cup in 1"):
        objects_from_clicks(photos, points, NAMES)


@pytest.mark.seconds(6)
def test_session_of_several_objects(scene: tuple[Photos, list[np.ndarray]]) -> None:
    photos, truth = scene
    session = ObjectClickSession(photos, NAMES)
    with pytest.raises(MaskError, match="so far big_can in 0, cup in 0"):
        session.propagate(str)
    np.testing.assert_array_equal(session.picture(), photos.images[0])
    session.show(1)
    session.click(1, *middle(truth[1] == 1), True)
    assert "**big can**" in session.status() and "big can 1, cup 0" in session.status()
    session.choose(7)  # there is no such object
    session.choose(2)
    session.click(1, *middle(truth[1] == 2), True)
    session.click(1, -1.0, 5.0, True)  # beside the photo
    assert "**cup**" in session.status()
    assert [point.identity for point in session.points] == [1, 2]
    shown = session.identities(1)
    assert shown is not None
    for identity in (1, 2):
        assert iou(shown == identity, truth[1] == identity) > 0.8
    # Each has its colour: outlines in it, and its points.
    picture = session.picture().astype(int)
    for colour in identity_bytes(2).astype(int):
        assert (np.abs(picture - colour).max(axis=2) == 0).sum() > 20
    for identity in (1, 2):
        session.choose(identity)
        session.click(3, *middle(truth[3] == identity), True)
    found = session.propagate(str)
    assert session.propagate(str) is found and "agree in 3D" in session.status()
    result = session.coarse_masks()
    assert isinstance(result, CoarseMasks) and result.names == NAMES and len(result.identities) == 8
    x, y = middle(truth[6] == 1)
    session.click(6, x, y, True)  # said to be the cup: the can gives way
    assert session.identities(6)[int(y), int(x)] == 2 and "since the last" in session.status()
    session.undo()
    assert session.identities(6)[int(y), int(x)] == 1


def test_options() -> None:
    assert Click(names=("a", "b")).names == ("a", "b") and Click().names == ()
    assert Click(objects=3).names == ("object_1", "object_2", "object_3")
    with pytest.raises(MaskError, match="needs the number of objects"):
        Click(objects=0)
    with pytest.raises(MaskError, match="expected 32 at most"):
        chosen_names(33, ())


@pytest.mark.browser
@pytest.mark.seconds(20)
@pytest.mark.parametrize("width", [1100, 390])
def test_objects_are_chosen_by_buttons_and_keys(scene, browser, tmp_path: Path, width: int) -> None:
    """On a computer and on a phone; the page says which object the next clicks are for."""
    photos, truth = scene
    lines: list[str] = []
    results: list[CoarseMasks] = []
    provider = Click(port=17008, names=NAMES)
    sessions: list[ObjectClickSession] = []
    provider._session = lambda given: sessions.append(ObjectClickSession(given, NAMES)) or sessions[0]
    thread = threading.Thread(target=lambda: results.append(provider.masks(photos, lines.append)), daemon=True)
    thread.start()
    wait(lambda: any("http://" in line for line in lines))
    address = next(word for word in lines[0].split() if word.startswith("http://")).rstrip(",")
    assert "every object" in lines[0]
    phone = browser.new_context(viewport={"width": width, "height": 760}, is_mobile=width < 576, has_touch=width < 576)
    page = phone.new_page()
    page.goto(address)
    page.get_by_text("Photo 1 of 8").wait_for()
    page.get_by_role("button", name="2 cup").click()
    page.get_by_text("The next clicks are for cup").wait_for()
    page.keyboard.press("1")
    page.get_by_text("The next clicks are for big can").wait_for()
    page.keyboard.press("9")  # no such object
    page.keyboard.press("2")
    page.get_by_text("The next clicks are for cup").wait_for()
    for view in (1, 3):
        for identity in (1, 2):
            sessions[0].choose(identity)
            sessions[0].click(view, *middle(truth[view] == identity), True)
    page.get_by_text("Next photo").click()
    page.get_by_text("big can 2, cup 2").wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / "page.png")
    box = page.get_by_role("button", name="2 cup").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= page.evaluate("innerWidth")
    page.get_by_text("Done", exact=True).click()
    thread.join(120)
    phone.close()
    assert results[0].names == NAMES


def wait(condition, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
