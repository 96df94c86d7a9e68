"""Feeds NeRF-SOS: rays from all photos for the first stage, pixel grids and features of the photos for the second."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.capture_datamanager import CaptureDataManager, CaptureDataManagerConfig
from surface_sos_ns.plugin.console import say
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:  # capture/ and masks/ bring scipy and more, which no command needs before training
    from surface_sos_ns.capture.points import SparsePoints
    from surface_sos_ns.capture.sphere import ObjectSphere
    from surface_sos_ns.masks.features import PhotoFeatures

SMALLEST_PHOTO = 64
"""Pixels that a photo must have along both sides: patches of the paper have as many."""


@dataclass
class NerfSOSDataManagerConfig(CaptureDataManagerConfig):
    """Data manager of nerf-sos: rays come from everywhere, masks are not used."""

    _target: type = field(default_factory=lambda: NerfSOSDataManager)
    """Target class to instantiate."""
    features: Literal["auto", "network", "descriptor"] = "auto"
    """What says which pixels belong together: a self-supervised network (DINO, DINOv2), a descriptor of colour and
    texture, or auto: the network where its weights are on this machine or can be downloaded, else the descriptor."""
    features_model: str | None = None
    """Checkpoint of the network, such as facebook/dinov2-small, or a folder of one."""
    features_onnx: Path | None = None
    """ONNX file of a network, instead of a checkpoint."""
    grid_side: int = 160
    """Pixels along the longer side of the grid that the segmentation learns from."""


class PixelGrids(NamedTuple):
    """Rays through a grid of pixels of each training photo."""

    sizes: list[tuple[int, int]]  # V (height, width)
    origins: Tensor  # (P, 3) world frame, photo by photo, row by row
    directions: Tensor  # (P, 3) unit


class NerfSOSDataManager(CaptureDataManager):
    """Rays from everywhere, and features of the photos; masks are not looked at."""

    config: NerfSOSDataManagerConfig

    def check_photos(self) -> None:
        """Refuse what the second stage could not learn from, before the first one.

        Raises:
            UserError: fewer than two photos, or one that is too small.
        """
        cameras = self.train_dataset.cameras
        if len(self.train_dataset) < 2:
            raise UserError(
                f"{self.config.data} has {len(self.train_dataset)} photo to train on; nerf-sos needs at least two: it "
                "contrasts patches of different photos."
            )
        for index, path in enumerate(self.train_dataset.image_filenames):
            width, height = int(cameras.width[index]), int(cameras.height[index])
            if min(width, height) < SMALLEST_PHOTO:
                raise UserError(
                    f"{path} is trained on with {width} x {height} pixels; nerf-sos needs at least {SMALLEST_PHOTO} "
                    "along both sides. Take larger photos, or a smaller --pipeline.datamanager.dataparser."
                    "downscale-factor."
                )

    def find_scene(self, folder: Path) -> tuple[ObjectSphere, SparsePoints | None]:
        """The sphere that the cameras look at, and sparse points, world frame; masks are not looked at.

        Args:
            folder: of the run, where triangulated points are kept.
        """
        return self.object_search().surroundings(views_from_cameras(self.train_dataset.cameras), folder)

    def photo_features(self, folder: Path) -> list[PhotoFeatures]:
        """Features of all training photos, kept in the run's folder.

        Raises:
            MaskError: a network that was asked for cannot be loaded.
        """
        from surface_sos_ns.masks.feature_cache import cached_features
        from surface_sos_ns.masks.features import FeatureChoice

        config = self.config
        provider = FeatureChoice(config.features, config.features_model, config.features_onnx).load()
        say(f"features: {provider.name}")
        images = [self.train_cache.image(view) for view in range(len(self.train_cache))]
        return cached_features(provider, images, folder / "features", say)

    def pixel_grids(self) -> PixelGrids:
        """The grids of all training photos."""
        cameras = self.train_dataset.cameras.to(self.device)
        sizes, origins, directions = [], [], []
        for view in range(len(cameras)):
            width, height = int(cameras.width[view]), int(cameras.height[view])
            factor = min(1.0, self.config.grid_side / max(width, height))
            rows, columns = max(2, round(height * factor)), max(2, round(width * factor))
            row = (torch.arange(rows, device=self.device) + 0.5) * (height / rows)
            column = (torch.arange(columns, device=self.device) + 0.5) * (width / columns)
            coords = torch.stack(torch.meshgrid(row, column, indexing="ij"), -1).reshape(-1, 2)
            which = torch.full((len(coords), 1), view, device=self.device)
            rays = cameras.generate_rays(which, coords)
            sizes.append((rows, columns))
            origins.append(rays.origins)
            directions.append(rays.directions)
        return PixelGrids(sizes, torch.cat(origins), torch.cat(directions))
