"""Several objects in `surface-sos bench quality`: counted by hand, pooled over views, a line of the table for each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from surface_sos_ns.bench.quality import runner, score
from surface_sos_ns.bench.quality.objects import object_counts, object_rows, pooled
from surface_sos_ns.bench.quality.recipe import Capture, Recipe, Run, plan
from surface_sos_ns.bench.quality.table import Outcome, markdown, rows
from surface_sos_ns.bench.settings import Quality

NAMES = ("cup", "lemon")
TRUTH = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 0, 0]], np.uint8)
FOUND = np.array([[1, 1, 1, 0, 0, 0], [1, 2, 2, 2, 2, 0]], np.uint8)
VIEWS = [
    {"name": "a", "held_out": True, "mask_iou": 0.55, "mask_iou_all": 0.8, **object_counts(FOUND, TRUTH, NAMES)},
    {"name": "b", "held_out": True, "mask_iou": 1.0, "mask_iou_all": 1.0, **object_counts(TRUTH > 1, TRUTH > 1, NAMES)},
]
"""The second one shows two pixels of the cup alone, and they are found."""


def test_pixels_are_counted_by_hand() -> None:
    assert object_counts(FOUND, TRUTH, NAMES) == {
        "objects": {
            "cup": {"pixels": 6, "overlap": 4, "union": 6},
            "lemon": {"pixels": 2, "overlap": 2, "union": 4},
        },
        "both": 7,
        "wrong": 1,
    }
    assert object_counts(FOUND, np.zeros_like(TRUTH), NAMES) == {"objects": {}, "both": 0, "wrong": 0}


def test_an_object_is_pooled_over_the_views_that_show_it() -> None:
    found = object_rows(VIEWS, {"lemon": {"mesh_chamfer": 0.01}})
    shown, cup = found["cup"]
    assert shown == 2 and cup["pooled_iou"] == pytest.approx(6 / 8) and cup["pixels"] == 4
    assert cup["mask_iou"] == pytest.approx((4 / 6 + 1) / 2) and cup["worst_mask_iou"] == pytest.approx(4 / 6)
    assert found["lemon"] == (
        1,
        {"mask_iou": 0.5, "worst_mask_iou": 0.5, "pooled_iou": 0.5, "pixels": 2, "mesh_chamfer": 0.01},
    )
    assert pooled(VIEWS) == pytest.approx({"wrong_identity": 1 / 9, "pooled_iou": (6 / 8 + 1 / 2) / 2})
    assert pooled([{"name": "a", "mask_iou": 0.5}]) == {}, "one object"


def outcome(tmp_path: Path) -> Outcome:
    run = Run(Capture("demo_objects", tmp_path), "surface-sos-lite", "", "given", 0, ())
    result = {"width": 6, "height": 2, "trained_on": 0, "held_out": 2, "views": VIEWS, "seconds": 60.0}
    return Outcome(run, result | {"mesh": {"mesh_chamfer": 0.02}, "meshes": {"lemon": {"mesh_chamfer": 0.01}}})


def test_the_table_has_a_line_for_each_object(tmp_path: Path) -> None:
    found = {row.object: row for row in rows([outcome(tmp_path)])}
    assert list(found) == ["", "cup", "lemon"] and [row.views for row in found.values()] == [
        "2 held out",
        "2 held out",
        "1 held out",
    ]
    assert found[""].figures["mask_iou_all"] == [0.9] and found[""].figures["mesh_chamfer"] == [0.02]
    assert found["lemon"].figures["mesh_chamfer"] == [0.01] and "seconds" not in found["cup"].figures
    text = markdown([outcome(tmp_path)])
    assert "| capture | masks | what | object | views | IoU | worst | pooled IoU | wrong object | pixels |" in text
    assert "| surface-sos-lite | cup | 2 held out | 0.833 | 0.667 | 0.750 | - | 4 |" in text
    assert "| surface-sos-lite | - | 2 held out | 0.775 | 0.550 | 0.625 | 11.11% | - | 0.900 |" in text
    assert "Several objects: IoU is the mean" in text


def test_the_demo_with_objects_is_rendered_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(captures=["demo_objects"], methods=["surface-sos-lite"])
    todo = plan([(tmp_path / "recipe.yaml", recipe)], tmp_path / "data", tmp_path / "out")
    assert [run.capture.folder for run in todo.runs] == [tmp_path / "out" / "demo_objects"]
    rendered: list[Any] = []
    monkeypatch.setattr(runner, "write_demo_capture", lambda folder, **options: rendered.append((folder, options)))
    monkeypatch.setattr(runner, "_check_options", lambda *_: None)
    monkeypatch.setattr(runner, "_measured", lambda task, *_: Outcome(task, None, "not run"))
    (tmp_path / "recipe.yaml").write_text("captures: [demo_objects]\nmethods: [surface-sos-lite]\n")
    runner.run_quality(Quality(config=(tmp_path / "recipe.yaml",), output=tmp_path / "out"))
    assert rendered == [(tmp_path / "out" / "demo_objects", {"objects": True})]


def test_a_view_without_an_object_is_held_against_its_plate(tmp_path: Path) -> None:
    """The model removes the cup with an error of 0.1, which is 20 dB; there is no plate without the lemon."""
    photo, plate = tmp_path / "images" / "a.png", tmp_path / "plates_without" / "cup" / "a.png"
    plate.parent.mkdir(parents=True)
    cv2.imwrite(str(plate), np.full((2, 6, 3), 102, np.uint8))
    frame = {"file_path": "images/a.png", "plates_without": {"cup": "plates_without/cup/a.png"}}
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [frame, {"file_path": "images/b.png"}]}))
    plates = score._plates_without(tmp_path)
    assert plates == {photo: {"cup": plate}}
    asked: list[list[str]] = []

    def without(camera: Any, names: list[str]) -> torch.Tensor:
        asked.append(names)
        picture = torch.full((2, 6, 3), 0.9)  # elsewhere it is far off, which does not count
        picture[torch.from_numpy(TRUTH == 1)] = 0.5
        return picture

    model: Any = SimpleNamespace(object_names=NAMES, device="cpu", without=without)
    dataset = SimpleNamespace(image_filenames=[photo], size=lambda index: (6, 2), cameras=torch.zeros(1))
    outputs = {"object_ids": torch.from_numpy(FOUND)[..., None].float()}
    views: Any = SimpleNamespace(dataset=dataset)
    found = score._scored_objects(model, views, 0, outputs, torch.from_numpy(TRUTH.astype(np.int64)), plates)
    assert found["objects"]["cup"].pop("without_psnr") == pytest.approx(20.0, abs=1e-3) and asked == [["cup"]]
    assert found == object_counts(FOUND, TRUTH, NAMES)
