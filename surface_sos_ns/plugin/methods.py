"""The methods that the entry point group ``nerfstudio.method_configs`` finds: one base, varied by replacement.

nerfstudio imports this module whenever any of its commands starts, for whatever method. So it must import nothing heavy
or optional (CUDA, tiny-cuda-nn, numba, pycolmap), and must not fail.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nerfstudio.configs.base_config import LoggingConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from surface_sos_ns.plugin.compat.known_warnings import silence_known_warnings
from surface_sos_ns.plugin.compat.markup import print_broken_markup_as_it_is
from surface_sos_ns.plugin.compat.torch_loading import allow_numpy_scalars
from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManagerConfig
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig, lite_model, paper_model
from surface_sos_ns.plugin.nerf_sos.datamanager import NerfSOSDataManagerConfig
from surface_sos_ns.plugin.nerf_sos.model import NerfSOSModelConfig, lite_nerf_sos
from surface_sos_ns.plugin.nerf_sos.pipeline import NerfSOSPipelineConfig
from surface_sos_ns.plugin.optimizers import GridAdamConfig, WarmupDecaySchedulerConfig
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.trainer import SurfaceSOSTrainerConfig
from surface_sos_ns.training.presets import FULL, LITE, PAPER, RATES, TABLE_BETAS
from surface_sos_ns.utils.text import escape_in_output
from surface_sos_ns.web.listening import LOOPBACK

allow_numpy_scalars()
silence_known_warnings()
escape_in_output()
print_broken_markup_as_it_is()


def _optimiser(group: str) -> OptimizerConfig:
    """Adam for a group of parameters, with that group's learning rate."""
    rate = RATES[group]
    if rate.betas == TABLE_BETAS:
        return GridAdamConfig(lr=rate.lr, eps=rate.eps, betas=rate.betas)
    return AdamOptimizerConfig(lr=rate.lr, eps=rate.eps)


def _schedule(group: str) -> WarmupDecaySchedulerConfig:
    """A group's schedule. Poses start late: before the fields show the scene, colours would move them wrongly."""
    schedule = WarmupDecaySchedulerConfig()
    if group != "camera_opt":
        return schedule
    return replace(schedule, warmup_fraction=0.4, max_warmup_steps=FULL.steps, start_factor=0.0)


def _optimisers() -> dict[str, dict[str, Any]]:
    """Optimiser and schedule of every group."""
    return {group: {"optimizer": _optimiser(group), "scheduler": _schedule(group)} for group in RATES}


_data = SurfaceSOSDataManagerConfig(train_num_rays_per_batch=FULL.rays, eval_num_rays_per_batch=1024)
_model = SurfaceSOSModelConfig(eval_num_rays_per_chunk=FULL.rays_per_chunk)

_full = SurfaceSOSTrainerConfig(
    method_name="surface-sos",
    max_num_iterations=FULL.steps,
    steps_per_save=1_000,
    # Evaluation while training runs with --vis viewer+tensorboard only. A whole image takes seconds to minutes: all of
    # them are left to ns-eval (0 is never).
    steps_per_eval_batch=500,
    steps_per_eval_image=5_000,
    steps_per_eval_all_images=0,
    mixed_precision=False,  # SDF gradients of fine hash levels do not survive half precision
    pipeline=SurfaceSOSPipelineConfig(datamanager=_data, model=_model),
    optimizers=_optimisers(),
    logging=LoggingConfig(steps_per_log=50),
    # The viewer listens at the loopback address; nerfstudio's default is all addresses of the machine.
    viewer=ViewerConfig(num_rays_per_chunk=FULL.rays_per_chunk, websocket_host=LOOPBACK),
    vis="viewer",
)

_lite = replace(
    _full,
    method_name="surface-sos-lite",
    max_num_iterations=LITE.steps,
    steps_per_save=250,
    steps_per_eval_image=1_000,
    logging=LoggingConfig(steps_per_log=20),
    pipeline=replace(
        _full.pipeline, datamanager=replace(_data, train_num_rays_per_batch=LITE.rays), model=lite_model(_model)
    ),
)

_paper = replace(
    _full,
    method_name="surface-sos-paper",
    max_num_iterations=PAPER.steps,
    steps_per_save=2_000,
    average_from=1.0,
    pipeline=replace(_full.pipeline, model=paper_model(_model)),
)

_nerf_data = NerfSOSDataManagerConfig(train_num_rays_per_batch=FULL.rays, eval_num_rays_per_batch=1024)
_nerf_model = NerfSOSModelConfig(eval_num_rays_per_chunk=FULL.rays_per_chunk)

_nerf_sos = replace(
    _full,
    method_name="nerf-sos",
    max_num_iterations=20_000,
    steps_per_save=2_000,
    average_from=1.0,
    pipeline=NerfSOSPipelineConfig(datamanager=_nerf_data, model=_nerf_model),
    optimizers={
        **{group: _full.optimizers[group] for group in ("grids", "nets", "appearance")},
        "segmentation": {"optimizer": AdamOptimizerConfig(lr=2e-3, eps=1e-8), "scheduler": None},
    },
)

_nerf_sos_lite = replace(
    _nerf_sos,
    method_name="nerf-sos-lite",
    max_num_iterations=6_000,
    steps_per_save=500,
    steps_per_eval_image=1_000,
    logging=LoggingConfig(steps_per_log=20),
    pipeline=NerfSOSPipelineConfig(
        datamanager=replace(_nerf_data, train_num_rays_per_batch=LITE.rays), model=lite_nerf_sos(_nerf_model)
    ),
)

surface_sos = MethodSpecification(
    config=_full,
    description="Surface-SOS, full: masks, clean plate and surface of an object from a capture. For a GPU.",
)
surface_sos_lite = MethodSpecification(
    config=_lite,
    description="Surface-SOS, lite: small tables and few steps; minutes on a laptop or a CPU.",
)
surface_sos_paper = MethodSpecification(
    config=_paper,
    description="Surface-SOS, paper: the equations as they are printed. For comparison; slower.",
)
nerf_sos = MethodSpecification(
    config=_nerf_sos,
    description="NeRF-SOS: a radiance field, segmented by contrasting features of the photos. A baseline. For a GPU.",
)
nerf_sos_lite = MethodSpecification(
    config=_nerf_sos_lite,
    description="NeRF-SOS, lite: small tables and few steps; minutes on a laptop or a CPU.",
)

SPECIFICATIONS = (surface_sos, surface_sos_lite, surface_sos_paper, nerf_sos, nerf_sos_lite)
"""All methods."""
