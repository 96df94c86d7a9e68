"""What surfaces carry besides their colour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights


class Targets(NamedTuple):
    """What the losses of heads may be held against, for R rays and Q regulariser points."""

    mask: Tensor  # (R,) coarse mask, in [0, 1]
    weight: Tensor  # (R,) what the ray's mask counts
    hull: Tensor  # (Q,) voted hull's probability at the random regulariser points


class Head(nn.Module, ABC):
    """A field on surfaces, its losses and its outputs.

    The renderer evaluates it where the object can be seen and sums it along rays with the geometry detached: what is
    painted on surfaces must not move them.
    """

    name: ClassVar[str]
    """By which `Rendering.carried` holds what rays see of it."""
    output_names: ClassVar[tuple[str, ...]] = ()
    """Of the images that `outputs` makes."""
    ops: TorchOps

    @abstractmethod
    def forward(self, points: Tensor) -> Tensor:
        """(P,) or (P, C) at canonical points (P, 3) of the object frame, which come without gradient."""

    def accumulate(self, weights: RayWeights, values: PackedValues) -> Tensor:
        """(R,) or (R, C) seen along rays of what the head says at samples of the foreground."""
        return self.ops.accumulate_detached(weights.foreground, values)

    def losses(self, rendering: Rendering, targets: Targets, objective: Any, progress: float) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            rendering: of R rays in training.
            targets: of the same rays.
            objective: `training.objective.ObjectiveConfig`, which holds the weights.
            progress: fraction of the run.
        """
        return {}

    def outputs(self, rendering: Rendering) -> dict[str, Tensor]:
        """Images (R, C) by name, those of `output_names`: what viewer and commands show of it."""
        return {}
