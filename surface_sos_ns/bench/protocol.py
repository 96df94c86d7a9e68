"""How times are taken: sides in turns, medians, equal thread counts; and what the machine is.

A machine's speed drifts (other work, clock rates), so figures of two runs do not compare. Here all sides of a
comparison run in turns, once each, over and over: what slows one of them slows the others too, and the ratio of the
medians stays.
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
"""Seconds before each run: idle workers of OpenMP, which runs torch's operations, spin for a few milliseconds on cores
that the next side then lacks."""


@dataclass(frozen=True)
class Side:
    """One contender."""

    run: Callable[[], Any]
    """The work that is timed."""
    use_threads: Callable[[int], None] = torch.set_num_threads
    """Makes the work use this many threads; called before each run, not timed."""


def choose_device(requested: str) -> torch.device:
    """The device to measure on.

    Raises:
        BenchError: CUDA was asked for and is not there.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: torch finds no CUDA device here.")
    return torch.device("cuda" if requested != "cpu" and torch.cuda.is_available() else "cpu")


def flush_denormals() -> None:
    """Treat denormal numbers as zero, as training does: Adam's moments of rare entries decay into them."""
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy looks for the smallest denormal once, and warns if it then finds none
    torch.set_flush_denormal(True)


def synchronise(device: torch.device) -> None:
    """Wait for what runs on a GPU; a CPU's work is done when its call returns."""
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
    """Seconds of every run of every side, at one thread count.

    Args:
        sides: contenders by name; each runs once per round.
        threads: thread count of all of them.
        repeats: timed rounds.
        device: what to wait for.
        warm_up: untimed rounds before (compilation, allocation, threads).
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
    """Thread counts to measure with; on a GPU one entry, as many as torch has."""
    return settings.thread_counts() if device.type == "cpu" else [torch.get_num_threads()]


OURS = "ours"


def comparison(by_threads: dict[int, dict[str, list[float]]], baseline: str | None) -> dict[str, Any]:
    """Ratio and medians of our side against one baseline (None: there is none, the ratio is null).

    Args:
        by_threads: thread count -> side -> seconds of its runs, from `take_turns`; our side is named `OURS`.
        baseline: name of the other side.

    Returns:
        The figures of the largest thread count, and under "by_threads" those of each with their single runs.
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
    """What the figures were measured on."""
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
    """The machine in one line."""
    load = "" if found["load"] is None else f", load {found['load'][0]}"
    gpu = "" if found["gpu"] is None else f" | {found['gpu']}"
    versions = ", ".join(f"{name} {found[name] or 'absent'}" for name in ("python", "torch", "numba", "nerfstudio"))
    cores = f"{found['cores']} of {found['cores_of_machine']} cores"
    return f"{found['processor']}, {cores}{load}{gpu} | on {found['device']} | {versions}"


def header(name: str, settings: ResultFile, device: torch.device) -> dict[str, Any]:
    """What every result starts with."""
    return {
        "benchmark": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(device),
        "settings": settings.plain(),
    }
