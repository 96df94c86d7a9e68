"""Samples along rays, and at which of them each field is evaluated, in plain torch.

m^P is the probability map of eq. 4, the crop its value at a sample. The hull is the visual hull voted from the masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.field_cache import FieldCache, look_up, look_up_in_cube, look_up_nearest
from surface_sos_ns.sampling.importance import draw_edges
from surface_sos_ns.sampling.selection import Selection

MIN_UNCROPPED = 1e-3
"""Where 1 - m^P, which scales the background's density (eq. 4), is not above this, the background is not evaluated."""


class Samples(NamedTuple):
    """S samples on each of L rays, and where along them each field is evaluated. Object frame; no gradients."""

    rays: Tensor  # (L,) int64, indices of these rays among the given ones, ascending
    edges: Tensor  # (L, S + 1) increasing distances of the interval edges
    middle: Tensor  # (L, S) distances of the samples, the midpoints of their intervals
    interval: Tensor  # (L, S) lengths of the intervals
    points: Tensor  # (L * S, 3)
    crop: Tensor  # (L * S,) m^P, 0 outside the object cube
    near_surface: Selection  # N, where FoCoR is evaluated; elsewhere it is empty
    in_hull: Selection  # I, where the label is evaluated; elsewhere it says background
    background: Selection  # B, where BaCo is evaluated; elsewhere it is cropped

    def on_rays(self, origins: Tensor, directions: Tensor) -> Samples:
        """The same distances; points recomputed from the given rays (R, 3), so that gradients go to these."""
        points = origins[self.rays, None] + directions[self.rays, None] * self.middle[..., None]
        return self._replace(points=points.reshape(-1, 3))

    def from_farther_back(self, distance: Tensor) -> Samples:
        """The same samples, with distances from origins that are farther back on the given rays by (R,)."""
        added = distance[self.rays, None]
        return self._replace(edges=self.edges + added, middle=self.middle + added)


@dataclass(frozen=True)
class SamplePlan:
    """How rays are sampled. Lengths in object radii."""

    candidates: tuple[int, int, int]
    """Coarse intervals per ray before, inside and beyond the object sphere."""
    near_fraction: float
    """Rays start at this fraction of the distance to the object sphere (see `candidates.advance_of_rays`)."""
    far: float
    """Least distance of the last coarse edge."""
    samples: int
    """Samples per ray."""
    sharpness: float | Tensor
    """b of the foreground (eq. 6), in 1 / object radius; () on the device where nothing may wait for it."""
    contraction_radius: float = 1.0
    """Radius within which the background's space is not contracted."""
    margin: float | Tensor = 0.0
    """Cached signed distance from which on the foreground counts as empty."""
    min_hull_probability: float = 0.0
    """Probability of the voted hull above which the label is evaluated."""
    background_only: bool = False
    """Sample the background as if there were no foreground (clean plate); only `Samples.background` is filled."""
    foreground_only: bool = False
    """Only what the object's alpha depends on: rays that pass near the object (`live_rays`), and on them `near_surface`
    where the label is evaluated too, `in_hull` up to the last of these samples, and `background` in front of it."""

    dense: bool = False
    """Evaluate fields at all samples instead of at a list of them, see `Selection`."""

    def __post_init__(self) -> None:
        if self.background_only and self.foreground_only:
            raise ValueError("background_only and foreground_only exclude each other")


@torch.no_grad()
def sample_edges(
    cache: FieldCache,
    origins: Tensor,
    directions: Tensor,
    plan: SamplePlan,
    stratified: bool,
    jitter: Tensor | None = None,
) -> Tensor:
    """Edges (R, S + 1) of the sample intervals; see `sample_rays` for the arguments."""
    edges = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    weights = cache.interval_weights(
        origins, directions, edges, plan.sharpness, plan.contraction_radius, plan.background_only
    )
    return draw_edges(edges, weights, plan.samples, stratified, jitter=jitter)


def live_margin(cache: FieldCache, plan: SamplePlan) -> float | Tensor:
    """Distance, object radii, that `live_rays` adds to half an interval: `plan.margin` and half a cell's diagonal."""
    return plan.margin + 0.5 * math.sqrt(3.0) * cache.cell


@torch.no_grad()
def live_rays(cache: FieldCache, origins: Tensor, directions: Tensor, plan: SamplePlan) -> Tensor:
    """Indices (L,) int64 of the rays that pass near the object; on all others its alpha is zero.

    A ray is kept if some coarse interval that touches the object sphere has at one of its ends a cached distance below
    `plan.margin` plus what a sample within it may be closer by: half the interval, and half the diagonal of a cell. As
    the gradient of a distance has norm 1, no sample of a dropped ray has a cached distance below the margin.
    """
    margin = live_margin(cache, plan)
    closest = origins - (origins * directions).sum(-1, keepdim=True) * directions
    passing = (closest.square().sum(-1) < 1.0).nonzero()[:, 0]
    origins, directions = origins[passing], directions[passing]
    edges = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    half, middle = 0.5 * (edges[:, 1:] - edges[:, :-1]), 0.5 * (edges[:, 1:] + edges[:, :-1])
    at_middles = origins[:, None] + directions[:, None] * middle[..., None]
    touches_sphere = at_middles.square().sum(-1) < (1.0 + half).square()
    distance = look_up(cache.sdf, origins[:, None] + directions[:, None] * edges[..., None], 1.0)
    close = torch.minimum(distance[:, 1:], distance[:, :-1]) < margin + half
    return passing[(touches_sphere & close).any(-1)]


DrawEdgesOf = Callable[[FieldCache, Tensor, Tensor, SamplePlan, bool, Tensor | None], Tensor]
"""A function with the arguments and the result of `sample_edges`."""
LookUp = Callable[[Tensor, Tensor], Tensor]
"""A function with the arguments and the result of `look_up_in_cube`."""


@torch.no_grad()
def sample_rays(
    cache: FieldCache,
    probability: Tensor,
    hull: Tensor | None,
    origins: Tensor,
    directions: Tensor,
    plan: SamplePlan,
    stratified: bool,
    jitter: Tensor | None = None,
    draw_edges_of: DrawEdgesOf = sample_edges,
    look_up_in_cube: LookUp = look_up_in_cube,
) -> Samples:
    """Importance-sample rays by the cached fields, and choose the samples at which each field is evaluated.

    Args:
        cache: of the fields.
        probability: (M, M, M) m^P over the object cube.
        hull: (M, M, M) probability of the voted hull; None where no label is learned, `in_hull` is then empty.
        origins, directions: (R, 3), object frame, directions unit.
        plan: numbers of samples and thresholds.
        stratified: draw at random within each stratum (training); otherwise take its midpoint (rendering).
        jitter: (R, S + 1) in [0, 1), position of each draw within its stratum, in place of random ones.
        draw_edges_of, look_up_in_cube: `sample_edges` and `look_up_in_cube` of a back-end.

    Returns:
        Samples of all rays; with `plan.foreground_only` of the live ones.

    Raises:
        ValueError: numba back-end only, for shapes that do not fit; torch raises its own errors.
    """
    if plan.foreground_only:
        rays = live_rays(cache, origins, directions, plan)
        origins, directions = origins[rays], directions[rays]
        jitter = None if jitter is None else jitter[rays]
    else:
        rays = torch.arange(origins.shape[0], device=origins.device)
    edges = draw_edges_of(cache, origins, directions, plan, stratified, jitter)
    middle, interval = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
    points = origins[:, None] + directions[:, None] * middle[..., None]
    crop = look_up_in_cube(probability, points)
    nowhere = torch.zeros_like(middle, dtype=torch.bool)
    if plan.background_only:
        near = in_hull = nowhere
    else:
        near = (look_up_nearest(cache.sdf, points, 1.0) < plan.margin) & (points.square().sum(-1) < 1.0)
        in_hull = nowhere if hull is None else look_up_in_cube(hull, points) > plan.min_hull_probability
    background = crop < 1.0 - MIN_UNCROPPED
    if plan.foreground_only:
        near = near if hull is None else near & in_hull
        remaining = near.long().flip(-1).cumsum(-1).flip(-1)  # near samples from this one on
        in_hull = in_hull & (remaining > 0)
        background = background & (remaining - near.long() > 0)
    chosen = (Selection.of(mask, plan.dense) for mask in (near, in_hull, background))
    return Samples(rays, edges, middle, interval, points.reshape(-1, 3), crop.reshape(-1), *chosen)
