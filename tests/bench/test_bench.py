"""`surface-sos bench`: both sides do the same work, the figures follow from the times, and mistakes are told early."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from surface_sos_ns.bench import baselines, floor, ours, train
from surface_sos_ns.bench.baselines import NERFSTUDIO_GRID, NEUS_FACTO, TWIN_GRID, NerfstudioGrid, NeusFacto, TorchGrid
from surface_sos_ns.bench.kernels import TASKS, TOLERANCE, Problem, Task, ray_points
from surface_sos_ns.bench.protocol import OURS, Side, comparison, take_turns
from surface_sos_ns.bench.scene_data import SceneData, load_scene
from surface_sos_ns.bench.settings import BenchError, Train
from surface_sos_ns.cli import main
from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.ops.cpu import threads as compiled_threads
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.plugin.training_step import CudaGraphs
from surface_sos_ns.training import presets
from surface_sos_ns.utils import files
from surface_sos_ns.utils.cores import usable_cores
from tests.helpers.recorded_graph import RecordedGraphs

CPU = torch.device("cpu")
# Levels of 4, 9, 22 and 52 cells: the first two are dense in ours, the others hashed.
LAYOUT = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=4, max_resolution=52)
SMALL = dataclasses.replace(LAYOUT, levels=2)
TINY = dataclasses.replace(
    presets.LITE,
    scene=dataclasses.replace(
        presets.LITE.scene,
        foreground_grid=SMALL,
        background_grid=SMALL,
        label_grid=SMALL,
        samples=6,
        cache_resolution=8,
        probability_resolution=8,
        candidates=(4, 8, 4),
    ),
    rays=16,
    initial_fit_steps=2,
)


@pytest.fixture(autouse=True)
def threads_and_denormals_as_before() -> Iterator[None]:
    before = torch.get_num_threads(), compiled_threads.thread_count()
    yield
    torch.set_num_threads(before[0])
    compiled_threads.set_thread_count(before[1])
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def data(demo_capture: Path) -> SceneData:
    return load_scene(demo_capture, TINY.hull_slack, CPU)


def run(arguments: list[str]) -> int:
    return main(["bench", *arguments])


# --- equal work --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def problem() -> Problem:
    points = ray_points(8, 8, 3, LAYOUT)
    return Problem(LAYOUT, points, {NERFSTUDIO_GRID: NerfstudioGrid, TWIN_GRID: TorchGrid}, 3)


@pytest.mark.parametrize("other", [NERFSTUDIO_GRID, TWIN_GRID])
@pytest.mark.parametrize("task", TASKS)
def test_both_sides_compute_the_same(problem: Problem, task: str, other: str) -> None:
    problem.share_entries(other)
    mine, theirs = problem.task(task, OURS), problem.task(task, other)
    for a, b in zip(mine.compared(mine.outputs()), theirs.compared(theirs.outputs()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    gradients, expected = mine.run(), theirs.run()
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients), "a parameter without gradient"
    table = problem.others[other].converted_gradient(gradients[0], LAYOUT)
    for a, b in zip([table, *gradients[1:]], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))
    assert problem.check(task, other) < TOLERANCE


@pytest.mark.parametrize("task", TASKS)
def test_sides_that_differ_are_not_compared(problem: Problem, task: str) -> None:
    problem.share_entries(TWIN_GRID)
    with torch.no_grad():
        problem.others[TWIN_GRID].table[:200] += 0.02  # of the first, coarsest levels
    with pytest.raises(BenchError, match="do not compute the same"):
        problem.check(task, TWIN_GRID)


def test_both_sides_give_the_gradient_of_features_and_derivative(problem: Problem) -> None:
    """By finite differences of their sum with the gradients the tasks start from: neither side may leave one out."""
    problem.share_entries(NERFSTUDIO_GRID)
    table = problem.others[NERFSTUDIO_GRID].table
    for parameter, side in ((problem.grid.table, OURS), (table, NERFSTUDIO_GRID)):
        task = problem.task("grid", side)

        def parts(task: Task = task) -> torch.Tensor:
            features, derivative = (found.detach().double() for found in task.compared(task.outputs()))
            return torch.stack([(features * problem.on_features).sum(), (derivative * problem.on_slope).sum()])

        (gradient,) = task.run()
        entry = int(gradient.abs().sum(-1).argmax())
        step, change = 0.5, torch.zeros(2, dtype=torch.float64)  # both are linear in the table
        for sign in (1, -1):
            with torch.no_grad():
                parameter[entry, 0] += sign * step
            change += sign * parts()
            with torch.no_grad():
                parameter[entry, 0] -= sign * step
        assert (change.abs() > 0.1).all(), "an entry on which both depend"
        assert gradient[entry, 0].item() == pytest.approx(change.sum().item() / (2 * step), rel=1e-3)


def test_our_side_of_the_grid_makes_the_whole_jacobian(problem: Problem) -> None:
    features, jacobian = problem.task("grid", OURS).outputs()
    assert jacobian.shape == (*features.shape, 3) == (64, LAYOUT.width, 3)
    assert problem.task("grid", NERFSTUDIO_GRID).outputs()[1].shape == (64, 3)


def test_points_lie_on_lines_in_order_and_off_the_faces_of_cells() -> None:
    layout = GridLayout()
    points = ray_points(50, 32, 0, layout)
    assert torch.equal(points, ray_points(50, 32, 0, layout))
    assert points.shape == (1600, 3) and points.min() > 0 and points.max() < 1
    rays = points.reshape(50, 32, 3).double()
    along = rays[:, -1] - rays[:, 0]
    along /= along.norm(dim=-1, keepdim=True)
    offset = rays - rays[:, :1]
    at = (offset * along[:, None]).sum(-1)
    assert (at.diff(dim=1) > 0).all()
    assert (offset - at[..., None] * along[:, None]).norm(dim=-1).max() < 3e-4  # where lines are clamped at the cube
    for resolution in layout.resolutions.tolist():
        assert torch.equal(((points * 2 - 1) + 1) * 0.5, points)
        scaled = points * float(resolution)
        assert not (scaled == scaled.floor()).any()


# --- how times are taken -----------------------------------------------------------------------------------------
def test_sides_run_in_turns_at_equal_thread_counts() -> None:
    calls: list[tuple[str, str, int]] = []

    def side(name: str) -> Side:
        return Side(lambda: calls.append((name, "run", 0)), lambda count: calls.append((name, "threads", count)))

    runs = take_turns({"a": side("a"), "b": side("b")}, 3, repeats=2, device=CPU, warm_up=1)
    one_round = [("a", "threads", 3), ("a", "run", 0), ("b", "threads", 3), ("b", "run", 0)]
    assert calls == one_round * 3
    assert {name: len(taken) for name, taken in runs.items()} == {"a": 2, "b": 2}, "warm-up does not count"


def test_ratio_is_of_medians_at_the_largest_thread_count() -> None:
    by_threads = {2: {OURS: [1.0, 2.0, 9.0], "x": [9.0, 8.0, 1.0]}, 1: {OURS: [4.0], "x": [2.0]}}
    found = comparison(by_threads, "x")
    assert {key: found[key] for key in ("ratio", "ours_seconds", "baseline_seconds", "threads", "baseline")} == {
        "ratio": 4.0,
        "ours_seconds": 2.0,
        "baseline_seconds": 8.0,
        "threads": 2,
        "baseline": "x",
    }
    assert [(row["threads"], row["ratio"]) for row in found["by_threads"]] == [(1, 0.5), (2, 4.0)]
    alone = comparison(by_threads, None)
    assert alone["ratio"] is None and alone["baseline_seconds"] is None and alone["ours_seconds"] == 2.0


def test_our_threads_are_those_of_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    Side(lambda: None).use_threads(2)
    assert torch.get_num_threads() == 2
    ours.use_threads(2)
    assert (torch.get_num_threads(), compiled_threads.thread_count()) == (1, 2)
    ours.use_threads(1)
    assert (torch.get_num_threads(), compiled_threads.thread_count()) == (1, 1)
    monkeypatch.setattr(ours, "choose_ops", lambda *_: TORCH)  # numba is missing
    ours.use_threads(2)
    assert torch.get_num_threads() == 2


def test_a_part_inside_another_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Thing:
        def inner(self, seconds: float) -> float:
            nonlocal now
            now += seconds
            return 2 * seconds

    monkeypatch.setattr(ours.time, "perf_counter", lambda: now)
    clock, thing, module = ours.Clock(CPU), Thing(), SimpleNamespace(call=lambda: None)
    before = module.call
    with clock.watch(thing, "inner", "inside"), clock.watch(module, "call", "module"):
        assert thing.inner(100.0) == 200.0, "outside of all parts it counts for itself"
        now += 50.0
        with clock.part("around"):
            now += 1.0
            thing.inner(2.0)
            module.call()
            now += 4.0
        assert module.call is not before
    assert clock.spent == {"inside": 102.0, "around": 5.0, "module": 0.0}
    thing.inner(8.0)
    assert clock.spent["inside"] == 102.0 and "inner" not in vars(thing) and module.call is before


# --- captured and eager steps ------------------------------------------------------------------------------------
def static_run(data: SceneData) -> ours.Run:
    """A run with the operations of a GPU, on the CPU."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surface_sos_ns.models.surface_sos.scene.choose_ops", lambda *_: TorchOps(static=True))
        return ours.Run(TINY, data, CPU)


def recorded(run: ours.Run, *more: torch.Tensor) -> RecordedGraphs:
    """What stands for CUDA graphs on the CPU."""

    def state() -> list[torch.Tensor]:
        moments = [value for each in run.optimisers for kept in each.state.values() for value in kept.values()]
        return [*run.scene.parameters(), *run.scene.buffers(), *moments, *more]

    return RecordedGraphs(state)


@pytest.mark.seconds(3)
def test_a_captured_step_is_the_eager_one_and_takes_the_batches_in_turns(data: SceneData) -> None:
    batches = list(itertools.islice(data.batches(16, 1), 3))
    run, turns = static_run(data), ours.BatchesInTurns(batches)
    step = run.captured_step(turns, recorded(run, *turns.tensors()))
    captured = [step().losses for _ in range(5)]
    run = static_run(data)
    eager = [run.step(batches[index % 3]) for index in range(9)]
    assert captured == eager[4:]  # the first ones led to the capture
    assert step.captures == 1 and eager[4] != eager[7], "the same batch, but the scene has learned"


@pytest.mark.seconds(3)
def test_both_kinds_of_step_are_measured(data: SceneData) -> None:
    run = static_run(data)
    rows = train.by_rays(Train(profile_rays=(16, 8), repeats=2), 16, run, data, recorded(run))
    kinds = [(row["rays"], row["step"]) for row in rows]
    assert kinds == [(8, "captured"), (8, "eager"), (16, "captured"), (16, "eager")]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.gpu
def test_a_captured_step_on_a_gpu_is_hardly_a_launch_and_waits_for_nothing(demo_capture: Path) -> None:
    device = torch.device("cuda")
    data = load_scene(demo_capture, TINY.hull_slack, device)
    run = ours.Run(TINY, data, device)
    captured, eager = train.by_rays(Train(profile_rays=(16,)), 16, run, data, CudaGraphs())
    assert captured["launches"] < 5 < eager["launches"]  # the graph, and the copy of the losses
    assert captured["synchronisations"] == eager["synchronisations"] == 0


# --- what a step needs at least ----------------------------------------------------------------------------------
def flops(module: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Of matrix products, forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        outputs = [found for found in module(*inputs) if found is not None]
        torch.autograd.backward(outputs, [torch.randn_like(found) for found in outputs])
    return counter.get_total_flops()


def test_operations_of_networks_are_those_that_torch_counts() -> None:
    points = torch.rand(5, 3)
    density = DensityField(LAYOUT, 7, hidden=24)
    in_grid = LAYOUT.levels * (12 + 2 * 43)
    assert floor.operations(density) == in_grid + flops(density, points) / 5
    colours = ColourNet(9, 24)
    assert floor.operations(colours) == 50 + 3 * 40 + flops(colours, torch.rand(5, 9, requires_grad=True), points) / 5
    sdf = SDFField(LAYOUT, 4, hidden=24)
    # Of the field's matrix products some are the grid's, and one is the gradient to the Jacobian, a product per number.
    grid = torch.nn.Module()
    grid.forward = lambda x: sdf.grid(x, jacobian=True)  # type: ignore[method-assign]
    counted = (flops(sdf, points) - flops(grid, points)) / 5 - 2 * 3 * LAYOUT.width
    assert floor.operations(sdf) == in_grid + LAYOUT.width * 47 + 2 * 20 * 24 + counted
    with pytest.raises(TypeError, match="Linear"):
        floor.operations(torch.nn.Linear(1, 1))


def test_floor_is_the_longest_part_at_the_speed_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    label, colours = LabelField(SMALL), ColourNet(9, 24)
    work = ours.Workload({label: 10, colours: 3}, entries=1000, touched=100)
    monkeypatch.setattr(floor, "machine_rates", lambda device: {"arithmetic": 1e6, "lookups": 1e3, "tables": 1e4})
    found = floor.step_floor(work, CPU)
    amounts = {name: part["amount"] for name, part in found["parts"].items()}
    assert amounts == {
        "arithmetic": 10 * floor.operations(label) + 3 * floor.operations(colours),
        "lookups": 10 * 2 * 2 * 8 * 4 * 3,  # points, levels, features, corners, bytes, read + read and written
        "tables": 4 * (2 * 1000 + 7 * 100),
    }
    assert found["parts"]["tables"]["seconds"] == pytest.approx(1.08)
    assert found["seconds"] == found["parts"]["lookups"]["seconds"] == pytest.approx(3.84)


def test_rates_are_of_one_thread() -> None:
    torch.set_num_threads(2)
    rates = floor.machine_rates(CPU)
    assert torch.get_num_threads() == 2
    assert set(rates) == {"arithmetic", "lookups", "tables"} and min(rates.values()) > 1e8


# --- the commands ------------------------------------------------------------------------------------------------
KERNELS = ["kernels", "--rays", "4", "--samples", "4", "--levels", "3", "--log2-entries", "8", "10"]
KERNELS += ["--headline", "10", "--repeats", "2", "--device", "cpu"]
SCENE = ["--repeats", "1", "--fit-steps", "2", "--device", "cpu"]


def check_header(result: dict[str, Any], name: str) -> None:
    assert result["benchmark"] == name and "T" in result["date"]
    assert result["machine"]["torch"] == metadata.version("torch")
    assert result["machine"]["cores"] == usable_cores() and result["machine"]["processor"]


def check_entry(entry: dict[str, Any]) -> None:
    rows = entry["by_threads"]
    assert [row["threads"] for row in rows] == sorted({1, usable_cores()})
    for row in rows:
        assert row["ours_seconds"] == statistics.median(row["ours_runs"]) > 0
        assert row["baseline_seconds"] == statistics.median(row["baseline_runs"]) > 0
        assert row["ratio"] == row["baseline_seconds"] / row["ours_seconds"]
    for key in ("ratio", "ours_seconds", "baseline_seconds", "threads"):
        assert entry[key] == rows[-1][key], "the headline is all cores"


@pytest.mark.seconds(4)
def test_bench_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernels.json"
    assert run([*KERNELS, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    check_header(result, "kernels")
    for task in TASKS:
        check_entry(result[task])
        assert result[task]["baseline"] == NERFSTUDIO_GRID and result[task]["log2_entries"] == 10
        assert result[task]["points"] == 16
        assert [row["log2_entries"] for row in result[task]["by_table_size"]] == [8, 10]
        assert f"{task}_twin" not in result
        assert len(result["agreement"][task]) == 2 and max(result["agreement"][task].values()) < TOLERANCE
    assert set(result["scaling"]) == {"points", "levels"}
    assert [row["points"] for row in result["scaling"]["points"]] == [4, 8, 16, 32]
    assert "tiny-cuda-nn" in result["missing"]
    shown = capsys.readouterr().out
    assert "on cpu" in shown.splitlines()[0] and f"torch {result['machine']['torch']}" in shown.splitlines()[0]
    assert f"{result['grid']['ratio']:.1f}x" in shown and "tiny-cuda-nn" in shown
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside the results"


@pytest.mark.seconds(12)
def test_bench_train(demo_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "lite", TINY)
    path = tmp_path / "train.json"
    assert run(["train", "--capture", str(demo_capture), *SCENE, "--no-scaling", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    check_header(result, "train")
    for key in ("step", "step_our_sizes"):
        check_entry(result[key])
        assert (result[key]["rays"], result[key]["samples"]) == (16, 6)
    assert result["step"]["baseline"] == NEUS_FACTO
    assert [phases["threads"] for phases in result["phases"]] == sorted({1, usable_cores()})
    for phases in result["phases"]:
        assert {"sampling", "backward", "losses", "optimiser", "cache refresh (share)"} <= set(phases["seconds"])
        assert all(value >= 0 for value in phases["seconds"].values())
    (row,) = result["by_rays"]
    assert (row["rays"], row["step"], result["step"]["ours"]) == (16, "eager", "eager")
    assert row["seconds"] > 0 and row["peak_memory_gb"] > 0
    assert result["missing"]["captured step"] == "it needs CUDA"
    for name in ("kernels", "launches", "synchronisations", "gpu_busy", "peak_gpu_memory_gb"):
        assert row[name] is None and result["missing"][name] == "it needs CUDA"
    found = result["floor"]
    assert found["seconds"] == max(part["seconds"] for part in found["parts"].values()) > 0
    assert found["step_seconds"] > found["seconds"], "nothing is faster than its floor"


@pytest.mark.slow
@pytest.mark.seconds(4)
def test_bench_render(demo_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "lite", TINY)
    path = tmp_path / "render.json"
    size = ["--width", "16", "--height", "12"]
    assert run(["render", "--capture", str(demo_capture), *SCENE, *size, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    check_header(result, "render")
    rows = result["by_threads"]
    assert [row["threads"] for row in rows] == sorted({1, usable_cores()})
    for name in ("alpha", "all_outputs"):
        for row in rows:
            assert row[f"{name}_seconds"] == statistics.median(row[f"{name}_runs"]) > 0
        assert result[f"{name}_seconds"] == rows[-1][f"{name}_seconds"]
    assert result["threads"] == rows[-1]["threads"]
    assert [row["pixels"] for row in result["scaling"]["pixels"]] == [16, 48, 192, 768]
    assert 0 <= result["mask_iou"] <= 1


BARE = """
import dataclasses, json, pathlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nerfstudio":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "nerfstudio" else find(name, *rest)

if __name__ == "__main__":
    from surface_sos_ns.training import presets
    from surface_sos_ns.cli import main

    small = dataclasses.replace(presets.LITE.scene.foreground_grid, levels=2, log2_entries=8, max_resolution=32)
    scene = dataclasses.replace(presets.LITE.scene, foreground_grid=small, background_grid=small, label_grid=small,
                                cache_resolution=8, probability_resolution=8)
    presets.PRESETS["lite"] = dataclasses.replace(presets.LITE, scene=scene, rays=16, initial_fit_steps=2)
    for arguments in json.loads(sys.argv[1]):
        assert main(["bench", *arguments]) == 0
    assert not any(name.split(".")[0] == "nerfstudio" for name in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.seconds(10)
def test_without_nerfstudio(demo_capture: Path, tmp_path: Path) -> None:
    script = tmp_path / "bare.py"
    script.write_text(BARE)
    train = ["train", "--capture", str(demo_capture), *SCENE, "--no-scaling", "--json", str(tmp_path / "train.json")]
    kernels = [*KERNELS, "--no-scaling", "--json", str(tmp_path / "kernels.json")]
    done = subprocess.run(
        [sys.executable, str(script), json.dumps([kernels, train])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Not measured: nerfstudio HashEncoding, because the package nerfstudio is not installed." in done.stdout
    result = json.loads((tmp_path / "kernels.json").read_text())
    for task in TASKS:
        check_entry(result[f"{task}_twin"])
        assert result[f"{task}_twin"]["baseline"] == TWIN_GRID
        assert result[task]["ratio"] is None and "not installed" in result[task]["missing"]
        assert result[task]["ours_seconds"] == result[f"{task}_twin"]["ours_seconds"]
    result = json.loads((tmp_path / "train.json").read_text())
    assert result["step"]["ratio"] is None and result["step"]["ours_seconds"] > 0
    assert "not installed" in result["missing"][NEUS_FACTO] and "step_our_sizes" not in result


# --- mistakes ----------------------------------------------------------------------------------------------------
def test_mistakes_are_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(*_: Any) -> None:
        raise AssertionError("the benchmark was started")

    for name in ("kernels", "train", "render"):
        monkeypatch.setattr(f"surface_sos_ns.bench.{name}.run_{name}", runs)
    there = tmp_path / "there.json"
    there.write_text("kept")
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("")
    too_many = str(usable_cores() + 1)
    for arguments, words in (
        (["kernels", "--json", str(there)], "add --overwrite"),
        (["kernels", "--json", str(tmp_path)], "is a folder"),
        (["train", "--json", str(tmp_path / "no" / "x.json")], "there is no folder"),
        (["kernels", "--threads", too_many], "more threads than cores"),
        (["kernels", "--repeats", "0"], "at least one is needed"),
        (["kernels", "--headline", "16"], "is not among"),
        (["kernels", "--log2-entries", "40"], "powers of two from 4 to 24"),
        (["train", "--rays", "1"], "at least two"),
        (["train", "--profile-rays", "512", "0"], "--profile-rays names 0"),
        (["render", "--width", "0"], "must be at least 4"),
        (["render", "--capture", str(other)], "holds no transforms.json"),
    ):
        assert run(arguments) == 1, arguments
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said, said
    assert there.read_text() == "kept"


def test_overwrite_replaces_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    monkeypatch.setattr("surface_sos_ns.bench.render.run_render", lambda settings: {"new": 1})
    monkeypatch.setattr("surface_sos_ns.bench.report.show", lambda result: None)
    assert run(["render", "--json", str(path), "--overwrite"]) == 0
    assert json.loads(path.read_text()) == {"new": 1} and list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        files.write_json(path, {"unwritable": object()})
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_other_captures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [{"file_path": "a.jpg"}]}))
    with pytest.raises(BenchError, match="not a demo capture"):
        load_scene(tmp_path, 0.0, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_must_be_there_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kernels", "--device", "cuda"]) == 1
    assert "no CUDA device" in capsys.readouterr().err


# --- the training step -------------------------------------------------------------------------------------------
def test_rays_look_at_what_the_photos_show(data: SceneData) -> None:
    """Half of a batch is near the object; rays with a mask pass through the object sphere; photos are in order."""
    batch = next(data.batches(400, 0))
    assert batch.origins.shape == (400, 3) and batch.photo.shape == (400, 3)
    torch.testing.assert_close(batch.directions.norm(dim=-1), torch.ones(400))
    closest = (batch.origins - (batch.origins * batch.directions).sum(-1, keepdim=True) * batch.directions).norm(dim=-1)
    assert (closest[batch.mask > 0.5] < 1.05).float().mean() > 0.9
    near, anywhere = batch.mask[:200].mean(), batch.mask[200:].mean()
    assert near > 2 * anywhere
    origins, directions = data.view_rays(0, 12, 9)
    assert origins.shape == directions.shape == (108, 3)
    towards = torch.nn.functional.normalize(-origins[54], dim=-1)
    assert float(directions[54] @ towards) > 0.9, "the middle of the view looks at the object"
    closest = (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)
    true = data.held_out_masks[0][4::9, 4::9][:8, :11]
    assert (closest.reshape(9, 12)[:8, :11].numpy()[true] < 1.2).all() and np.any(true)


@pytest.mark.seconds(5)
def test_neus_facto_trains_on_the_same_rays_and_samples(data: SceneData) -> None:
    import nerfstudio.fields.sdf_field as sdf_field
    import torchmetrics.image.lpip as lpip

    before = sdf_field.tcnn, lpip.LearnedPerceptualImagePatchSimilarity
    other = NeusFacto(6, data.view_count, CPU, (SMALL, 8))
    assert (sdf_field.tcnn, lpip.LearnedPerceptualImagePatchSimilarity) == before, "nerfstudio is left as it was"
    batch = next(data.batches(10, 0))
    seen: list[torch.Tensor] = []
    hook = other.model.field.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].frustums))
    old = {name: value.detach().clone() for name, value in other.model.named_parameters()}
    first = other.step(batch)
    hook.remove()
    assert seen[0].shape == (10, 6), "rays x samples"
    torch.testing.assert_close(seen[0].origins[:, 0], batch.origins)
    torch.testing.assert_close(seen[0].directions[:, 0], batch.directions)
    moved = {name.split(".")[0] for name, value in other.model.named_parameters() if not torch.equal(value, old[name])}
    assert {"field", "proposal_networks"} <= moved, "both are trained"
    for _ in range(30):
        last = other.step(batch)
    assert last < first
    other.use_samples(9)
    seen.clear()
    hook = other.model.field.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].frustums))
    other.step(batch)
    hook.remove()
    assert seen[0].shape == (10, 9)


def test_our_step_trains_and_its_clocks_are_taken_off_again(data: SceneData) -> None:
    torch.manual_seed(0)
    run = ours.Run(TINY, data, CPU)
    batch = next(data.batches(64, 0))
    old = {name: value.detach().clone() for name, value in run.scene.named_parameters()}
    attributes = set(vars(run.scene))
    parts = run.phases([batch, batch])
    assert set(vars(run.scene)) == attributes and "forward" not in vars(run.scene.foreground.field)
    assert "composite_weights" not in vars(run.scene.ops)
    fields = {"FoCoR", "BaCo", "label", "colours"}
    others = {"sampling", "compositing", "rest of rendering", "losses", "backward", "optimiser"}
    assert len(parts) == 2 and set(parts[0]) == fields | others | {f"backward: {name}" for name in fields}
    assert all(value > 0 for value in parts[0].values())
    moved = {name for name, value in run.scene.named_parameters() if not torch.equal(value, old[name])}
    evaluated = ("foreground.field", "background.field", "label.field", "foreground.colour", "background.colour")
    assert all(any(name.startswith(part) for name in moved) for part in evaluated)
    sampled: list[int] = []
    sample = run.scene.renderer.sample
    vars(run.scene.renderer)["sample"] = lambda *a: (found := sample(*a), sampled.append(found.interval.shape[1]))[0]
    run.use_samples(9)
    run.step(batch)
    assert sampled == [9]


def test_clocks_do_not_change_a_step(data: SceneData) -> None:
    batch = next(data.batches(64, 0))
    after = []
    for watched in (False, True):
        torch.manual_seed(0)
        run = ours.Run(TINY, data, CPU)
        _ = run.phases([batch]) if watched else run.step(batch)
        after.append([value.detach() for value in run.scene.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_workload_is_what_a_step_evaluates(data: SceneData) -> None:
    torch.manual_seed(0)
    run = ours.Run(TINY, data, CPU)
    seen: list[torch.Tensor] = []
    hook = run.scene.foreground.field.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    work = run.workload(next(data.batches(64, 0)))
    hook.remove()
    assert (
        work.points[run.scene.foreground.field] == sum(len(points) for points in seen) > TINY.objective.uniform_points
    )
    scene = run.scene
    asked = {module for part in (scene.foreground, scene.background, scene.label) for module in part.children()}
    assert set(work.points) == asked
    assert 0 < work.touched < work.entries == 3 * 2 * int(SMALL.entries.sum())


def test_the_matte_alone_is_that_of_all_outputs(data: SceneData) -> None:
    torch.manual_seed(0)
    run = ours.Run(TINY, data, CPU)
    rays = data.view_rays(0, 20, 15)
    full = torch.cat([found.alpha for found in ours.all_outputs(run.scene, *rays, 128)])
    assert full.max() > 0.1
    torch.testing.assert_close(ours.alpha(run.scene, *rays, 128), full, rtol=0.0, atol=1e-5)


def test_the_presets_measured_are_the_methods_trained() -> None:
    from surface_sos_ns.plugin.methods import surface_sos, surface_sos_lite, surface_sos_paper

    scene = ours.SurfaceSOS(TINY.scene, 1)
    kinds = dict(zip(presets.parameter_groups(scene), map(type, ours.optimisers(scene)), strict=True))
    for name, method in (("full", surface_sos), ("lite", surface_sos_lite), ("paper", surface_sos_paper)):
        config: Any = method.config
        preset, model = presets.PRESETS[name], config.pipeline.model
        assert (preset.scene, preset.objective) == (model.scene, model.objective)
        assert preset.rays == config.pipeline.datamanager.train_num_rays_per_batch
        assert (preset.steps, preset.rays_per_chunk) == (config.max_num_iterations, model.eval_num_rays_per_chunk)
        for field in ("initial_fit_steps", "cache_interval", "cache_share", "hull_slack"):
            assert getattr(preset, field) == getattr(model, field)
        for group, entry in config.optimizers.items():
            optimiser = entry["optimizer"].setup([torch.nn.Parameter(torch.zeros(1))])
            rate = presets.RATES[group]
            # Motion and poses are parameters of runs that ask for them only.
            assert isinstance(optimiser, kinds.get(group, torch.optim.Adam))
            found = (optimiser.defaults["lr"], tuple(optimiser.defaults["betas"]), optimiser.defaults["eps"])
            assert found == (rate.lr, rate.betas, rate.eps)


def test_nerfstudio_that_does_not_load_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nerfstudio.field_components.encodings", None)
    problem = baselines.nerfstudio_problem()
    assert problem is not None and "does not load" in problem
    grids, missing = baselines.baseline_grids(CPU)
    assert list(grids) == [TWIN_GRID] and missing[NERFSTUDIO_GRID] == problem
