"""A stage is done once, done again when what it depends on has changed, and fails alone. The commands are doubles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from surface_sos_ns.batch import stage_run, stages, stamps
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import collect
from surface_sos_ns.batch.settings import StageName
from surface_sos_ns.batch.stage_run import Result, run_stage
from surface_sos_ns.batch.stages import Stage, stages_of
from surface_sos_ns.utils.user_commands import CommandFailed, Finished


class Commands:
    """Stands for the commands: writes what was asked for, counts, and fails where it is told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fail = ""

    def stage(self, stage: Stage) -> Stage:
        def run(job: Job, log: Path) -> Finished:
            self.ran.append(stage.name)
            log.parent.mkdir(exist_ok=True)
            log.write_text("log")
            if stage.name == self.fail:
                raise CommandFailed("`x` ended with exit status 1.\n    noise\n    surface-sos: the photos are dark.\n")
            for name in stage.outputs:
                place = job.folder / name
                if "." in name:
                    place.write_text(json.dumps({"results": {"mask_iou": 0.9}}))
                else:
                    place.mkdir(exist_ok=True)
                    (place / "file").write_text(f"{stage.name} {len(self.ran)}")
            return Finished(2.0, 0.5, 3.0)

        return replace(stage, run=run)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    doubles = Commands()
    table = tuple(doubles.stage(stage) for stage in stages.STAGES)
    for module in (stages, stage_run):
        monkeypatch.setattr(module, "STAGES", table)
    monkeypatch.setattr(stage_run, "PATIENCE", 0.0)
    return doubles


@pytest.fixture
def job(tmp_path: Path) -> Job:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"one")
    options = {key: {} for key in ("process", "train", "export", "report")} | {"masks": None, "outlines": None}
    return Job("cup", str(source), "photos", tmp_path / "out" / "cup", "surface-sos-lite", options=options)


def _all(job: Job, storage: str | None = None, again: tuple[StageName, str] | None = None) -> Result:
    before: Result | None = None
    for stage in stages_of(job):
        before = run_stage(job, stage.name, before, 1, storage, again)
        if before.outcome.state == "failed":
            break
    assert before is not None
    return before


ALL = ["process", "train", "eval", "export", "report"]


def test_what_is_done_is_not_done_again(job: Job, commands: Commands) -> None:
    first = _all(job)
    assert commands.ran == ALL and first.outcome.state == "done"
    assert first.outcome.mask_iou == 0.9 and first.outcome.peak_gb == 0.5
    assert first.outcome.cpu_seconds == dict.fromkeys(ALL, 3.0)
    second = _all(job)
    assert commands.ran == ALL and second.was_done and second.fingerprint == first.fingerprint


def test_a_changed_photo_does_all_again_and_keeps_what_was(job: Job, commands: Commands) -> None:
    _all(job)
    (Path(job.source) / "a.jpg").write_bytes(b"two")  # as long as before
    _all(job)
    assert commands.ran == ALL * 2
    assert (job.folder / "earlier-1" / "training" / "file").read_text() == "train 2"
    assert (job.folder / "training" / "file").read_text() == "train 7"


def test_smaller_copies_that_training_leaves_in_a_scene_change_nothing(job: Job, commands: Commands) -> None:
    scene = replace(job, kind="scene")
    _all(scene)
    (Path(job.source) / "images_2").mkdir()
    (Path(job.source) / "images_2" / "a.jpg").write_bytes(b"small")
    assert _all(scene).was_done


def test_changed_options_begin_at_their_stage(job: Job, commands: Commands) -> None:
    _all(job)
    _all(replace(job, options={**job.options, "export": {"what": ["mesh"]}}))
    assert commands.ran == [*ALL, "export", "report"]
    _all(replace(job, steps=5, options={**job.options, "export": {"what": ["mesh"]}}))
    assert commands.ran[len(ALL) + 2 :] == ALL[1:]


def test_stages_are_forced_once_a_batch(job: Job, commands: Commands) -> None:
    _all(job)
    _all(job, again=("train", "begin 1"))
    assert commands.ran == [*ALL, *ALL[1:]]
    run_stage(
        job,
        "report",
        Result(stamps.read_stamp((job.folder / "stages/export.json").read_bytes()).fingerprint, collect(job)),
        1,
        None,
        ("train", "begin 1"),
    )
    assert commands.ran == [*ALL, *ALL[1:]]  # begun again by the engine, not by the user
    _all(job, again=("train", "begin 2"))
    assert commands.ran == [*ALL, *ALL[1:], *ALL[1:]]


def test_an_interrupted_stage_finds_what_it_left(job: Job, commands: Commands) -> None:
    commands.fail = "train"
    failed = _all(job)
    assert failed.outcome.state == "failed" and failed.outcome.stage == "train"
    assert failed.outcome.problem == "the photos are dark." and failed.outcome.log == "logs/train.log"
    (job.folder / "training").mkdir()
    (job.folder / "training" / "checkpoint").write_text("half")
    commands.fail = ""
    assert _all(job).outcome.state == "done"
    assert (job.folder / "training" / "checkpoint").read_text() == "half"
    assert commands.ran == ["process", "train", "train", "eval", "export", "report"]


def test_a_fault_of_the_program_is_raised_and_recorded(job: Job, commands: Commands, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(stage_run, "_do", broken)
    with pytest.raises(ZeroDivisionError):
        run_stage(job, "process", None, 1)
    assert json.loads((job.folder / "result.json").read_text())["problem"] == "ZeroDivisionError: by zero"


def test_machines_without_a_shared_folder_go_on_from_the_storage(job: Job, commands: Commands, tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/store"
    before = None
    for number, stage in enumerate(stages_of(job)):  # each on another machine
        there = replace(job, folder=tmp_path / f"machine {number}" / "cup")
        before = run_stage(there, stage.name, before, 1, storage)
    assert before is not None and before.outcome.state == "done" and commands.ran == ALL
    assert (tmp_path / "store" / "cup" / "training" / "file").read_text() == "train 2"
    assert (tmp_path / "machine 4" / "cup" / "scene" / "file").is_file()
    fresh = replace(job, folder=tmp_path / "fresh" / "cup")
    found = _all(fresh, storage)
    assert found.was_done and found.outcome.state == "done" and found.outcome.mask_iou == 0.9
    assert not (fresh.folder / "training").exists()  # nothing is fetched for what is done


def test_another_machine_finds_all_done_that_one_has_done(job: Job, commands: Commands, tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/store"
    assert _all(job, storage).outcome.state == "done"
    assert _all(replace(job, folder=tmp_path / "other" / "cup"), storage).was_done
    assert commands.ran == ALL


def test_threads_are_those_that_were_asked_for(job: Job, commands: Commands, monkeypatch) -> None:
    import os

    seen: list[str | None] = []
    monkeypatch.setattr(stage_run, "_do", lambda *_: seen.append(os.environ.get("OMP_NUM_THREADS")))
    monkeypatch.setattr(stage_run, "_send", lambda *_: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_stage(job, "process", None, 3)
    assert seen == ["3"] and "OMP_NUM_THREADS" not in os.environ
