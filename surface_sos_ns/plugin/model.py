"""nerfstudio's view of the model: rays in, images and losses out. All maths is in the numeric core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn import Parameter

from surface_sos_ns.models.surface_sos.adaptation import NO_ADAPTATION, Adaptation
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.plugin.part_results import heads_of, usable_parts
from surface_sos_ns.plugin.scene_model import SceneModel, SceneModelConfig
from surface_sos_ns.plugin.training_views import TrainingViews
from surface_sos_ns.plugin.view_rendering import ray_times
from surface_sos_ns.training.objective import ObjectiveConfig, draw_regulariser_points, training_losses
from surface_sos_ns.training.presets import FULL, LITE, lite_scene, paper_objective, paper_scene, parameter_groups


@dataclass
class SurfaceSOSModelConfig(SceneModelConfig):
    """Surface-SOS: foreground and background surfaces, split by masks that may be coarse."""

    _target: type = field(default_factory=lambda: SurfaceSOSModel)
    """target class to instantiate"""
    scene: SceneConfig = field(default_factory=lambda: FULL.scene)
    """Sizes and choices of fields, renderer and sampler."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Losses and their schedules."""
    cache_interval: int = FULL.cache_interval
    """Steps between two refreshes of the cached fields that guide sampling."""
    cache_share: float = FULL.cache_share
    """Share of the cells that such a refresh takes, drawn at random; those near FoCoR's surface are always taken."""
    probability_refresh: tuple[float, ...] = (0.25, 0.5)
    """Fractions of the run at which m^P is re-estimated from the foreground."""
    probability_dilation: float = 0.02
    """How far beyond FoCoR's surface a refreshed m^P reaches, in object radii."""
    mask_refresh: tuple[float, ...] = (0.15, 0.3, 0.45, 0.6, 0.75)
    """Fractions of the run at which the object's own mattes take the place of the coarse masks that differ from them;
    those that hardly do stay. Without any, the coarse masks vote to the end."""
    light: Literal["auto", "exposure", "codes"] = "auto"
    """What may differ from photo to photo: the exposure, a gain and an offset per colour channel; or, with codes, the
    light as well: a latent code of each photo goes into the colours of both layers, and rays that meet nothing show a
    sky of that photo. auto takes codes where the photos' light differs by more than an exposure explains."""
    room: Literal["auto", "space"] = "auto"
    """Where the room is: auto takes it for a picture that stands still before the camera where photos show that, as
    behind a turntable; space has it stand still against the object, as around something that one walks around."""
    adapt_detail: bool = True
    """Where the object is large in the photos, give FoCoR a finer grid and a sharper outline than the preset's, so that
    both are of a pixel's size."""
    support_map: bool = True
    """At the end of the run, map the plane that carries the object: clean plates are completed on it, alike in all
    views, and get the light back that the object keeps away. Without it they keep the object's shadow."""
    hull_slack: float = FULL.hull_slack
    """How far the voted hull's decision level is lowered for the start, as a fraction of the votes: colours carve
    surplus away more easily than they grow what is missing."""
    initial_fit_steps: int = FULL.initial_fit_steps
    """Steps that fit FoCoR and the label to the voted hull before training."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=CameraOptimizerConfig)
    """Small corrections of the training views' poses, learned from the colours (off, SO3xR3 or SE3)."""


def lite_model(config: SurfaceSOSModelConfig) -> SurfaceSOSModelConfig:
    """The same method with small tables, for a laptop or a CPU."""
    return replace(
        config,
        scene=lite_scene(config.scene),
        eval_num_rays_per_chunk=LITE.rays_per_chunk,
        initial_fit_steps=LITE.initial_fit_steps,
    )


def paper_model(config: SurfaceSOSModelConfig) -> SurfaceSOSModelConfig:
    """Equations 1-12 as printed: SDFs everywhere, predicted alpha, mask loss at the start only."""
    return replace(
        config,
        scene=paper_scene(config.scene),
        objective=paper_objective(config.objective),
        mask_refresh=(),
        light="exposure",
        room="space",
        adapt_detail=False,
        support_map=False,
    )


class SurfaceSOSModel(SceneModel):
    """FoCoR, BaCo and the blend renderer as a nerfstudio model: rendering, and the losses of a batch.

    The order of events of a training run is in `training_run.TrainingRun`.
    """

    config: SurfaceSOSModelConfig
    scene: SurfaceSOS

    def populate_modules(self) -> None:
        """Build the scene model; its state is filled by training or a checkpoint."""
        super().populate_modules()
        self._build_scene((self.kwargs.get("metadata") or {}).get("object_names", ()))
        poses = self.config.camera_optimizer
        needed = poses.mode != "off" or self.scene.deformation is not None
        self.training_views = TrainingViews(self.num_train_data, poses) if needed else None
        self._sparse_points: Tensor | None = None
        self._sparse_points_inside: Tensor | None = None  # of these, those in the object sphere

    def _build_scene(self, objects: Sequence[str], adaptation: Adaptation = NO_ADAPTATION) -> None:
        self.scene = SurfaceSOS(self.config.scene, self.num_train_data, objects, adaptation)

    def _rebuild_scene(self, objects: Sequence[str], adaptation: Adaptation) -> None:
        device, training = self.device, self.training
        self._build_scene(objects, adaptation)
        self.scene.to(device).train(training)

    @property
    def object_names(self) -> tuple[str, ...]:
        """See `SceneModel.object_names`."""
        return self.scene.objects

    def take_objects(self, names: Sequence[str]) -> None:
        """See `SceneModel.take_objects`."""
        if tuple(names) != self.scene.objects:
            self._rebuild_scene(names, self.scene.adaptation)

    def take_adaptation(self, adaptation: Adaptation) -> None:
        """See `SceneModel.take_adaptation`."""
        if adaptation != self.scene.adaptation:
            self._rebuild_scene(self.scene.objects, adaptation)

    def attach_parts(self, run: Path, checkpoint: str) -> None:
        """See `SceneModel.attach_parts`."""
        self.part_results = usable_parts(run, checkpoint, self.scene.ops, self.scene.objects)
        self.scene.attach(heads_of(self.part_results))

    # ------------------------------------------------------------------ training

    def why_not_static(self) -> str | None:
        """See `SceneModel.why_not_static`."""
        if not self.scene.ops.static:
            return f"not with these operations: {self.scene.ops.describe()}"
        if self.scene.deformation is not None:
            return "the object may deform"
        if self.training_views is not None:
            return "poses are refined"
        return None

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """The scene model's groups, and the poses where they are refined."""
        groups = parameter_groups(self.scene)
        if self.training_views is not None:
            self.training_views.optimizer.get_param_groups(groups)
        return groups

    def set_sparse_points(self, points: Tensor) -> None:
        """Take over the capture's sparse points (P, 3), object frame, which some losses pull surfaces to."""
        self._sparse_points = points
        self._sparse_points_inside = points[points.norm(dim=-1) < 1]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:  # type: ignore[override]
        """Render rays (R,), world frame.

        Returns:
            In training `rgb` (R, 3) and the `Rendering` that the losses need; otherwise all images by name, (R, 1) or
            (R, 3).
        """
        if not self.training:
            return self.rendered(ray_bundle)
        if self.training_views is not None:
            self.training_views.optimizer.apply_to_raybundle(ray_bundle)
        origins, directions = self.scene.frame.rays(ray_bundle.origins, ray_bundle.directions)
        assert ray_bundle.camera_indices is not None
        view, time = ray_bundle.camera_indices[..., 0], ray_times(self.scene, ray_bundle)
        points = draw_regulariser_points(self.config.objective, self._sparse_points_inside, self.device)
        rendering = self.scene.render(origins, directions, view, regulariser_points=points, time=time)
        return {"rgb": rendering.rgb, "rendering": rendering}

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Tensor], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a training batch; in evaluation only the colour loss."""
        photo = batch["image"][..., :3].to(self.device)
        if "rendering" not in outputs:
            return {"colour": (outputs["rgb"] - photo).square().mean()}
        mask, weight = (batch[key].to(self.device)[..., 0] for key in ("coarse_mask", "mask_weight"))
        identity = batch["coarse_identity"].to(self.device)[..., 0] if self.scene.objects else None
        view = batch["indices"][:, 0].to(self.device)
        losses = training_losses(
            self.scene,
            self.config.objective,
            outputs["rendering"],
            photo,
            mask,
            weight,
            view,
            self._sparse_points,
            identity,
        )
        if self.training_views is not None:
            self.training_views.optimizer.get_loss_dict(losses)
        return losses

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Figures for the log: PSNR of the batch, the sharpness b, and how far poses were refined."""
        metrics = {"psnr": self.batch_psnr(outputs, batch), "sharpness": self.scene.sharpness.detach()}
        if self.training_views is not None:
            self.training_views.optimizer.get_metrics_dict(metrics)
        return metrics
