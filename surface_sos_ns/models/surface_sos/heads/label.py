"""The label 'belongs to the object': learned from mask votes to the end of the run, it splits the layers (default
preset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.fields.deformation import Displacement
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.heads.head import Head, Targets
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights, scale_gradient
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.training.losses import vote_loss
from surface_sos_ns.training.schedules import Progress, geometric


@dataclass(frozen=True)
class LabelObjective:
    """Weights of the label's losses."""

    votes: float = 0.3
    """Weight of the coarse masks' votes on the label, with the geometry detached, to the end of the run (default
    preset)."""
    vote_robustness: tuple[float, float] = (0.1, 0.7)
    """q of the votes' generalised cross entropy at the start and the end of the run: from the masks' mean to their
    majority."""
    label_prior: float = 0.05
    """Weight that keeps the label near the voted hull where rays see no surface (free space, the inside of objects)."""


class LabelSamples(NamedTuple):
    """The label at the I samples in the voted hull."""

    gate: PackedValues  # (I,) the alpha of eq. 3 that splits the layers; its gradient is scaled by `gate_gradient`
    label: PackedValues  # (I,) probability of belonging to the object
    further: Tensor  # (Q,) logits at the further points


class LabelHead(Head):
    """The label field, its gate and its losses.

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.
    """

    name = "label"

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.field = LabelField(config.label_grid, ops=ops)

    def forward(self, points: Tensor) -> Tensor:
        """(P,) logits at canonical points (P, 3)."""
        return self.field(points)

    def gate(self, logits: Tensor, progress: Progress) -> Tensor:
        """Logits (P,) -> the alpha of eq. 3 (P,) that splits the layers; its slope rises over the run."""
        first, last = self.config.gate_slope
        return torch.sigmoid(geometric(progress, first, last) * logits)

    def evaluate(
        self, samples: Samples, displacement: Displacement | None, progress: Progress, further: Tensor | None = None
    ) -> LabelSamples:
        """The label at `samples.in_hull`, and its logits at canonical points `further` (Q, 3).

        Points are detached: coarse masks must move neither poses nor the object, only colours may.
        """
        selection = samples.in_hull
        points = (selection.take(samples.points) if displacement is None else displacement.points).detach()
        logits = self.field(points if further is None else torch.cat([points, further]))
        here = logits[: points.shape[0]]
        gate = scale_gradient(self.gate(here, progress), torch.as_tensor(self.config.gate_gradient))
        return LabelSamples(selection.pack(gate), selection.pack(torch.sigmoid(here)), logits[points.shape[0] :])

    def accumulate(self, weights: RayWeights, values: PackedValues) -> Tensor:
        """The label (R,) of the surfaces of both layers, since it decides which of them are the object."""
        return self.ops.accumulate_detached(weights.combined, values)

    def losses(
        self, rendering: Rendering, targets: Targets, objective: LabelObjective, progress: Progress
    ) -> dict[str, Tensor]:
        """Vote loss on rays, and the voted hull as a prior at random points."""
        first, last = objective.vote_robustness
        robustness = first + (last - first) * progress
        seen, logits = rendering.head_values[self.name], rendering.regularisers.label[: len(targets.hull)]
        anchor = F.binary_cross_entropy_with_logits(logits, targets.hull.clamp(0.02, 0.98))
        return {
            "votes": objective.votes * vote_loss(seen, targets.mask, targets.weight, robustness),
            "label_prior": objective.label_prior * anchor,
        }
