"""A small motion of the foreground over time: from where a point is seen to where the fields know it.

The paper lets 'the representation network deform space along with the parallax or pose changes' and gives no more; the
form is ours. The displacement is a sum of a few smooth fields of space, the modes, each times a smooth function of
time: `D(p, t) = b / sqrt(3) * tanh(sum_k c_k(t) Phi_k(p))`, so |D| < b. `Phi` is a network with one hidden layer, zero
at first; `c` is a cubic B-spline, so that a frame between two others moves as between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.utils.errors import UserError


@dataclass(frozen=True)
class DeformationConfig:
    """How much the object may move while it is filmed; not at all by default."""

    bound: float = 0.0
    """Farthest a point of the object may be from its place in the canonical frame, in object radii; 0 switches the
    deformation off. 0.1 is for a breathing or swaying object; a walking one is beyond this model."""
    modes: int = 6
    """Number of displacement fields that are blended over time."""
    knots: int = 12
    """Control points of their splines over the clip: more follow faster motion."""
    frequencies: int = 2
    """Octaves of the encoding of positions: more allow motion of smaller parts."""
    hidden: int = 32
    """Width of the hidden layer."""


STILL = DeformationConfig()
LEAST_DISPLACEMENT = 0.1
"""Part of the bound that the object may move before it has been seen to move."""
GROWTH = 1.2
"""Of the displacement seen, for what the next steps may add."""


class Displacement(NamedTuple):
    """Where P points of the observed object frame are in the canonical one."""

    points: Tensor  # (P, 3) canonical
    jacobian: Tensor  # (P, 3, 3) of them with respect to the observed points, I + dD/dp

    def observed_normal(self, normal: Tensor) -> Tensor:
        """Gradient (P, 3) of a canonical function along the observed frame: `J^T n`."""
        return torch.einsum("pij,pi->pj", self.jacobian, normal)


def spline_weights(time: Tensor, knots: int) -> Tensor:
    """(P, knots) weights of a uniform cubic B-spline's control points at times (P,) in [0, 1]; each row sums to 1."""
    at = time.clamp(0, 1) * (knots - 3)
    apart = (at[:, None] + 1 - torch.arange(knots, device=time.device)).abs()  # from each control point, in knots
    near = 2.0 / 3.0 - apart.square() + 0.5 * apart**3
    far = (2.0 - apart).clamp(min=0) ** 3 / 6.0
    return torch.where(apart < 1, near, far)


class Deformation(nn.Module):
    """Observed points and times -> canonical points and the exact Jacobian.

    Attributes:
        max_displacement: how far the object moves by now, object radii, at most; see `measure`.

    Raises:
        UserError: fewer control points than a cubic spline has.
    """

    displacement: Tensor

    def __init__(self, config: DeformationConfig):
        super().__init__()
        if config.knots < 4:
            raise UserError(f"deformation.knots is {config.knots}; expected at least 4, which a cubic spline has.")
        self.config = config
        octaves = 2.0 ** torch.arange(config.frequencies) * (math.pi / 2)
        self.octaves: Tensor
        self.register_buffer("octaves", octaves, persistent=False)
        self.hidden = nn.Linear(3 * (1 + 2 * config.frequencies), config.hidden)
        self.out = nn.Linear(config.hidden, 3 * config.modes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # Cosines of rising frequency, as in trajectory bases: whatever moves slowly is in their span from the start.
        place = torch.linspace(0, 1, config.knots)[:, None] * torch.arange(1, config.modes + 1)
        self.control = nn.Parameter(torch.cos(math.pi * place))  # (knots, modes)
        self.register_buffer("displacement", torch.zeros((), dtype=torch.float64))
        self.max_displacement = 0.0  # the buffer's value: reading it from a GPU in every call would stall

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.max_displacement = float(self.displacement)

    @torch.no_grad()
    def measure(self, points: Tensor, draws: int = 4096) -> None:
        """Take over how far some of the points (P, 3) move over the clip, with room for what the next steps may add."""
        chosen = points[torch.randint(len(points), (draws,), device=points.device)]
        moved = self(chosen, torch.rand(draws, device=points.device)).points - chosen
        seen = GROWTH * float(moved.norm(dim=-1).max()) + LEAST_DISPLACEMENT * self.config.bound
        self.max_displacement = min(self.config.bound, seen)
        self.displacement.fill_(self.max_displacement)

    def forward(self, points: Tensor, time: Tensor) -> Displacement:
        """Args: points (P, 3) of the object frame, time (P,) in [0, 1]."""
        count, modes = points.shape[0], self.config.modes
        blend = spline_weights(time, self.config.knots).to(points.dtype) @ self.control  # (P, modes)
        phase = points[..., None] * self.octaves  # (P, 3, octaves)
        sine, cosine = torch.sin(phase), torch.cos(phase)
        encoded = torch.cat([points[..., None], sine, cosine], -1)  # (P, 3, channels): each of one axis alone
        slope = torch.cat([torch.ones_like(points[..., None]), self.octaves * cosine, -self.octaves * sine], -1)
        active = torch.tanh(self.hidden(encoded.flatten(1)))
        moved = torch.tanh(torch.einsum("pak,pk->pa", self.out(active).reshape(count, 3, modes), blend))

        by_axis = self.hidden.weight.reshape(-1, 3, encoded.shape[-1])
        inner = torch.einsum("hac,pac->pha", by_axis, slope) * (1 - active.square())[..., None]  # (P, hidden, 3)
        outer = torch.einsum("akh,pk->pah", self.out.weight.reshape(3, modes, -1), blend)
        scale = self.config.bound / math.sqrt(3.0)
        gradient = scale * (1 - moved.square())[..., None] * torch.bmm(outer, inner)
        return Displacement(points + scale * moved, torch.eye(3).to(points) + gradient)
