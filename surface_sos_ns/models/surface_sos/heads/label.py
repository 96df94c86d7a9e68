"""The label 'belongs to the object', or to which of several: learned from mask votes to the end of the run, it splits
the layers (default preset).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.fields.deformation import Displacement
from surface_sos_ns.fields.label import LabelField, any_object
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.heads.head import Head, Targets
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights, scale_gradient
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.training.losses import identity_entropy, vote_loss
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
    label: PackedValues  # (I,) probability of belonging to the object; of each of several (I, K)
    shares: PackedValues | None  # (I, K) shares of several objects there, of sum 1, no gradient; None with one
    further: Tensor  # (Q, K) logits at the further points


class LabelHead(Head):
    """The label field, its gate and its losses.

    The gate is that of any object; which of several objects it is does not affect the split of the layers.

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.
        objects: number of objects K.
    """

    name = "label"

    def __init__(self, config: SceneConfig, ops: TorchOps, objects: int = 1):
        super().__init__()
        self.config, self.ops = config, ops
        self.field = LabelField(config.label_grid, ops=ops, objects=objects)

    @property
    def objects(self) -> int:
        """K."""
        return self.field.objects

    def forward(self, points: Tensor) -> Tensor:
        """(P,) logits of 'belongs to some object' at canonical points (P, 3)."""
        return any_object(self.field(points))

    @torch.no_grad()
    def identities(self, points: Tensor) -> Tensor:
        """(P,) int64 in 1 to K: the object that owns each canonical point (P, 3), if any does; on the head's device."""
        points = points.to(self.field.out.weight)
        return torch.cat([self.field(part).argmax(-1) + 1 for part in points.split(self.ops.chunk_points)])

    @torch.no_grad()
    def lead(self, points: Tensor, identity: int) -> Tensor:
        """(P,) by how much one object's logit exceeds the largest of the others', at canonical points (P, 3)."""
        logits = self.field(points)
        others = logits.clone()
        others[:, identity - 1] = -torch.inf
        return logits[:, identity - 1] - others.amax(-1)

    def gate(self, logits: Tensor, progress: Progress) -> Tensor:
        """Logits (P,) -> the alpha of eq. 3 (P,) that splits the layers; its slope rises over the run."""
        first, last = self.config.gate_slope
        return torch.sigmoid(geometric(progress, first, last) * logits)

    def _shares(self, logits: Tensor, progress: Progress) -> Tensor | None:
        """Logits (P, K) -> the objects' shares (P, K), of sum 1, with the gate's slope; None with one object."""
        if self.objects == 1:
            return None
        first, last = self.config.gate_slope
        return torch.softmax(geometric(progress, first, last) * logits.detach(), -1)

    def evaluate(
        self, samples: Samples, displacement: Displacement | None, progress: Progress, further: Tensor | None = None
    ) -> LabelSamples:
        """The label at `samples.in_hull`, and the field's logits at canonical points `further` (Q, 3).

        Points are detached: coarse masks must move neither poses nor the object, only colours may.
        """
        selection = samples.in_hull
        points = (selection.take(samples.points) if displacement is None else displacement.points).detach()
        logits = self.field(points if further is None else torch.cat([points, further]))
        each = logits[: points.shape[0]]
        here = any_object(each)
        gate = scale_gradient(self.gate(here, progress), torch.as_tensor(self.config.gate_gradient))
        label, shares = torch.sigmoid(here), self._shares(each, progress)
        if shares is not None:
            label = label[:, None] * torch.softmax(each, -1)
        return LabelSamples(
            selection.pack(gate),
            selection.pack(label),
            None if shares is None else selection.pack(shares),
            logits[points.shape[0] :],
        )

    def accumulate(self, weights: RayWeights, values: PackedValues) -> Tensor:
        """The label (R,), or (R, K), of the surfaces of both layers, since it decides which of them are the object."""
        return self.ops.accumulate_detached(weights.combined, values)

    def losses(
        self, rendering: Rendering, targets: Targets, objective: LabelObjective, progress: Progress
    ) -> dict[str, Tensor]:
        """Vote loss on rays, and the voted hulls as a prior at random points."""
        first, last = objective.vote_robustness
        robustness = first + (last - first) * progress
        seen, logits = rendering.head_values[self.name], rendering.regularisers.label[: len(targets.hull)]
        anchor = identity_entropy(logits, targets.hull.clamp(0.02, 0.98), targets.hull_identity)
        if targets.identity is None:
            claimed, none = seen, 1.0 - seen
        else:
            none = 1.0 - seen.sum(-1)
            claimed = seen.gather(1, (targets.identity - 1).clamp(min=0)[:, None])[:, 0]
        return {
            "votes": objective.votes * vote_loss(claimed, none, targets.mask, targets.weight, robustness),
            "label_prior": objective.label_prior * anchor,
        }
