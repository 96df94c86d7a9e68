"""The whole numeric model: FoCoR, BaCo, the label that splits them, and the renderer over both.

A ray's way through it: candidate intervals -> importance-drawn samples (cache) -> opacities of both layers -> weights
-> colours where the weights matter -> sums along the ray. Everything is in the object frame (object in the unit sphere)
but for `to_object_frame`, the only place that knows the world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.contraction import contract, contract_direction
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.hash_grid import Backend, GridLayout
from surface_sos_ns.fields.label import LABEL_LAYOUT, LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.rendering.blend import (
    accumulate,
    blend_weights,
    ray_depth,
    ray_distortion,
    single_weights,
)
from surface_sos_ns.rendering.neus import density_opacity, neus_opacity
from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.field_cache import FieldCache, grid_centres, look_up, look_up_nearest
from surface_sos_ns.sampling.importance import choose_sampler, draw_edges
from surface_sos_ns.schedules import geometric, ramp


@dataclass(frozen=True)
class SceneConfig:
    """Sizes and choices of the scene model."""

    foreground_grid: GridLayout = field(default_factory=GridLayout)
    """FoCoR's hash grid over the object cube."""
    background_grid: GridLayout = field(default_factory=GridLayout)
    """BaCo's hash grid over contracted space."""
    label_grid: GridLayout = LABEL_LAYOUT
    """The label's (small) hash grid over the object cube."""
    grid_backend: Backend = "auto"
    """Hash-grid implementation: numba on a CPU and torch elsewhere when 'auto'."""
    split: Literal["votes", "predicted"] = "votes"
    """What splits the layers: a view-independent label learned from mask votes to the end of the run (default preset),
    or the colour net's predicted alpha (eq. 3, paper preset)."""
    background_inside: Literal["density", "sdf"] = "density"
    """BaCo's geometry inside the object sphere."""
    background_beyond: Literal["density", "sdf"] = "density"
    """BaCo's geometry beyond the object sphere, in contracted space."""
    hidden: int = 64
    """Width of the hidden layers (Fig. 3)."""
    samples: int = 32
    """Samples per ray, drawn where the cached fields stop light."""
    candidates: tuple[int, int, int] = (24, 64, 32)
    """Coarse intervals a ray before, inside and beyond the object sphere."""
    cache_resolution: int = 64
    """Cells per axis of the cached fields that guide sampling."""
    probability_resolution: int = 96
    """Cells per axis of the stored object probability m^P."""
    first_sharpness: float = 64.0
    """Floor of b of eq. 6 at the start, in 1 / object radius. The learned b starts at exp(3) = 20; but started at a
    hull, FoCoR must hide what is behind it before the background has explained the object away."""
    last_sharpness: float = 400.0
    """Floor of b at the end of the run; a learned b alone stays blurred in short runs."""
    gate_slope: tuple[float, float] = (1.0, 6.0)
    """Slope on the label's logit when it splits the layers, first and last: the split hardens during the run."""
    near_fraction: float = 0.4
    """Rays start at this fraction of the way from the camera to the object sphere."""
    far: float = 200.0
    """Farthest sample distance, in object radii."""
    colour_threshold: float = 1e-3
    """Samples with less weight than this get no colour evaluated."""


LABEL_SUPPORT = 0.02
"""Least probability of the hull training started from at which a point can be labelled object."""
MIXED_DENSITY_BIAS = 5.0
"""Makes the density beyond the sphere start transparent where BaCo is an SDF inside only."""


class Rendering(NamedTuple):
    """What rays see. R rays; weights and samples are kept for the losses."""

    rgb: Tensor  # (R, 3) both layers
    alpha: Tensor  # (R,) the object's matte, sum_i T_i aF_i
    foreground: Tensor  # (R, 3) the object over black
    background: Tensor  # (R, 3) the clean plate: the background rendered alone
    depth: Tensor  # (R,) expected distance along the ray, object-frame units
    normal: Tensor  # (R, 3) weighted unit normals of the foreground
    accumulation: Tensor  # (R,) light stopped by anything
    vote: Tensor  # (R,) label seen along the ray with the geometry detached
    crop: Tensor  # (R,) highest m^P along the ray
    distortion: Tensor  # (R,) spread of the light stopped by the background, 0 for one surface
    sdf: Tensor  # (P,) foreground distances at evaluated samples
    sdf_normals: Tensor  # (P, 3)
    background_normals: Tensor  # (Q, 3) of BaCo where it is an SDF and not cropped


class _ThinOrTrust(torch.autograd.Function):
    """Identity whose backward scales growth by a trust and lets through all that thins (see `_background_trust`)."""

    @staticmethod
    def forward(ctx: Any, opacity: Tensor, trust: Tensor) -> Tensor:
        ctx.save_for_backward(trust)
        return opacity.view_as(opacity)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (trust,) = ctx.saved_tensors
        return torch.where(grads[0] > 0, grads[0], grads[0] * trust), None


def scale_gradient(values: Tensor, scale: Tensor) -> Tensor:
    """The same values; gradients through them are multiplied by `scale` (broadcastable, without gradient)."""
    return values * scale + values.detach() * (1.0 - scale) if values.requires_grad else values


class SurfaceSOS(nn.Module):
    """FoCoR + BaCo + label, rendered together.

    Args:
        config: sizes and choices.
        views: number of training views, one appearance code each.
    """

    centre: Tensor
    radius: Tensor
    hull: Tensor
    probability: Tensor
    progress: Tensor
    ready: Tensor

    def __init__(self, config: SceneConfig, views: int):
        super().__init__()
        self.config = config
        backend, hidden = config.grid_backend, config.hidden
        self.focor = SDFField(config.foreground_grid, 12, 1.0, 0.5, hidden, backend)
        self.focor_colour = ColourNet(3 + 3 + 1 + 12, hidden, predict_alpha=config.split == "predicted")
        self.background_is_sdf = "sdf" in (config.background_inside, config.background_beyond)
        self.baco: SDFField | DensityField
        if self.background_is_sdf:
            # Seen from within, like a room: starts as an inside-out sphere beyond the object.
            self.baco = SDFField(config.background_grid, 7, 2.0, -1.5, hidden, backend)
            self.baco_colour = ColourNet(3 + 3 + 1 + 1 + 7, hidden)
        else:
            # Starts nearly transparent, or the space in front of the cameras takes all of the first gradients.
            self.baco = DensityField(config.background_grid, 7, 2.0, -3.5, hidden, backend)
            self.baco_colour = ColourNet(3 + 7, hidden)
        self.label = LabelField(config.label_grid, backend=backend)
        self.log_sharpness = nn.Parameter(torch.tensor(0.3))  # v of b = exp(10 v)
        self.background_log_sharpness = nn.Parameter(torch.tensor(0.2))
        self.appearance = nn.Parameter(torch.zeros(max(views, 1), 6))
        self.cache = FieldCache(config.cache_resolution, splits=config.split == "votes")
        n = config.probability_resolution
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("radius", torch.ones(()))
        self.register_buffer("hull", torch.zeros(n, n, n))  # the votes training started from
        self.register_buffer("probability", torch.zeros(n, n, n))  # m^P as it is now
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))
        self._done = 0.0  # the buffer's value as a float: reading it from a GPU in every call would stall

    # ------------------------------------------------------------------ state

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._done = float(self.progress)

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

    # ------------------------------------------------------------------ fields

    def object_probability(self, points: Tensor) -> Tensor:
        """m^P at points (..., 3) of the object frame; 0 outside its cube. No gradient."""
        return self._in_cube(self.probability, points)

    def hull_probability(self, points: Tensor) -> Tensor:
        """The voted hull that training started from, at points (..., 3); 0 outside its cube. No gradient."""
        return self._in_cube(self.hull, points)

    @staticmethod
    def _in_cube(grid: Tensor, points: Tensor) -> Tensor:
        return look_up(grid, points, 1.0) * (points.abs() <= 1.0).all(-1)

    def background_sdf(self, points: Tensor) -> Tensor:
        """BaCo's signed distance (P,) at points (P, 3) of the object frame, not cropped.

        Raises:
            TypeError: BaCo is a density in this configuration.
        """
        if not isinstance(self.baco, SDFField):
            raise TypeError("the background is a density field in this configuration: it has no signed distance")
        return self.baco(contract(points), normals=False).sdf

    def gate(self, logits: Tensor) -> Tensor:
        """Label logits -> the alpha of eq. 3 that splits the layers."""
        first, last = self.config.gate_slope
        return torch.sigmoid(geometric(self._done, first, last) * logits)

    # ------------------------------------------------------------------ rendering

    def sample(self, origins: Tensor, directions: Tensor, background_only: bool = False) -> Tensor:
        """Edges (R, S + 1) of the ray intervals to evaluate."""
        c = self.config
        with torch.no_grad():
            edges = candidate_edges(origins, directions, c.candidates, c.near_fraction, c.far)
            weights = self.cache.interval_weights(origins, directions, edges, float(self.sharpness), background_only)
            return draw_edges(edges, weights, c.samples, stratified=self.training)

    def background_opacity(
        self, points: Tensor, directions: Tensor, interval: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """BaCo at samples.

        Args:
            points: (P, 3) object frame; directions: (P, 3); interval: (P,).

        Returns:
            opacity (P,), colour-net inputs (P, I), normals (Q, 3) for the eikonal term (Q = 0 for a density), m^P (P,).
        """
        contracted = contract(points)
        crop = self.object_probability(points)
        if not isinstance(self.baco, SDFField):
            density, geometry = self.baco(contracted)
            return (
                density_opacity(density * (1.0 - crop), interval),
                torch.cat([contracted, geometry], -1),
                points.new_zeros(0, 3),
                crop,
            )
        surface = self.baco(contracted)
        assert surface.normal is not None
        sdf = torch.lerp(surface.sdf, torch.ones_like(crop), crop)  # eq. 4: set the SDF to a positive number
        unit = F.normalize(surface.normal, dim=-1)
        radius = points.norm(dim=-1)
        # The SDF lives in contracted space: its slope along the ray is along the contracted direction.
        cosine = (surface.normal * contract_direction(points, directions)).sum(-1)
        opacity = neus_opacity(sdf, cosine, interval, self.background_sharpness, ramp(self._done, 0.0, 0.5))
        mixed = self.config.background_inside != self.config.background_beyond
        if mixed:
            as_density = density_opacity(
                torch.exp((-surface.sdf * 10.0 - MIXED_DENSITY_BIAS).clamp(max=10.0)) * (1.0 - crop), interval
            )
            use_sdf = (radius < 1) == (self.config.background_inside == "sdf")
            opacity = torch.where(use_sdf, opacity, as_density)
            eikonal = surface.normal[use_sdf & (crop < 0.5)]
        else:
            eikonal = surface.normal[crop < 0.5]
        inputs = torch.cat([contracted, unit, surface.sdf[:, None], crop[:, None], surface.geometry], -1)
        return opacity, inputs, eikonal, crop

    def render(self, origins: Tensor, directions: Tensor, view: Tensor | None = None, plate: bool = True) -> Rendering:
        """Render rays of the object frame.

        Args:
            origins, directions: (R, 3), directions unit.
            view: (R,) training view of each ray for its appearance code; None uses the mean code.
            plate: outside training, resample behind the object for the clean plate; without it the background is
                read off the samples of the first pass.
        """
        c = self.config
        rays = origins.shape[0]
        edges = self.sample(origins, directions)
        middle, interval = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
        points = origins[:, None] + directions[:, None] * middle[..., None]
        shape = points.shape[:2]
        flat, flat_directions = points.reshape(-1, 3), directions[:, None].expand_as(points).reshape(-1, 3)
        flat_interval = interval.reshape(-1)

        # FoCoR only where its cached distance can matter; elsewhere it is empty.
        sharpness = self.sharpness
        with torch.no_grad():
            margin = 5.0 / float(sharpness) + 2.0 * self.cache.cell
            near_surface = look_up_nearest(self.cache.sdf, flat, 1.0) < margin
            near = (near_surface & (flat.square().sum(-1) < 1.0)).nonzero()[:, 0]
        near_points, near_directions = flat[near], flat_directions[near]
        surface = self.focor(near_points)
        assert surface.normal is not None
        unit_normal = F.normalize(surface.normal, dim=-1)
        cosine = (surface.normal * near_directions).sum(-1)
        opacity = neus_opacity(surface.sdf, cosine, flat_interval[near], sharpness, ramp(self._done, 0.0, 0.3))

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(flat.shape[0], *values.shape[1:]).index_put((near,), values)

        opacity_f = spread(opacity).reshape(shape)
        opacity_b, inputs_b, background_normals, crop = self.background_opacity(flat, flat_directions, flat_interval)
        crop = crop.reshape(shape).amax(-1)
        trust = self._background_trust(origins, directions, middle, crop)
        opacity_b = _ThinOrTrust.apply(opacity_b.reshape(shape), trust)

        inputs_f = torch.cat([near_points, unit_normal, surface.sdf[:, None], surface.geometry], -1)
        if c.split == "votes":
            # Beyond the reach of nearly all votes nothing is object: a stray label there would only punch holes.
            inside = (self.hull_probability(flat) > LABEL_SUPPORT).nonzero()[:, 0]
            logits = self.label(flat[inside])
            vote = flat.new_zeros(flat.shape[0]).index_put((inside,), torch.sigmoid(logits)).reshape(shape)
            with torch.no_grad():
                gate = flat.new_zeros(flat.shape[0]).index_put((inside,), self.gate(logits)).reshape(shape)
        else:
            rgb_near, alpha_near = self.focor_colour(inputs_f, near_directions)
            assert alpha_near is not None
            gate = vote = spread(alpha_near).reshape(shape)
        weights = blend_weights(opacity_f, opacity_b, gate)
        union = weights.foreground + weights.background

        # Colours only where they can be seen.
        if c.split == "votes":
            seen_f = (weights.foreground.reshape(-1)[near] > c.colour_threshold).nonzero()[:, 0]
            rgb_seen, _ = self.focor_colour(inputs_f[seen_f], near_directions[seen_f])
            rgb_f = flat.new_zeros(flat.shape[0], 3).index_put((near[seen_f],), rgb_seen)
        else:
            rgb_f = spread(rgb_near)
        alone = single_weights(opacity_b)
        seen_b = (torch.maximum(weights.background, alone).reshape(-1) > c.colour_threshold).nonzero()[:, 0]
        rgb_seen, _ = self.baco_colour(inputs_b[seen_b], flat_directions[seen_b])
        rgb_b = flat.new_zeros(flat.shape[0], 3).index_put((seen_b,), rgb_seen).reshape(*shape, 3)
        rgb_b = scale_gradient(rgb_b, trust[..., None])

        foreground = accumulate(weights.foreground, rgb_f.reshape(*shape, 3))
        background = self._fill(accumulate(alone, rgb_b), alone)
        rgb = foreground + accumulate(weights.background, rgb_b)
        alpha = weights.foreground.sum(-1)
        if plate and not self.training:
            hidden = (alpha > 1e-2).nonzero()[:, 0]
            if hidden.numel():
                background = background.index_put((hidden,), self._clean_plate(origins[hidden], directions[hidden]))
        # Distances as fractions: half way to the object is 1/3, the object 1/2, infinity 1.
        scale = (origins * directions).sum(-1, keepdim=True).clamp(max=-1.0)
        distortion = ray_distortion(alone, edges / (edges - scale))
        gain, offset = self._appearance(view, rays)
        return Rendering(
            rgb=rgb * gain + offset * union.sum(-1, keepdim=True),
            alpha=alpha,
            foreground=foreground * gain + offset * alpha[:, None],
            background=background * gain + offset,
            depth=ray_depth(union, middle),
            normal=accumulate(weights.foreground, spread(unit_normal).reshape(*shape, 3)),
            accumulation=union.sum(-1),
            vote=(union.detach() * vote).sum(-1),
            crop=crop,
            distortion=distortion,
            sdf=surface.sdf,
            sdf_normals=surface.normal,
            background_normals=background_normals,
        )

    @staticmethod
    def _background_trust(origins: Tensor, directions: Tensor, distance: Tensor, crop: Tensor) -> Tensor:
        """(R, S) how much each sample may teach the background to grow, in [0, 1]; it may always be thinned.

        Rays through m^P must not: the background would learn the object's colours, explain the object away and leave a
        ghost in the clean plate. And space near a camera is hit by that camera's rays quadratically more often than by
        the others', so floaters grow there; gradients are scaled back by (distance / distance to the object)^2
        (Philip & Deschaintre 2023, the paper's [23]).
        """
        to_object = -(origins * directions).sum(-1, keepdim=True)
        near = (distance / to_object.clamp(min=1.0)).square().clamp(max=1.0)
        return near * (1.0 - crop)[:, None]

    def _fill(self, rgb: Tensor, weights: Tensor) -> Tensor:
        """Scale the background's colour to full coverage: what lies behind the last sample looks like what was hit."""
        return rgb / weights.sum(-1, keepdim=True).clamp(min=0.05)

    def _clean_plate(self, origins: Tensor, directions: Tensor) -> Tensor:
        """(R, 3) the background alone, sampled where the background is."""
        edges = self.sample(origins, directions, background_only=True)
        middle, interval = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
        points = (origins[:, None] + directions[:, None] * middle[..., None]).reshape(-1, 3)
        repeated = directions[:, None].expand(-1, middle.shape[1], -1).reshape(-1, 3)
        opacity, inputs, _, _ = self.background_opacity(points, repeated, interval.reshape(-1))
        weights = single_weights(opacity.reshape(middle.shape))
        seen = (weights.reshape(-1) > self.config.colour_threshold).nonzero()[:, 0]
        rgb_seen, _ = self.baco_colour(inputs[seen], repeated[seen])
        rgb = points.new_zeros(points.shape[0], 3).index_put((seen,), rgb_seen).reshape(*middle.shape, 3)
        return self._fill(accumulate(weights, rgb), weights)

    def _appearance(self, view: Tensor | None, rays: int) -> tuple[Tensor, Tensor]:
        """Gain and offset (R, 3) or (1, 3) of the views' exposure and white balance."""
        code = self.appearance.mean(0, keepdim=True).detach() if view is None else self.appearance[view]
        return torch.exp(code[:, :3]), code[:, 3:]

    # ------------------------------------------------------------------ caches and m^P

    @torch.no_grad()
    def update_cache(self, chunk: int = 1 << 15) -> None:
        """Refresh the cached fields that guide sampling."""
        n = self.config.cache_resolution
        device = self.centre.device
        jitter = 1.0 / n
        for index in torch.arange(n**3, device=device).split(chunk):
            unit = self._cell_centres(index, n)
            self.cache.sdf.view(-1)[index] = self.focor(unit, normals=False).sdf
            if self.config.split == "votes":
                support = self.hull_probability(unit) > LABEL_SUPPORT
                self.cache.gate.view(-1)[index] = self.gate(self.label(unit)) * support
            at = unit * 2.0 + (torch.rand_like(unit) * 2 - 1) * (2.0 * jitter)
            density = self._effective_density(at)
            old = self.cache.density.view(-1)[index]
            self.cache.density.view(-1)[index] = torch.maximum(old * 0.7, density)

    @staticmethod
    def _cell_centres(index: Tensor, n: int) -> Tensor:
        cell = torch.stack([index // (n * n), index // n % n, index % n], -1)
        return (cell + 0.5) * (2.0 / n) - 1.0

    def _effective_density(self, contracted: Tensor) -> Tensor:
        """BaCo as a density at points of contracted space, cropped by m^P."""
        crop = self.object_probability(contracted)
        if isinstance(self.baco, SDFField):
            sdf = torch.lerp(self.baco(contracted, normals=False).sdf, torch.ones_like(crop), crop)
            b = self.background_sharpness
            return b * torch.sigmoid(-sdf * b)  # the density of NeuS at normal incidence
        return self.baco(contracted)[0] * (1.0 - crop)

    @torch.no_grad()
    def refresh_probability(self, dilation: float, chunk: int = 1 << 15) -> None:
        """Re-estimate m^P from the foreground itself: inside FoCoR, grown by `dilation`, where the label agrees."""
        n = self.config.probability_resolution
        for index in torch.arange(n**3, device=self.centre.device).split(chunk):
            points = self._cell_centres(index, n)
            sdf = self.focor(points, normals=False).sdf
            solid = torch.sigmoid((dilation - sdf) * (2.0 * n))
            if self.config.split == "votes":
                solid = solid * torch.sigmoid(4.0 * self.label(points))
            solid = solid * (points.norm(dim=-1) < 1.0)
            self.probability.view(-1)[index] = solid

    # ------------------------------------------------------------------ start

    def initialise(
        self, centre: Tensor, radius: float, probability: Tensor, signed_distance: Tensor, steps: int = 300
    ) -> None:
        """Start from the voted hull: FoCoR at its signed distance, the label at its votes, m^P at its probability.

        Args:
            centre: (3,) of the object, world frame; radius in world units.
            probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
            signed_distance: (R, R, R) to the hull, object-frame units, negative inside.
            steps: of the regression, a few milliseconds each.
        """
        device = self.centre.device
        self.centre.copy_(centre.to(device))
        self.radius.fill_(radius)
        probability, signed_distance = probability.to(device), signed_distance.to(device)
        n = self.config.probability_resolution
        self.hull.copy_(look_up(probability, grid_centres(n, 1.0, device), 1.0).reshape(n, n, n))
        self.probability.copy_(self.hull)
        parameters = [*self.focor.parameters(), *self.label.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=5e-3, eps=1e-15)
        for _ in range(steps):
            points = torch.rand(4096, 3, device=device) * 2 - 1
            target = look_up(signed_distance, points, 1.0)
            surface = self.focor(points)
            assert surface.normal is not None
            near = torch.exp(-(target / 0.2).square())  # the band around the hull counts most
            loss = ((surface.sdf - target).abs() * (0.2 + near)).mean()
            loss = loss + 0.1 * (surface.normal.norm(dim=-1) - 1).square().mean()
            votes = look_up(probability, points, 1.0)
            loss = loss + F.binary_cross_entropy_with_logits(self.label(points), votes.clamp(0.02, 0.98))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        self.update_cache()
        self.ready.fill_(True)

    def describe(self) -> str:
        """One line: which hash-grid backend and sampler run."""
        sampler = choose_sampler(self.centre.device)
        return f"hash grid: {self.focor.grid.backend} | sampler: {sampler}, cached, {self.config.samples} samples"
