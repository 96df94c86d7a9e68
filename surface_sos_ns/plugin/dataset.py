"""The photos with what is known about the object in them, and a compact cache of them to draw rays from."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from surface_sos_ns.capture.checks import CaptureError, pixel_grid
from surface_sos_ns.capture.identity_files import read_identities, resized_identities
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.object_files import KIND, known_identities, read_coarse_mask
from surface_sos_ns.capture.object_names import MAX_OBJECTS
from surface_sos_ns.capture.part_files import read_part_image
from surface_sos_ns.plugin.cameras import has_good_ray, views_from_cameras
from surface_sos_ns.utils.identity_images import filled_identities
from surface_sos_ns.utils.image_io import read_image, resized

if TYPE_CHECKING:
    from surface_sos_ns.capture.views import Views

__all__ = ["PixelCache", "SurfaceSOSDataset", "joined_positions"]


class SurfaceSOSDataset(InputDataset):
    """Photos as nerfstudio gives them, with the object's masks.

    Items have ``image`` (H, W, 3) and, depending on what the parser found (``metadata`` of its outputs):
        coarse_mask: (H, W, 1) float32 0..1, zeros for a view without one while others have one.
        mask_weight: (H, W, 1) float32, 1 where the view has a coarse mask, else 0.
        gt_mask: (H, W, 1) float32 0..1, the true matte; evaluation datasets only.
        gt_objects: (H, W, 1) int64, true identities of the objects, 0 the background; evaluation datasets only.
        gt_parts: (H, W, 1) int64, identities of the object's true parts, 0 the background; evaluation datasets only.
        clean_plate: (H, W, 3) float32 0..1, the view without the object; evaluation datasets only.

    All have the camera's size, whatever the files' sizes are.
    """

    def size(self, image_idx: int) -> tuple[int, int]:
        """Width and height of a view in pixels, after downscaling."""
        return int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx])

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """(H, W, 3) uint8, at the camera's size."""
        return self._photo(self.image_filenames[image_idx], image_idx)

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the capture's objects, the first of identity 1; empty for one object."""
        return self.metadata.get("object_names", ())

    def get_coarse_mask(self, image_idx: int) -> np.ndarray | None:
        """(H, W) float32 0..1 of all objects together, or None for a view without a coarse mask."""
        return self.read_coarse_mask(image_idx)[0]

    def get_coarse_identities(self, image_idx: int) -> np.ndarray | None:
        """(H, W) uint8: the object of each pixel of the coarse mask, 0 for none; None for one object, or no mask."""
        return self.read_coarse_mask(image_idx)[1]

    def read_coarse_mask(self, image_idx: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What `get_coarse_mask` and `get_coarse_identities` give, read once."""
        files = self.metadata.get("coarse_mask_filenames")
        if files is None or files[image_idx] is None:
            return None, None
        return read_coarse_mask(files[image_idx], self.object_names, self.size(image_idx))

    def get_valid_mask(self, image_idx: int) -> np.ndarray | None:
        """(H, W) bool, nerfstudio's mask of valid pixels, from one half on; None where all are."""
        names = self._dataparser_outputs.mask_filenames
        if names is None:
            return None
        valid = read_mask(names[image_idx], self.size(image_idx)) >= 0.5
        return resized(valid.astype(np.float32), *self.size(image_idx)) > 0.5

    def get_sampling_mask(self, image_idx: int) -> np.ndarray | None:
        """(H, W) bool: the pixels that rays may be drawn from; None where all are.

        They are valid, within the circle of a fisheye photo, and the lens looks somewhere there.
        """
        parts = [self.get_valid_mask(image_idx), self._fisheye_circle(image_idx), self._with_ray(image_idx)]
        known = [part for part in parts if part is not None]
        return np.logical_and.reduce(known) if known else None

    def _fisheye_circle(self, image_idx: int) -> np.ndarray | None:
        """(H, W) bool: what of a fisheye photo lies within the capture's fisheye_crop_radius."""
        radius = (self.cameras.metadata or {}).get("fisheye_crop_radius")
        if radius is None or not self._views.fisheye[image_idx]:
            return None
        width, height = self.size(image_idx)
        down, across = np.ogrid[:height, :width]
        return np.hypot(across - width // 2, down - height // 2) <= radius

    def _with_ray(self, image_idx: int) -> np.ndarray | None:
        """(H, W) bool: the pixels that there is a right direction for, see `has_good_ray`; None where it is all."""
        views, (width, height) = self._views, self.size(image_idx)
        lens = (views.fx, views.fy, views.cx, views.cy, views.distortion, views.fisheye)
        key = (width, height, *(value[image_idx].tobytes() for value in lens))
        if key not in self._lenses:
            good = has_good_ray(self.cameras, image_idx, pixel_grid(width, height))
            if not good.all():  # which is rare, so the whole picture is looked at in this case alone
                good = has_good_ray(self.cameras, image_idx, pixel_grid(width, height, None))
            self._lenses[key] = None if good.all() else good.reshape(height, width)
        return self._lenses[key]

    @functools.cached_property
    def _views(self) -> Views:
        return views_from_cameras(self.cameras)

    @functools.cached_property
    def _lenses(self) -> dict[tuple, np.ndarray | None]:
        """What `_with_ray` found, by lens."""
        return {}

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """The item of a view: nerfstudio's ``image_idx``, ``image`` and ``mask`` (valid pixels), and ours."""
        getters = {"float32": self.get_image_float32, "uint8": self.get_image_uint8}
        image = getters[image_type](image_idx)
        data: dict = {"image_idx": image_idx, "image": image}
        valid = self.get_valid_mask(image_idx)
        if valid is not None:
            mask = torch.from_numpy(valid)[..., None]
            data["mask"] = mask
            if self.mask_color:
                colour = torch.tensor(self.mask_color) * (1.0 if image_type == "float32" else 255.0)
                data["image"] = torch.where(mask, image, colour.to(image.dtype))
        data.update(self.get_metadata(data))
        return data

    def get_metadata(self, data: dict) -> dict:
        """The object's masks for the item's view (nerfstudio's hook)."""
        index = int(data["image_idx"])
        item: dict[str, Tensor] = {}
        if self.metadata.get("coarse_mask_filenames") is not None:
            mask = self.get_coarse_mask(index)
            width, height = self.size(index)
            item["coarse_mask"] = torch.from_numpy(np.zeros((height, width), np.float32) if mask is None else mask)[
                ..., None
            ]
            # One number per view, shown per pixel because samplers index every tensor of an item by pixel.
            item["mask_weight"] = torch.tensor(0.0 if mask is None else 1.0).expand(height, width, 1)
        truth = self._read("gt_mask_filenames", index)
        if truth is not None:
            item["gt_mask"] = torch.from_numpy(truth)[..., None]
        objects = self.get_true_identities(index)
        if objects is not None:
            item["gt_objects"] = torch.from_numpy(objects)[..., None]
        parts = self.get_part_identities(index)
        if parts is not None:
            item["gt_parts"] = torch.from_numpy(parts)[..., None]
        plates = self.metadata.get("clean_plate_filenames")
        if plates is not None and plates[index] is not None:
            plate = self._photo(plates[index], index)
            item["clean_plate"] = torch.from_numpy(plate.astype(np.float32) / 255)
        return item

    def get_true_identities(self, image_idx: int) -> np.ndarray | None:
        """(H, W) int64 true identities of the capture's objects, 0 the background; None where they are not known.

        Raises:
            CaptureError: the file cannot be read, or does not hold identities.
        """
        files = self.metadata.get("gt_objects_filenames")
        if files is None or files[image_idx] is None:
            return None
        names = self.metadata.get("true_object_names") or self.object_names
        known = known_identities(names) if names else f"at most {MAX_OBJECTS}"
        return read_identities(files[image_idx], self.size(image_idx), f"true {KIND}", len(names) or MAX_OBJECTS, known)

    def get_part_identities(self, image_idx: int) -> np.ndarray | None:
        """(H, W) int64 identities of the object's true parts, 0 the background; None where they are not known.

        Raises:
            CaptureError: the file cannot be read, or does not hold identities.
        """
        files = self.metadata.get("gt_parts_filenames")
        if files is None or files[image_idx] is None:
            return None
        names = self.metadata["part_names"]
        return read_part_image(files[image_idx], self.size(image_idx), None if names is None else len(names))

    def _photo(self, path: Path, image_idx: int) -> np.ndarray:
        """(H, W, 3) uint8 of a photo or a clean plate, at the camera's size."""
        size = self.size(image_idx)
        return resized(read_image(path, size), *size)

    def _read(self, key: str, image_idx: int) -> np.ndarray | None:
        names = self.metadata.get(key)
        if names is None or names[image_idx] is None:
            return None
        size = self.size(image_idx)
        return resized(read_mask(names[image_idx], size), *size)


def joined_positions(parts: Iterable[np.ndarray], pixels: int) -> Tensor:
    """Positions among so many pixels as one list, in 32 bits where these hold them: such lists are long."""
    kind = np.int32 if pixels <= np.iinfo(np.int32).max else np.int64
    return torch.from_numpy(np.concatenate([np.zeros(0, kind), *(part.astype(kind) for part in parts)]))


@dataclass
class PixelCache:
    """The pixels of N views one after the other (row by row, of any mix of sizes), to be gathered by position.

    A view costs three bytes a pixel, one for its mask, and one for the identities of several objects, instead of
    nerfstudio's sixteen.

    Attributes:
        images: (T, 3) uint8.
        masks: (T,) uint8, 255 the object; None before any mask is known.
        mask_weights: (N,) float32, how far each view's mask is trusted; 0 without one.
        starts: (N + 1,) int64, position of each view's first pixel.
        widths, heights: (N,) int64.
        valid: (V,) positions that may be drawn, None for all; see `joined_positions`.
        identities: (T,) uint8, the object that each pixel of the masks belongs to, or the nearest one to those of soft
            outlines, 0 for none; None for one object.
    """

    images: Tensor
    masks: Tensor | None
    mask_weights: Tensor
    starts: Tensor
    widths: Tensor
    heights: Tensor
    valid: Tensor | None
    identities: Tensor | None = None

    @staticmethod
    def load(dataset: SurfaceSOSDataset) -> PixelCache:
        """Read all views of ``dataset``.

        Args:
            dataset: the views.

        Raises:
            ImageError: a file cannot be decoded.
        """
        count = len(dataset)
        sizes = np.array([dataset.size(index) for index in range(count)], dtype=np.int64).reshape(count, 2)
        starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
        images = np.empty((starts[-1], 3), dtype=np.uint8)
        masks = np.zeros(starts[-1], dtype=np.uint8) if dataset.metadata.get("coarse_mask_filenames") else None
        identities = np.zeros(starts[-1], dtype=np.uint8) if dataset.object_names else None
        weights = np.zeros(count, dtype=np.float32)
        valid: np.ndarray | None = None
        for index in range(count):
            here = slice(starts[index], starts[index + 1])
            image = dataset.get_numpy_image(index)
            shown = dataset.get_valid_mask(index) if dataset.mask_color else None
            if shown is not None:
                image = np.where(shown[..., None], image, np.uint8(np.rint(np.array(dataset.mask_color) * 255)))
            drawable = dataset.get_sampling_mask(index)
            if drawable is not None:
                valid = np.ones(starts[-1], dtype=bool) if valid is None else valid
                valid[here] = drawable.ravel()
            images[here] = image.reshape(-1, 3)
            mask, objects = dataset.read_coarse_mask(index)
            if mask is not None and masks is not None:
                masks[here] = np.rint(mask * 255).astype(np.uint8).ravel()
                weights[index] = 1
            if objects is not None and identities is not None:
                identities[here] = filled_identities(objects, np.asarray(mask) > 0).ravel()

        def chosen(mask: np.ndarray) -> Iterator[np.ndarray]:
            for first, end in itertools.pairwise(starts):
                yield np.flatnonzero(mask[first:end]) + first

        if valid is not None and not valid.any():
            raise CaptureError(
                f"No pixel of the {count} photos may be used: the masks under mask_path are black, or "
                "fisheye_crop_radius is too small. White means valid there; masks of the object belong under "
                "coarse_mask_path."
            )
        return PixelCache(
            images=torch.from_numpy(images),
            masks=None if masks is None else torch.from_numpy(masks),
            mask_weights=torch.from_numpy(weights),
            starts=torch.from_numpy(starts),
            widths=torch.from_numpy(sizes[:, 0].copy()),
            heights=torch.from_numpy(sizes[:, 1].copy()),
            valid=None if valid is None or valid.all() else joined_positions(chosen(valid), starts[-1]),
            identities=None if identities is None else torch.from_numpy(identities),
        )

    def __len__(self) -> int:
        return len(self.widths)

    @property
    def pixel_count(self) -> int:
        """Number of pixels of all views together."""
        return len(self.images)

    def to(self, device: torch.device | str) -> PixelCache:
        """The same cache with its tensors on ``device``."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def image(self, view: int) -> np.ndarray:
        """(H, W, 3) uint8 of one view."""
        return self._view(self.images, view).cpu().numpy()

    def mask(self, view: int) -> np.ndarray | None:
        """(H, W) float32 0..1 of one view; None where its weight is 0."""
        if self.masks is None or float(self.mask_weights[view]) == 0:
            return None
        return self._view(self.masks, view).cpu().numpy().astype(np.float32) / 255

    def identity(self, view: int) -> np.ndarray | None:
        """(H, W) uint8, the object of each pixel of one view; None for one object, and where the view's weight is 0."""
        if self.identities is None or float(self.mask_weights[view]) == 0:
            return None
        return self._view(self.identities, view).cpu().numpy()

    def set_weights(self, weights: np.ndarray) -> None:
        """Replace how far each mask is trusted: (N,) 0..1; a view without a mask keeps 0."""
        trusted = torch.from_numpy(np.array(weights, dtype=np.float32)).to(self.mask_weights.device)
        self.mask_weights = torch.where(self.mask_weights > 0, trusted, torch.zeros_like(trusted))

    def set_masks(
        self,
        masks: list[np.ndarray | None],
        weights: np.ndarray,
        identities: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        """Replace all masks and how far they are trusted.

        Args:
            masks: per view (H, W) float 0..1 of any size, resized to the view's, or None.
            weights: (N,) 0..1; a view without a mask gets 0 whatever its entry.
            identities: per view (H, W) whole numbers of any size, the object of each pixel, or None where there is no
                mask; None for one object.
        """
        self.masks = torch.zeros(self.pixel_count, dtype=torch.uint8, device=self.images.device)
        self.identities = None if identities is None else torch.zeros_like(self.masks)
        for view, mask in enumerate(masks):
            if mask is not None:
                self.set_mask(view, mask, None if identities is None else identities[view])
        self.mask_weights = torch.tensor([float(mask is not None) for mask in masks], device=self.images.device)
        self.set_weights(weights)

    def set_mask(self, view: int, mask: np.ndarray, identity: np.ndarray | None = None) -> None:
        """Replace the mask of one view, trusted fully.

        Args:
            view: its number.
            mask: (H, W) float 0..1 of any size, resized to the view's.
            identity: (H, W) whole numbers of any size, the object of each pixel; None for one object.

        Raises:
            ValueError: the cache has identities and none are given.
        """
        if self.masks is None:
            self.masks = torch.zeros(self.pixel_count, dtype=torch.uint8, device=self.images.device)
        if identity is None and self.identities is not None:
            raise ValueError(f"The mask of view {view} comes without identities; expected some, as other views have.")
        size = int(self.widths[view]), int(self.heights[view])
        here = slice(int(self.starts[view]), int(self.starts[view + 1]))
        flat = np.rint(np.clip(resized(np.array(mask, dtype=np.float32), *size), 0, 1) * 255).astype(np.uint8).ravel()
        self.masks[here] = torch.from_numpy(flat)
        self.mask_weights[view] = 1.0
        if identity is not None:
            if self.identities is None:
                self.identities = torch.zeros_like(self.masks)
            nearest = filled_identities(resized_identities(np.asarray(identity), *size), flat.reshape(size[::-1]) > 0)
            self.identities[here] = torch.from_numpy(nearest.ravel())

    def renumber(self, view: int, identity: np.ndarray) -> None:
        """Give each number of a view's identities the one that another image of the view mostly has there.

        Args:
            view: its number.
            identity: (H, W) whole numbers of any size; what mostly is 0 there is taken out of the mask.
        """
        own = self.identity(view)
        if own is None or self.identities is None or self.masks is None:
            return
        other = resized_identities(identity, own.shape[1], own.shape[0])
        numbers = np.zeros(256, np.uint8)
        for number in np.unique(own[own > 0]):
            numbers[number] = np.bincount(other[own == number]).argmax()
        here = slice(int(self.starts[view]), int(self.starts[view + 1]))
        new = torch.from_numpy(numbers[own].ravel()).to(self.identities.device)
        self.identities[here] = new
        self.masks[here] *= new > 0

    def indices(self, positions: Tensor) -> Tensor:
        """(R, 3) view, row and column of positions (R,)."""
        view = torch.searchsorted(self.starts, positions, right=True) - 1
        local = positions - self.starts[view]
        width = self.widths[view]
        row = torch.div(local, width, rounding_mode="floor")
        return torch.stack([view, row, local - row * width], dim=-1)

    def gather(self, positions: Tensor) -> dict[str, Tensor]:
        """The training batch at positions (R,).

        Returns:
            image (R, 3) float32, indices (R, 3) int64 view, row, column, coarse_mask (R, 1) float32 0..1 and
            mask_weight (R, 1) float32; the last two are zero as long as no mask is known. With several objects, also
            coarse_identity (R, 1) int64.
        """
        indices = self.indices(positions)
        if self.masks is None:
            mask = torch.zeros(len(positions), 1, device=positions.device)
        else:
            mask = self.masks[positions][:, None].float() / 255
        batch = {
            "image": self.images[positions].float() / 255,
            "indices": indices,
            "coarse_mask": mask,
            "mask_weight": self.mask_weights[indices[:, 0]][:, None],
        }
        if self.identities is not None:
            batch["coarse_identity"] = self.identities[positions][:, None].long()
        return batch

    def _view(self, values: Tensor, view: int) -> Tensor:
        shape = (int(self.heights[view]), int(self.widths[view]), *values.shape[1:])
        return values[int(self.starts[view]) : int(self.starts[view + 1])].view(shape)
