"""The whole batch: in the order that a person wants results, one failure alone, and an overview that says all of it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from surface_sos_ns.batch import run
from surface_sos_ns.batch.engine import Lost
from surface_sos_ns.batch.engine import engine as real_engine
from surface_sos_ns.batch.error import BatchError
from surface_sos_ns.batch.job import Job
from surface_sos_ns.batch.outcome import Outcome, concerns
from surface_sos_ns.batch.overview import overview, write_overview
from surface_sos_ns.batch.settings import BatchSettings, StageName
from surface_sos_ns.batch.stage_run import Result
from surface_sos_ns.batch.stages import Stage


class InOrder:
    """An engine that does one stage after the other, in the order in which they are handed in."""

    has_gpu, gpus, cpus, dashboard = False, 0.0, 2, ""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.queue: list[tuple[Job, Stage]] = []

    def slots(self) -> int:
        return 2

    def submit(self, job: Job, stage: Stage, before: Result | None, again: tuple[StageName, str] | None) -> Any:
        self.queue.append((job, stage))
        return len(self.queue) - 1

    def wait(self, references: Sequence[Any], seconds: float) -> list[Any]:
        return [min(references)]

    def result(self, reference: int) -> Result:
        job, stage = self.queue[reference]
        self.log.append(f"{job.name} {stage.name}")
        if (job.name, stage.name) == ("b", "train"):
            raise Lost("a worker died")
        if (job.name, stage.name) == ("c", "train"):
            raise ZeroDivisionError("by zero")
        state = "done" if stage.name == "report" else "begun"
        return Result("", Outcome(job.name, job.source, job.kind, job.method, state, seconds={stage.name: 60.0}))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> InOrder:
    double = InOrder()

    @contextmanager
    def begin(settings: BatchSettings) -> Iterator[InOrder]:
        yield double

    monkeypatch.setattr(run, "engine", begin)
    return double


def _plan(folder: Path, names: str) -> list[Job]:
    return [Job(name, str(folder / name), "scene", folder / "out" / name, "surface-sos-lite") for name in names]


def test_captures_are_finished_in_turn_and_fail_alone(tmp_path, engine, monkeypatch) -> None:
    monkeypatch.setattr(run, "plan", lambda *_: _plan(tmp_path, "abcde"))
    said: list[str] = []
    with pytest.raises(BatchError, match=r"2 of 5 captures failed \(b, c\)"):
        run.run_batch(BatchSettings((), tmp_path / "out"), lambda words: None, said.append)
    assert engine.log.index("a report") < engine.log.index("e train")  # two at a time
    assert [line for line in engine.log if line.startswith("b")] == ["b train"]
    results = {row["name"]: row for row in json.loads((tmp_path / "out" / "results.json").read_text())}
    assert {name: row["state"] for name, row in results.items()} == {
        "a": "done",
        "b": "failed",
        "c": "failed",
        "d": "done",
        "e": "done",
    }
    assert "a worker died" in results["b"]["problem"] and "by zero" in results["c"]["problem"]
    assert "[0/5] a: train done in 60 s, about 2 min left" in said  # b, c, d and e, two at a time
    assert said[-1].startswith("3 of 5 captures are done")


def test_time_that_is_left_is_that_of_stages_alike(tmp_path: Path) -> None:
    jobs = _plan(tmp_path, "ab")
    progress = run._Progress(jobs, stages_left={"a": 0, "b": 2}, spent={"train": [600.0], "report": [120.0, 240.0]})
    assert progress.left(1) == ", about 3 min left"  # b: its report; how long exporting takes is not known yet
    progress.stages_left["b"] = 4
    assert progress.left(2) == ", about 6 min left"


def test_a_second_batch_into_the_same_folder_is_refused(tmp_path, engine, monkeypatch) -> None:
    from surface_sos_ns.utils.locks import InUseError, fcntl, lock_folder, unlock_folder

    if fcntl is None:
        pytest.skip("no locks on this system")
    monkeypatch.setattr(run, "plan", lambda *_: _plan(tmp_path, "a"))
    (tmp_path / "out").mkdir()
    code = (
        "import sys, time; from pathlib import Path; from surface_sos_ns.utils.locks import lock_folder\n"
        "lock_folder(Path(sys.argv[1]), ''); print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(InUseError, match="out"):
            run.run_batch(BatchSettings((), tmp_path / "out"), lambda words: None, lambda line: None)
    finally:
        other.kill()
        other.wait()
    lock_folder(tmp_path / "out", "")
    unlock_folder(tmp_path / "out")


# ------------------------------------------------------------------ the overview

GOOD = Outcome(
    "good", "/x", "photos", "surface-sos", "done", "report", photos=40, placed=40, agreement=0.95, confidence=0.9,
    at_edge=0.0, found=1.0, mask_iou=0.97, psnr=28.0, seconds={"train": 100.0, "report": 20.0},
)  # fmt: skip
BAD = replace(GOOD, name="bad", placed=20, agreement=0.5, at_edge=0.6, found=0.5, mask_iou=None)
BROKEN = Outcome("<b>", "/y", "photos", "surface-sos", "failed", "process", '=x & "y" <z>', "logs/process.log")


def test_what_is_to_be_looked_at() -> None:
    assert concerns(GOOD) == []
    assert concerns(BAD) == [
        "few photos placed", "low agreement", "mask at the picture's edge", "no object in some photos"
    ]  # fmt: skip
    assert concerns(BROKEN) == ["failed"]
    assert concerns(replace(GOOD, agreement=None, confidence=None, photos=None, placed=None, found=None)) == []


def test_the_page_has_the_urgent_ones_first_and_escapes_what_others_wrote() -> None:
    page = overview("batch", [GOOD, BAD, BROKEN], {"good"})
    assert page.index("&lt;b&gt;") < page.index(">bad<") < page.index(">good<")
    assert "<z>" not in page and "<b>=" not in page and "&lt;z&gt;" in page
    assert 'href="%3Cb%3E/logs/process.log"' in page and 'href="good/report/index.html"' in page
    assert 'src="good/picture.jpg"' in page and 'src="bad/picture.jpg"' not in page
    assert "3 captures: 2 done, 1 failed. <b>2 to look at first.</b>" in re.sub(r"\s+", " ", page)
    assert "20 of 40" in page and "http" not in page  # nothing is fetched from anywhere


def test_the_table_is_read_by_spreadsheets(tmp_path: Path) -> None:
    write_overview(tmp_path, [GOOD, BROKEN], {})
    with (tmp_path / "results.csv").open() as file:
        good, broken = csv.DictReader(file)
    assert good["mask_iou"] == "0.97" and good["seconds"] == "120.0" and good["look_at"] == ""
    assert broken["problem"].startswith("'=")  # no formula
    rows = json.loads((tmp_path / "results.json").read_text())
    assert rows[0]["mask_iou"] == 0.97 and rows[1]["look_at"] == ["failed"]


# ------------------------------------------------------------------ on Ray


def test_ray_is_started_again_where_it_was_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    begun: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        begun.append(options)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    # One thread a command, as on many clusters: the machine still works on as many captures as it has cores.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(12), raising=False)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
    with pytest.raises(BatchError, match="timed out"), real_engine(BatchSettings((), Path("out"))):
        pass
    assert len(begun) == 3 and {one["_node_ip_address"] for one in begun} == {"127.0.0.1"}
    assert {one["num_cpus"] for one in begun} == {12}
    with pytest.raises(BatchError, match="HOST:1"), real_engine(BatchSettings((), Path("out"), address="HOST:1")):
        pass
    assert len(begun) == 4 and begun[-1]["address"] == "HOST:1"


@pytest.mark.seconds(60)
def test_on_ray_a_broken_capture_fails_by_its_sentence_and_nothing_is_served_to_others(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"")
    command = [sys.executable, "-m", "surface_sos_ns.cli", "batch", str(photos), "--output", str(tmp_path / "out")]
    command += ["--cpus", "1", "--dashboard"]
    batch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert batch.stdout is not None and batch.stderr is not None
    first, second = batch.stdout.readline(), batch.stdout.readline()
    family = {batch.pid, *(child.pid for child in psutil.Process(batch.pid).children(recursive=True))}
    listening = [
        where.laddr.ip
        for where in psutil.net_connections("inet")
        if where.status == psutil.CONN_LISTEN and where.pid in family
    ]
    said, complaint = batch.communicate(timeout=300)
    assert "1 captures, surface-sos-lite" in first and "dashboard: http://127.0.0.1:" in second
    assert len(listening) > 3 and set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert batch.returncode == 1 and "holds 1 photos" in said
    assert re.search(r"surface-sos: 1 of 1 captures failed \(photos\)", complaint), complaint
    assert json.loads((tmp_path / "out" / "results.json").read_text())[0]["stage"] == "process"
