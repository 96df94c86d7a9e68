"""Runs commands (ns-train and others) in processes of their own, and measures time and memory."""

from __future__ import annotations

import ctypes
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
from surface_sos_ns.utils.signals import exit_on_signal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""ANSI escape sequences."""
STEP = re.compile(r"^\s*(\d+) \((\d+(?:\.\d+)?)%\)")
"""Step and percentage in a line of nerfstudio's training log."""
PR_SET_PDEATHSIG = 1
"""Linux' prctl: which signal a process gets when its parent has ended."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded here: between fork and exec nothing may be loaded."""


class CommandFailed(UserError):
    """A command ended with an error. The message has its last lines of output, and names its log."""


@dataclass(frozen=True)
class Finished:
    """Time and memory of a command that has ended."""

    seconds: float
    """Wall time."""
    peak_gb: float | None
    """Peak resident memory in GB; None if the system does not provide it."""
    cpu_seconds: float | None = None
    """Time of all its threads on processor cores; None if the system does not provide it."""


def run_module(
    arguments: Sequence[str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Finished:
    """Runs ``python -m`` with arguments.

    Args:
        arguments: module and its command-line arguments.
        log: file that the output is written to.
        on_line: called with each line of output, without colours.
        on_tick: called about twice a second.

    Raises:
        CommandFailed: the command ended with an error.
    """
    start = time.monotonic()
    # COLUMNS: in a log file nerfstudio's tables and bars would wrap at 80.
    # OMP_WAIT_POLICY: threads that wait by spinning take cores away from other processes.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    # SIGTERM ends the command as well. Bytes of file names that are not UTF-8 are escaped.
    with exit_on_signal(signal.SIGTERM), log.open("w", encoding="utf-8", errors="backslashreplace") as out:
        out.write("$ " + " ".join(arguments) + "\n")
        out.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

        def read() -> None:
            assert process.stdout is not None
            for raw in process.stdout:
                # A progress bar redraws its line after a carriage return; each redraw counts as a line.
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
            code, peak_gb, cpu_seconds = _wait(process)
        except BaseException as error:
            # Ctrl-C in a terminal reaches the command too, and it may save its state before it ends.
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
    return Finished(time.monotonic() - start, peak_gb, cpu_seconds)


def _end_with_parent() -> None:
    """Linux: this process gets SIGTERM when the thread that started it ends, also where that is killed."""
    assert _LIBC is not None
    _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float | None, float | None]:
    """Exit status of a process, its peak memory in GB and its time on cores, if the system provides them."""
    if not hasattr(os, "wait4"):  # Windows
        return process.wait(), None, None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait again
    return process.returncode, peak_gb(usage), usage.ru_utime + usage.ru_stime


def train(
    method: str,
    capture: Path,
    run: Path,
    name: str,
    seed: int,
    options: Sequence[str] = (),
    timestamp: str = "run",
    log: Path | None = None,
) -> tuple[Path, Finished]:
    """Runs ns-train without a viewer; returns the run's config.yml, and time and memory.

    Args:
        method, capture, seed: the method's name, the capture's folder, the random seed.
        run: folder for the log (train.log) and the results (training/).
        name: experiment name.
        options: further options of ns-train.
        timestamp: name of the run's folder.
        log: file for the output; by default in `run`.

    Raises:
        CommandFailed: training ended with an error, or left no config.yml.
    """
    arguments = ["nerfstudio.scripts.train", method, "--data", str(capture), "--output-dir", str(run / "training")]
    arguments += ["--experiment-name", name, "--timestamp", timestamp, "--vis", "tensorboard"]
    arguments += ["--machine.seed", str(seed), "--logging.local-writer.max-log-size", "0", *options]
    log = log or run / "train.log"
    with Stage(f"Training {method} (its own log: {log})", 100.0) as stage:

        def on_line(line: str) -> None:
            found = STEP.match(line)
            if found:
                stage.reach(float(found.group(2)))

        done = run_module(arguments, log, on_line, lambda: stage.reach(stage.done))
    config = run / "training" / name / method / timestamp / "config.yml"
    if not config.is_file():
        raise CommandFailed(f"Training ended but left no {config}; see {log}.")
    return config, done
