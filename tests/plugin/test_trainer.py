"""The trainer around a model of ten weights: resume, stop, schedules, evaluation's loader. Seconds, no data."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import InstantiateConfig, LoggingConfig
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils import eval_utils, writer
from nerfstudio.utils.rich_utils import CONSOLE

from surface_sos_ns.models.surface_sos.adaptation import Adaptation
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.ops.cpu import threads
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.plugin.checkpoints import CheckpointError, checkpoint_path, list_checkpoints, read_checkpoint
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.dataset import PixelCache
from surface_sos_ns.plugin.loss_log import LOSS_FILE, LossLog, read_losses
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.optimizers import GridAdamConfig, WarmupDecaySchedulerConfig
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline, SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.run_paths import find_capture
from surface_sos_ns.plugin.trainer import (
    SurfaceSOSMachineConfig,
    SurfaceSOSTrainer,
    SurfaceSOSTrainerConfig,
)
from surface_sos_ns.training.mask_reliability import MaskReliability
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import WriteError
from surface_sos_ns.utils.locks import InUseError, fcntl
from tests.helpers.terminal import another_process

TOTAL = 20


@dataclass
class TinyModelConfig(InstantiateConfig):
    _target: type = field(default_factory=lambda: TinyModel)
    total_steps: int | None = None
    width: int = 8
    mask_refresh: tuple[float, ...] = ()
    probability_refresh: tuple[float, ...] = ()
    probability_dilation: float = 0.0
    cache_interval: int = 5
    cache_share: float = 1.0
    support_map: bool = False
    scene: Any = field(default_factory=lambda: SimpleNamespace(background="density"))


class TinyScene:
    """What a run asks of the scene between steps; ten weights have none of it."""

    ready = True
    frame = ObjectFrame()
    reliability = MaskReliability(1)
    ops = TorchOps()

    def set_progress(self, fraction: float) -> None: ...

    def update_cache(self, share: float = 1.0) -> None: ...

    def discount_hidden(self, cameras: torch.Tensor) -> None: ...


class TinyModel(torch.nn.Module):
    def __init__(self, config: TinyModelConfig) -> None:
        super().__init__()
        self.config = config
        self.table = torch.nn.Parameter(torch.rand(config.width))
        self.gain = torch.nn.Parameter(torch.rand(2))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.scene = TinyScene()
        self.training_views = None

    device = torch.device("cpu")
    object_names = ()

    def take_objects(self, names: tuple[str, ...]) -> None:
        assert not names

    def take_adaptation(self, adaptation: Adaptation) -> None:
        assert adaptation == Adaptation()

    def describe(self) -> str:
        return "tiny grid | tiny sampler"

    def attach_parts(self, run: Path, checkpoint: str) -> None: ...

    def object_box(self) -> torch.Tensor:
        return torch.tensor([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]])

    def update_to_step(self, step: int) -> None:
        self.loaded_step = step

    def get_param_groups(self) -> dict[str, list]:
        return {"grids": [self.table], "nets": [self.gain]}

    def get_training_callbacks(self, attributes: Any) -> list:
        return []

    def images(self, camera: Cameras, names: list[str], smooth_edges: bool) -> dict[str, torch.Tensor]:
        self.made_of = self.table.detach().clone()
        return {"alpha": torch.zeros(4, 4, 1)}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.updates += 1
        return {"y": (x * self.table).sum(-1) * self.gain[0] + self.gain[1]}

    def get_metrics_dict(self, outputs: dict, batch: dict) -> dict:
        return {}

    def get_loss_dict(self, outputs: dict, batch: dict, metrics: dict) -> dict:
        return {"loss": (outputs["y"] - batch["y"]).square().mean()}


class TinyPhotos:
    """What the viewer draws of a capture."""

    metadata: ClassVar = {"file_paths": ["a.jpg"]}
    cameras = Cameras(torch.eye(4)[None, :3], fx=4.0, fy=4.0, cx=2.0, cy=2.0, width=4, height=4)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.full((4, 4, 3), 0.5)}


class TinyData:
    """Draws from all three generators, so that a resumed run needs the state of each."""

    train_dataset = TinyPhotos()
    train_cache = PixelCache(
        images=torch.zeros(16, 3, dtype=torch.uint8),
        masks=torch.zeros(16, dtype=torch.uint8),
        mask_weights=torch.ones(1),
        starts=torch.tensor([0, 16]),
        widths=torch.tensor([4]),
        heights=torch.tensor([4]),
        valid=None,
    )
    eval_dataset: tuple = ()
    includes_time = False
    on_step: Callable[[int], None] = staticmethod(lambda step: None)

    def __init__(self, width: int) -> None:
        self.width = width

    prior_renewed = False

    def prepare(self, folder: Path, sphere: Any) -> Any:
        assert (sphere.centre == 0).all() and sphere.radius == 1.0
        return SimpleNamespace(sphere=SimpleNamespace(centre=np.zeros(3), radius=1.0), points=None, masks_given=True)

    def next_train(self, step: int) -> tuple[torch.Tensor, dict]:
        self.on_step(step)
        x = torch.rand(4, self.width) + random.random()
        return x, {"y": x.sum(-1) + torch.from_numpy(np.random.normal(size=4)).float()}

    def get_train_rays_per_batch(self) -> int:
        return 4

    def get_param_groups(self) -> dict:
        return {}

    def get_training_callbacks(self, attributes: Any) -> list:
        return []


@dataclass
class TinyPipelineConfig(SurfaceSOSPipelineConfig):
    _target: type = field(default_factory=lambda: TinyPipeline)
    datamanager: Any = field(default_factory=lambda: SimpleNamespace(data=None, _target=TinyData))
    model: Any = field(default_factory=TinyModelConfig)


class TinyPipeline(SurfaceSOSPipeline):
    def __init__(self, config: TinyPipelineConfig, device: str, **kwargs: Any) -> None:
        Pipeline.__init__(self)
        self.config = config
        self.datamanager = TinyData(config.model.width)  # type: ignore[assignment]
        self._model = config.model.setup()
        self.world_size = 1


@pytest.fixture(autouse=True)
def all_photos_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten weights show no photos."""
    monkeypatch.setattr("surface_sos_ns.plugin.training_run.photo_errors", lambda model, data: np.ones(1))


@pytest.fixture
def config(tmp_path: Path) -> SurfaceSOSTrainerConfig:
    logging = LoggingConfig(profiler="none")
    logging.local_writer.enable = False
    return SurfaceSOSTrainerConfig(
        method_name="tiny",
        experiment_name="experiment",
        timestamp="first",
        output_dir=tmp_path,
        max_num_iterations=TOTAL,
        steps_per_save=6,
        logging=logging,
        machine=SurfaceSOSMachineConfig(device_type="cpu"),
        pipeline=TinyPipelineConfig(),
        vis="none",  # type: ignore[arg-type]
        optimizers={
            "grids": {"optimizer": GridAdamConfig(), "scheduler": WarmupDecaySchedulerConfig()},
            "nets": {"optimizer": AdamOptimizerConfig(lr=1e-3), "scheduler": WarmupDecaySchedulerConfig()},
        },
    )


def make_trainer(config: SurfaceSOSTrainerConfig, **changes: Any) -> SurfaceSOSTrainer:
    """Seeded and set up the way ns-train does it."""
    random.seed(42)
    np.random.seed(42)
    torch.manual_seed(42)
    trainer = dataclasses.replace(config, **changes).setup()
    trainer.setup()
    return trainer


def train_and_stop(config: SurfaceSOSTrainerConfig, at_step: int, how: Callable[[], None]) -> SurfaceSOSTrainer:
    """Train; ``how`` is called in the middle of step ``at_step``."""
    trainer = make_trainer(config)
    trainer.pipeline.datamanager.on_step = lambda step: how() if step == at_step else None
    with pytest.raises((SystemExit, ZeroDivisionError)) as raised:
        trainer.train()
    trainer.exit_status = getattr(raised.value, "code", None)  # type: ignore[attr-defined]
    return trainer


def weights_and_rates(trainer: SurfaceSOSTrainer) -> tuple[dict, list[float]]:
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers.optimizers.values()]
    return {name: value.clone() for name, value in trainer.pipeline.state_dict().items()}, rates


def assert_same(first: SurfaceSOSTrainer, second: SurfaceSOSTrainer) -> None:
    (weights, rates), (other_weights, other_rates) = weights_and_rates(first), weights_and_rates(second)
    assert rates == other_rates
    assert weights.keys() == other_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name


def crash() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumes_to_the_same_weights(config: SurfaceSOSTrainerConfig, number: signal.Signals) -> None:
    straight = make_trainer(config, timestamp="straight")
    straight.train()
    assert straight.steps_done == TOTAL and straight.pipeline.model.updates == TOTAL
    handler = signal.getsignal(number)
    stopped = train_and_stop(config, 9, lambda: signal.raise_signal(number))
    assert signal.getsignal(number) is handler
    assert stopped.steps_done == 10, "the step in which the signal came is finished"
    assert stopped.exit_status == 128 + number  # type: ignore[attr-defined]
    resumed = make_trainer(config, timestamp="second", load_dir=stopped.checkpoint_dir)
    assert resumed._start_step == 10
    resumed.train()
    assert resumed.steps_done == TOTAL, "the total, not as many steps more"
    assert_same(straight, resumed)


def test_the_result_is_the_mean_of_the_weights_at_the_end(config: SurfaceSOSTrainerConfig) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def watched(trainer: SurfaceSOSTrainer) -> SurfaceSOSTrainer:
        trainer.pipeline.datamanager.on_step = lambda step: seen.update({step: weights_and_rates(trainer)[0]})
        return trainer

    last = watched(make_trainer(config, timestamp="last", average_from=1.0))
    last.train()
    after_15, after_20 = seen[15], weights_and_rates(last)[0]
    config.average_from = 0.6
    straight = make_trainer(config, timestamp="straight")
    straight.train()
    for name in ("_model.table", "_model.gain"):
        mean = (after_15[name] + after_20[name]) / 2
        assert torch.allclose(straight.pipeline.state_dict()[name], mean, atol=1e-7), name
        assert not torch.allclose(mean, after_20[name], atol=1e-4), "the two differ, or this shows nothing"
    stopped = train_and_stop(config, 16, lambda: signal.raise_signal(signal.SIGTERM))
    resumed = make_trainer(config, timestamp="second", load_dir=stopped.checkpoint_dir)
    assert resumed.pipeline.average.count == 1
    resumed.train()
    assert_same(straight, resumed)
    assert resumed.pipeline.average.count == 0, "an extended run begins anew"


def test_what_is_made_of_the_model_amid_a_run_is_made_of_a_mean(config: SurfaceSOSTrainerConfig) -> None:
    seen: dict[int, torch.Tensor] = {}
    config.average_from = 0.6
    plain = make_trainer(config, timestamp="plain")
    plain.pipeline.datamanager.on_step = lambda step: seen.update({step: weights_and_rates(plain)[0]["_model.table"]})
    plain.train()
    config.pipeline.model.mask_refresh = (0.55,)  # before step 11
    refreshed = make_trainer(config, timestamp="refreshed")
    refreshed.train()
    torch.testing.assert_close(refreshed.pipeline.model.made_of, (seen[5] + seen[10]) / 2, atol=1e-7, rtol=0.0)
    assert not torch.allclose(seen[5], seen[10], atol=1e-4), "the two differ, or this shows nothing"
    assert_same(plain, refreshed)  # training goes on from where it was
    stopped = train_and_stop(config, 6, lambda: signal.raise_signal(signal.SIGTERM))
    resumed = make_trainer(config, timestamp="second", load_dir=stopped.checkpoint_dir)
    assert resumed.pipeline.average.count == 1
    resumed.train()
    assert torch.equal(resumed.pipeline.model.made_of, refreshed.pipeline.model.made_of)


def test_losses_are_written_down_and_continue_after_a_resume(config: SurfaceSOSTrainerConfig) -> None:
    config.logging.steps_per_log = 4
    straight = make_trainer(config, timestamp="straight")
    seen: dict[int, float] = {}
    step_of = straight.train_iteration

    def train_iteration(step: int) -> Any:
        loss, losses, metrics = step_of(step)
        seen[step] = float(losses["loss"].detach())
        return loss, losses, metrics

    straight.train_iteration = train_iteration  # type: ignore[method-assign]
    straight.train()
    whole = read_losses(straight.base_dir / LOSS_FILE)
    assert {record.step: record.losses["loss"] for record in whole} == pytest.approx(
        {step: seen[step] for step in (0, 4, 8, 12, 16, TOTAL - 1)}, rel=1e-5
    )
    crashed = train_and_stop(config, 18, crash)
    file = crashed.base_dir / LOSS_FILE
    assert [record.step for record in read_losses(file)] == [0, 4, 8, 12, 16]
    file.write_text(file.read_text() + '{"step": 17, "los')  # killed while it wrote
    resumed = make_trainer(config, timestamp="second", load_dir=crashed.checkpoint_dir)
    assert resumed._start_step == 13
    resumed.train()
    again = read_losses(resumed.base_dir / LOSS_FILE)
    assert [(r.step, r.losses) for r in again] == [(r.step, r.losses) for r in whole]
    seconds = [record.seconds for record in again]
    assert seconds == sorted(seconds)
    make_trainer(config).train()  # a new run in the folder of the one that crashed
    assert [record.step for record in read_losses(file)] == [record.step for record in whole]


def test_a_crashed_run_resumes_from_its_last_checkpoint(config: SurfaceSOSTrainerConfig) -> None:
    straight = make_trainer(config, timestamp="straight")
    straight.train()
    crashed = train_and_stop(config, 15, crash)
    resumed = make_trainer(config, load_dir=crashed.checkpoint_dir)
    assert resumed._start_step == 13, "saved after step 12, the second multiple of steps_per_save"
    resumed.train()
    assert_same(straight, resumed)


def test_resume_skips_a_truncated_checkpoint(config: SurfaceSOSTrainerConfig) -> None:
    config.save_only_latest_checkpoint = False
    crashed = train_and_stop(config, 15, crash)
    newest = list_checkpoints(crashed.checkpoint_dir)[0]
    newest.write_bytes(newest.read_bytes()[:-500])
    (crashed.checkpoint_dir / "notes.txt").write_text("stray")
    with CONSOLE.capture() as said:
        resumed = make_trainer(config, timestamp="second", load_dir=crashed.checkpoint_dir)
    assert resumed._start_step == 7
    assert "Skipping a checkpoint" in said.get()


def test_a_resumed_run_starts_from_the_same_object_prior(config: SurfaceSOSTrainerConfig) -> None:
    crashed = train_and_stop(config, 15, crash)
    for name in ("object_prior.npz", "object_prior.fingerprint"):
        (crashed.base_dir / name).write_text(name)
    resumed = make_trainer(config, timestamp="second", load_dir=crashed.checkpoint_dir)
    for name in ("object_prior.npz", "object_prior.fingerprint"):
        assert (resumed.base_dir / name).read_text() == name


def test_resume_from_one_checkpoint_file(config: SurfaceSOSTrainerConfig) -> None:
    crashed = train_and_stop(config, 15, crash)
    resumed = make_trainer(config, load_checkpoint=checkpoint_path(crashed.checkpoint_dir, 12))
    assert resumed._start_step == 13


def test_another_model_is_refused_with_the_file_and_the_way_out(config: SurfaceSOSTrainerConfig) -> None:
    crashed = train_and_stop(config, 15, crash)
    wider = dataclasses.replace(config.pipeline, model=TinyModelConfig(width=16))
    with pytest.raises(CheckpointError, match="step-000000012.ckpt does not fit"):
        make_trainer(config, load_dir=crashed.checkpoint_dir, pipeline=wider)


def test_a_finished_run_says_so_and_ends_well(config: SurfaceSOSTrainerConfig) -> None:
    first = make_trainer(config)
    first.train()
    assert [path.name for path in list_checkpoints(first.checkpoint_dir)] == ["step-000000019.ckpt"]
    again = make_trainer(config, timestamp="second", load_dir=first.checkpoint_dir)
    with CONSOLE.capture() as said:
        again.train()
    assert "nothing is left to train" in said.get()
    assert_same(first, again)
    assert read_checkpoint(checkpoint_path(again.checkpoint_dir, 19))["step"] == 19, "the new run can be rendered"


def test_a_run_stopped_before_its_first_step_saves_nothing(config: SurfaceSOSTrainerConfig) -> None:
    trainer = make_trainer(config, start_paused=True)
    handler = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(SystemExit):
            trainer.train()
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert list_checkpoints(trainer.checkpoint_dir) == []


def test_an_extended_run_follows_the_new_total(config: SurfaceSOSTrainerConfig) -> None:
    first = make_trainer(config)
    first.train()
    longer = make_trainer(config, timestamp="second", load_dir=first.checkpoint_dir, max_num_iterations=2 * TOTAL)
    longer.train()
    assert longer.steps_done == 2 * TOTAL
    assert longer.optimizers.optimizers["grids"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_total_of_the_first_run_is_kept_unless_another_is_asked_for(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = dataclasses.replace(config, max_num_iterations=500)
    monkeypatch.setitem(all_methods, "tiny", preset)
    crashed = train_and_stop(config, 15, crash)
    resumed = dataclasses.replace(preset, load_dir=crashed.checkpoint_dir)
    resumed.set_total_steps()
    assert resumed.max_num_iterations == resumed.pipeline.model.total_steps == TOTAL
    monkeypatch.setattr(sys, "argv", ["ns-train", "tiny", "--max_num_iterations=500"])
    asked = dataclasses.replace(preset, load_dir=crashed.checkpoint_dir)
    asked.set_total_steps()
    assert asked.max_num_iterations == 500


def test_presets_are_not_changed_by_a_run(config: SurfaceSOSTrainerConfig) -> None:
    preset = dataclasses.replace(config)
    make_trainer(config, max_num_iterations=7)
    assert preset.pipeline.model.total_steps is None
    assert preset.optimizers["grids"]["scheduler"].total_steps is None


def test_the_device_is_what_is_there_unless_named(config: SurfaceSOSTrainerConfig, monkeypatch) -> None:
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        automatic = dataclasses.replace(config, machine=SurfaceSOSMachineConfig())
        automatic.choose_device()
        assert automatic.machine.device_type == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config.choose_device()
    assert config.machine.device_type == "cpu"


@pytest.mark.parametrize("total, warmup", [(200, 10), (10_000, 500), (40_000, 500)])
def test_the_schedule_follows_the_length_of_the_run(total: int, warmup: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = GridAdamConfig(lr=0.5).setup([parameter])
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    factor = WarmupDecaySchedulerConfig(total_steps=total).setup().get_scheduler(optimizer, 0.5).lr_lambdas[0]
    assert factor(0) == pytest.approx(0.01)
    assert factor(warmup) == pytest.approx(1.0)
    assert factor((warmup + total - 1) / 2) == pytest.approx(0.1**0.5)
    assert factor(total - 1) == pytest.approx(0.1)
    assert factor(total + 100) == pytest.approx(0.1)
    factors = [factor(step) for step in range(total)]
    assert np.argmax(factors) == warmup and all(isinstance(value, float) for value in factors)


# ------------------------------------------------------------------ optimiser of the tables


def table_step(optimizer: torch.optim.Optimizer, table: torch.Tensor, seed: int) -> None:
    """One step with gradients for about half of the entries."""
    draw = torch.Generator().manual_seed(seed)
    gradient = torch.randn(table.shape, generator=draw)
    table.grad = torch.where(torch.rand(table.shape, generator=draw) < 0.5, gradient, 0.0)
    optimizer.step()


def a_table() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-1, 1, 200).view(100, 2))


def test_the_tables_optimiser_continues_exactly_from_a_checkpoint(tmp_path: Path) -> None:
    table = a_table()
    optimizer = GridAdamConfig().setup([table])
    for seed in range(5):
        table_step(optimizer, table, seed)
    torch.save({"table": table.detach(), "optimizer": optimizer.state_dict()}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    again = torch.nn.Parameter(saved["table"].clone())
    restored = GridAdamConfig().setup([again])
    restored.load_state_dict(saved["optimizer"])
    for seed in range(5, 10):
        table_step(optimizer, table, seed)
        table_step(restored, again, seed)
    assert torch.equal(table, again)
    mine, other = optimizer.state_dict(), restored.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert {name: value.tolist() for name, value in mine["state"][0].items()} == {
        name: value.tolist() for name, value in other["state"][0].items()
    }


@pytest.mark.parametrize("max_norm", [None, 1e-3])
@pytest.mark.parametrize("scale", [None, 2.0**10])
def test_the_tables_optimiser_goes_through_nerfstudios(max_norm: float | None, scale: float | None) -> None:
    """Gradient scaling and clipping as nerfstudio does them: neither reaches what no gradient does."""
    table = a_table()
    config = {"grids": {"optimizer": GridAdamConfig(max_norm=max_norm), "scheduler": None}}
    optimizers = Optimizers(config, {"grids": [table]})
    scaler = torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0)
    weights = torch.zeros(100, 2)
    weights[:50] = 3.0
    before = table.detach().clone()
    scaler.scale((table * weights).sum()).backward()
    optimizers.optimizer_scaler_step_all(scaler)
    scaler.update()
    moved = table.detach() - before
    assert torch.equal(moved[50:], torch.zeros(50, 2))
    torch.testing.assert_close(moved[:50], torch.full((50, 2), -1e-2), rtol=1e-4, atol=1e-6)  # Adam's first step
    gradient = optimizers.optimizers["grids"].state[table]["exp_avg"] * 10
    expected = 3.0 if max_norm is None else max_norm / 100**0.5
    torch.testing.assert_close(gradient[:50], torch.full((50, 2), expected), rtol=1e-3, atol=0)
    if scale is not None:  # a step with gradients that overflowed is left out
        old = table.detach().clone()
        table.grad = torch.full((100, 2), float("inf"))
        scaler.scale(torch.zeros(1, requires_grad=True))
        optimizers.optimizer_scaler_step_all(scaler)
        assert torch.equal(table, old)


def test_a_schedule_without_a_total_is_refused() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="total_steps"):
        WarmupDecaySchedulerConfig().setup().get_scheduler(optimizer, 1e-3)


def test_evaluation_loads_the_newest_complete_checkpoint(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ns-eval, ns-render and ns-viewer from the saved config.yml on, with rubbish in the checkpoint folder."""
    monkeypatch.setitem(all_methods, "tiny", config)
    config.save_only_latest_checkpoint = False
    config.load_step = 3  # a leftover of resuming; must not be looked for among this run's checkpoints
    config.save_config()
    trainer = make_trainer(config, load_step=None)
    trainer.train()
    saved = read_checkpoint(checkpoint_path(trainer.checkpoint_dir, 19))
    checkpoint_path(trainer.checkpoint_dir, 900).write_bytes(b"truncated")
    (trainer.checkpoint_dir / "notes.txt").write_text("stray")
    loaded_config, pipeline, path, step = eval_utils.eval_setup(trainer.base_dir / "config.yml")
    assert (path.name, step) == ("step-000000019.ckpt", 19)
    assert loaded_config.pipeline.model.total_steps == TOTAL
    assert pipeline.model.loaded_step == 19
    for name, value in pipeline.state_dict().items():
        assert torch.equal(value, saved["pipeline"][name]), name


def test_the_saved_config_names_the_total_and_leaves_the_device_open(config: SurfaceSOSTrainerConfig) -> None:
    config.machine = SurfaceSOSMachineConfig()
    config.max_num_iterations = 123
    config.save_config()
    saved = yaml.load((config.get_base_dir() / "config.yml").read_text(), Loader=yaml.Loader)
    assert saved.pipeline.model.total_steps == 123
    assert saved.optimizers["nets"]["scheduler"].total_steps == 123
    assert saved.machine.device_type == "auto"
    assert config.machine.device_type in ("cpu", "cuda")


def test_the_resume_line_repeats_the_command(config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(config)
    command = ["ns-train", "tiny", "--data", "my photos", "--load-dir", "old", "--load_step=3", "--vis", "viewer"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/ns-train", *command[1:]])
    expected = f"ns-train tiny --load-dir {trainer.checkpoint_dir} --data 'my photos' --vis viewer"
    assert trainer._resume_command() == expected
    monkeypatch.setattr(sys, "argv", ["script.py"])
    config.data = Path("photos")
    assert make_trainer(config)._resume_command().startswith("ns-train tiny --data photos --load-dir ")


def test_the_start_line_says_device_backend_and_sampler(config: SurfaceSOSTrainerConfig) -> None:
    with CONSOLE.capture() as said:
        make_trainer(config)
    assert "cpu | tiny grid | tiny sampler" in said.get()


def test_the_tables_optimiser_computes_with_the_models_operations(config: SurfaceSOSTrainerConfig) -> None:
    tables = {"optimizer": GridAdamConfig(), "scheduler": None}
    trainer = make_trainer(dataclasses.replace(config, optimizers={**config.optimizers, "grids": tables}))
    sparse, other = (trainer.optimizers.optimizers[name] for name in ("grids", "nets"))
    assert sparse.ops is trainer.pipeline.model.scene.ops and not hasattr(other, "ops")


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_the_start_line_counts_the_threads_that_run(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where kernels are compiled, torch keeps off their cores."""
    small = GridLayout(levels=2, log2_entries=4, base_resolution=2, max_resolution=4)
    scene = SceneConfig(small, small, small, backend, cache_resolution=4, probability_resolution=4)  # type: ignore[arg-type]
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model: Any = SurfaceSOSModelConfig(scene=scene).setup(scene_box=box, num_train_data=1)
    monkeypatch.setattr(threads, "_threads", 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model.claim_cores()
        assert torch.get_num_threads() == (1 if backend == "numba" else 2)
        line = model.describe()
    finally:
        torch.set_num_threads(before)
    assert backend in line and line.endswith(" | 3 threads" if backend == "numba" else " | 2 threads")


@pytest.mark.seconds(2)
def test_training_ends_with_the_viewer(config: SurfaceSOSTrainerConfig) -> None:
    config.viewer.quit_on_train_completion = True
    config.viewer.websocket_host = "127.0.0.1"
    config.vis = "viewer"
    config.save_config()  # as ns-train does; the viewer counts on its folder
    trainer = make_trainer(config)
    trainer.train()
    trainer.shutdown()
    assert trainer.steps_done == TOTAL and os.listdir(trainer.checkpoint_dir) == ["step-000000019.ckpt"]


# ------------------------------------------------------------------ failures of the machine and of the user


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk_full_at(steps: range, trainer: SurfaceSOSTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While these steps are trained, and until the next one is, nothing can be written."""
    fsync, now = os.fsync, [-1]
    trainer.pipeline.datamanager.on_step = lambda step: now.__setitem__(0, step)
    monkeypatch.setattr(os, "fsync", lambda descriptor: no_space() if now[0] in steps else fsync(descriptor))


def test_training_goes_on_when_the_disk_is_full_and_saves_when_it_is_not(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make_trainer(config, timestamp="undisturbed")
    undisturbed.train()
    trainer = make_trainer(config)
    disk_full_at(range(10, 15), trainer, monkeypatch)
    with CONSOLE.capture() as said:
        trainer.train()
    warnings = [line for line in said.get().splitlines() if line.startswith("Warning")]
    assert len(warnings) == 1 and "step-000000012.ckpt could not be written: No space left" in warnings[0]
    assert "the next save tries again" in warnings[0]
    assert os.listdir(trainer.checkpoint_dir) == ["step-000000019.ckpt"]
    assert_same(undisturbed, trainer)


@pytest.mark.parametrize("full_from, words", [(0, "No step of this run is saved"), (10, "saved up to step 6")])
def test_a_run_whose_last_save_fails_says_how_to_go_on(
    full_from: int, words: str, config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(config)
    disk_full_at(range(full_from, TOTAL), trainer, monkeypatch)
    with pytest.raises(WriteError, match=f"step-000000019.ckpt could not be written: No space.*{words}") as caught:
        trainer.train()
    assert full_from == 0 or f"--load-dir {trainer.checkpoint_dir}" in str(caught.value)


def test_records_of_losses_that_cannot_be_written_are_left_out(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.logging.steps_per_log = 2
    trainer = make_trainer(config)
    path = trainer.base_dir / LOSS_FILE
    folder = path.parent

    def fill_up(step: int) -> None:
        if step == 5:
            os.rename(folder, folder.with_name("away"))
            folder.write_text("a file where the folder should be")
        if step == 9:
            folder.unlink()
            os.rename(folder.with_name("away"), folder)

    config.steps_per_save = 100
    trainer.config.steps_per_save = 100
    trainer.pipeline.datamanager.on_step = fill_up
    with CONSOLE.capture() as said:
        trainer.train()
    assert said.get().count("Training goes on without this record") == 1
    assert [record.step for record in read_losses(path)] == [0, 2, 4, 10, 12, 14, 16, 18, 19]


def test_half_a_record_does_not_spoil_the_next(tmp_path: Path) -> None:
    log = LossLog(tmp_path / LOSS_FILE, 1)
    log.add(0, {"colour": torch.tensor(1.0)}, {})
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(WriteError, match=LOSS_FILE):
            log.add(1, {"colour": torch.tensor(2.0)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.add(2, {"colour": torch.tensor(3.0)}, {})
    assert [(record.step, record.losses) for record in read_losses(log.path)] == [
        (0, {"colour": 1.0}),
        (2, {"colour": 3.0}),
    ]


RECORD = '{"step": 4, "seconds": 2, "memory_gb": null, "losses": {"colour": 0.5}, "metrics": {"psnr": NaN}}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (RECORD.replace("0.5", '"0.5"'), "losses.colour: Input should be a valid number"),
        (RECORD.replace("0.5", "null"), "losses.colour: Input should be a valid number"),
        (RECORD.replace("0.5", "[1]"), "losses.colour: Input should be a valid number"),
        (RECORD.replace("4", "NaN"), "step: Input should be a valid integer"),
        (RECORD.replace("4", "1" + 400 * "0"), "step: Input should be less than"),
        (RECORD.replace("2", "NaN"), "seconds: Input should be"),
        (RECORD.replace("null", "1e999"), "memory_gb: Input should be"),
        (RECORD.replace('"seconds": 2, ', ""), "seconds: Field required"),
        ("[1, 2]", "Input should be an object"),
        ("null", "Input should be an object"),
        (RECORD[:40], "Invalid JSON"),
        ("\x00" * 20, "Invalid JSON"),
    ],
)
def test_a_damaged_record_of_losses_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / LOSS_FILE
    file.write_text("\n".join([RECORD, line, RECORD, ""]))
    with pytest.raises(UserError, match=rf"losses\.jsonl, line 2 is no record of losses: {problem}"):
        read_losses(file)
    with pytest.raises(UserError, match="line 2"):
        LossLog(tmp_path / "new.jsonl", 1).resume(file, 5)


def test_a_record_of_losses_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / LOSS_FILE
    for end in range(1, len(RECORD)):
        file.write_text(f"{RECORD}\n{RECORD[:end]}")
        (record,) = read_losses(file)
    assert (record.step, record.seconds, record.memory_gb, record.losses) == (4, 2.0, None, {"colour": 0.5})
    assert math.isnan(record.metrics["psnr"])  # as a run that goes astray writes it
    file.write_text(f"{RECORD}\n[1]")  # that is no beginning of a record
    with pytest.raises(UserError, match="line 2"):
        read_losses(file)


def test_a_run_is_not_trained_over_another_one(config: SurfaceSOSTrainerConfig) -> None:
    config.save_config()
    config.save_config()  # nothing was saved yet: the same command may be given again
    make_trainer(config).train()
    with pytest.raises(UserError, match="step-000000019.ckpt is of a run.*--load-dir .*--timestamp"):
        config.save_config()
    dataclasses.replace(config, load_dir=config.get_checkpoint_dir()).save_config()
    dataclasses.replace(config, load_checkpoint=checkpoint_path(config.get_checkpoint_dir(), 19)).save_config()
    with pytest.raises(UserError, match="is of a run"):
        dataclasses.replace(config, load_dir=config.output_dir / "other").save_config()


@pytest.mark.skipif(fcntl is None, reason="this system has no locks that end with their process")
def test_two_processes_do_not_train_in_one_folder(config: SurfaceSOSTrainerConfig) -> None:
    folder = config.get_base_dir()
    folder.mkdir(parents=True)
    script = (
        "import sys, time; from pathlib import Path; from surface_sos_ns.utils.locks import lock_folder\n"
        "lock_folder(Path(sys.argv[1]), ''); print('ready', flush=True); time.sleep(100)"
    )
    with another_process(script, folder):
        with pytest.raises(InUseError, match=f"writing to {folder}.*--timestamp"):
            config.save_config()
        assert os.listdir(folder) == [], "the other one's config.yml is not replaced"
        with pytest.raises(InUseError):
            make_trainer(config)
    make_trainer(config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_setting_up_is_said_and_has_the_status_of_its_signal(
    number: signal.Signals, config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyModel, "get_param_groups", lambda self: signal.raise_signal(number))
    before = signal.getsignal(number)
    with CONSOLE.capture() as said, pytest.raises(SystemExit) as caught:
        make_trainer(config)
    assert caught.value.code == 128 + number and signal.getsignal(number) is before
    assert f"Stopped by {number.name} before the first step: nothing to save." in said.get()


def test_a_finished_run_ends_well_with_nerfstudios_log(config: SurfaceSOSTrainerConfig) -> None:
    make_trainer(config).train()
    config.logging.local_writer.enable = True
    writers, buffer = list(writer.EVENT_WRITERS), dict(writer.GLOBAL_BUFFER)
    try:
        writer.GLOBAL_BUFFER.pop("step", None)
        make_trainer(config, load_dir=config.get_checkpoint_dir()).train()
    finally:
        writer.EVENT_WRITERS[:] = writers
        writer.GLOBAL_BUFFER.clear()
        writer.GLOBAL_BUFFER.update(buffer)


def test_the_saved_config_can_be_read_from_any_folder(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config.output_dir, config.data, config.load_dir = Path("outputs"), Path("photos/a"), Path("old")
    config.pipeline.datamanager = SurfaceSOSDataManagerConfig(data=Path("photos/a"))
    config.save_config()
    saved = yaml.load((config.get_base_dir() / "config.yml").read_text(), Loader=yaml.Loader)
    assert saved.output_dir == tmp_path / "outputs" and saved.load_dir == tmp_path / "old"
    assert saved.data == saved.pipeline.datamanager.data == tmp_path / "photos" / "a"
    assert saved.pipeline.datamanager.dataparser.data == Path(), "what was not given stays so"
    assert config.output_dir == Path("outputs"), "what is trained with stays as it was given"


def test_a_capture_that_was_moved_together_with_its_run_is_found(
    config: SurfaceSOSTrainerConfig, tmp_path: Path
) -> None:
    config.output_dir = tmp_path / "project" / "outputs"
    config.pipeline.datamanager = SurfaceSOSDataManagerConfig(data=tmp_path / "project" / "captures" / "cat")
    file = config.get_base_dir() / "config.yml"
    assert find_capture(file, config) == tmp_path / "project" / "captures" / "cat", "as config.yml has it"
    there = tmp_path / "elsewhere" / "captures" / "cat"
    there.mkdir(parents=True)
    moved = tmp_path / "elsewhere" / file.relative_to(tmp_path / "project")
    assert find_capture(moved, config) == there
    (tmp_path / "project" / "captures" / "cat").mkdir(parents=True)
    assert find_capture(moved, config) == tmp_path / "project" / "captures" / "cat"


def test_nerfstudios_commands_read_the_checkpoints_beside_the_config_that_they_are_given(
    config: SurfaceSOSTrainerConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(all_methods, "tiny", config)
    config.save_config()
    trainer = make_trainer(config)
    trainer.train()
    copy_of_run = tmp_path / "copy"
    shutil.copytree(trainer.base_dir, copy_of_run)
    for path in (trainer.base_dir, copy_of_run):
        with CONSOLE.capture() as said:
            loaded, _, checkpoint, _ = eval_utils.eval_setup(path / "config.yml")
        assert checkpoint == path / "nerfstudio_models" / "step-000000019.ckpt"
        assert f"Loaded {checkpoint}" in said.get().replace("\n", "")
        assert loaded.load_dir == trainer.checkpoint_dir, "nerfstudio's own choice"


def test_several_devices_are_refused_before_anything_is_written(config: SurfaceSOSTrainerConfig) -> None:
    for machine in ({"num_devices": 2}, {"num_machines": 2}):
        several = dataclasses.replace(config, machine=dataclasses.replace(config.machine, **machine))
        with pytest.raises(UserError, match="surface-sos batch"):
            several.save_config()
        assert not several.get_base_dir().exists()
