"""The whole numeric model: FoCoR, BaCo, the label that splits them, and the renderer over both.

A ray's way through it: candidate intervals -> importance-drawn samples (cache) -> opacities of both layers -> weights
-> colours where the weights matter -> sums along the ray. Everything is in the object frame (object in the unit sphere)
but for `to_object_frame`, the only place that knows the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.clean_plate.observation_grid import Evidence
from surface_sos_ns.clean_plate.shadow import seen_past
from surface_sos_ns.clean_plate.support_map import BackgroundView, SupportMap
from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.contraction import contract, contract_direction, contracted_cell
from surface_sos_ns.fields.deformation import STILL, Deformation, DeformationConfig, Displacement
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.label import LABEL_LAYOUT, LabelField
from surface_sos_ns.fields.sdf import SDFField, SurfaceSample
from surface_sos_ns.models.surface_sos.initialisation import SightLines, fit_to_hull, fit_to_points, surface_density
from surface_sos_ns.ops.choose import Backend, choose_ops
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import use_ops
from surface_sos_ns.rendering.colour_space import to_display, to_light
from surface_sos_ns.rendering.composite import PackedValues, no_values, scale_gradient
from surface_sos_ns.sampling.field_cache import FieldCache, cell_centres, grid_centres, look_up
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples
from surface_sos_ns.training.mask_reliability import MaskReliability
from surface_sos_ns.training.residual_metric import ColourNoise
from surface_sos_ns.training.schedules import geometric, ramp
from surface_sos_ns.utils.errors import UserError


@dataclass(frozen=True)
class SceneConfig:
    """Sizes and choices of the scene model."""

    foreground_grid: GridLayout = field(default_factory=GridLayout)
    """FoCoR's hash grid over the object cube."""
    background_grid: GridLayout = field(default_factory=GridLayout)
    """BaCo's hash grid over contracted space."""
    label_grid: GridLayout = LABEL_LAYOUT
    """The label's (small) hash grid over the object cube."""
    backend: Backend = "auto"
    """What computes the numeric operations (fields, sampling, rendering, optimiser). torch is plain PyTorch for all of
    them; numba is compiled for a CPU; triton and tcnn are CUDA kernels for the hash grid. auto takes numba on a CPU, on
    CUDA triton, or tcnn where Triton does not work, and torch where none is there. One that is asked for by name and
    cannot run is an error."""
    split: Literal["votes", "predicted"] = "votes"
    """What splits the layers: a view-independent label learned from mask votes to the end of the run (default preset),
    or the colour net's predicted alpha (eq. 3, paper preset)."""
    foreground: Literal["sdf", "density"] = "sdf"
    """FoCoR's geometry: a surface, or for the ablation a density of the same network, without surface or eikonal."""
    background: Literal["density", "sdf", "directional"] = "density"
    """BaCo's geometry in contracted space; or for the ablation none at all: a colour for every direction."""
    blending: Literal["light", "display"] = "display"
    """What adds up along rays: light, as in a camera, or the photo's own values, as eq. 7 is printed. A value in a
    config.yml from before it was there reads as what was done then; the presets say which."""
    hidden: int = 64
    """Width of the hidden layers (Fig. 3)."""
    samples: int = 32
    """Samples per ray in training, drawn where the cached fields stop light."""
    render_samples: int = 64
    """Samples per ray otherwise: chance makes up for few in training, but not in a picture, where thin parts fray."""
    candidates: tuple[int, int, int] = (24, 64, 32)
    """Coarse intervals a ray before, inside and beyond the object sphere."""
    cache_resolution: int = 64
    """Cells per axis of the cached foreground that guides sampling."""
    background_cache_resolution: int = 128
    """Cells per axis of the cached background that guides sampling."""
    evidence_resolution: int = 128
    """Cells per axis of the record of what training has seen of the background."""
    probability_resolution: int = 96
    """Cells per axis of the stored object probability m^P."""
    first_sharpness: float = 64.0
    """Floor of b of eq. 6 at the start, in 1 / object radius. The learned b starts at exp(3) = 20; but started at a
    hull, FoCoR must hide what is behind it before the background has explained the object away."""
    last_sharpness: float = 400.0
    """Floor of b at the end of the run; a learned b alone stays blurred in short runs."""
    gate_slope: tuple[float, float] = (1.0, 6.0)
    """Slope on the label's logit when it splits the layers, first and last: the split hardens during the run."""
    gate_gradient: float = 0.1
    """Share of the colours' gradient that reaches the label: where votes are even, what explains the photos decides."""
    near_fraction: float = 0.4
    """Rays start at this fraction of the way from the camera to the object sphere."""
    far: float = 200.0
    """Farthest sample distance, in object radii."""
    colour_threshold: float = 1e-3
    """Samples with less weight than this get no colour evaluated."""
    deformation: DeformationConfig = STILL
    """Small motion of the object over time, for video; off by default."""


LEAST_SHARE, LEAST_OPACITY = 0.1, 1e-2
"""Cells of the cached background with less opacity than this are refreshed that much more rarely."""
MOST_DEPTH = 0.7
"""Optical depth of a cell of the cached background at most."""
OUT_OF_SIGHT = 4.0
"""Object radii behind the centre's distance, where the object counts as lying on rays that miss it: a surface there is
beyond its cube, and beyond the boxes that people give to ns-export."""
LABEL_SUPPORT = 0.02
"""Least probability of the hull training started from at which a point can be labelled object."""
LEAST_SWAY = 0.1
"""Part of the deformation's bound that the object may move before it has been seen to move."""
SWEPT_MOMENTS = 16
"""Moments of a clip at which a deforming object is looked at for what it sweeps."""
STAIN = 1
"""Cells of the cached foreground about the object past which nothing is seen well."""


class Probes(NamedTuple):
    """The foreground at points that no ray asked for: the regularisers' random points and the capture's sparse ones."""

    points: Tensor  # (Q, 3) object frame
    sdf: Tensor  # (Q,)
    normals: Tensor  # (Q, 3)
    label: Tensor  # (Q,) logits; (0,) where no label is learned


class Rendering(NamedTuple):
    """What rays see. R rays; samples are kept for the losses."""

    rgb: Tensor  # (R, 3) both layers
    alpha: Tensor  # (R,) the object's matte, sum_i T_i aF_i
    foreground: Tensor  # (R, 3) the object over black
    background: Tensor  # (R, 3) the clean plate: the background rendered alone
    background_confidence: Tensor  # (R,) how surely training has seen it; 0 in training and without `plate`
    background_filled: Tensor  # (R,) share of it that the map of the support fills in; 0 likewise
    shadow: Tensor  # (R,) share of the light on it that the object keeps away, made up for in it; 0 likewise
    depth: Tensor  # (R,) expected distance along the ray, object-frame units
    object_depth: Tensor  # (R,) the same of the object alone; where it is not seen, beyond the object's cube
    normal: Tensor  # (R, 3) weighted unit normals of the foreground
    accumulation: Tensor  # (R,) light stopped by anything
    vote: Tensor  # (R,) label seen along the ray with the geometry detached
    votes_asked: Tensor  # (R,) bool, whether the ray passes where the label can say object at all
    crop: Tensor  # (R,) highest m^P along the ray
    distortion: Tensor  # (R,) spread of the light stopped by the background, 0 for one surface
    sdf: Tensor  # (P,) foreground distances at evaluated samples
    sdf_normals: Tensor  # (P, 3)
    background_normals: Tensor  # (Q, 3) of BaCo where it is an SDF and not cropped
    probes: Probes  # at the points that were given, after the rays' samples


class SurfaceSOS(nn.Module):
    """FoCoR + BaCo + label, rendered together.

    Args:
        config: sizes and choices.
        views: number of training views, one appearance code each.
    """

    centre: Tensor
    radius: Tensor
    reach: Tensor
    hull: Tensor
    support: Tensor  # only where the object may deform: the hull, grown by the bound
    sway: Tensor  # only where the object may deform: how far it does by now
    probability: Tensor
    progress: Tensor
    ready: Tensor

    def __init__(self, config: SceneConfig, views: int):
        super().__init__()
        self.config = config
        self.ops = choose_ops(config.backend, torch.device("cpu"))
        hidden = config.hidden
        self.focor = SDFField(config.foreground_grid, 12, 1.0, 0.5, hidden, self.ops)
        self.focor_colour = ColourNet(3 + 3 + 1 + 12, hidden, predict_alpha=config.split == "predicted", ops=self.ops)
        self.background_is_sdf = config.background == "sdf"
        self.baco: SDFField | DensityField
        if self.background_is_sdf:
            # Seen from within, like a room: starts as an inside-out sphere beyond the object.
            self.baco = SDFField(config.background_grid, 7, 2.0, -1.5, hidden, self.ops)
            self.baco_colour = ColourNet(3 + 3 + 1 + 1 + 7, hidden, ops=self.ops)
        else:
            # Starts nearly transparent, or the space in front of the cameras takes all of the first gradients.
            self.baco = DensityField(config.background_grid, 7, 2.0, -3.5, hidden, self.ops)
            self.baco_colour = ColourNet(3 + 7, hidden, ops=self.ops)
        self.label = LabelField(config.label_grid, ops=self.ops)
        self.log_sharpness = nn.Parameter(torch.tensor(0.3))  # v of b = exp(10 v)
        self.background_log_sharpness = nn.Parameter(torch.tensor(0.2))
        self.appearance = nn.Parameter(torch.zeros(max(views, 1), 6))
        self.cache = FieldCache(config.cache_resolution, config.background_cache_resolution, config.split == "votes")
        self.evidence = Evidence(config.evidence_resolution)
        self.support_map = SupportMap()
        self.reliability = MaskReliability(max(views, 1))
        self.colour_noise = ColourNoise()
        self.deformation: Deformation | None = None
        n = config.probability_resolution
        if config.deformation.bound > 0:
            if config.split != "votes":
                raise UserError(
                    "scene.deformation.bound: the object can deform only where the label splits the layers (split "
                    "'votes', the default preset); leave it 0 in the paper preset"
                )
            self.deformation = Deformation(config.deformation)
            self.register_buffer("support", torch.zeros(n, n, n))
            self.register_buffer("sway", torch.zeros((), dtype=torch.float64))
            self._sway = 0.0  # for the same reason as `_done`
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("radius", torch.ones(()))
        self.register_buffer("reach", torch.ones(()))  # how far BaCo's space is not contracted, object radii
        self.register_buffer("hull", torch.zeros(n, n, n))  # the votes training started from
        self.register_buffer("probability", torch.zeros(n, n, n))  # m^P as it is now
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self._done, self._reach = 0.0, 1.0  # the buffers' values: reading them from a GPU in every call would stall

    # ------------------------------------------------------------------ state

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._done, self._reach = float(self.progress), float(self.reach)
        if self.deformation is not None:
            self._sway = float(self.sway)

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
        """b of eq. 6 for FoCoR: learned, on top of a floor that rises over the run."""
        floor = geometric(self._done, self.config.first_sharpness, self.config.last_sharpness, 0.8)
        return floor + torch.exp(10.0 * self.log_sharpness).clamp(max=2.0 * self.config.last_sharpness)

    @property
    def background_sharpness(self) -> Tensor:
        """b of BaCo where it is an SDF: its own, starting softer and without a floor."""
        return torch.exp(10.0 * self.background_log_sharpness).clamp(max=self.config.last_sharpness)

    def to_object_frame(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """World rays (R, 3) -> object-frame rays; directions are unit and stay so."""
        return (origins - self.centre) / self.radius, directions

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)  # of `to` and its like: on another device other operations may be the best
        use_ops(self, choose_ops(self.config.backend, self.centre.device))
        return self

    # ------------------------------------------------------------------ fields

    def object_probability(self, points: Tensor) -> Tensor:
        """m^P at points (..., 3) of the object frame; 0 outside its cube. No gradient."""
        return self.ops.look_up_in_cube(self.probability, points.detach())

    def hull_probability(self, points: Tensor) -> Tensor:
        """The voted hull that training started from, at points (..., 3); 0 outside its cube. No gradient."""
        return self.ops.look_up_in_cube(self.hull, points.detach())

    def background_sdf(self, points: Tensor) -> Tensor:
        """BaCo's signed distance (P,) at points (P, 3) of the object frame, not cropped.

        Raises:
            TypeError: BaCo is a density in this configuration.
        """
        if not isinstance(self.baco, SDFField):
            raise TypeError("the background is a density field in this configuration: it has no signed distance")
        return self.baco(contract(points / self._reach), normals=False).sdf

    def background_thinness(self, points: Tensor) -> Tensor:
        """How much thinner BaCo is at points (P, 3) of the object frame than a surface that is found: log density (P,).

        Raises:
            TypeError: BaCo is a signed distance in this configuration.
        """
        if not isinstance(self.baco, DensityField):
            raise TypeError("the background is a signed distance in this configuration: it has no density")
        contracted = contract(points / self._reach)
        enough = surface_density(contracted, self._reach, self.config.background_cache_resolution)
        density, _ = self.baco(contracted)
        return torch.relu(enough - density.clamp(min=1e-9).log())

    def beside_hull(self, points: Tensor) -> Tensor:
        """(P,) bool: points (P, 3) of the object frame that hardly any mask of the start takes for the object's."""
        return self.hull_probability(points) <= LABEL_SUPPORT

    def gate(self, logits: Tensor) -> Tensor:
        """Label logits -> the alpha of eq. 3 that splits the layers."""
        first, last = self.config.gate_slope
        return torch.sigmoid(geometric(self._done, first, last) * logits)

    # ------------------------------------------------------------------ rendering

    def _plan(self) -> SamplePlan:
        """How rays are sampled now."""
        c, sharpness = self.config, float(self.sharpness.detach())
        # FoCoR only where its cached distance can matter; elsewhere it is empty. Beyond the reach of nearly all votes
        # nothing is object: a stray label there would only punch holes.
        margin = 5.0 / sharpness + 2.0 * self.cache.cell
        if self.deformation is not None:  # the cache is canonical: what is seen may be that far from it
            margin += self._sway
            sharpness = min(sharpness, 1.0 / max(self._sway, 1e-6))
        return SamplePlan(
            c.candidates,
            c.near_fraction,
            c.far,
            c.samples if self.training else c.render_samples,
            sharpness,
            self._reach,
            margin,
            LABEL_SUPPORT,
        )

    def _label_support(self) -> Tensor:
        """The hull within which something may be labelled object, grown by what the object may move."""
        return self.hull if self.deformation is None else self.support

    def _sample(self, origins: Tensor, directions: Tensor, plan: SamplePlan) -> Samples:
        hull = self._label_support() if self.config.split == "votes" else None
        fixed = (origins.detach(), directions.detach())
        samples = self.ops.sample_rays(self.cache, self.probability, hull, *fixed, plan, self.training)
        if self.config.background == "directional":  # the last samples are so far away that only their direction counts
            rays, per_ray = samples.interval.shape
            samples = samples._replace(background=torch.arange(1, rays + 1, device=origins.device) * per_ray - 1)
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

    def _foreground_opacity(
        self, samples: Samples, directions: Tensor, time: Tensor | None, probes: Tensor | None = None
    ) -> tuple[PackedValues, SurfaceSample, Tensor, Tensor]:
        """FoCoR's opacity and unit normals at `samples.near`, and the field there and, behind that, at the probes.

        Also the points at which the field was asked: where the object deforms they are canonical, and so are the
        field's own normals and the probes; opacity and unit normals are those seen.
        """
        points = samples.points[samples.near]
        displacement = self._displaced(samples, samples.near, time)
        points = points if displacement is None else displacement.points
        surface = self.focor(points if probes is None else torch.cat([points, probes]))
        assert surface.normal is not None
        count = points.shape[0]
        normal = surface.normal[:count]
        normal = normal if displacement is None else displacement.observed_normal(normal)
        if self.config.foreground == "density":
            density = self._soft_density(surface.sdf[:count], self.sharpness)
            interval = samples.interval.reshape(-1)[samples.near]
            opacity = self.ops.density_section_opacity(density, torch.zeros_like(density), interval)
            unit = F.normalize(normal, dim=-1)
        else:
            opacity, unit = self.ops.section_opacity(
                surface.sdf[:count],
                normal,
                directions,
                samples.interval,
                self.sharpness,
                ramp(self._done, 0.0, 0.3),
                samples.near,
            )
        return PackedValues(opacity, samples.near), surface, unit, points

    def _background_opacity(self, samples: Samples, directions: Tensor) -> tuple[PackedValues, Tensor, Tensor]:
        """BaCo's opacity at `samples.background`, its colour net's inputs there, and normals for the eikonal term."""
        at = samples.background
        points, crop, interval = samples.points[at], samples.crop[at], samples.interval.reshape(-1)[at]
        contracted = contract(points / self._reach)
        if not isinstance(self.baco, SDFField):
            density, geometry = self.baco(contracted)
            opacity = self.ops.density_section_opacity(density, crop, interval)
            return PackedValues(opacity, at), torch.cat([contracted, geometry], -1), points.new_zeros(0, 3)
        surface = self.baco(contracted)
        assert surface.normal is not None
        # The SDF lives in contracted space: its slope along the ray is along the contracted direction.
        heading = contract_direction(points / self._reach, directions[at // samples.interval.shape[1]] / self._reach)
        opacity, unit = self.ops.section_opacity(
            torch.lerp(surface.sdf, torch.ones_like(crop), crop),  # eq. 4: set the SDF to a positive number
            surface.normal,
            heading,
            interval,
            self.background_sharpness,
            ramp(self._done, 0.0, 0.5),
        )
        inputs = torch.cat([contracted, unit, surface.sdf[:, None], crop[:, None], surface.geometry], -1)
        return PackedValues(opacity, at), inputs, surface.normal[crop < 0.5]

    def _background_colour(
        self, samples: Samples, inputs: Tensor, directions: Tensor, weights: Tensor, others: Tensor | None = None
    ) -> PackedValues:
        """BaCo's colours where the weights can be seen."""
        threshold = self.config.colour_threshold
        chosen, seen = self.ops.seen_samples(samples.background, threshold, weights, others)
        rgb, _ = self.baco_colour(inputs[chosen], directions[seen // samples.interval.shape[1]])
        return PackedValues(self._to_light(rgb), seen)

    def _labels(
        self, samples: Samples, time: Tensor | None, probes: Tensor | None = None
    ) -> tuple[PackedValues, Tensor, Tensor]:
        """The gate (with a fraction of its gradient) and the label at `samples.inside`, and logits at the probes.

        Like geometry, poses and motion follow the colours and not the coarse masks: no gradient to the points.
        """
        displacement = self._displaced(samples, samples.inside, time)
        points = (samples.points[samples.inside] if displacement is None else displacement.points).detach()
        logits = self.label(points if probes is None else torch.cat([points, probes]))
        here = logits[: points.shape[0]]
        gate = scale_gradient(self.gate(here), torch.as_tensor(self.config.gate_gradient))
        return PackedValues(gate, samples.inside), torch.sigmoid(here), logits[points.shape[0] :]

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        view: Tensor | None = None,
        plate: bool = True,
        probes: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Rendering:
        """Render rays of the object frame; in training, also note in `evidence` what they see of the background.

        Args:
            origins, directions: (R, 3), directions unit. Where they have gradients (poses that are refined), what is
                rendered has one with respect to them, at fixed distances along the rays.
            view: (R,) training view of each ray for its appearance code; None uses the mean code.
            plate: outside training, resample behind the object for the clean plate; without it the background is
                read off the samples of the first pass.
            probes: (Q, 3) points of the object frame at which the losses want the foreground as well: one evaluation
                of a field costs less than two.
            time: (R,) in [0, 1], when each ray was taken; needed where the object may deform.
        """
        c = self.config
        samples = self._sample(origins, directions, self._plan())
        per_ray, count = samples.interval.shape[1], samples.near.shape[0]
        opacity_f, surface, unit, points_f = self._foreground_opacity(samples, directions, time, probes)
        assert surface.normal is not None
        opacity_b, inputs_b, background_normals = self._background_opacity(samples, directions)
        inputs_f = torch.cat([points_f, unit, surface.sdf[:count, None], surface.geometry[:count]], -1)

        logits = origins.new_zeros(0)
        if c.split == "votes":
            gate, vote, logits = self._labels(samples, time, probes)
        else:
            rgb, predicted = self.focor_colour(inputs_f, directions[samples.near // per_ray])
            assert predicted is not None
            gate, vote = PackedValues(predicted, samples.near), predicted
        crop = samples.crop.reshape(samples.interval.shape).amax(-1)
        to_object = -(origins * directions).sum(-1).detach().clamp(max=-1.0)
        weights = self.ops.composite_weights(opacity_f, opacity_b, gate, samples.edges, to_object, crop)

        # Colours only where they can be seen.
        if c.split == "votes":
            chosen, seen = self.ops.seen_samples(samples.near, c.colour_threshold, weights.foreground)
            rgb, _ = self.focor_colour(inputs_f[chosen], directions[seen // per_ray])
            rgb_f = PackedValues(self._to_light(rgb), seen)
        else:
            rgb_f = PackedValues(self._to_light(rgb), samples.near)
        rgb_b = self._background_colour(samples, inputs_b, directions, weights.background, weights.alone)
        colours = self.ops.composite_colours(weights, rgb_f, rgb_b, PackedValues(unit, samples.near))

        background, confidence = colours.background, torch.zeros_like(weights.alpha)
        filled = shadow = confidence
        if self.training:
            seen = weights.background.detach().reshape(-1)[samples.background]
            self.evidence.add(samples.points[samples.background], seen)
        elif plate:
            confidence = self._confidence(samples, weights.alone)
            beside = BackgroundView(background, confidence, weights.alone, samples.edges)
            background, filled, shadow = self.support_map.mend(origins, directions, beside)
            hidden = (weights.alpha > 1e-2).nonzero()[:, 0]
            if hidden.numel():
                rays = origins[hidden], directions[hidden]
                behind = self.background_view(*rays)
                mended = self.support_map.mend(*rays, behind)
                background = background.index_put((hidden,), mended.colours)
                confidence = confidence.index_put((hidden,), behind.confidence)
                filled = filled.index_put((hidden,), mended.filled)
                shadow = shadow.index_put((hidden,), mended.shadow)
            confidence = confidence * (1.0 - filled)  # no photo shows what the map fills in
        gain, offset = self._appearance(view)
        none, alpha = origins.new_zeros(0, 3), weights.alpha[:, None]
        object_alone = self._to_display(colours.foreground / alpha.clamp(min=1e-3)) * alpha
        return Rendering(
            rgb=self._to_display(colours.rgb) * gain + offset * weights.accumulation[:, None],
            alpha=weights.alpha,
            foreground=object_alone * gain + offset * alpha,
            background=self._to_display(background) * gain + offset,
            background_confidence=confidence,
            background_filled=filled,
            shadow=shadow,
            depth=weights.depth,
            object_depth=_object_depth(weights.foreground.detach(), samples.edges, to_object),
            normal=colours.normal,
            accumulation=weights.accumulation,
            vote=self.ops.accumulate_detached(weights.stopped, PackedValues(vote, gate.positions)),
            votes_asked=torch.zeros_like(crop, dtype=torch.bool).index_fill_(0, samples.inside // per_ray, True),
            crop=crop,
            distortion=weights.distortion,
            sdf=surface.sdf[:count],
            sdf_normals=surface.normal[:count],
            background_normals=background_normals,
            probes=Probes(none if probes is None else probes, surface.sdf[count:], surface.normal[count:], logits),
        )

    def matte(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Tensor:
        """(R,) the object's alpha alone, as `render` has it: no colours, and nothing on rays that miss the object."""
        samples = self._sample(origins, directions, replace(self._plan(), foreground_only=True))
        alpha = origins.new_zeros(origins.shape[0])
        if samples.near.numel() == 0:
            return alpha
        directions = directions[samples.rays]
        opacity_f, surface, unit, points_f = self._foreground_opacity(samples, directions, time)
        if self.config.split == "votes":
            gate, _, _ = self._labels(samples, time)
        else:
            inputs = torch.cat([points_f, unit, surface.sdf[:, None], surface.geometry], -1)
            _, predicted = self.focor_colour(inputs, directions[samples.near // samples.interval.shape[1]])
            assert predicted is not None
            gate = PackedValues(predicted, samples.near)
        opacity_b, _, _ = self._background_opacity(samples, directions)
        ones = samples.edges.new_ones(samples.edges.shape[0])  # nothing of what they decide reaches alpha
        weights = self.ops.composite_weights(opacity_f, opacity_b, gate, samples.edges, ones, ones)
        return alpha.index_put((samples.rays,), weights.alpha)

    def _confidence(self, samples: Samples, alone: Tensor) -> Tensor:
        """(R,) how surely training has seen the background that weighs `alone` (R, S)."""
        per_ray, at = samples.interval.shape[1], samples.background
        weights = alone.reshape(-1)[at]
        known = alone.new_zeros(alone.shape[0])
        known.index_add_(0, at // per_ray, weights * self.evidence.confidence(samples.points[at]))
        return known / alone.sum(-1).clamp(min=1e-6)

    def background_view(self, origins: Tensor, directions: Tensor) -> BackgroundView:
        """What rays (R, 3) of the object frame see of the background alone, sampled where the background is."""
        samples = self._sample(origins, directions, replace(self._plan(), background_only=True))
        opacity, inputs, _ = self._background_opacity(samples, directions)
        none, ones = no_values(origins), samples.edges.new_ones(samples.edges.shape[0])
        weights = self.ops.composite_weights(none, opacity, none, samples.edges, ones, ones)
        rgb = self._background_colour(samples, inputs, directions, weights.alone)
        blank = no_values(origins, 3)
        colours = self.ops.composite_colours(weights, blank, rgb, blank)
        return BackgroundView(
            colours.background, self._confidence(samples, weights.alone), weights.alone, samples.edges
        )

    @torch.no_grad()
    def doubt_hidden(self, cameras: Tensor) -> None:
        """Take back what training believes to have seen of the background where the object hides it in all views.

        Args:
            cameras: (V, 3) centres of the training views, world frame.
        """
        _, around = self._solid_cells()
        centres = (cameras.to(self.centre) - self.centre) / self.radius
        self.evidence.doubt(lambda points: seen_past(around, points, centres))

    def _solid_cells(self) -> tuple[Tensor, Tensor]:
        """(N, N, N) bool each: cached cells that are object, and with those that it stains or may move into."""
        cache = self.cache
        solid = (cache.sdf < 0) & (cache.gate > 0.5)
        cells = STAIN + math.ceil(self._sway / cache.cell) if self.deformation is not None else STAIN
        return solid, F.max_pool3d(solid[None].float(), 2 * cells + 1, stride=1, padding=cells)[0] > 0

    @torch.no_grad()
    def map_support(self, cameras: Tensor, chunk: int = 1 << 13) -> bool:
        """Map what the object stands on, for clean plates; from the trained fields.

        Args:
            cameras: (V, 3) centres of the training views, world frame.
            chunk: rays rendered at once.

        Returns:
            Whether it stands on a plane.
        """

        def look(origins: Tensor, directions: Tensor) -> BackgroundView:
            parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
            return BackgroundView(*map(torch.cat, zip(*(self.background_view(*part) for part in parts), strict=True)))

        training, centres = self.training, (cameras.to(self.centre) - self.centre) / self.radius
        self.eval()
        try:
            return self.support_map.make(look, *self._solid_cells(), centres)
        finally:
            self.train(training)

    def _to_light(self, colours: Tensor) -> Tensor:
        """What the colours of samples add to a ray."""
        return to_light(colours) if self.config.blending == "light" else colours

    def _to_display(self, colours: Tensor) -> Tensor:
        """The way back from :meth:`_to_light`, for what has been added up."""
        return to_display(colours) if self.config.blending == "light" else colours

    def _appearance(self, view: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and offset (R, 3) of the views' exposure and white balance; of no view in particular (1, 3), 1 and 0.

        Views' codes count relative to their mean, so that the fields hold what photos show in the mean: could all drift
        together, an offset would tint what is lit anew.
        """
        code = self.appearance.new_zeros(1, 6)
        if view is not None:
            code = code + self.appearance[view] - self.appearance.mean(0)
        return torch.exp(code[:, :3]), code[:, 3:]

    def mean_appearance(self) -> tuple[Tensor, Tensor]:
        """Gain and offset (1, 3) that stand for exposure and white balance where no view is meant."""
        return self._appearance(None)

    # ------------------------------------------------------------------ caches and m^P

    @torch.no_grad()
    def update_cache(self, share: float = 1.0, chunk: int = 1 << 15) -> None:
        """Refresh the cached fields that guide sampling, and the metric of colours; fade what the background showed.

        Args:
            share: of the cells, drawn at random; of FoCoR's, those near its surface are refreshed in any case.
            chunk: cells evaluated at once.
        """
        self.evidence.forget(self._done)
        self.colour_noise.update()
        self._measure_sway()
        n, cache = self.config.cache_resolution, self.cache
        sdf, gate, density = (grid.view(-1) for grid in (cache.sdf, cache.gate, cache.density))
        drawn = torch.rand_like(sdf) < share
        for index in (drawn | (sdf.abs() < 3.0 * cache.cell)).nonzero()[:, 0].split(chunk):
            centres = cell_centres(index, n, 1.0)
            sdf[index] = self.focor(centres, normals=False).sdf
            if cache.splits:
                before, gate[index] = gate[index], 0.0
                supported = self.ops.look_up_in_cube(self._label_support(), centres) > LABEL_SUPPORT
                asked = centres[supported]
                if self.deformation is None:
                    gate[index[supported]] = self.gate(self.label(asked))
                else:  # what is seen there may be that far away in the canonical frame
                    found = self.gate(self.label(asked + (torch.rand_like(asked) * 2 - 1) * self._sway))
                    gate[index[supported]] = torch.maximum(before[supported] * 0.9, found)
        n = self.config.background_cache_resolution
        # Most cells are empty and stay so.
        likely = share * (LEAST_SHARE + (1.0 - LEAST_SHARE) * (density * (4.0 * self._reach / n) > LEAST_OPACITY))
        for index in (torch.rand_like(density) < likely).nonzero()[:, 0].split(chunk):
            jitter = (torch.rand(index.shape[0], 3, device=index.device) * 2 - 1) * (2.0 / n)
            centres = cell_centres(index, n, 2.0)
            found = self._effective_density(centres + jitter)
            # A surface is somewhere in its cell: were all light to stop at the cell's front, so would all samples.
            most = MOST_DEPTH / contracted_cell(centres, self._reach, n)
            density[index] = torch.maximum(density[index] * 0.7, torch.minimum(found, most))

    def _measure_sway(self, draws: int = 4096) -> None:
        """See how far the object moves by now, at most; with room for what the next steps may add."""
        if self.deformation is None:
            return
        bound, n = self.deformation.config.bound, self.config.cache_resolution
        sdf = self.cache.sdf.view(-1)
        index = (sdf <= sdf.min().clamp(min=bound)).nonzero()[:, 0]
        points = cell_centres(index[torch.randint(len(index), (draws,), device=index.device)], n, 1.0)
        moved = self.deformation(points, torch.rand(draws, device=points.device)).points - points
        self._sway = min(bound, 1.2 * float(moved.norm(dim=-1).max()) + LEAST_SWAY * bound)
        self.sway.fill_(self._sway)

    def _effective_density(self, contracted: Tensor) -> Tensor:
        """BaCo as a density at points of contracted space, cropped by m^P."""
        if self.config.background == "directional":
            return torch.zeros_like(contracted[:, 0])
        crop = self.object_probability(contracted * self._reach)  # what is contracted lies outside the object's cube
        if isinstance(self.baco, SDFField):
            sdf = torch.lerp(self.baco(contracted, normals=False).sdf, torch.ones_like(crop), crop)
            return self._soft_density(sdf, self.background_sharpness)
        return self.baco(contracted)[0] * (1.0 - crop)

    @staticmethod
    def _soft_density(sdf: Tensor, sharpness: Tensor) -> Tensor:
        """The density (P,) that NeuS gives a surface at normal incidence."""
        return sharpness * torch.sigmoid(-sdf * sharpness)

    @torch.no_grad()
    def refresh_probability(self, dilation: float, chunk: int = 1 << 15) -> None:
        """Re-estimate m^P from the foreground itself: inside FoCoR, grown by `dilation`, where the label agrees.

        Where the object deforms, m^P is what it sweeps over the clip.
        """
        n = self.config.probability_resolution
        for index in torch.arange(n**3, device=self.centre.device).split(chunk):
            points = cell_centres(index, n, 1.0)
            if self.deformation is None:
                solid = self._solid(points, dilation, 2.0 * n)
            else:
                solid = torch.zeros_like(points[:, 0])
                reach = self.deformation.config.bound + dilation + 4.0 / n
                reached = self.focor(points, normals=False).sdf < reach
                for moment in torch.linspace(0, 1, SWEPT_MOMENTS, device=points.device):
                    seen = self.deformation(points[reached], moment.expand(int(reached.sum()))).points
                    solid[reached] = torch.maximum(solid[reached], self._solid(seen, dilation, 2.0 * n))
            solid = solid * (points.norm(dim=-1) < 1.0)
            self.probability.view(-1)[index] = solid

    def _solid(self, points: Tensor, dilation: float, slope: float) -> Tensor:
        """(P,) in [0, 1]: whether canonical points are in FoCoR, grown by `dilation`, and the label agrees."""
        solid = torch.sigmoid((dilation - self.focor(points, normals=False).sdf) * slope)
        return solid * torch.sigmoid(4.0 * self.label(points)) if self.config.split == "votes" else solid

    @torch.no_grad()
    def inside(self, points: Tensor, time: Tensor | None = None, chunk: int = 1 << 15) -> Tensor:
        """(P,) bool: which points (P, 3) of the object frame lie inside the object, as it is at times (P,).

        Inside FoCoR's surface, where votes split the layers also on the label's side of the object.

        Raises:
            ValueError: the object may deform and there are no times.
        """
        if self.deformation is not None and time is None:
            raise ValueError("the object may deform (scene.deformation): points need times")
        votes = self.config.split == "votes"
        found = torch.zeros_like(points[:, 0], dtype=torch.bool)
        for index in (points.norm(dim=-1) < 1.0).nonzero()[:, 0].split(chunk):
            seen = points[index]
            supported = self.ops.look_up_in_cube(self._label_support(), seen) > LABEL_SUPPORT
            if self.deformation is not None and time is not None:
                seen = self.deformation(seen, time[index]).points
            solid = self.focor(seen, normals=False).sdf < 0
            found[index] = solid & supported & (self.label(seen) > 0) if votes else solid
        return found

    @torch.no_grad()
    def object_bounds(self) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object, object frame, from the cached fields.

        The object sphere's cube where they hold no object.
        """
        cache = self.cache
        reach = cache.cell + (self._sway if self.deformation is not None else 0.0)
        # What touches the surface is taken, or parts thinner than a cell would not be in the box.
        cells = ((cache.sdf < reach) & (cache.gate > 0.5)).nonzero()
        if not len(cells):
            return torch.tensor([[-1.0], [1.0]], device=cache.sdf.device).expand(2, 3)
        return torch.stack([cells.amin(0), cells.amax(0) + 1]) * cache.cell - 1.0

    # ------------------------------------------------------------------ start

    def initialise(
        self,
        centre: Tensor,
        radius: float,
        reach: float,
        probability: Tensor,
        signed_distance: Tensor,
        lines: SightLines | None = None,
        steps: int = 300,
    ) -> None:
        """Start from what is known before training.

        FoCoR starts at the voted hull's signed distance, the label at its votes, m^P at its probability, and BaCo at
        the sparse points that lie outside the hull.

        Args:
            centre: (3,) of the object, world frame; radius in world units.
            reach: how far from the centre space is as detailed as near the object, in object radii, at least 1: the
                distance of the cameras. What lies beyond is contracted.
            probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
            signed_distance: (R, R, R) to the hull, object-frame units, negative inside.
            lines: sparse points and who sees them, object frame.
            steps: of each regression, a few milliseconds each.
        """
        device = self.centre.device
        self.centre.copy_(centre.to(device))
        self.radius.fill_(radius)
        self._reach = max(reach, 1.0)
        self.reach.fill_(self._reach)
        probability, signed_distance = probability.to(device), signed_distance.to(device)
        n = self.config.probability_resolution
        self.hull.copy_(look_up(probability, grid_centres(n, 1.0, device), 1.0).reshape(n, n, n))
        self.probability.copy_(self.hull)
        if self.deformation is not None:
            cells = math.ceil(self.deformation.config.bound * n / 2)
            self.support.copy_(F.max_pool3d(self.hull[None], 2 * cells + 1, stride=1, padding=cells)[0])
        fit_to_hull(self.focor, self.label, probability, signed_distance, steps)
        if lines is not None:
            outside = self.beside_hull(lines.points)  # a part that most masks miss is not lost
            seen = None if lines.seen is None else lines.seen[outside]
            fit_to_points(
                self.baco,
                SightLines(lines.points[outside], lines.cameras, seen),
                self._reach,
                self.config.background_cache_resolution,
                steps,
            )
        self.update_cache()
        self.ready.fill_(True)

    def describe(self) -> str:
        """One line: what computes the operations, and how rays are sampled."""
        return f"operations: {self.ops.describe()} | cached sampling, {self.config.samples} samples"


def _object_depth(weights: Tensor, edges: Tensor, to_object: Tensor) -> Tensor:
    """(R,) where rays meet the object that weighs (R, S) in them; where that is less than half, beyond its cube."""
    alpha = weights.sum(-1)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    met = (weights * middle).sum(-1) / alpha.clamp(min=1e-6)
    return torch.where(alpha > 0.5, met, to_object + OUT_OF_SIGHT)
