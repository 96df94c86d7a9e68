"""Runs recipes: training by ns-train, then scoring. Finished runs are kept, so that a stopped benchmark resumes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surface_sos_ns.bench.quality.recipe import DEMOS, NERF_SOS, Inputs, Plan, Run, plan, read_recipe
from surface_sos_ns.bench.quality.table import Outcome, markdown
from surface_sos_ns.bench.settings import BenchError, Quality, require
from surface_sos_ns.demo.capture import write_demo_capture
from surface_sos_ns.utils.files import write_json, write_text
from surface_sos_ns.utils.user_commands import CommandFailed, run_module, train

SCORE = "surface_sos_ns.bench.quality.score"
RESULT = "result.json"
TABLE = "results.md"


def run_quality(settings: Quality) -> list[Outcome]:
    """Runs the benchmark, and rewrites results.md after every run; returns the outcomes, inputs first.

    Raises:
        BenchError: a recipe or an option in it is wrong, or nerfstudio is missing; nothing has started then.
    """
    recipes = [(path, read_recipe(path)) for path in settings.config]
    output = settings.output
    todo = plan(recipes, settings.data, output, settings.features_onnx)
    for capture in todo.absent:
        _say(f"Skipped: the capture {capture.name}; there is no {capture.folder} (--data names where captures are).")
    require(bool(todo.runs), "None of the captures is there, so nothing is measured.")
    _check_options(todo, output, settings.features_onnx)
    for name, options in DEMOS.items():
        if any(run.capture.name == name for run in todo.runs):
            write_demo_capture(output / name, **options)

    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        write_text(output / TABLE, markdown(outcomes))

    for number, inputs in enumerate(todo.inputs, 1):
        keep(_measured(inputs, output, f"Inputs {number} of {len(todo.inputs)}", _measure_inputs))
    for number, run in enumerate(todo.runs, 1):
        keep(_measured(run, output, f"Run {number} of {len(todo.runs)}", _measure_run))
    return outcomes


def _check_options(todo: Plan, output: Path, features_onnx: Path | None) -> None:
    """Checks the options of all runs with ns-train's parser, and the network of features, before the first run."""
    require(
        importlib.util.find_spec("nerfstudio") is not None,
        "`bench quality` trains with nerfstudio, which is not installed here: pip install 'nerfstudio>=1.1.5,<1.2'.",
    )
    require(
        features_onnx is None or features_onnx.name in todo.features,
        f"--features-onnx {features_onnx} would not be used: the recipes name none of {', '.join(NERF_SOS)}, and no "
        "baseline that looks at features. Leave it out.",
    )
    waiting = [run for run in todo.runs if _kept(run, output) is None]
    if not waiting:
        return
    arguments = {
        "runs": [(run.title, run.method, list(run.options)) for run in waiting],
        "features_onnx": None if features_onnx is None else str(features_onnx),
    }
    try:
        run_module([SCORE, "check", json.dumps(arguments)], output / "check.log")
    except CommandFailed as error:
        network = "" if features_onnx is None else f", or --features-onnx {features_onnx} cannot be used"
        raise BenchError(f"ns-train does not take the options of a recipe{network}. {error}") from error


def _measured(task: Run | Inputs, output: Path, title: str, measure: Callable[[Any, Path], dict[str, Any]]) -> Outcome:
    """The stored result of a task, or a new one. Failures are returned but not stored."""
    kept = _kept(task, output)
    if kept is not None:
        other = "" if kept["code"] == _code() else " It is of another state of the code; --output names a fresh folder."
        _say(f"{title}: {task.title}: measured before, in {task.folder(output)}.{other}")
        return Outcome(task, kept)
    folder = task.folder(output)
    if folder.exists():  # of a run that was stopped half way
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _say(f"{title}: {task.title}: into {folder}")
    try:
        result = {"settings": task.settings(), "code": _code(), **measure(task, folder)}
    except CommandFailed as error:
        _say(f"{title}: {task.title}: failed. {error}")
        return Outcome(task, None, _reason(str(error)))
    write_json(folder / RESULT, result)
    return Outcome(task, result)


def _measure_inputs(inputs: Inputs, folder: Path) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "capture": str(inputs.capture.folder),
        "options": list(inputs.options),
        "folder": str(folder),
        "baseline": {"method": inputs.baseline, "options": inputs.mask_options} if inputs.baseline else None,
    }
    return score("inputs", arguments, folder)


def _measure_run(run: Run, folder: Path) -> dict[str, Any]:
    name = folder.name
    config, done = train(run.method, run.capture.folder, folder, name, run.seed, run.options)
    arguments = {"config": str(config), "capture": str(run.capture.folder), "folder": str(folder)}
    scores = score("run", arguments, folder)
    return {"seconds": done.seconds, "peak_gb": done.peak_gb, "config": str(config), **scores}


def score(task: str, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The scores of a task of `score.py`, run in a process of its own to free its memory."""
    run_module([SCORE, task, json.dumps(arguments)], folder / "score.log")
    return json.loads((folder / "scores.json").read_text())


def _kept(task: Run | Inputs, output: Path) -> dict[str, Any] | None:
    """The stored result for the same settings; None if there is none."""
    try:
        result = json.loads((task.folder(output) / RESULT).read_text())
    except (OSError, ValueError):
        return None
    same = isinstance(result, dict) and "code" in result and result.get("settings") == task.settings()
    return result if same else None


def _code() -> str:
    """Digest of this package's source files; tells results of different versions apart."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _reason(message: str) -> str:
    """The last line of a failed command's message."""
    return message.strip().splitlines()[-1].strip()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
