"""Inputs of the quality benchmark: masks of baselines are made of all photos and scored, and the capture stays."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from surface_sos_ns.bench.quality.score import check, score_inputs
from surface_sos_ns.masks import methods
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos
from tests.helpers.capture_files import ball_capture
from tests.helpers.onnx_files import patch_network

needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is an optional dependency"
)

COUNT, HELD_OUT = 12, {"frame_010", "frame_011"}
"""Photos of the ball, and those that it holds out."""


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return ball_capture(tmp_path / "ball", count=COUNT, size=(96, 72), masks=False).save()


def read(path: Path) -> np.ndarray:
    """A mask (H, W) bool; empty where there is no file."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else np.zeros((72, 96))
    assert picture is not None
    return picture > 127


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def scored(capture: Path, folder: Path, method: str, **options: str) -> dict[str, Any]:
    folder.mkdir()
    score_inputs(str(capture), [], str(folder), {"method": method, "options": options})
    return json.loads((folder / "scores.json").read_text())


def stand_in(monkeypatch: pytest.MonkeyPatch, masks: Sequence[np.ndarray | None]) -> None:
    """A provider that has these masks."""

    class Given(MaskProvider):
        name, labels = "given", "none"

        def check(self) -> None:
            pass

        def masks(self, photos: Photos, progress: Any) -> CoarseMasks:
            place = {path.stem: index for index, path in enumerate(sorted(photos.files))}
            return CoarseMasks([masks[place[path.stem]] for path in photos.files], np.ones(len(photos)))

    monkeypatch.setattr(methods, "make_provider", lambda method, options: Given())


@needs_onnxruntime
@pytest.mark.seconds(6)
def test_cosegmentation_by_a_network_in_a_file(capture: Path, tmp_path: Path) -> None:
    # Mean red, green and blue of a patch: the ball is dark, all else is not.
    network = np.zeros((3, 3, 14, 14), np.float32)
    network[range(3), range(3)] = 1 / 14**2
    before = {path: path.read_bytes() for path in capture.rglob("*") if path.is_file()}
    file = patch_network(tmp_path / "net.onnx", network)
    found = scored(capture, tmp_path / "out", "cosegment", features_onnx=str(file))
    assert {path: path.read_bytes() for path in capture.rglob("*") if path.is_file()} == before
    views = {view["name"]: view for view in found["coarse masks"]["views"]}
    assert {name for name, view in views.items() if view["held_out"]} == HELD_OUT and len(views) == COUNT
    for name, view in views.items():
        truth = read(capture / "gt_masks" / f"{name}.png")
        assert view["mask_iou"] == pytest.approx(iou(read(tmp_path / "out" / "masks" / f"{name}.png"), truth))
    assert np.mean([view["mask_iou"] for view in views.values()]) > 0.6
    assert len(found["voted hull"]["views"]) == COUNT


@pytest.mark.seconds(3)
def test_a_photo_in_which_nothing_is_found_counts(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = [read(path) for path in sorted((capture / "gt_masks").iterdir())]
    stand_in(monkeypatch, [None if index == 11 else mask.astype(np.float32) for index, mask in enumerate(truth)])
    found = scored(capture, tmp_path / "out", "cosegment")
    ious = {view["name"]: view["mask_iou"] for view in found["coarse masks"]["views"]}
    assert ious == {f"frame_{index:03d}": float(index != 11) for index in range(COUNT)}
    hull = {view["name"]: view["mask_iou"] for view in found["voted hull"]["views"]}
    assert hull["frame_011"] > 0.9, "the others know where it is"


@pytest.mark.seconds(3)
def test_masks_that_agree_on_nothing_are_scored_all_the_same(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corners = np.zeros((COUNT, 72, 96), np.float32)
    corners[::2, :12, :14] = corners[1::2, :12, -14:] = 1
    stand_in(monkeypatch, list(corners))
    found = scored(capture, tmp_path / "out", "cosegment")
    coarse, hull = ([view["mask_iou"] for view in found[what]["views"]] for what in ("coarse masks", "voted hull"))
    assert coarse == [0.0] * COUNT
    assert len(hull) == COUNT and np.mean(hull) < 0.2


@pytest.mark.seconds(3)
def test_a_mask_alone_has_no_hull(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = np.zeros((72, 96), np.float32)
    corner[:12, :14] = 1
    stand_in(monkeypatch, [corner, *[None] * (COUNT - 1)])
    found = scored(capture, tmp_path / "out", "cosegment")
    assert found["voted hull"]["views"] == [] and "Only 1 coarse mask" in found["voted hull"]["no_hull"]
    assert len(found["coarse masks"]["views"]) == COUNT


def test_a_baseline_that_finds_nothing_says_so(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, [None] * COUNT)
    with pytest.raises(MaskError, match="cosegment found the object in no photo"):
        scored(capture, tmp_path / "out", "cosegment")


@needs_onnxruntime
def test_a_file_that_is_no_network_is_refused_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("not a network")
    with pytest.raises(MaskError, match=r"net.onnx is no ONNX file"):
        check([], str(tmp_path / "net.onnx"))
