"""What every background offers to renderer, losses and caches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.initialisation import SightLines
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.rendering.composite import PackedValues
from surface_sos_ns.sampling.contraction import contract, contracted_cell
from surface_sos_ns.sampling.field_cache import FieldCache, cell_centres
from surface_sos_ns.sampling.ray_samples import Samples

EMPTY_SHARE, EMPTY_OPACITY = 0.1, 1e-2
"""Cells of the cached background with less opacity than the second are refreshed this much more rarely."""
MAX_OPTICAL_DEPTH = 0.7
"""Of a cell of the cached background. A surface is somewhere in its cell: were all light to stop at the cell's front,
so would all samples."""
CACHE_DECAY = 0.7
"""What is left of a cell's cached density at each refresh that finds less."""


class BackgroundSamples(NamedTuple):
    """The background at the B samples where it can be other than empty."""

    opacity: PackedValues  # (B,)
    colour_inputs: Tensor  # (B, I) of the colour net, directions not counted
    normals: Tensor  # (Q, 3) gradients of a signed distance where it is not cropped, for eq. 10; none of a density


class Background(nn.Module, ABC):
    """The layer behind the object, over space that is contracted beyond `contraction_radius` into a ball of radius 2.

    Attributes:
        field, colour: geometry and colour net.
        contraction_radius: how far from the object's centre space is not contracted, object radii.
    """

    field: DensityField | SDFField
    colour: ColourNet
    radius: Tensor

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.register_buffer("radius", torch.ones(()))
        self.contraction_radius = 1.0  # the buffer's value: reading it from a GPU in every call would stall

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.contraction_radius = float(self.radius)

    def set_contraction_radius(self, radius: float) -> None:
        """At least 1 object radius is taken."""
        self.contraction_radius = max(radius, 1.0)
        self.radius.fill_(self.contraction_radius)

    def contracted(self, points: Tensor) -> Tensor:
        """Points (P, 3) of the object frame -> contracted space."""
        return contract(points / self.contraction_radius)

    # ------------------------------------------------------------------ what a geometry says

    @abstractmethod
    def evaluate(self, samples: Samples, directions: Tensor, progress: float) -> BackgroundSamples:
        """Opacity, cropped by m^P (eq. 4), and what colours need, at `samples.background`.

        Args:
            samples: of R rays.
            directions: (R, 3) unit.
            progress: fraction of the run.
        """

    @abstractmethod
    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """(P,) per object radius, at points (P, 3) of contracted space where m^P is `crop` (P,)."""

    @abstractmethod
    def fit(self, lines: SightLines, steps: int) -> None:
        """Start from sparse points beside the object and who sees them; see `initialisation`."""

    def signed_distance(self, points: Tensor) -> Tensor | None:
        """(P,) at points (P, 3) of the object frame, not cropped; None where the geometry has none."""
        return None

    def density_shortfall(self, points: Tensor) -> Tensor | None:
        """How much thinner the background is at points (P, 3) of the object frame than a surface that is found.

        Returns:
            (P,) difference of log densities, at least 0; None where the geometry is no density.
        """
        return None

    def place(self, samples: Samples) -> Samples:
        """The samples with the list of those at which this background is evaluated."""
        return samples

    # ------------------------------------------------------------------ common to all

    def colours(
        self,
        found: BackgroundSamples,
        samples: Samples,
        directions: Tensor,
        weights: Tensor,
        others: Tensor | None = None,
    ) -> PackedValues:
        """Colours (G, 3) where one of the weights (R, S) can be seen."""
        threshold = self.config.colour_threshold
        chosen, seen = self.ops.seen_samples(samples.background, threshold, weights, others)
        rgb, _ = self.colour(found.colour_inputs[chosen], directions[seen // samples.interval.shape[1]])
        return PackedValues(rgb, seen)

    @torch.no_grad()
    def refresh_cache(
        self, cache: FieldCache, crop: Callable[[Tensor], Tensor], share: float, chunk: int = 1 << 15
    ) -> None:
        """Refresh the cached density that guides sampling; most cells are empty and stay so.

        Args:
            cache: of both layers.
            crop: m^P (P,) at points (P, 3) of the object frame.
            share: of the cells, drawn at random.
            chunk: cells evaluated at once.
        """
        n, density = cache.background_resolution, cache.density.view(-1)
        opaque = density * (4.0 * self.contraction_radius / n) > EMPTY_OPACITY
        likely = share * (EMPTY_SHARE + (1.0 - EMPTY_SHARE) * opaque)
        for index in (torch.rand_like(density) < likely).nonzero()[:, 0].split(chunk):
            jitter = (torch.rand(index.shape[0], 3, device=index.device) * 2 - 1) * (2.0 / n)
            centres = cell_centres(index, n, 2.0)
            at = centres + jitter
            found = self.cropped_density(at, crop(at * self.contraction_radius))  # what is contracted is not cropped
            most = MAX_OPTICAL_DEPTH / contracted_cell(centres, self.contraction_radius, n)
            density[index] = torch.maximum(density[index] * CACHE_DECAY, torch.minimum(found, most))
