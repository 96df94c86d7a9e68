"""`sam2`: Segment Anything 2 by transformers, prompted with points from the capture's geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.place import ObjectPlace, choose_device, object_place, place_at, with_points
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.masks.salient_objects import wanted_things

__all__ = ["Sam2", "choose_mask", "prompt_points"]

WEIGHTS = "facebook/sam2.1-hiera-small"

MAX_PROMPTS = 4
"""Sparse points that a photo is prompted with, at most, besides the object's centre."""

MIN_SCORE = 0.1
"""Confidence (network's score times share of the mask at the object's place) below which there is no mask."""


class Sam2(MaskProvider):
    """What SAM 2 segments at the object's place; with several objects, at the places of the most salient things.

    Args:
        device: auto, cpu, cuda or cuda:N.
        objects, names: of several objects, see `object_choice.chosen_names`.

    Raises:
        MaskError: the device is not there.
    """

    name: ClassVar[str] = "sam2"
    labels: ClassVar[str] = "SA-1B and SA-V: masks drawn or approved by people, no categories"

    def __init__(self, device: str = "auto", objects: int | None = None, names: Sequence[str] = ()) -> None:
        self.names = chosen_names(objects, names)
        self.device = choose_device(device)
        self._model: Any = None
        self._processor: Any = None

    def check(self) -> None:
        if self._model is not None:
            return
        try:
            from transformers import Sam2Model, Sam2Processor  # noqa: F401
        except ImportError as error:
            raise MaskError(
                f"sam2 needs transformers 4.56 or newer ({error}); `pip install 'surface-sos-ns[masks]'`."
            ) from error
        try:
            model, self._processor = _load()
            self._model = model.eval().to(self.device)
        except (OSError, RuntimeError) as error:  # no network, no space, a damaged file
            reason = str(error).strip().splitlines()[0]
            raise MaskError(
                f"The weights {WEIGHTS} cannot be had ({reason}). They are downloaded once (180 MB, from "
                "huggingface.co) and kept in ~/.cache/huggingface; run this once where there is a network and copy "
                "that folder, or take a method without weights (prior)."
            ) from error

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        self.check()
        if self.names:
            return self._of_things(photos, progress)
        masks, confidence = self._at(photos, object_place(photos), progress)
        if all(mask is None for mask in masks):
            raise MaskError(
                "SAM 2 segmented nothing where the cameras look. Name a point on the object, or try another method "
                "(prior, click)."
            )
        return CoarseMasks(masks, confidence)

    def _of_things(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """Masks of several objects."""
        photos = with_points(photos, progress)
        each, scores = [], []
        for name, thing in zip(self.names, wanted_things(photos, len(self.names)), strict=True):
            place = place_at(photos.views, thing.sphere, thing.xyz, thing.seen)
            masks, confidence = self._at(photos, place, lambda line, name=name: progress(f"{name}: {line}"))  # type: ignore[misc]
            each.append(masks)
            scores.append(confidence)
        merged = [merge_objects(of_photo) for of_photo in zip(*each, strict=True)]
        found = np.array([[mask is not None for mask in masks] for masks in each])
        mean = np.sum(scores, axis=0) / np.maximum(found.sum(axis=0), 1)
        return CoarseMasks([mask for mask, _ in merged], mean, (), [owner for _, owner in merged], self.names)

    def _at(self, photos: Photos, place: ObjectPlace, progress: Progress) -> tuple[list[np.ndarray | None], np.ndarray]:
        """Masks (H, W) float32 0/1 of what is at a place, and their confidence (N,)."""
        masks: list[np.ndarray | None] = []
        confidence = np.zeros(len(photos))
        for index, image in enumerate(photos.images):
            if index % max(1, len(photos) // 10) == 0:
                progress(f"SAM 2 on {self.device}: photo {index + 1} of {len(photos)}")
            prompts = prompt_points(photos, index, place)
            if not len(prompts):
                masks.append(None)
                continue
            candidates, scores = _segment(self._model, self._processor, image, prompts, self.device)
            best, confidence[index] = choose_mask(candidates, scores, place.pixel[index], float(place.radius[index]))
            masks.append(None if best is None else candidates[best].astype(np.float32))
        return masks, confidence


def prompt_points(photos: Photos, index: int, place: ObjectPlace) -> np.ndarray:
    """(P, 2) pixels that should show the object: its centre, and sparse points on it that spread over it."""
    uv = photos.views.project_one(index, place.points[place.seen[:, index]])[0]
    candidates = np.concatenate([place.pixel[index][None], uv])
    candidates = candidates[photos.views.subset([index]).inside(candidates[None])[0]]
    if not len(candidates):
        return candidates
    chosen = [0]
    while len(chosen) <= min(MAX_PROMPTS, len(candidates) - 1):  # each as far as can be from those before
        away = np.linalg.norm(candidates[:, None] - candidates[chosen], axis=-1).min(axis=1)
        if away.max() < 2:
            break
        chosen.append(int(np.argmax(away)))
    return candidates[chosen]


def choose_mask(
    candidates: np.ndarray, scores: np.ndarray, pixel: np.ndarray, radius: float
) -> tuple[int | None, float]:
    """Of a part, a whole and a group that a point may mean, the one of the object's size.

    Args:
        candidates: (K, H, W) bool.
        scores: (K,) the network's own estimate of their IoU.
        pixel: (2,) where the object's centre should be, pixels.
        radius: of the sphere around the object, pixels.

    Returns:
        Index and confidence in [0, 1] of the best; (None, 0.0) where none will do.
    """
    rows, columns = np.mgrid[: candidates.shape[1], : candidates.shape[2]] + 0.5
    disc = (columns - pixel[0]) ** 2 + (rows - pixel[1]) ** 2 <= radius**2
    area = np.maximum(candidates.sum(axis=(1, 2)), 1)
    common = (candidates & disc).sum(axis=(1, 2))
    confidence = np.clip(scores, 0, 1) * common / area
    merit = confidence * (common / max(int(disc.sum()), 1)) ** 0.25
    best = int(np.argmax(merit))
    return (best, float(confidence[best])) if confidence[best] >= MIN_SCORE else (None, 0.0)


def _load() -> tuple[Any, Any]:
    from transformers import Sam2Model, Sam2Processor

    return Sam2Model.from_pretrained(WEIGHTS), Sam2Processor.from_pretrained(WEIGHTS)


def _segment(
    model: Any, processor: Any, image: np.ndarray, prompts: np.ndarray, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (3, H, W) bool that the points may mean, and their scores (3,)."""
    import torch

    inputs = processor(
        images=image, input_points=[[prompts.tolist()]], input_labels=[[[1] * len(prompts)]], return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(**inputs.to(device), multimask_output=True)
    masks = processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"].cpu())[0][0]
    return masks.numpy().astype(bool), outputs.iou_scores[0, 0].float().cpu().numpy()
