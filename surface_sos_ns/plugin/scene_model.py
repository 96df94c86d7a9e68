"""Base of the nerfstudio models, without training: renders and scores views for commands, viewer and exports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor

from surface_sos_ns.models.surface_sos.adaptation import NO_ADAPTATION, Adaptation
from surface_sos_ns.plugin.fitted_metrics import code_of_photo, fitted_metrics
from surface_sos_ns.plugin.outputs import Need, ViewImages, needs_of
from surface_sos_ns.plugin.part_results import PartResult
from surface_sos_ns.plugin.training_views import TrainingViews
from surface_sos_ns.plugin.view_metrics import comparison_images, view_metrics
from surface_sos_ns.plugin.view_rendering import FILLED, BeforeChunk, ViewRenderer, render_rays, with_room
from surface_sos_ns.plugin.viewer.controls import ViewerControls
from surface_sos_ns.plugin.viewer.defaults import ViewerDefaults
from surface_sos_ns.plugin.viewer.display_settings import DisplaySettings
from surface_sos_ns.plugin.viewer.rendering import displayed_view, in_main_thread, viewer_thread
from surface_sos_ns.training.presets import FULL
from surface_sos_ns.utils.errors import UserError


@dataclass
class SceneModelConfig(ModelConfig):
    """How views of a scene are rendered and scored."""

    _target: type = field(default_factory=lambda: SceneModel)
    """target class to instantiate"""
    eval_num_rays_per_chunk: int = FULL.rays_per_chunk
    """Rays rendered at once on a CPU. On a GPU it is as many as its free memory takes."""
    enable_collider: bool = False
    """nerfstudio's near and far planes; off, since rays are bounded by the object sphere and contracted space."""
    edge_samples: int = 3
    """Rays per axis of a pixel at the object's outline, in what ns-render and ns-eval make; odd. 1 renders the pixels'
    middles alone, as the viewer does."""
    lpips: bool = False
    """Add LPIPS to ns-eval; its weights are downloaded the first time."""
    total_steps: int | None = None
    """Length of the run; set by the trainer from max-num-iterations."""


class SceneModel(Model):
    """A scene as a nerfstudio model, but for its training.

    Attributes:
        scene: the numeric model; subclasses build it.
        training_views: poses and times of the training photos, where rendering depends on them; else None.
        part_results: parts that were found on the finished run and are rendered with it, the latest first.
        viewer_defaults, viewer_controls: nerfstudio's viewer finds these among the attributes.
    """

    absent_outputs: ClassVar[frozenset[str]] = frozenset()
    """Outputs of `outputs.NEEDS` that this kind of scene has nothing to show for."""
    uses_masks: ClassVar[bool] = True
    """Whether training looks at coarse masks."""
    config: SceneModelConfig
    scene: Any
    training_views: TrainingViews | None
    part_results: list[PartResult]

    def populate_modules(self) -> None:
        """Build what the viewer wants; subclasses build the scene."""
        super().populate_modules()
        self.training_views = None
        self.part_results = []
        self.viewer_defaults = ViewerDefaults()
        self.viewer_controls = ViewerControls()
        self._need_so_far = Need.MATTE
        self._fits_appearance = False
        self._code: Tensor | None = None

    def claim_cores(self) -> None:
        """Leave the cores to the operations' own threads. To be called once the device is settled."""
        self.scene.ops.claim_threads()

    def describe(self) -> str:
        """One line: what computes the operations, how rays are sampled and, on a CPU, how many threads run them."""
        if self.device.type != "cpu":
            return cast("str", self.scene.describe())
        threads = self.scene.ops.threads()
        return f"{self.scene.describe()} | {threads} thread{'s' if threads > 1 else ''}"

    def why_not_static(self) -> str | None:
        """Why a training step cannot have fixed shapes and do without the host; None where it can."""
        raise NotImplementedError

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of several objects, in the order of their identities, which are 1 to K; empty for one object."""
        return ()

    def take_objects(self, names: Sequence[str]) -> None:
        """Set the model up for these objects, before a checkpoint that has them is loaded; empty for one object.

        Raises:
            UserError: this kind of scene knows one object only.
        """
        if names:
            raise UserError(f"This method segments one object, not {len(names)} ({', '.join(names)}).")

    def take_adaptation(self, adaptation: Adaptation) -> None:
        """Set the model up with sizes adapted to a capture, found from its photos or stored in a checkpoint.

        Raises:
            UserError: the sizes of this kind of scene do not depend on the capture.
        """
        if adaptation != NO_ADAPTATION:
            raise UserError("This method's sizes do not depend on the capture, and those of the checkpoint do.")

    def attach_parts(self, run: Path, checkpoint: str) -> None:
        """Render parts as well that were found on this run, if there are any; see `part_results`.

        Args:
            run: its folder.
            checkpoint: name of the one that is loaded.
        """

    # ------------------------------------------------------------------ where the object is

    def object_sphere(self) -> tuple[Tensor, Tensor]:
        """Centre (3,) and radius () of the object sphere, world frame."""
        return self.scene.frame.centre, self.scene.frame.radius

    def object_box(self, name: str | None = None) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object, world frame.

        Args:
            name: of one of several objects; None for all of them.
        """
        grid = self.scene.object_grid
        box = grid.bounds() if name is None else grid.bounds(self.object_names.index(name) + 1)
        return self.scene.frame.to_world(box)

    def inside_object(self, points: Tensor, times: Tensor | None = None) -> Tensor:
        """(P,) bool: which points (P, 3) of the world frame lie inside the object, on the model's device.

        Args:
            points: on any device.
            times: (P,) in [0, 1], for an object that may deform; None takes it as it is in the middle of the clip.
        """
        return self.scene.object_grid.inside(*self._in_object_frame(points, times))

    def object_at(self, points: Tensor, times: Tensor | None = None) -> Tensor:
        """(P,) int64: in which object points (P, 3) of the world frame lie, 1 to K, or 0 for none; see `inside_object`.

        One object has the identity 1.
        """
        points, times = self._in_object_frame(points, times)
        found = self.scene.object_grid.inside(points, times).long()
        if self.object_names:
            inside = found > 0
            found[inside] = self.scene.object_grid.owner(points[inside], None if times is None else times[inside])
        return found

    def _in_object_frame(self, points: Tensor, times: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Points of the world frame -> object frame, with their times, the middle of the clip where they have none."""
        points = self.scene.frame.points(points)
        if times is None and self.scene.deformation is not None:
            times = torch.full_like(points[:, 0], 0.5)
        return points, times

    # ------------------------------------------------------------------ rays

    def rendered(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """All images of rays (R,), world frame, by name, (R, 1) or (R, 3)."""
        images = render_rays(self.scene, ray_bundle, Need.PLATE)
        del images[FILLED]
        return images

    def batch_psnr(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """() PSNR, in dB, of the colours `rgb` (R, 3) of a batch's rays."""
        error = (outputs["rgb"].detach() - batch["image"][..., :3].to(self.device)).square().mean()
        return -10 * torch.log10(error.clamp(min=1e-10))

    # ------------------------------------------------------------------ views

    @torch.no_grad()
    def as_trained(self, camera: Cameras) -> Cameras:
        """One camera with the pose and the time that it is rendered with, where those are not its own; world frame."""
        if self.training_views is not None:
            camera = self.training_views.with_refined_pose(camera)
            if self.scene.deformation is not None:
                camera = self.training_views.with_time(camera)
        return camera

    def rays_of(self, camera: Cameras, obb_box: OrientedBox | None = None) -> RayBundle:
        """The rays (H, W) of one camera, as `as_trained` has it; world frame."""
        camera = self.as_trained(camera.to(self.device))
        rays = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
        return with_room(self.scene, rays, camera)

    @contextmanager
    def appearance(self, code: Tensor | None) -> Iterator[None]:
        """Inside, views are rendered with this exposure, white balance and light, instead of the training photos' mean.

        Args:
            code: (1, C), see `SurfaceSOS.render` and `code_of_photo`; None for the mean.
        """
        before, self._code = self._code, code
        try:
            yield
        finally:
            self._code = before

    def code_of_photo(self, camera: Cameras, photo: Tensor) -> Tensor:
        """The appearance code (1, C) with which the view of one camera looks like its photo (H, W, 3), 0 to 1."""
        rays = self.rays_of(camera)
        with self._evaluating():
            return code_of_photo(self.scene, rays.flatten(), photo.reshape(-1, 3))

    def render_view(
        self, rays: RayBundle, need: Need, smooth_edges: bool = False, before_chunk: BeforeChunk | None = None
    ) -> dict[str, Tensor]:
        """Images (H, W, C) of a view's rays (H, W), world frame, by name, as far as `need` says.

        Args:
            rays: of the view.
            need: how much to render.
            smooth_edges: render more than one ray through the pixels of the object's outline.
            before_chunk: called before each chunk of rays, see `BeforeChunk`.
        """
        renderer = ViewRenderer(self.scene, self.config.eval_num_rays_per_chunk, code=self._code)
        with self._evaluating():
            return renderer.view(rays, need, self.config.edge_samples if smooth_edges else 1, before_chunk)

    def output_needs(self) -> dict[str, Need]:
        """Every output by name, and what it takes."""
        needs = needs_of(self.scene.painted_heads, self.object_names)
        return {name: need for name, need in needs.items() if name not in self.absent_outputs}

    @torch.no_grad()
    def images(
        self,
        camera: Cameras,
        names: Iterable[str],
        smooth_edges: bool = True,
        before_chunk: BeforeChunk | None = None,
    ) -> dict[str, Tensor]:
        """Images (H, W, C) of one camera by name, see `output_needs`; nothing is rendered that they do not need.

        Args:
            camera: (1,), world frame.
            names: of the outputs.
            smooth_edges: render more than one ray through the pixels of the object's outline.
            before_chunk: called before each chunk of rays, see `BeforeChunk`.

        Raises:
            KeyError: there is no image of such a name.
        """
        names = list(names)
        needs = self.output_needs()
        need = max((needs[name] for name in names), default=None)
        if need is None:
            return {}
        rays = self.rays_of(camera)
        found = self.render_view(rays, need, smooth_edges, before_chunk)
        return {name: found[name] for name in names}

    def without(self, camera: Cameras, names: Collection[str], smooth_edges: bool = True) -> Tensor:
        """The picture (H, W, 3) of `images_without`."""
        return self.images_without(camera, names, smooth_edges)["background"]

    @torch.no_grad()
    def images_without(self, camera: Cameras, names: Collection[str], smooth_edges: bool = True) -> dict[str, Tensor]:
        """The picture without the object, or without some of several, and what is known about it.

        What the removed ones hide is there: of the other objects, and of the background, completed. Their shadow is
        gone from what they stand on; that of the others stays.

        Args:
            camera: (1,), world frame.
            names: of the objects to remove; of a run with one object whatever.
            smooth_edges: render more than one ray through the pixels of the outlines of the objects that stay.

        Returns:
            By the names of the outputs that say the same of all objects: `background` (H, W, 3), the picture, 0 to 1;
            `background_confidence` (H, W, 1), how sure it is, where an object that stays is seen, 1; and `shadow`
            (H, W, 1), share of the light that the removed ones keep away.

        Raises:
            UserError: there is no object of such a name.
        """
        rays = self.rays_of(camera)
        return self.render_without(rays, names, smooth_edges)

    def render_without(
        self,
        rays: RayBundle,
        names: Collection[str],
        smooth_edges: bool = False,
        before_chunk: BeforeChunk | None = None,
    ) -> dict[str, Tensor]:
        """`images_without` of a view's rays (H, W), world frame; see `BeforeChunk`."""
        outputs = ("background", "background_confidence", "shadow")
        unknown = [name for name in names if name not in self.object_names]
        if unknown and self.object_names:
            raise UserError(f"There is no object {unknown[0]!r} in this run; it has {', '.join(self.object_names)}.")
        stay = [identity for identity, name in enumerate(self.object_names, start=1) if name not in names]
        if not stay:
            found = self.render_view(rays, Need.PLATE, smooth_edges, before_chunk)
            return {name: found[name] for name in outputs}
        with self._evaluating():
            shown = self.scene.showing(stay)
            renderer = ViewRenderer(self.scene, self.config.eval_num_rays_per_chunk, shown, self._code)
            found = renderer.view(rays, Need.PLATE, self.config.edge_samples if smooth_edges else 1, before_chunk)
        alpha, confidence = found["alpha"], found["background_confidence"]
        picture = (found["foreground"] + (1 - alpha) * found["background"]).clamp(0, 1)
        return dict(zip(outputs, (picture, alpha + (1 - alpha) * confidence, found["shadow"]), strict=True))

    def get_outputs_for_camera(  # type: ignore[override]
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> MutableMapping[str, Tensor]:
        """Images of a camera, see `get_outputs_for_camera_ray_bundle`; of a training view from its refined pose.

        Where the object may deform, a camera without a time shows it as the nearest training view saw it.
        """
        return self.get_outputs_for_camera_ray_bundle(self.rays_of(camera, obb_box))

    def get_outputs_for_camera_ray_bundle(  # type: ignore[override]
        self, camera_ray_bundle: RayBundle
    ) -> MutableMapping[str, Tensor]:
        """Images (H, W, C) of a view's rays (H, W), by name.

        The viewer gets what its panel shows (`displayed_view`). Commands (ns-render, ns-eval, ns-export, evaluation
        while training) take what they want from the result, and nothing else is rendered (`ViewImages`).
        """
        thread = viewer_thread()
        if thread is not None:
            return displayed_view(thread, self, camera_ray_bundle)
        if not in_main_thread():  # an unknown thread may ask for more at any time
            return self.render_view(camera_ray_bundle, Need.PLATE)

        def render(need: Need) -> dict[str, Tensor]:
            # Commands ask for the same outputs of each view: the largest need so far is rendered at once.
            self._need_so_far = max(self._need_so_far, need)
            return self.render_view(camera_ray_bundle, self._need_so_far, smooth_edges=True)

        return ViewImages(render, needs=self.output_needs(), rays=camera_ray_bundle)

    def part_numbers(self) -> list[str]:
        """What tells the results of parts apart that are rendered, the latest first: their number of parts; of several
        objects NAME_K."""
        return [result.head.suffix for result in self.part_results]

    def display_settings(self) -> DisplaySettings:
        """What the viewer's panel is set to."""
        return self.viewer_controls.settings()

    def get_rgba_image(self, outputs: Mapping[str, Tensor], output_name: str = "rgb") -> Tensor:  # type: ignore[override]
        """The object with transparency (H, W, 4), its colours not premultiplied."""
        del output_name
        colours, alpha = outputs["foreground"], outputs["alpha"]
        return torch.cat([(colours / alpha.clamp(min=1e-3)).clamp(0, 1), alpha], dim=-1)

    def get_image_metrics_and_images(  # type: ignore[override]
        self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics against the photo, and against the truth where the batch brings it; and pictures for the log."""
        true_names = (self.kwargs.get("metadata") or {}).get("true_object_names", ())
        metrics = view_metrics(outputs, batch, self.config.lpips, self.object_names, true_names)
        if self._fits_appearance:
            metrics |= self.fitted_metrics(outputs, batch)
        return metrics, comparison_images(outputs, batch)

    def fitted_metrics(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics of the right half of a view, its appearance fitted to the left half; see `fitted_metrics`."""

        def render(rays: RayBundle, code: Tensor) -> Tensor:
            with self.appearance(code):
                return self.render_view(rays, Need.LAYERS, smooth_edges=True)["rgb"]

        with self._evaluating():
            return fitted_metrics(self.scene, outputs, batch, render, self.config.lpips)

    @contextmanager
    def fitting_appearance(self) -> Iterator[None]:
        """Inside, `get_image_metrics_and_images` adds `fitted_metrics`: not while training, where they take long."""
        self._fits_appearance = True
        try:
            yield
        finally:
            self._fits_appearance = False

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
