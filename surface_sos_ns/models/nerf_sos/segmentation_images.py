"""Images of the segmentation: cluster colours, and which cluster a pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.clusters import Clusters
from surface_sos_ns.models.surface_sos.rendering import Rendering

COLOURS = (
    (0.16, 0.20, 0.28),
    (0.98, 0.55, 0.20),
    (0.25, 0.70, 0.55),
    (0.85, 0.30, 0.45),
    (0.45, 0.50, 0.90),
    (0.90, 0.85, 0.35),
    (0.55, 0.35, 0.60),
    (0.75, 0.75, 0.75),
)
"""Colours of the clusters; where there are more clusters than these, colours repeat."""


@dataclass(frozen=True)
class SegmentationImages:
    """Makes images of rendered segmentation codes; before there are clusters they are black."""

    clusters: Clusters
    name: ClassVar[str] = "segmentation"
    output_names: ClassVar[tuple[str, ...]] = ("segmentation", "clusters")

    def outputs(self, rendering: Rendering) -> dict[str, Tensor]:
        """`segmentation` (R, 3): cluster colours, mixed by soft membership; `clusters` (R, 1): their numbers."""
        codes = rendering.head_values[self.name]
        if not self.clusters.fitted:
            return {"segmentation": codes.new_zeros(len(codes), 3), "clusters": codes.new_zeros(len(codes), 1)}
        membership = self.clusters.membership(codes)
        count = membership.shape[-1]
        colours = torch.tensor([COLOURS[index % len(COLOURS)] for index in range(count)], device=codes.device)
        mixed = membership.to(colours.dtype) @ colours * rendering.accumulation[:, None]
        return {"segmentation": mixed, "clusters": self.clusters.labels(codes)[:, None].to(codes.dtype)}
