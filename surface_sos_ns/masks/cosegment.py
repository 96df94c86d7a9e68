"""Co-segmentation: the patches of all photos clustered together, the object's clusters chosen by a vote of the photos.

After DINO-CoSeg (Amir et al., 2021), the baseline of NeRF-SOS: deep features of all images are clustered jointly, every
image votes on which clusters are salient, and clusters that enough images elect are the object. There, saliency is the
network's attention; here it is where a cluster lies: near the place the cameras turn around or away from it, which can
be computed for any features. Several numbers of clusters are tried and their masks averaged, because none is right for
every capture. There is no vote in space and no smoothing: this serves as a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.masks.centre_prior import RINGS, cluster_patches, describe, distance_from_object
from surface_sos_ns.masks.features import FeatureProvider
from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.object_choice import chosen_names
from surface_sos_ns.masks.patch_grid import enlarged
from surface_sos_ns.masks.place import object_place, with_points
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, Photos, Progress
from surface_sos_ns.masks.salient_objects import wanted_things

__all__ = ["Cosegment", "elect_clusters"]

CLUSTER_COUNTS = (8, 16, 32)
"""Numbers of clusters that are tried."""


class Cosegment(FeatureProvider):
    """Co-segmentation of a capture.

    The confidence of a mask is how far the numbers of clusters agree on it: over the patches that any of them gives to
    the object, the mean of ``|2 p - 1|`` with p the fraction of them that do.

    With several objects, each of the most salient things (`salient_objects.find_things`) elects its clusters, and its
    patches are those of its clusters whose rays meet its sphere.

    Args:
        features, model, features_onnx, seed: see :class:`FeatureProvider`.
        objects, names: of several objects, see `object_choice.chosen_names`.

    Raises:
        MaskError: features, or options about objects, that do not go together.
    """

    name = "cosegment"

    def __init__(
        self,
        features: str = "auto",
        model: str | None = None,
        features_onnx: Path | None = None,
        seed: int = 0,
        objects: int | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(features, model, features_onnx, seed)
        self.names = chosen_names(objects, names)

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        if self.names:
            return self._of_things(photos, progress)
        features = describe(self._features.load(), photos, progress)
        distances = distance_from_object(photos, object_place(photos).sphere, features)
        shares = [np.zeros(grid.shape[:2], np.float32) for grid in features]
        for count in CLUSTER_COUNTS:
            progress(f"cosegment: {count} clusters over all photos")
            clusters = cluster_patches(features, distances, count, self.seed)
            elected = elect_clusters(clusters, distances)
            for share, grid in zip(shares, clusters, strict=True):
                share += elected[grid] / np.float32(len(CLUSTER_COUNTS))
        masks: list[np.ndarray | None] = []
        confidence = np.zeros(len(photos))
        for view, share in enumerate(shares):
            if not (share > 0.5).any():
                masks.append(None)
                continue
            height, width = photos.images[view].shape[:2]
            masks.append(enlarged(4 * (2 * share - 1), (height, width)))
            confidence[view] = np.abs(2 * share[share > 0] - 1).mean()
        if not confidence.any():
            raise MaskError(
                "No cluster of patches lies more about the place the cameras turn around than elsewhere. Name a point "
                "on the object and its radius, or take another method."
            )
        missing = [photos.files[view].name for view, mask in enumerate(masks) if mask is None]
        remarks = [f"Nothing of the object was found in {', '.join(missing)}."] if missing else []
        return CoarseMasks(masks, confidence, remarks)

    def _of_things(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """Masks of several objects."""
        photos = with_points(photos, progress)
        things = wanted_things(photos, len(self.names))
        features = describe(self._features.load(), photos, progress)
        distances = [distance_from_object(photos, thing.sphere, features) for thing in things]
        nearest = [np.min(of_view, axis=0) for of_view in zip(*distances, strict=True)]
        shares = [[np.zeros(grid.shape[:2], np.float32) for grid in features] for _ in things]
        for count in CLUSTER_COUNTS:
            progress(f"cosegment: {count} clusters over all photos")
            clusters = cluster_patches(features, nearest, count, self.seed)
            for of_thing, away in zip(shares, distances, strict=True):
                elected = elect_clusters(clusters, away)
                for share, grid, distance in zip(of_thing, clusters, away, strict=True):
                    share += (elected[grid] & (distance < 1)) / np.float32(len(CLUSTER_COUNTS))
        confidence = np.zeros(len(photos))
        merged: list[tuple[np.ndarray, np.ndarray] | tuple[None, None]] = []
        for view, image in enumerate(photos.images):
            of_view = [of_thing[view] for of_thing in shares]
            height, width = image.shape[:2]
            found = [enlarged(4 * (2 * one - 1), (height, width)) if (one > 0.5).any() else None for one in of_view]
            merged.append(merge_objects(found))
            sure = [float(np.abs(2 * one[one > 0] - 1).mean()) for one in of_view if (one > 0.5).any()]
            confidence[view] = np.mean(sure) if sure else 0.0
        return CoarseMasks([mask for mask, _ in merged], confidence, (), [owner for _, owner in merged], self.names)


def elect_clusters(clusters: Sequence[np.ndarray], distances: Sequence[np.ndarray]) -> np.ndarray:
    """Which clusters are the object's.

    Every photo votes for the clusters that are more frequent near the object's place (within the inner ring) than
    around it. Its vote on a cluster is weighted by the number of the cluster's patches there; a photo with patches only
    near the place, or only around it, does not vote.

    Args:
        clusters: N grids (h, w) of indices from 0.
        distances: N grids (h, w), distance from the object's place in radii of its sphere.

    Returns:
        (K,) bool, elected by more than half of the votes.
    """
    count = max(int(grid.max()) for grid in clusters) + 1
    votes = np.zeros((2, count))
    for grid, distance in zip(clusters, distances, strict=True):
        near = distance.ravel() < RINGS[0]
        if near.all() or not near.any():
            continue
        inside = np.bincount(grid.ravel()[near], minlength=count)
        outside = np.bincount(grid.ravel()[~near], minlength=count)
        for_it = inside / near.sum() > outside / (~near).sum()
        votes[np.where(for_it, 1, 0), np.arange(count)] += inside + outside
    return votes[1] > votes[0]
