"""`bench train`: time of a training step on the demo scene, against nerfstudio's neus-facto.

Both methods get the same rays (half of them around the object, as in our training), the same number of final samples
per ray, their own losses and their own optimisers. A step is rendering, losses, backward pass and optimiser; reading
photos and drawing rays is not measured. Our step includes its share of the update of the sampling caches, which happens
every few steps. It is measured with the schedules half way through, since its cost depends on the state of the scene.
With n threads, our compiled kernels get n and torch's operations one, as in our training on a CPU; neus-facto uses
torch's operations only, and gets n threads there. On a GPU our step is captured as a CUDA graph, as in training.

The methods differ in size: neus-facto keeps its own tables (16 levels, 2^19 entries) and width (256), its two proposal
networks (256 and 96 samples per ray), and has no background. A second row gives its SDF field the table and width of
our foreground. Ours renders object, background and label, without proposal networks.

The result also has the parts of our step, launched operation by operation (`Run.phases`), a lower bound of its time on
this machine (`floor`), with --objects a comparison of several objects with one (`objects`), and what steps of several
numbers of rays ask of the GPU (`device_work`), captured and not.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.baselines import NEUS_FACTO, NEUS_FACTO_OUR_SIZES, NeusFacto, nerfstudio_problem
from surface_sos_ns.bench.device_work import not_measured, profile_step
from surface_sos_ns.bench.fit import fit_scene
from surface_sos_ns.bench.floor import step_floor
from surface_sos_ns.bench.objects import compare_objects
from surface_sos_ns.bench.protocol import (
    OURS,
    PAUSE,
    Side,
    comparison,
    seconds,
    take_turns,
)
from surface_sos_ns.bench.scene_data import Batch, SceneData
from surface_sos_ns.bench.settings import Train
from surface_sos_ns.plugin.training_step import CaptureError, CudaGraphs, Graphs
from surface_sos_ns.utils.memory import peak_gb
from surface_sos_ns.utils.progress import Stage

BATCHES = 8
"""Batches that are drawn before the measurement, and used in turns."""
GPU_STEPS = 50
"""Steps that are timed on a GPU, where one takes milliseconds."""
HALF_WAY = 0.5
"""Progress of the schedules at which steps are measured."""
CAPTURED, EAGER = "captured", "eager"
"""Our step as a CUDA graph, and launched operation by operation."""
CACHE_SHARE = "cache refresh (share)"
"""Name of the part of a step that updates the sampling caches: its time over the interval in steps."""


class _Cycle:
    """Calls a training step with a few batches, in turns."""

    def __init__(self, step: Any, batches: list[Batch]):
        self.step, self.batches = step, itertools.cycle(batches)

    def __call__(self) -> None:
        self.step(next(self.batches))


def _our_step(run: ours.Run, batches: list[Batch], graphs: Graphs | None) -> Callable[[], Any]:
    """What does one of our steps, with the batches in turns: captured, or eager without `graphs`."""
    if graphs is None:
        return _Cycle(run.step, batches)
    return run.captured_step(ours.BatchesInTurns(batches), graphs)


def _graphs(run: ours.Run, batches: list[Batch]) -> tuple[Graphs | None, dict[str, str]]:
    """How our step is captured on this device; None and the reason, by what is missing, where it is not."""
    why_not = run.why_not_captured()
    if why_not is None:
        graphs = CudaGraphs()
        try:
            _our_step(run, batches, graphs)
        except CaptureError as error:
            why_not = f"it could not be captured: {error}"
        else:
            return graphs, {}
    return None, {"captured step": why_not}


def _batches(data: SceneData, rays: int, seed: int) -> list[Batch]:
    return list(itertools.islice(data.batches(rays, seed), BATCHES))


def run_train(settings: Train) -> dict[str, Any]:
    """The benchmark; returns what the JSON file holds.

    Raises:
        BenchError: a setting that cannot work here.
    """
    device, preset, counts, result, data, run = fit_scene("train", settings, settings.rays, HALF_WAY)
    rays, samples = settings.rays or preset.rays, preset.scene.samples
    batches = _batches(data, rays, settings.seed + 1)
    result["peak_memory_gb"] = peak_gb()  # of our side, since the other one is not loaded yet
    if device.type == "cuda":
        result["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    graphs, result["missing"] = _graphs(run, batches)
    result["by_rays"] = by_rays(settings, rays, run, data, graphs)
    result["missing"] |= not_measured(result["by_rays"][0], device)

    if settings.objects is not None:

        def step_of(run: ours.Run, data: SceneData) -> Callable[[], Any]:
            return _our_step(run, _batches(data, rays, settings.seed + 1), graphs)

        result["objects"] = compare_objects(settings, run, data, HALF_WAY, counts, step_of)
    problem = nerfstudio_problem()
    if problem is not None:
        result["missing"][NEUS_FACTO] = problem
    sizes = {NEUS_FACTO: None, NEUS_FACTO_OUR_SIZES: (preset.scene.foreground_grid, preset.scene.hidden)}
    others = {} if problem else {n: NeusFacto(samples, data.view_count, device, s) for n, s in sizes.items()}

    def sides(batches: list[Batch], names: list[str]) -> dict[str, Side]:
        found = {OURS: Side(_our_step(run, batches, graphs), ours.use_threads)}
        return found | {name: Side(_Cycle(others[name].step, batches)) for name in names}

    grown = _grown(rays, samples) if settings.scaling else []
    work = len(counts) * (settings.repeats + 1) + len(grown)
    with Stage("Measuring training steps", float(work)) as stage:
        by_threads = {}
        result["phases"] = []
        for count in counts:
            stage.describe(f"training step, {count} thread(s)")
            ours.use_threads(count)
            refreshes = [seconds(run.refresh_cache, device) for _ in range(3)]
            share = statistics.median(refreshes) / preset.cache_interval
            runs = take_turns(sides(batches, list(others)), count, settings.repeats, device)
            by_threads[count] = {**runs, OURS: [taken + share for taken in runs[OURS]]}
            ours.use_threads(count)
            time.sleep(PAUSE)
            parts = run.phases(batches)
            names = dict.fromkeys(name for part in parts for name in part)
            phases = {name: statistics.median(part.get(name, 0.0) for part in parts) for name in names}
            result["phases"].append({"threads": count, "seconds": {**phases, CACHE_SHARE: share}})
            stage.advance(settings.repeats + 1)
        shape = {
            "rays": rays,
            "samples": samples,
            "preset": settings.preset,
            "ours": EAGER if graphs is None else CAPTURED,
            "cache_refresh_share_seconds": share,
        }
        result["step"] = {**comparison(by_threads, NEUS_FACTO if others else None), **shape}
        if others:
            result["step_our_sizes"] = {**comparison(by_threads, NEUS_FACTO_OUR_SIZES), **shape}
        stage.describe("what a step needs at least")
        result["floor"] = _floor(run, batches, graphs)
        result["scaling"] = {"rays": [], "samples": []}
        for axis, value in grown:
            stage.describe(f"growth with {axis}: {value}")
            count = samples if axis == "rays" else value
            run.use_samples(count)
            for other in others.values():
                other.use_samples(count)
            some = _batches(data, value if axis == "rays" else rays, settings.seed + 2)
            steps = sides(some, [NEUS_FACTO] if others else [])
            # One run of the baselines is enough: a step takes seconds, and the sizes differ by factors of two.
            runs = take_turns({OURS: steps.pop(OURS)}, counts[-1], 3, device)
            runs |= take_turns(steps, counts[-1], 1, device, warm_up=0)
            row = {axis: value, "threads": counts[-1], OURS: statistics.median(runs[OURS]) + share}
            row |= {name: runs[name][0] for name in steps}
            result["scaling"][axis].append(row)
            stage.advance(1)
    return result


def by_rays(settings: Train, rays: int, run: ours.Run, data: SceneData, graphs: Graphs | None) -> list[dict[str, Any]]:
    """Our step with several numbers of rays, without its share of the cache update: figures of `profile_step`, for the
    eager step and, with `graphs`, for the captured one."""
    steps = GPU_STEPS if run.device.type == "cuda" else settings.repeats
    kinds: dict[str, Graphs | None] = {EAGER: None} if graphs is None else {CAPTURED: graphs, EAGER: None}
    numbers = settings.profile_rays or ([rays // 2, rays, 2 * rays, 4 * rays] if settings.scaling else [rays])
    rows: list[dict[str, Any]] = []
    with Stage("Profiling steps by rays", float(sum(numbers))) as stage:
        for number in sorted(set(numbers)):
            stage.describe(f"a step of {number} rays")
            batches = _batches(data, number, settings.seed + 3)
            for kind, how in kinds.items():
                figures = profile_step(partial(_our_step, run, batches, how), run.device, steps)
                rows.append({"rays": number, "step": kind, **figures})
            stage.advance(number)
    return rows


def _floor(run: ours.Run, batches: list[Batch], graphs: Graphs | None) -> dict[str, Any]:
    """The lower bound of a step's time, and the fastest of a few steps on one thread, without cache update."""
    ours.use_threads(1)
    time.sleep(PAUSE)
    step = _our_step(run, batches, graphs)
    taken = min(seconds(step, run.device) for _ in batches)
    work = run.workload(batches[0])
    return {**step_floor(work, run.device), "step_seconds": taken, "points": sum(work.points.values())}


def _grown(rays: int, samples: int) -> list[tuple[str, int]]:
    """The sizes that are varied, with their values."""
    some_rays = sorted({max(2, rays // 4), max(2, rays // 2), rays, 2 * rays})
    some_samples = sorted({max(2, samples // 2), samples, 2 * samples})
    return [("rays", value) for value in some_rays] + [("samples", value) for value in some_samples]
