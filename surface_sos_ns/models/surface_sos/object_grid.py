"""Where the object is: the one place that answers that, on grids over the object cube and at points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.deformation import Deformation
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.foreground import Foreground
from surface_sos_ns.models.surface_sos.heads import LabelHead
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.sampling.field_cache import FieldCache, cell_centres, grid_centres, look_up

LEAST_HULL = 0.02
"""Probability of the voted hull up to which nothing can be labelled object."""
SWEPT_MOMENTS = 16
"""Moments of a clip at which a deforming object is looked at for what it sweeps."""
STAINED_CELLS = 1
"""Cells of the cached foreground about the object past which nothing of the background is seen well."""
GATE_DECAY = 0.9
"""What is left of a cell's cached gate at each refresh that finds less, where the object deforms."""


class Membership(NamedTuple):
    """What says whether P points belong to the object: they do where all agree. Its zero levels bound the object."""

    distance: Tensor  # (P,) to FoCoR's surface, negative inside
    split: Tensor  # (P,) logit of the alpha that splits the layers, positive on the object's side
    hull: Tensor | None  # (P,) probability of the voted hull, more than `LEAST_HULL`; None where votes do not split

    @property
    def inside(self) -> Tensor:
        """(P,) bool."""
        found = (self.distance < 0) & (self.split > 0)
        return found if self.hull is None else found & (self.hull > LEAST_HULL)


class ObjectGrid(nn.Module):
    """The voted hull, m^P, and what fields and caches say of where the object is. Object frame throughout.

    Args:
        config: sizes and choices.
        ops: numeric operations.
        foreground, label, deformation, cache: the scene's.

    Attributes:
        hull: (N, N, N) probability of the voted hull that training started from, indexed [x, y, z].
        reachable: the hull, grown by how far the object may move; the same grid where it does not deform.
        probability: (N, N, N) m^P as it is now.
    """

    hull: Tensor
    grown: Tensor  # only where the object may deform
    probability: Tensor

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
        self._parts = (foreground, label, cache)  # in a tuple: they are the scene's, not parts of this module's state
        self._deformation = (deformation,)
        n = config.probability_resolution
        if deformation is not None:
            self.register_buffer("grown", torch.zeros(n, n, n))
        self.register_buffer("hull", torch.zeros(n, n, n))
        self.register_buffer("probability", torch.zeros(n, n, n))

    @property
    def deformation(self) -> Deformation | None:
        """The object's motion."""
        return self._deformation[0]

    @property
    def reachable(self) -> Tensor:
        """See the class."""
        return self.hull if self.deformation is None else self.grown

    @property
    def votes_split(self) -> bool:
        """Whether the label splits the layers, not the predicted alpha."""
        return self.config.split == "votes"

    @torch.no_grad()
    def start(self, probability: Tensor) -> None:
        """Take over the voted hull (R, R, R) over the object cube, also as the first m^P."""
        n = self.config.probability_resolution
        self.hull.copy_(look_up(probability, grid_centres(n, 1.0, probability.device), 1.0).reshape(n, n, n))
        self.probability.copy_(self.hull)
        if self.deformation is not None:
            cells = math.ceil(self.deformation.config.bound * n / 2)
            self.grown.copy_(F.max_pool3d(self.hull[None], 2 * cells + 1, stride=1, padding=cells)[0])

    # ------------------------------------------------------------------ at points

    def crop(self, points: Tensor) -> Tensor:
        """m^P at points (..., 3); 0 outside the object cube. No gradient."""
        return self.ops.look_up_in_cube(self.probability, points.detach())

    def hull_probability(self, points: Tensor) -> Tensor:
        """The voted hull at points (..., 3); 0 outside the object cube. No gradient."""
        return self.ops.look_up_in_cube(self.hull, points.detach())

    def beside_hull(self, points: Tensor) -> Tensor:
        """(P,) bool: points (P, 3) that hardly any mask of the start takes for the object's."""
        return self.hull_probability(points) <= LEAST_HULL

    @torch.no_grad()
    def membership(self, points: Tensor, time: Tensor | None = None) -> Membership:
        """What decides on points (P, 3), as the object is at times (P,).

        Raises:
            ValueError: the object may deform and there are no times.
        """
        if self.deformation is None:
            return self.canonical_membership(points)
        if time is None:
            raise ValueError("the object may deform (scene.deformation): points need times")
        found = self.canonical_membership(self.deformation(points, time).points)
        return found._replace(hull=self.ops.look_up_in_cube(self.reachable, points))

    @torch.no_grad()
    def canonical_membership(self, points: Tensor) -> Membership:
        """What decides on canonical points (P, 3)."""
        foreground, label, _ = self._parts
        if self.votes_split:
            sdf = foreground.field(points, normals=False).sdf
            return Membership(sdf, label(points), self.hull_probability(points))
        seen = foreground.seen_from_outside(points)
        assert seen.alpha is not None
        return Membership(seen.sdf, torch.logit(seen.alpha, eps=1e-6), None)

    @torch.no_grad()
    def inside(self, points: Tensor, time: Tensor | None = None, chunk: int = 1 << 15) -> Tensor:
        """(P,) bool: which points (P, 3) lie inside the object, as it is at times (P,); none outside its sphere.

        Raises:
            ValueError: the object may deform and there are no times.
        """
        if self.deformation is not None and time is None:
            raise ValueError("the object may deform (scene.deformation): points need times")
        found = torch.zeros_like(points[:, 0], dtype=torch.bool)
        for index in (points.norm(dim=-1) < 1.0).nonzero()[:, 0].split(chunk):
            found[index] = self.membership(points[index], None if time is None else time[index]).inside
        return found

    # ------------------------------------------------------------------ on grids

    @torch.no_grad()
    def refresh_probability(self, dilation: float, chunk: int = 1 << 15) -> None:
        """Re-estimate m^P from the foreground itself: inside FoCoR, grown by `dilation`, where the label agrees.

        Where the object deforms, m^P is what it sweeps over the clip. A predicted alpha has no say: eq. 4 crops the
        background wherever FoCoR is.
        """
        foreground, _, _ = self._parts
        n = self.config.probability_resolution
        for index in torch.arange(n**3, device=self.hull.device).split(chunk):
            points = cell_centres(index, n, 1.0)
            if self.deformation is None:
                solid = self._soft_membership(points, dilation)
            else:
                solid = torch.zeros_like(points[:, 0])
                reach = self.deformation.config.bound + dilation + 4.0 / n
                reached = foreground.field(points, normals=False).sdf < reach
                for moment in torch.linspace(0, 1, SWEPT_MOMENTS, device=points.device):
                    seen = self.deformation(points[reached], moment.expand(int(reached.sum()))).points
                    solid[reached] = torch.maximum(solid[reached], self._soft_membership(seen, dilation))
            self.probability.view(-1)[index] = solid * (points.norm(dim=-1) < 1.0)

    def _soft_membership(self, points: Tensor, dilation: float) -> Tensor:
        """(P,) in [0, 1]: whether canonical points are in FoCoR, grown by `dilation`, and the label agrees."""
        foreground, label, _ = self._parts
        slope = 2.0 * self.config.probability_resolution  # from 0.1 to 0.9 in about a cell
        solid = torch.sigmoid((dilation - foreground.field(points, normals=False).sdf) * slope)
        return solid * torch.sigmoid(4.0 * label(points)) if self.votes_split else solid

    @torch.no_grad()
    def refresh_cache(self, share: float, progress: float, chunk: int = 1 << 15) -> None:
        """Refresh the cached distance and gate that guide sampling.

        Args:
            share: of the cells, drawn at random; those near FoCoR's surface are refreshed in any case.
            progress: fraction of the run.
            chunk: cells evaluated at once.
        """
        foreground, label, cache = self._parts
        n, sdf, gate = cache.resolution, cache.sdf.view(-1), cache.gate.view(-1)
        if self.deformation is not None:
            surface = (sdf <= sdf.min().clamp(min=self.deformation.config.bound)).nonzero()[:, 0]
            self.deformation.measure(cell_centres(surface, n, 1.0))
        drawn = torch.rand_like(sdf) < share
        for index in (drawn | (sdf.abs() < 3.0 * cache.cell)).nonzero()[:, 0].split(chunk):
            centres = cell_centres(index, n, 1.0)
            sdf[index] = foreground.field(centres, normals=False).sdf
            if not cache.splits:
                continue
            before, gate[index] = gate[index], 0.0
            reachable = self.ops.look_up_in_cube(self.reachable, centres) > LEAST_HULL
            asked = centres[reachable]
            if self.deformation is None:
                gate[index[reachable]] = label.gate(label(asked), progress)
            else:  # what is seen there may be that far away in the canonical frame
                asked = asked + (torch.rand_like(asked) * 2 - 1) * self.deformation.max_displacement
                found = label.gate(label(asked), progress)
                gate[index[reachable]] = torch.maximum(before[reachable] * GATE_DECAY, found)

    @torch.no_grad()
    def solid_cells(self) -> tuple[Tensor, Tensor]:
        """(N, N, N) bool each: cells of the cache that are object; and with those that it stains or may move into."""
        solid = self._solid(0.0)
        cells = STAINED_CELLS
        if self.deformation is not None:
            cells += math.ceil(self.deformation.max_displacement / self._parts[2].cell)
        return solid, F.max_pool3d(solid[None].float(), 2 * cells + 1, stride=1, padding=cells)[0] > 0

    @torch.no_grad()
    def bounds(self) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object; the object cube where there is no object."""
        cache = self._parts[2]
        # What touches the surface is taken, or parts thinner than a cell would not be in the box.
        margin = cache.cell + (0.0 if self.deformation is None else self.deformation.max_displacement)
        cells = self._solid(margin).nonzero()
        if not len(cells):
            return torch.tensor([[-1.0], [1.0]], device=cache.sdf.device).expand(2, 3)
        return torch.stack([cells.amin(0), cells.amax(0) + 1]) * cache.cell - 1.0

    def _solid(self, margin: float) -> Tensor:
        """(N, N, N) bool: cells of the cache with a distance below `margin`, on the object's side of the split."""
        cache = self._parts[2]
        near = cache.sdf < margin
        if cache.splits:
            return near & (cache.gate > 0.5)
        index = near.view(-1).nonzero()[:, 0]  # no gate is cached: the predicted alpha is asked
        centres = cell_centres(index, cache.resolution, 1.0).split(1 << 15)
        split = [self.canonical_membership(part).split for part in centres]
        near = near.clone()
        near.view(-1)[index] = torch.cat([*split, cache.sdf.new_zeros(0)]) > 0
        return near
