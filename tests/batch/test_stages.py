"""What each stage runs: the words of the commands, and how an interrupted training goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from surface_sos_ns.batch import stages
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.stages import arguments
from surface_sos_ns.utils.user_commands import Finished


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "out" / "cup"
    folder.mkdir(parents=True)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    options = {name: {} for name in ("process", "train", "export", "report")}
    return Job("cup", str(tmp_path / "photos"), "photos", folder, "surface-sos-lite", 500, 7, options)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Names of the runs and options of the trainings that were begun."""
    begun: list[tuple[str, list[str]]] = []

    def train(method, capture, run, name, seed, options, timestamp, log):
        begun.append((timestamp, list(options)))
        (run / "training" / name / method / timestamp).mkdir(parents=True, exist_ok=True)
        return run / "config.yml", Finished(1.0, None)

    monkeypatch.setattr(stages, "train", train)
    return begun


def _run(job: Job) -> None:
    next(stage for stage in stages.STAGES if stage.name == "train").run(job, job.folder / "log")


def test_an_interrupted_training_goes_on_from_its_last_checkpoint(job: Job, trainings) -> None:
    _run(job)
    _run(job)  # interrupted before its first checkpoint
    runs = job.folder / "training" / "cup" / "surface-sos-lite"
    models = runs / "run-1" / "nerfstudio_models"
    models.mkdir()
    (models / "step-000000250.ckpt").write_bytes(b"")
    _run(job)
    _run(job)
    (runs / "run-2" / "nerfstudio_models").mkdir()
    (runs / "run-2" / "nerfstudio_models" / "step-000000300.ckpt").write_bytes(b"")
    _run(job)
    steps = ["--max-num-iterations", "500"]
    later = runs / "run-2" / "nerfstudio_models"
    assert trainings == [
        ("run-1", steps),
        ("run-1", steps),
        ("run-2", [*steps, "--load-dir", str(models)]),
        ("run-2", [*steps, "--load-dir", str(models)]),
        ("run-3", [*steps, "--load-dir", str(later)]),
    ]
    assert str(runs / "run-3" / "config.yml") in arguments(job, "export")


def test_a_scene_whose_masks_are_made_stays_as_it_is(job: Job) -> None:
    scene = replace(job, kind="scene", options={**job.options, "masks": {"method": "prior"}})
    (Path(job.source) / "transforms.json").write_text(json.dumps({"frames": []}))
    process = next(stage for stage in stages.STAGES if stage.name == "process")
    assert process.asked(scene) and not process.asked(replace(job, kind="scene"))
    process.run(scene, job.folder / "log")
    assert (scene.scene / "transforms.json").read_text() == '{"frames": []}' and scene.scene != Path(job.source)
    process.run(scene, job.folder / "log")  # was there already
    assert arguments(scene, "masks")[1:3] == ["--data", str(scene.scene)] and "prior" in arguments(scene, "masks")


def test_only_captures_with_truth_are_measured(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(stages, "run_module", lambda words, log: ran.append(words) or Finished(1.0, None))
    evaluate = next(stage for stage in stages.STAGES if stage.name == "eval")
    job.scene.mkdir()
    for content, measured in (
        (None, 0), ("[]", 0), ("no json", 0), ('{"frames": [{"gt_mask_path": "a.png"}]}', 1)
    ):  # fmt: skip
        if content is not None:
            (job.scene / "transforms.json").write_text(content)
        evaluate.run(job, job.folder / "log")
        assert len(ran) == measured
    assert ran[0][0] == "nerfstudio.scripts.eval"


def test_outlines_are_what_poses_are_found_with(job: Job) -> None:
    turntable = replace(job, options={**job.options, "outlines": {"method": "selfment"}, "process": {"use": "object"}})
    assert arguments(turntable, "process")[-4:] == ["--masks", str(job.folder / "outlines"), "--use", "object"]
    assert "--masks" not in arguments(job, "process")
