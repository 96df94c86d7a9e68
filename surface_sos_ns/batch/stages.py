"""The stages of a capture, in their order: what each runs, and what it leaves. A new stage is an entry of `STAGES`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.batch.job import Job, words
from surface_sos_ns.batch.settings import StageName
from surface_sos_ns.batch.storage import download
from surface_sos_ns.utils.files import atomic_folder
from surface_sos_ns.utils.user_commands import Finished, run_module, train

__all__ = ["STAGES", "Stage", "arguments", "stages_of"]

OURS = "surface_sos_ns.cli"
"""The module behind the command surface-sos."""


@dataclass(frozen=True)
class Stage:
    """A step from photos to results.

    Attributes:
        name: as in recipes and `--from`.
        outputs: files and folders that it leaves in the capture's folder.
        asked: whether a capture goes through it, by its kind and options.
        run: does it; gets the capture and a file for the log. Interrupted and called again, it goes on.
        on_device: whether it computes on the GPU.
        in_place: whether its command replaces what it left before by itself, and keeps it.
    """

    name: StageName
    outputs: tuple[str, ...]
    asked: Callable[[Job], bool]
    run: Callable[[Job, Path], Finished | None]
    on_device: bool = False
    in_place: bool = False


def arguments(job: Job, stage: StageName) -> list[str]:
    """The words of a stage's command, those of the recipe last. Their names are in `RESERVED` of recipes."""
    options = job.options.get(stage) or {}
    scene, config = str(job.scene), str(_config(job))
    match stage:
        case "outlines":
            given = ["masks", "--images", str(job.place), "--output", str(job.folder / "outlines"), "--overwrite"]
        case "process":
            given = ["process", "--images", str(job.place), "--output", scene]
            if _has_outlines(job):
                given += ["--masks", str(job.folder / "outlines")]
        case "masks":
            given = ["masks", "--data", scene, "--overwrite"]
        case "train":
            steps = [] if job.steps is None else ["--max-num-iterations", str(job.steps)]
            return [*steps, *words(options, flags=False)]
        case "eval":
            return ["--load-config", config, "--output-path", str(job.folder / "metrics.json")]
        case "export":
            given = ["export", "--load-config", config, "--output-dir", str(job.folder / "export")]
        case "report":
            folder = job.folder / "report"
            given = ["report", "--load-config", config, "--output", str(folder / "index.html")]
            given += ["--figures", str(folder / "figures.json"), "--overwrite"]
            if (job.folder / "metrics.json").is_file():
                given += ["--metrics", str(job.folder / "metrics.json")]
        case _:
            return []
    return [*given, *words(options, flags=True)]


def stages_of(job: Job) -> list[Stage]:
    """The stages that a capture goes through."""
    return [stage for stage in STAGES if stage.asked(job)]


# ------------------------------------------------------------------ what each does


def _fetch(job: Job, log: Path) -> None:
    del log
    download(job.source, job.place)


def _command(name: StageName) -> Callable[[Job, Path], Finished]:
    return lambda job, log: run_module([OURS, *arguments(job, name)], log)


def _process(job: Job, log: Path) -> Finished | None:
    """A scene of photos; of a scene whose masks will be made, a copy of links, so that it stays as it is."""
    if (job.scene / "transforms.json").is_file():  # ended between its last step and the stamp
        return None
    if job.kind != "scene":
        return run_module([OURS, *arguments(job, "process")], log)
    if not job.scene.is_dir():
        with atomic_folder(job.scene) as partial:
            shutil.copytree(job.place, partial, dirs_exist_ok=True, copy_function=_link)
    return None


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where that cannot be. No command changes a capture's files: they are replaced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _train(job: Job, log: Path) -> Finished:
    """A training, or the rest of one that was interrupted.

    Runs are called run-1, run-2, each going on from the one before. One that was interrupted before its first
    checkpoint is begun again where it was: what it found out about the object is there.
    """
    runs, options = _runs(job), arguments(job, "train")
    saved = [path for path in runs if any((path / "nerfstudio_models").glob("step-*.ckpt"))]
    if saved:
        options += ["--load-dir", str(saved[-1] / "nerfstudio_models")]
    name = f"run-{len(saved) + 1}"
    _, done = train(job.method, job.scene, job.folder, job.name, job.seed, options, name, log)
    return done


def _evaluate(job: Job, log: Path) -> Finished | None:
    if not _has_truth(job.scene):
        return None
    return run_module(["nerfstudio.scripts.eval", *arguments(job, "eval")], log)


def _report(job: Job, log: Path) -> Finished:
    (job.folder / "report").mkdir(exist_ok=True)
    return run_module([OURS, *arguments(job, "report")], log)


def _runs(job: Job) -> list[Path]:
    """The folders of a capture's trainings, the latest last."""
    found = (job.folder / "training" / job.name / job.method).glob("run-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("run-")))


def _config(job: Job) -> Path:
    """The config.yml of the latest training."""
    runs = _runs(job)
    return (runs[-1] if runs else job.folder / "training") / "config.yml"


def _has_outlines(job: Job) -> bool:
    return job.kind == "photos" and job.options.get("outlines") is not None


def _has_truth(scene: Path) -> bool:
    """Whether a capture brings true masks to measure with."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        frames = json.loads((scene / "transforms.json").read_text(encoding="utf-8-sig"))["frames"]
        return any("gt_mask_path" in frame for frame in frames)
    return False


STAGES = (
    Stage("fetch", ("source",), lambda job: job.is_remote, _fetch),
    Stage("outlines", ("outlines",), _has_outlines, _command("outlines")),
    Stage("process", ("scene",), lambda job: job.kind != "scene" or job.options.get("masks") is not None, _process),
    Stage("masks", ("scene",), lambda job: job.options.get("masks") is not None, _command("masks"), in_place=True),
    Stage("train", ("training",), lambda job: True, _train, on_device=True),
    Stage("eval", ("metrics.json",), lambda job: True, _evaluate, on_device=True),
    Stage(
        "export", ("export",), lambda job: job.options.get("export", {}) is not None, _command("export"), on_device=True
    ),
    Stage("report", ("report",), lambda job: job.options.get("report", {}) is not None, _report, on_device=True),
)
"""All of them. Outlines are masks of photos without poses, which poses are found with (`process --masks`)."""
