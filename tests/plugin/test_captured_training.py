"""A whole run whose step is captured: the trainer around it, its checkpoints and how it is gone on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.configs.base_config import LoggingConfig
from nerfstudio.configs.method_configs import all_methods

from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.plugin import trainer as trainer_module
from surface_sos_ns.plugin.loss_log import LOSS_FILE, read_losses
from surface_sos_ns.plugin.trainer import SurfaceSOSTrainer, SurfaceSOSTrainerConfig
from tests.helpers.capture_files import ball_capture
from tests.helpers.recorded_graph import RecordedGraphs
from tests.helpers.static_run import small

TOTAL = 16


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Operations of fixed shapes, and a recorder for the CUDA graph."""
    static = TorchOps(static=True)
    monkeypatch.setattr("surface_sos_ns.models.surface_sos.scene.choose_ops", lambda backend, device: static)
    monkeypatch.setattr(trainer_module, "graphs_on", lambda device: RecordedGraphs())
    return monkeypatch


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ball_capture(tmp_path_factory.mktemp("ball")).save()


def config_of(capture: Path, folder: Path, **options: Any) -> SurfaceSOSTrainerConfig:
    preset = all_methods["surface-sos-lite"]
    assert isinstance(preset, SurfaceSOSTrainerConfig)
    model = dataclasses.replace(
        small(preset.pipeline.model), cache_interval=4, initial_fit_steps=20, mask_refresh=(0.5,), support_map=False
    )
    data = dataclasses.replace(preset.pipeline.datamanager, data=capture, train_num_rays_per_batch=96)
    return dataclasses.replace(
        preset,
        pipeline=dataclasses.replace(
            preset.pipeline,
            datamanager=data,
            model=dataclasses.replace(
                model, cache_interval=4, initial_fit_steps=20, mask_refresh=(0.5,), support_map=False
            ),
        ),
        data=capture,
        output_dir=folder,
        timestamp="run",
        vis="tensorboard",
        max_num_iterations=TOTAL,
        steps_per_save=5,
        save_only_latest_checkpoint=False,
        steps_per_eval_batch=0,
        steps_per_eval_image=0,
        average_from=0.7,
        machine=dataclasses.replace(preset.machine, device_type="cpu"),
        logging=LoggingConfig(steps_per_log=1, profiler="none"),
        **options,
    )


def trained(config: SurfaceSOSTrainerConfig) -> SurfaceSOSTrainer:
    torch.manual_seed(5)
    config.set_total_steps()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def losses(trainer: SurfaceSOSTrainer) -> list[dict[str, float]]:
    return [{**record.losses, **record.metrics} for record in read_losses(trainer.base_dir / LOSS_FILE)]


def weights(trainer: SurfaceSOSTrainer) -> list[torch.Tensor]:
    return list(trainer.pipeline.state_dict().values())


class Launched(RecordedGraphs):
    """Runs each step anew in place of a replay."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


class Failing(RecordedGraphs):
    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        super().capture(step)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.seconds(8)
def test_a_captured_run_equals_an_eager_one_and_resumes_to_the_same_end(
    capture: Path, tmp_path: Path, as_on_a_gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captured = trained(config_of(capture, tmp_path / "captured"))
    assert "the step is captured as a CUDA graph" in words(capsys)
    assert captured._captured_step is not None and captured._captured_step.captures == 1
    resumed = trained(config_of(capture, tmp_path / "resumed", load_dir=captured.checkpoint_dir, load_step=10))
    assert losses(resumed) == losses(captured)
    for one, two in zip(weights(captured), weights(resumed), strict=True):
        assert torch.equal(one, two)
    as_on_a_gpu.setattr(trainer_module, "graphs_on", lambda device: Launched())
    eager = trained(config_of(capture, tmp_path / "eager"))
    assert len(losses(captured)) == TOTAL and losses(captured) == losses(eager)


@pytest.mark.seconds(6)
def test_a_capture_that_fails_is_said_and_training_goes_on(
    capture: Path, tmp_path: Path, as_on_a_gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_on_a_gpu.setattr(trainer_module, "graphs_on", lambda device: Failing())
    failed = trained(config_of(capture, tmp_path / "failed"))
    message = "could not be captured as a CUDA graph (operation not permitted when stream is capturing)"
    assert message in words(capsys)
    as_on_a_gpu.setattr(trainer_module, "graphs_on", lambda device: Launched())
    eager = trained(config_of(capture, tmp_path / "eager"))
    assert losses(failed) == losses(eager)


@pytest.mark.seconds(3)
def test_without_a_graph_kernels_are_launched_one_by_one(
    capture: Path, tmp_path: Path, as_on_a_gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trained(config_of(capture, tmp_path / "eager", cuda_graph=False))
    assert "each step is launched kernel by kernel (--cuda-graph False)" in words(capsys)
    assert trainer._captured_step is None and len(losses(trainer)) == TOTAL
