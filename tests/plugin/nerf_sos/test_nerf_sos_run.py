"""A run of nerf-sos through nerfstudio's trainer: both stages, resume, what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from surface_sos_ns.api import load_run
from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.plugin import methods
from surface_sos_ns.plugin.config_file import read_config_file
from surface_sos_ns.plugin.loss_log import LOSS_FILE, read_losses
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModelConfig
from surface_sos_ns.plugin.trainer import SurfaceSOSTrainer, SurfaceSOSTrainerConfig
from surface_sos_ns.utils.errors import UserError
from tests.helpers.capture_files import ball_capture
from tests.helpers.small_scene import TINY

GRID = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=8, max_resolution=48)
SCENE = NerfSOSConfig(grid=GRID, hidden=16, samples=12, render_samples=16, candidates=(6, 24, 8), cache_resolution=24)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ball_capture(tmp_path_factory.mktemp("ball"), size=(96, 72), masks=False).save()


def surfaces_config(capture: Path, folder: Path) -> SurfaceSOSTrainerConfig:
    """A surface-sos run of a few steps."""
    preset = methods.surface_sos_lite.config
    assert isinstance(preset, SurfaceSOSTrainerConfig)
    model = dataclasses.replace(preset.pipeline.model, scene=TINY, initial_fit_steps=10)
    manager = dataclasses.replace(preset.pipeline.datamanager, data=capture, train_num_rays_per_batch=64)
    return dataclasses.replace(
        preset,
        pipeline=dataclasses.replace(preset.pipeline, datamanager=manager, model=model),
        data=capture,
        output_dir=folder,
        timestamp="run",
        vis="none",
        max_num_iterations=6,
        machine=dataclasses.replace(preset.machine, device_type="cpu"),
        logging=dataclasses.replace(preset.logging, profiler="none"),
    )


def config_of(
    capture: Path, folder: Path, data: dict[str, Any] | None = None, **options: Any
) -> SurfaceSOSTrainerConfig:
    preset = methods.nerf_sos_lite.config
    assert isinstance(preset, SurfaceSOSTrainerConfig)
    model = preset.pipeline.model
    assert isinstance(model, NerfSOSModelConfig)
    model = dataclasses.replace(model, scene=SCENE, cache_interval=4, initial_fit_steps=10, **options.pop("model", {}))
    manager = dataclasses.replace(
        preset.pipeline.datamanager,
        data=capture,
        train_num_rays_per_batch=64,
        features="descriptor",
        grid_side=48,
    )
    config = dataclasses.replace(
        preset,
        pipeline=dataclasses.replace(preset.pipeline, datamanager=manager, model=model),
        data=capture,
        output_dir=folder,
        timestamp="run",
        vis="none",
        max_num_iterations=16,
        steps_per_save=7,
        save_only_latest_checkpoint=False,
        machine=dataclasses.replace(preset.machine, device_type="cpu"),
        logging=dataclasses.replace(preset.logging, steps_per_log=1, profiler="none"),
        **options,
    )
    config.set_total_steps()
    return config


def trained(config: SurfaceSOSTrainerConfig) -> SurfaceSOSTrainer:
    torch.manual_seed(5)
    config.save_config()
    config = dataclasses.replace(config)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def losses(trainer: SurfaceSOSTrainer) -> list[dict[str, float]]:
    return [record.losses for record in read_losses(trainer.base_dir / LOSS_FILE)]


@pytest.mark.seconds(8)
def test_two_stages_and_a_resume_in_each(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(config_of(capture, tmp_path / "whole"))
    said = " ".join(capsys.readouterr().out.split())
    assert "the radiance field is frozen; the segmentation learns from" in said and "clusters: " in said
    names = [set(record) for record in losses(whole)]
    assert names == [{"colour", "distortion", "exposure"}] * 12 + [{"appearance", "geometry"}] * 4
    assert whole.pipeline.model.scene.clusters.fitted
    for step in (7, 14):
        again = trained(config_of(capture, tmp_path / f"from_{step}", load_dir=whole.checkpoint_dir, load_step=step))
        assert losses(again) == losses(whole)
        for name, value in whole.pipeline.state_dict().items():
            assert torch.equal(value, again.pipeline.state_dict()[name]), name


def test_its_config_file_is_read(capture: Path, tmp_path: Path) -> None:
    config = config_of(capture, tmp_path / "out")
    config.save_config()
    found = read_config_file(config.get_base_dir() / "config.yml")
    assert found.pipeline.model.scene == SCENE and found.pipeline.datamanager.features == "descriptor"
    assert found.pipeline.model.objective == config.pipeline.model.objective


def test_one_cluster_is_none(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clusters is 1; expected at least 2"):
        trained(config_of(capture, tmp_path / "out", model={"clusters": 1}))


def test_small_photos_are_refused_before_training(tmp_path: Path) -> None:
    small = ball_capture(tmp_path / "ball", size=(96, 60), masks=False).save()
    with pytest.raises(UserError, match=r"frame_\d+.png is trained on with 96 x 60 pixels; nerf-sos needs at least 64"):
        trained(config_of(small, tmp_path / "out"))


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SurfaceSOSTrainer]:
    """A capture with masks, and a surface-sos run of it."""
    folder = tmp_path_factory.mktemp("surfaces")
    capture = ball_capture(folder / "ball", size=(96, 72)).save()
    return capture, trained(surfaces_config(capture, folder / "out"))


@pytest.mark.seconds(15)
def test_surfaces_of_a_run_take_the_place_of_the_first_stage(
    surfaces: tuple[Path, SurfaceSOSTrainer], tmp_path: Path
) -> None:
    capture, run = surfaces
    load = {"load_run": run.base_dir / "config.yml"}
    whole = trained(config_of(capture, tmp_path / "whole", model=load))
    assert [set(record) for record in losses(whole)] == [{"appearance", "geometry"}] * 16
    scene = whole.pipeline.model.scene
    assert scene.clusters.fitted
    for name, value in run.pipeline.model.scene.state_dict().items():  # frozen bit by bit
        assert torch.equal(value, scene.field.scene.state_dict()[name]), name
    again = trained(config_of(capture, tmp_path / "again", load_dir=whole.checkpoint_dir, load_step=7, model=load))
    assert losses(again) == losses(whole)
    for name, value in whole.pipeline.state_dict().items():
        assert torch.equal(value, again.pipeline.state_dict()[name]), name


@pytest.mark.seconds(5)
def test_a_run_opens_without_the_one_that_it_loaded(surfaces: tuple[Path, SurfaceSOSTrainer], tmp_path: Path) -> None:
    capture, run = surfaces
    copied = tmp_path / "loaded" / "run"
    shutil.copytree(run.base_dir, copied)
    trainer = trained(config_of(capture, tmp_path / "out", model={"load_run": copied / "config.yml"}))
    shutil.rmtree(copied)
    opened = load_run(trainer.base_dir / "config.yml")
    for name, value in trainer.pipeline.model.scene.state_dict().items():
        assert torch.equal(value, opened.model.scene.state_dict()[name]), name


def test_runs_that_cannot_be_loaded(surfaces: tuple[Path, SurfaceSOSTrainer], tmp_path: Path) -> None:
    capture, run = surfaces
    config_file = run.base_dir / "config.yml"

    def refused(match: str, capture: Path = capture, file: Path = config_file) -> None:
        with pytest.raises(UserError, match=match):
            trained(config_of(capture, tmp_path / str(len(list(tmp_path.iterdir()))), model={"load_run": file}))

    refused("is no file; expected the config.yml of a finished surface-sos run", file=tmp_path / "no.yml")
    of_nerf = config_of(capture, tmp_path / "nerf")
    of_nerf.save_config()
    refused("is of a nerf-sos-lite run", file=of_nerf.get_base_dir() / "config.yml")
    fewer = ball_capture(tmp_path / "fewer", size=(96, 72), count=10).save()
    refused("lies in another world frame|was trained on", capture=fewer)
    unsaved = tmp_path / "unsaved"
    shutil.copytree(run.base_dir, unsaved, ignore=shutil.ignore_patterns("nerfstudio_models"))
    refused("No complete checkpoint", file=unsaved / "config.yml")
    moved = tmp_path / "moved"
    shutil.copytree(run.base_dir, moved)
    frame = moved / "dataparser_transforms.json"
    frame.write_text(frame.read_text().replace('"scale": ', '"scale": 1'))
    refused("lies in another world frame", file=moved / "config.yml")
    frame.unlink()
    refused("cannot be read", file=moved / "config.yml")
