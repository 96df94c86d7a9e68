"""How many rays fit on a GPU: what is counted against what torch allocates for the fields, and the bounds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from surface_sos_ns.models.surface_sos import gpu_memory
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.gpu_memory import (
    MAX_RAYS_AT_ONCE,
    MIN_RAYS_AT_ONCE,
    rays_at_once,
    rays_that_fit,
    rendering_bytes_per_ray,
    training_bytes_per_ray,
    why_training_does_not_fit,
)
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.training.presets import PRESETS

POINTS = 2048


class _Encode(torch.autograd.Function):
    """A hash grid that allocates what a kernel does: its results, and the gradient of the table."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, width: int, jacobian: bool) -> Any:
        ctx.save_for_backward(x)
        ctx.entries = table.shape
        return x.new_zeros(len(x), width), (x.new_zeros(len(x), width, 3) if jacobian else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, gradients[0].new_zeros(ctx.entries), None, None


class OneOperationGrid(TorchOps):
    def hash_grid(self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False) -> Any:
        return _Encode.apply(x, table, layout.width, jacobian)


def peak_bytes(run: Callable[[], object], folder: Path) -> int:
    """Most bytes that torch had allocated at a time in a call, beyond those before it, by its profiler."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    memory = [event["args"] for event in events if event["name"] == "[memory]"]
    before = memory[0]["Total Allocated"] - memory[0]["Bytes"]
    return max(change["Total Allocated"] for change in memory) - before


def bytes_of_fields(config: SceneConfig, training: bool, folder: Path) -> list[float]:
    """Bytes that each field and colour net takes for a point, alone; without their tables."""
    grids = ("foreground_grid", "background_grid", "label_grid")
    tiny = {name: dataclasses.replace(getattr(config, name), log2_entries=4) for name in grids}
    scene = SurfaceSOS(dataclasses.replace(config, backend="torch", **tiny), views=1)
    use_ops(scene, OneOperationGrid())
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2 * POINTS, 3, generator=generator) - 0.5
    directions = nn.functional.normalize(points, dim=-1)
    found = []
    fields = [(field, False) for field in (scene.foreground.field, scene.background.field, scene.label.field)]
    for module, coloured in [*fields, (scene.foreground.colour, True), (scene.background.colour, True)]:
        width = module.net[0].in_features - 16 if coloured else 0
        given = torch.rand(2 * POINTS, width, generator=generator).requires_grad_()

        def run(count: int, module: Any = module, coloured: bool = coloured, given: Tensor = given) -> None:
            with torch.set_grad_enabled(training):
                results = module(given[:count], directions[:count]) if coloured else module(points[:count])
                results = results if isinstance(results, tuple) else (results,)
                if training:
                    sum(part.sum() for part in results if isinstance(part, Tensor) and part.requires_grad).backward()

        some, more = (peak_bytes(lambda count=count: run(count), folder) for count in (POINTS, 2 * POINTS))
        found.append((more - some) / POINTS)
    return found


@pytest.mark.seconds(8)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_counted_is_what_torch_allocates(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset].scene
    training, rendering = (bytes_of_fields(config, grad, tmp_path) for grad in (True, False))
    others = gpu_memory.FLOAT_BYTES * gpu_memory.SAMPLE_FLOATS
    for counted, samples, measured in (
        (training_bytes_per_ray(config), config.samples, sum(training)),
        (rendering_bytes_per_ray(config), config.render_samples, max(rendering)),
    ):
        candidates = gpu_memory.FLOAT_BYTES * gpu_memory.CANDIDATE_FLOATS * sum(config.candidates)
        of_fields = (counted - candidates) / samples - others
        assert measured <= of_fields * 1.001 <= 1.15 * measured


def test_the_largest_power_of_two_that_fits_within_bounds() -> None:
    gigabyte = 10**9
    assert rays_that_fit(8 * gigabyte, 120_000) == 32768  # half of 8 GB has room for 33 333
    assert rays_that_fit(7 * gigabyte, 120_000) == 16384
    assert rays_that_fit(0, 120_000) == MIN_RAYS_AT_ONCE
    assert rays_that_fit(1000 * gigabyte, 120_000) == MAX_RAYS_AT_ONCE


@pytest.mark.parametrize("preset", PRESETS)
def test_a_card_of_8_gb_trains_and_renders_every_preset(preset: str) -> None:
    """With 7 GB free: a step of the preset's rays, and pictures at least by as many rays as on a CPU."""
    found, scene = PRESETS[preset], PRESETS[preset].scene
    parameters = sum(parameter.numel() for parameter in SurfaceSOS(scene, views=100).parameters())
    assert why_training_does_not_fit(scene, parameters, found.rays, 7 * 10**9) is None
    assert rays_that_fit(7 * 10**9, rendering_bytes_per_ray(scene)) >= found.rays_per_chunk


def test_a_step_that_does_not_fit_is_told_with_what_does() -> None:
    scene = PRESETS["full"].scene
    said = why_training_does_not_fit(scene, 25_000_000, 65_536, 8 * 10**9)
    assert said is not None and "steps of 65536 rays" in said and "8.0 GB are free" in said
    advised = int(said.split("train-num-rays-per-batch ")[1].rstrip("."))
    assert 4096 < advised < 65_536
    assert why_training_does_not_fit(scene, 25_000_000, advised, 8 * 10**9) is None
    assert why_training_does_not_fit(scene, 25_000_000, advised + 128, 8 * 10**9) is not None
    assert "stop other programs" in str(why_training_does_not_fit(scene, 25_000_000, 2048, 10**8))


def test_a_cpu_takes_the_number_that_is_configured() -> None:
    assert rays_at_once(PRESETS["full"].scene, torch.device("cpu"), 777) == 777


def test_memory_that_torch_holds_unused_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("mem_get_info", (5, 20)), ("memory_reserved", 7), ("memory_allocated", 3)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    assert gpu_memory.free_gpu_bytes(torch.device("cuda")) == 5 + 7 - 3
