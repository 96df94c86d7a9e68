"""Results depend neither on the number of threads nor on whether kernels are compiled now or were before."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surface_sos_ns.bench.ours import optimisers
from surface_sos_ns.models.surface_sos.scene import SceneConfig
from surface_sos_ns.ops.cpu import adam, composite, grid, mlp, sampler, sdf, threads
from surface_sos_ns.training.objective import ObjectiveConfig, draw_regulariser_points, training_losses
from tests.helpers.paths import ROOT
from tests.helpers.small_scene import PAPER, TINY, a_batch, start


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = threads.thread_count()
    threads.set_thread_count(2)
    yield
    torch.set_flush_denormal(False)
    threads.set_thread_count(before)


@pytest.mark.parametrize("flush", [True, False])
def test_helpers_treat_denormals_as_the_caller_does(flush: bool, two_threads: None) -> None:
    """It is a setting of each thread, and Adam's moments of rare entries decay into denormals."""
    together = threading.Barrier(2)  # each of the two threads takes one of the two pieces
    out = np.full(2, -1, np.float32)
    smallest = np.finfo(np.float32).smallest_normal

    def halve(first: int, last: int) -> None:
        together.wait(timeout=60)
        out[first:last] = smallest / np.float32(2)

    torch.set_flush_denormal(not flush)
    threads.parallel(halve, 2)  # starts the helper, which takes over how its maker treats them
    torch.set_flush_denormal(flush)
    threads.parallel(halve, 2)
    assert out.view(np.uint32).tolist() == ([0, 0] if flush else [1 << 22, 1 << 22])


def _copy(argument: Any) -> Any:
    if isinstance(argument, tuple):
        copies = [_copy(part) for part in argument]
        return type(argument)(*copies) if hasattr(argument, "_fields") else tuple(copies)
    return argument.copy() if isinstance(argument, np.ndarray) else argument


def _arrays(arguments: Any) -> Iterator[np.ndarray]:
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _arrays(argument)
        elif isinstance(argument, np.ndarray):
            yield argument


def _divided(differing: Counter[str], called: Counter[str]) -> Callable[..., None]:
    """In place of `parallel`: work in pieces as three threads cut it, compared with all of it in one piece."""

    def parallel(kernel: Any, count: int, *arguments: Any, grain: int = 1) -> None:
        whole = _copy(arguments)
        kernel(0, count, *whole)
        pieces = min(12, max(1, count))
        bounds = [count * i // pieces for i in range(pieces + 1)]
        for first, last in itertools.pairwise(bounds):
            kernel(first, last, *arguments)
        name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"
        called[name] += 1
        same = all(a.tobytes() == b.tobytes() for a, b in zip(_arrays(arguments), _arrays(whole), strict=True))
        differing[name] += not same

    return parallel


@pytest.mark.parametrize("config", [TINY, PAPER], ids=["default", "paper"])
def test_every_kernel_gives_the_same_however_its_work_is_divided(
    config: SceneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    differing, called = Counter[str](), Counter[str]()
    for module in (adam, composite, grid, mlp, sampler, sdf):
        monkeypatch.setattr(module, "parallel", _divided(differing, called))
    scene = start(config, steps=3)
    scene.update_cache()
    objective = ObjectiveConfig()
    steppers = optimisers(scene)
    for step in range(3):
        scene.set_progress(step / 3)
        (origins, directions), photo, mask, weight = a_batch(203)
        view = torch.randint(3, (len(mask),))
        points = draw_regulariser_points(objective, None, torch.device("cpu"))
        rendering = scene.train().render(origins, directions, view, regulariser_points=points)
        losses = training_losses(scene, objective, rendering, photo, mask, weight, view, None)
        for stepper in steppers:
            stepper.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        for stepper in steppers:
            stepper.step()
    with torch.no_grad():
        scene.eval().matte(origins, directions)
    assert {name for name, count in differing.items() if count} == set()
    assert {"adam._step", "sdf._backward", "mlp._backward", "grid._scatter", "composite._ray_colours_backward"} <= set(
        called
    )


def test_adam_rounds_alike_at_every_thread_count() -> None:
    """Entries at the end of a piece that fills no vector were rounded otherwise than the others."""
    count = 16 * (1 << 16) + 77

    def stepped(threads_used: int) -> list[bytes]:
        before = threads.thread_count()
        threads.set_thread_count(threads_used)
        generator = torch.Generator().manual_seed(0)
        value, mean = torch.randn(count, generator=generator), torch.randn(count, generator=generator) * 1e-3
        square = torch.rand(count, generator=generator) * 1e-5
        try:
            for step in range(1, 25):
                gradient = torch.randn(count, generator=generator) * 1e-3
                adam.sparse_adam_step(value, gradient, mean, square, 1e-2, (0.9, 0.99), 1e-15, step)
        finally:
            threads.set_thread_count(before)
        return [tensor.numpy().tobytes() for tensor in (value, mean, square)]

    assert stepped(1) == stepped(3)


GRADIENTS = """
import hashlib, torch
from surface_sos_ns.ops.cpu.mlp import network
torch.manual_seed(0)
shapes = [(32, 16), (32,), (1, 32), (1,)]
parameters = [torch.randn(shape, requires_grad=True) for shape in shapes]
network(torch.randn(16, 4096), torch.zeros(3, 0), False, *parameters).square().sum().backward()
print(hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in parameters)).hexdigest())
"""


@pytest.mark.seconds(25)
def test_kernels_compute_alike_when_compiled_and_when_loaded(tmp_path: Path) -> None:
    """A function that kernels share has a symbol of its own unless it is inlined, and whose copy wins is chance."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", GRADIENTS], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        found.append(done.stdout)
    assert any(tmp_path.rglob("*.nbc")), "the second process compiled again"
    assert found[0] == found[1]
