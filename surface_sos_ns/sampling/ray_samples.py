"""The samples of rays, and which field has to be evaluated at which of them, in plain torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.sampling.candidates import candidate_edges
from surface_sos_ns.sampling.field_cache import FieldCache, look_up, look_up_in_cube, look_up_nearest
from surface_sos_ns.sampling.importance import Draw, draw_edges, stratified_draws

FULLY_CROPPED = 1e-3
"""Where m^P leaves less than this of the background, the background is empty."""


class Samples(NamedTuple):
    """Samples of L rays, S each, and where along them the fields can matter. Object frame; no gradients.

    The lists hold indices into the L * S samples, in increasing order.
    """

    rays: Tensor  # (L,) int64, which of the given rays these are, in increasing order
    edges: Tensor  # (L, S + 1) increasing distances along the rays
    middle: Tensor  # (L, S) distances of the samples
    interval: Tensor  # (L, S) lengths of the intervals around them
    points: Tensor  # (L * S, 3)
    crop: Tensor  # (L * S,) m^P, 0 outside the object cube
    near_surface: Tensor  # (N,) int64, where FoCoR can be other than empty
    in_hull: Tensor  # (I,) int64, where the label can say object
    background: Tensor  # (B,) int64, where BaCo can be other than empty

    def on_rays(self, origins: Tensor, directions: Tensor) -> Samples:
        """The same samples at the same distances, their points with the gradient of the given rays (R, 3)."""
        points = origins[self.rays, None] + directions[self.rays, None] * self.middle[..., None]
        return self._replace(points=points.reshape(-1, 3))


@dataclass(frozen=True)
class SamplePlan:
    """How rays are sampled."""

    candidates: tuple[int, int, int]
    """Coarse intervals a ray before, inside and beyond the object sphere."""
    near_fraction: float
    """Rays start at this fraction of the way to the object sphere."""
    far: float
    """Farthest distance, object-frame units."""
    samples: int
    """Samples a ray."""
    sharpness: float
    """b of the foreground, in 1 / object-frame units."""
    contraction_radius: float = 1.0
    """Radius within which the background's space is not contracted, object-frame units."""
    margin: float = 0.0
    """Cached distance, object-frame units, from which on the foreground is taken as empty."""
    least_hull: float = 0.0
    """Probability of the voted hull up to which nothing is labelled object."""
    background_only: bool = False
    """Draw where the background is, as if there were no foreground (clean plate); only `background` is filled."""
    foreground_only: bool = False
    """Only what the object's alpha needs: rays that come near the object (`live_rays`), and in the lists only samples
    that can be seen in alpha: `near_surface` where the label is evaluated too, `in_hull` up to the last of these on a
    ray, and `background` in front of it."""

    def __post_init__(self) -> None:
        if self.background_only and self.foreground_only:
            raise ValueError("samples are for the background alone or for the foreground alone, not for both")


@torch.no_grad()
def sample_edges(
    cache: FieldCache,
    origins: Tensor,
    directions: Tensor,
    plan: SamplePlan,
    stratified: bool,
    jitter: Tensor | None = None,
    draw: Draw = stratified_draws,
) -> Tensor:
    """Edges (R, S + 1) of the intervals that samples are the middles of; see `sample_rays` for the arguments."""
    edges = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    weights = cache.interval_weights(
        origins, directions, edges, plan.sharpness, plan.contraction_radius, plan.background_only
    )
    return draw_edges(edges, weights, plan.samples, stratified, jitter=jitter, draw=draw)


def live_margin(cache: FieldCache, plan: SamplePlan) -> float:
    """What `live_rays` adds to half an interval, object-frame units."""
    return plan.margin + 0.5 * math.sqrt(3.0) * cache.cell


@torch.no_grad()
def live_rays(cache: FieldCache, origins: Tensor, directions: Tensor, plan: SamplePlan) -> Tensor:
    """(L,) int64: rays that come near the object; on all others its alpha is zero.

    A ray does where one of its coarse intervals that touch the object sphere has, at one of its ends, a cached distance
    below `plan.margin` and what a sample in that interval can be nearer by: half the interval, and the way from a point
    to the centre of its cell. So no sample of a ray that is left out has a cached distance below the margin, as long as
    the distance changes no faster than that between two points.
    """
    margin = live_margin(cache, plan)
    closest = origins - (origins * directions).sum(-1, keepdim=True) * directions
    passing = (closest.square().sum(-1) < 1.0).nonzero()[:, 0]
    origins, directions = origins[passing], directions[passing]
    edges = candidate_edges(origins, directions, plan.candidates, plan.near_fraction, plan.far)
    half, middle = 0.5 * (edges[:, 1:] - edges[:, :-1]), 0.5 * (edges[:, 1:] + edges[:, :-1])
    at_middles = origins[:, None] + directions[:, None] * middle[..., None]
    touches = at_middles.square().sum(-1) < (1.0 + half).square()
    distance = look_up(cache.sdf, origins[:, None] + directions[:, None] * edges[..., None], 1.0)
    close = torch.minimum(distance[:, 1:], distance[:, :-1]) < margin + half
    return passing[(touches & close).any(-1)]


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
    draw: Draw = stratified_draws,
) -> Samples:
    """Draw the samples of rays where the cached fields stop light, and say what to evaluate at them.

    Args:
        cache: of the fields.
        probability: (M, M, M) object probability m^P over the object cube.
        hull: (M, M, M) the hull that training started from; None where no label is learned, `in_hull` is then empty.
        origins, directions: (R, 3), object frame, directions unit.
        plan: how.
        stratified: draw at random in each stratum (training) instead of at its middle.
        jitter: (R, S + 1) in [0, 1), place of each draw in its stratum, instead of random ones.
        draw: the draws of a cumulative share.

    Returns:
        Samples of all rays, or of the live ones for `plan.foreground_only`.

    Raises:
        ValueError: shapes that do not fit (compiled code only; torch raises its own errors).
    """
    if plan.foreground_only:
        rays = live_rays(cache, origins, directions, plan)
        origins, directions = origins[rays], directions[rays]
        jitter = None if jitter is None else jitter[rays]
    else:
        rays = torch.arange(origins.shape[0], device=origins.device)
    edges = sample_edges(cache, origins, directions, plan, stratified, jitter, draw)
    middle, interval = 0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1]
    points = origins[:, None] + directions[:, None] * middle[..., None]
    crop = look_up_in_cube(probability, points)
    nowhere = torch.zeros_like(middle, dtype=torch.bool)
    if plan.background_only:
        near = inside = nowhere
    else:
        near = (look_up_nearest(cache.sdf, points, 1.0) < plan.margin) & (points.square().sum(-1) < 1.0)
        inside = nowhere if hull is None else look_up_in_cube(hull, points) > plan.least_hull
    background = crop < 1.0 - FULLY_CROPPED
    if plan.foreground_only:
        near = near if hull is None else near & inside
        following = near.long().flip(-1).cumsum(-1).flip(-1)  # near samples from here on
        inside = inside & (following > 0)
        background = background & (following - near.long() > 0)
    lists = (chosen.reshape(-1).nonzero()[:, 0] for chosen in (near, inside, background))
    return Samples(rays, edges, middle, interval, points.reshape(-1, 3), crop.reshape(-1), *lists)
