"""nerfstudio's view of the model: rays in, images and losses out. All maths is in the numeric core."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor
from torch.nn import Parameter

from surface_sos_ns.fields.hash_grid import GridLayout
from surface_sos_ns.metrics import THRESHOLD, image_metrics, mask_metrics, region_psnr
from surface_sos_ns.objective import ObjectiveConfig, training_losses
from surface_sos_ns.scene_model import Rendering, SceneConfig, SurfaceSOS

if TYPE_CHECKING:  # it brings scipy and more, which only training needs
    from surface_sos_ns.capture.object_prior import ObjectPrior

PARAM_GROUPS = ("surface", "grids", "nets", "sharpness", "appearance")
OVERLAY_COLOUR = (1.0, 0.35, 0.1)


@dataclass
class SurfaceSOSModelConfig(ModelConfig):
    """Surface-SOS: foreground and background surfaces, split by masks that need not be good."""

    _target: type = field(default_factory=lambda: SurfaceSOSModel)
    """target class to instantiate"""
    enable_collider: bool = False
    """Unused: rays are bounded by the object sphere and contracted space."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """Sizes and choices of fields, renderer and sampler."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Losses and their schedules."""
    cache_interval: int = 25
    """Steps between two refreshes of the cached fields that guide sampling."""
    probability_refresh: tuple[float, ...] = (0.25, 0.5)
    """Fractions of the run at which m^P is re-estimated from the foreground."""
    probability_dilation: float = 0.02
    """How far beyond FoCoR's surface a refreshed m^P reaches, in object radii."""
    hull_slack: float = 0.25
    """How far the voted hull's decision level is lowered for the start, as a fraction of the votes: colours carve
    surplus away more easily than they grow what is missing."""
    initial_fit_steps: int = 300
    """Steps that fit FoCoR and the label to the voted hull before training."""
    lpips: bool = False
    """Add LPIPS to ns-eval; its weights are downloaded the first time."""
    total_steps: int | None = None
    """Length of the run; set by the trainer from max-num-iterations."""


def lite_model(config: SurfaceSOSModelConfig) -> SurfaceSOSModelConfig:
    """The same method with small tables, for a laptop or a CPU."""
    small = GridLayout(levels=12, features=2, log2_entries=16, base_resolution=16, max_resolution=512)
    scene = replace(
        config.scene,
        foreground_grid=small,
        background_grid=replace(small, max_resolution=1024),
        samples=24,
        last_sharpness=300.0,
    )
    return replace(config, scene=scene, eval_num_rays_per_chunk=1 << 12, initial_fit_steps=200)


def paper_model(config: SurfaceSOSModelConfig) -> SurfaceSOSModelConfig:
    """Equations 1-12 as printed: SDFs everywhere, predicted alpha, mask loss at the start only."""
    scene = replace(
        config.scene,
        split="predicted",
        background_inside="sdf",
        background_beyond="sdf",
        first_sharpness=20.0,
        last_sharpness=200.0,
    )
    objective = replace(
        config.objective,
        mask=0.1,
        votes=0.0,
        label_prior=0.0,
        plate=0.0,
        outside=0.0,
        distortion=0.0,
        entropy=0.0,
    )
    return replace(config, scene=scene, objective=objective)


class SurfaceSOSModel(Model):
    """FoCoR, BaCo and the blend renderer as a nerfstudio model."""

    config: SurfaceSOSModelConfig

    def populate_modules(self) -> None:
        """Build the scene model; its state is filled by training or a checkpoint."""
        super().populate_modules()
        self.scene = SurfaceSOS(self.config.scene, self.num_train_data)
        self._points: Tensor | None = None

    def describe(self) -> str:
        """One line: hash-grid backend and sampler."""
        return self.scene.describe()

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """FoCoR's surface, the other hash tables, the other networks, sharpness and appearance codes."""
        groups: dict[str, list[Parameter]] = {name: [] for name in PARAM_GROUPS}
        for name, parameter in self.scene.named_parameters():
            if name.startswith("focor."):
                groups["surface"].append(parameter)
            elif name.endswith("table"):
                groups["grids"].append(parameter)
            elif "log_sharpness" in name:
                groups["sharpness"].append(parameter)
            elif name == "appearance":
                groups["appearance"].append(parameter)
            else:
                groups["nets"].append(parameter)
        return groups

    # ------------------------------------------------------------------ training

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Find the object before the first step, keep schedules and caches up to date afterwards.

        nerfstudio calls this once when training is set up, after a checkpoint is loaded, and never for rendering: so
        the object is found in training only, and a resumed run keeps the one it has.
        """
        trainer, pipeline = training_callback_attributes.trainer, training_callback_attributes.pipeline
        assert pipeline is not None
        # Adam's moments of table entries that are rarely hit decay into denormals, which are slow on CPUs.
        torch.set_flush_denormal(True)
        directory: Path | None = None if trainer is None else trainer.base_dir
        prior = cast("Any", pipeline.datamanager).prepare(directory)
        self._start(prior)
        total = self.config.total_steps or (trainer.config.max_num_iterations if trainer is not None else 1)
        refresh = {int(fraction * total) for fraction in self.config.probability_refresh}

        def before(step: int) -> None:
            self.scene.set_progress(step / total)
            if step in refresh:
                self.scene.refresh_probability(self.config.probability_dilation)
            if step % self.config.cache_interval == 0:
                self.scene.update_cache()

        def after(step: int) -> None:
            if step + 1 >= total:
                self.scene.set_progress(1.0)
                self.scene.update_cache()

        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before, update_every_num_iters=1),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after, update_every_num_iters=1),
        ]

    def _start(self, prior: ObjectPrior) -> None:
        """Take over what is known before training, unless a checkpoint already says more."""
        centre = torch.as_tensor(prior.sphere.centre, dtype=torch.float32)
        if not bool(self.scene.ready):
            hull = prior.hull.relaxed(self.config.hull_slack)
            self.scene.initialise(
                centre,
                float(prior.sphere.radius),
                torch.as_tensor(hull.probability),
                torch.as_tensor(hull.signed_distance()),
                self.config.initial_fit_steps,
            )
        if prior.points is not None:
            xyz = torch.as_tensor(prior.points.xyz, dtype=torch.float32, device=self.device)
            reliable = torch.as_tensor(prior.points.track_length, device=self.device) != 2
            inside = (xyz - self.scene.centre).norm(dim=-1) < self.scene.radius
            self._points = ((xyz - self.scene.centre) / self.scene.radius)[inside & reliable]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:  # type: ignore[override]
        """Render a bundle of rays: everything the losses need in training, images otherwise."""
        origins, directions = self.scene.to_object_frame(ray_bundle.origins, ray_bundle.directions)
        if self.training:
            assert ray_bundle.camera_indices is not None
            rendering = self.scene.render(origins, directions, ray_bundle.camera_indices[..., 0])
            return {"rgb": rendering.rgb, "rendering": rendering}
        with _without_interruption():
            return self._images(self.scene.render(origins, directions))

    def _images(self, rendering: Rendering) -> dict[str, Tensor]:
        """Named outputs, float (R, 1) or (R, 3), as viewer, ns-render and ns-eval expect them."""
        rgb = rendering.rgb.clamp(0, 1)
        alpha = rendering.alpha.clamp(0, 1)[:, None]
        tint = 0.5 * alpha * torch.tensor(OVERLAY_COLOUR, device=rgb.device)
        return {
            "rgb": rgb,
            "mask": (alpha > THRESHOLD).to(rgb.dtype).expand(-1, 3),
            "alpha": alpha,
            "foreground": rendering.foreground.clamp(0, 1),
            "background": rendering.background.clamp(0, 1),
            "overlay": (1 - 0.5 * alpha) * rgb + tint,
            "depth": rendering.depth[:, None] * self.scene.radius,
            "normals": torch.nn.functional.normalize(rendering.normal, dim=-1) * 0.5 * alpha + 0.5,
            "accumulation": rendering.accumulation[:, None],
        }

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Tensor], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a training batch; in evaluation only the colour loss."""
        photo = batch["image"][..., :3].to(self.device)
        if "rendering" not in outputs:
            return {"colour": (outputs["rgb"] - photo).square().mean()}
        mask, weight = (batch[key].to(self.device)[..., 0] for key in ("coarse_mask", "mask_weight"))
        return training_losses(
            self.scene, self.config.objective, outputs["rendering"], photo, mask, weight, self._points
        )

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Figures for the log: PSNR of the batch and the sharpness b."""
        error = (outputs["rgb"].detach() - batch["image"][..., :3].to(self.device)).square().mean()
        return {"psnr": -10 * torch.log10(error.clamp(min=1e-10)), "sharpness": self.scene.sharpness.detach()}

    # ------------------------------------------------------------------ evaluation

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """The object with transparency (H, W, 4), its colours not premultiplied."""
        del output_name
        alpha = outputs["alpha"]
        return torch.cat([(outputs["foreground"] / alpha.clamp(min=1e-3)).clamp(0, 1), alpha], dim=-1)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics against the photo, and against the truth where the batch brings it."""
        photo = batch["image"][..., :3].to(outputs["rgb"].device)
        metrics = image_metrics(outputs["rgb"], photo)
        images = {
            "img": torch.cat([photo, outputs["rgb"]], dim=1),
            "mask": torch.cat([outputs["alpha"].expand(-1, -1, 3), outputs["overlay"]], dim=1),
            "background": outputs["background"],
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
        }
        if "gt_mask" in batch:
            truth = batch["gt_mask"][..., 0].to(photo)
            metrics |= mask_metrics(outputs["alpha"][..., 0], truth)
            if "clean_plate" in batch:
                plate = batch["clean_plate"].to(photo)
                metrics["clean_plate_psnr"] = region_psnr(outputs["background"], plate, truth > THRESHOLD)
        if self.config.lpips:
            metrics["lpips"] = self._perceptual_distance(outputs["rgb"], photo)
        return metrics, images

    @staticmethod
    def _perceptual_distance(image: Tensor, truth: Tensor) -> float:
        """LPIPS of (H, W, 3) images; downloads its weights the first time."""
        from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

        a, b = (t.movedim(-1, 0)[None] for t in (image, truth))
        return float(learned_perceptual_image_patch_similarity(a, b, normalize=True))


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Keep the viewer from breaking off inside: it then does so between two chunks of rays.

    When the camera moves, nerfstudio's viewer raises an exception at whichever line its render thread has reached, by
    means of a trace function. Raised where a ``with`` block ends, it leaves the block's lock held for ever (the hash
    grid's, or one in numba or torch), and training stands still. The main thread has no such trace function, so
    debuggers and coverage keep theirs there.
    """
    if threading.current_thread() is threading.main_thread():
        yield
        return
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
