"""A ray's way through both layers (eq. 3-7), once from samples to colours.

Coarse intervals -> samples drawn where the cached fields stop light -> opacities of both layers -> weights -> colours
where the weights matter -> sums along the ray. Everything is in the object frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from surface_sos_ns.clean_plate.clean_plate import CleanPlate, PlateView
from surface_sos_ns.clean_plate.support_map import BackgroundView
from surface_sos_ns.fields.deformation import Deformation, Displacement
from surface_sos_ns.models.surface_sos.background import Background
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.exposure import Exposure
from surface_sos_ns.models.surface_sos.foreground import Foreground, ForegroundSamples
from surface_sos_ns.models.surface_sos.heads import Head, LabelHead
from surface_sos_ns.models.surface_sos.object_grid import LEAST_HULL, ObjectGrid
from surface_sos_ns.models.surface_sos.rendering import RegulariserPoints, Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights, no_values
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples

OUT_OF_SIGHT = 4.0
"""Object radii behind the centre's distance, where the object counts as lying on rays that miss it: a surface there is
beyond its cube, and beyond the boxes that people give to ns-export."""


@dataclass(frozen=True)
class State:
    """Of the run, for one rendering."""

    progress: float
    """Fraction of the run that is done."""
    training: bool
    """Draw few samples at random and note what is seen of the background."""


class Renderer:
    """Renders rays of the object frame through a scene's parts, which it does not own."""

    def __init__(
        self,
        config: SceneConfig,
        foreground: Foreground,
        background: Background,
        label: LabelHead,
        heads: Iterable[Head],
        deformation: Deformation | None,
        object_grid: ObjectGrid,
        cache: FieldCache,
        exposure: Exposure,
        clean_plate: CleanPlate,
    ):
        self.config = config
        self.foreground, self.background, self.label, self.heads = foreground, background, label, heads
        self.deformation, self.object_grid, self.cache = deformation, object_grid, cache
        self.exposure, self.clean_plate = exposure, clean_plate

    @property
    def ops(self) -> TorchOps:
        """Numeric operations; those of the parts."""
        return self.foreground.ops

    # ------------------------------------------------------------------ what rays see

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        state: State,
        view: Tensor | None = None,
        plate: bool = True,
        regulariser_points: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Rendering:
        """See `SurfaceSOS.render`."""
        samples = self.sample(origins, directions, self.plan(state), state)
        displacement = self._displaced(samples, samples.near_surface, time)
        front = self.foreground.evaluate(samples, directions, displacement, state.progress, regulariser_points)
        back = self.background.evaluate(samples, directions, state.progress)
        gate, label, logits, rgb = self._split(samples, front, directions, state, time, regulariser_points)
        crop = samples.crop.reshape(samples.interval.shape).amax(-1)
        to_object = -(origins * directions).sum(-1).detach().clamp(max=-1.0)
        weights = self.ops.composite_weights(front.opacity, back.opacity, gate, samples.edges, to_object, crop)

        rgb_f, carried = self._surface_values(samples, front, directions, weights, rgb)
        rgb_b = self.background.colours(back, samples, directions, weights.background, weights.alone)
        if label is not None:
            carried[self.label.name] = self.label.accumulate(weights, label)
        unit = PackedValues(front.unit, samples.near_surface)
        colours = self.ops.composite_colours(weights, self._to_light(rgb_f), self._to_light(rgb_b), unit)
        if state.training:
            self.clean_plate.observe(samples, weights.background.detach())
        plate_view = self._plate(origins, directions, samples, weights, colours, state, plate and not state.training)

        gain, offset = self.exposure(view)
        alpha, count = weights.alpha[:, None], front.size
        object_alone = self._to_display(colours.foreground / alpha.clamp(min=1e-3)) * alpha
        per_ray = samples.interval.shape[1]
        crosses_hull = torch.zeros_like(crop, dtype=torch.bool).index_fill_(0, samples.in_hull // per_ray, True)
        further = origins.new_zeros(0, 3) if regulariser_points is None else regulariser_points
        normals = front.surface.normal
        assert normals is not None
        return Rendering(
            rgb=self._to_display(colours.rgb) * gain + offset * weights.accumulation[:, None],
            alpha=weights.alpha,
            foreground=object_alone * gain + offset * alpha,
            background=self._to_display(plate_view.colours) * gain + offset,
            background_confidence=plate_view.confidence,
            background_filled=plate_view.filled,
            shadow=plate_view.shadow,
            depth=weights.depth,
            object_depth=_object_depth(weights.foreground.detach(), samples.edges, to_object),
            normal=colours.normal,
            accumulation=weights.accumulation,
            carried=carried,
            crosses_hull=crosses_hull,
            crop=crop,
            distortion=weights.distortion,
            sdf=front.surface.sdf[:count],
            sdf_normals=normals[:count],
            background_normals=back.normals,
            regularisers=RegulariserPoints(further, front.surface.sdf[count:], normals[count:], logits),
        )

    def matte(self, origins: Tensor, directions: Tensor, state: State, time: Tensor | None = None) -> Tensor:
        """See `SurfaceSOS.matte`."""
        samples = self.sample(origins, directions, replace(self.plan(state), foreground_only=True), state)
        alpha = origins.new_zeros(origins.shape[0])
        if samples.near_surface.numel() == 0:
            return alpha
        directions = directions[samples.rays]
        displacement = self._displaced(samples, samples.near_surface, time)
        front = self.foreground.evaluate(samples, directions, displacement, state.progress)
        gate, *_ = self._split(samples, front, directions, state, time, None)
        back = self.background.evaluate(samples, directions, state.progress)
        ones = samples.edges.new_ones(samples.edges.shape[0])  # nothing of what they decide reaches alpha
        weights = self.ops.composite_weights(front.opacity, back.opacity, gate, samples.edges, ones, ones)
        return alpha.index_put((samples.rays,), weights.alpha)

    def background_view(self, origins: Tensor, directions: Tensor, state: State) -> BackgroundView:
        """What rays (R, 3) see of the background alone, sampled where the background is."""
        samples = self.sample(origins, directions, replace(self.plan(state), background_only=True), state)
        back = self.background.evaluate(samples, directions, state.progress)
        none, ones = no_values(origins), samples.edges.new_ones(samples.edges.shape[0])
        weights = self.ops.composite_weights(none, back.opacity, none, samples.edges, ones, ones)
        rgb = self.background.colours(back, samples, directions, weights.alone)
        blank = no_values(origins, 3)
        colours = self.ops.composite_colours(weights, blank, self._to_light(rgb), blank)
        confidence = self.clean_plate.confidence(samples, weights.alone)
        return BackgroundView(colours.background, confidence, weights.alone, samples.edges)

    # ------------------------------------------------------------------ samples

    def plan(self, state: State) -> SamplePlan:
        """How rays are sampled now."""
        c, sharpness = self.config, float(self.foreground.sharpness(state.progress).detach())
        # FoCoR only where its cached distance can matter; elsewhere it is empty.
        margin = 5.0 / sharpness + 2.0 * self.cache.cell
        if self.deformation is not None:  # the cache is canonical: what is seen may be that far from it
            displacement = self.deformation.max_displacement
            margin += displacement
            sharpness = min(sharpness, 1.0 / max(displacement, 1e-6))
        return SamplePlan(
            c.candidates,
            c.near_fraction,
            c.far,
            c.samples if state.training else c.render_samples,
            sharpness,
            self.background.contraction_radius,
            margin,
            LEAST_HULL,
        )

    def sample(self, origins: Tensor, directions: Tensor, plan: SamplePlan, state: State) -> Samples:
        """Samples of rays (R, 3), and at which of them each field is evaluated."""
        hull = self.object_grid.reachable if self.object_grid.votes_split else None
        fixed = (origins.detach(), directions.detach())
        probability = self.object_grid.probability
        samples = self.ops.sample_rays(self.cache, probability, hull, *fixed, plan, state.training)
        samples = self.background.place(samples)
        # Poses that are refined learn by what lies at the distances drawn, not by which are drawn.
        moves = origins.requires_grad or directions.requires_grad
        return samples.on_rays(origins, directions) if moves else samples

    def _displaced(self, samples: Samples, where: Tensor, time: Tensor | None) -> Displacement | None:
        """The samples listed in `where` in the canonical frame, seen by rays at times (R,); None where nothing deforms.

        Raises:
            ValueError: the object may deform and the rays have no times.
        """
        if self.deformation is None:
            return None
        if time is None:
            raise ValueError("the object may deform (scene.deformation): rays need the times at which they were taken")
        times = time[samples.rays][where // samples.interval.shape[1]]
        return self.deformation(samples.points[where], times)

    # ------------------------------------------------------------------ what lies at them

    def _split(
        self,
        samples: Samples,
        front: ForegroundSamples,
        directions: Tensor,
        state: State,
        time: Tensor | None,
        further: Tensor | None,
    ) -> tuple[PackedValues, PackedValues | None, Tensor, Tensor | None]:
        """The alpha of eq. 3 that splits the layers.

        Returns:
            gate; the label at the same samples and its logits at further points, where votes split; the foreground's
            colours at all of its samples, where they had to be asked for the predicted alpha.
        """
        if self.object_grid.votes_split:
            displacement = self._displaced(samples, samples.in_hull, time)
            found = self.label.evaluate(samples, displacement, state.progress, further)
            return found.gate, found.label, found.further, None
        rgb, predicted = self.foreground.colour(
            front.colour_inputs, directions[samples.near_surface // samples.interval.shape[1]]
        )
        assert predicted is not None
        return PackedValues(predicted, samples.near_surface), None, rgb.new_zeros(0), rgb

    def _surface_values(
        self, samples: Samples, front: ForegroundSamples, directions: Tensor, weights: RayWeights, rgb: Tensor | None
    ) -> tuple[PackedValues, dict[str, Tensor]]:
        """Colours of the foreground where they can be seen, and what the heads' fields there add up to along rays."""
        if rgb is not None and not self.heads:
            return PackedValues(rgb, samples.near_surface), {}
        threshold = self.config.colour_threshold
        chosen, seen = self.ops.seen_samples(samples.near_surface, threshold, weights.foreground)
        if rgb is None:
            rgb, _ = self.foreground.colour(front.colour_inputs[chosen], directions[seen // samples.interval.shape[1]])
            colours = PackedValues(rgb, seen)
        else:
            colours = PackedValues(rgb, samples.near_surface)
        points = front.points[chosen].detach()
        return colours, {head.name: head.accumulate(weights, PackedValues(head(points), seen)) for head in self.heads}

    def _plate(
        self,
        origins: Tensor,
        directions: Tensor,
        samples: Samples,
        weights: RayWeights,
        colours: RayColours,
        state: State,
        complete: bool,
    ) -> PlateView:
        """The clean plate: read off the samples at hand, or looked at anew behind the object and completed."""
        none = torch.zeros_like(weights.alpha)
        if not complete:
            return PlateView(colours.background, none, none, none)
        confidence = self.clean_plate.confidence(samples, weights.alone)
        beside = BackgroundView(colours.background, confidence, weights.alone, samples.edges)

        def look(at: Tensor, towards: Tensor) -> BackgroundView:
            return self.background_view(at, towards, state)

        return self.clean_plate.complete(origins, directions, beside, weights.alpha, look)

    def _to_light(self, colours: PackedValues) -> PackedValues:
        """What the colours of samples add to a ray."""
        return colours._replace(values=to_light(colours.values)) if self.config.blending == "light" else colours

    def _to_display(self, colours: Tensor) -> Tensor:
        """The way back from :meth:`_to_light`, for what has been added up."""
        return to_display(colours) if self.config.blending == "light" else colours


def _object_depth(weights: Tensor, edges: Tensor, to_object: Tensor) -> Tensor:
    """(R,) where rays meet the object that weighs (R, S) in them; where that is less than half, beyond its cube."""
    alpha = weights.sum(-1)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    met = (weights * middle).sum(-1) / alpha.clamp(min=1e-6)
    return torch.where(alpha > 0.5, met, to_object + OUT_OF_SIGHT)
