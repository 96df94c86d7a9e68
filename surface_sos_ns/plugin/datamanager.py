"""Feeds training: rays from all photos, half of them near the object's outline, and the masks to start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset, joined_positions
from surface_sos_ns.plugin.loading import say_memory_needs
from surface_sos_ns.plugin.object_search import ObjectSearch
from surface_sos_ns.plugin.pixel_sampler import OutlineSampler
from surface_sos_ns.plugin.prior_file import PRIOR_FILE, fingerprint_of, load_prior, save_prior
from surface_sos_ns.plugin.tabulated_rays import TabulatedRays
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.transforms import Transforms
    from surface_sos_ns.capture.views import Views

__all__ = ["SurfaceSOSDataManager", "SurfaceSOSDataManagerConfig"]

RAY_TABLE_PIXELS = {"cpu": 3_000_000, "cuda": 50_000_000}
"""Most pixels of distinct cameras whose rays are tabulated, 20 bytes each. On a GPU a step that undistorts them anew
would wait for the host."""


@dataclass
class SurfaceSOSDataManagerConfig(VanillaDataManagerConfig):
    """Data manager that draws rays near the object's outline and adds coarse masks to the batch.

    All photos are always sampled from, so nerfstudio's numbers of images to sample from have no effect.
    """

    _target: type = field(default_factory=lambda: SurfaceSOSDataManager)
    """Target class to instantiate."""
    dataparser: SurfaceSOSDataParserConfig = field(default_factory=SurfaceSOSDataParserConfig)  # type: ignore[assignment]
    """The capture: where it is, which masks and which photos to use."""
    band_fraction: float = 0.5
    """Fraction of the rays drawn in and around the projected hull; the others come from everywhere."""
    band_width: float = 0.03
    """How far outside the hull's outline a pixel still counts as near: a fraction of the longer image side."""
    prior_image_size: int = 800
    """Longer side, in pixels, of the photos from which the object is found before training."""
    cache_on_gpu_mib: int = 4096
    """Photos are kept in the GPU's memory when all of them together take at most this much. Otherwise each step waits
    for its batch from the computer's memory."""
    check_poses: bool = True
    """Stop where features of the photos say that the poses are meant otherwise, or where masks and poses do not fit."""


class SurfaceSOSDataManager(VanillaDataManager[SurfaceSOSDataset]):
    """nerfstudio's data manager, with the photos in a compact cache that is read when the first batch is asked for.

    ``next_train`` gives rays and a batch with image (R, 3), indices (R, 3), coarse_mask (R, 1) and mask_weight (R, 1);
    before :meth:`prepare` the rays come from everywhere and the masks are the capture's own (weight 0 where none).

    Attributes:
        object_prior: what :meth:`prepare` found; None before.
    """

    config: SurfaceSOSDataManagerConfig

    def __init__(self, config: SurfaceSOSDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        if config.patch_size > 1:
            raise UserError("patch_size is not supported: rays are drawn one by one near the object's outline.")
        self.object_prior: ObjectPrior | None = None
        self._train_cache: PixelCache | None = None
        self._eval_cache: PixelCache | None = None
        super().__init__(config, *args, **kwargs)
        self.includes_time = config.dataparser.times  # then the viewer has a slider for it

    @property
    def dataset_type(self) -> type[SurfaceSOSDataset]:  # type: ignore[override]
        """The class of the datasets (nerfstudio would read it off the generic argument)."""
        return SurfaceSOSDataset

    def setup_train(self) -> None:
        """Rays and sampler; the photos are read later, so that ns-eval does not wait for them."""
        self.train_pixel_sampler = self._sampler(self.config.train_num_rays_per_batch)
        most = RAY_TABLE_PIXELS["cuda" if torch.device(self.device).type == "cuda" else "cpu"]
        self.train_ray_generator = TabulatedRays(self.train_dataset.cameras.to(self.device), most)

    def setup_eval(self) -> None:
        """Rays, sampler and the loaders of whole images."""
        self.eval_pixel_sampler = self._sampler(self.config.eval_num_rays_per_batch)
        self.eval_ray_generator = RayGenerator(self.eval_dataset.cameras.to(self.device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=self.device)
        self.eval_dataloader = RandIndicesEvalDataloader(self.eval_dataset, device=self.device)

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays and batch for a training step."""
        self.train_count += 1
        assert self.train_pixel_sampler is not None
        batch = self.train_pixel_sampler.sample(self.train_cache)  # type: ignore[arg-type]
        return self.train_ray_generator(batch["indices"]), batch

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Rays and batch from the evaluation photos, drawn from everywhere."""
        self.eval_count += 1
        assert self.eval_pixel_sampler is not None
        batch = self.eval_pixel_sampler.sample(self.eval_cache)  # type: ignore[arg-type]
        return self.eval_ray_generator(batch["indices"]), batch

    def why_not_static(self) -> str | None:
        """Why drawing a training batch cannot be a part of a CUDA graph; None where it can."""
        if self.train_cache.images.device.type != torch.device(self.device).type:
            return "the photos are in the computer's memory; --pipeline.datamanager.cache-on-gpu-mib sets how many fit"
        if self.train_ray_generator.table is None:  # type: ignore[union-attr]
            return "the cameras are too many, or carry metadata, so that their rays are not tabulated"
        return None

    def read_in_a_step(self) -> Iterator[Tensor]:
        """The tensors that drawing a training batch reads, but for the cameras."""
        yield from (value for value in vars(self.train_cache).values() if value is not None)
        band = getattr(self.train_pixel_sampler, "band", None)
        if band is not None:
            yield band

    @property
    def train_cache(self) -> PixelCache:
        """All training photos, read at the first use."""
        if self._train_cache is None:
            say_memory_needs(self.train_dataset, self.dataparser.downscale_factor or 1)  # type: ignore[attr-defined]
            self._train_cache = self._load(self.train_dataset)
        return self._train_cache

    @property
    def eval_cache(self) -> PixelCache:
        """All evaluation photos, read at the first use; the training photos where they are the same."""
        if self._eval_cache is None:
            same = self.eval_dataset.image_filenames == self.train_dataset.image_filenames
            self._eval_cache = self.train_cache if same else self._load(self.eval_dataset)
        return self._eval_cache

    def prepare(self, folder: Path | None = None) -> ObjectPrior:
        """Find the object, once, before training: its sphere, the voted hull and the masks to start from.

        Installs the masks and how far each is trusted into the training batches, and the band around the outline of the
        projected hull into the sampler.

        Args:
            folder: of the run, where ``object_prior.npz`` is kept, so that a resumed run starts from the same prior;
                None keeps nothing. A kept prior is used only if photos, masks, cameras, points and hints are the same.

        Returns:
            What training starts from, world frame.

        Raises:
            ImageError: a photo or a mask cannot be read.
            UserError: nothing can be found; the message says what to do.
        """
        if self.object_prior is not None:
            return self.object_prior
        views = views_from_cameras(self.train_dataset.cameras)
        fingerprint = fingerprint_of(self.train_dataset, self.train_cache, views, self.config.prior_image_size)
        path = None if folder is None else Path(folder) / PRIOR_FILE
        prior = None if path is None else load_prior(path, fingerprint)
        if prior is None:
            prior = self._find_object(views, folder)
            if path is not None:
                prior = save_prior(prior, path, fingerprint)
        if prior.masks_given:
            self.train_cache.set_weights(prior.hull.view_weights)  # the masks at hand are the finer ones
        else:
            self.train_cache.set_masks(list(prior.masks), prior.hull.view_weights)
        if isinstance(self.train_pixel_sampler, OutlineSampler):
            self.train_pixel_sampler.band = self._band(prior, views).to(self.train_cache.images.device)
        self.object_prior = prior
        return prior

    def _sampler(self, rays: int) -> OutlineSampler:
        config = self.config.pixel_sampler
        return OutlineSampler(
            PixelSamplerConfig(ignore_mask=config.ignore_mask), self.config.band_fraction, num_rays_per_batch=rays
        )

    def _load(self, dataset: SurfaceSOSDataset) -> PixelCache:
        cache = PixelCache.load(dataset)
        device = torch.device(self.device)
        if (
            device.type == "cpu"
            or cache.pixel_count * 4 <= self.config.cache_on_gpu_mib * 2**20
            or self.config.images_on_gpu
        ):
            return cache.to(device)
        return cache

    def _find_object(self, views: Views, folder: Path | None) -> ObjectPrior:
        capture: Transforms = self.dataparser.capture  # type: ignore[attr-defined]
        search = ObjectSearch(
            self.train_dataset, self.train_cache, capture, self.config.prior_image_size, self.config.check_poses
        )
        return search.find(views, folder)

    def _band(self, prior: ObjectPrior, views: Views) -> Tensor:
        """(B,) positions of the valid pixels near the projected hull's outline, in all training views.

        See `joined_positions`.
        """
        cache = self.train_cache
        allowed = None
        if cache.valid is not None:
            allowed = np.zeros(cache.pixel_count, dtype=bool)
            allowed[cache.valid.cpu().numpy()] = True
        bands = (np.flatnonzero(band) + int(cache.starts[view]) for view, band in self._bands(prior, views))
        return joined_positions(
            (positions if allowed is None else positions[allowed[positions]] for positions in bands), cache.pixel_count
        )

    def _bands(self, prior: ObjectPrior, views: Views) -> Iterator[tuple[int, np.ndarray]]:
        """Of each view (H, W) bool, whether a pixel is near the projected hull's outline, in the order of sizes."""
        from surface_sos_ns.capture.hull_projection import outline_band, project_hull

        sizes = np.stack([views.width, views.height], axis=1)
        for size in np.unique(sizes, axis=0):
            members = np.flatnonzero((sizes == size).all(axis=1))
            width, height = int(size[0]), int(size[1])
            # The band is many pixels wide; a finer projection of the hull would only take longer.
            factor = min(1.0, 240 / max(width, height))
            small = (max(1, round(width * factor)), max(1, round(height * factor)))
            silhouettes = project_hull(prior.hull, prior.sphere, views.subset(members), (small[1], small[0]))
            for view, silhouette in zip(members, silhouettes, strict=True):
                band = outline_band(np.asarray(silhouette) > 0.5, self.config.band_width * max(small))
                yield int(view), resized(band.astype(np.uint8), width, height) > 0
