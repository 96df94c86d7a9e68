"""A model and its data, ready to take training steps with fixed shapes, on whatever device."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor
from torch.optim import Adam, Optimizer

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig
from surface_sos_ns.sampling.field_cache import grid_centres
from surface_sos_ns.training.optimizer import SparseAdam, make_capturable
from surface_sos_ns.training.presets import RATES, TABLE_BETAS, parameter_groups

GRID = GridLayout(levels=4, features=2, log2_entries=10, base_resolution=8, max_resolution=48)


def small(config: SurfaceSOSModelConfig) -> SurfaceSOSModelConfig:
    """The same method, small enough for tests."""
    scene = replace(
        config.scene,
        foreground_grid=GRID,
        background_grid=GRID,
        label_grid=GRID,
        hidden=16,
        samples=12,
        candidates=(6, 24, 8),
        cache_resolution=24,
        background_cache_resolution=24,
        probability_resolution=24,
        observation_resolution=24,
    )
    objective = replace(config.objective, uniform_points=128, sparse_points=64)
    return replace(config, scene=scene, objective=objective)


@dataclass
class StaticRun:
    """What a training step needs."""

    model: SurfaceSOSModel
    draw: Callable[[], tuple[Any, dict[str, Tensor]]]
    optimizers: list[Optimizer]

    def losses(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As nerfstudio's pipeline: a batch, its losses and its metrics."""
        rays, batch = self.draw()
        outputs = self.model(rays)
        metrics = self.model.get_metrics_dict(outputs, batch)
        return self.model.get_loss_dict(outputs, batch, metrics), metrics


def build(config: SurfaceSOSModelConfig, views: int, ops: TorchOps) -> SurfaceSOSModel:
    """A model in training, on the default device."""
    model: SurfaceSOSModel = config.setup(
        scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=views
    )
    take_ops(model, ops)
    return model.train()


def take_ops(model: SurfaceSOSModel, ops: TorchOps) -> None:
    """Have all parts of a model use these operations; a move to another device chooses anew."""
    use_ops(model.scene, ops)


def optimizers_of(model: SurfaceSOSModel, ops: TorchOps) -> list[Optimizer]:
    """Those of the methods, as a CUDA graph can hold them."""
    found: list[Optimizer] = []
    for name, parameters in parameter_groups(model.scene).items():
        rate = RATES[name]
        if rate.betas == TABLE_BETAS:
            found.append(SparseAdam(parameters, rate.lr, rate.betas, rate.eps, ops=ops))
        else:
            found.append(Adam(parameters, rate.lr, rate.betas, rate.eps))
    make_capturable(found)
    return found


def real_run(
    data: SurfaceSOSDataManager, config: SurfaceSOSModelConfig, ops: TorchOps, device: str = "cpu"
) -> StaticRun:
    """With a model that is started from a ball where the object is. The data is prepared and on the same device."""
    torch.manual_seed(0)
    model = build(config, len(data.train_dataset), ops).to(device)
    take_ops(model, ops)
    n = 24
    distance = (grid_centres(n, 1.0).norm(dim=-1) - 0.5).reshape(n, n, n)
    prior = data.object_prior
    assert prior is not None
    frame = ObjectFrame(prior.sphere.centre, prior.sphere.radius)
    model.scene.initialise(frame, 4.0, (distance < 0).float(), distance, steps=30)
    model.scene.zero_grad()
    model.set_sparse_points((torch.randn(700, 3) * 0.6).to(device))
    return StaticRun(model, lambda: data.next_train(0), optimizers_of(model, ops))


def fake_run(
    data: SurfaceSOSDataManager, config: SurfaceSOSModelConfig, ops: TorchOps, device: str, batch: int = 2048
) -> StaticRun:
    """As `real_run`, with tensors that have a shape and a device but no numbers; within a `FakeTensorMode`."""

    def fake(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    sampler, rays = copy.copy(data.train_pixel_sampler), copy.copy(data.train_ray_generator)
    assert sampler is not None
    photos = data.train_cache
    cache = replace(photos, **{name: fake(value) for name, value in vars(photos).items()})
    sampler.band, sampler.num_rays_per_batch = fake(sampler.band), batch
    tables = SimpleNamespace(
        table=fake(rays.table),
        table_start=fake(rays.table_start),
        table_width=fake(rays.table_width),
        cameras=SimpleNamespace(camera_to_worlds=fake(rays.cameras.camera_to_worlds), times=None),
    )

    def draw() -> tuple[Any, dict[str, Tensor]]:
        drawn = sampler.sample(cache)
        return type(rays).forward(tables, drawn["indices"]), drawn  # type: ignore[arg-type]

    with torch.device(device):
        model = build(config, len(data.train_dataset), ops)
        model._sparse_points, model._sparse_points_inside = torch.empty(3000, 3), torch.empty(2000, 3)
        optimizers = optimizers_of(model, ops)
    return StaticRun(model, draw, optimizers)


def addresses(run: StaticRun) -> list[int]:
    """Of all that a step reads of the model."""
    return [tensor.data_ptr() for tensor in itertools.chain(run.model.parameters(), run.model.buffers())]
