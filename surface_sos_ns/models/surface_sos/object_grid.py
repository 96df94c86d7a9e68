"""Where the object is, on grids over the object cube and at points. All other code gets this from here.

The hull is the visual hull voted from the coarse masks, m^P the probability map of eq. 4, the crop its value at a
sample, and the gate the alpha of eq. 3 that splits the layers: the label's, or the predicted one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.deformation import Deformation
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.foreground import Foreground
from surface_sos_ns.models.surface_sos.heads import LabelHead
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.sampling.field_cache import (
    FieldCache,
    cell_centres,
    distance_to_cells,
    grid_centres,
    look_up,
    look_up_nearest,
)

MIN_HULL_PROBABILITY = 0.02
"""Probability of the voted hull up to which no point can belong to the object."""
SWEEP_TIMES = 16
"""Times of the clip, evenly spaced, whose union is the swept volume of a deforming object."""
DILATION_CELLS = 1
"""Cells by which the object is dilated: background so near is hidden by its outermost cells, or has their colours."""
GATE_DECAY = 0.9
"""Factor on a cell's cached gate at each refresh that finds a smaller value, where the object deforms."""


class Membership(NamedTuple):
    """The criteria by which P points belong to the object; all must hold."""

    distance: Tensor  # (P,) signed distance to FoCoR's surface: negative
    split: Tensor  # (P,) logit of the gate: positive
    hull: Tensor | None  # (P,) of the voted hull: above `MIN_HULL_PROBABILITY`; None where votes do not split

    @property
    def inside(self) -> Tensor:
        """(P,) bool, whether all criteria hold."""
        found = (self.distance < 0) & (self.split > 0)
        return found if self.hull is None else found & (self.hull > MIN_HULL_PROBABILITY)


class ObjectGrid(nn.Module):
    """The voted hull, m^P, and the object's extent by fields and caches. Object frame throughout.

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.
        foreground, label, deformation, cache: parts of the scene, not owned.

    Attributes:
        hull: (N, N, N) probability of the voted hull that training started from, indexed [x, y, z].
        reachable: the hull, dilated by the bound of the deformation; the same grid without deformation.
        probability: (N, N, N) the present m^P.
        identity: (N, N, N) uint8, the object whose hull is the most likely one, in 1 to K; only with several objects.
    """

    hull: Tensor
    identity: Tensor
    grown: Tensor  # the hull, dilated; only where the object may deform
    probability: Tensor
    to_hull: Tensor  # distance of each cell's centre to the nearest cell of the hull; 0 without a hull

    def __init__(
        self,
        config: SceneConfig,
        ops: TorchOps,
        foreground: Foreground,
        label: LabelHead,
        deformation: Deformation | None,
        cache: FieldCache,
    ):
        super().__init__()
        self.config, self.ops = config, ops
        self._parts = (foreground, label, cache)  # in a tuple, so that they are no submodules: the scene owns them
        self._deformation = (deformation,)
        n = config.probability_resolution
        if deformation is not None:
            self.register_buffer("grown", torch.zeros(n, n, n))
        self.register_buffer("hull", torch.zeros(n, n, n))
        self.register_buffer("probability", torch.zeros(n, n, n))
        self.register_buffer("to_hull", torch.zeros(n, n, n), persistent=False)
        if label.objects > 1:
            self.register_buffer("identity", torch.ones(n, n, n, dtype=torch.uint8))

    @property
    def deformation(self) -> Deformation | None:
        """The object's motion; None where it does not deform."""
        return self._deformation[0]

    @property
    def reachable(self) -> Tensor:
        """The hull, dilated by the bound of the deformation; the same grid without deformation."""
        return self.hull if self.deformation is None else self.grown

    @property
    def votes_split(self) -> bool:
        """Whether the label splits the layers (default preset), or else the predicted alpha (eq. 3)."""
        return self.config.split == "votes"

    @torch.no_grad()
    def start(self, probability: Tensor, identity: Tensor | None = None) -> None:
        """Set the hull, and m^P to it.

        Args:
            probability: (R, R, R) over the object cube, indexed [x, y, z].
            identity: (R, R, R) uint8 in 1 to K, which of several objects' hulls it is; None with one object.
        """
        n = self.config.probability_resolution
        if identity is not None:
            found = look_up_nearest(identity, grid_centres(n, 1.0, probability.device), 1.0)
            self.identity.copy_(found.reshape(n, n, n))
        self.hull.copy_(look_up(probability, grid_centres(n, 1.0, probability.device), 1.0).reshape(n, n, n))
        self.probability.copy_(self.hull)
        if self.deformation is not None:
            cells = math.ceil(self.deformation.config.bound * n / 2)
            self.grown.copy_(F.max_pool3d(self.hull[None], 2 * cells + 1, stride=1, padding=cells)[0])
        self._measure_to_hull()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._measure_to_hull()

    def _measure_to_hull(self) -> None:
        solid = self.reachable >= 0.5
        if solid.any():
            self.to_hull.copy_(distance_to_cells(solid).clamp(min=0.0) * (2.0 / len(solid)))
        else:
            self.to_hull.zero_()

    # ------------------------------------------------------------------ at points

    def crop(self, points: Tensor) -> Tensor:
        """m^P (...) at points (..., 3); 0 outside the object cube. No gradient."""
        return self.ops.look_up_in_cube(self.probability, points.detach())

    def distance_to_hull(self, points: Tensor) -> Tensor:
        """Distance (...) from points (..., 3) to the hull that the object may reach, object radii; 0 without one.

        For points outside the cube it is that of the cube's nearest point, which is less.
        """
        return self.ops.look_up(self.to_hull, points.detach(), 1.0)

    def hull_probability(self, points: Tensor) -> Tensor:
        """Probability (...) of the voted hull at points (..., 3); 0 outside the object cube. No gradient."""
        return self.ops.look_up_in_cube(self.hull, points.detach())

    def hull_identity(self, points: Tensor) -> Tensor | None:
        """(...) int64 object whose hull is the most likely one at points (..., 3); None with one object."""
        several = self._parts[1].objects > 1
        return look_up_nearest(self.identity, points.detach(), 1.0).long() if several else None

    def beside_hull(self, points: Tensor) -> Tensor:
        """(P,) bool, whether points (P, 3) are outside the voted hull: hardly any coarse mask covers them."""
        return self.hull_probability(points) <= MIN_HULL_PROBABILITY

    @torch.no_grad()
    def membership(self, points: Tensor, time: Tensor | None = None) -> Membership:
        """Membership of points (P, 3), at times (P,) where the object deforms.

        Raises:
            ValueError: the object may deform and no times are given.
        """
        if self.deformation is None:
            return self.canonical_membership(points)
        if time is None:
            raise ValueError("the object may deform (scene.deformation): points need times")
        found = self.canonical_membership(self.deformation(points, time).points)
        return found._replace(hull=self.ops.look_up_in_cube(self.reachable, points))

    @torch.no_grad()
    def canonical_membership(self, points: Tensor) -> Membership:
        """Membership of canonical points (P, 3)."""
        foreground, label, _ = self._parts
        if self.votes_split:
            sdf = foreground.field(points, normals=False).sdf
            return Membership(sdf, label(points), self.hull_probability(points))
        seen = foreground.seen_from_outside(points)
        assert seen.alpha is not None
        return Membership(seen.sdf, torch.logit(seen.alpha, eps=1e-6), None)

    @torch.no_grad()
    def inside(self, points: Tensor, time: Tensor | None = None, identity: int | None = None) -> Tensor:
        """(P,) bool, whether points (P, 3) are in the object, at times (P,) where it deforms; false outside its sphere.

        Args:
            points: to be asked for.
            time: of each.
            identity: of one of several objects; None for all of them.

        Raises:
            ValueError: the object may deform and there are no times.
        """
        if self.deformation is not None and time is None:
            raise ValueError("the object may deform (scene.deformation): points need times")
        found = torch.zeros_like(points[:, 0], dtype=torch.bool)
        for index in (points.norm(dim=-1) < 1.0).nonzero()[:, 0].split(self.ops.chunk_points):
            times = None if time is None else time[index]
            found[index] = self.membership(points[index], times).inside
            if identity is not None:
                found[index] &= self.owner(points[index], times) == identity
        return found

    @torch.no_grad()
    def owner(self, points: Tensor, time: Tensor | None) -> Tensor:
        """(P,) int64 in 1 to K: the object that owns points (P, 3), if any does, at times (P,) where they deform."""
        if self.deformation is not None and time is not None:
            points = self.deformation(points, time).points
        return self._parts[1].identities(points)

    # ------------------------------------------------------------------ on grids

    @torch.no_grad()
    def refresh_probability(self, dilation: float) -> None:
        """Re-estimate m^P (eq. 4) from the foreground: inside FoCoR's surface, dilated, and labelled object.

        Where the object deforms, m^P is its swept volume over the clip. With a predicted alpha (paper preset) FoCoR
        alone counts: there eq. 4 crops the background wherever FoCoR is.

        Args:
            dilation: of FoCoR's surface, object radii.
        """
        foreground, _, _ = self._parts
        n = self.config.probability_resolution
        for index in torch.arange(n**3, device=self.hull.device).split(self.ops.chunk_points):
            points = cell_centres(index, n, 1.0)
            if self.deformation is None:
                solid = self._soft_membership(points, dilation)
            else:
                solid = torch.zeros_like(points[:, 0])
                margin = self.deformation.config.bound + dilation + 4.0 / n
                near = foreground.field(points, normals=False).sdf < margin
                for time in torch.linspace(0, 1, SWEEP_TIMES, device=points.device):
                    canonical = self.deformation(points[near], time.expand(int(near.sum()))).points
                    solid[near] = torch.maximum(solid[near], self._soft_membership(canonical, dilation))
            self.probability.view(-1)[index] = solid * (points.norm(dim=-1) < 1.0)

    def _soft_membership(self, points: Tensor, dilation: float) -> Tensor:
        """(P,) in [0, 1]: canonical points (P, 3) are inside FoCoR's dilated surface and labelled object."""
        foreground, label, _ = self._parts
        slope = 2.0 * self.config.probability_resolution  # from 0.1 to 0.9 in about a cell
        solid = torch.sigmoid((dilation - foreground.field(points, normals=False).sdf) * slope)
        return solid * torch.sigmoid(4.0 * label(points)) if self.votes_split else solid

    @torch.no_grad()
    def refresh_cache(self, share: float, progress: float) -> None:
        """Refresh the cached SDF and gate that guide sampling.

        Args:
            share: of the cells, drawn at random; those near FoCoR's surface are always refreshed.
            progress: fraction of the run.
        """
        foreground, label, cache = self._parts
        n, sdf, gate = cache.resolution, cache.sdf.view(-1), cache.gate.view(-1)
        if self.deformation is not None:
            surface = (sdf <= sdf.min().clamp(min=self.deformation.config.bound)).nonzero()[:, 0]
            self.deformation.measure(cell_centres(surface, n, 1.0))
        drawn = torch.rand_like(sdf) < share
        for index in (drawn | (sdf.abs() < 3.0 * cache.cell)).nonzero()[:, 0].split(self.ops.chunk_points):
            centres = cell_centres(index, n, 1.0)
            sdf[index] = foreground.field(centres, normals=False).sdf
            if not cache.splits:
                continue
            before, gate[index] = gate[index], 0.0
            reachable = self.ops.look_up_in_cube(self.reachable, centres) > MIN_HULL_PROBABILITY
            points = centres[reachable]
            if self.deformation is None:
                gate[index[reachable]] = label.gate(label(points), progress)
            else:  # what is observed in a cell may be displaced by as much in the canonical frame
                points = points + (torch.rand_like(points) * 2 - 1) * self.deformation.max_displacement
                found = label.gate(label(points), progress)
                gate[index[reachable]] = torch.maximum(before[reachable] * GATE_DECAY, found)

    @torch.no_grad()
    def solid_cells(self) -> tuple[Tensor, Tensor]:
        """(N, N, N) bool each: cells of the cache inside the object; the same dilated, also by the object's motion."""
        solid = self._solid(0.0)
        cells = DILATION_CELLS
        if self.deformation is not None:
            cells += math.ceil(self.deformation.max_displacement / self._parts[2].cell)
        return solid, F.max_pool3d(solid[None].float(), 2 * cells + 1, stride=1, padding=cells)[0] > 0

    def cell_owners(self) -> Tensor:
        """(N, N, N) int64 in 1 to K: the object that owns each cell of the cache, if any does."""
        _, label, cache = self._parts
        n = cache.resolution
        return label.identities(grid_centres(n, 1.0, cache.sdf.device)).reshape(n, n, n)

    @torch.no_grad()
    def bounds(self, identity: int | None = None) -> Tensor:
        """(2, 3) lowest and highest corner of the object's bounding box; the object cube if there is no object.

        Args:
            identity: of one of several objects; None for all of them.
        """
        cache = self._parts[2]
        # With the cells that the surface touches: parts thinner than a cell have no cell centre inside.
        margin = cache.cell + (0.0 if self.deformation is None else self.deformation.max_displacement)
        cells = self._solid(margin).nonzero()
        if identity is not None and len(cells):
            cells = cells[self._parts[1].identities((cells + 0.5) * cache.cell - 1.0) == identity]
        if not len(cells):
            return torch.tensor([[-1.0], [1.0]], device=cache.sdf.device).expand(2, 3)
        return torch.stack([cells.amin(0), cells.amax(0) + 1]) * cache.cell - 1.0

    def _solid(self, margin: float) -> Tensor:
        """(N, N, N) bool: cells of the cache with an SDF below `margin` and a gate above 1/2."""
        cache = self._parts[2]
        near = cache.sdf < margin
        if cache.splits:
            return near & (cache.gate > 0.5)
        index = near.view(-1).nonzero()[:, 0]  # no gate is cached: the predicted alpha is evaluated
        centres = cell_centres(index, cache.resolution, 1.0).split(self.ops.chunk_points)
        split = [self.canonical_membership(part).split for part in centres]
        near = near.clone()
        near.view(-1)[index] = torch.cat([*split, cache.sdf.new_zeros(0)]) > 0
        return near
