"""Rendered samples of a frozen radiance field, kept for each pixel while the segmentation is learned on it.

The field does not change then, so neither do the samples and weights of a ray. Each pixel is rendered once; a step
evaluates the segmentation head alone, at the few samples that carry nearly all of a ray's weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.loaded_surfaces import LoadedSurfaces
from surface_sos_ns.models.nerf_sos.radiance_field import RadianceField
from surface_sos_ns.models.nerf_sos.segmentation import SegmentationHead
from surface_sos_ns.training.contrastive import points_at_depth

KEPT_SAMPLES = 6
"""Samples that are kept of a ray, those with the largest weights."""


class Surfaces(NamedTuple):
    """The kept samples of P pixels."""

    weights: Tensor  # (P, K) of the kept samples, scaled to the ray's accumulated opacity
    features: Tensor  # (P, K, 3 + G) contracted points and geometry features there
    points: Tensor  # (P, 3) at the expected depth (eq. 5 and 6), object frame

    def codes(self, head: SegmentationHead) -> Tensor:
        """Rendered segmentation codes (P, C): accumulated along the rays like colours. Gradients go to the head."""
        count, kept, width = self.features.shape
        flat = self.features.reshape(-1, width)
        return (self.weights[..., None] * head(flat[:, :3], flat[:, 3:]).reshape(count, kept, -1)).sum(1)

    @torch.no_grad()
    def all_codes(self, head: SegmentationHead, chunk: int = 1 << 14) -> Tensor:
        """Rendered segmentation codes (P, C), without gradients, `chunk` pixels at a time."""
        return torch.cat([Surfaces(*part).codes(head) for part in zip(*(v.split(chunk) for v in self), strict=True)])

    def at(self, index: Tensor) -> Surfaces:
        """Those of some pixels."""
        return Surfaces(*(values[index] for values in self))


@torch.no_grad()
def seen_surfaces(
    field: RadianceField | LoadedSurfaces, origins: Tensor, directions: Tensor, chunk: int = 1 << 12
) -> Surfaces:
    """Render pixels for the segmentation.

    Args:
        field: in evaluation mode.
        origins, directions: (P, 3) their rays, object frame, directions unit.
        chunk: rays rendered at once.
    """
    parts = [_seen(field, *rays) for rays in zip(origins.split(chunk), directions.split(chunk), strict=True)]
    return Surfaces(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _seen(field: RadianceField | LoadedSurfaces, origins: Tensor, directions: Tensor) -> Surfaces:
    found = field.render(origins, directions, colours=False)
    rays, samples = found.weights.shape
    kept, which = found.weights.topk(min(KEPT_SAMPLES, samples), dim=-1)
    features = found.features.reshape(rays, samples, -1)
    scale = found.accumulation / kept.sum(-1).clamp(min=1e-6)
    return Surfaces(
        kept * scale[:, None],
        features.gather(1, which[..., None].expand(-1, -1, features.shape[-1])),
        points_at_depth(origins, directions, found.depth),
    )
