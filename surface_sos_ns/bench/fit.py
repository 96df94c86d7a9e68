"""Trains briefly on the demo scene, so that benchmarks measure a fitted model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.protocol import choose_device, flush_denormals, header, thread_counts
from surface_sos_ns.bench.scene_data import SceneData, find_capture, load_scene
from surface_sos_ns.bench.settings import Render, SceneSettings, Train
from surface_sos_ns.training.presets import PRESETS, Preset
from surface_sos_ns.utils.progress import Stage

LOADING_STEPS, INITIALISATION_STEPS = 20.0, 0.3
"""Time of loading, and of a step of the initialisation, in training steps; for the progress bar."""


class FittedScene(NamedTuple):
    """A scene after a short training, and the settings to measure it with."""

    device: torch.device
    preset: Preset
    counts: list[int]
    """Thread counts to measure with."""
    result: dict[str, Any]
    """The header of the JSON file."""
    data: SceneData
    run: ours.Run


def fit_scene(kind: str, settings: Train | Render, rays: int | None, until: float) -> FittedScene:
    """Checks the settings and trains on the demo scene, with the largest thread count.

    Args:
        kind: name of the benchmark.
        settings: of the user.
        rays: per step; None takes the preset's.
        until: see `fitted_run`.

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
    return FittedScene(device, preset, counts, result, data, run)


def fitted_run(
    settings: SceneSettings, preset: Preset, rays: int, until: float, device: torch.device, objects: int = 1
) -> tuple[SceneData, ours.Run]:
    """Reads (or renders) the demo capture, and trains on it for `settings.fit_steps` steps.

    Args:
        settings: capture, number of steps, seed.
        preset: sizes, losses and learning rates.
        rays: per step.
        until: progress of the schedules at the end, as a fraction of a whole run.
        device: to train on.
        objects: how many to take the object for, see `SceneData.in_bands`.
    """
    folder = find_capture(settings.capture)
    torch.manual_seed(settings.seed)
    initial = INITIALISATION_STEPS * preset.initial_fit_steps
    with Stage("Fitting a scene to measure on", LOADING_STEPS + initial + settings.fit_steps) as stage:
        data = load_scene(folder, preset.hull_slack, device)
        if objects > 1:
            data = data.in_bands(objects)
        stage.advance(LOADING_STEPS)
        run = ours.Run(preset, data, device)
        stage.advance(initial)
        run.fit(data.batches(rays, settings.seed), settings.fit_steps, until, lambda: stage.advance(1))
    return data, run
