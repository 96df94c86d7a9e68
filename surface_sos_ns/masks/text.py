"""`text`: what words name, by an open-vocabulary detector (OWL-ViT, OWLv2) of transformers.

The detector gives boxes. Of each photo's boxes the one counts that shows the same thing in space as those of the other
photos. Within a box SAM 2 finds the mask, where its weights can be had; else colours do.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np

from surface_sos_ns.masks import sam2
from surface_sos_ns.masks.boxes import Boxes, choose_boxes, mask_in_box
from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.object_choice import names_of
from surface_sos_ns.masks.place import choose_device
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress
from surface_sos_ns.utils.extras import missing_package

__all__ = ["Text"]

WEIGHTS = "google/owlv2-base-patch16-ensemble"
DETECTORS = ("owlvit", "owlv2")
"""Kinds of models that give boxes for words."""
MIN_SCORE = 0.1
"""Score of the detector, in [0, 1], below which boxes are ignored."""
MAX_BOXES = 5
"""Boxes of a photo that are considered for each prompt, at most, those of the highest score."""
FEWEST_PHOTOS = 2


class Text(MaskProvider):
    """Things that words name: one object with one prompt, several with several.

    Args:
        prompt: what each object is, in English, such as "watering can".
        model: checkpoint of the detector, by name or folder; None for OWLv2.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        MaskError: no prompt, or an unknown device.
        CaptureError: a prompt cannot be made a name, or there are too many.
    """

    name: ClassVar[str] = "text"
    labels: ClassVar[str] = "boxes and captions of web pictures (OWLv2); SAM 2: masks drawn or approved by people"

    def __init__(self, prompt: Sequence[str] = (), model: str | None = None, device: str = "auto") -> None:
        if not prompt or not all(words.strip() for words in prompt):
            raise MaskError('--method text needs --prompt, what the objects are, such as --prompt cup "watering can".')
        self.prompts = tuple(words.strip() for words in prompt)
        self.names = names_of(self.prompts)
        self.model = model or WEIGHTS
        self.device = choose_device(device)
        self._detector: Any = None
        self._processor: Any = None
        self._segmenter: tuple[Any, Any] | None = None

    def check(self) -> None:
        if self._detector is not None:
            return
        problem = missing_package("transformers", "--method text")
        if problem is not None:
            raise MaskError(problem)
        try:
            detector, self._processor = _load(self.model)
        except (OSError, ValueError, RuntimeError) as error:  # no network, no space, a damaged file, no detector
            raise MaskError(
                f"The weights {self.model} cannot be had ({(str(error).strip() or repr(error)).splitlines()[0]}). They "
                "are downloaded once (600 MB, from huggingface.co) and kept in ~/.cache/huggingface; run this once "
                "where there is a network and copy that folder, name a folder with --model, or take a method without "
                "weights (click)."
            ) from error
        if detector.config.model_type not in DETECTORS:
            raise MaskError(
                f"{self.model} is a {detector.config.model_type} model; expected one of {', '.join(DETECTORS)}."
            )
        self._detector = detector.eval().to(self.device)
        with suppress(OSError, RuntimeError, ImportError, AttributeError):  # then colours find the masks
            model, processor = sam2._load()
            self._segmenter = model.eval().to(self.device), processor

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        self.check()
        within = (
            "SAM 2" if self._segmenter is not None else "colours (GrabCut), since the weights of SAM 2 are not here"
        )
        progress(f"text: masks within the boxes by {within}")
        found: list[list[Boxes]] = []
        for index, image in enumerate(photos.images):
            if index % max(1, len(photos) // 10) == 0:
                progress(f"{self.model} on {self.device}: photo {index + 1} of {len(photos)}")
            found.append(_detect(self._detector, self._processor, image, self.prompts, self.device))
        each: list[list[np.ndarray | None]] = []
        scores = np.zeros((len(self.prompts), len(photos)))
        for number, words in enumerate(self.prompts):
            boxes = [of_photo[number] for of_photo in found]
            chosen = choose_boxes(boxes, photos.views)
            if sum(index is not None for index in chosen) < FEWEST_PHOTOS:
                raise MaskError(
                    f"{self.model} found no {words!r} that two photos show (boxes in "
                    f"{sum(len(one.scores) > 0 for one in boxes)} of {len(photos)} photos). Say it in other words, or "
                    "try another method (click)."
                )
            masks: list[np.ndarray | None] = []
            for view, box in enumerate(chosen):
                masks.append(None if box is None else self._mask(photos.images[view], boxes[view].corners[box]))
                scores[number, view] = 0 if box is None else boxes[view].scores[box]
            each.append(masks)
        remarks = [
            f"{words}: found in {np.count_nonzero(of_prompt)} of {len(photos)} photos, mean score "
            f"{of_prompt[of_prompt > 0].mean():.2f}"
            for words, of_prompt in zip(self.prompts, scores, strict=True)
        ]
        confidence = scores.sum(axis=0) / np.maximum((scores > 0).sum(axis=0), 1)
        if len(self.prompts) == 1:
            return CoarseMasks(each[0], confidence, remarks)
        merged = [merge_objects(of_photo) for of_photo in zip(*each, strict=True)]
        return CoarseMasks(
            [mask for mask, _ in merged], confidence, remarks, [owner for _, owner in merged], self.names
        )

    def _mask(self, image: np.ndarray, corners: np.ndarray) -> np.ndarray:
        if self._segmenter is None:
            return mask_in_box(image, corners)
        return _segment(*self._segmenter, image, corners, self.device)


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    return AutoModelForZeroShotObjectDetection.from_pretrained(model), AutoProcessor.from_pretrained(model)


def _detect(model: Any, processor: Any, image: np.ndarray, prompts: Sequence[str], device: str) -> list[Boxes]:
    """For each prompt the boxes in a photo (H, W, 3) uint8, the surest first."""
    import torch

    texts = [f"a photo of a {words}" for words in prompts]
    inputs = processor(text=[texts], images=image, return_tensors="pt").to(device)
    with torch.inference_mode():
        outputs = model(**inputs)
    size = [(image.shape[0], image.shape[1])]
    result = processor.post_process_grounded_object_detection(outputs, threshold=MIN_SCORE, target_sizes=size)[0]
    labels, scores = result["labels"].cpu().numpy(), result["scores"].float().cpu().numpy()
    corners = result["boxes"].float().cpu().numpy()
    corners = np.clip(corners, 0, [image.shape[1], image.shape[0], image.shape[1], image.shape[0]])
    solid = (corners[:, 2] - corners[:, 0] > 1) & (corners[:, 3] - corners[:, 1] > 1)
    each = []
    for number in range(len(prompts)):
        ours = np.flatnonzero((labels == number) & solid)
        ours = ours[np.argsort(-scores[ours], kind="stable")][:MAX_BOXES]
        each.append(Boxes(corners[ours], scores[ours]))
    return each


def _segment(model: Any, processor: Any, image: np.ndarray, corners: np.ndarray, device: str) -> np.ndarray:
    """The mask (H, W) float32 0/1 that SAM 2 finds in a box."""
    import torch

    inputs = processor(images=image, input_boxes=[[corners.tolist()]], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs.to(device), multimask_output=False)
    masks = processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"].cpu())[0]
    return masks[0, 0].numpy().astype(np.float32)
