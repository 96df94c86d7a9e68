"""What a report says about several objects, on a ball whose slices are the objects."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh

from surface_sos_ns.report.collect import _object_metrics, _sentences
from surface_sos_ns.report.content import Content, ViewReport
from surface_sos_ns.report.objects import objects_report
from surface_sos_ns.report.page import page
from surface_sos_ns.report.turntable import COLUMNS, Turntable, turntable
from surface_sos_ns.utils.identity_colours import identity_bytes
from tests.helpers.ball_run import HELD_OUT, NAMES, open_ball
from tests.helpers.sliced_ball_run import OBJECTS, SlicedBallRun, open_sliced_ball, true_shares


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ball") / "capture"
    open_ball(folder)
    return folder


@pytest.fixture
def run(capture: Path) -> SlicedBallRun:
    return open_sliced_ball(capture)


def identities(run: SlicedBallRun, index: int) -> np.ndarray:
    shares = true_shares(run.views[index].camera)
    return ((shares.argmax(-1) + 1) * (shares.sum(-1) > 0.5)).astype(np.uint8)


def with_truth(run: SlicedBallRun, known: set[str]) -> Any:
    """The views as scoring has them. In the truth the upper half of each lid is knob."""
    files = [Path(view.name) if view.name in known else None for view in run.views]

    def truth(index: int) -> np.ndarray | None:
        found = identities(run, index).astype(np.int64)
        rows = np.flatnonzero((found == 2).any(axis=1))
        found[: rows.mean().astype(int)][found[: rows.mean().astype(int)] == 2] = 3
        return found if files[index] is not None else None

    return SimpleNamespace(metadata={"gt_objects_filenames": files}, get_true_identities=truth)


def reports(run: SlicedBallRun) -> list[ViewReport]:
    return [
        ViewReport(view.name, view.held_out, "missing", 0.1, identities=identities(run, view.index))
        for view in run.views
    ]


def a_prior(run: SlicedBallRun) -> Any:
    """Coarse masks of the photos trained on: the first shows its pot as lid, the second is missing."""
    first, third = identities(run, 0), identities(run, 2)
    return SimpleNamespace(identities=[np.where(first == 1, 2, first), None, third])


def test_of_one_object_there_is_nothing(capture: Path) -> None:
    run = open_ball(capture)
    assert objects_report(run, with_truth(run, set(NAMES)), None, [], 480) is None  # type: ignore[arg-type]
    assert run.asked == []


@pytest.mark.seconds(2)
def test_each_object_is_measured_over_all_pixels(run: SlicedBallRun) -> None:
    found = objects_report(run, with_truth(run, set(NAMES)), a_prior(run), reports(run), 480)
    assert found is not None and [one.name for one in found.objects] == list(OBJECTS)
    assert [list(one.colour) for one in found.objects] == identity_bytes(3).tolist()
    seen = [identities(run, index) for index in range(4)]
    for identity, one in enumerate(found.objects, start=1):
        assert one.photos == sum((image == identity).any() for image in seen) == 4
        assert one.area == pytest.approx(np.mean([(image == identity).mean() for image in seen]))
        assert one.picture is not None and one.picture.shape == (45, 61, 4) and one.picture.dtype == np.uint8
    pot, lid = ((seen[0] == k).sum() for k in (1, 2))
    third = [(seen[2] == k).sum() for k in (1, 2)]
    agreements = [one.agreement for one in found.objects]
    assert agreements == pytest.approx([third[0] / (pot + third[0]), (lid + third[1]) / (lid + pot + third[1]), 1.0])
    # The truth of the held-out photo alone.
    assert found.measured == (1, True)
    true = with_truth(run, set(NAMES)).get_true_identities(3)
    both, either = (seen[3] == 2) & (true == 2), (seen[3] == 2) | (true == 2)
    assert found.objects[1].iou == pytest.approx(both.sum() / either.sum()) and 0.2 < both.sum() / either.sum() < 0.8
    assert [one.true_pixels for one in found.objects] == [(true == k).sum() for k in (1, 2, 3)]
    assert found.objects[0].iou == 1.0
    assert found.wrong_identity == pytest.approx((seen[3] != true).sum() / (true > 0).sum())


def test_without_truth_or_masks_nothing_is_said_of_them(run: SlicedBallRun) -> None:
    found = objects_report(run, with_truth(run, set()), None, reports(run), 30)
    assert found is not None and found.measured == (0, False) and found.wrong_identity is None
    assert all(one.agreement is None and one.iou is None and one.true_pixels == 0 for one in found.objects)
    trained_on = objects_report(run, with_truth(run, set(NAMES) - {HELD_OUT}), None, reports(run), 30)
    assert trained_on is not None and trained_on.measured == (3, False)


def test_the_turntable_can_be_coloured_by_object() -> None:
    balls = [trimesh.creation.icosphere(3, 0.5) for _ in range(2)]
    balls[1].apply_translation([0, 0, 3.0])
    mesh: Any = trimesh.util.concatenate(balls)
    mesh.vertex_attributes["object"] = np.repeat([1, 2], len(balls[0].vertices))
    mesh.visual.vertex_colors = np.full((len(mesh.vertices), 4), 128, np.uint8)
    turned = turntable(mesh, np.array([0.0, 0.0, 1.0]), frames=2, side=80, elevation=0.0)
    assert turned.by_object is not None and turned.by_object.shape == (80, COLUMNS * 80, 4)
    for row, colour in ((65, identity_bytes(2)[0]), (15, identity_bytes(2)[1])):
        shown = turned.by_object[row, 40, :3].astype(float)
        assert shown / shown.max() == pytest.approx(colour / colour.max(), abs=0.03), "its colour, lit"
        assert np.ptp(turned.coloured[row, 40, :3]) == 0
    assert turntable(balls[0], np.array([0.0, 0.0, 1.0]), frames=2, side=20).by_object is None


def test_words_name_the_objects(run: SlicedBallRun) -> None:
    view = ViewReport("a.jpg", True, "given", 0.2, metrics={"mask_iou": 0.9})
    assert _sentences([view], "coarse mask", OBJECTS) == [
        "3 objects (pot, lid, knob) were found in all of 1 photos.",
        "On 1 photos that training never saw they reach a mean IoU of 0.900, over photos and objects, against the "
        "truth.",
    ]
    assert {key for key, *_ in _object_metrics(run)} == {
        *("mask_iou_pot", "mask_iou_lid", "mask_iou_knob", "mask_iou_all", "mask_wrong_identity"),
    }


@pytest.fixture
def content(run: SlicedBallRun) -> Content:
    ball: Any = open_ball(run.capture).mesh()
    ball.vertex_attributes["object"] = np.where(ball.vertices[:, 2] > 0.5, 2, 1)
    photo = np.full((30, 40, 3), 90, np.uint8)
    cutout = np.full((30, 40, 4), 200, np.uint8)
    pictures = {"photo": photo, "mask": photo, "cutout": cutout, "repair": photo}
    return Content(
        title="table",
        method="surface-sos-lite",
        date="2026-01-02",
        sentences=["3 objects were found."],
        views=[ViewReport("a.jpg", False, "given", 0.2, 0.5, pictures=pictures)],
        masks="coarse mask",
        confidence=0.8,
        losses="No losses.",
        measures=[],
        last_step=99,
        mesh=turntable(ball, np.array([0.0, 0.0, 1.0]), frames=6, side=60),
        figures=[],
        settings=[],
        versions=[],
        objects=objects_report(run, with_truth(run, set(NAMES)), a_prior(run), reports(run), 480),
    )


def test_objects_have_a_section_with_a_row_each(content: Content) -> None:
    section = page(content).partition('<section id="objects">')[2].partition("</section>")[0]
    assert section.count("<img") == 3 and "1 photo that training never saw" in section
    _, *rows = re.findall(r"<tr><th.*?</tr>", section)
    assert [re.sub(r"<[^>]*>", " ", row).split()[0] for row in rows] == list(OBJECTS)
    assert "by object" in page(content)
    assert content.objects is not None
    unknown = dataclasses.replace(content.objects, measured=(0, False), wrong_identity=None)
    words = page(dataclasses.replace(content, objects=unknown))
    assert "true pixels" not in words and "never saw" not in words
    assert isinstance(content.mesh, Turntable)
    one = dataclasses.replace(content, objects=None, mesh=dataclasses.replace(content.mesh, by_object=None))
    assert 'id="objects"' not in page(one) and "by object" not in page(one)


@pytest.mark.browser
@pytest.mark.seconds(4)
def test_the_surface_is_coloured_by_object_at_a_click(content: Content, browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(content), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(file.as_uri())

    def shown() -> list[str]:
        return [name for name in ("coloured", "plain", "by-object") if tab.locator(f".sheet.{name}").is_visible()]

    assert shown() == ["coloured"]
    tab.check("input.objects")
    assert shown() == ["by-object"]
    tab.check("input.grey")
    assert shown() == ["plain"]
    tab.uncheck("input.objects")
    tab.uncheck("input.grey")
    assert shown() == ["coloured"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
    tab.close()
