"""The label 'is object': learned from mask votes to the end of the run, it splits the layers (default preset)."""

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
from surface_sos_ns.training.schedules import geometric


@dataclass(frozen=True)
class LabelObjective:
    """Weights of the label's losses."""

    votes: float = 0.3
    """Weight of the label's mask votes, taken with the geometry detached, to the end of the run (default preset)."""
    vote_robustness: tuple[float, float] = (0.1, 0.7)
    """q of the votes' generalised cross entropy, first and last: from a mean of the masks to their majority."""
    label_prior: float = 0.05
    """Weight that keeps the label near the voted hull where no surface is seen (free space, insides)."""


class LabelSamples(NamedTuple):
    """The label at the I samples in the voted hull."""

    gate: PackedValues  # (I,) the alpha that splits the layers, with a share of its gradient
    label: PackedValues  # (I,) probability of the object
    further: Tensor  # (Q,) logits at the further points


class LabelHead(Head):
    """A small field of logits over the object cube.

    Args:
        config: sizes and choices.
        ops: numeric operations.
    """

    name = "label"

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.field = LabelField(config.label_grid, ops=ops)

    def forward(self, points: Tensor) -> Tensor:
        """(P,) logits at canonical points (P, 3)."""
        return self.field(points)

    def gate(self, logits: Tensor, progress: float) -> Tensor:
        """Logits -> the alpha of eq. 3 that splits the layers; its slope rises over the run."""
        first, last = self.config.gate_slope
        return torch.sigmoid(geometric(progress, first, last) * logits)

    def evaluate(
        self, samples: Samples, displacement: Displacement | None, progress: float, further: Tensor | None = None
    ) -> LabelSamples:
        """The label at `samples.in_hull`, and its logits at canonical points `further` (Q, 3).

        Like geometry, poses and motion follow the colours and not the coarse masks: no gradient to the points.
        """
        at = samples.in_hull
        points = (samples.points[at] if displacement is None else displacement.points).detach()
        logits = self.field(points if further is None else torch.cat([points, further]))
        here = logits[: points.shape[0]]
        gate = scale_gradient(self.gate(here, progress), torch.as_tensor(self.config.gate_gradient))
        return LabelSamples(PackedValues(gate, at), PackedValues(torch.sigmoid(here), at), logits[points.shape[0] :])

    def accumulate(self, weights: RayWeights, values: PackedValues) -> Tensor:
        """(R,) on surfaces of both layers: which of them is the object's is what the label says."""
        return self.ops.accumulate_detached(weights.stopped, values)

    def losses(
        self, rendering: Rendering, targets: Targets, objective: LabelObjective, progress: float
    ) -> dict[str, Tensor]:
        """Votes of the masks where rays see a surface, and the voted hull where they do not."""
        first, last = objective.vote_robustness
        robustness = first + (last - first) * progress
        seen, logits = rendering.carried[self.name], rendering.regularisers.label[: len(targets.hull)]
        anchor = F.binary_cross_entropy_with_logits(logits, targets.hull.clamp(0.02, 0.98))
        return {
            "votes": objective.votes * vote_loss(seen, targets.mask, targets.weight, robustness),
            "label_prior": objective.label_prior * anchor,
        }
