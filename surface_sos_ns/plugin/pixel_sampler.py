"""Which pixels of the training photos rays are drawn through: half of them near the object's outline."""

from __future__ import annotations

from typing import Any

import torch
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor

from surface_sos_ns.plugin.dataset import PixelCache
from surface_sos_ns.utils.errors import UserError

__all__ = ["OutlineSampler"]


class OutlineSampler(PixelSampler):
    """Draws pixels from a :class:`PixelCache`: a fraction of them from a band, the others from everywhere.

    Args:
        config: nerfstudio's, for the number of rays.
        band_fraction: fraction of the rays from the band, 0..1; without a band all come from everywhere.
    """

    def __init__(self, config: PixelSamplerConfig, band_fraction: float, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if not 0 <= band_fraction <= 1:
            raise UserError(f"band_fraction is {band_fraction}; expected a value from 0 to 1.")
        self.band_fraction = band_fraction
        self.band: Tensor | None = None
        """(B,) positions in the cache, or None."""

    def sample(self, image_batch: Any) -> dict[str, Tensor]:
        """A batch of ``num_rays_per_batch`` pixels, see :meth:`PixelCache.gather`; those from the band come first."""
        cache: PixelCache = image_batch
        device = cache.images.device
        near = round(self.num_rays_per_batch * self.band_fraction) if self.band is not None and len(self.band) else 0
        parts = []
        if near and self.band is not None:
            parts.append(self.band[torch.randint(len(self.band), (near,), device=device)])
        rest = self.num_rays_per_batch - near
        if cache.valid is None or self.config.ignore_mask:
            parts.append(torch.randint(cache.pixel_count, (rest,), device=device))
        else:
            parts.append(cache.valid[torch.randint(len(cache.valid), (rest,), device=device)])
        return cache.gather(torch.cat(parts).long())
