"""A small motion of the foreground over time: a deformation field from the observed frame to the canonical one.

The paper lets 'the representation network deform space along with the parallax or pose changes' and gives no more; the
form is ours. The displacement is a low-rank sum of K modes, smooth fields of space, each times a smooth function of
time: `D(p, t) = b / sqrt(3) * tanh(sum_k c_k(t) Phi_k(p))`, so |D| < b. `Phi` is a network with one hidden layer whose
output starts at zero; `c` is a cubic B-spline over the clip, so that frames held out of training are interpolated.
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
    """Bound and sizes of the object's deformation over a clip; none by default."""

    bound: float = 0.0
    """Largest displacement of a point of the object from its canonical position, in object radii; 0 switches the
    deformation off. 0.1 suits a breathing or swaying object; a walking one is beyond this model."""
    modes: int = 6
    """Number of modes: displacement fields that are blended over time."""
    knots: int = 12
    """Control points of the modes' splines over the clip, at least 4; more follow faster motion."""
    frequencies: int = 2
    """Octaves of the positional encoding; more allow smaller parts to move on their own."""
    hidden: int = 32
    """Width of the hidden layer."""


RIGID = DeformationConfig()
"""No deformation."""
MIN_DISPLACEMENT_SHARE = 0.1
"""Fraction of the bound that is added to the measured displacement in `Deformation.max_displacement`."""
DISPLACEMENT_MARGIN = 1.2
"""Factor on the measured displacement: it may grow until it is measured again."""


class Displacement(NamedTuple):
    """P points of the observed object frame, taken to the canonical frame."""

    points: Tensor  # (P, 3) canonical
    jacobian: Tensor  # (P, 3, 3) derivative by the observed points, I + dD/dp

    def observed_normal(self, normal: Tensor) -> Tensor:
        """Gradient `J^T n` (P, 3) by the observed points of a function whose canonical gradient is n (P, 3)."""
        return torch.einsum("pij,pi->pj", self.jacobian, normal)


def spline_weights(time: Tensor, knots: int) -> Tensor:
    """Weights (P, knots) of a uniform cubic B-spline's control points at times (P,) in [0, 1]; each row sums to 1."""
    position = time.clamp(0, 1) * (knots - 3)
    distance = (position[:, None] + 1 - torch.arange(knots, device=time.device)).abs()  # in knots
    near = 2.0 / 3.0 - distance.square() + 0.5 * distance**3
    far = (2.0 - distance).clamp(min=0) ** 3 / 6.0
    return torch.where(distance < 1, near, far)


class Deformation(nn.Module):
    """Observed points and times -> canonical points, and their exact Jacobian.

    Args:
        config: bound and sizes.

    Attributes:
        max_displacement: upper bound on how far the object moves at this stage of training, in object radii; see
            `measure`. 0 before the first measurement.

    Raises:
        UserError: fewer than the 4 control points that a cubic spline needs.
    """

    displacement: Tensor

    def __init__(self, config: DeformationConfig):
        super().__init__()
        if config.knots < 4:
            raise UserError(f"deformation.knots is {config.knots}; expected at least 4, which a cubic spline needs.")
        self.config = config
        octaves = 2.0 ** torch.arange(config.frequencies) * (math.pi / 2)
        self.octaves: Tensor
        self.register_buffer("octaves", octaves, persistent=False)
        self.hidden = nn.Linear(3 * (1 + 2 * config.frequencies), config.hidden)
        self.out = nn.Linear(config.hidden, 3 * config.modes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # Cosines of rising frequency (a DCT trajectory basis): slow motion is in their span from the start.
        phase = torch.linspace(0, 1, config.knots)[:, None] * torch.arange(1, config.modes + 1)
        self.control = nn.Parameter(torch.cos(math.pi * phase))  # (knots, modes)
        self.register_buffer("displacement", torch.zeros((), dtype=torch.float64))
        self.max_displacement = 0.0  # the buffer's value on the host: reading it from a GPU would stall

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.max_displacement = float(self.displacement)

    @torch.no_grad()
    def measure(self, points: Tensor, draws: int = 4096) -> None:
        """Set `max_displacement` from random points of (P, 3) at random times, with a margin for later steps."""
        chosen = points[torch.randint(len(points), (draws,), device=points.device)]
        displacement = self(chosen, torch.rand(draws, device=points.device)).points - chosen
        largest = float(displacement.norm(dim=-1).max())
        measured = DISPLACEMENT_MARGIN * largest + MIN_DISPLACEMENT_SHARE * self.config.bound
        self.max_displacement = min(self.config.bound, measured)
        self.displacement.fill_(self.max_displacement)

    def forward(self, points: Tensor, time: Tensor) -> Displacement:
        """Take points to the canonical frame.

        Args:
            points: (P, 3) of the observed object frame.
            time: (P,) in [0, 1], when each is observed.
        """
        count, modes = points.shape[0], self.config.modes
        blend = spline_weights(time, self.config.knots).to(points.dtype) @ self.control  # (P, modes)
        phase = points[..., None] * self.octaves  # (P, 3, octaves)
        sine, cosine = torch.sin(phase), torch.cos(phase)
        encoded = torch.cat([points[..., None], sine, cosine], -1)  # (P, 3, channels): each channel depends on one axis
        slope = torch.cat([torch.ones_like(points[..., None]), self.octaves * cosine, -self.octaves * sine], -1)
        active = torch.tanh(self.hidden(encoded.flatten(1)))
        direction = torch.tanh(torch.einsum("pak,pk->pa", self.out(active).reshape(count, 3, modes), blend))

        by_axis = self.hidden.weight.reshape(-1, 3, encoded.shape[-1])
        inner = torch.einsum("hac,pac->pha", by_axis, slope) * (1 - active.square())[..., None]  # (P, hidden, 3)
        outer = torch.einsum("akh,pk->pah", self.out.weight.reshape(3, modes, -1), blend)
        scale = self.config.bound / math.sqrt(3.0)
        gradient = scale * (1 - direction.square())[..., None] * torch.bmm(outer, inner)
        return Displacement(points + scale * direction, torch.eye(3).to(points) + gradient)
