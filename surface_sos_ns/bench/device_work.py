"""What a training step asks of a GPU: kernels, launches, waits of the host, how long the GPU is busy, memory.

Counted by torch's profiler, from its trace: the events between the start of the first step and the end of the last one.
Waits are the calls of CUDA's that block the host until the GPU is done, which `.item()`, `nonzero` and copies to the
host make as well. A step that is replayed as a CUDA graph is one launch of many kernels. The wall time is taken without
the profiler, which slows the host down; the GPU is busy for the time of its kernels and copies, as a share of that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from surface_sos_ns.bench.protocol import seconds, synchronise
from surface_sos_ns.utils.memory import peak_gb

STEP = "bench: training step"
"""Name of a step in the trace."""
WARM_UP, PROFILED = 3, 10
"""Steps before the measurement, which compile and allocate; steps in the profiler."""
ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
HOST_CALLS = frozenset({"cuda_runtime", "cuda_driver"})
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch")
"""How the names of calls begin that launch a kernel or a graph."""
WAITS = frozenset(
    {
        *("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
        *("cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize"),
    }
)
"""Calls that wait for the GPU."""
NEEDS_CUDA = ("kernels", "launches", "synchronisations", "gpu_busy_seconds", "gpu_busy", "peak_gpu_memory_gb")
"""Figures that are None on a CPU."""


class DeviceWork(NamedTuple):
    """What a GPU and its host did in a number of steps."""

    kernels: int
    launches: int
    """Calls of the host's that start a kernel or a graph of kernels."""
    synchronisations: int
    """Calls of the host's that wait for the GPU."""
    busy_seconds: float
    """Time in which at least one kernel or copy ran."""


def device_work(trace: Iterable[dict[str, Any]]) -> DeviceWork | None:
    """Counts what happened in the steps of a trace.

    Args:
        trace: "traceEvents" of torch's profiler, times in microseconds; steps are annotated with `STEP`.

    Returns:
        of all steps together; None if the profiler saw nothing of the GPU.
    """
    events = [event for event in trace if event.get("ph") == "X"]
    steps = [event for event in events if event.get("cat") == "user_annotation" and event["name"] == STEP]
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in steps]
    calls = [
        event["name"]
        for event in events
        if event.get("cat") in HOST_CALLS and any(start <= event["ts"] < end for start, end in spans)
    ]
    ran = [event for event in events if event.get("cat") in ON_DEVICE]
    if not ran:
        return None
    return DeviceWork(
        kernels=sum(event["cat"] == "kernel" for event in ran),
        launches=sum(name.startswith(LAUNCHES) for name in calls),
        synchronisations=sum(name in WAITS for name in calls),
        busy_seconds=_covered([(event["ts"], event["ts"] + event["dur"]) for event in ran]) / 1e6,
    )


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def profile_step(make: Callable[[], Callable[[], Any]], device: torch.device, steps: int) -> dict[str, Any]:
    """Figures of a training step, one after the other as in a run: nothing waits for the GPU between them.

    Args:
        make: makes what does one step. A CUDA graph's memory shows only while it is captured, so that belongs here.
        device: that it runs on.
        steps: to take the time of.

    Returns:
        "seconds" a step; "peak_memory_gb" of main memory, of this process so far; and `NEEDS_CUDA`, also a step, where
        None is what cannot be measured here. GB are 10^9 bytes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = make()
    for _ in range(WARM_UP):
        step()

    def run(count: int) -> None:
        for _ in range(count):
            step()

    figures: dict[str, Any] = {"seconds": 0.0, **dict.fromkeys(NEEDS_CUDA)}
    figures["seconds"] = seconds(lambda: run(steps), device) / steps
    figures["peak_memory_gb"] = peak_gb()
    if device.type == "cuda":
        figures["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        work = _profiled(step, device)
        if work is not None:
            figures |= {name: getattr(work, name) / PROFILED for name in ("kernels", "launches", "synchronisations")}
            figures["gpu_busy_seconds"] = work.busy_seconds / PROFILED
            figures["gpu_busy"] = figures["gpu_busy_seconds"] / figures["seconds"]
    return figures


def not_measured(figures: dict[str, Any], device: torch.device) -> dict[str, str]:
    """Why figures of `profile_step` are None, by name."""
    reason = "it needs CUDA" if device.type != "cuda" else "torch's profiler sees nothing of this GPU (CUPTI)"
    return {name: reason for name in NEEDS_CUDA if figures[name] is None}


def _profiled(step: Callable[[], Any], device: torch.device) -> DeviceWork | None:
    synchronise(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            with record_function(STEP):
                step()
        synchronise(device)  # not part of a step, so it does not count
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return device_work(json.loads(path.read_text())["traceEvents"])
