"""Feeds training: rays from all photos, half of them near the object's outline, and the masks to start from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.console import say, warn
from surface_sos_ns.plugin.dataparser import ObjectHint, SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset, joined_positions
from surface_sos_ns.plugin.loading import say_needs
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import write_text
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.points import SparsePoints
    from surface_sos_ns.capture.transforms import Transforms
    from surface_sos_ns.capture.views import Views

__all__ = [
    "OutlineSampler",
    "SurfaceSOSDataManager",
    "SurfaceSOSDataManagerConfig",
    "TabulatedRays",
]

PRIOR_FILE = "object_prior.npz"
PRIOR_VERSION = 5
"""Raised when the object prior of the same photos would come out differently."""

NO_AGREEMENT, LITTLE_AGREEMENT = 0.35, 0.6
"""IoU of given masks with their hull under which they cannot belong to these poses, and under which it is doubtful."""
CHECK_OFF = "--pipeline.datamanager.check-poses False"


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
    """Photos are kept in the GPU's memory when all of them together take at most this much."""
    check_poses: bool = True
    """Stop where features of the photos say that the poses are meant otherwise, or where masks and poses do not fit."""


class OutlineSampler(PixelSampler):
    """Draws pixels from a :class:`PixelCache`: a fraction of them from a band, the others from everywhere.

    Args:
        config: nerfstudio's, for the number of rays.
        band_fraction: fraction of the rays from the band, 0..1; without a band all come from everywhere.
    """

    def __init__(self, config: PixelSamplerConfig, band_fraction: float, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if not 0 <= band_fraction <= 1:
            raise UserError(f"band_fraction is {band_fraction}; expected a value from 0 to 1.")
        self.band_fraction = band_fraction
        self.band: Tensor | None = None
        """(B,) positions in the cache, or None."""

    def sample(self, image_batch: Any) -> dict[str, Tensor]:
        """A batch of ``num_rays_per_batch`` pixels, see :meth:`PixelCache.gather`; those from the band come first."""
        cache: PixelCache = image_batch
        device = cache.images.device
        near = round(self.num_rays_per_batch * self.band_fraction) if self.band is not None and len(self.band) else 0
        parts = []
        if near and self.band is not None:
            parts.append(self.band[torch.randint(len(self.band), (near,), device=device)])
        rest = self.num_rays_per_batch - near
        if cache.valid is None or self.config.ignore_mask:
            parts.append(torch.randint(cache.pixel_count, (rest,), device=device))
        else:
            parts.append(cache.valid[torch.randint(len(cache.valid), (rest,), device=device)])
        return cache.gather(torch.cat(parts).long())


class TabulatedRays(RayGenerator):
    """nerfstudio's rays, with the undistorted direction of each pixel computed once.

    Undistorting is iterative and would cost more than the rest of a batch. Views that share intrinsics share a table.
    Where the tables would exceed ``most_pixels``, or cameras carry metadata, nerfstudio's generator is used.

    Args:
        cameras: the training cameras.
        most_pixels: limit of all tables together, 20 bytes each.
    """

    def __init__(self, cameras: Cameras, most_pixels: int = 3_000_000) -> None:
        super().__init__(cameras)
        self.table: Tensor | None = None
        distortion = cameras.distortion_params
        columns = [cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height, cameras.camera_type]
        columns += [] if distortion is None else [distortion]
        rows = torch.cat([column.double() for column in columns], dim=-1)
        distinct, group = torch.unique(rows, dim=0, return_inverse=True)
        pixels = (distinct[:, 4] * distinct[:, 5]).long()
        if int(pixels.sum()) > most_pixels or cameras.metadata:
            return
        firsts = torch.stack([torch.nonzero(group == index)[0, 0] for index in range(len(distinct))])
        self.table = torch.cat([self._tabulate(cameras[int(first)]) for first in firsts])
        starts = torch.cumsum(pixels, 0) - pixels
        self.table_start = starts[group]
        self.table_width = cameras.width.flatten().long()

    @staticmethod
    def _tabulate(camera: Cameras) -> Tensor:
        """(H * W, 5): unit direction in the camera's axes, pixel area, norm of the direction before normalising."""
        still = Cameras(
            camera_to_worlds=torch.eye(4, device=camera.device)[None, :3],
            fx=camera.fx[None],
            fy=camera.fy[None],
            cx=camera.cx[None],
            cy=camera.cy[None],
            width=camera.width[None],
            height=camera.height[None],
            distortion_params=None if camera.distortion_params is None else camera.distortion_params[None],
            camera_type=camera.camera_type[None],
        )
        coords = still.get_image_coords().reshape(-1, 2)
        parts = []
        for chunk in coords.split(200_000):
            rays = still.generate_rays(torch.zeros(len(chunk), 1, dtype=torch.long, device=camera.device), chunk)
            parts.append(torch.cat([rays.directions, rays.pixel_area, rays.metadata["directions_norm"]], dim=-1))
        table = torch.cat(parts)
        # nerfstudio divides 0 by 0 on the axis of a fisheye lens.
        axis = torch.tensor([0.0, 0.0, -1.0, float(table[:, 3].nanmedian()), 1.0], device=table.device)
        return torch.where(torch.isfinite(table).all(dim=-1, keepdim=True), table, axis)

    def forward(self, ray_indices: Tensor) -> RayBundle:
        """Rays of view, row, column (R, 3)."""
        if self.table is None:
            return super().forward(ray_indices)
        view, row, column = ray_indices.to(self.table.device).unbind(-1)
        found = self.table[self.table_start[view] + row * self.table_width[view] + column]
        pose = self.cameras.camera_to_worlds[view]
        return RayBundle(
            origins=pose[:, :, 3],
            directions=(pose[:, :, :3] * found[:, None, :3]).sum(dim=-1),
            pixel_area=found[:, 3:4],
            camera_indices=view[:, None],
            times=None if self.cameras.times is None else self.cameras.times[view],
            metadata={"directions_norm": found[:, 4:5]},
        )


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
        self.train_ray_generator = TabulatedRays(self.train_dataset.cameras.to(self.device))

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

    @property
    def train_cache(self) -> PixelCache:
        """All training photos, read at the first use."""
        if self._train_cache is None:
            say_needs(self.train_dataset, self.dataparser.downscale_factor or 1)  # type: ignore[attr-defined]
            self._train_cache = self._load(self.train_dataset)
        return self._train_cache

    @property
    def eval_cache(self) -> PixelCache:
        """All evaluation photos, read at the first use; the training photos where they are the same."""
        if self._eval_cache is None:
            same = self.eval_dataset.image_filenames == self.train_dataset.image_filenames
            self._eval_cache = self.train_cache if same else self._load(self.eval_dataset)
        return self._eval_cache

    def prepare(self, cache_dir: Path | None = None) -> ObjectPrior:
        """Find the object, once, before training: its sphere, the voted hull and the masks to start from.

        Installs the masks and how far each is trusted into the training batches, and the band around the outline of the
        projected hull into the sampler.

        Args:
            cache_dir: where ``object_prior.npz`` is kept, so that a resumed run starts from the same prior; None keeps
                nothing. A kept prior is used only if photos, masks, cameras, points and hints are the same.

        Returns:
            What training starts from, world frame.

        Raises:
            ImageError: a photo or a mask cannot be read.
            UserError: nothing can be found; the message says what to do.
        """
        if self.object_prior is not None:
            return self.object_prior
        views = views_from_cameras(self.train_dataset.cameras)
        fingerprint = self._fingerprint(views)
        path = None if cache_dir is None else Path(cache_dir) / PRIOR_FILE
        prior = None if path is None else _kept(path, fingerprint)
        if prior is None:
            prior = self._find_object(views, cache_dir)
            if path is not None:
                prior = _keep(prior, path, fingerprint)
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

    def _find_object(self, views: Views, cache_dir: Path | None) -> ObjectPrior:
        from surface_sos_ns.capture.object_prior import GIVEN, LOW_CONFIDENCE, build_object_prior
        from surface_sos_ns.capture.points_file import first_fitting_points
        from surface_sos_ns.capture.triangulation import triangulate_points

        metadata = self.train_dataset.metadata
        cache = self.train_cache
        factor = min(1.0, self.config.prior_image_size / int(max(views.width.max(), views.height.max())))
        small = views.scaled(factor) if factor < 1 else views
        sizes = [(int(width), int(height)) for width, height in zip(small.width, small.height, strict=True)]
        images = [resized(cache.image(view), *size) for view, size in enumerate(sizes)]
        given = map(cache.mask, range(len(cache)))  # one at a time: all of them are larger than all photos
        masks = [None if mask is None else resized(mask, *size) for mask, size in zip(given, sizes, strict=True)]
        points, remarks = first_fitting_points(metadata["points_files"], views, metadata["file_paths"])
        for remark in remarks:
            warn(remark)
        hint: ObjectHint = metadata.get("object_hint") or ObjectHint(None, None)
        point = None if hint.point is None else np.array(hint.point)
        shown = any(mask is not None and bool((mask >= 0.5).any()) for mask in masks)
        if self.config.check_poses:
            self._check_poses(images)
        points_cache = None if cache_dir is None else Path(cache_dir) / "sparse_points.npz"
        if points is None:
            points, remarks = triangulate_points(images, small, points_cache, progress=say)
            for remark in remarks:
                warn(remark)
        origin = GIVEN
        if not shown:
            masks, origin = self._first_masks(images, small, points, point, hint.radius)
        prior = build_object_prior(
            small, masks, points, object_point=point, object_radius=hint.radius, source=origin, progress=say
        )
        if shown:
            self._check_masks(prior)
        elif prior.confidence < LOW_CONFIDENCE:
            say(
                f"the object is uncertain (masks and vote agree at IoU {prior.confidence:.2f} only): "
                "please give coarse masks, or name a point on the object"
            )
        return prior

    def _check_poses(self, images: list[np.ndarray]) -> None:
        """Holds the poses, as they stand in transforms.json, against the features of the training photos.

        Raises:
            CaptureError: another reading of the file explains them.
        """
        from surface_sos_ns.capture.pose_check import CAUSES, pose_fit

        capture: Transforms = self.dataparser.capture  # type: ignore[attr-defined]
        source, place = capture.source, {path: index for index, path in enumerate(capture.file_paths)}
        fit = pose_fit(
            images, capture.views.subset([place[path] for path in self.train_dataset.metadata["file_paths"]])
        )
        if fit is not None and fit.hypothesis is not None:
            raise CaptureError(
                f"{source}: photos and poses do not fit. Of {fit.matches} features matched between photos "
                f"{fit.inlier_ratio:.0%} lie where the poses say, and {fit.best_inlier_ratio:.0%} would if this is so: "
                f"{fit.hypothesis}. "
                f"To go on with the file as it is: {CHECK_OFF}."
            )
        if fit is not None and fit.doubtful:
            warn(
                f"{source}: photos and poses hardly fit: of {fit.matches} features matched between photos "
                f"{fit.inlier_ratio:.0%} lie where the poses say. Likely causes, in this order: {CAUSES}."
            )

    def _check_masks(self, prior: ObjectPrior) -> None:
        """Whether the capture's masks and poses fit.

        Raises:
            CaptureError: they do not at all.
        """
        from surface_sos_ns.capture.pose_check import CAUSES

        words = (
            f"masks and poses {{}}: projected into the photos, what the masks say together agrees with them at IoU "
            f"{prior.confidence:.2f} (good masks: 0.8 or more). Likely causes, in this order: {CAUSES}."
        )
        if self.config.check_poses and prior.confidence < NO_AGREEMENT:
            raise CaptureError(
                f"{self.dataparser.capture.source}: {words.format('do not fit')} "  # type: ignore[attr-defined]
                f"To go on all the same: {CHECK_OFF}; without these masks: "
                "--pipeline.datamanager.dataparser.coarse-masks none."
            )
        if prior.confidence < LITTLE_AGREEMENT:
            warn(words.format("hardly fit") + " Masks that are very noisy look like this, too; training repairs those.")

    def _first_masks(
        self,
        images: list[np.ndarray],
        views: Views,
        points: SparsePoints | None,
        near: np.ndarray | None,
        radius: float | None,
    ) -> tuple[list[np.ndarray | None], str]:
        """Masks of a capture that brings none, and what made them."""
        from surface_sos_ns.masks.auto import Auto
        from surface_sos_ns.masks.provider import Photos

        sizes = [(int(width), int(height)) for width, height in zip(views.width, views.height, strict=True)]
        photos = Photos(self.train_dataset.image_filenames, images, views, sizes, points, near, radius)
        say("no masks: looking for the object (surface-sos masks --features descriptor)")
        # The descriptor: the start of a training must not depend on what can be downloaded.
        provider = Auto(features="descriptor")
        provider.check()
        found = provider.masks(photos, say)
        for remark in found.remarks:
            say(f"no masks: {remark}")
        return list(found.masks), f"masks by {provider.chosen.name}"

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
            shown = project_hull(prior.hull, prior.sphere, views.subset(members), (small[1], small[0]))
            for view, silhouette in zip(members, shown, strict=True):
                band = outline_band(np.asarray(silhouette) > 0.5, self.config.band_width * max(small))
                yield int(view), resized(band.astype(np.uint8), width, height) > 0

    def _fingerprint(self, views: Views) -> str:
        """Digest of everything that the prior depends on."""
        digest = hashlib.blake2b(digest_size=16)
        cache = self.train_cache
        digest.update(repr((PRIOR_VERSION, self.config.prior_image_size)).encode())
        for tensor in (cache.images, cache.masks, cache.mask_weights):
            digest.update(b"none" if tensor is None else tensor.cpu().numpy().reshape(-1).data)
        for name in sorted(vars(views)):
            # Poses come from a matrix decomposition, whose last bits differ between machines.
            digest.update(np.round(np.asarray(getattr(views, name), dtype=np.float64), 4).tobytes())
        for points in self.train_dataset.metadata["points_files"]:
            for file in points.contents:
                digest.update(file.read_bytes())
        digest.update(repr(self.train_dataset.metadata.get("object_hint")).encode())
        return digest.hexdigest()


def _mark(path: Path) -> Path:
    """The file that says of which inputs the prior at ``path`` is."""
    return path.with_suffix(".fingerprint")


def _kept(path: Path, fingerprint: str) -> ObjectPrior | None:
    """The prior at ``path`` if it is of the same inputs and whole."""
    from surface_sos_ns.capture.object_prior import ObjectPrior

    if not path.is_file() or not _mark(path).is_file() or _mark(path).read_bytes() != fingerprint.encode():
        return None
    try:
        return ObjectPrior.load(path)
    except (OSError, ValueError) as error:
        warn(str(error))
        return None


def _keep(prior: ObjectPrior, path: Path, fingerprint: str) -> ObjectPrior:
    """Write the prior, then its fingerprint: a crash in between leaves a prior that is not used.

    Raises:
        WriteError: it cannot be written. A training that cannot keep what it starts from could not be resumed.

    Returns:
        The prior as it was written, at a file's precision: what a resumed run reads, and must do the same with.
    """
    _mark(path).unlink(missing_ok=True)
    prior.save(path)
    write_text(_mark(path), fingerprint)
    return prior.load(path)
