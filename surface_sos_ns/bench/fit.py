"""A short run on the demo scene, which gives the benchmarks a model to measure on."""

from __future__ import annotations

import torch

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.scene_data import SceneData, find_capture, load_scene
from surface_sos_ns.bench.settings import SceneSettings
from surface_sos_ns.demo.progress import Stage
from surface_sos_ns.presets import Preset

LOADING, INITIAL_STEP = 20.0, 0.3  # what they take, in training steps; for the time left only


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
