"""A training step never waits for the device, and can be recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.choose import Backend, choose_ops
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig, lite_model, paper_model
from surface_sos_ns.plugin.training_step import CapturedStep, CudaGraphs, StepResult, take_step
from tests.helpers.capture_files import ball_capture, manager
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.no_synchronisation import NoSynchronisation, SynchronisationError
from tests.helpers.recorded_graph import RecordedGraphs
from tests.helpers.static_run import StaticRun, addresses, fake_run, real_run, small, take_ops

FULL = SurfaceSOSModelConfig()
PRESETS = {"full": FULL, "lite": lite_model(FULL), "paper": paper_model(FULL)}
STATIC = TorchOps(static=True)
WAITS = (SynchronisationError, DataDependentOutputException, DynamicOutputShapeException)

each_ops = pytest.mark.parametrize(
    "ops",
    [
        pytest.param(STATIC, id="torch", marks=pytest.mark.seconds(2.5)),  # many small operations on fake tensors
        pytest.param(TritonOps(), id="kernels"),
    ],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SurfaceSOSDataManager:
    return ball_data(tmp_path_factory.mktemp("ball"), "cpu")


@pytest.fixture(scope="module")
def data_on_gpu(tmp_path_factory: pytest.TempPathFactory) -> SurfaceSOSDataManager:
    return ball_data(tmp_path_factory.mktemp("ball"), "cuda")


def ball_data(folder: Path, device: str) -> SurfaceSOSDataManager:
    found = manager(ball_capture(folder).save(), train_num_rays_per_batch=96, device=device)
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


@each_ops
@pytest.mark.parametrize("preset", PRESETS)
def test_on_cuda_nothing_waits_for_the_device(data: SurfaceSOSDataManager, preset: str, ops: TorchOps) -> None:
    with fake_cuda():
        run = fake_run(data, PRESETS[preset], ops, "cuda")
        forward_and_optimisers(run)  # makes the optimisers' states
        with NoSynchronisation():
            forward_and_optimisers(run)


@each_ops
@pytest.mark.parametrize("preset", PRESETS)
def test_neither_does_the_backward(data: SurfaceSOSDataManager, preset: str, ops: TorchOps) -> None:
    with fake_cuda():
        run = fake_run(data, PRESETS[preset], ops, "cpu")
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


# ------------------------------------------------------------------ captured and replayed


def train(run: StaticRun, steps: int, step: Callable[[], StepResult]) -> list[dict[str, float]]:
    """What the trainer and the run's story do around steps: schedules, and now and then cached fields and m^P."""
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 0.5 ** (done / 3)) for optimizer in run.optimizers
    ]
    scene, found = run.model.scene, []
    for done in range(steps):
        scene.set_progress(done / steps)
        if done % 4 == 0:
            scene.update_cache(0.5)
        if done == 6:
            scene.object_grid.refresh_probability(0.02)
        result = step()
        for scheduler in schedulers:
            scheduler.step()
        found.append({name: float(value) for name, value in (result.losses | result.metrics).items()})
    return found


def state_of(run: StaticRun) -> list[Tensor]:
    states = [value for each in run.optimizers for kept in each.state.values() for value in kept.values()]
    return [*run.model.parameters(), *run.model.buffers(), *states]


def eager_and_replayed(
    data: SurfaceSOSDataManager, preset: str, ops: TorchOps = STATIC, device: str = "cpu"
) -> list[tuple[list[dict[str, float]], list[Tensor]]]:
    """Losses of twelve steps and the state at their end, of two runs that start alike. Random numbers come last."""

    def of_a_run(captured: bool) -> tuple[list[dict[str, float]], list[Tensor]]:
        run = real_run(data, small(PRESETS[preset]), ops, device)
        graphs = CudaGraphs() if device == "cuda" else RecordedGraphs()
        step = CapturedStep(run.losses, run.optimizers, lambda: tuple(addresses(run)), graphs)
        torch.manual_seed(3)
        losses = train(run, 12, step if captured else lambda: take_step(run.losses, run.optimizers))
        assert step.captures == captured
        return losses, [*state_of(run), torch.rand(8, device=device)]

    return [of_a_run(captured) for captured in (False, True)]


@pytest.mark.seconds(3)
@pytest.mark.parametrize("preset", ["full", "paper"])
def test_a_replayed_step_equals_an_eager_one(data: SurfaceSOSDataManager, preset: str) -> None:
    """All that changes over a run reaches a replay: nothing of it is a number that the recording has fixed."""
    (losses, state), (again, replayed) = eager_and_replayed(data, preset)
    assert losses == again and losses[0] != losses[11]
    assert all(torch.equal(one, two) for one, two in zip(state, replayed, strict=True))


@pytest.mark.seconds(3)
def test_a_number_on_the_host_would_show(data: SurfaceSOSDataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SurfaceSOS, "done", property(lambda scene: scene._done))
    (losses, _), (again, _) = eager_and_replayed(data, "full")
    assert losses[:3] == again[:3] and losses[5:] != again[5:]


@pytest.mark.seconds(1.5)
def test_it_is_captured_anew_where_a_tensor_was_replaced(data: SurfaceSOSDataManager) -> None:
    run = real_run(data, small(PRESETS["full"]), STATIC)
    step = CapturedStep(run.losses, run.optimizers, lambda: tuple(addresses(run)), RecordedGraphs())
    for _ in range(6):
        step()
    assert step.captures == 1
    reliability = run.model.scene.reliability
    reliability.counts = reliability.counts.clone()
    before = reliability.counts.clone()
    step()
    assert step.captures == 2 and not torch.equal(reliability.counts, before)


# ------------------------------------------------------------------ on a GPU


CUDA = torch.device("cuda")


@contextmanager
def waiting_refused() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_on_a_gpu_waits_for_nothing(data_on_gpu: SurfaceSOSDataManager, preset: str, backend: Backend) -> None:
    run = real_run(data_on_gpu, small(PRESETS[preset]), choose_ops(backend, CUDA), "cuda")
    for _ in range(2):  # kernels are compiled, and optimisers make their states
        take_step(run.losses, run.optimizers)
    with waiting_refused():
        found = take_step(run.losses, run.optimizers)
        with pytest.raises(RuntimeError, match="synchroniz"):
            found.loss.item()
    assert found.loss.isfinite()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("preset", ["full", "paper"])
def test_a_cuda_graph_equals_eager_steps(data_on_gpu: SurfaceSOSDataManager, preset: str, backend: Backend) -> None:
    """Up to rounding, since sums of gradients are taken in any order; with the same random numbers."""
    ops = choose_ops(backend, CUDA)
    (losses, state), (again, replayed) = eager_and_replayed(data_on_gpu, preset, ops, "cuda")
    assert torch.equal(state[-1], replayed[-1])
    for eager, captured in zip(losses, again, strict=True):
        assert captured == pytest.approx(eager, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("preset", ["full", "paper"])
def test_a_gpu_renders_what_a_cpu_renders(data: SurfaceSOSDataManager, preset: str, backend: Backend) -> None:
    model = real_run(data, small(PRESETS[preset]), TORCH).model.eval()
    bundle, _ = data.next_train(0)
    rays = model.scene.frame.rays(bundle.origins, bundle.directions)
    with torch.no_grad():
        on_cpu = model.scene.render(*rays, plate=False)
        model.to(CUDA)
        take_ops(model, choose_ops(backend, CUDA))
        on_gpu = model.scene.render(*(part.to(CUDA) for part in rays), plate=False)
    assert (on_cpu.alpha > 0.5).any() and (on_cpu.alpha < 0.5).any()
    for name in ("rgb", "alpha", "background"):
        assert torch.allclose(getattr(on_gpu, name).cpu(), getattr(on_cpu, name), atol=1e-3), name
