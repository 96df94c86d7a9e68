"""Where the object of a NeRF-SOS run is: dense, and nearest to the object's cluster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.clusters import Clusters
from surface_sos_ns.models.nerf_sos.loaded_surfaces import LoadedSurfaces
from surface_sos_ns.models.nerf_sos.radiance_field import RadianceField
from surface_sos_ns.models.nerf_sos.segmentation import SegmentationHead
from surface_sos_ns.sampling.field_cache import grid_centres

BOUNDS_RESOLUTION = 64
"""Cells per axis of the grid over the object cube in which its box is looked for."""


@dataclass(frozen=True)
class ObjectRegion:
    """The object as a region of the object cube. There is no surface: a density has none."""

    field: RadianceField | LoadedSurfaces
    head: SegmentationHead
    clusters: Clusters

    @torch.no_grad()
    def inside(self, points: Tensor, time: Tensor | None = None, chunk: int = 1 << 15) -> Tensor:
        """(P,) bool, whether points (P, 3) are in the object; false outside its sphere."""
        if not self.clusters.fitted:
            return torch.zeros_like(points[:, 0], dtype=torch.bool)
        return torch.cat([self._inside(part) for part in points.split(chunk)]) if len(points) else points[:, 0] > 0

    @torch.no_grad()
    def bounds(self) -> Tensor:
        """(2, 3) lowest and highest corner of the object's box; the object cube if there is no object."""
        points = grid_centres(BOUNDS_RESOLUTION, 1.0, self.clusters.shares.device)
        found = points[self.inside(points)]
        if not len(found):
            return torch.tensor([[-1.0], [1.0]], device=points.device).expand(2, 3)
        margin = 1.0 / BOUNDS_RESOLUTION
        return torch.stack([found.amin(0) - margin, found.amax(0) + margin])

    def _inside(self, points: Tensor) -> Tensor:
        features = self.field.features_at(points)
        codes = self.head(features[:, :3], features[:, 3:])
        is_object = self.clusters.labels(codes) == self.clusters.foreground
        return is_object & self.field.solid(points) & (points.norm(dim=-1) < 1.0)
