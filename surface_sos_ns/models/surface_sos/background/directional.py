"""For the ablation: no background geometry, a colour that depends on the direction alone."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.background.density import DensityBackground
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.sampling.selection import Selection


class DirectionalBackground(DensityBackground):
    """The density field at each ray's last sample only, which is so far away that it depends on the direction alone."""

    def select_samples(self, samples: Samples) -> Samples:
        """See `Background.select_samples`."""
        rays, per_ray = samples.interval.shape
        if samples.background.counted is not None:
            last = torch.arange(per_ray, device=samples.edges.device) == per_ray - 1
            return samples._replace(background=Selection(per_ray, None, last.repeat(rays)))
        last = torch.arange(1, rays + 1, device=samples.edges.device) * per_ray - 1
        return samples._replace(background=Selection(per_ray, last))

    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """0: samples are drawn by the foreground alone."""
        return torch.zeros_like(contracted[:, 0])
