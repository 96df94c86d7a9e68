"""Instances that a detector found in each photo, made objects: matched across the photos, named, the surest kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surface_sos_ns.capture.object_matching import match_objects
from surface_sos_ns.capture.object_names import MAX_OBJECTS
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.object_choice import names_of
from surface_sos_ns.masks.provider import CoarseMasks, MaskError

__all__ = ["Instances", "match_instances", "number_instances"]

MAX_OVERLAP = 0.5
"""Share of an instance that surer ones may cover; with more it is one of them, found twice."""


@dataclass(frozen=True)
class Instances:
    """What was detected in one photo.

    Attributes:
        masks: (K, H, W) bool.
        labels: K categories.
        scores: (K,) in [0, 1], how sure the network is.
    """

    masks: np.ndarray
    labels: Sequence[str]
    scores: np.ndarray


def number_instances(found: Instances) -> tuple[np.ndarray | None, list[int]]:
    """An identity image of one photo's instances, numbered from the surest on; None without any.

    Returns:
        (H, W) uint8, 0 for none, and of each number the index of its instance.
    """
    identities = np.zeros(found.masks.shape[1:], np.uint8)
    taken: list[int] = []
    for index in np.argsort(-found.scores, kind="stable").tolist():
        free = found.masks[index] & (identities == 0)
        if free.sum() <= (1 - MAX_OVERLAP) * found.masks[index].sum() or len(taken) == MAX_OBJECTS:
            continue
        taken.append(index)
        identities[free] = len(taken)
    return (identities if taken else None), taken


def match_instances(found: Sequence[Instances], views: Views, count: int, photos: Sequence[str]) -> CoarseMasks:
    """Objects out of the instances of all photos.

    Args:
        found: of N photos.
        views: N views of the instances' sizes, world frame.
        count: number of objects, those of the highest scores in all photos together; 0 for all.
        photos: N names, for remarks.

    Returns:
        Masks with identities, the surest object first. Names are the most frequent category of each object's
        instances. The confidence of a photo is the mean score of its instances.

    Raises:
        MaskError: there are fewer objects.
    """
    numbered = [number_instances(one) for one in found]
    if sum(identities is not None for identities, _ in numbered) < 2:
        raise MaskError("Fewer than two photos have instances where the cameras look, so no objects can be told.")
    match = match_objects([identities for identities, _ in numbered], views)
    labels = [Counter[str]() for _ in range(match.count)]
    scores = np.zeros(match.count)
    each: list[dict[int, float]] = []
    for one, (numbers, taken), identities in zip(found, numbered, match.identities, strict=True):
        of_photo: dict[int, float] = {}
        for number, index in enumerate(taken, start=1):
            owner = 0 if identities is None else int(np.bincount(identities[numbers == number]).argmax())
            score = float(one.scores[index])
            if owner:
                labels[owner - 1][one.labels[index]] += 1
                scores[owner - 1] += score
                of_photo[owner] = max(of_photo.get(owner, 0.0), score)
        each.append(of_photo)
    wanted = count or match.count
    if match.count < wanted or match.count < 2:
        seen = ", ".join(names_of([words.most_common(1)[0][0] for words in labels if words])) or "none"
        raise MaskError(
            f"The instances of all photos are of {match.count} objects ({seen}); expected {max(wanted, 2)}. Ask for "
            "fewer with --objects, or leave it out for one object."
        )
    kept = np.argsort(-scores, kind="stable")[:wanted] + 1
    table = np.zeros(match.count + 1, np.uint8)
    table[kept] = np.arange(1, wanted + 1)
    names = names_of([labels[identity - 1].most_common(1)[0][0] for identity in kept])
    identities_kept: list[np.ndarray | None] = []
    confidence = np.zeros(len(found))
    for view, (identities, of_photo) in enumerate(zip(match.identities, each, strict=True)):
        renumbered = None if identities is None else table[identities]
        identities_kept.append(renumbered if renumbered is not None and renumbered.any() else None)
        ours = [score for owner, score in of_photo.items() if table[owner]]
        confidence[view] = float(np.mean(ours)) if ours and identities_kept[view] is not None else 0.0
    masks = [None if one is None else (one > 0).astype(np.float32) for one in identities_kept]
    remarks = [f"objects: {', '.join(names)}", *match.remarks(photos)]
    return CoarseMasks(masks, confidence, remarks, identities_kept, names)
