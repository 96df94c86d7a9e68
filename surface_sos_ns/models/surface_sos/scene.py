"""The whole numeric model: FoCoR, BaCo, the label that splits them, and the renderer, wired together.

Everything is in the object frame, with the object in the unit sphere; only `frame` knows the world frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from surface_sos_ns.clean_plate.clean_plate import CleanPlate
from surface_sos_ns.clean_plate.support_map import BackgroundView
from surface_sos_ns.fields.deformation import Deformation
from surface_sos_ns.fields.room import Room
from surface_sos_ns.fields.sky import Sky
from surface_sos_ns.models.surface_sos.adaptation import NO_ADAPTATION, Adaptation
from surface_sos_ns.models.surface_sos.appearance import Appearance
from surface_sos_ns.models.surface_sos.background import make_background
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.foreground import Foreground
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.gpu_memory import rays_at_once
from surface_sos_ns.models.surface_sos.heads import Head, LabelHead, make_heads
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_to_hull
from surface_sos_ns.models.surface_sos.object_grid import ObjectGrid
from surface_sos_ns.models.surface_sos.renderer import RayLayers, Renderer, RenderState, Shown
from surface_sos_ns.models.surface_sos.rendering import Mattes, Rendering
from surface_sos_ns.models.surface_sos.stored_values import as_tensor, from_tensor
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.rendering.ray_context import NO_CONTEXT, RayContext
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.training.mask_reliability import MaskReliability
from surface_sos_ns.training.residual_metric import ResidualMetric
from surface_sos_ns.training.schedules import Progress
from surface_sos_ns.utils.errors import UserError

MAP_RAYS = 1 << 13
"""Rays of the support map that are rendered at once on a CPU."""


class SurfaceSOS(nn.Module):
    """Foreground and background, rendered together. Object frame and object radii unless stated otherwise.

    Args:
        config: sizes and choices.
        views: number of training views.
        objects: names of several objects; empty for one.
        adaptation: of the sizes to the capture.

    Attributes:
        config: sizes and choices, adapted.
        objects: names of several objects, in the order of their identities, which are 1 to K; empty for one.
        frame: between world and object frame.
        foreground, background: the two layers.
        label: splits the layers in the default preset; the first of the heads.
        heads: further quantities learned on surfaces.
        object_grid: where the object is.
        cache: cached values of both fields, which guide sampling.
        appearance: of the training views.
        sky: colour of rays that hit nothing; None where these are black, or show the room.
        room: the same where the room is static in the camera's frame, as on a turntable; None where it is not.
        clean_plate: confidence and completion of the background.
        deformation: the object's motion; None where it does not deform.
        ops: back-end of the numeric operations, chosen again when the model is moved to another device.
        reliability: error rates of the coarse masks.
        residual_metric: metric of colour differences.

    Raises:
        UserError: a back-end that cannot run here, or options that exclude each other.
    """

    ops: TorchOps
    progress: Tensor
    ready: Tensor
    object_names: Tensor  # UTF-8 of the names; only with several objects

    def __init__(
        self,
        config: SceneConfig,
        views: int,
        objects: Sequence[str] = (),
        adaptation: Adaptation = NO_ADAPTATION,
    ):
        super().__init__()
        self.adaptation = adaptation
        config = adaptation.applied(config)
        if config.deformation.bound > 0 and config.split != "votes":
            raise UserError(
                "scene.deformation.bound: the object can deform only where the label splits the layers (split 'votes', "
                "the default preset); leave it 0 in the paper preset"
            )
        if len(objects) > 1 and config.split != "votes":
            raise UserError(
                f"There are {len(objects)} objects ({', '.join(objects)}), which only a label tells apart (split "
                "'votes', as surface-sos and surface-sos-lite have it). The paper preset takes masks of one object."
            )
        self.config, self.objects = config, tuple(objects) if len(objects) > 1 else ()
        ops = self.ops = choose_ops(config.backend, torch.device("cpu"))
        self.frame = ObjectFrame()
        self.foreground = Foreground(config, ops)
        self.background = make_background(config, ops)
        self.label = LabelHead(config, ops, max(len(self.objects), 1))
        self.heads = nn.ModuleList(make_heads(config, ops))
        self.appearance = Appearance(views, config.light_codes)
        self.sky = Sky(config.hidden, config.light_codes, ops) if config.sky else None
        self.room = Room(*config.room, views) if config.room is not None else None
        self.cache = FieldCache(config.cache_resolution, config.background_cache_resolution, config.split == "votes")
        self.clean_plate = CleanPlate(config.observation_resolution, several=bool(self.objects))
        self.reliability = MaskReliability(max(views, 1), self.label.objects)
        self.residual_metric = ResidualMetric()
        self.deformation = Deformation(config.deformation) if config.deformation.bound > 0 else None
        self.object_grid = ObjectGrid(config, ops, self.foreground, self.label, self.deformation, self.cache)
        self.renderer = Renderer(
            config,
            self.foreground,
            self.background,
            self.label,
            cast("Iterable[Head]", self.heads),
            self.deformation,
            self.object_grid,
            self.cache,
            self.appearance,
            self.clean_plate,
            self.sky,
            self.room,
        )
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))  # whether `initialise` has been called
        if adaptation != NO_ADAPTATION:
            self.register_buffer("adaptation_text", adaptation.stored())
        if self.objects:
            self.register_buffer("object_names", as_tensor(self.objects))
        self._done = 0.0  # the buffer's value on the host: reading it from a GPU would stall

    # ------------------------------------------------------------------ state

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # called by `to`, `cuda`, ...: the new device may need another back-end
        use_ops(self, choose_ops(self.config.backend, self.progress.device))
        self.attach(self.renderer.attached)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._done = float(self.progress)

    @property
    def dense(self) -> bool:
        """Whether a training step has fixed shapes and never waits for the device, see `ops.static`.

        Not where the object may deform: its largest displacement sets how samples are drawn, and is read on the host.
        """
        return self.training and self.ops.static and self.deformation is None

    @property
    def done(self) -> Progress:
        """Fraction of the run that is done, in [0, 1]; () on the device where a step must not depend on the host."""
        return self.progress.float() if self.dense else self._done

    def set_progress(self, fraction: float) -> None:
        """Set the fraction of the run that is done, for all schedules; clamped to [0, 1]."""
        self._done = min(max(fraction, 0.0), 1.0)
        self.progress.fill_(self._done)

    @property
    def sharpness(self) -> Tensor:
        """() b of eq. 6 for FoCoR."""
        return self.foreground.sharpness(self.done)

    @property
    def learned_heads(self) -> list[Head]:
        """The heads that are trained: the label if it splits the layers, and all others."""
        return [*([self.label] if self.object_grid.votes_split else []), *cast("Iterable[Head]", self.heads)]

    @property
    def painted_heads(self) -> list[Head]:
        """The heads that images are made of: those that are trained, and those that were learned after the run."""
        return [*self.learned_heads, *self.renderer.attached]

    def attach(self, heads: Iterable[Head]) -> None:
        """Have views rendered with heads that were learned on the finished run, in place of those attached before.

        They are no part of the run: neither trained nor in its checkpoint.
        """
        self.renderer.attached = [head.to(self.progress.device).requires_grad_(False) for head in heads]
        for head in self.renderer.attached:
            use_ops(head, self.ops)

    def describe(self) -> str:
        """One line for the log: the back-end, and how rays are sampled."""
        return f"operations: {self.ops.describe()} | cached sampling, {self.config.samples} samples"

    # ------------------------------------------------------------------ rendering

    def _state(self, shown: Shown | None = None) -> RenderState:
        return RenderState(self.done, self.training, self.dense, shown)

    def showing(self, identities: Iterable[int]) -> Shown:
        """What `render` needs to show some of several objects only.

        Args:
            identities: of the objects, in 1 to K; none for the background alone.
        """
        return self.renderer.showing(identities)

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        view: Tensor | None = None,
        plate: bool = True,
        regulariser_points: Tensor | None = None,
        time: Tensor | None = None,
        shown: Shown | None = None,
        code: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Rendering:
        """Render rays (eq. 3-7); in training, also count them in the observation grid.

        Args:
            origins, directions: (R, 3), directions unit. If they require gradients (refined poses), gradients go to
                them at fixed distances along the rays.
            view: (R,) int64, training view of each ray, for its appearance; None takes the mean appearance.
            plate: outside training, render the clean plate with samples of its own where the object covers it, and
                complete it; otherwise it is rendered with the samples at hand.
            regulariser_points: (Q, 3) at which the foreground is evaluated as well, in the same call of its field.
            time: (R,) in [0, 1], when each ray was taken; needed where the object may deform.
            shown: some of several objects, see `showing`; outside training. None renders all.
            code: (R, C) or (1, C) appearance, in place of a training view's; see `Appearance`.
            room: (R, 3) unit directions in the camera's axes, for a room that is static in its frame (`Room`). Computed
                here for training views. Without them rays that hit nothing are black.

        Raises:
            ValueError: the object may deform and no times are given.
        """
        if self.room is not None and room is None and view is not None:
            room = self.room.directions(directions, view)
        return self.renderer.render(
            origins, directions, self._state(shown), view, plate, regulariser_points, time, code, room
        )

    def matte(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Tensor:
        """The alpha (R,) of `render`, without colours and without samples on rays that miss the object."""
        return self.mattes(origins, directions, time).alpha

    def mattes(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Mattes:
        """As `matte`, and that of each of several objects."""
        return self.renderer.mattes(origins, directions, self._state(), time)

    def layers(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> RayLayers:
        """Both layers at the samples of rays (R, 3), and their weights: geometry without colours.

        `time` (R,) is needed where the object may deform.
        """
        return self.renderer.layers(origins, directions, self._state(), time=time)

    def recoloured(self, layers: RayLayers, directions: Tensor, code: Tensor, room: Tensor | None = None) -> Tensor:
        """The colours (R, 3) of `render` at another appearance, of rays whose layers are known.

        Args:
            layers: of the rays.
            directions: (R, 3) unit.
            code, room: as of `render`.
        """
        return self.renderer.recoloured(layers, directions, code, room)

    @property
    def sample_margin(self) -> float:
        """Distance from FoCoR's surface, object radii, up to which the foreground is evaluated on rays."""
        return float(self.renderer.plan(self._state()).margin)

    def background_view(self, origins: Tensor, directions: Tensor, context: RayContext = NO_CONTEXT) -> BackgroundView:
        """Rays (R, 3) through the background alone, at samples drawn for it; see `RenderBackground`."""
        return self.renderer.background_view(origins, directions, self._state(), context)

    # ------------------------------------------------------------------ a run

    def initialise(
        self,
        frame: ObjectFrame,
        contraction_radius: float,
        probability: Tensor,
        signed_distance: Tensor,
        lines: SightLines | None = None,
        steps: int = 300,
        identity: Tensor | None = None,
    ) -> None:
        """Initialise before training.

        FoCoR is fitted to the signed distance of the voted hull, the label to its probability, BaCo to the sparse
        points outside the hull; m^P starts as the hull's probability.

        Args:
            frame: of the object that was found.
            contraction_radius: distance from the centre up to which space is not contracted, object radii, at least 1:
                that of the cameras.
            probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
            signed_distance: (R, R, R) to the hull, object radii, negative inside.
            lines: sparse points and their lines of sight.
            steps: of each regression, a few milliseconds each.
            identity: (R, R, R) uint8 in 1 to K, which of several objects' hulls it is; None with one object.
        """
        device = self.progress.device
        identity = None if identity is None else identity.to(device)
        probability, signed_distance = probability.to(device), signed_distance.to(device)
        self.frame.take(frame)
        self.background.set_contraction_radius(contraction_radius)
        self.object_grid.start(probability, identity)
        fit_to_hull(self.foreground.field, self.label.field, probability, signed_distance, steps, identity)
        if lines is not None:
            # what is inside the hull may be a part of the object that few masks cover
            outside = self.object_grid.beside_hull(lines.points)
            seen = None if lines.seen is None else lines.seen[outside]
            self.background.fit(SightLines(lines.points[outside], lines.cameras, seen), steps)
        self.update_cache()
        self.ready.fill_(True)

    @torch.no_grad()
    def update_cache(self, share: float = 1.0) -> None:
        """Refresh what is not refreshed at every step: cached fields, observation grid's fading, colour metric.

        Args:
            share: of the cells, drawn at random; those near FoCoR's surface are always refreshed.
        """
        self.clean_plate.observations.fade(self._done)
        self.residual_metric.update()
        self.object_grid.refresh_cache(share, self._done)
        self.background.refresh_cache(self.cache, self.object_grid.crop, share)

    def discount_hidden(self, cameras: Tensor) -> None:
        """Discount observations of background that the object hides in all views: rays had leaked through it.

        Args:
            cameras: (V, 3) centres of the training views, world frame.
        """
        _, dilated = self.object_grid.solid_cells()
        self.clean_plate.discount_hidden(dilated, self.frame.points(cameras))

    def map_support(self, cameras: Tensor) -> bool:
        """Build the support map for clean plates.

        Args:
            cameras: (V, 3) centres of the training views, world frame.

        Returns:
            Whether the object stands on (or hangs at) a plane.
        """
        training, centres = self.training, self.frame.points(cameras)
        self.eval()
        try:
            at_once = rays_at_once(self.config, centres.device, MAP_RAYS, self.label.objects)
            return self.clean_plate.map_support(self.background_view, *self.object_grid.solid_cells(), centres, at_once)
        finally:
            self.train(training)


def stored_objects(state: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    """Names of the objects of a scene whose state dict this is; empty for one object.

    Args:
        state: of the scene, or of what holds it.
        prefix: before the scene's own keys.
    """
    stored = state.get(f"{prefix}object_names")
    return () if stored is None else tuple(from_tensor(stored))
