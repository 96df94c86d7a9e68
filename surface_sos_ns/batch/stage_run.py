"""Runs one stage of one capture, wherever the engine has placed it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import PICTURE, RESULT, Outcome, collect, failed, read_outcome, write_outcome
from surface_sos_ns.batch.settings import StageName
from surface_sos_ns.batch.stages import STAGES, Stage, stages_of
from surface_sos_ns.batch.stamps import (
    Stamp,
    fingerprint,
    move_aside,
    read_stamp,
    source_fingerprint,
    stamp_path,
    write_stamp,
)
from surface_sos_ns.batch.storage import Storage
from surface_sos_ns.utils.errors import explanation
from surface_sos_ns.utils.files import bytes_of
from surface_sos_ns.utils.locks import InUseError, lock_folder, unlock_folder
from surface_sos_ns.utils.user_commands import CommandFailed

__all__ = ["Result", "run_stage"]

PATIENCE = 90.0
"""Seconds for which a stage waits for processes of an earlier try to end: a training that is told to stop saves."""
FORCED = "forced.txt"
"""In a capture's folder: for which begin of the batch its stages were already moved aside."""
COMPLAINT = ("surface-sos: ", "train: ", "eval: ")
"""How lines begin in which commands say what is wrong."""


@dataclass(frozen=True)
class Result:
    """Of a stage.

    Attributes:
        fingerprint: of the stage; the next one's depends on it.
        outcome: of the capture so far.
        picture: picture.jpg, where there is one.
        was_done: nothing had to be done.
        moved: where outputs of an earlier batch were moved, empty where none were.
    """

    fingerprint: str
    outcome: Outcome
    picture: bytes | None = None
    was_done: bool = False
    moved: str = ""


def run_stage(
    job: Job,
    name: StageName,
    before: Result | None,
    threads: int,
    storage_url: str | None = None,
    again: tuple[StageName, str] | None = None,
) -> Result:
    """Runs a stage of a capture, unless it is done already.

    Args:
        job, name: which.
        before: the result of the stage before; None for the first one.
        threads: of its commands.
        storage_url: through which machines exchange files; None where they share a folder.
        again: the stage from which on all is done again, and the begin of the batch that asks for it.

    Returns:
        The result, which says so where the stage failed: a capture fails alone.
    """
    stage = next(stage for stage in stages_of(job) if stage.name == name)
    storage = None if storage_url is None else Storage(f"{storage_url.rstrip('/')}/{job.name}")
    mark = before.fingerprint if before is not None else ""
    moved = None
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with _alone(job.folder), _threads(threads):
            _bring_stamps(job, stage, storage)
            if again is not None:
                moved = _begin_again(job, stage, *again)
            mark = fingerprint(job, stage, mark or source_fingerprint(job))
            stamp = read_stamp(bytes_of(stamp_path(job, stage)))
            if stamp is not None and stamp.done and stamp.fingerprint == mark:
                return _as_it_is(job, mark, storage, moved)
            _bring_outputs(job, stage, storage)
            if stamp is not None and stamp.fingerprint != mark:
                moved = move_aside(job, stage) or moved
            _do(job, stage, mark)
            outcome = collect(job)
            write_outcome(job, outcome)
            _send(job, stage, storage)
    except Exception as error:
        outcome = failed(collect(job), name, _sentence(error), f"logs/{name}.log" if _log(job, name).is_file() else "")
        write_outcome(job, outcome)
        if not isinstance(error, CommandFailed) and explanation(error) is None:
            raise
    return Result(mark, outcome, bytes_of(job.folder / PICTURE), moved="" if moved is None else str(moved))


def _do(job: Job, stage: Stage, mark: str) -> None:
    write_stamp(job, stage, Stamp(mark, False))
    started = time.monotonic()
    took = stage.run(job, _log(job, stage.name))
    seconds = time.monotonic() - started
    cpu, peak = (None, None) if took is None else (took.cpu_seconds, took.peak_gb)
    write_stamp(job, stage, Stamp(mark, True, seconds, cpu, peak))


def _begin_again(job: Job, stage: Stage, first: StageName, begin: str) -> Path | None:
    """Moves what is to be done again aside, once a batch: Ray begins a stage whose worker was lost again."""
    order = [stage.name for stage in STAGES]
    if order.index(stage.name) < order.index(first) or bytes_of(job.folder / FORCED) == begin.encode():
        return None
    moved = move_aside(job, stage)
    (job.folder / FORCED).write_bytes(begin.encode())
    return moved


def _as_it_is(job: Job, mark: str, storage: Storage | None, moved: Path | None) -> Result:
    """The result of a stage that is done."""
    outcome = collect(job)
    picture = bytes_of(job.folder / PICTURE)
    if storage is not None:  # the files may be there alone
        outcome = read_outcome(storage.read(RESULT)) or outcome
        picture = storage.read(PICTURE) or picture
    return Result(mark, outcome, picture, was_done=True, moved="" if moved is None else str(moved))


def _log(job: Job, name: StageName) -> Path:
    return job.folder / "logs" / f"{name}.log"


# ------------------------------------------------------------------ machines without a shared folder


def _bring_stamps(job: Job, stage: Stage, storage: Storage | None) -> None:
    """Takes the stage's stamp from the storage where there is none here."""
    if storage is None or stamp_path(job, stage).is_file():
        return
    content = storage.read(f"stages/{stage.name}.json")
    if content is not None:
        stamp_path(job, stage).parent.mkdir(parents=True, exist_ok=True)
        stamp_path(job, stage).write_bytes(content)


def _bring_outputs(job: Job, stage: Stage, storage: Storage | None) -> None:
    """Takes what earlier stages left from the storage, where another machine did them."""
    if storage is None:
        return
    stages = stages_of(job)
    missing: dict[Stage, bytes] = {}
    for earlier in stages[: stages.index(stage)]:
        there = storage.read(f"stages/{earlier.name}.json")
        if there is not None and bytes_of(_brought(job, earlier)) != there:
            missing[earlier] = there
    for name in dict.fromkeys(name for earlier in missing for name in earlier.outputs):  # masks are within the scene
        storage.fetch(name, job.folder / name)
    for earlier, there in missing.items():
        stamp_path(job, earlier).parent.mkdir(parents=True, exist_ok=True)
        stamp_path(job, earlier).write_bytes(there)
        _brought(job, earlier).write_bytes(there)


def _brought(job: Job, stage: Stage) -> Path:
    """Where the stamp is kept of those outputs that are on this machine and in the storage."""
    return job.folder / "stages" / f"{stage.name}.files"


def _send(job: Job, stage: Stage, storage: Storage | None) -> None:
    """Gives what a stage left to the storage; its stamp comes last, and says that all of it is there."""
    if storage is None:
        return
    for name in (*stage.outputs, f"logs/{stage.name}.log", RESULT, PICTURE):
        storage.send(job.folder / name, name)
    content = stamp_path(job, stage).read_bytes()
    _brought(job, stage).write_bytes(content)
    storage.write(f"stages/{stage.name}.json", content)


# ------------------------------------------------------------------ one process at a time, with so many threads


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; waits for a process that still ends."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            lock_folder(folder, "Wait until it is done, or stop it.")
            break
        except InUseError:
            if time.monotonic() > until:
                raise
        time.sleep(1.0)
    try:
        yield
    finally:
        unlock_folder(folder)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Commands that are started inside use so many threads, as with OMP_NUM_THREADS before a single command."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _sentence(error: Exception) -> str:
    """What a command said before it failed; or what else is wrong, in a line."""
    said = [line.strip() for line in str(error).splitlines()]
    for line in reversed(said):
        for begin in COMPLAINT:
            if line.startswith(begin):
                return line.removeprefix(begin)
    if isinstance(error, CommandFailed):
        return said[-1]
    return explanation(error) or f"{type(error).__name__}: {error}"
