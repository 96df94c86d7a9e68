"""NeRF-SOS as a nerfstudio model: rendering, and the losses of a batch in either stage."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor
from torch.nn import Parameter

from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.models.nerf_sos.radiance_field import RayRadiance
from surface_sos_ns.models.nerf_sos.scene import NerfSOS
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.plugin.scene_model import SceneModel, SceneModelConfig
from surface_sos_ns.training.nerf_sos import NerfSOSObjective, SegmentationData, radiance_losses, segmentation_losses
from surface_sos_ns.training.presets import LITE
from surface_sos_ns.utils.errors import UserError


@dataclass
class NerfSOSModelConfig(SceneModelConfig):
    """NeRF-SOS: a radiance field, then a segmentation of it that contrasts features of the photos."""

    _target: type = field(default_factory=lambda: NerfSOSModel)
    """target class to instantiate"""
    edge_samples: int = 1
    """Rays per axis of a pixel at the object's outline, in what ns-render and ns-eval make; odd. 1 renders the pixels'
    middles alone."""
    scene: NerfSOSConfig = field(default_factory=NerfSOSConfig)
    """Sizes and choices of the radiance field and of the segmentation head."""
    objective: NerfSOSObjective = field(default_factory=NerfSOSObjective)
    """Losses of both stages."""
    load_run: Path | None = None
    """config.yml of a finished surface-sos run of the same photos. Its surfaces take the place of the radiance field:
    the first stage falls away, and all steps are the second's."""
    surfaces: Annotated[SceneConfig | None, tyro.conf.Fixed] = None
    """Sizes and choices of that run's scene; set by the pipeline."""
    clusters: int = 2
    """Clusters that the segmentation is divided into, the object and its surroundings among them."""
    radiance_share: float = 0.75
    """Share of the steps that train the radiance field; in the others it is frozen and the segmentation learns."""
    cache_interval: int = 25
    """Steps between two refreshes of the cached density that guides sampling."""
    cache_share: float = 0.25
    """Share of the cells that such a refresh takes, drawn at random."""
    initial_fit_steps: int = 200
    """Steps that fit the density to the sparse points before training."""


def lite_nerf_sos(config: NerfSOSModelConfig) -> NerfSOSModelConfig:
    """The same method with small tables, for a laptop or a CPU."""
    small = LITE.scene
    scene = replace(
        config.scene,
        grid=small.background_grid,
        hidden=small.hidden,
        samples=small.samples,
        render_samples=small.render_samples,
    )
    return replace(config, scene=scene, eval_num_rays_per_chunk=LITE.rays_per_chunk)


class NerfSOSModel(SceneModel):
    """A radiance field and its segmentation; the order of events is in `training_run.NerfSOSTrainingRun`.

    Attributes:
        segmentation_data: what the second stage learns from; None in the first.
        segmentation_objective: its losses, with biases that fit the features.

    Raises:
        UserError: fewer than two clusters.
    """

    absent_outputs = frozenset({"normals", "shadow", "background_confidence"})
    uses_masks = False
    config: NerfSOSModelConfig
    scene: NerfSOS

    def populate_modules(self) -> None:
        """Build the scene; its state is filled by training or a checkpoint."""
        super().populate_modules()
        if self.config.clusters < 2:
            raise UserError(
                f"--pipeline.model.clusters is {self.config.clusters}; expected at least 2: the object and what is "
                "around it."
            )
        self.scene = NerfSOS(self.config.scene, self.num_train_data, self.config.clusters, self.config.surfaces)
        self.segmentation_data: SegmentationData | None = None
        self.segmentation_objective = self.config.objective

    def why_not_static(self) -> str | None:
        """Why a training step is not captured as a CUDA graph."""
        return "nerf-sos trains in two stages of different steps"

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Parameters by group: `grids`, `nets`, `appearance` (first stage), `segmentation` (second)."""
        groups: dict[str, list[Parameter]] = defaultdict(list)
        for name, parameter in self.scene.named_parameters():
            if not parameter.requires_grad:  # of a loaded run
                continue
            part = name.split(".")[0]
            group = {"head": "segmentation", "appearance": "appearance"}.get(part)
            groups[group or ("grids" if name.endswith("table") else "nets")].append(parameter)
        return dict(groups)

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:  # type: ignore[override]
        """Render rays (R,), world frame: all images, or in training what the losses of the first stage need."""
        if not self.training:
            return self.rendered(ray_bundle)
        if self.segmentation_data is not None:
            return {}
        origins, directions = self.scene.frame.rays(ray_bundle.origins, ray_bundle.directions)
        assert ray_bundle.camera_indices is not None
        found, rgb = self.scene.train_radiance(origins, directions, ray_bundle.camera_indices[..., 0])
        return {"rgb": rgb, "found": found}

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Tensor], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a training batch; in evaluation only the colour loss."""
        if self.training and self.segmentation_data is not None:
            return segmentation_losses(self.scene, self.segmentation_data, self.segmentation_objective)
        photo = batch["image"][..., :3].to(self.device)
        found = outputs.get("found")
        if not isinstance(found, RayRadiance):
            return {"colour": (outputs["rgb"] - photo).square().mean()}
        return radiance_losses(self.scene, found, outputs["rgb"], photo, self.config.objective)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of the batch, in the first stage."""
        return {"psnr": self.batch_psnr(outputs, batch)} if "rgb" in outputs else {}
