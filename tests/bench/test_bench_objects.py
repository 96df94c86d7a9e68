"""`surface-sos bench train --objects`: the demo's object taken for several, against itself as one."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from surface_sos_ns.bench import floor, objects, ours
from surface_sos_ns.bench.report import _objects
from surface_sos_ns.bench.scene_data import SceneData, load_scene
from surface_sos_ns.bench.settings import Train
from surface_sos_ns.cli import main
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.training import presets
from tests.bench.test_bench import CPU, LAYOUT, TINY, flops, threads_and_denormals_as_before

__all__ = ["threads_and_denormals_as_before"]


@pytest.fixture(scope="module")
def data(demo_capture: Path) -> SceneData:
    return load_scene(demo_capture, TINY.hull_slack, CPU)


@pytest.fixture(scope="module")
def divided(data: SceneData) -> SceneData:
    return data.in_bands(3)


def test_bands_lie_above_each_other_in_space_and_in_photos(data: SceneData, divided: SceneData) -> None:
    assert divided.objects == ("object_1", "object_2", "object_3") and data.objects == ()
    assert divided.hull_identity is not None
    identity, inside = divided.hull_identity.long(), divided.hull > 0.5
    heights = torch.arange(identity.shape[2]).expand_as(identity)
    ranges = [heights[inside & (identity == k)] for k in (1, 2, 3)]
    assert all(int(low.max()) + 1 == int(high.min()) for low, high in itertools.pairwise(ranges))
    extents = [int(found.max() - found.min()) + 1 for found in ranges]
    assert max(extents) - min(extents) <= 1, "of one height"
    shown = divided.pixels.identity
    assert torch.equal(shown > 0, data.pixels.mask > 0) and set(shown.unique().tolist()) == {0, 1, 2, 3}
    rows = (torch.arange(len(shown)) % (100 * 75)) // 100
    for view in range(3):
        here = divided.pixels.view == view
        middles = [float(rows[here & (shown == k)].float().mean()) for k in (1, 2, 3)]
        assert middles == sorted(middles, reverse=True), "higher is further up"


def test_a_step_learns_every_object_and_is_clocked_as_one_is(divided: SceneData) -> None:
    torch.manual_seed(0)
    run = ours.Run(TINY, divided, CPU)
    assert run.scene.objects == divided.objects
    batch = next(divided.batches(64, 0))
    before = run.scene.label.field.out.weight.detach().clone()
    (parts,) = run.phases([batch])
    assert {"label", "backward: label"} <= set(parts) and all(value > 0 for value in parts.values())
    assert (run.scene.label.field.out.weight != before).any(1).all() and len(before) == 3
    assert run.workload(batch).points[run.scene.label.field] > 0


def test_the_identities_of_a_capture_are_one_object_here(objects_capture: Path) -> None:
    data = load_scene(objects_capture, TINY.hull_slack, CPU)
    frames = json.loads((objects_capture / "transforms.json").read_text())
    first = next(f for f in frames["frames"] if f["file_path"] == frames["train_filenames"][0])
    coarse = cv2.imread(str(objects_capture / first["coarse_mask_path"]), cv2.IMREAD_UNCHANGED)
    assert coarse is not None and np.unique(coarse).max() > 1
    assert np.array_equal(data.pixels.mask[data.pixels.view == 0].numpy(), (coarse > 0).ravel())


def test_time_and_memory_are_those_of_both(data: SceneData, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    trained: list[dict[str, Any]] = []

    def run_module(arguments: list[str], log: Path, on_line: Callable[[str], None]) -> None:
        assert arguments[0] == "surface_sos_ns.bench.objects"
        trained.append(json.loads(arguments[1]))
        on_line("Fitting a scene")
        on_line(str(0.5 + 0.1 * trained[-1]["objects"]))

    monkeypatch.setattr(objects, "run_module", run_module)
    seen: list[int] = []

    def step_of(run: ours.Run, data: SceneData) -> Any:
        batch = next(data.batches(16, 0))
        return lambda: (seen.append(max(1, len(run.scene.objects))), run.step(batch))

    settings = Train(objects=3, rays=16, fit_steps=1, repeats=2, capture=Path("demo"))
    found = objects.compare_objects(settings, ours.Run(TINY, data, CPU), data, 0.5, [1], step_of)
    assert seen == [1, 3] * 3, "in turns, after a call of each to warm up"
    assert (found["one_peak_gb"], found["several_peak_gb"]) == pytest.approx((0.6, 0.8))
    assert [(one["objects"], one["rays"], one["capture"]) for one in trained] == [(1, 16, "demo"), (3, 16, "demo")]
    (row,) = found["by_threads"]
    assert row["ratio"] == row["several_seconds"] / row["one_seconds"] > 0
    shown = io.StringIO()
    _objects(found, Console(file=shown, width=120))
    assert "3 objects" in shown.getvalue() and "0.60 GB and 0.80 GB, 1.33x" in shown.getvalue()


def test_the_process_whose_memory_counts_trains_that_many_objects(
    data: SceneData, demo_capture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(presets.PRESETS, "lite", TINY)
    monkeypatch.setattr("surface_sos_ns.bench.fit.load_scene", lambda *_: data)
    runs: list[ours.Run] = []
    fit = ours.Run.fit
    monkeypatch.setattr(ours.Run, "fit", lambda run, *given: (runs.append(run), fit(run, *given)))
    given = {"preset": "lite", "rays": 16, "fit_steps": 2, "seed": 0, "device": "cpu", "capture": str(demo_capture)}
    for count in (4, 1):
        assert objects.main([json.dumps(given | {"objects": count})]) == 0
        peak = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert peak == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.6)
    assert [len(run.scene.objects) for run in runs] == [4, 0]


def test_operations_of_a_label_of_several_are_those_that_torch_counts() -> None:
    points, one, five = torch.rand(6, 3), LabelField(LAYOUT), LabelField(LAYOUT, objects=5)
    in_grid = LAYOUT.levels * (12 + 2 * 43)
    assert floor.operations(five) == in_grid + flops(five, points) / 6
    assert floor.operations(five) - floor.operations(one) == 3 * 2 * 4 * one.hidden.out_features


@pytest.mark.parametrize("count", [1, 33])
def test_a_wrong_number_of_objects_is_told_at_once(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", "--objects", str(count)]) == 1
    assert f"--objects is {count}; expected 2 to 32" in capsys.readouterr().err
