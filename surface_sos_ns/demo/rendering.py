"""Renders views of the demo scene in several processes."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.demo.path_tracer import Camera, Chunk, Lighting, Rendered, Tracer
from surface_sos_ns.utils.progress import Stage

_tracer: Tracer | None = None  # one per worker process


def _start_worker(make_tracer: Callable[[], Tracer]) -> None:
    global _tracer
    cv2.setNumThreads(1)
    _tracer = make_tracer()


def _direct(chunk: Chunk) -> Any:
    assert _tracer is not None
    return _tracer.direct(chunk)


def _bounce(chunk: Chunk, radiosity_file: str) -> Any:
    assert _tracer is not None
    with np.load(radiosity_file) as data:
        return _tracer.bounce(chunk, dict(data))


def _render(job: tuple[int, Camera], lighting_file: str, samples: int) -> Rendered:
    assert _tracer is not None
    if _tracer.lighting is None:
        with np.load(lighting_file) as data:
            _tracer.lighting = Lighting(data["surroundings"], data["surroundings_alone"], data["object"])
    return _tracer.render(job[1], job[0], samples)


@contextmanager
def _pool(workers: int, make_tracer: Callable[[], Tracer]) -> Iterator[Any]:
    """A `map` over worker processes with a tracer each, or over this process where one worker is asked for."""
    global _tracer
    if workers == 1:
        _start_worker(make_tracer)
        try:
            yield map
        finally:
            _tracer = None
        return
    # Fresh processes, not forks: the caller may hold threads (torch, OpenCV) that a fork would leave in a bad state.
    # One thread each, or the numeric libraries' own threads fight over the cores.
    before = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker, (make_tracer,)) as executor:
            yield executor.map
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def light_and_render(
    make_tracer: Callable[[], Tracer],
    cameras: Mapping[int, Camera],
    samples: int,
    workers: int,
    title: str,
    show: bool,
) -> tuple[Tracer, list[Rendered]]:
    """Gathers the light of a scene and renders views of it.

    Args:
        make_tracer: makes the tracer of the scene; called in every process.
        cameras: by the index of the view, which decides its random numbers.
        samples: `samples`^2 rays per pixel.
        workers: processes.
        title, show: of the progress bar, and whether there is one.

    Returns:
        The lit tracer and the views, in the order of the cameras.
    """
    tracer = make_tracer()
    chunks = tracer.vertex_chunks()
    costs = {
        "direct": 0.0047 * tracer.side**2,
        "bounce": 0.007 * tracer.side**2,
        "view": 1.9e-6 * samples**2 * np.mean([camera.width * camera.height for camera in cameras.values()]),
    }
    total = len(chunks) * (costs["direct"] + costs["bounce"]) + len(cameras) * costs["view"]

    def collect(results: Iterable[Any]) -> dict[str, list]:
        found: dict[str, list] = {"back": [], "front": []}
        for chunk, result in zip(chunks, results, strict=True):
            found[chunk.layer].append(result)
        return found

    def counted(results: Iterable[Any], cost: float) -> Iterator[Any]:
        for result in results:
            stage.advance(cost)
            yield result

    with (
        tempfile.TemporaryDirectory() as scratch,
        Stage(title, total, show) as stage,
        _pool(workers, make_tracer) as run,
    ):
        direct = collect(counted(run(_direct, chunks), costs["direct"]))
        radiosity_file, lighting_file = f"{scratch}/radiosity.npz", f"{scratch}/lighting.npz"
        np.savez(radiosity_file, **tracer.radiosity(direct))
        bounced = collect(counted(run(partial(_bounce, radiosity_file=radiosity_file), chunks), costs["bounce"]))
        tracer.lighting = tracer.assemble(direct, bounced)
        light = tracer.lighting
        np.savez(
            lighting_file,
            surroundings=light.surroundings,
            surroundings_alone=light.surroundings_alone,
            object=light.object,
        )
        render = partial(_render, lighting_file=lighting_file, samples=samples)
        views = list(counted(run(render, list(cameras.items())), costs["view"]))
    return tracer, views
