"""The whole numeric model: FoCoR and BaCo, what splits them, and the renderer over both, wired together.

Everything is in the object frame (object in the unit sphere); `frame` alone knows the world.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from surface_sos_ns.clean_plate.clean_plate import CleanPlate
from surface_sos_ns.clean_plate.support_map import BackgroundView
from surface_sos_ns.fields.deformation import Deformation
from surface_sos_ns.models.surface_sos.background import make_background
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.exposure import Exposure
from surface_sos_ns.models.surface_sos.foreground import Foreground
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.heads import Head, LabelHead, make_heads
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_to_hull
from surface_sos_ns.models.surface_sos.object_grid import ObjectGrid
from surface_sos_ns.models.surface_sos.renderer import Renderer, State
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.training.mask_reliability import MaskReliability
from surface_sos_ns.training.residual_metric import ResidualMetric
from surface_sos_ns.utils.errors import UserError


class SurfaceSOS(nn.Module):
    """Two layers, rendered together. Rays, points and lengths are of the object frame unless said otherwise.

    Args:
        config: sizes and choices.
        views: number of training views.

    Attributes:
        frame: between world and object frame.
        foreground, background: the two layers.
        label: what splits them in the default preset, also the first of the heads.
        heads: what surfaces carry besides.
        object_grid: where the object is.
        cache: of both layers, guides sampling.
        exposure: of the training views.
        clean_plate: what is known of the background, and what completes it.
        deformation: the object's motion; None where it does not move.
        ops: numeric operations that the parts compute with, chosen anew on another device.
        reliability, residual_metric: what training has learned about masks and colours.

    Raises:
        UserError: a back-end that cannot run here, or options that do not go together.
    """

    ops: TorchOps
    progress: Tensor
    ready: Tensor

    def __init__(self, config: SceneConfig, views: int):
        super().__init__()
        if config.deformation.bound > 0 and config.split != "votes":
            raise UserError(
                "scene.deformation.bound: the object can deform only where the label splits the layers (split 'votes', "
                "the default preset); leave it 0 in the paper preset"
            )
        self.config = config
        ops = self.ops = choose_ops(config.backend, torch.device("cpu"))
        self.frame = ObjectFrame()
        self.foreground = Foreground(config, ops)
        self.background = make_background(config, ops)
        self.label = LabelHead(config, ops)
        self.heads = nn.ModuleList(make_heads(config, ops))
        self.exposure = Exposure(views)
        self.cache = FieldCache(config.cache_resolution, config.background_cache_resolution, config.split == "votes")
        self.clean_plate = CleanPlate(config.observation_resolution)
        self.reliability = MaskReliability(max(views, 1))
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
            self.exposure,
            self.clean_plate,
        )
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))  # whether `initialise` has been called
        self._done = 0.0  # the buffer's value: reading it from a GPU in every call would stall

    # ------------------------------------------------------------------ state

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # of `to` and its like: on another device other operations may be the best
        use_ops(self, choose_ops(self.config.backend, self.progress.device))
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._done = float(self.progress)

    @property
    def done(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        return self._done

    def set_progress(self, fraction: float) -> None:
        """Tell the schedules how much of the run is done, in [0, 1]."""
        self._done = min(max(fraction, 0.0), 1.0)
        self.progress.fill_(self._done)

    @property
    def sharpness(self) -> Tensor:
        """() b of eq. 6 for FoCoR."""
        return self.foreground.sharpness(self._done)

    @property
    def learned_heads(self) -> list[Head]:
        """The heads that are trained: the label where it splits the layers, and all others."""
        return [*([self.label] if self.object_grid.votes_split else []), *cast("Iterable[Head]", self.heads)]

    def describe(self) -> str:
        """One line: what computes the operations, and how rays are sampled."""
        return f"operations: {self.ops.describe()} | cached sampling, {self.config.samples} samples"

    # ------------------------------------------------------------------ rendering

    def _state(self) -> State:
        return State(self._done, self.training)

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        view: Tensor | None = None,
        plate: bool = True,
        regulariser_points: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Rendering:
        """Render rays; in training, also note what they see of the background.

        Args:
            origins, directions: (R, 3), directions unit. Where they have gradients (poses that are refined), what is
                rendered has one with respect to them, at fixed distances along the rays.
            view: (R,) training view of each ray for its exposure; None uses the mean.
            plate: outside training, resample behind the object for the clean plate; without it the background is
                read off the samples of the first pass.
            regulariser_points: (Q, 3) at which the losses want the foreground as well: one evaluation of a field costs
                less than two.
            time: (R,) in [0, 1], when each ray was taken; needed where the object may deform.

        Raises:
            ValueError: the object may deform and there are no times.
        """
        return self.renderer.render(origins, directions, self._state(), view, plate, regulariser_points, time)

    def matte(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Tensor:
        """(R,) the object's alpha alone, as `render` has it: no colours, and nothing on rays that miss the object."""
        return self.renderer.matte(origins, directions, self._state(), time)

    def background_view(self, origins: Tensor, directions: Tensor) -> BackgroundView:
        """What rays (R, 3) see of the background alone."""
        return self.renderer.background_view(origins, directions, self._state())

    # ------------------------------------------------------------------ a run

    def initialise(
        self,
        frame: ObjectFrame,
        contraction_radius: float,
        probability: Tensor,
        signed_distance: Tensor,
        lines: SightLines | None = None,
        steps: int = 300,
    ) -> None:
        """Start from what is known before training.

        FoCoR starts at the voted hull's signed distance, the label at its votes, m^P at its probability, and BaCo at
        the sparse points that lie outside the hull.

        Args:
            frame: of the object that was found.
            contraction_radius: how far from the centre space is as detailed as near the object, in object radii, at
                least 1: the distance of the cameras. What lies beyond is contracted.
            probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
            signed_distance: (R, R, R) to the hull, negative inside.
            lines: sparse points and who sees them.
            steps: of each regression, a few milliseconds each.
        """
        device = self.progress.device
        probability, signed_distance = probability.to(device), signed_distance.to(device)
        self.frame.take(frame)
        self.background.set_contraction_radius(contraction_radius)
        self.object_grid.start(probability)
        fit_to_hull(self.foreground.field, self.label.field, probability, signed_distance, steps)
        if lines is not None:
            outside = self.object_grid.beside_hull(lines.points)  # a part that most masks miss is not lost
            seen = None if lines.seen is None else lines.seen[outside]
            self.background.fit(SightLines(lines.points[outside], lines.cameras, seen), steps)
        self.update_cache()
        self.ready.fill_(True)

    @torch.no_grad()
    def update_cache(self, share: float = 1.0) -> None:
        """Refresh the cached fields that guide sampling, and the metric of colours; fade what the background showed.

        Args:
            share: of the cells, drawn at random; of FoCoR's, those near its surface are refreshed in any case.
        """
        self.clean_plate.observations.fade(self._done)
        self.residual_metric.update()
        self.object_grid.refresh_cache(share, self._done)
        self.background.refresh_cache(self.cache, self.object_grid.crop, share)

    def discount_hidden(self, cameras: Tensor) -> None:
        """Discount what training believes to have seen of the background where the object hides it in all views.

        Args:
            cameras: (V, 3) centres of the training views, world frame.
        """
        _, around = self.object_grid.solid_cells()
        self.clean_plate.discount_hidden(around, self.frame.points(cameras))

    def map_support(self, cameras: Tensor) -> bool:
        """Map what the object stands on, for clean plates; whether it stands on a plane.

        Args:
            cameras: (V, 3) centres of the training views, world frame.
        """
        training, centres = self.training, self.frame.points(cameras)
        self.eval()
        try:
            return self.clean_plate.map_support(self.background_view, *self.object_grid.solid_cells(), centres)
        finally:
            self.train(training)
