"""No geometry at all behind the object, for the ablation: a colour for every direction."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.background.density import DensityBackground
from surface_sos_ns.sampling.ray_samples import Samples


class DirectionalBackground(DensityBackground):
    """The density field at each ray's last sample alone, which is so far away that only its direction counts."""

    def place(self, samples: Samples) -> Samples:
        """See `Background.place`."""
        rays, per_ray = samples.interval.shape
        return samples._replace(background=torch.arange(1, rays + 1, device=samples.edges.device) * per_ray - 1)

    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """Nowhere: samples are drawn as if there were nothing behind the object."""
        return torch.zeros_like(contracted[:, 0])
