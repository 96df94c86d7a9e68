"""nerfstudio's view of the model: rays in, images and losses out. All maths is in the numeric core."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from torch import Tensor
from torch.nn import Parameter

from surface_sos_ns.clean_plate.inpainting import complete
from surface_sos_ns.compiled.threads import claim_cores, thread_count
from surface_sos_ns.models.surface_sos.initialisation import camera_distance, sight_lines
from surface_sos_ns.models.surface_sos.scene import Rendering, SceneConfig, SurfaceSOS
from surface_sos_ns.plugin.console import say
from surface_sos_ns.plugin.self_training import OwnMasks
from surface_sos_ns.plugin.training_views import TrainingViews
from surface_sos_ns.plugin.viewer.controls import ViewerControls
from surface_sos_ns.plugin.viewer.display_settings import Cut, Look, cut_open, mask_image, overlay_image
from surface_sos_ns.plugin.viewer.requested_outputs import NEEDS, Need, ViewerDefaults, ViewImages, shown_in
from surface_sos_ns.rendering.antialiasing import edge_pixels, sub_pixel_directions
from surface_sos_ns.training.objective import ObjectiveConfig, draw_probes, training_losses
from surface_sos_ns.training.presets import FULL, LITE, lite_scene, paper_objective, paper_scene, parameter_groups
from surface_sos_ns.utils.metrics import THRESHOLD, image_metrics, mask_metrics, region_psnr

if TYPE_CHECKING:  # it brings scipy and more, which only training needs
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.plugin.trainer import SurfaceSOSTrainer

PLATE = ("background", "background_confidence", "background_filled", "shadow")
"""Outputs that take what the object hides; `background_filled` is there only until a view is completed."""

_need: contextvars.ContextVar[Need | None] = contextvars.ContextVar("need", default=None)
_rendered: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar("rendered", default=None)


@dataclass
class SurfaceSOSModelConfig(ModelConfig):
    """Surface-SOS: foreground and background surfaces, split by masks that need not be good."""

    _target: type = field(default_factory=lambda: SurfaceSOSModel)
    """target class to instantiate"""
    enable_collider: bool = False
    """Unused: rays are bounded by the object sphere and contracted space."""
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
    support_map: bool = True
    """At the end of the run, map the plane that carries the object: clean plates are completed on it, alike in all
    views, and get the light back that the object keeps away. Without it they keep the object's shadow."""
    hull_slack: float = FULL.hull_slack
    """How far the voted hull's decision level is lowered for the start, as a fraction of the votes: colours carve
    surplus away more easily than they grow what is missing."""
    initial_fit_steps: int = FULL.initial_fit_steps
    """Steps that fit FoCoR and the label to the voted hull before training."""
    edge_samples: int = 3
    """Rays per axis of a pixel at the object's outline, in what ns-render and ns-eval make; odd. 1 renders the pixels'
    middles alone, as the viewer does."""
    lpips: bool = False
    """Add LPIPS to ns-eval; its weights are downloaded the first time."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=CameraOptimizerConfig)
    """Small corrections of the training views' poses, learned from the colours (off, SO3xR3 or SE3)."""
    total_steps: int | None = None
    """Length of the run; set by the trainer from max-num-iterations."""


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
        support_map=False,
    )


class SurfaceSOSModel(Model):
    """FoCoR, BaCo and the blend renderer as a nerfstudio model."""

    config: SurfaceSOSModelConfig

    def populate_modules(self) -> None:
        """Build the scene model; its state is filled by training or a checkpoint."""
        super().populate_modules()
        self.scene = SurfaceSOS(self.config.scene, self.num_train_data)
        poses = self.config.camera_optimizer
        needed = poses.mode != "off" or self.scene.deformation is not None
        self.training_views = TrainingViews(self.num_train_data, poses) if needed else None
        self.viewer_defaults = ViewerDefaults()
        self.viewer_controls = ViewerControls()
        self._points: Tensor | None = None  # sparse ones, object frame
        self._points_inside: Tensor | None = None  # of these, those in the object sphere
        self._need_so_far = Need.MATTE

    def claim_cores(self) -> None:
        """Leave the cores to the compiled kernels, where those run. To be called once the device is settled."""
        if self.scene.compiled:
            claim_cores()

    def describe(self) -> str:
        """One line: hash-grid backend, sampler and, on a CPU, how many threads run them."""
        if self.device.type != "cpu":
            return self.scene.describe()
        threads = thread_count() if self.scene.compiled else torch.get_num_threads()
        return f"{self.scene.describe()} | {threads} thread{'s' if threads > 1 else ''}"

    def object_box(self) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object, world frame, for nerfstudio's exporters."""
        return self.scene.centre + self.scene.radius * self.scene.object_bounds()

    def inside_object(self, points: Tensor, times: Tensor | None = None) -> Tensor:
        """(P,) bool: which points (P, 3) of the world frame lie inside the object, on the model's device.

        Args:
            points: on any device.
            times: (P,) in [0, 1], for an object that may deform; None takes it as it is in the middle of the clip.
        """
        points, _ = self.scene.to_object_frame(points.to(self.device), points)
        if times is None and self.scene.deformation is not None:
            times = torch.full_like(points[:, 0], 0.5)
        return self.scene.inside(points, times)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """The scene model's groups, and the poses where they are refined."""
        groups = parameter_groups(self.scene)
        if self.training_views is not None:
            self.training_views.optimizer.get_param_groups(groups)
        return groups

    # ------------------------------------------------------------------ training

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Find the object before the first step, keep schedules and caches up to date afterwards.

        nerfstudio calls this once when training is set up, after a checkpoint is loaded, and never for rendering: so
        the object is found in training only, and a resumed run keeps the one it has.
        """
        trainer = cast("SurfaceSOSTrainer | None", training_callback_attributes.trainer)
        pipeline = training_callback_attributes.pipeline
        assert pipeline is not None
        # Adam's moments of table entries that are rarely hit decay into denormals, which are slow on CPUs.
        torch.set_flush_denormal(True)
        directory: Path | None = None if trainer is None else trainer.base_dir
        datamanager = cast("Any", pipeline.datamanager)
        prior = datamanager.prepare(directory)
        cameras = datamanager.train_dataset.cameras
        self._start(prior, cameras.camera_to_worlds[:, :3, 3])
        if self.training_views is not None:
            self.training_views.set(cameras)
        total = self.config.total_steps or (trainer.config.max_num_iterations if trainer is not None else 1)
        refresh = {int(fraction * total) for fraction in self.config.probability_refresh}
        own_masks = OwnMasks(datamanager.train_cache, cameras, directory, prior.masks_given)
        refreshes = self.mask_refreshes(total)
        done = [step for step in refreshes if trainer is not None and step < trainer._start_step]
        if done:
            own_masks.restore(self, refreshes[max(done)])

        def before(step: int) -> None:
            self.scene.set_progress(step / total)
            if step in refreshes:
                # Single weights move outlines to and fro, and what masks of them say would stay.
                with nullcontext() if trainer is None else trainer.average.in_place():
                    own_masks.refresh(self, refreshes[step], say)
            if step in refresh:
                self.scene.refresh_probability(self.config.probability_dilation)
            if step % self.config.cache_interval == 0:
                self.scene.update_cache(self.config.cache_share)

        def after(step: int) -> None:
            if self.training_views is not None:
                self.training_views.hold_frame()
            if step + 1 >= total:
                self.scene.set_progress(1.0)
                self.scene.update_cache()
                self._settle_background(cameras.camera_to_worlds[:, :3, 3])

        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before, update_every_num_iters=1),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after, update_every_num_iters=1),
        ]

    def mask_refreshes(self, total: int) -> dict[int, int]:
        """Steps of a run of `total` before which the mattes of the object become its masks -> their number."""
        steps = sorted({int(fraction * total) for fraction in self.config.mask_refresh} - {0})
        return {step: number for number, step in enumerate(steps, 1)}

    def _start(self, prior: ObjectPrior, cameras: Tensor) -> None:
        """Take over what is known before training, unless a checkpoint already says more."""
        centre, radius = torch.as_tensor(prior.sphere.centre, dtype=torch.float32), float(prior.sphere.radius)
        eyes = (cameras.cpu() - centre) / radius
        lines = None if prior.points is None else sight_lines(prior.points, eyes, centre, radius, self.device)
        if not bool(self.scene.ready):
            hull = prior.first_hull(self.config.hull_slack)
            self.scene.initialise(
                centre,
                radius,
                camera_distance(eyes),
                torch.as_tensor(hull.probability),
                torch.as_tensor(hull.signed_distance()),
                lines,
                self.config.initial_fit_steps,
            )
        if lines is not None:
            self._points = lines.points
            self._points_inside = lines.points[lines.points.norm(dim=-1) < 1]

    def _settle_background(self, cameras: Tensor) -> None:
        """Find out what the object hides in all views, map what it stands on, and say so."""
        if self.config.scene.background == "directional":
            return
        started = monotonic()
        self.scene.doubt_hidden(cameras)
        if not self.config.support_map:
            return
        found = self.scene.map_support(cameras)
        what = "mapped" if found else "none found: clean plates are completed view by view, with the object's shadow"
        say(f"what the object stands on: {what} ({monotonic() - started:.0f} s)")

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:  # type: ignore[override]
        """Render a bundle of rays: everything the losses need in training, images otherwise."""
        if self.training and self.training_views is not None:
            self.training_views.optimizer.apply_to_raybundle(ray_bundle)
        origins, directions = self.scene.to_object_frame(ray_bundle.origins, ray_bundle.directions)
        time = None if self.scene.deformation is None or ray_bundle.times is None else ray_bundle.times[..., 0]
        if self.training:
            assert ray_bundle.camera_indices is not None
            probes = draw_probes(self.config.objective, self._points_inside, self.device)
            rendering = self.scene.render(
                origins, directions, ray_bundle.camera_indices[..., 0], probes=probes, time=time
            )
            return {"rgb": rendering.rgb, "rendering": rendering}
        of_view, rendered = _need.get(), _rendered.get()
        need = Need.PLATE if of_view is None else of_view
        with _without_interruption():
            if rendered is not None:
                rendered(len(ray_bundle))
            if need is Need.MATTE:
                return _matte_images(self.scene.matte(origins, directions, time=time))
            images = self._images(self.scene.render(origins, directions, plate=need is Need.PLATE, time=time))
        if need is not Need.PLATE:
            for name in PLATE:  # without what the object hides they are not that
                del images[name]
        elif of_view is None:
            del images["background_filled"]
        return images

    def _images(self, rendering: Rendering) -> dict[str, Tensor]:
        """Named outputs, float (R, 1) or (R, 3), as viewer, ns-render and ns-eval expect them."""
        rgb = rendering.rgb.clamp(0, 1)
        matte = _matte_images(rendering.alpha)
        alpha = matte["alpha"]
        return {
            "rgb": rgb,
            **matte,
            "foreground": rendering.foreground.clamp(0, 1),
            "background": rendering.background.clamp(0, 1),
            "background_confidence": rendering.background_confidence[:, None],
            "background_filled": rendering.background_filled[:, None],
            "shadow": rendering.shadow[:, None],
            "overlay": overlay_image(rgb, alpha),
            "depth": rendering.depth[:, None] * self.scene.radius,
            "object_depth": rendering.object_depth[:, None] * self.scene.radius,
            "normals": torch.nn.functional.normalize(rendering.normal, dim=-1) * 0.5 * alpha + 0.5,
            "accumulation": rendering.accumulation[:, None],
        }

    def get_outputs_for_camera(  # type: ignore[override]
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> MutableMapping[str, Tensor]:
        """Images of a camera, see `get_outputs_for_camera_ray_bundle`; of a training view from its refined pose.

        Where the object may deform, a camera without a time shows it as the nearest training view saw it.
        """
        return cast("MutableMapping[str, Tensor]", super().get_outputs_for_camera(self.as_trained(camera), obb_box))

    @torch.no_grad()
    def as_trained(self, camera: Cameras) -> Cameras:
        """One camera with the pose and the time that it is rendered with, where those are not its own; world frame."""
        if self.training_views is not None:
            camera = self.training_views.refined(camera)
            if self.scene.deformation is not None:
                camera = self.training_views.timed(camera)
        return camera

    @torch.no_grad()
    def images(self, camera: Cameras, names: Iterable[str], smooth_edges: bool = True) -> dict[str, Tensor]:
        """Images (H, W, C) of one camera by name, see `NEEDS`; nothing is rendered that they do not need.

        Args:
            camera: (1,), world frame.
            names: of the outputs.
            smooth_edges: render more than one ray through the pixels of the object's outline.

        Raises:
            KeyError: there is no image of such a name.
        """
        names = list(names)
        need = max((NEEDS[name] for name in names), default=None)
        if need is None:
            return {}
        rays = self.as_trained(camera.to(self.device)).generate_rays(camera_indices=0, keep_shape=True)
        with self._evaluating():
            found = self._render_view(rays, need, smooth_edges)
        return {name: found[name] for name in names}

    def get_outputs_for_camera_ray_bundle(  # type: ignore[override]
        self, camera_ray_bundle: RayBundle
    ) -> MutableMapping[str, Tensor]:
        """Images (H, W, C) of a view's rays (H, W), by name; see `ViewImages`.

        For the viewer, what its panel shows is rendered here, as the controls there have it, and a move of the camera
        can break it off. Commands (ns-render, ns-eval, ns-export, evaluation while training) take what they want from
        the result.
        """
        thread = threading.current_thread()
        if isinstance(thread, RenderStateMachine):
            viewer = thread.viewer
            with _without_interruption():
                look = self.viewer_controls.look()
                need = shown_in(viewer.control_panel, look.needs())

            def render_late(need: Need) -> dict[str, Tensor]:
                # The choice in the panel has changed meanwhile, and the viewer has given its lock back.
                with viewer.train_lock or nullcontext(), self._evaluating():
                    return self._render_look(camera_ray_bundle, need, look)

            return ViewImages(render_late, self._render_look(camera_ray_bundle, need, look), look.needs())
        if thread is not threading.main_thread():  # nothing is known about when it would come back for more
            return self._render_view(camera_ray_bundle, Need.PLATE)

        def render(need: Need) -> dict[str, Tensor]:
            # Commands want the same of one view after the other: at once what took two renderings before.
            self._need_so_far = max(self._need_so_far, need)
            with self._evaluating():
                return self._render_view(camera_ray_bundle, self._need_so_far, smooth_edges=True)

        return ViewImages(render)

    def _render_rays(self, rays: RayBundle, need: Need) -> dict[str, Tensor]:
        """nerfstudio's rendering of rays (H, W) in chunks, of what `need` says."""
        context = contextvars.copy_context()  # left behind by whatever way out the viewer makes it take
        context.run(_need.set, need)
        images: dict[str, Tensor] = context.run(super().get_outputs_for_camera_ray_bundle, rays)
        return images

    def _render_view(self, rays: RayBundle, need: Need, smooth_edges: bool = False) -> dict[str, Tensor]:
        """Images (H, W, C) of a view, as far as `need` says."""
        images = self._render_rays(rays, need)
        if smooth_edges and self.config.edge_samples > 1:
            self._smooth_edges(rays, images, need)
        if need is Need.PLATE:
            with _without_interruption():
                sure = torch.maximum(images["background_confidence"], images.pop("background_filled"))
                images["background"] = complete(images["background"], sure[..., 0])
        return images

    def _render_look(self, rays: RayBundle, need: Need, look: Look) -> dict[str, Tensor]:
        """Images (H, W, C) of a view as a viewer is to show it."""
        if look.slice is None:
            return look.applied(self._render_view(rays, need))
        with _without_interruption():
            cut = look.slice.cut(rays.origins, rays.directions, self.scene.centre, self.scene.radius)
            reached = torch.where(torch.isfinite(cut.distance), cut.distance, 0.0)
            rays = replace(rays, origins=rays.origins + reached * rays.directions)
        images = self._render_view(rays, need)
        with _without_interruption():
            return look.applied(cut_open(images, cut, self._starts_inside(rays, cut)))

    def _starts_inside(self, rays: RayBundle, cut: Cut) -> Tensor:
        """(H, W, 1) bool: which rays that were cut start inside the object."""
        started = (torch.isfinite(cut.distance) & (cut.distance > 0))[..., 0]
        points, _ = self.scene.to_object_frame(rays.origins[started], rays.directions[started])
        times = None if rays.times is None else rays.times[started][..., 0]
        inside = torch.zeros_like(started)
        inside[started] = self.scene.inside(points, times)
        return inside[..., None]

    def _smooth_edges(self, rays: RayBundle, images: dict[str, Tensor], need: Need) -> None:
        """Render more rays through the pixels of the object's outline and average, in place."""
        chosen = edge_pixels(images["alpha"][..., 0])
        if min(chosen.shape) < 2 or not chosen.any():
            return
        directions = sub_pixel_directions(rays.directions, chosen, self.config.edge_samples)
        shape = directions.shape[:2]  # an image with a pixel a row
        parts = RayBundle(
            origins=rays.origins[chosen][:, None].expand(*shape, 3).contiguous(),
            directions=directions,
            pixel_area=rays.pixel_area[chosen][:, None].expand(*shape, 1) / (shape[1] + 1),
            times=None if rays.times is None else rays.times[chosen][:, None].expand(*shape, 1).contiguous(),
        )
        found = self._render_rays(parts, min(need, Need.LAYERS))
        for name in ("alpha", "rgb", "foreground", "overlay"):
            if name in found:
                images[name][chosen] = (images[name][chosen] + found[name].sum(1)) / (shape[1] + 1)
        images["mask"][chosen] = _matte_images(images["alpha"][chosen][..., 0])["mask"]

    @staticmethod
    @contextmanager
    def telling(rendered: Callable[[int], None]) -> Iterator[None]:
        """Inside, this thread calls `rendered` with a number of rays whenever that many are about to be rendered."""
        token = _rendered.set(rendered)
        try:
            yield
        finally:
            _rendered.reset(token)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model in evaluation mode, whatever it is in."""
        if not self.training:
            yield
            return
        self.eval()
        try:
            yield
        finally:
            self.train()

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Tensor], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses of a training batch; in evaluation only the colour loss."""
        photo = batch["image"][..., :3].to(self.device)
        if "rendering" not in outputs:
            return {"colour": (outputs["rgb"] - photo).square().mean()}
        mask, weight = (batch[key].to(self.device)[..., 0] for key in ("coarse_mask", "mask_weight"))
        view = batch["indices"][:, 0].to(self.device)
        losses = training_losses(
            self.scene,
            self.config.objective,
            outputs["rendering"],
            photo,
            mask,
            weight,
            view,
            self._points,
        )
        if self.training_views is not None:
            self.training_views.optimizer.get_loss_dict(losses)
        return losses

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Figures for the log: PSNR of the batch, the sharpness b, and how far poses were refined."""
        error = (outputs["rgb"].detach() - batch["image"][..., :3].to(self.device)).square().mean()
        metrics = {"psnr": -10 * torch.log10(error.clamp(min=1e-10)), "sharpness": self.scene.sharpness.detach()}
        if self.training_views is not None:
            self.training_views.optimizer.get_metrics_dict(metrics)
        return metrics

    # ------------------------------------------------------------------ evaluation

    # Below, what takes most is asked for first: it brings the rest with it.

    def get_rgba_image(self, outputs: Mapping[str, Tensor], output_name: str = "rgb") -> Tensor:  # type: ignore[override]
        """The object with transparency (H, W, 4), its colours not premultiplied."""
        del output_name
        colours, alpha = outputs["foreground"], outputs["alpha"]
        return torch.cat([(colours / alpha.clamp(min=1e-3)).clamp(0, 1), alpha], dim=-1)

    def get_image_metrics_and_images(  # type: ignore[override]
        self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics against the photo, and against the truth where the batch brings it."""
        background = outputs["background"]
        photo = batch["image"][..., :3].to(outputs["rgb"].device)
        metrics = image_metrics(outputs["rgb"], photo)
        images = {
            "img": torch.cat([photo, outputs["rgb"]], dim=1),
            "mask": torch.cat([outputs["alpha"].expand(-1, -1, 3), outputs["overlay"]], dim=1),
            "background": background,
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
        }
        if "gt_mask" in batch:
            truth = batch["gt_mask"][..., 0].to(photo)
            metrics |= mask_metrics(outputs["alpha"][..., 0], truth)
            if "clean_plate" in batch:
                plate = batch["clean_plate"].to(photo)
                metrics["clean_plate_psnr"] = region_psnr(background, plate, truth > THRESHOLD)
        if self.config.lpips:
            metrics["lpips"] = self._perceptual_distance(outputs["rgb"], photo)
        return metrics, images

    @staticmethod
    def _perceptual_distance(image: Tensor, truth: Tensor) -> float:
        """LPIPS of (H, W, 3) images; downloads its weights the first time."""
        from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

        a, b = (t.movedim(-1, 0)[None] for t in (image, truth))
        return float(learned_perceptual_image_patch_similarity(a, b, normalize=True))


def _matte_images(alpha: Tensor) -> dict[str, Tensor]:
    """The outputs that alpha (R,) is enough for."""
    alpha = alpha.clamp(0, 1)[:, None]
    return {"mask": mask_image(alpha), "alpha": alpha}


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Keep the viewer from breaking off inside: it then does so between two chunks of rays.

    When the camera moves, nerfstudio's viewer raises an exception at whichever line its render thread has reached, by
    means of a trace function. Raised where a ``with`` block ends, it leaves the block's lock held for ever (that of the
    kernels' threads, or one in numba or torch), and training stands still. The main thread has no such trace function,
    so debuggers and coverage keep theirs there.
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
