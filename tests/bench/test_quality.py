"""`surface-sos bench quality`: recipes are checked before anything starts, runs are kept, and the figures are true."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from surface_sos_ns.bench.quality import runner, table
from surface_sos_ns.bench.quality.recipe import Plan, Recipe, plan, read_recipe
from surface_sos_ns.bench.settings import BenchError
from surface_sos_ns.cli import main
from surface_sos_ns.utils.user_commands import CommandFailed, Finished
from tests.helpers.paths import ROOT

RECIPES = sorted((ROOT / "configs" / "bench").glob("*.yaml"))
LITE: dict[str, Any] = {"captures": ["toys/bear"], "methods": ["surface-sos-lite"]}
TINY = {
    "pipeline.datamanager.train-num-rays-per-batch": 64,
    "pipeline.model.initial-fit-steps": 30,
    "pipeline.model.scene.foreground-grid.log2-entries": 12,
    "pipeline.model.scene.background-grid.log2-entries": 12,
    "pipeline.model.scene.cache-resolution": 24,
    "pipeline.model.scene.probability-resolution": 24,
}


def write_recipe(path: Path, **values: Any) -> Path:
    path.write_text(yaml.safe_dump({**LITE, **values}))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of captures, as far as it matters before training."""
    for name in ("toys/bear", "toys/duck"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "transforms.json").write_text("{}")
    (tmp_path / "data" / "toys/bear" / "drawn").mkdir()
    return tmp_path / "data"


# ------------------------------------------------------------------ recipes


@pytest.mark.parametrize(
    "values, words",
    [
        ({"step": 3}, ["key 'step'", "no such key", "captures, methods, masks"]),
        ({"captures": "toys/bear"}, ["key 'captures'", "valid list", "'toys/bear'"]),
        ({"captures": []}, ["key 'captures'", "at least 1"]),
        ({"methods": ["surface-sos", "nerfacto"]}, ["key 'methods.1'", "'surface-sos-paper'", "'nerfacto'"]),
        ({"methods": None}, ["key 'methods'"]),
        ({"seeds": [1, "2"]}, ["key 'seeds.1'", "integer", "'2'"]),
        ({"seeds": [1, 1]}, ["key 'seeds'", "twice"]),
        ({"baselines": ["maskrcnn"]}, ["key 'baselines.0'", "'cosegment'", "'maskrcnn'"]),
        ({"steps": 0}, ["key 'steps'", "greater than or equal to 1"]),
        ({"options": {"a": {"b": 1}}}, ["key 'options'", "a has keys", "a value, or a list"]),
        ({"variants": {"x": {"optoins": {}}}}, ["key 'variants.x.optoins'", "no such key"]),
        ({"masks": ["given", "painted"]}, ["key 'masks'", "painted is no folder", "given, none, or a folder"]),
        ({"variants": {"x": {"masks": "painted"}}}, ["key 'variants.x.masks'", "painted is no folder"]),
        ({"captures": ["toys"]}, ["key 'captures'", "holds no transforms.json"]),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_and_key(
    values: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "run_module", lambda *_: pytest.fail("nothing may start"))
    good, bad = write_recipe(tmp_path / "good.yaml"), write_recipe(tmp_path / "bad.yaml", **values)
    arguments = ["--config", str(good), str(bad), "--data", str(data), "--output", str(tmp_path / "out")]
    assert main(["bench", "quality", *arguments]) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in ["bad.yaml", *words]), said
    assert "good.yaml" not in said


@pytest.mark.parametrize(
    "text, words", [("- a\n", "holds no recipe"), ("a: [", "is not YAML"), (None, "cannot be read")]
)
def test_a_file_that_is_no_recipe_is_refused(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchError, match=words):
        read_recipe(path)


def test_every_combination_is_a_run_and_absent_captures_are_none(tmp_path: Path, data: Path) -> None:
    recipe = Recipe(
        captures=["toys/bear", "demo", "toys/mouse"],
        methods=["surface-sos", "surface-sos-lite"],
        masks=["given", "none"],
        seeds=[0, 1, 2],
        steps=500,
        options={"a.b": 1, "c": [1.5, "x"]},
        variants={"plain": {"options": {"a.b": 2}}, "blind": {"masks": "none"}},  # type: ignore[dict-item]
    )
    todo = plan([(tmp_path / "a.yaml", recipe), (tmp_path / "b.yaml", recipe)], data, tmp_path)
    runs = todo.runs
    assert [capture.name for capture in todo.absent] == ["toys/mouse"]
    assert len(runs) == len(set(runs)) == 2 * 2 * (2 + 1) * 3, "each once, though two recipes ask for them"
    assert {run.capture.folder for run in runs} == {data / "toys/bear", tmp_path / "demo"}
    masks = "--pipeline.datamanager.dataparser.coarse-masks"
    words = {(run.variant, run.masks): run.options for run in runs}
    assert words == {
        ("plain", "given"): ("--max-num-iterations", "500", "--a.b", "2", "--c", "1.5", "x"),
        ("plain", "none"): ("--max-num-iterations", "500", masks, "none", "--a.b", "2", "--c", "1.5", "x"),
        ("blind", "none"): ("--max-num-iterations", "500", masks, "none", "--a.b", "1", "--c", "1.5", "x"),
    }
    assert len({run.folder(tmp_path) for run in runs}) == len(runs)
    places = {(inputs.capture.name, inputs.options) for inputs in todo.inputs}
    assert len(todo.inputs) == 4, "they do not depend on the model's options"
    assert places == {(name, options) for name in ("toys/bear", "demo") for options in ((), (masks, "none"))}


def planned(recipe: Recipe, data: Path, features_onnx: Path | None = None) -> Plan:
    return plan([(data / "recipe.yaml", recipe)], data, data, features_onnx)


def test_methods_without_masks_run_once_and_have_no_inputs(data: Path) -> None:
    methods = ["surface-sos-lite", "nerf-sos-lite"]
    variants = {"a": {}, "b": {"masks": "given"}}
    recipe = Recipe(captures=["toys/bear"], methods=methods, masks=["given", "none"], variants=variants)  # type: ignore[arg-type]
    todo = planned(recipe, data)
    assert [(run.method, run.variant, run.masks) for run in todo.runs] == [
        ("surface-sos-lite", "a", "given"),
        ("surface-sos-lite", "a", "none"),
        ("surface-sos-lite", "b", "given"),
        ("nerf-sos-lite", "a", "none"),
        ("nerf-sos-lite", "b", "none"),
    ]
    assert [inputs.masks for inputs in todo.inputs] == ["given", "none"]
    alone = Recipe(captures=["toys/bear"], methods=["nerf-sos-lite"])
    assert planned(alone, data).inputs == []


def test_a_baseline_is_measured_once_with_the_options_of_the_data_parser(data: Path) -> None:
    split = "pipeline.datamanager.dataparser.eval-mode"
    recipe = Recipe(
        captures=["toys/bear"],
        methods=["surface-sos", "nerf-sos"],
        masks=["none"],
        baselines=["cosegment", "prior"],
        seeds=[0, 1],
        options={split: "interval", "vis": "tensorboard"},
    )
    found = [inputs for inputs in planned(recipe, data).inputs if inputs.baseline]
    assert [(one.baseline, one.masks, one.features) for one in found] == [
        ("cosegment", "by cosegment", "descriptor"),
        ("prior", "by prior", ""),
    ]
    assert {one.options for one in found} == {(f"--{split}", "interval")}
    assert [one.mask_options for one in found] == [{"features": "descriptor"}, {}]


def test_a_network_of_features_goes_to_all_that_look_at_them_and_to_nothing_else(data: Path) -> None:
    values: dict[str, Any] = {
        "captures": ["toys/bear"],
        "masks": ["given", "none"],
        "baselines": ["cosegment", "prior"],
    }
    recipe = Recipe(**values, methods=["surface-sos", "nerf-sos-lite"])
    file, option = data / "dino.onnx", "--pipeline.datamanager.features"

    def shown(todo: Plan) -> dict[str, str]:
        named = {f"{run.method}, {run.masks}": run.features for run in todo.runs}
        return named | {one.baseline: one.features for one in todo.inputs if one.baseline}

    without, with_file = planned(recipe, data), planned(recipe, data, file)
    assert shown(without) == {
        "surface-sos, given": "",
        "surface-sos, none": "descriptor",
        "nerf-sos-lite, none": "descriptor",
        "cosegment": "descriptor",
        "prior": "",
    }
    assert shown(with_file) == {**shown(without), "nerf-sos-lite, none": "dino.onnx", "cosegment": "dino.onnx"}
    words = [next(run.options for run in todo.runs if run.method == "nerf-sos-lite") for todo in (without, with_file)]
    assert words[0][-2:] == (option, "descriptor") and words[1][-2:] == (f"{option}-onnx", str(file))
    assert not any(option in word for run in with_file.runs if run.method == "surface-sos" for word in run.options)
    places = [{one.folder(data) for one in todo.inputs if one.baseline == "cosegment"} for todo in (without, with_file)]
    assert places[0] != places[1], "results with other features are others"


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"pipeline.datamanager.features": "network"}, "network"),
        ({"pipeline.datamanager.features_model": "facebook/dino-vits8"}, "dino-vits8"),
        ({"pipeline.datamanager.features-onnx": "nets/other.onnx"}, "other.onnx"),
    ],
)
def test_features_that_a_recipe_names_come_before_those_of_the_command(
    options: dict[str, Any], shown: str, data: Path
) -> None:
    recipe = Recipe(captures=["toys/bear"], methods=["nerf-sos"], options=options)
    for file in (None, data / "dino.onnx"):
        (run,) = planned(recipe, data, file).runs
        assert run.features == shown
        assert sum(".features" in word for word in run.options) == 1


def test_a_home_folder_is_a_place_for_captures(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(data))
    recipe = Recipe(captures=["~/toys/duck"], methods=["surface-sos"])
    (run,) = plan([(tmp_path / "a.yaml", recipe)], tmp_path, tmp_path / "demo").runs
    assert run.capture.folder == data / "toys" / "duck"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in RECIPES],
)
def test_recipes_that_come_along_are_taken_by_ns_train(path: Path, tmp_path: Path) -> None:
    from surface_sos_ns.plugin.evaluation import training_config

    recipe = read_recipe(path)
    for name in recipe.captures:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "transforms.json").write_text("{}")
    todo = plan([(path, recipe)], tmp_path, tmp_path / "demo")
    assert todo.runs and not todo.absent
    for method, options in {(run.method, run.options): None for run in todo.runs}:
        config = training_config(method, options)
        assert recipe.steps is None or config.max_num_iterations == recipe.steps


def test_the_table_of_recipes_names_them_all() -> None:
    text = (ROOT / "configs" / "bench" / "README.md").read_text()
    assert set(re.findall(r"\[`(\w+\.yaml)`\]", text)) == {path.name for path in RECIPES}
    assert set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == set(Recipe.model_fields)


# ------------------------------------------------------------------ runs, with stand-ins for the commands


class Commands:
    """Stands for ns-train and the scoring; remembers what was called. Seed 2 cannot be trained."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.scored: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.checked: list[str | None] = []

    def train(self, method: str, capture: Path, run: Path, name: str, seed: int, options: tuple[str, ...]) -> Any:
        assert not list(run.iterdir()), "what a stopped run left is gone"
        self.trained.append(f"{method} {seed} {' '.join(options)}".strip())
        if seed == 2:
            raise CommandFailed("ns-train ended with exit status 1\n    no memory left")
        (run / "config.yml").write_text(str(seed))
        return run / "config.yml", Finished(100.0 + seed, 1.5)

    def run_module(self, arguments: list[str], log: Path) -> None:
        _, task, given = arguments
        values = json.loads(given)
        self.scored.append(task)
        if task == "check":
            self.checked.append(values["features_onnx"])
            return
        about = {"width": 40, "height": 30, "trained_on": 1, "held_out": 2}
        if task == "inputs":
            views = [{"name": "a", "held_out": True, "mask_iou": 0.5}]
            scores: dict[str, Any] = {"coarse masks": {"views": views}, "voted hull": {"views": [], "mesh": {}}}
            if values["baseline"] is not None:
                self.made.append(values["baseline"])
                scores["voted hull"] = {"views": [], "no_hull": "the masks have nothing in common"}
        elif "nerf-sos" in values["folder"]:
            views = [{"name": "a", "held_out": True, "mask_iou": 0.7, "mask_iou_bg": 0.9, "mask_ari": 0.6, "ssim": 0.8}]
            scores = {"views": views, "no_mesh": "a density has no surface"}
        else:
            seed = int(Path(values["config"]).read_text())
            ious = {"a": 0.9 + 0.02 * seed, "b": 0.8, "c": 0.99}
            views = [{"name": n, "held_out": n != "c", "mask_iou": iou, "psnr": 20.0} for n, iou in ious.items()]
            views[1]["clean_plate_psnr"] = 30.0
            scores = {"views": views, "mesh": {"mesh_chamfer": 0.01}}
        (Path(values["folder"]) / "scores.json").write_text(json.dumps(scores | about))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(runner, "train", found.train)
    monkeypatch.setattr(runner, "run_module", found.run_module)
    return found


@pytest.fixture
def bench(tmp_path: Path, data: Path) -> Callable[..., int]:
    def call(*options: str, **values: Any) -> int:
        recipe = write_recipe(tmp_path / "recipe.yaml", **values)
        given = ["--config", str(recipe), "--data", str(data), "--output", str(tmp_path / "out"), *options]
        return main(["bench", "quality", *given])

    return call


def test_seeds_share_a_line_and_a_failed_run_loses_no_other(
    bench: Callable[..., int], commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    assert bench("--json", str(result), captures=["toys/mouse", "toys/bear"], seeds=[0, 1, 2]) == 1
    said = capsys.readouterr()
    assert "Skipped: the capture toys/mouse" in said.err and "1 of 4 runs failed" in said.err
    assert "no memory left" in said.out
    assert commands.scored == ["check", "inputs", "run", "run"]
    found = {(row["what"], row["views"]): row["figures"] for row in json.loads(result.read_text())["rows"]}
    held_out = found["surface-sos-lite", "2 held out"]
    assert held_out["mask_iou"] == pytest.approx([0.85, 0.86])
    assert held_out["worst_mask_iou"] == [0.8, 0.8] and held_out["clean_plate_psnr"] == [30.0, 30.0]
    assert held_out["seconds"] == [100, 101] and held_out["mesh_chamfer"] == [0.01, 0.01]
    assert found["surface-sos-lite", "1 trained on"] == {
        "mask_iou": [0.99, 0.99],
        "worst_mask_iou": [0.99, 0.99],
        "psnr": [20.0, 20.0],
    }
    assert found["coarse masks", "1 held out"] == {"mask_iou": [0.5], "worst_mask_iou": [0.5]}
    text = (tmp_path / "out" / "results.md").read_text()
    assert (
        "| toys/bear | given | surface-sos-lite | 2 held out | 0.855 (0.850 to 0.860) | 0.800 (0.800 to 0.800) |"
        in text
    )
    assert "toys/bear: 40 x 30 pixels, 1 photos trained on, 2 held out" in text
    assert "Failed: toys/bear, surface-sos-lite, masks given, seed 2: no memory left" in text


def test_what_is_measured_is_not_measured_again(
    bench: Callable[..., int], commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(seeds=[0, 2]) == 1
    text = (tmp_path / "out" / "results.md").read_text()
    first = list(commands.trained)
    assert first == ["surface-sos-lite 0", "surface-sos-lite 2"]
    assert bench(seeds=[0, 2]) == 1
    assert commands.trained[2:] == ["surface-sos-lite 2"], "failures are tried again"
    assert (tmp_path / "out" / "results.md").read_text() == text
    capsys.readouterr()
    # One that was stopped half way is started afresh, and other settings are another run.
    for path in (tmp_path / "out" / "runs").glob("*seed-0*"):
        (path / "result.json").unlink()
    assert bench(seeds=[0]) == 0
    assert commands.trained[3:] == ["surface-sos-lite 0"]
    assert bench(seeds=[0], options={"x.y": 1}) == 0
    assert commands.trained[4:] == ["surface-sos-lite 0 --x.y 1"]
    commands.scored.clear()
    assert bench(seeds=[0]) == 0
    assert len(commands.trained) == 5 and commands.scored == []
    assert "measured before" in capsys.readouterr().err


NERF_SOS = {"methods": ["surface-sos-lite", "nerf-sos-lite"], "masks": ["none"], "baselines": ["cosegment"]}


def test_nerf_sos_and_its_baseline_stand_beside_each_other(
    bench: Callable[..., int], commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, result = tmp_path / "dino.onnx", tmp_path / "result.json"
    network.touch()
    assert bench("--features-onnx", str(network), "--json", str(result), **NERF_SOS) == 0
    assert commands.checked == [str(network)]
    assert commands.made == [{"method": "cosegment", "options": {"features_onnx": str(network)}}]
    none = "--pipeline.datamanager.dataparser.coarse-masks none"
    onnx = f"--pipeline.datamanager.features-onnx {network}"
    assert commands.trained == [f"surface-sos-lite 0 {none}", f"nerf-sos-lite 0 {none} {onnx}"]
    text = (tmp_path / "out" / "results.md").read_text()
    lines = {tuple(cell.strip() for cell in line.split("|")[1:]) for line in text.splitlines() if line[:1] == "|"}
    heads = ("capture", "masks", "features", "what", "views", "IoU", "worst", "IoU bg", "NV-ARI", "PSNR", "SSIM")
    assert heads in {cells[:11] for cells in lines}
    shown = {cells[1:5]: cells[5] for cells in lines}
    assert shown["none", "dino.onnx", "nerf-sos-lite", "1 held out"] == "0.700"
    assert shown["by cosegment", "dino.onnx", "coarse masks", "1 held out"] == "0.500"
    assert shown["none", "descriptor", "surface-sos-lite", "2 held out"] == "0.850"
    remarks = [
        "No hull of toys/bear, masks by cosegment, voted hull: the masks have nothing in common",
        "No mesh of toys/bear, nerf-sos-lite, masks none, seed 0: a density has no surface",
    ]
    said = capsys.readouterr().out
    assert all(line in text.splitlines() and line in said for line in remarks)
    assert json.loads(result.read_text())["remarks"] == remarks and "Failed" not in text


def test_a_table_without_features_has_no_column_for_them(
    bench: Callable[..., int], commands: Commands, tmp_path: Path
) -> None:
    assert bench() == 0
    assert "| capture | masks | what | views | IoU |" in (tmp_path / "out" / "results.md").read_text()


def test_a_network_that_is_missing_or_of_no_use_is_refused(
    bench: Callable[..., int], commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "dino.onnx"
    assert bench("--features-onnx", str(network), **NERF_SOS) == 1
    assert f"{network} is no file" in capsys.readouterr().err
    network.touch()
    assert bench("--features-onnx", str(network), baselines=["prior"]) == 1
    assert "would not be used" in capsys.readouterr().err
    assert commands.scored == [] and commands.trained == []


def test_results_of_other_code_are_kept_but_said(
    bench: Callable[..., int], commands: Commands, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench() == 0
    assert bench() == 0 and "another state of the code" not in capsys.readouterr().err
    monkeypatch.setattr(runner, "_code", lambda: "changed")
    assert bench() == 0 and "another state of the code" in capsys.readouterr().err


def test_options_that_ns_train_refuses_stop_the_benchmark_before_it_starts(
    bench: Callable[..., int],
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(arguments: list[str], log: Path) -> None:
        raise CommandFailed("Unrecognized options: --x.y")

    monkeypatch.setattr(runner, "run_module", refuse)
    assert bench(options={"x.y": 1}) == 1 and commands.trained == []
    assert "does not take the options" in capsys.readouterr().err


def test_missing_things_are_named(
    bench: Callable[..., int], commands: Commands, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(captures=["toys/mouse"]) == 1
    assert "None of the captures is there" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bench() == 1
    assert "nerfstudio, which is not installed here" in capsys.readouterr().err
    assert main(["bench", "quality"]) == 1
    assert "--config names no recipe" in capsys.readouterr().err


def test_the_demo_capture_is_rendered_where_it_is_asked_for(
    bench: Callable[..., int], commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Path] = []
    monkeypatch.setattr(runner, "write_demo_capture", rendered.append)
    assert bench() == 0 and rendered == []
    assert bench(captures=["demo"]) == 0 and rendered == [tmp_path / "out" / "demo"]


def test_what_the_table_shows_is_among_its_columns() -> None:
    assert set(table.SHOWN) <= set(table.COLUMNS) and set(table.OF_THE_RUN) <= set(table.COLUMNS)


# ------------------------------------------------------------------ for real


@pytest.mark.slow
@pytest.mark.seconds(60)
def test_a_short_run_is_trained_scored_and_drawn(
    demo_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from surface_sos_ns.utils.metrics import mask_metrics

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    recipe = write_recipe(tmp_path / "recipe.yaml", captures=[demo_capture.name], steps=12, options=TINY)
    result = tmp_path / "result.json"
    given = ["--config", str(recipe), "--data", str(demo_capture.parent), "--output", str(tmp_path / "out")]
    assert main(["bench", "quality", *given, "--json", str(result)]) == 0, capsys.readouterr().err
    inputs, run = json.loads(result.read_text())["results"]
    assert (run["width"], run["height"], run["trained_on"], run["held_out"]) == (100, 75, 28, 4)
    meta = json.loads((demo_capture / "transforms.json").read_text())
    views = {view["name"]: view for view in run["views"]}
    held_out = {Path(name).stem for name in meta["test_filenames"]}
    assert {name for name, view in views.items() if view["held_out"]} == held_out
    assert views.keys() == {Path(frame["file_path"]).stem for frame in meta["frames"]}, "the trained ones have truth"
    assert all(0 <= view["mask_iou"] <= 1 and 5 < view["psnr"] < 50 for view in views.values())
    assert any("clean_plate_psnr" in view for view in views.values())

    def mask(frame: dict, key: str) -> Any:
        import torch

        picture = cv2.imread(str(demo_capture / frame[key]), cv2.IMREAD_GRAYSCALE)
        return torch.from_numpy(picture.astype(np.float32) / 255)

    coarse = {view["name"]: view for view in inputs["coarse masks"]["views"]}
    for frame in meta["frames"]:
        found = coarse[Path(frame["file_path"]).stem]
        expected = mask_metrics(mask(frame, "coarse_mask_path"), mask(frame, "gt_mask_path"))
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    voted = inputs["voted hull"]["views"]
    assert np.mean([v["mask_iou"] for v in voted]) > np.mean([v["mask_iou"] for v in coarse.values()])
    # In the frame of transforms.json the hull, and what was trained from it for a moment, lie around the true mesh.
    assert inputs["voted hull"]["mesh"]["mesh_chamfer_relative"] < 0.06
    assert run["mesh"]["mesh_chamfer_relative"] < 0.12
    folder = next((tmp_path / "out" / "runs").iterdir())
    assert (folder / "object.ply").is_file() and not (demo_capture / "object.ply").exists()
    sheet = cv2.imread(str(folder / "contact_sheet.jpg"))
    assert sheet is not None and sheet.shape[0] > 4 * 75 and sheet.shape[1] > 8 * 100


@pytest.mark.slow
@pytest.mark.seconds(60)
def test_a_short_run_of_nerf_sos_is_scored_without_a_mesh(
    demo_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    few = {"pipeline.datamanager.train-num-rays-per-batch": 64, "pipeline.model.initial-fit-steps": 10}
    values = {"captures": [demo_capture.name], "methods": ["nerf-sos-lite"], "steps": 40, "options": few}
    recipe, result = write_recipe(tmp_path / "recipe.yaml", **values), tmp_path / "result.json"
    given = ["--config", str(recipe), "--data", str(demo_capture.parent), "--output", str(tmp_path / "out")]
    assert main(["bench", "quality", *given, "--json", str(result)]) == 0, capsys.readouterr().err
    document = json.loads(result.read_text())
    (run,) = document["results"]
    assert len(run["views"]) == 32 and all({"mask_ari", "mask_iou_bg", "ssim"} <= view.keys() for view in run["views"])
    assert document["problems"] == []
    assert [line.split(",")[0] for line in document["remarks"]] == [f"No mesh of {demo_capture.name}"]
    folder = next((tmp_path / "out" / "runs").iterdir())
    assert (folder / "contact_sheet.jpg").is_file() and not (folder / "object.ply").exists()
