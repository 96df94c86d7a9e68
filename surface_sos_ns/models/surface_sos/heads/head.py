"""The interface of heads: quantities learned on surfaces besides colour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights
from surface_sos_ns.training.schedules import Progress


class Targets(NamedTuple):
    """Training targets of heads, for R rays and Q random regulariser points."""

    mask: Tensor  # (R,) coarse mask, in [0, 1]
    weight: Tensor  # (R,) weight of the mask's vote on the ray
    hull: Tensor  # (Q,) probability of the voted hull
    identity: Tensor | None = None  # (R,) int64 object that the mask names, 0 for none; None with one object
    hull_identity: Tensor | None = None  # (Q,) int64 object whose hull it is; None with one object


class Head(nn.Module, ABC):
    """A field on surfaces, its losses and its outputs.

    The renderer evaluates it at the foreground samples that matter and accumulates it along rays with the geometry
    detached: what is learned on surfaces must not move them.
    """

    name: ClassVar[str]
    """Key of its accumulated values in `Rendering.head_values`."""
    output_names: ClassVar[tuple[str, ...]] = ()
    """Names of the images that `outputs` makes."""
    ops: TorchOps

    @abstractmethod
    def forward(self, points: Tensor) -> Tensor:
        """Values (P,) or (P, C) at canonical points (P, 3) of the object frame, which are detached."""

    def accumulate(self, weights: RayWeights, values: PackedValues) -> Tensor:
        """Values at foreground samples, accumulated along rays: (R,) or (R, C)."""
        return self.ops.accumulate_detached(weights.foreground, values)

    def losses(self, rendering: Rendering, targets: Targets, objective: Any, progress: Progress) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            rendering: of R rays in training.
            targets: of the same rays.
            objective: `training.objective.ObjectiveConfig`, with the weights of the losses.
            progress: fraction of the run.
        """
        return {}

    def outputs(self, rendering: Rendering) -> dict[str, Tensor]:
        """Images (R, C) by name, those of `output_names`, for the viewer and for commands."""
        return {}
