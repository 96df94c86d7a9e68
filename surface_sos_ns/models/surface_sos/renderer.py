"""Rendering of rays through both layers (eq. 3-7).

Coarse intervals -> importance sampling by the cached fields -> opacities of both layers -> weights -> colours where the
weights matter -> sums along the ray. The gate is the alpha of eq. 3 that splits the layers: the label's, or the
predicted one. The crop is m^P (eq. 4) at a sample. Everything is in the object frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.clean_plate.clean_plate import CleanPlate, PlateView
from surface_sos_ns.clean_plate.support_map import BackgroundView
from surface_sos_ns.fields.deformation import Deformation, Displacement
from surface_sos_ns.fields.room import Room
from surface_sos_ns.fields.sky import Sky
from surface_sos_ns.models.surface_sos.appearance import Appearance, ViewAppearance
from surface_sos_ns.models.surface_sos.background import Background, BackgroundSamples
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.foreground import Foreground, ForegroundSamples
from surface_sos_ns.models.surface_sos.heads import Head, LabelHead
from surface_sos_ns.models.surface_sos.object_grid import MIN_HULL_PROBABILITY, ObjectGrid
from surface_sos_ns.models.surface_sos.rendering import Mattes, RegulariserPoints, Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights, no_values, scale_gradient
from surface_sos_ns.rendering.ray_context import NO_CONTEXT, RayContext
from surface_sos_ns.sampling.candidates import advance_of_rays
from surface_sos_ns.sampling.field_cache import FieldCache, distance_to_cells
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples
from surface_sos_ns.sampling.selection import Selection
from surface_sos_ns.training.schedules import Progress

FILL_DEPTH = 6.0
"""Depth under FoCoR's surface, in 1 / b, at which its opacity is at least 1/2 where only some objects are rendered; see
`Renderer._filled`."""
NO_OBJECT_OFFSET = 4.0
"""Distance behind the object's centre, object radii, that `object_depth` has on rays that miss the object: beyond the
object cube, and beyond the boxes that users give to ns-export."""


class Shown(NamedTuple):
    """Which of several objects are rendered. The others neither occlude anything nor cast a shadow."""

    objects: Tensor  # (K,) bool
    cache: FieldCache  # which draws samples past the others
    shade: Tensor | None  # of the shown ones, see `SupportMap.shade_of`; None without a map


@dataclass(frozen=True)
class RenderState:
    """The state of the run that rendering depends on."""

    progress: Progress
    """Fraction of the run that is done."""
    training: bool
    """Draw few samples, at random, and count them in the observation grid."""
    dense: bool = False
    """Evaluate fields at all samples and never wait for the device, see `sampling.selection`."""
    shown: Shown | None = None
    """Some of several objects, outside training; None renders all."""


class Split(NamedTuple):
    """What splits the layers at the samples, and which of several objects their foreground is."""

    gate: PackedValues  # the alpha of eq. 3
    label: PackedValues | None  # of the samples in the hull; None with a predicted alpha
    shares: PackedValues | None  # (I, K) of several objects there, of sum 1; None with one object
    label_logits: Tensor  # (Q, K) at the further points
    predicted_rgb: Tensor | None  # (N, 3) of all foreground samples, which come with a predicted alpha; else None


class RayLayers(NamedTuple):
    """Both layers at the samples of R rays, and how they blend there."""

    samples: Samples
    front: ForegroundSamples
    back: BackgroundSamples
    split: Split
    to_object: Tensor  # (R,) distance along the ray of the point nearest to the object's centre
    crop: Tensor  # (R,) highest m^P along the ray
    weights: RayWeights


class Renderer:
    """Renders rays of the object frame through the parts of a scene, which it does not own; see `SurfaceSOS`."""

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
        appearance: Appearance,
        clean_plate: CleanPlate,
        sky: Sky | None = None,
        room: Room | None = None,
    ):
        self.config = config
        self.foreground, self.background, self.label, self.heads = foreground, background, label, heads
        self.attached: list[Head] = []  # heads that were learned after the run, see `SurfaceSOS.attach`
        self.deformation, self.object_grid, self.cache = deformation, object_grid, cache
        self.appearance, self.clean_plate, self.sky, self.room = appearance, clean_plate, sky, room

    @property
    def ops(self) -> TorchOps:
        """Back-end of the numeric operations: that of the parts."""
        return self.foreground.ops

    @torch.no_grad()
    def showing(self, identities: Iterable[int]) -> Shown:
        """See `SurfaceSOS.showing`."""
        objects = torch.zeros(self.label.objects, dtype=torch.bool, device=self.cache.sdf.device)
        objects[[identity - 1 for identity in identities]] = True
        there = objects[self.object_grid.cell_owners() - 1]
        cache = FieldCache(self.cache.resolution, self.cache.background_resolution, self.cache.splits)
        # Where a removed object touched a shown one, the field has no surface: samples are drawn at the cut.
        cache.sdf = torch.maximum(self.cache.sdf, distance_to_cells(there) * self.cache.cell)
        cache.gate, cache.density = self.cache.gate * there, self.cache.density
        solid, _ = self.object_grid.solid_cells()
        return Shown(objects, cache, self.clean_plate.support_map.shade_of(solid & there))

    # ------------------------------------------------------------------ rendering

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        state: RenderState,
        view: Tensor | None = None,
        plate: bool = True,
        regulariser_points: Tensor | None = None,
        time: Tensor | None = None,
        code: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Rendering:
        """See `SurfaceSOS.render`."""
        gain, offset, light = self._appearance(origins.shape[0], view, code)
        context = RayContext(light, room)
        layers = self.layers(origins, directions, state, regulariser_points, time, light)
        samples, front, back, split, to_object, crop, weights = layers
        colours, opaque, head_values = self._colours(layers, directions, context, split.predicted_rgb)
        if split.label is not None:
            head_values[self.label.name] = self.label.accumulate(weights, split.label)
        if state.training:
            self.clean_plate.observe(samples, weights.background.detach())
        plate_view = self._plate(
            origins, directions, samples, weights, colours, state, plate and not state.training, context
        )

        alpha, count = weights.alpha[:, None], front.size
        object_alone = self._to_display(colours.foreground / alpha.clamp(min=1e-3)) * alpha
        further = origins.new_zeros(0, 3) if regulariser_points is None else regulariser_points
        normals = front.surface.normal
        assert normals is not None
        return Rendering(
            rgb=self._to_display(colours.rgb) * gain + offset * opaque[:, None],
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
            head_values=head_values,
            objects=self._object_mattes(weights, split),
            crosses_hull=samples.in_hull.crossed_rays(crop.shape[0]),
            crop=crop,
            distortion=weights.distortion,
            sdf=front.surface.sdf[:count],
            sdf_normals=normals[:count],
            sdf_counted=samples.near_surface.counted,
            background_normals=back.normals,
            background_counted=back.counted,
            regularisers=RegulariserPoints(further, front.surface.sdf[count:], normals[count:], split.label_logits),
        )

    def recoloured(self, layers: RayLayers, directions: Tensor, code: Tensor, room: Tensor | None = None) -> Tensor:
        """See `SurfaceSOS.recoloured`."""
        gain, offset, light = self._appearance(directions.shape[0], None, code)
        colours, opaque, _ = self._colours(layers, directions, RayContext(light, room), None)
        return self._to_display(colours.rgb) * gain + offset * opaque[:, None]

    def _appearance(self, rays: int, view: Tensor | None, code: Tensor | None) -> ViewAppearance:
        """The appearance of so many rays, see `Appearance.forward`; with a latent code of each where there are some."""
        found = self.appearance(view, code)
        return found if found.light is None else found._replace(light=found.light.expand(rays, -1))

    def _colours(
        self, layers: RayLayers, directions: Tensor, context: RayContext, predicted: Tensor | None
    ) -> tuple[RayColours, Tensor, dict[str, Tensor]]:
        """Colours of rays, before the exposure; how opaque (R,) they are; and the values of heads.

        Args:
            layers: of R rays.
            directions: (R, 3) unit.
            context: of the rays.
            predicted: colours of the foreground at the samples near its surface, where they are known already.
        """
        samples, front, back, _, _, crop, weights = layers
        light = context.light
        rgb_f, head_values = self._surface_values(samples, front, directions, weights, predicted, light)
        rgb_b = self.background.colours(back, samples, directions, weights.background, weights.background_only, light)
        unit = samples.near_surface.pack(front.unit)
        colours = self.ops.composite_colours(weights, self._to_light(rgb_f), self._to_light(rgb_b), unit)
        colours, opaque = self._over_surroundings(colours, weights, directions, context, crop)
        return colours, opaque, head_values

    def layers(
        self,
        origins: Tensor,
        directions: Tensor,
        state: RenderState,
        regulariser_points: Tensor | None = None,
        time: Tensor | None = None,
        light: Tensor | None = None,
    ) -> RayLayers:
        """Both fields at the samples of rays, and their weights, without colours; see `SurfaceSOS.render`."""
        samples = self.sample(origins, directions, self.plan(state), state)
        displacement = self._displaced(samples, samples.near_surface, time)
        front = self.foreground.evaluate(samples, directions, displacement, state.progress, regulariser_points)
        if state.shown is not None:
            front = self._filled(front, state)
        back = self.background.evaluate(samples, directions, state.progress)
        split = self._split(samples, front, directions, state, time, regulariser_points, light)
        crop = samples.crop.reshape(samples.interval.shape).amax(-1)
        to_object = -(origins * directions).sum(-1).detach().clamp(max=-1.0)
        weights = self.ops.composite_weights(front.opacity, back.opacity, split.gate, samples.edges, to_object, crop)
        return RayLayers(samples, front, back, split, to_object, crop, weights)

    def mattes(self, origins: Tensor, directions: Tensor, state: RenderState, time: Tensor | None = None) -> Mattes:
        """See `SurfaceSOS.mattes`."""
        samples = self.sample(origins, directions, replace(self.plan(state), foreground_only=True), state)
        alpha = origins.new_zeros(origins.shape[0])
        each = alpha.new_zeros(len(alpha), self.label.objects) if self.label.objects > 1 else None
        if samples.near_surface.empty:
            return Mattes(alpha, each)
        directions = directions[samples.rays]
        displacement = self._displaced(samples, samples.near_surface, time)
        front = self.foreground.evaluate(samples, directions, displacement, state.progress)
        split = self._split(samples, front, directions, state, time, None)
        back = self.background.evaluate(samples, directions, state.progress)
        ones = samples.edges.new_ones(samples.edges.shape[0])  # alpha depends on neither of them
        weights = self.ops.composite_weights(front.opacity, back.opacity, split.gate, samples.edges, ones, ones)
        found = self._object_mattes(weights, split)
        if each is not None and found is not None:
            each = each.index_put((samples.rays,), found)
        return Mattes(alpha.index_put((samples.rays,), weights.alpha), each)

    def background_view(
        self, origins: Tensor, directions: Tensor, state: RenderState, context: RayContext = NO_CONTEXT
    ) -> BackgroundView:
        """See `SurfaceSOS.background_view`."""
        samples = self.sample(origins, directions, replace(self.plan(state), background_only=True), state)
        back = self.background.evaluate(samples, directions, state.progress)
        none, ones = no_values(origins), samples.edges.new_ones(samples.edges.shape[0])
        weights = self.ops.composite_weights(none, back.opacity, none, samples.edges, ones, ones)
        rgb = self.background.colours(back, samples, directions, weights.background_only, light=context.light)
        blank = no_values(origins, 3)
        colours = self.ops.composite_colours(weights, blank, self._to_light(rgb), blank)
        colours, _ = self._over_surroundings(colours, weights, directions, context)
        confidence = self._background_confidence(samples, weights, context)
        return BackgroundView(colours.background, confidence, weights.background_only, samples.edges)

    # ------------------------------------------------------------------ samples

    def plan(self, state: RenderState) -> SamplePlan:
        """The sample plan at this state of the run."""
        c, learned = self.config, self.foreground.sharpness(state.progress).detach()
        sharpness: float | Tensor = learned if state.dense else float(learned)
        # Beyond this distance from FoCoR's surface its opacity is negligible: exp(-5), and two cells for the cache.
        margin = 5.0 / sharpness + 2.0 * self.cache.cell
        if self.deformation is not None:  # the cache is canonical: observed points may be displaced by as much
            displacement = self.deformation.max_displacement
            margin += displacement
            sharpness = min(float(sharpness), 1.0 / max(displacement, 1e-6))
        return SamplePlan(
            c.candidates,
            c.near_fraction,
            c.far,
            c.samples if state.training else c.render_samples,
            sharpness,
            self.background.contraction_radius,
            margin,
            MIN_HULL_PROBABILITY,
            dense=state.dense,
        )

    def sample(self, origins: Tensor, directions: Tensor, plan: SamplePlan, state: RenderState) -> Samples:
        """Draw samples of rays (R, 3), and list those at which each field is evaluated."""
        hull = self.object_grid.reachable if self.object_grid.votes_split else None
        fixed = (origins.detach(), directions.detach())
        probability = self.object_grid.probability
        cache = self.cache if state.shown is None else state.shown.cache
        advance = advance_of_rays(*fixed, self.object_grid.distance_to_hull(fixed[0]))
        begin = fixed[0] + advance[:, None] * fixed[1]
        samples = self.ops.sample_rays(cache, probability, hull, begin, fixed[1], plan, state.training)
        samples = self.background.select_samples(samples).from_farther_back(advance)
        # Refined poses get gradients through the points at the drawn distances, not through the drawing.
        refined = origins.requires_grad or directions.requires_grad
        return samples.on_rays(origins, directions) if refined else samples

    def _displaced(self, samples: Samples, selection: Selection, time: Tensor | None) -> Displacement | None:
        """The selected samples, of rays at times (R,), in the canonical frame; None without deformation.

        Raises:
            ValueError: the object may deform and no times are given.
        """
        if self.deformation is None:
            return None
        if time is None:
            raise ValueError("the object may deform (scene.deformation): rays need the times at which they were taken")
        return self.deformation(selection.take(samples.points), selection.take_of_rays(time[samples.rays]))

    # ------------------------------------------------------------------ values at the samples

    def _split(
        self,
        samples: Samples,
        front: ForegroundSamples,
        directions: Tensor,
        state: RenderState,
        time: Tensor | None,
        further: Tensor | None,
        light: Tensor | None = None,
    ) -> Split:
        """The gate, which splits the layers (eq. 3), and what comes with it."""
        if self.object_grid.votes_split:
            displacement = self._displaced(samples, samples.in_hull, time)
            found = self.label.evaluate(samples, displacement, state.progress, further)
            gate, shares = found.gate, found.shares
            if state.shown is not None:
                assert shares is not None
                own = shares.values * state.shown.objects
                there = own.sum(-1)
                gate = gate._replace(values=gate.values * there)
                shares = shares._replace(values=own / there.clamp(min=1e-6)[:, None])
            return Split(gate, found.label, shares, found.further, None)
        near = samples.near_surface
        codes = None if light is None else near.take_of_rays(light)
        rgb, predicted = self.foreground.colour(front.colour_inputs, near.take_of_rays(directions), codes)
        assert predicted is not None
        return Split(near.pack(predicted), None, None, rgb.new_zeros(0, 1), rgb)

    def _filled(self, front: ForegroundSamples, state: RenderState) -> ForegroundSamples:
        """The foreground with opaque insides: where a removed object touched it, rays enter it with no surface."""
        inside = torch.sigmoid(
            -front.surface.sdf[: front.size] * self.foreground.sharpness(state.progress) - FILL_DEPTH
        )
        return front._replace(opacity=front.opacity._replace(values=torch.maximum(front.opacity.values, inside)))

    def _object_mattes(self, weights: RayWeights, split: Split) -> Tensor | None:
        """Mattes (R, K) of several objects; None with one."""
        if split.shares is None:
            return None
        return self.ops.accumulate_detached(weights.foreground, split.shares)

    def _surface_values(
        self,
        samples: Samples,
        front: ForegroundSamples,
        directions: Tensor,
        weights: RayWeights,
        rgb: Tensor | None,
        light: Tensor | None,
    ) -> tuple[PackedValues, dict[str, Tensor]]:
        """Foreground colours at samples above the colour threshold, and the heads' values accumulated over these."""
        near = samples.near_surface
        heads = [*self.heads, *self.attached]
        if rgb is not None and not heads:
            return near.pack(rgb), {}
        chosen, seen = self.ops.seen_samples(near, self.config.colour_threshold, weights.foreground)
        if rgb is None:
            codes = None if light is None else seen.take_of_rays(light)
            rgb, _ = self.foreground.colour(front.colour_inputs[chosen], seen.take_of_rays(directions), codes)
            colours = seen.pack(rgb)
        else:
            colours = near.pack(rgb)
        points = front.points[chosen].detach()
        return colours, {head.name: head.accumulate(weights, seen.pack(head(points))) for head in heads}

    def _plate(
        self,
        origins: Tensor,
        directions: Tensor,
        samples: Samples,
        weights: RayWeights,
        colours: RayColours,
        state: RenderState,
        complete: bool,
        context: RayContext,
    ) -> PlateView:
        """The clean plate: from the samples at hand or, with `complete`, rendered behind the object and completed."""
        none = torch.zeros_like(weights.alpha)
        if not complete:
            return PlateView(colours.background, none, none, none)
        confidence = self._background_confidence(samples, weights, context)
        first_pass = BackgroundView(colours.background, confidence, weights.background_only, samples.edges)

        def render_background(origins: Tensor, directions: Tensor, context: RayContext = NO_CONTEXT) -> BackgroundView:
            return self.background_view(origins, directions, state, context)

        shade = None if state.shown is None else state.shown.shade
        return self.clean_plate.complete(
            origins, directions, first_pass, weights.alpha, render_background, shade, context
        )

    def _over_surroundings(
        self,
        colours: RayColours,
        weights: RayWeights,
        directions: Tensor,
        context: RayContext,
        crop: Tensor | None = None,
    ) -> tuple[RayColours, Tensor]:
        """Colours of rays with the room or the sky behind all that they meet, and how opaque (R,) they are then.

        On rays through m^P the gradient of room and sky is scaled by 1 - m^P: where the object is not opaque yet, they
        would learn its colours.

        Args:
            colours, weights: of R rays.
            directions: (R, 3) unit.
            context: of the rays.
            crop: (R,) highest m^P along the ray; None where nothing is learned.
        """
        if self.room is not None and context.room is not None:
            behind = self.room(context.room)
        elif self.sky is not None:
            behind = self.sky(directions, context.light)
        else:
            return colours, weights.accumulation
        if crop is not None:
            behind = scale_gradient(behind, (1.0 - crop)[:, None])
        behind = to_light(behind) if self.config.blending == "light" else behind
        left = (1.0 - weights.accumulation).clamp(min=0.0)[:, None]
        alone = weights.background_only.sum(-1, keepdim=True)
        over = colours._replace(
            rgb=colours.rgb + left * behind, background=torch.lerp(behind, colours.background, alone.clamp(0, 1))
        )
        return over, torch.ones_like(weights.accumulation)

    def _background_confidence(self, samples: Samples, weights: RayWeights, context: RayContext) -> Tensor:
        """Confidence (R,) in the background alone; it is 1 in the sky, and that of `Room.confidence` in a room."""
        confidence = self.clean_plate.confidence(samples, weights.background_only)
        if self.room is not None and context.room is not None:
            behind = self.room.confidence(context.room)
        elif self.sky is not None:
            behind = torch.ones_like(confidence)
        else:
            return confidence
        return torch.lerp(behind, confidence, weights.background_only.sum(-1).clamp(0, 1))

    def _to_light(self, colours: PackedValues) -> PackedValues:
        """Colours of samples in the space in which they are blended, see `SceneConfig.blending`."""
        return colours._replace(values=to_light(colours.values)) if self.config.blending == "light" else colours

    def _to_display(self, colours: Tensor) -> Tensor:
        """The inverse of `_to_light`, for blended colours."""
        return to_display(colours) if self.config.blending == "light" else colours


def _object_depth(weights: Tensor, edges: Tensor, to_object: Tensor) -> Tensor:
    """Expected distance (R,) of the object by its weights (R, S); beyond its cube where alpha is 0.5 or less."""
    alpha = weights.sum(-1)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    depth = (weights * middle).sum(-1) / alpha.clamp(min=1e-6)
    return torch.where(alpha > 0.5, depth, to_object + NO_OBJECT_OFFSET)
