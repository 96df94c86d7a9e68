"""A batch from its command line to its overview."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surface_sos_ns.batch.engine import Engine, Lost, engine
from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import PICTURE, Outcome, failed
from surface_sos_ns.batch.overview import FILES, write_overview
from surface_sos_ns.batch.plan import Parse, plan
from surface_sos_ns.batch.settings import BatchSettings, StageName
from surface_sos_ns.batch.stage_run import Result
from surface_sos_ns.batch.stages import stages_of
from surface_sos_ns.batch.storage import Storage
from surface_sos_ns.utils.files import check_writable, write_bytes
from surface_sos_ns.utils.locks import locked_folder
from surface_sos_ns.utils.progress import duration
from surface_sos_ns.utils.text import printable

__all__ = ["run_batch"]

TICK = 5.0
"""Seconds after which new machines of a cluster are noticed, at the latest."""


@dataclass
class _Progress:
    """How far the batch is."""

    jobs: list[Job]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stages_left: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    spent: dict[StageName, list[float]] = field(default_factory=dict)

    def left(self, slots: int) -> str:
        """The time that is left, in words; empty where nothing tells yet."""
        missing = [
            sum(self.spent[stage.name]) / len(self.spent[stage.name])
            for job in self.jobs
            for stage in stages_of(job)[len(stages_of(job)) - self.stages_left[job.name] :]
            if stage.name in self.spent
        ]
        known = "train" in self.spent
        return f", about {duration(sum(missing) / slots)} left" if known and missing else ""


def run_batch(settings: BatchSettings, parse: Parse, say: Callable[[str], None] = print) -> Path:
    """Works on all captures; returns the path of the overview.

    Args:
        settings: the command line.
        parse: see `plan`.
        say: prints a line.

    Raises:
        BatchError: something cannot work, which is seen before anything begins; or captures failed in the end.
        UserError: the output cannot be written, or another batch is writing to it.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    check_writable(settings.output)
    with locked_folder(settings.output, "Wait until it is done, or name another --output."), engine(settings) as where:
        jobs = plan(settings, where.has_gpu, parse)
        device = f", {where.gpus:g} GPU" if where.gpus else ""
        say(
            f"{len(jobs)} captures, {jobs[0].method}; {where.slots()} at a time, {where.cpus} cores each{device}. "
            f"Results in {settings.output}"
        )
        if where.dashboard:
            say(f"Ray's dashboard: http://{where.dashboard} (it asks for the token that `ray get-auth-token` prints)")
        progress = _work(settings, jobs, where, say)
    page = settings.output / FILES[0]
    bad = [outcome.name for outcome in progress.outcomes.values() if outcome.state == "failed"]
    say(f"{len(jobs) - len(bad)} of {len(jobs)} captures are done: {page}")
    if bad:
        names = ", ".join([*bad[:5], *(["..."] if len(bad) > 5 else [])])
        raise BatchError(
            f"{len(bad)} of {len(jobs)} captures failed ({names}). {page} says why; the same command tries them again "
            "and leaves the others as they are."
        )
    return page


def _work(settings: BatchSettings, jobs: list[Job], where: Engine, say: Callable[[str], None]) -> _Progress:
    begin = uuid.uuid4().hex
    again = None if settings.from_stage is None else (settings.from_stage, begin)
    progress = _Progress(jobs, stages_left={job.name: len(stages_of(job)) for job in jobs})
    waiting, running = list(reversed(jobs)), dict[Any, tuple[Job, int]]()

    def submit(job: Job, number: int, before: Result | None) -> None:
        running[where.submit(job, stages_of(job)[number], before, again)] = (job, number)

    while waiting or running:
        # No more than fit: captures are finished one after the other, and the first results come early.
        while waiting and len(running) < where.slots():
            submit(waiting.pop(), 0, None)
        for reference in where.wait(list(running), TICK):
            job, number = running.pop(reference)
            result = _result(where, reference, job, stages_of(job)[number].name)
            is_last = number + 1 == len(stages_of(job))
            progress.stages_left[job.name] = 0 if result.outcome.state == "failed" else len(stages_of(job)) - number - 1
            if result.outcome.state != "failed" and not is_last:
                submit(job, number + 1, result)
            _note(settings, progress, job, number, result, where.slots(), say)
    return progress


def _result(where: Engine, reference: Any, job: Job, stage: StageName) -> Result:
    """Of a stage, also where its process was lost or it met a fault of the program."""
    try:
        return where.result(reference)
    except Lost as error:
        problem = f"its process was lost each time it was begun ({error})"
    except Exception as error:  # a fault of the program, in one capture of many
        problem = f"a fault of the program: {type(error).__name__}: {error}"
    return Result("", failed(_not_begun(job), stage, problem))


def _note(
    settings: BatchSettings,
    progress: _Progress,
    job: Job,
    number: int,
    result: Result,
    slots: int,
    say: Callable[[str], None],
) -> None:
    """A line on the screen, and the overview as it is now."""
    stage, outcome = stages_of(job)[number].name, result.outcome
    progress.outcomes[job.name] = outcome
    if result.moved:
        say(f"{job.name}: what was there is in {result.moved} now")
    count = sum(left == 0 for left in progress.stages_left.values())
    before = f"[{count}/{len(progress.jobs)}] {job.name}: {stage}"
    if outcome.state == "failed":
        say(f"{before} failed: {printable(outcome.problem)}")
    elif result.was_done:
        if outcome.state == "done" and progress.stages_left[job.name] == 0:
            say(f"{before}: all was done before")
    else:
        seconds = outcome.seconds.get(stage, 0.0)
        progress.spent.setdefault(stage, []).append(seconds)
        say(f"{before} done in {duration(seconds)}{progress.left(slots)}")
    if result.picture is not None and settings.storage is not None:  # without a shared folder it is not here yet
        (settings.output / job.name).mkdir(exist_ok=True)
        write_bytes(settings.output / job.name / PICTURE, result.picture)
    outcomes = [progress.outcomes.get(one.name) or _not_begun(one) for one in progress.jobs]
    pictures = {one.name for one in progress.jobs if (settings.output / one.name / PICTURE).is_file()}
    write_overview(settings.output, outcomes, pictures)
    if settings.storage is not None and progress.stages_left[job.name] == 0:
        for name in FILES:
            Storage(settings.storage).write(name, (settings.output / name).read_bytes())


def _not_begun(job: Job) -> Outcome:
    return Outcome(job.name, job.source, job.kind, job.method, "begun")
