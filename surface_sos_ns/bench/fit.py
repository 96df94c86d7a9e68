"""A short run on the demo scene, which gives the benchmarks a model to measure on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.protocol import choose_device, flush_denormals, header, thread_counts
from surface_sos_ns.bench.scene_data import SceneData, find_capture, load_scene
from surface_sos_ns.bench.settings import Render, SceneSettings, Train
from surface_sos_ns.training.presets import PRESETS, Preset
from surface_sos_ns.utils.progress import Stage

LOADING, INITIAL_STEP = 20.0, 0.3  # what they take, in training steps; for the time left only


class Start(NamedTuple):
    """What a benchmark on a fitted scene begins with."""

    device: torch.device
    preset: Preset
    counts: list[int]
    """Numbers of threads to measure with."""
    result: dict[str, Any]
    """The first entries of the JSON file."""
    data: SceneData
    run: ours.Run


def start(kind: str, settings: Train | Render, rays: int | None, until: float) -> Start:
    """Checks the settings and fits a scene, with the last of the numbers of threads.

    Args:
        kind: of benchmark, for the JSON file.
        settings: the user's.
        rays, until: see `fitted_run`; None: as many as the preset has.

    Raises:
        BenchError: a setting that cannot work here.
    """
    settings.check()
    device = choose_device(settings.device)
    flush_denormals()
    preset = PRESETS[settings.preset]
    counts = thread_counts(settings, device)
    result = header(kind, settings, device)
    ours.use_threads(counts[-1])
    data, run = fitted_run(settings, preset, rays or preset.rays, until, device)
    return Start(device, preset, counts, result, data, run)


def fitted_run(
    settings: SceneSettings, preset: Preset, rays: int, until: float, device: torch.device
) -> tuple[SceneData, ours.Run]:
    """Read (or render) the demo capture and train on it for `settings.fit_steps`.

    Args:
        settings: which capture, how many steps, the seed.
        preset: whose sizes.
        rays: per step.
        until: how far the schedules run, as a fraction of a whole run.
        device: where to train.
    """
    folder = find_capture(settings.capture)
    torch.manual_seed(settings.seed)
    initial = INITIAL_STEP * preset.initial_fit_steps
    with Stage("Fitting a scene to measure on", LOADING + initial + settings.fit_steps) as stage:
        data = load_scene(folder, preset.hull_slack, device)
        stage.advance(LOADING)
        run = ours.Run(preset, data, device)
        stage.advance(initial)
        run.fit(data.batches(rays, settings.seed), settings.fit_steps, until, lambda: stage.advance(1))
    return data, run
