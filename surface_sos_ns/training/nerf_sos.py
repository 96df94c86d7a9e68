"""Both stages of NeRF-SOS: the radiance field from colours, then the segmentation alone by contrastive losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from surface_sos_ns.models.nerf_sos.radiance_field import RayRadiance
from surface_sos_ns.models.nerf_sos.scene import NerfSOS
from surface_sos_ns.models.nerf_sos.surfaces import Surfaces, seen_surfaces
from surface_sos_ns.sampling.patches import patch_batch
from surface_sos_ns.training.contrastive import (
    Biases,
    ContrastiveConfig,
    appearance_loss,
    biases_from_quantiles,
    geometry_loss,
    negative_pairs,
)
from surface_sos_ns.training.losses import colour_loss

BIAS_BATCHES = 16
"""Batches over which biases are measured."""


@dataclass(frozen=True)
class NerfSOSObjective:
    """Weights of the losses and sizes of the batches of both stages."""

    distortion: float = 3e-3
    """Weight of mip-NeRF 360's distortion loss, against floaters."""
    exposure: float = 1e-3
    """Weight of the mean square of the exposure and white-balance codes."""
    contrast: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """The losses of the segmentation (eq. 2-10)."""
    descriptor_quantiles: Biases = field(default_factory=lambda: Biases(0.2, 0.5))
    """Biases of the appearance loss for features without a class token, such as the descriptor's, as quantiles of their
    cosines: where those of `contrast` lie among the cosines of DINO, for which they were found. With higher ones more
    than two groups push each other away, and which of them two clusters join is chance."""
    patches: int = 8
    """Patches in a batch, each of another photo."""
    patch_side: int = 64
    """Pixels along a patch's sides."""
    patch_span: float = 0.5
    """What a patch spans of the photo's shorter side: 64 pixels at stride 6 of 756, as in the paper."""


def radiance_losses(
    scene: NerfSOS, found: RayRadiance, rgb: Tensor, photo: Tensor, objective: NerfSOSObjective
) -> dict[str, Tensor]:
    """Weighted losses of the first stage.

    Args:
        scene: for its exposure codes.
        found: rendered training rays (R,).
        rgb: (R, 3) their colours as the photos show them.
        photo: (R, 3) colours of the photos.
        objective: weights.
    """
    return {
        "colour": colour_loss(rgb, photo),
        "distortion": objective.distortion * found.distortion.mean(),
        "exposure": objective.exposure * scene.appearance.regulariser(),
    }


@dataclass(frozen=True)
class SegmentationData:
    """Data of the second stage: for each of V photos a grid of pixels, their rendered samples, and its features."""

    sizes: list[tuple[int, int]]
    """V (height, width) of the grids."""
    starts: Tensor
    """(V + 1,) int64, first pixel of each grid; pixels row by row."""
    surfaces: Surfaces
    """Of all P pixels."""
    patches: list[Tensor]
    """V (D, h, w) patch features of the photos. At a pixel they are interpolated; kept for all pixels they would take
    gigabytes."""
    descriptors: Tensor
    """(V, D) of whole photos, for the choice of negative pairs."""

    @classmethod
    def of(
        cls,
        scene: NerfSOS,
        sizes: list[tuple[int, int]],
        origins: Tensor,
        directions: Tensor,
        features: Sequence[NDArray[np.floating[Any]]],
        descriptors: NDArray[np.floating[Any]],
    ) -> SegmentationData:
        """Render the grids once.

        Args:
            scene: with its radiance field trained, in evaluation mode.
            sizes: V (height, width) of the grids.
            origins, directions: (P, 3) rays of all pixels, grid by grid, row by row, object frame.
            features: V (h, w, D) patch features; grids of patches that tile the photos.
            descriptors: (V, D).
        """
        device = origins.device
        starts = torch.tensor([0, *np.cumsum([height * width for height, width in sizes])], device=device)
        return cls(
            sizes,
            starts,
            seen_surfaces(scene.field, origins, directions),
            [torch.as_tensor(grid, dtype=torch.float32, device=device).permute(2, 0, 1) for grid in features],
            torch.as_tensor(descriptors, dtype=torch.float32, device=device),
        )

    @cached_property
    def _widths(self) -> Tensor:
        """(V,) int64 of the grids."""
        return torch.tensor([width for _, width in self.sizes], device=self.starts.device)

    def features_at(self, photo: int, pixels: Tensor) -> Tensor:
        """Features (N, D), of length 1, at pixels (N,) of a photo, counted over all grids."""
        height, width = self.sizes[photo]
        local = pixels - self.starts[photo]
        row, column = torch.div(local, width, rounding_mode="floor"), local % width
        at = torch.stack([(column + 0.5) / width, (row + 0.5) / height], -1) * 2 - 1
        found = F.grid_sample(
            self.patches[photo][None], at[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return F.normalize(found[0, :, 0].T, dim=-1)

    def pixels_of(self, photo: int) -> Tensor:
        """(H * W,) int64 pixels of a photo's grid, counted over all grids."""
        first, end = self.starts[photo : photo + 2].tolist()
        return torch.arange(first, end, device=self.starts.device)

    def batch_features(self, photos: Tensor, pixels: Tensor) -> Tensor:
        """Features (B, N, D) at what `draw` returns."""
        pairs = zip(photos.tolist(), pixels, strict=True)
        return torch.stack([self.features_at(photo, chosen) for photo, chosen in pairs])

    def patch(self, objective: NerfSOSObjective) -> tuple[int, int]:
        """Side of a patch and stride between its pixels, in pixels of the grids; they adapt to the smallest grid."""
        shortest = min(min(size) for size in self.sizes)
        side = min(objective.patch_side, shortest)
        return side, max(1, round(objective.patch_span * shortest / side))

    def draw(self, objective: NerfSOSObjective, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random patches of different photos.

        Returns:
            (B,) photos and (B, N) pixels, drawn from each patch.

        Raises:
            ValueError: a photo is too small for a patch, or there are fewer than two photos.
        """
        side, stride = self.patch(objective)
        count = min(objective.patches, len(self.sizes))
        drawn = patch_batch(self.sizes, count, side, stride, generator)
        wanted = objective.contrast.points or drawn.shape[1]
        if wanted < drawn.shape[1]:
            chosen = torch.stack([torch.randperm(drawn.shape[1], generator=generator)[:wanted] for _ in range(count)])
            drawn = drawn.gather(1, chosen[..., None].expand(-1, -1, 3))
        photo, row, column = drawn.to(self.starts.device).unbind(-1)
        return photo[:, 0], self.starts[photo] + row * self._widths[photo] + column


def with_measured_biases(objective: NerfSOSObjective, data: SegmentationData) -> NerfSOSObjective:
    """The objective with biases of the appearance loss for features that no network has computed.

    They are means over `BIAS_BATCHES` batches, always the same for the same data.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(BIAS_BATCHES):
        photos, pixels = data.draw(objective, generator)
        features = data.batch_features(photos, pixels)
        negatives = negative_pairs(data.descriptors[photos])
        quantiles, centred = objective.descriptor_quantiles, objective.contrast.centred
        found.append(biases_from_quantiles(features, negatives, quantiles, centred))
    identity, negative = (sum(values) / BIAS_BATCHES for values in zip(*map(astuple, found), strict=True))
    return replace(objective, contrast=replace(objective.contrast, appearance_biases=Biases(identity, negative)))


def segmentation_losses(
    scene: NerfSOS, data: SegmentationData, objective: NerfSOSObjective, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Weighted losses of the second stage (eq. 4, 9 and 10) on a new batch; gradients go to the head alone.

    Their sum is eq. 10 with lambda_0 = 0: the radiance field is frozen, so the colour loss is not needed.
    """
    photos, pixels = data.draw(objective, generator)
    patches, points = pixels.shape
    seen = data.surfaces.at(pixels.reshape(-1))
    codes = seen.codes(scene.head).reshape(patches, points, -1)
    negatives = negative_pairs(data.descriptors[photos])
    features, where = data.batch_features(photos, pixels), seen.points.reshape(patches, points, 3)
    contrast = objective.contrast
    return {
        "appearance": contrast.appearance * appearance_loss(features, codes, negatives, contrast),
        "geometry": contrast.geometry * geometry_loss(where, codes, negatives, contrast),
    }
