"""Timing protocol: interleaved runs, medians, equal thread counts; and a description of the machine.

The speed of a machine drifts (other load, clock rates), so that times of separate runs are not comparable. All sides of
a comparison are therefore run in turns. A slow phase affects all of them, and hardly changes the ratio of the medians.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surface_sos_ns.bench.settings import BenchError, BenchSettings, ResultFile
from surface_sos_ns.utils.cores import usable_cores

PAUSE = 0.02
"""Seconds before each run. Idle OpenMP threads of torch spin for some milliseconds on cores the next side needs."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    run: Callable[[], Any]
    """The work that is timed."""
    use_threads: Callable[[int], None] = torch.set_num_threads
    """Sets the number of threads of the work; called before each run, not timed."""


def choose_device(requested: str) -> torch.device:
    """The device to measure on.

    Raises:
        BenchError: CUDA was requested and is not available.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise BenchError(
            "--device cuda: torch finds no CUDA device here. --device auto measures what the CPU can tell."
        )
    return torch.device("cuda" if requested != "cpu" and torch.cuda.is_available() else "cpu")


def flush_denormals() -> None:
    """Flushes denormal numbers to zero, as training does: Adam's moments of rare entries decay to them."""
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy computes and caches the smallest denormal; it would warn if they were flushed already
    torch.set_flush_denormal(True)


def synchronise(device: torch.device) -> None:
    """Waits for the kernels of a GPU; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Wall time of one call."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def take_turns(
    sides: dict[str, Side], threads: int, repeats: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each run of each side, run in turns.

    Args:
        sides: by name; each runs once per round.
        threads: number of threads of each side.
        repeats: timed rounds.
        device: that the sides run on.
        warm_up: untimed rounds before (compilation, allocation, thread pools).
    """
    runs: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + repeats):
        for name, side in sides.items():
            side.use_threads(threads)
            time.sleep(PAUSE)
            taken = seconds(side.run, device)
            if turn >= warm_up:
                runs[name].append(taken)
    return runs


def thread_counts(settings: BenchSettings, device: torch.device) -> list[int]:
    """Thread counts to measure with; on a GPU only torch's present one."""
    return settings.thread_counts() if device.type == "cpu" else [torch.get_num_threads()]


OURS = "ours"


def comparison(by_threads: dict[int, dict[str, list[float]]], baseline: str | None) -> dict[str, Any]:
    """Medians of our side and a baseline, and their ratio.

    Args:
        by_threads: thread count -> side -> seconds of its runs, from `take_turns`; our side is named `OURS`.
        baseline: name of the other side; None gives a ratio of None.

    Returns:
        The figures at the largest thread count; under "by_threads" those of all thread counts, with single runs.
    """
    rows = []
    for threads, runs in sorted(by_threads.items()):
        ours = statistics.median(runs[OURS])
        row: dict[str, Any] = {"threads": threads, "ratio": None, "ours_seconds": ours, "baseline_seconds": None}
        if baseline is not None:
            row["baseline_seconds"] = statistics.median(runs[baseline])
            row["ratio"] = row["baseline_seconds"] / ours
        row["ours_runs"] = runs[OURS]
        row["baseline_runs"] = [] if baseline is None else runs[baseline]
        rows.append(row)
    headline = {key: rows[-1][key] for key in ("ratio", "ours_seconds", "baseline_seconds", "threads")}
    return {**headline, "baseline": baseline, "by_threads": rows}


# --- the machine -------------------------------------------------------------------------------------------------
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(device: torch.device) -> dict[str, Any]:
    """Description of the machine and the versions of packages."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "cores_of_machine": os.cpu_count(),
        "load": None if load is None else [round(value, 2) for value in load],
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": device.type,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numba", "triton", "nerfstudio", "tinycudann")},
    }


def machine_line(found: dict[str, Any]) -> str:
    """The description of a machine as one line of text."""
    load = "" if found["load"] is None else f", load {found['load'][0]}"
    gpu = "" if found["gpu"] is None else f" | {found['gpu']}"
    versions = ", ".join(f"{name} {found[name] or 'absent'}" for name in ("python", "torch", "numba", "nerfstudio"))
    cores = f"{found['cores']} of {found['cores_of_machine']} cores"
    return f"{found['processor']}, {cores}{load}{gpu} | on {found['device']} | {versions}"


def header(name: str, settings: ResultFile, device: torch.device) -> dict[str, Any]:
    """The first entries of every result."""
    return {
        "benchmark": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(device),
        "settings": settings.plain(),
    }
