"""`surface-sos bench saliency`: measures against values computed by hand, and which files belong together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from surface_sos_ns.bench.saliency.folders import find_pairs
from surface_sos_ns.bench.saliency.measures import measure, summary
from surface_sos_ns.bench.settings import BenchError
from surface_sos_ns.cli import main
from surface_sos_ns.utils.image_io import write_image

TRUTH = np.zeros((8, 10), np.float32)
TRUTH[2:6, 3:8] = 1  # 20 of 80 pixels


# ------------------------------------------------------------------------------------------------------- measures


def test_a_perfect_prediction_has_every_measure_at_its_best() -> None:
    found = summary([measure(TRUTH, TRUTH)])
    e_best = 80 / 79  # the definition divides by the number of pixels less one
    for name in ("f_max", "s", "weighted_f", "iou"):
        assert found[name] == pytest.approx(1, abs=1e-6), name
    assert found["e_max"] == pytest.approx(e_best, rel=1e-6)
    assert found["mae"] == 0


def test_an_inverted_prediction_has_none_of_it_right() -> None:
    found = summary([measure(1 - TRUTH, TRUTH)])
    assert found["mae"] == 1 and found["iou"] == 0
    assert found["weighted_f"] < 0.05 and found["s"] < 0.05
    # All is object at the lowest threshold: precision 1/4, recall 1. At the others nothing is right.
    assert found["f_max"] == pytest.approx(1.3 * 0.25 / (0.3 * 0.25 + 1))
    assert found["f_mean"] == pytest.approx(found["f_max"] / 256)


def test_measures_by_hand() -> None:
    """The object at full, half and no saliency by thirds, and a false region at half."""
    truth, prediction = np.zeros((10, 30), np.float32), np.zeros((10, 30), np.float32)
    truth[:, :15] = 1  # 150 pixels
    prediction[:, :5] = 1
    prediction[:, 5:10] = prediction[:, 20:25] = 0.5  # 128 of 255
    found = measure(prediction, truth)
    error = (50 * (127 / 255) + 50 * 1 + 50 * (128 / 255)) / 300
    assert found.mae == pytest.approx(error, rel=1e-9)

    def f(precision: float, recall: float) -> float:
        return 1.3 * precision * recall / (0.3 * precision + recall)

    # The curve goes from threshold 255 to 0.
    assert found.f_curve[0] == pytest.approx(f(1, 50 / 150))
    assert found.f_curve[255 - 128] == pytest.approx(f(100 / 150, 100 / 150))
    assert found.f_curve[255] == pytest.approx(f(0.5, 1))
    assert found.iou == pytest.approx(100 / 200)  # 128 / 255 is above a half
    together = summary([found])
    assert together["f_max"] == pytest.approx(f(1, 1 / 3))
    assert together["f_mean"] == pytest.approx((127 * f(1, 1 / 3) + 128 * f(2 / 3, 2 / 3) + f(0.5, 1)) / 256)


def test_enhanced_alignment_of_a_binary_prediction_by_hand() -> None:
    """Fan et al., 2018: of every pixel the alignment of both maps, each less its mean."""
    prediction = np.zeros_like(TRUTH)
    prediction[2:6, 3:5] = 1
    mean_of_truth, mean_of_prediction = TRUTH.mean(), prediction.mean()
    a, b = TRUTH.astype(float) - mean_of_truth, prediction.astype(float) - mean_of_prediction
    alignment = 2 * a * b / (a**2 + b**2)
    expected = ((alignment + 1) ** 2 / 4).sum() / (TRUTH.size - 1)
    assert measure(prediction, TRUTH).e_curve[0] == pytest.approx(expected, rel=1e-6)


def test_one_threshold_holds_for_all_predictions() -> None:
    """Curves are averaged before their largest value is taken, and it makes a difference here."""
    shy = np.where(TRUTH > 0, 0.2, 0).astype(np.float32)
    shy[0, 0] = 1  # or it would be stretched
    bold = np.where(TRUTH > 0, 1, 0.6).astype(np.float32)
    bold[0, :] = 0
    each = [measure(one, TRUTH) for one in (shy, bold)]
    apart = np.mean([summary([one])["f_max"] for one in each])
    assert summary(each)["f_max"] < apart - 0.1


def test_predictions_are_stretched_to_the_full_range() -> None:
    faint = measure(0.2 + 0.4 * TRUTH, TRUTH)
    assert faint.mae == 0 and faint.f_curve[0] == pytest.approx(1)
    nothing = measure(np.zeros_like(TRUTH), TRUTH)  # constant, so it stays
    assert nothing.mae == 0.25 and nothing.iou == 0


# -------------------------------------------------------------------------------------------------------- folders


def grey(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of predictions, with a contact sheet and a mask of another size and suffix, and of true masks."""
    predictions, truth = tmp_path / "masks", tmp_path / "truth"
    predictions.mkdir()
    truth.mkdir()
    for name in ("a", "b"):
        write_image(truth / f"{name}.png", grey(TRUTH))
    write_image(predictions / "a.png", grey(TRUTH))
    write_image(predictions / "b.jpg", grey(TRUTH.repeat(20, 0).repeat(20, 1)), 95)
    write_image(predictions / "contact_sheet.jpg", np.zeros((5, 5, 3), np.uint8))
    return predictions, truth


def run(predictions: Path, truth: Path, *more: str) -> int:
    return main(["bench", "saliency", "--predictions", str(predictions), "--truth", str(truth), *more])


def test_folders_from_the_command_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    assert run(*folders, "--json", str(file)) == 0
    said = capsys.readouterr().out
    assert "weighted F" in said and "wF" in said and "contact_sheet.jpg" in said
    result = json.loads(file.read_text())
    assert result["count"] == 2 and result["without_truth"] == ["contact_sheet.jpg"]
    assert [image["truth"] for image in result["images"]] == ["a.png", "b.png"]
    assert result["mean"]["f_max"] == pytest.approx(1, abs=1e-6) and result["mean"]["mae"] < 0.01
    assert run(*folders, "--json", str(file)) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_mistakes_in_the_folders_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, truth = folders
    write_image(truth / "c.png", grey(TRUTH))
    with pytest.raises(BenchError, match=r"1 of 3 true masks in .*truth have no prediction in .*masks: c\.png"):
        find_pairs(predictions, truth)
    write_image(predictions / "c.png", grey(TRUTH.T))
    with pytest.raises(BenchError, match=r"c\.png has 8 x 10 pixels and .*c\.png 10 x 8; expected the same"):
        find_pairs(predictions, truth)
    write_image(predictions / "c.png", grey(TRUTH))
    write_image(predictions / "more" / "c.png", grey(TRUTH))
    assert len(find_pairs(predictions, truth)[0]) == 3, "the one in the same place"
    (tmp_path / "empty").mkdir()
    for two in ((tmp_path / "empty", truth), (predictions, tmp_path / "empty")):
        with pytest.raises(BenchError, match=r"empty has no image file in it \(\.bmp"):
            find_pairs(*two)


def test_a_folder_that_is_none_is_told(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders[0], folders[1] / "absent") == 1
    assert "absent is no folder" in capsys.readouterr().err
