"""What every source of coarse masks is: photos and cameras in, a mask and a confidence for each view out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.errors import UserError

__all__ = ["CoarseMasks", "MaskError", "MaskProvider", "Photos", "PlainMaskProvider", "PlainPhotos", "Progress"]

Progress = Callable[[str], None]
"""Called with one line per stage."""


class MaskError(UserError):
    """Masks cannot be made or brought; the message says what was expected and what to do."""


@dataclass(frozen=True)
class Photos:
    """A capture's photos and cameras, as providers get them.

    Attributes:
        files: N image files, as `transforms.json` names them (resolved).
        images: N photos (H, W, 3) uint8 RGB, shrunk to a few hundred pixels.
        views: N views of the images' sizes, world frame (nerfstudio's, after centring and scaling).
        sizes: N pairs (width, height) of the files themselves, in pixels.
        points: sparse points that the capture brings, world frame; None where it brings none.
        near: (3,) a point on the object that the user named, world frame, or None.
        radius: the object's radius that the user named, world units, or None.
    """

    files: Sequence[Path]
    images: Sequence[np.ndarray]
    views: Views
    sizes: Sequence[tuple[int, int]]
    points: SparsePoints | None = None
    near: np.ndarray | None = None
    radius: float | None = None

    def __post_init__(self) -> None:
        counts = {len(self.files), len(self.images), len(self.views), len(self.sizes)}
        if len(counts) != 1:
            raise ValueError(
                f"Photos has {sorted(counts)} files, images, views and sizes; expected one of each a view."
            )

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class PlainPhotos:
    """Photos without cameras, of one thing or of many.

    Attributes:
        files: N image files.
        images: N photos (H, W, 3) uint8 RGB, shrunk to a few hundred pixels.
        sizes: N pairs (width, height) of the files themselves, in pixels.
    """

    files: Sequence[Path]
    images: Sequence[np.ndarray]
    sizes: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class CoarseMasks:
    """Result of a provider.

    Attributes:
        masks: N masks (h, w) float32 in [0, 1], of any size with the photo's proportions; None where the object was
            not found. A mask of zeros says that the object is out of the picture; hulls leave out both.
            With several objects, the mask of all of them.
        confidence: (N,) float in [0, 1], how far the provider trusts each mask; 0 where there is none.
        remarks: what a user should know, a line each.
        identities: N images (h, w) uint8 of the masks' sizes, which object each pixel belongs to: 0 for none, 1 to K;
            None where there is no mask. Empty where there is one object.
        names: of the K objects; the first has identity 1. Empty where there is one object.
    """

    masks: Sequence[np.ndarray | None]
    confidence: np.ndarray
    remarks: Sequence[str] = field(default=())
    identities: Sequence[np.ndarray | None] = field(default=())
    names: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.confidence):
            raise ValueError(
                f"There are {len(self.masks)} masks and {len(self.confidence)} confidences; expected one each."
            )
        if len(self.identities) != (len(self.masks) if self.names else 0):
            raise ValueError(
                f"There are {len(self.identities)} images of identities for {len(self.masks)} masks and "
                f"{len(self.names)} names of objects; expected one for each mask if there are names, else none."
            )


class MaskProvider(ABC):
    """A source of coarse masks. Options are the constructor's arguments; mistakes in them raise MaskError there."""

    name: ClassVar[str]
    """As in `--method`."""
    labels: ClassVar[str]
    """Which human labels are behind the masks, in words for the user: "none", "COCO instance masks", "a few clicks"."""

    @abstractmethod
    def check(self) -> None:
        """What must be there before any long work: packages, weights, programs, folders. Imports nothing heavy twice.

        Raises:
            MaskError: something is missing; the message says what and how to get it.
        """

    @abstractmethod
    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """A mask and a confidence for each photo.

        Args:
            photos: of the whole capture, whatever the split: a coarse mask is an input for all views.
            progress: called with one line per stage.

        Raises:
            MaskError: no masks can be made; the message says why and what to try.
        """


class PlainMaskProvider(ABC):
    """A source of masks that needs no cameras. Options as for `MaskProvider`."""

    name: ClassVar[str]
    labels: ClassVar[str]

    @abstractmethod
    def check(self) -> None:
        """See `MaskProvider.check`."""

    @abstractmethod
    def plain_masks(self, photos: PlainPhotos, progress: Progress) -> CoarseMasks:
        """A mask and a confidence for each photo.

        Args:
            photos: some photos of a folder, which may show different things.
            progress: called with one line per stage.

        Raises:
            MaskError: no masks can be made; the message says why. That nothing is found in some photos, or in all of
                them, is no error.
        """
