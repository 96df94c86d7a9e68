"""What a step asks of a GPU, counted from a trace that is written by hand as torch's profiler writes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from surface_sos_ns.bench.device_work import NEEDS_CUDA, STEP, WARM_UP, DeviceWork, device_work, profile_step


def event(category: str, name: str, start: float, length: float, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length, **more}


TRACE = [
    {"ph": "M", "name": "process_name", "ts": 0, "args": {}},
    event("cuda_runtime", "cudaLaunchKernel", 50, 1),  # before the steps
    event("user_annotation", STEP, 100, 100),
    event("gpu_user_annotation", STEP, 120, 500),  # what the profiler shows of it on the GPU
    event("cpu_op", "aten::nonzero", 105, 50),
    event("cuda_runtime", "cudaLaunchKernel", 110, 5),
    event("cuda_runtime", "cudaMemcpyAsync", 120, 5),
    event("cuda_runtime", "cudaStreamSynchronize", 126, 20),
    event("cuda_driver", "cuLaunchKernelEx", 150, 5),  # Triton's
    event("cuda_runtime", "cudaEventRecord", 160, 1),
    event("user_annotation", STEP, 300, 100),
    event("cuda_runtime", "cudaGraphLaunch", 310, 5),
    event("cuda_runtime", "cudaDeviceSynchronize", 500, 200),  # after the steps
    event("kernel", "one", 120, 30),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 140, 20),  # half of it at the same time
    event("kernel", "two", 200, 10),
    event("kernel", "three", 320, 40),
    event("kernel", "within three, on another stream", 325, 10),
    event("gpu_memset", "Memset (Device)", 600, 5),
]


def test_what_happens_in_steps_is_counted() -> None:
    found = device_work(TRACE)
    assert found is not None and found == DeviceWork(4, 3, 1, pytest.approx((40 + 10 + 40 + 5) / 1e6))


def test_a_profiler_that_sees_no_gpu_counts_nothing() -> None:
    assert device_work([part for part in TRACE if part.get("cat") in (None, "user_annotation", "cpu_op")]) is None


def test_a_cpu_tells_time_and_memory_alone() -> None:
    calls: list[int] = []
    found = profile_step(lambda: lambda: calls.append(1), torch.device("cpu"), 4)
    assert len(calls) == WARM_UP + 4
    assert found["seconds"] > 0 and found["peak_memory_gb"] > 0
    assert all(found[name] is None for name in NEEDS_CUDA)


@pytest.mark.gpu
def test_a_step_on_a_gpu() -> None:
    device = torch.device("cuda")
    numbers = torch.rand(1 << 20, device=device)

    def step() -> None:
        numbers.mul_(1.0)
        numbers.add_(0.0)
        numbers[0].item()

    found = profile_step(lambda: step, device, 5)
    assert (found["kernels"], found["launches"], found["synchronisations"]) == (2, 2, 1)
    assert 0 < found["gpu_busy"] <= 1 and found["peak_gpu_memory_gb"] >= 4 * 2**20 / 1e9
