"""The interface of backgrounds, and what they have in common.

m^P is the probability map of eq. 4, which empties the background inside the object; the crop is its value at a sample.
"""

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
from surface_sos_ns.training.schedules import Progress

EMPTY_OPACITY = 1e-2
"""Opacity below which a cell of the cached background counts as empty."""
EMPTY_REFRESH_SHARE = 0.1
"""How often empty cells are refreshed, relative to others."""
MAX_OPTICAL_DEPTH = 0.7
"""Largest optical depth of a cell of the cached background. A surface may be anywhere in its cell: with an opaque cell,
all samples would be drawn at the cell's front."""
CACHE_DECAY = 0.7
"""Factor on a cell's cached density at each refresh that finds a smaller value."""


class BackgroundSamples(NamedTuple):
    """The background at B samples."""

    opacity: PackedValues  # (B,) cropped by m^P
    colour_inputs: Tensor  # (B, I) of the colour net (eq. 4), without the directions
    normals: Tensor  # (Q, 3) SDF gradients where it is not cropped, for eq. 10; none of a density
    counted: Tensor | None = None  # (Q,) bool, which of them count; None if all do


class Background(nn.Module, ABC):
    """The background layer, over unbounded space contracted into a ball of radius 2 (mip-NeRF 360).

    Args:
        config: sizes and choices.
        ops: back-end of the numeric operations.

    Attributes:
        field, colour: geometry, over contracted space, and colour net.
        contraction_radius: distance from the object's centre up to which space is not contracted, object radii.
    """

    field: DensityField | SDFField
    colour: ColourNet
    radius: Tensor

    def __init__(self, config: SceneConfig, ops: TorchOps):
        super().__init__()
        self.config, self.ops = config, ops
        self.register_buffer("radius", torch.ones(()))
        self.contraction_radius = 1.0  # the buffer's value on the host: reading it from a GPU would stall

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.contraction_radius = float(self.radius)

    def set_contraction_radius(self, radius: float) -> None:
        """Set the contraction radius, object radii, to at least 1."""
        self.contraction_radius = max(radius, 1.0)
        self.radius.fill_(self.contraction_radius)

    def contracted(self, points: Tensor) -> Tensor:
        """Points (P, 3) of the object frame -> contracted space, (P, 3)."""
        return contract(points / self.contraction_radius)

    # ------------------------------------------------------------------ of each geometry

    @abstractmethod
    def evaluate(self, samples: Samples, directions: Tensor, progress: Progress) -> BackgroundSamples:
        """Evaluate opacity, cropped by m^P (eq. 4), and the colour net's inputs at `samples.background`.

        Args:
            samples: of R rays.
            directions: (R, 3) unit.
            progress: fraction of the run.
        """

    @abstractmethod
    def cropped_density(self, contracted: Tensor, crop: Tensor) -> Tensor:
        """Density (P,), per object radius, at points (P, 3) of contracted space where m^P is `crop` (P,)."""

    @abstractmethod
    def fit(self, lines: SightLines, steps: int) -> None:
        """Initialise the field from sparse points outside the object and their lines of sight; see `initialisation`."""

    def signed_distance(self, points: Tensor) -> Tensor | None:
        """Signed distance (P,), not cropped, at points (P, 3) of the object frame; None for a density."""
        return None

    def density_shortfall(self, points: Tensor) -> Tensor | None:
        """How far the density at points (P, 3) of the object frame is below that of a surface, see `surface_density`.

        Returns:
            (P,) difference of log densities, at least 0; None for a signed distance.
        """
        return None

    def select_samples(self, samples: Samples) -> Samples:
        """Choose the samples at which this background is evaluated: all that are not cropped, unless overridden."""
        return samples

    # ------------------------------------------------------------------ common to all

    def colours(
        self,
        found: BackgroundSamples,
        samples: Samples,
        directions: Tensor,
        weights: Tensor,
        others: Tensor | None = None,
        light: Tensor | None = None,
    ) -> PackedValues:
        """Colours (G, 3) (eq. 4) at samples where `weights` or `others`, (R, S) each, exceed the colour threshold.

        `light` (R, L) are latent codes of the rays' photos; None takes their mean.
        """
        threshold = self.config.colour_threshold
        chosen, seen = self.ops.seen_samples(samples.background, threshold, weights, others)
        codes = None if light is None else seen.take_of_rays(light)
        rgb, _ = self.colour(found.colour_inputs[chosen], seen.take_of_rays(directions), codes)
        return seen.pack(rgb)

    @torch.no_grad()
    def refresh_cache(self, cache: FieldCache, crop: Callable[[Tensor], Tensor], share: float) -> None:
        """Refresh the cached density that guides sampling, empty cells more rarely than others.

        Args:
            cache: of both layers.
            crop: points (P, 3) of the object frame -> m^P (P,).
            share: of the cells, drawn at random.
        """
        n, density = cache.background_resolution, cache.density.view(-1)
        opaque = density * (4.0 * self.contraction_radius / n) > EMPTY_OPACITY
        chance = share * (EMPTY_REFRESH_SHARE + (1.0 - EMPTY_REFRESH_SHARE) * opaque)
        drawn = (torch.rand_like(density) < chance).nonzero()[:, 0]
        offsets = torch.rand(drawn.shape[0], 3, device=drawn.device)
        chunk = self.ops.chunk_points
        for index, offset in zip(drawn.split(chunk), offsets.split(chunk), strict=True):
            centres = cell_centres(index, n, 2.0)
            at = centres + (offset * 2 - 1) * (2.0 / n)
            found = self.cropped_density(at, crop(at * self.contraction_radius))  # m^P is 0 beyond
            most = MAX_OPTICAL_DEPTH / contracted_cell(centres, self.contraction_radius, n)
            density[index] = torch.maximum(density[index] * CACHE_DECAY, torch.minimum(found, most))
