"""Data manager of any method: rays and photos of a capture. Subclasses add what their method learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset
from surface_sos_ns.plugin.loading import say_memory_needs
from surface_sos_ns.plugin.object_search import ObjectSearch
from surface_sos_ns.plugin.pixel_sampler import CachedPixelSampler
from surface_sos_ns.plugin.tabulated_rays import TabulatedRays
from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.transforms import Transforms

__all__ = ["CaptureDataManager", "CaptureDataManagerConfig"]

RAY_TABLE_PIXELS = {"cpu": 3_000_000, "cuda": 50_000_000}
"""Most pixels of distinct cameras whose rays are tabulated, 20 bytes each. On a GPU a step that undistorts them anew
would wait for the host."""


@dataclass
class CaptureDataManagerConfig(VanillaDataManagerConfig):
    """What is read of a capture, and where it is kept.

    All photos are always sampled from, so nerfstudio's numbers of images to sample from have no effect.
    """

    _target: type = field(default_factory=lambda: CaptureDataManager)
    """Target class to instantiate."""
    dataparser: SurfaceSOSDataParserConfig = field(default_factory=SurfaceSOSDataParserConfig)  # type: ignore[assignment]
    """The capture: where it is, which masks and which photos to use."""
    prior_image_size: int = 800
    """Longer side, in pixels, of the photos from which the object is found before training."""
    cache_on_gpu_mib: int = 4096
    """Photos are kept in the GPU's memory when all of them together take at most this much. Otherwise each step waits
    for its batch from the computer's memory."""
    check_poses: bool = True
    """Stop if features of the photos show that poses follow another convention, or if masks and poses do not fit."""
    repair_masks: bool = True
    """Before training, look for what many of the capture's masks have wrong in the same way: a neighbour that is taken
    along, a part that is missing. Masks that are wrong there do not count there."""


class CaptureDataManager(VanillaDataManager[SurfaceSOSDataset]):
    """nerfstudio's data manager, with the photos in a compact cache that is read when the first batch is asked for.

    ``next_train`` gives rays and a batch with image (R, 3), indices (R, 3), coarse_mask (R, 1) and mask_weight (R, 1);
    rays come from everywhere, masks are the capture's own (weight 0 where none).
    """

    config: CaptureDataManagerConfig

    def __init__(self, config: CaptureDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        if config.patch_size > 1:
            raise UserError("patch_size is not supported: each ray is drawn on its own.")
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
        self.train_pixel_sampler = self.make_sampler(self.config.train_num_rays_per_batch)
        most = RAY_TABLE_PIXELS["cuda" if torch.device(self.device).type == "cuda" else "cpu"]
        self.train_ray_generator = TabulatedRays(self.train_dataset.cameras.to(self.device), most)

    def setup_eval(self) -> None:
        """Rays, sampler and the loaders of whole images."""
        self.eval_pixel_sampler = self.make_sampler(self.config.eval_num_rays_per_batch)
        self.eval_ray_generator = RayGenerator(self.eval_dataset.cameras.to(self.device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=self.device)
        self.eval_dataloader = RandIndicesEvalDataloader(self.eval_dataset, device=self.device)

    def make_sampler(self, rays: int) -> CachedPixelSampler:
        """What draws the pixels of a batch of so many rays."""
        return CachedPixelSampler(self.sampler_config(), num_rays_per_batch=rays)

    def sampler_config(self) -> PixelSamplerConfig:
        """What of nerfstudio's settings of pixel samplers has an effect."""
        return PixelSamplerConfig(ignore_mask=self.config.pixel_sampler.ignore_mask)

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

    def object_search(self) -> ObjectSearch:
        """What looks for the object, or for what the cameras look at, in the training photos."""
        capture: Transforms = self.dataparser.capture  # type: ignore[attr-defined]
        config = self.config
        return ObjectSearch(
            self.train_dataset,
            self.train_cache,
            capture,
            config.prior_image_size,
            config.check_poses,
            config.repair_masks,
        )

    def _load(self, dataset: SurfaceSOSDataset) -> PixelCache:
        """The photos of a dataset, on the training device if they fit there."""
        cache = PixelCache.load(dataset)
        device = torch.device(self.device)
        fits = device.type == "cpu" or cache.pixel_count * 4 <= self.config.cache_on_gpu_mib * 2**20
        return cache.to(device) if fits or self.config.images_on_gpu else cache
