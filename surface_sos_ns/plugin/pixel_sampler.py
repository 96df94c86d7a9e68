"""Which pixels of the training photos rays are drawn through: half of them near the object's outline."""

from __future__ import annotations

from typing import Any

import torch
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from torch import Tensor

from surface_sos_ns.plugin.dataset import PixelCache
from surface_sos_ns.utils.errors import UserError

__all__ = ["CachedPixelSampler", "OutlineSampler"]


class CachedPixelSampler(PixelSampler):
    """Draws pixels of a :class:`PixelCache` from everywhere. Takes nerfstudio's config, for the number of rays."""

    def sample(self, image_batch: Any) -> dict[str, Tensor]:
        """A batch of ``num_rays_per_batch`` pixels, see :meth:`PixelCache.gather`."""
        return image_batch.gather(self.anywhere(image_batch, self.num_rays_per_batch).long())

    def anywhere(self, cache: PixelCache, count: int) -> Tensor:
        """(count,) positions of pixels that may be drawn."""
        device = cache.images.device
        if cache.valid is None or self.config.ignore_mask:
            return torch.randint(cache.pixel_count, (count,), device=device)
        return cache.valid[torch.randint(len(cache.valid), (count,), device=device)]


class OutlineSampler(CachedPixelSampler):
    """Draws a fraction of the pixels from a band, the others from everywhere.

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
        """See `CachedPixelSampler.sample`; the pixels from the band come first."""
        count = self.num_rays_per_batch
        near = round(count * self.band_fraction)
        if self.band is None or len(self.band) == 0 or near == 0:
            return super().sample(image_batch)
        drawn = self.band[torch.randint(len(self.band), (near,), device=image_batch.images.device)]
        return image_batch.gather(torch.cat([drawn, self.anywhere(image_batch, count - near)]).long())
