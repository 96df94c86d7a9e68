"""What a report says about parts, on a ball whose parts are bands one above the other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from surface_sos_ns.report.parts import over_photo, parts_report
from surface_sos_ns.utils.identity_colours import identity_colours
from tests.helpers.ball_run import HELD_OUT, NAMES, BallRun, give_parts, open_ball, true_parts


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ball") / "capture"
    open_ball(folder)
    return folder


@pytest.fixture
def run(capture: Path) -> BallRun:
    return open_ball(capture)


def with_truth(run: BallRun, known: set[str], parts: int, numbers: list[int]) -> Any:
    """The views as scoring has them: true parts are bands, by other numbers than the run's."""
    files = [Path(view.name) if view.name in known else None for view in run.views]

    def identities(index: int) -> np.ndarray | None:
        seen = true_parts(run.views[index].camera, parts)
        return np.array([0, *numbers])[seen] if files[index] is not None else None

    return SimpleNamespace(metadata={"gt_parts_filenames": files}, get_part_identities=identities)


def test_without_parts_there_is_nothing(run: BallRun) -> None:
    assert parts_report(run, with_truth(run, set(NAMES), 3, [1, 2, 3]), 480) is None
    assert run.asked == []


def test_parts_are_those_of_the_latest_result(run: BallRun, tmp_path: Path) -> None:
    give_parts(run, tmp_path, 5)
    give_parts(run, tmp_path, 3)
    found = parts_report(run, with_truth(run, set(), 3, [1, 2, 3]), 480)
    assert found is not None and found.others == [5] and found.features == "guesses"
    assert [(part.number, part.pieces) for part in found.parts] == [(1, 1), (2, 1), (3, 1)]
    assert [part.share for part in found.parts] == pytest.approx([1 / 3] * 3)
    assert [list(part.colour) for part in found.parts] == np.rint(identity_colours(3) * 255).tolist()
    assert found.metrics == {} and found.measured == (0, False)
    assert list(found.pictures) == list(NAMES)
    view = run.views[0]
    truth, photo = true_parts(view.camera, 3), view.photo()
    where = cv2.erode((truth == 2).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert where.sum() > 20, "away from the outlines that are drawn"
    mixed = 0.35 * photo[where] + 0.65 * 255 * identity_colours(3)[1]
    assert np.abs(found.pictures[view.name][where].astype(int) - mixed).max() <= 1


def test_true_parts_are_compared_whatever_their_numbers_on_held_out_photos(run: BallRun, tmp_path: Path) -> None:
    give_parts(run, tmp_path, 3)
    found = parts_report(run, with_truth(run, set(NAMES), 3, [2, 3, 1]), 480)
    assert found is not None and found.measured == (1, True)
    assert found.metrics["parts_nmi"] == pytest.approx(1) and found.metrics["parts_ari"] == pytest.approx(1)
    assert 0.95 < found.metrics["parts_share"] <= 1
    trained_on = parts_report(run, with_truth(run, set(NAMES) - {HELD_OUT}, 3, [1, 1, 2]), 480)
    assert trained_on is not None and trained_on.measured == (3, False)
    assert 0.2 < trained_on.metrics["parts_ari"] < 0.95, "two of its parts are one"


def test_small_pictures_are_compared_with_the_truth_at_their_size(run: BallRun, tmp_path: Path) -> None:
    give_parts(run, tmp_path, 3)
    found = parts_report(run, with_truth(run, set(NAMES), 3, [1, 2, 3]), 31)
    assert found is not None and max(picture.shape[1] for picture in found.pictures.values()) == 31
    assert found.metrics["parts_ari"] > 0.8


def test_a_part_that_a_photo_does_not_show_leaves_it_as_it_is() -> None:
    photo = np.full((6, 6, 3), 90, np.uint8)
    assert (over_photo(photo, np.zeros((6, 6), np.uint8), 4) == photo).all()
