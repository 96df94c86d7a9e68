"""Adaptation of a scene model's sizes to a capture, beyond what its preset sets; found from photos before training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.stored_values import as_tensor, from_tensor

LIGHT_CODES = 16
"""Length of the latent codes where the light differs from photo to photo."""
LARGE_RADIUS = 256.0
"""Radius of the object sphere in the photos, pixels, up to which the presets' sizes fit."""
CELLS_PER_PIXEL = 1.0
"""Cells of the finest level of FoCoR's hash grid in a pixel, at least."""
SHARPNESS_PER_PIXEL = 1.5
"""Floor of b of eq. 6 at the end of the run, in 1 / pixel, at least: an outline is then some three pixels wide."""
PIXELS_PER_CACHE_CELL = 8.0
"""Pixels across a cell of the cached foreground, at most, as far as `LARGEST_CACHE` allows."""
CACHE_STEP, LARGEST_CACHE = 32, 128
"""Cells per axis of the cached foreground are a multiple of the first, and at most the second."""


@dataclass(frozen=True)
class Adaptation:
    """How a scene model is adapted to a capture; kept in its checkpoints.

    Attributes:
        changing_light: the light differs from photo to photo by more than an exposure: each photo gets a latent code,
            and rays that meet nothing show a sky.
        pixels_per_radius: how large the object sphere's radius is in the photos, pixels, median; 0 where it is not
            known. In large photos, or of an object that pictures cut off, it may exceed `LARGE_RADIUS`: grids get
            finer and outlines sharper.
        room: width and height, pixels, of the picture of a room that is static in the camera's frame; None without one.
    """

    changing_light: bool = False
    pixels_per_radius: float = 0.0
    room: tuple[int, int] | None = None

    def applied(self, config: SceneConfig) -> SceneConfig:
        """The scene model's sizes for this capture; never coarser than those given."""
        if self.changing_light:
            config = replace(config, light_codes=config.light_codes or LIGHT_CODES, sky=True)
        if self.room is not None:
            config = replace(config, room=self.room, sky=False)
        if self.pixels_per_radius <= LARGE_RADIUS:
            return config
        grid, (before, inside, beyond) = config.foreground_grid, config.candidates
        finest = math.ceil(2.0 * CELLS_PER_PIXEL * self.pixels_per_radius)
        cells = math.ceil(2.0 * self.pixels_per_radius / PIXELS_PER_CACHE_CELL / CACHE_STEP) * CACHE_STEP
        cells = max(config.cache_resolution, min(cells, LARGEST_CACHE))
        return replace(
            config,
            foreground_grid=replace(grid, max_resolution=max(grid.max_resolution, finest)),
            last_sharpness=max(config.last_sharpness, SHARPNESS_PER_PIXEL * self.pixels_per_radius),
            cache_resolution=cells,
            candidates=(before, max(inside, cells), beyond),
        )

    def stored(self) -> Tensor:
        """(N,) uint8, for a checkpoint; see `stored_adaptation`."""
        return as_tensor(asdict(self))


NO_ADAPTATION = Adaptation()
"""Sizes are the preset's."""


def stored_adaptation(state: Mapping[str, Any], prefix: str = "") -> Adaptation:
    """How a scene was adapted whose state dict this is.

    Args:
        state: of the scene, or of what holds it.
        prefix: before the scene's own keys.
    """
    stored = state.get(f"{prefix}adaptation_text")
    if stored is None:
        return NO_ADAPTATION
    found = from_tensor(stored)
    room = found.pop("room", None)
    return Adaptation(**found, room=None if room is None else (int(room[0]), int(room[1])))
