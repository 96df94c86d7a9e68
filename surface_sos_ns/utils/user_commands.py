"""Runs the commands that a user types (ns-train and others), each in a process of its own, and measures it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.memory import peak_gb
from surface_sos_ns.utils.progress import Stage
from surface_sos_ns.utils.signals import leaving_on

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEP = re.compile(r"^\s*(\d+) \((\d+(?:\.\d+)?)%\)")


class CommandFailed(UserError):
    """A command ended with an error; the message says which, its last words, and where its log is."""


@dataclass(frozen=True)
class Finished:
    """What a command took."""

    seconds: float
    """From start to end."""
    peak_gb: float | None
    """Most main memory it had at a time; None where the system does not tell."""


def run_module(
    arguments: Sequence[str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Finished:
    """Runs a Python module's command line and keeps its output in `log`.

    `on_line` gets each line of output without colours, `on_tick` is called about twice a second.

    Raises:
        CommandFailed: it ended with an error.
    """
    start = time.monotonic()
    # COLUMNS: nerfstudio's tables and bars would wrap at 80 in a log file.
    # Threads that wait by spinning take the cores away from those that work where both cores are busy.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    # A polite kill ends the command as well. What UTF-8 cannot hold (odd bytes of file names) is escaped.
    with leaving_on(signal.SIGTERM), log.open("w", encoding="utf-8", errors="backslashreplace") as out:
        out.write("$ " + " ".join(arguments) + "\n")
        out.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

        def read() -> None:
            assert process.stdout is not None
            for raw in process.stdout:
                # A bar redraws its line with carriage returns; each redraw counts as a line.
                for piece in raw.decode("utf-8", "replace").replace("\r", "\n").splitlines():
                    line = ESCAPES.sub("", piece).rstrip()
                    out.write(line + "\n")
                    lines.put(line)
                out.flush()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while reader.is_alive() or not lines.empty():
                reader.join(0.5)
                while not lines.empty():
                    on_line(lines.get())
                on_tick()
            code, peak_gb = _wait(process)
        except BaseException as error:
            # Ctrl-C in a terminal reaches the command as well, which may want to save what it has.
            if not isinstance(error, KeyboardInterrupt):
                process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(2)
            raise
    if code != 0:
        tail = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-12:]
        raise CommandFailed(
            f"`{' '.join(arguments[:2])}` ended with exit status {code}. Its whole output is in {log};\n"
            "the last lines:\n" + "\n".join("    " + line for line in tail)
        )
    return Finished(time.monotonic() - start, peak_gb)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float | None]:
    """The exit status of a process, and its peak memory in GB where the system tells."""
    if not hasattr(os, "wait4"):  # Windows
        return process.wait(), None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    return process.returncode, peak_gb(usage)


def train(
    method: str, capture: Path, run: Path, name: str, seed: int, options: Sequence[str] = ()
) -> tuple[Path, Finished]:
    """ns-train without a viewer; returns the run's config.yml and what it took.

    Args:
        method, capture, seed: what to train, on what.
        run: folder for its log (train.log) and its results (training/).
        name: of the experiment, in nerfstudio's sense.
        options: more of ns-train's options, as words.

    Raises:
        CommandFailed: it ended with an error, or left nothing.
    """
    arguments = ["nerfstudio.scripts.train", method, "--data", str(capture), "--output-dir", str(run / "training")]
    arguments += ["--experiment-name", name, "--timestamp", "run", "--vis", "tensorboard"]
    arguments += ["--machine.seed", str(seed), "--logging.local-writer.max-log-size", "0", *options]
    log = run / "train.log"
    with Stage(f"Training {method} (its own log: {log})", 100.0) as stage:

        def on_line(line: str) -> None:
            found = STEP.match(line)
            if found:
                stage.reach(float(found.group(2)))

        done = run_module(arguments, log, on_line, lambda: stage.reach(stage.done))
    configs = sorted((run / "training").rglob("config.yml"))
    if not configs:
        raise CommandFailed(f"Training ended but left no config.yml under {run / 'training'}; see {log}.")
    return configs[-1], done
