"""The surfaces of a finished surface-sos run in place of NeRF-SOS' radiance field: both layers, as they are.

They render the same outputs as the radiance field (`RayRadiance`), so that the segmentation head is learned on them in
the same way. Object frame; lengths in object radii.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.models.nerf_sos.radiance_field import RayRadiance, is_solid
from surface_sos_ns.models.surface_sos.background.density import GEOMETRY_WIDTH as BACKGROUND_WIDTH
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.foreground import GEOMETRY_WIDTH as FOREGROUND_WIDTH
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.sampling.ray_samples import MIN_UNCROPPED
from surface_sos_ns.sampling.selection import Selection
from surface_sos_ns.utils.errors import UserError


class LoadedSurfaces(nn.Module):
    """A surface-sos scene that is rendered and never trained; its weights come from a checkpoint.

    Args:
        config: of the run that is loaded.
        views: number of its training views.

    Attributes:
        feature_width: length of the geometry features of foreground and background, one after the other. At a sample
            where one of the fields is not evaluated, its feature is zero.

    Raises:
        UserError: the run's object may deform.
    """

    feature_width = FOREGROUND_WIDTH + BACKGROUND_WIDTH

    def __init__(self, config: SceneConfig, views: int):
        super().__init__()
        if config.deformation.bound > 0:
            raise UserError(
                "--pipeline.model.load-run: the object of that run may deform (scene.deformation), and nerf-sos "
                "segments scenes that do not. Load a run without deformation."
            )
        self.scene = SurfaceSOS(config, views).requires_grad_(False)

    def train(self, mode: bool = True) -> LoadedSurfaces:
        """Stay in evaluation mode, whatever the model around is in."""
        return super().train(False)

    def describe(self) -> str:
        """What rays see, for the log."""
        return "surfaces of a surface-sos run"

    def update_cache(self, share: float = 1.0) -> None:
        """Nothing: the run's cached fields are kept as they were loaded."""

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor, dense: bool = False, colours: bool = True) -> RayRadiance:
        """Render rays (R, 3), directions unit.

        Args:
            origins, directions: of the rays.
            dense: unused; the scene is not trained.
            colours: otherwise `rgb` is black: geometry alone is faster.
        """
        layers = self.scene.layers(origins, directions)
        weights, samples = layers.weights.combined, layers.samples
        count = weights.numel()
        background = samples.background.pack(layers.back.colour_inputs[:, -BACKGROUND_WIDTH:])
        foreground = samples.near_surface.pack(layers.front.surface.geometry)
        features = [
            self.scene.background.contracted(samples.points),
            *(layer.spread(*weights.shape).reshape(count, -1) for layer in (foreground, background)),
        ]
        rgb = self.scene.render(origins, directions, plate=False).rgb if colours else torch.zeros_like(origins)
        return RayRadiance(
            rgb=rgb,
            accumulation=layers.weights.accumulation,
            depth=layers.weights.depth,
            distortion=layers.weights.distortion,
            weights=weights,
            middle=samples.middle,
            selection=Selection(weights.shape[1], torch.arange(count, device=weights.device)),
            features=torch.cat(features, -1),
        )

    @torch.no_grad()
    def features_at(self, points: Tensor) -> Tensor:
        """Contracted points and geometry features (P, 3 + G) at points (P, 3), as on a ray that passes there."""
        contracted, surface = self.scene.background.contracted(points), self.scene.foreground.field(points)
        near = (surface.sdf < self.scene.sample_margin) & (points.norm(dim=-1) < 1.0)
        uncropped = self.scene.object_grid.crop(points) < 1.0 - MIN_UNCROPPED
        back = self.scene.background.field(contracted)[-1]
        return torch.cat([contracted, surface.geometry * near[:, None], back * uncropped[:, None]], -1)

    @torch.no_grad()
    def solid(self, points: Tensor) -> Tensor:
        """(P,) bool, whether points (P, 3) lie in the object or in background that stops light."""
        grid, contracted = self.scene.object_grid, self.scene.background.contracted(points)
        return grid.inside(points) | is_solid(self.scene.background.cropped_density(contracted, grid.crop(points)))
