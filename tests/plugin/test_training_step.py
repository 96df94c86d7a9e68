"""A training step never waits for the device, and can be recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig, lite_model, paper_model
from surface_sos_ns.plugin.training_step import take_step
from tests.helpers.capture_files import ball_capture, manager
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.no_synchronisation import NoSynchronisation, SynchronisationError
from tests.helpers.static_run import StaticRun, fake_run

FULL = SurfaceSOSModelConfig()
PRESETS = {"full": FULL, "lite": lite_model(FULL), "paper": paper_model(FULL)}
STATIC = TorchOps(static=True)
WAITS = (SynchronisationError, DataDependentOutputException, DynamicOutputShapeException)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SurfaceSOSDataManager:
    found = manager(ball_capture(tmp_path_factory.mktemp("ball")).save(), train_num_rays_per_batch=2048)
    found.prepare()
    return found


def forward_and_optimisers(run: StaticRun) -> None:
    """A step on CUDA but for the backward, which needs a driver: gradients of the right shapes take its place."""
    losses, metrics = run.losses()
    assert all(value.device.type == "cuda" and value.ndim == 0 for value in (losses | metrics).values())
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.empty_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("preset", PRESETS)
def test_on_cuda_nothing_waits_for_the_device(data: SurfaceSOSDataManager, preset: str) -> None:
    with fake_cuda():
        run = fake_run(data, PRESETS[preset], STATIC, "cuda")
        forward_and_optimisers(run)  # makes the optimisers' states
        with NoSynchronisation():
            forward_and_optimisers(run)


@pytest.mark.parametrize("preset", PRESETS)
def test_neither_does_the_backward(data: SurfaceSOSDataManager, preset: str) -> None:
    with fake_cuda():
        run = fake_run(data, PRESETS[preset], STATIC, "cpu")
        take_step(run.losses, run.optimizers)
        with NoSynchronisation():
            found = take_step(run.losses, run.optimizers)
    assert {"colour", "eikonal"} <= set(found.losses)


def by_a_mask(rgb: Tensor) -> None:
    rgb[rgb > 0.5] = 0.0


@pytest.mark.parametrize(
    "fault",
    [
        lambda rgb: rgb.nonzero(),
        lambda rgb: rgb.sum().item(),
        lambda rgb: float(rgb.mean()),
        lambda rgb: bool((rgb > 0).any()),
        lambda rgb: rgb.cpu(),
        lambda rgb: rgb[rgb > 0.5],
        by_a_mask,
        lambda rgb: rgb + torch.tensor([0.1, 0.2, 0.3], device=rgb.device),
        lambda rgb: rgb.to("cpu", non_blocking=True),
        lambda rgb: torch.ones(3).to(rgb.device),
        lambda rgb: rgb.unique(),
    ],
    ids=["nonzero", "item", "float", "bool", "cpu", "mask", "masked assignment", "list", "to", "from host", "unique"],
)
def test_what_waits_in_a_step_is_found(
    data: SurfaceSOSDataManager, fault: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cuda():
        run = fake_run(data, PRESETS["lite"], STATIC, "cuda")
        metrics = run.model.get_metrics_dict

        def with_fault(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
            fault(outputs["rgb"].detach())
            return metrics(outputs, batch)

        monkeypatch.setattr(run.model, "get_metrics_dict", with_fault)
        with pytest.raises(WAITS), NoSynchronisation():
            run.losses()
