"""Commands are killed at random moments: nothing is lost, and the same command again ends as an undisturbed one does.

Half of the moments are drawn in time, half among the changes that a command makes to its folder (each file opened for
writing, each rename and removal). Killed ones are started again, and every other time killed again. SURFACE_SOS_KILLS
is how often in all, SURFACE_SOS_KILLS_SEED draws the same moments once more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from surface_sos_ns.demo.capture import write_demo_capture
from surface_sos_ns.plugin.checkpoints import list_checkpoints
from surface_sos_ns.plugin.loss_log import read_losses
from surface_sos_ns.utils import files as writer
from surface_sos_ns.utils.locks import fcntl
from tests.helpers import textured_corner
from tests.helpers.terminal import NO_NETWORK, Terminal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(fcntl is None, reason="leftovers are told from unfinished files by locks"),
]

KILLS = int(os.environ.get("SURFACE_SOS_KILLS", "6"))
SHARES = {"train": 0.4, "export": 0.16, "export --overwrite": 0.14, "masks": 0.12, "process": 0.1, "report": 0.08}
SEED = int(os.environ.get("SURFACE_SOS_KILLS_SEED", random.SystemRandom().randrange(10**6)))

# Each Python process of these tests runs this when it starts. It counts the changes to a folder, those of
# TensorBoard left out, notes when the first is made and how many there were, and kills its process group just before
# the given one.
COUNT_CHANGES = """
import atexit, json, os, signal, sys, time

FOLDER, NOTE, LAST = os.environ["KILL_FOLDER"], os.environ["KILL_NOTE"], int(os.environ["KILL_AT"])
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
changes, started = 0, 0.0

def note():
    with open(NOTE, "w") as file:
        json.dump({"changes": changes, "seconds": time.monotonic() - started}, file)

def watch(event, arguments):
    global changes, started
    if event == "open":
        if not arguments[2] & WRITES:
            return
    elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
        return
    if isinstance(arguments[0], int):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    if "tfevents" in path or not path.startswith(FOLDER):
        return
    changes += 1
    if changes == LAST:
        os.killpg(0, signal.SIGKILL)
    if changes == 1:
        started = time.monotonic()
        note()

sys.addaudithook(watch)
atexit.register(lambda: changes and note())
"""
TINY = (
    *("--pipeline.datamanager.train-num-rays-per-batch", "64"),
    *("--pipeline.model.initial-fit-steps", "10"),
    *("--pipeline.model.scene.foreground-grid.log2-entries", "12"),
    *("--pipeline.model.scene.background-grid.log2-entries", "12"),
    *("--pipeline.model.scene.cache-resolution", "24"),
    *("--pipeline.model.scene.probability-resolution", "24"),
)
STEPS = 60


@dataclass(frozen=True)
class Undisturbed:
    """How a command ran that was not killed.

    Attributes:
        seconds: from the first change to its end.
        changes: to files and folders.
    """

    seconds: float
    changes: int


@dataclass(frozen=True)
class Killer(Terminal):
    """Runs commands, and kills them."""

    def start(self, arguments: Iterable[str | Path], watched: Path, last_change: int = 0) -> subprocess.Popen[bytes]:
        """A command in a process group of its own; its output goes to a file.

        Args:
            arguments: of `python -m`.
            watched: changes to files whose paths begin like this are counted.
            last_change: it is killed before this one, counted from 1; 0 for never.
        """
        self.note.unlink(missing_ok=True)
        watching = {"KILL_FOLDER": str(watched), "KILL_NOTE": str(self.note), "KILL_AT": str(last_change)}
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment(), **watching},
                cwd=self.folder,
                start_new_session=True,
            )

    def finish(self, arguments: Iterable[str | Path], watched: Path) -> Undisturbed:
        """Runs a command to its end."""
        assert not self._was_killed(self.start(arguments, watched))
        return Undisturbed(**json.loads(self.note.read_text()))

    def kill(self, arguments: Iterable[str | Path], watched: Path, usual: Undisturbed, rng: random.Random) -> bool:
        """Runs a command and kills it at a random moment after its first change; False where it had ended by then."""
        if rng.random() < 0.5:
            change = rng.randint(1, usual.changes)
            print(f"  kill -9 before change {change} of {usual.changes}", end="")
            return self._was_killed(self.start(arguments, watched, change))
        seconds = rng.uniform(0, usual.seconds)
        print(f"  kill -9 after {seconds:.2f} s of {usual.seconds:.2f} s", end="")
        process = self.start(arguments, watched)
        while not self.note.exists() and process.poll() is None:
            time.sleep(0.005)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return self._was_killed(process)

    def _was_killed(self, process: subprocess.Popen[bytes]) -> bool:
        try:
            status = process.wait(600)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert status in (0, -signal.SIGKILL), f"status {status} of {process.args}\n{self.log.read_text()[-4000:]}"
        return status != 0

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    @property
    def note(self) -> Path:
        return self.folder / "changes.json"


class Command:
    """A command that is killed. Each of its attempts begins with `begin`.

    Attributes:
        watched: how the paths of its files begin.
    """

    watched: Path

    def begin(self, number: int) -> None:
        """Makes what the command starts from, the `number`-th time."""
        raise NotImplementedError

    def arguments(self) -> list[str | Path] | None:
        """What is to be typed now; None where the command has done all of its work already."""
        raise NotImplementedError

    def check_nothing_lost(self) -> None:
        """Looks at what there is after a kill."""
        raise NotImplementedError

    def check_result(self) -> None:
        """Compares what there is with what an undisturbed command has made."""
        raise NotImplementedError


def kill_often(killer: Killer, command: Command, usual: Undisturbed, name: str) -> None:
    """Kills a command so often as its share of all kills is."""
    rng = random.Random(f"{SEED} {name}")
    left, number = max(1, round(KILLS * SHARES[name])), 0
    print(f"\n{name}: {left} kills, SURFACE_SOS_KILLS_SEED={SEED}")
    while left:
        command.begin(number)
        number += 1
        kills, ended = True, False
        while not ended and (arguments := command.arguments()) is not None:
            if kills and left:
                ended = not killer.kill(arguments, command.watched, usual, rng)
                left -= not ended
                print(": had ended" if ended else "")
                command.check_nothing_lost()
                kills = rng.random() < 0.5
            else:
                killer.finish(arguments, command.watched)
                ended = True
        command.check_result()


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, those included that are still unfinished."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinished(folder: Path) -> list[str]:
    """What has the name of something that is being written."""
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == writer.SUFFIX]


def visible(folder: Path) -> dict[str, bytes]:
    """The files that a user sees, by name."""
    found = contents(folder)
    return {name: found[name] for name in found if not any(part.startswith(".") for part in name.split("/"))}


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Killer:
    folder = tmp_path_factory.mktemp("killed").resolve()
    (folder / "sitecustomize.py").write_text(NO_NETWORK + COUNT_CHANGES)
    (folder / "weights").mkdir()
    return Killer(folder)


@pytest.fixture(scope="module")
def capture(killer: Killer) -> Path:
    return write_demo_capture(killer.folder / "capture", 16, 80, 60, workers=1, progress=False, quality=0.3)


# ------------------------------------------------------------------ training


class Training(Command):
    """A run that is resumed in its own folder or, every other time, in a new one."""

    def __init__(self, killer: Killer, capture: Path, reference: Path) -> None:
        self.killer, self.capture, self.reference = killer, capture, reference

    def begin(self, number: int) -> None:
        self.name, self.runs, self.saved = f"killed{number}", 0, -1
        self.runs_in_place = number % 2 == 0
        self.watched = self.source = self._folder(0)

    def _folder(self, number: int) -> Path:
        return self.killer.folder / "runs" / "e" / "surface-sos-lite" / f"{self.name}-{number}"

    def arguments(self) -> list[str | Path] | None:
        if list_checkpoints(self.watched / "nerfstudio_models"):
            self.source = self.watched
            if not self.runs_in_place:
                self.runs += 1
                self.watched = self._folder(self.runs)
        arguments = train(self.capture, self.killer.folder / "runs", self.watched.name)
        checkpoints = self.source / "nerfstudio_models"
        return [*arguments, "--load-dir", checkpoints] if list_checkpoints(checkpoints) else arguments

    def check_nothing_lost(self) -> None:
        newest = -1
        for folder in {self.source, self.watched}:
            for path in list_checkpoints(folder / "nerfstudio_models"):
                newest = max(newest, torch.load(path, weights_only=True)["step"])
            for path in folder.glob("*.npz"):
                with np.load(path) as arrays:
                    assert {name: arrays[name] for name in arrays.files}  # reads all of it
            if (folder / "config.yml").exists():
                assert yaml.compose((folder / "config.yml").read_text()) is not None
        assert newest >= self.saved, "a step that was saved is lost"
        self.saved = newest

    def check_result(self) -> None:
        assert unfinished(self.watched) == []
        (last,) = list_checkpoints(self.watched / "nerfstudio_models")
        (whole,) = list_checkpoints(self.reference / "nerfstudio_models")
        assert last.name == whole.name == f"step-{STEPS - 1:09d}.ckpt"
        assert parts(torch.load(last, weights_only=True)) == parts(torch.load(whole, weights_only=True))
        for path in [*self.reference.glob("*.npz"), self.reference / "dataparser_transforms.json"]:
            assert (self.watched / path.name).read_bytes() == path.read_bytes(), path.name
        found, expected = (read_losses(run / "losses.jsonl") for run in (self.watched, self.reference))
        assert [record.step for record in found] == list(range(STEPS))
        assert [(r.losses, r.metrics) for r in found] == [(r.losses, r.metrics) for r in expected]


def parts(state: Any, name: str = "") -> dict[str, object]:
    """All that is in a checkpoint, tensors as their bytes, by where it is."""
    if isinstance(state, dict):
        inner = state.items()
    elif isinstance(state, (list, tuple)):
        inner = enumerate(state)
    elif isinstance(state, torch.Tensor):
        return {name: (state.dtype, state.shape, state.numpy().tobytes())}
    else:
        return {name: state}
    return {where: part for key, value in inner for where, part in parts(value, f"{name}/{key}").items()}


def train(capture: Path, output: Path, name: str) -> list[str | Path]:
    return [
        *("nerfstudio.scripts.train", "surface-sos-lite", "--data", capture, "--output-dir", output),
        *("--experiment-name", "e", "--timestamp", name, "--vis", "tensorboard"),
        *("--max-num-iterations", str(STEPS), "--steps-per-save", "5", "--logging.steps-per-log", "1", *TINY),
    ]


@pytest.fixture(scope="module")
def one_thread() -> Iterable[None]:
    """Sums have one order then; with one process more at work here, results would be the same only to the eye."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def trained(killer: Killer, capture: Path, one_thread: None) -> tuple[Path, Undisturbed]:
    """The folder of a run that was not disturbed, and how it ran."""
    folder = killer.folder / "runs" / "e" / "surface-sos-lite" / "whole"
    return folder, killer.finish(train(capture, killer.folder / "runs", "whole"), folder)


@pytest.mark.seconds(60)
def test_training_is_resumed_to_the_same_end(killer: Killer, capture: Path, trained: tuple[Path, Undisturbed]) -> None:
    reference, usual = trained
    kill_often(killer, Training(killer, capture, reference), usual, "train")


# ------------------------------------------------------------------ what is made of a run or a capture


class Making(Command):
    """A command that makes files in a folder.

    Args:
        folder: of the files.
        command: what is typed.
        old: the files that are there before, by name.
        new: those that are there afterwards.
    """

    def __init__(self, folder: Path, command: list[str | Path], old: dict[str, bytes], new: dict[str, bytes]) -> None:
        self.watched, self.command, self.old, self.new = folder, command, old, new

    def begin(self, number: int) -> None:
        shutil.rmtree(self.watched, ignore_errors=True)
        for name, content in self.old.items():
            path = self.watched / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def arguments(self) -> list[str | Path] | None:
        return self.command

    def check_nothing_lost(self) -> None:
        """Each file is at each moment the old one or the new one, and none is missing that was there."""
        found = visible(self.watched)
        assert set(self.old) <= set(found)
        for name, content in found.items():
            if Path(name).name in CHANGING:
                continue
            assert content in (self.old.get(name), self.new.get(name)), f"{name} is neither the old nor the new file"

    def check_result(self) -> None:
        assert unfinished(self.watched) == []
        found = visible(self.watched)
        assert set(found) == set(self.new)
        assert [name for name in found if found[name] != self.new[name] and name not in (*LOGS, DATABASE)] == []


LOGS = ("process.log",)
"""Files with times in them."""
DATABASE = "colmap/database.db"
"""Has its pages in the order that they were written in."""
CHANGING = (*LOGS, "export.json", "database.db", "database.db-wal", "database.db-shm")
"""Files that are neither old nor new amid a command."""


def sos(*arguments: str | Path) -> list[str | Path]:
    return ["surface_sos_ns.cli", *arguments]


def export(run: Path, folder: Path, *options: str) -> list[str | Path]:
    what = ("masks", "cutouts", "mesh", "video")
    return sos("export", "--load-config", run / "config.yml", "--output-dir", folder, "--what", *what, *options)


@pytest.fixture(scope="module")
def exported(killer: Killer, trained: tuple[Path, Undisturbed]) -> tuple[dict[str, bytes], Undisturbed]:
    folder = killer.folder / "exported"
    usual = killer.finish(export(trained[0], folder, "--mesh-resolution", "48"), folder)
    return visible(folder), usual


@pytest.mark.seconds(35)
def test_an_export_is_completed(killer: Killer, trained: tuple[Path, Undisturbed], exported: tuple) -> None:
    new, usual = exported
    folder = killer.folder / "export"
    command = export(trained[0], folder, "--mesh-resolution", "48")
    kill_often(killer, Making(folder, command, {}, new), usual, "export")


@pytest.mark.seconds(30)
def test_an_export_over_an_older_one_loses_no_file(
    killer: Killer, trained: tuple[Path, Undisturbed], exported: tuple
) -> None:
    new, usual = exported
    folder = killer.folder / "replaced"
    killer.finish(export(trained[0], folder, "--mesh-resolution", "32", "--lens", "undistorted"), folder)
    old = visible(folder)
    assert set(old) >= set(new)
    assert sum(old[name] == new[name] for name in new) < 4  # else it would not show that they are replaced
    command = export(trained[0], folder, "--mesh-resolution", "48", "--overwrite")
    kill_often(killer, Making(folder, command, old, old | new), usual, "export --overwrite")


class Masking(Making):
    """Masks take the place of older ones, which are kept in another folder."""

    def check_nothing_lost(self) -> None:
        there = contents(self.watched)
        for name, content in self.old.items():
            if name == "transforms.json":
                assert there[name] in (content, self.new[name])
            elif not name.startswith("coarse_masks"):
                assert there[name] == content, name
            else:  # moved, into a folder that does not have its last name yet, maybe
                assert any(path.endswith(f"/{name}") or path == name for path in there if there[path] == content), name

    def check_result(self) -> None:
        assert unfinished(self.watched) == []
        found = visible(self.watched)
        # Masks that were there when the killed command was given again are kept as well.
        again = [name for name in found if name.startswith("coarse_masks_old_")]
        assert {name for name in found if name not in again} == set(self.new)
        assert [name for name in self.new if found[name] != self.new[name]] == []


@pytest.mark.seconds(16)
def test_masks_take_the_place_of_others_or_do_not(killer: Killer, capture: Path, one_thread: None) -> None:
    folder, old = killer.folder / "masked", visible(capture)
    command = sos("masks", "--data", folder, "--method", "folder", "--source", capture / "gt_masks", "--overwrite")
    masking = Masking(folder, command, old, {})
    masking.begin(0)
    usual = killer.finish(command, folder)
    masking.new = visible(folder)
    kept = {f"coarse_masks_old/{name}": old[name] for name in old if name.startswith("coarse_masks/")}
    assert kept and kept.items() <= masking.new.items()
    kill_often(killer, masking, usual, "masks")


class Processing(Making):
    """A scene. What ends the work on it is transforms.json: then it is not made again."""

    def arguments(self) -> list[str | Path] | None:
        return None if (self.watched / "transforms.json").exists() else self.command

    def check_result(self) -> None:
        super().check_result()
        whole = self.watched.with_suffix(".db")
        whole.write_bytes(self.new[DATABASE])
        assert rows(self.watched / DATABASE) == rows(whole)


def rows(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return sorted(opened.iterdump())


@pytest.mark.seconds(13)
def test_a_scene_is_gone_on_with(killer: Killer, one_thread: None) -> None:
    photos, folder = killer.folder / "photos", killer.folder / "scene"
    textured_corner.write_photos(photos, 8)
    command = sos("process", "--images", photos, "--output", folder)
    usual = killer.finish(command, folder)
    kill_often(killer, Processing(folder, command, {}, visible(folder)), usual, "process")


@pytest.mark.seconds(50)
def test_a_page_takes_the_place_of_another(killer: Killer, trained: tuple[Path, Undisturbed]) -> None:
    folder = killer.folder / "reports"
    page = folder / "report.html"
    options = ("--output", page, "--views", "1", "--overwrite")
    command = sos("report", "--load-config", trained[0] / "config.yml", *options)
    folder.mkdir()
    usual = killer.finish(command, folder)
    kill_often(killer, Making(folder, command, {page.name: b"an older page"}, visible(folder)), usual, "report")
