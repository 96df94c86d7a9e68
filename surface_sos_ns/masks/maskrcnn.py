"""`maskrcnn`: torchvision's Mask R-CNN, and which of its instances is the object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from surface_sos_ns.masks.matched_instances import Instances, match_instances
from surface_sos_ns.masks.object_choice import check_agree
from surface_sos_ns.masks.place import choose_device, object_place
from surface_sos_ns.masks.provider import (
    CoarseMasks,
    MaskError,
    MaskProvider,
    Photos,
    PlainMaskProvider,
    PlainPhotos,
    Progress,
)

__all__ = ["Instances", "MaskRcnn", "choose_instances"]

MIN_SCORE = 0.3
"""Score of the network, in [0, 1], below which instances are ignored."""

MAX_INSTANCES = 20
"""Instances of a photo that are considered, at most, those of the highest score."""

MIN_CLOSENESS = 0.1
"""Closeness to the object's place, exp(-distance^2 / 2) in radii of its sphere, below which an instance is ignored."""


class MaskRcnn(MaskProvider, PlainMaskProvider):
    """Instances that Mask R-CNN (ResNet-50, trained on COCO) finds.

    Args:
        category: the object's category, of COCO's 80; None takes what is most constantly where the cameras look.
        device: auto, cpu, cuda or cuda:N.
        objects: how many objects, those that are found most surely near where the cameras look, of the category if it
            is named; 0 for all; None for one.

    Raises:
        MaskError: unknown category or device; the message lists the categories.
    """

    name: ClassVar[str] = "maskrcnn"
    labels: ClassVar[str] = "COCO: instance masks drawn by people, 80 categories"

    def __init__(self, category: str | None = None, device: str = "auto", objects: int | None = None) -> None:
        check_agree(objects, ())
        self._categories = _categories()
        if category is not None and category not in self._categories:
            known = ", ".join(name for name in self._categories if name not in ("__background__", "N/A"))
            raise MaskError(f"Mask R-CNN knows no category {category!r}; expected one of: {known}.")
        self.category = category
        self.objects = objects
        self.device = choose_device(device)
        self._model: Any = None

    def check(self) -> None:
        if self._model is None:
            try:
                self._model = _load().eval().to(self.device)
            except (OSError, RuntimeError) as error:  # no network, no space, a damaged file
                raise MaskError(
                    f"The weights of Mask R-CNN cannot be had ({error}). They are downloaded once (180 MB, from "
                    "download.pytorch.org) and kept by torch in ~/.cache/torch/hub/checkpoints; run this once where "
                    "there is a network and copy that folder, or take a method without weights (prior)."
                ) from error

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        self.check()
        place = object_place(photos)
        found = self._detect_all(photos.images, progress)
        if self.objects is not None:
            near = [
                self._near(one, pixel, radius)
                for one, pixel, radius in zip(found, place.pixel, place.radius, strict=True)
            ]
            return match_instances(near, photos.views, self.objects, [path.name for path in photos.files])
        masks, confidence, chosen = choose_instances(found, place.pixel, place.radius, self.category)
        if all(mask is None for mask in masks):
            seen = Counter(label for instances in found for label in instances.labels)
            there = ", ".join(f"{label} ({count})" for label, count in seen.most_common(5)) or "nothing at all"
            raise MaskError(
                f"Mask R-CNN found no {self.category or 'instance'} where the cameras look. It found: {there}. "
                "Try another category, name a point on the object, or another method (prior, click)."
            )
        return CoarseMasks(masks, confidence, [f"category of the object: {chosen}"])

    def plain_masks(self, photos: PlainPhotos, progress: Progress) -> CoarseMasks:
        """See :meth:`PlainMaskProvider.plain_masks`: of each photo on its own, the object is looked for about its
        centre, within half of its shorter side."""
        self.check()
        masks: list[np.ndarray | None] = []
        confidence = np.zeros(len(photos))
        for index, found in enumerate(self._detect_all(photos.images, progress)):
            height, width = photos.images[index].shape[:2]
            centre, radius = np.array([[width / 2, height / 2]]), np.array([min(width, height) / 2])
            chosen, score, _ = choose_instances([found], centre, radius, self.category)
            masks += chosen
            confidence[index] = score[0]
        return CoarseMasks(masks, confidence)

    def _near(self, found: Instances, pixel: np.ndarray, radius: float) -> Instances:
        """The instances near where the cameras look, of the category if it is named."""
        merits = _merits(found, pixel, radius)
        kept = [
            index for index, label in enumerate(found.labels) if merits[index] > 0 and self.category in (None, label)
        ]
        return Instances(found.masks[kept], [found.labels[index] for index in kept], found.scores[kept])

    def _detect_all(self, images: Sequence[np.ndarray], progress: Progress) -> list[Instances]:
        found = []
        for index, image in enumerate(images):
            if index % max(1, len(images) // 10) == 0:
                progress(f"Mask R-CNN on {self.device}: photo {index + 1} of {len(images)}")
            found.append(_detect(self._model, image, self._categories, self.device))
        return found


def choose_instances(
    found: Sequence[Instances], pixel: np.ndarray, radius: np.ndarray, category: str | None = None
) -> tuple[list[np.ndarray | None], np.ndarray, str]:
    """Of each photo's instances the one that is the object.

    An instance counts by the network's score, by how near it is to where the object should be, and by its size. Without
    a category all photos together elect one; photos without it take their best instance of another.

    Args:
        found: of N photos.
        pixel: (N, 2) where the object's centre should be, pixels; nan where it is not in view.
        radius: (N,) how large it should be, pixels.
        category: of the object, or None.

    Returns:
        N masks (H, W) float32 (None: not found), (N,) scores of the network for them, and the category.
    """
    merits = [_merits(one, place, size) for one, place, size in zip(found, pixel, radius, strict=True)]
    elected = category
    if elected is None:
        votes: Counter[str] = Counter()
        for one, merit in zip(found, merits, strict=True):
            for label in set(one.labels):
                votes[label] += max(m for m, other in zip(merit, one.labels, strict=True) if other == label)
        elected = max(votes, key=lambda label: votes[label]) if votes else "none"
    masks: list[np.ndarray | None] = []
    confidence = np.zeros(len(found))
    for index, (one, merit) in enumerate(zip(found, merits, strict=True)):
        same = np.array([label == elected for label in one.labels], bool)
        if same.any() and merit[same].max() > 0:
            merit = np.where(same, merit, 0)
        elif category is not None:
            merit = np.zeros(len(merit))
        if not len(merit) or merit.max() <= 0:
            masks.append(None)
            continue
        best = int(np.argmax(merit))
        masks.append(one.masks[best].astype(np.float32))
        confidence[index] = one.scores[best] if one.labels[best] == elected else 0.5 * one.scores[best]
    return masks, confidence, elected


def _merits(found: Instances, pixel: np.ndarray, radius: float) -> np.ndarray:
    """(K,) how well each instance of a photo fits the object's place; 0 for what lies elsewhere."""
    merits = np.zeros(len(found.labels))
    if not (np.isfinite(pixel).all() and np.isfinite(radius)):
        return merits
    for index, mask in enumerate(found.masks):
        rows, columns = np.nonzero(mask)
        if not len(rows):
            continue
        away = np.hypot(columns.mean() + 0.5 - pixel[0], rows.mean() + 0.5 - pixel[1]) / radius
        closeness = np.exp(-(away**2) / 2)
        # The sphere has some margin, and few objects fill theirs.
        size = np.sqrt(len(rows) / (np.pi * radius**2))
        fit = min(1.0, size / 0.5) * min(1.0, 1.5 / max(size, 1e-6))
        merits[index] = found.scores[index] * closeness * fit if closeness >= MIN_CLOSENESS else 0.0
    return merits


def _categories() -> list[str]:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

    return list(MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT.meta["categories"])


def _load() -> Any:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, maskrcnn_resnet50_fpn_v2

    return maskrcnn_resnet50_fpn_v2(weights=MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT)


def _detect(model: Any, image: np.ndarray, categories: Sequence[str], device: str) -> Instances:
    """Instances in a photo (H, W, 3) uint8."""
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float() / 255
        result = {key: value.cpu() for key, value in model([pixels])[0].items()}
    keep = torch.nonzero(result["scores"] >= MIN_SCORE)[:, 0][:MAX_INSTANCES]  # they come in order
    return Instances(
        (result["masks"][keep, 0] >= 0.5).numpy(),
        [categories[int(label)] for label in result["labels"][keep]],
        result["scores"][keep].numpy(),
    )
