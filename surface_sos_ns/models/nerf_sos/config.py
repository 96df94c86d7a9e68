"""Sizes and choices of NeRF-SOS."""

from __future__ import annotations

from dataclasses import dataclass, field

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.ops.choose import Backend
from surface_sos_ns.ops.layout import GridLayout


@dataclass(frozen=True)
class NerfSOSConfig:
    """Sizes and choices of the radiance field and of the segmentation head."""

    grid: GridLayout = field(default_factory=GridLayout)
    """The radiance field's hash grid over contracted space."""
    hidden: int = 64
    """Width of the radiance field's hidden layers."""
    backend: Backend = "auto"
    """What computes the numeric operations, see surface-sos' option of this name."""
    samples: int = 32
    """Samples per ray in training, drawn by the cached density."""
    render_samples: int = 64
    """Samples per ray otherwise."""
    candidates: tuple[int, int, int] = (24, 64, 32)
    """Coarse intervals per ray before, inside and beyond the object sphere."""
    cache_resolution: int = 128
    """Cells per axis of the cached density that guides sampling."""
    near_fraction: float = 0.2
    """Rays start at this fraction of the distance from the camera to the object sphere."""
    far: float = 200.0
    """Farthest sample distance, in object radii."""
    channels: int = 2
    """Channels of the segmentation (2 in the paper)."""
    segmentation_hidden: int = 128
    """Width of the segmentation head's hidden layer."""
    frequencies: int = 6
    """Octaves of the encoded position that the segmentation head gets beside the radiance field's feature."""

    def radiance(self) -> SceneConfig:
        """The same sizes for the density field, which surface-sos has as its background. There is no surface."""
        return SceneConfig(
            foreground="density",
            background_grid=self.grid,
            hidden=self.hidden,
            backend=self.backend,
            samples=self.samples,
            render_samples=self.render_samples,
            candidates=self.candidates,
            background_cache_resolution=self.cache_resolution,
            near_fraction=self.near_fraction,
            far=self.far,
        )
