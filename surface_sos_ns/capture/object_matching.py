"""Which instances of different photos are one object, whatever numbers they have: by the space that their masks share.

Masks of several objects are numbered from photo to photo: consistently, if a person or a tracker did it, with some
numbers swapped, or anew in each photo, if a detector did. Numbers and objects are distinguished here: an *instance* is
one number in one photo. The union of all masks is voted into voxels, and each voxel notes the instance that it projects
into in each view. Instances of one object share voxels; instances of different objects do so only where one stands
behind the other. They are grouped by that, and then compared with the projection of each object's voxels in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.hull import voxel_centres
from surface_sos_ns.capture.hull_projection import voxel_footprint
from surface_sos_ns.capture.hull_voting import vote_hull
from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.capture.names import listed
from surface_sos_ns.capture.object_names import MAX_OBJECTS
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["ObjectMatch", "match_objects"]

IMAGE_SIZE = 240
"""Longer side, in pixels, of the masks that are compared; larger ones are made smaller."""
RESOLUTION = 64
"""Voxels along an edge of the sphere's cube."""
LEVEL = 0.5
"""Fraction of the votes that a voxel needs: an object may be missing from half of the masks."""
OWN_LEVEL = 0.8
"""Fraction of an object's masks that has to cover its voxels, where no other object hides it."""
LEAST_SHARE = 0.3
"""The same fraction of all of its photos whose picture shows the voxel, hidden there or not: what is hidden
in most is behind other objects."""
SAME_PHOTO = 0.5
"""Penalty on the mean distance of two groups if each has an instance in every photo, where 1 is the distance of
instances that share no voxel: instances of one photo are different objects."""
FARTHEST = 0.95
"""Mean distance up to which two groups are merged into one object. It is large, since instances with rough outlines
share few voxels."""
CONSISTENT = 0.6
"""Share of the instances whose number has to be that of their object for the numbers to be kept."""
LEAST_OVERLAP = 0.1
"""IoU with an object's projection from which on an instance may be that object."""
WHERE_HIDDEN = 0.05
"""Weight of an object's share of the voxels behind an instance, relative to that IoU. It decides for an object that is
nearly hidden, whose IoU is about 0."""
GROUPED_PHOTOS = 100
"""Photos whose instances are grouped, at most, evenly spaced; those of other photos are assigned to these groups."""
FEWEST_PHOTOS = 0.1
"""Part of the photos that an object has to be in, where numbers mean nothing; in fewer it is a detector's error."""
CLEAR = 1.5
"""How many times larger the IoU with another object has to be for a number to be corrected."""
SURE = 0.5
"""Confidence below which an instance is doubtful."""
SAME_THING = 0.8
"""IoU of two objects' hulls above which they are one thing."""
ROUNDS = 3


@dataclass(frozen=True)
class ObjectMatch:
    """Identities that mean the same object in every photo.

    Attributes:
        identities: N images (H, W) uint8, of the sizes they came in: 0 for none, 1 to `count`; None where there is no
            mask.
        count: K, the number of objects.
        renumbered: whether the numbers were inconsistent between photos, so that objects were numbered anew.
        confidence: how sure the instances' objects are, mean over all, in [0, 1]: 1 if each overlaps the projection of
            its object alone, 0 if each overlaps those of two objects equally, or none.
        doubtful: views with an instance whose own confidence is below one half.
        corrected: views in which numbers were wrong, where most were right.
        same: pairs of identities whose hulls overlap by an IoU over 0.8: two numbers or names for one thing.
        shown: in how many views each object is, K numbers.
    """

    identities: list[np.ndarray | None]
    count: int
    renumbered: bool
    confidence: float
    doubtful: list[int] = field(default_factory=list)
    corrected: list[int] = field(default_factory=list)
    same: list[tuple[int, int]] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)

    def remarks(self, photos: Sequence[str]) -> list[str]:
        """What a user should know, a line each.

        Args:
            photos: N names, for the lines.
        """
        said = []
        if self.renumbered:
            said.append(
                f"the masks number objects differently from photo to photo; matched by their hulls, they show "
                f"{self.count} objects (confidence {self.confidence:.0%})"
            )
        if self.corrected:
            said.append(
                f"objects have each other's numbers in {len(self.corrected)} photos, corrected by their hulls: "
                f"{listed([photos[view] for view in self.corrected])}"
            )
        if self.doubtful:
            said.append(
                f"which object is which is doubtful in {len(self.doubtful)} photos: "
                f"{listed([photos[view] for view in self.doubtful])}"
            )
        return said


def match_objects(
    identities: Sequence[np.ndarray | None],
    views: Views,
    keep_names: bool = False,
    sphere: ObjectSphere | None = None,
    progress: Callable[[str], None] | None = None,
) -> ObjectMatch:
    """Makes numbers of instances mean the same object in every photo.

    Where most numbers already agree with the space that the masks share (`CONSISTENT`), all objects keep theirs, and
    single photos are corrected whose numbers are clearly those of other objects. Else the instances are grouped into
    objects by that space alone. Those are numbered by size, the largest first; with ``keep_names`` they take the
    numbers that most of their instances have. What only a photo or two show is no object then, and becomes background.

    Args:
        identities: N images (H, W) of whole numbers from 0 (none) to 255, each with its view's proportions; None where
            there is no mask.
        views: N views, world frame.
        keep_names: whether numbers stand for names that a user gave.
        sphere: holds all objects, world frame; None finds it.
        progress: called with one line per stage.

    Raises:
        CaptureError: the masks agree on no place in space, or fewer than two show anything.
        ValueError: identities and views do not match in number.
    """
    if len(identities) != len(views):
        raise ValueError(f"There are {len(identities)} images of identities for {len(views)} views; give one each.")
    scene = _Scene(identities, views, sphere)
    given = scene.numbers
    if progress:
        progress(f"matching {len(given)} masks of objects in {len(views)} photos by their hulls")
    groups = scene.grouped()
    named = np.concatenate([[0], _by_number(groups, given)])[groups]
    consistent = float(np.mean(named == given)) >= CONSISTENT
    if consistent:
        objects = scene.corrected(given, named == given)
    else:
        objects = named if keep_names else np.concatenate([[0], _by_size(groups, scene.areas)])[groups]
    highest = max(int(image.max(initial=0)) for image in identities if image is not None)
    count = highest if consistent or keep_names else int(objects.max(initial=0))
    confidence = scene.confidences(objects, count)
    in_doubt = (confidence < SURE) & (objects > 0)
    wrong = (objects != given) if consistent else np.zeros(len(given), bool)
    return ObjectMatch(
        identities=scene.renumbered(identities, objects, keep_others=consistent),
        count=count,
        renumbered=not consistent,
        confidence=float(confidence[objects > 0].mean()) if (objects > 0).any() else 0.0,
        doubtful=np.unique(scene.views_of[in_doubt]).tolist(),
        corrected=np.unique(scene.views_of[wrong]).tolist(),
        same=scene.same_things(given if consistent else objects, count),
        shown=[len(np.unique(scene.views_of[objects == identity])) for identity in range(1, count + 1)],
    )


class _Scene:
    """The instances of all photos, and the voxels that they share.

    Attributes:
        numbers: (I,) the number of each instance in its photo.
        views_of: (I,) its view.
        areas: (I,) its part of the picture.
        images: by view, (H, W) the place of each pixel's instance among all, from 1 on; 0 for none.
        points: (P, 3) float32 centres of the voxels that most masks cover, world frame.
        seen: (P, N) the instance that each voxel projects into, from 1 on; 0 for none, -1 outside of the picture and in
            views without a mask.
    """

    def __init__(self, identities: Sequence[np.ndarray | None], views: Views, sphere: ObjectSphere | None) -> None:
        factor = min(1.0, IMAGE_SIZE / float(max(views.width.max(), views.height.max())))
        self.views = views.scaled(factor) if factor < 1 else views
        images = [
            None if image is None else resized_identities(np.asarray(image), *size)
            for image, size in zip(identities, self.views.sizes(), strict=True)
        ]
        masks = [None if image is None else image > 0 for image in images]
        self.sphere = find_object_sphere(self.views, masks, several=True) if sphere is None else sphere
        hull = vote_hull(self.views, masks, self.sphere, RESOLUTION, level=LEVEL)
        cells = np.argwhere(hull.probability >= 0.5)
        axis = voxel_centres(RESOLUTION).astype(np.float64)
        self.points = (axis[cells] * self.sphere.radius + self.sphere.centre).astype(np.float32)
        found = [(view, number) for view, image in enumerate(images) if image is not None for number in _numbers(image)]
        self.views_of, self.numbers = np.array(found, dtype=np.int64).reshape(-1, 2).T
        self.images = {view: self._instances(view, image) for view, image in enumerate(images) if image is not None}
        self.areas = np.array(
            [np.mean(self.images[view] == place) for place, view in enumerate(self.views_of, start=1)]
        )
        self.seen = np.stack([self._seen(view) for view in range(len(views))], axis=1)

    def _instances(self, view: int, image: np.ndarray) -> np.ndarray:
        places = np.zeros(256, np.int64)
        own = np.flatnonzero(self.views_of == view)
        places[self.numbers[own]] = own + 1
        return places[image]

    def _seen(self, view: int) -> np.ndarray:
        seen = np.full(len(self.points), -1)
        if view in self.images:
            image = self.images[view]
            uv, _ = self.views.project_one(view, self.points)
            with np.errstate(invalid="ignore"):
                inside = (uv >= 0).all(axis=1) & (uv < image.shape[::-1]).all(axis=1)
            column, row = uv[inside].astype(np.int64).T
            seen[inside] = image[row, column]
        return seen

    def grouped(self) -> np.ndarray:
        """(I,) the object of each instance, 1 to K, 0 for none, found by the space that instances share."""
        photos = np.unique(self.views_of)
        photos = photos[np.linspace(0, len(photos) - 1, min(len(photos), GROUPED_PHOTOS)).round().astype(np.int64)]
        chosen = np.flatnonzero(np.isin(self.views_of, photos))
        if len(chosen) < 2:
            return np.zeros_like(self.numbers)
        groups = np.zeros_like(self.numbers)
        groups[chosen] = fcluster(
            linkage(squareform(self._distances(chosen), checks=False), "average"), FARTHEST, "distance"
        )
        fewest = max(min(3, (len(photos) + 1) // 2), round(FEWEST_PHOTOS * len(photos)))
        sizes = np.bincount(groups)
        sizes[0] = 0
        large = np.flatnonzero(sizes >= fewest)
        large = large[np.argsort(-sizes[large], kind="stable")][:MAX_OBJECTS]
        places = np.zeros(len(sizes), np.int64)
        places[large] = np.arange(1, len(large) + 1)
        objects = places[groups]
        for _ in range(ROUNDS):
            objects = self._assigned(objects, int(objects.max(initial=0)))
            kept = np.bincount(objects)[1:] >= fewest
            objects = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])[objects]
        return self._assigned(objects, int(objects.max(initial=0)))

    def _distances(self, chosen: np.ndarray) -> np.ndarray:
        """(C, C) of some instances: 1 - the IoU of the voxels behind them, and more for those of one photo.

        Voxels outside of one of the two pictures do not count.
        """
        places = np.full(len(self.numbers) + 1, -1)
        places[chosen + 1] = np.arange(len(chosen))
        voxel, view = np.nonzero(self.seen > 0)
        column = places[self.seen[voxel, view]]
        voxel, column = voxel[column >= 0], column[column >= 0]
        cones = sparse.csr_matrix((np.ones(len(voxel), np.float32), (voxel, column)), (len(self.points), len(chosen)))
        views_of = self.views_of[chosen]
        common = (cones.T @ cones).toarray()
        visible = (cones.T @ (self.seen >= 0).astype(np.float32))[:, views_of]
        distance = 1 - common / np.maximum(visible + visible.T - common, 1)
        distance[views_of[:, None] == views_of] = 1 + SAME_PHOTO * len(np.unique(views_of))
        np.fill_diagonal(distance, 0)
        return distance

    def _assigned(self, objects: np.ndarray, count: int) -> np.ndarray:
        """(I,) each photo's instances, assigned anew to the objects (I,) whose projections they fit best together."""
        if count == 0:
            return np.zeros_like(objects)
        labels = self._voxel_labels(objects, count)
        overlap, behind = self._overlaps(labels, count), self._behind(labels, count)
        fit = overlap + WHERE_HIDDEN * behind
        fits = (overlap >= LEAST_OVERLAP) | (behind >= 0.5)
        found = np.zeros_like(objects)
        for view in np.unique(self.views_of):
            own = np.flatnonzero(self.views_of == view)
            rows, columns = linear_sum_assignment(-fit[own])
            found[own[rows]] = np.where(fits[own[rows], columns], columns + 1, 0)
        return found

    def corrected(self, given: np.ndarray, trusted: np.ndarray) -> np.ndarray:
        """(I,) the numbers, but for those of instances that are clearly another object's.

        Args:
            given: (I,) numbers.
            trusted: (I,) whether a number is that of most instances which it was grouped with.
        """
        count, every = int(given.max()), np.arange(len(given))
        alone = ~np.isin(given, given[trusted])  # in too few photos to make a group
        objects = np.where(trusted | alone, given, 0)
        for _ in range(ROUNDS):
            best = self._assigned(objects, count)
            overlap = self.overlaps(objects, count)
            own, other = overlap[every, given - 1], overlap[every, np.maximum(best, 1) - 1]
            objects = np.where((best > 0) & (other > CLEAR * own + LEAST_OVERLAP), best, given)
            objects = self._without_repetition(objects, best, given)
        return objects

    def _without_repetition(self, objects: np.ndarray, best: np.ndarray, given: np.ndarray) -> np.ndarray:
        """(I,) the objects; the best ones in photos in which two instances would be the same object.

        There, what fits no object keeps its number if no other instance takes it, and else becomes background.
        """
        result = objects.copy()
        for view in np.unique(self.views_of[objects != given]):
            own = np.flatnonzero(self.views_of == view)
            if len(np.unique(objects[own])) < len(own):
                free = np.where(np.isin(given[own], best[own]), 0, given[own])
                result[own] = np.where(best[own] > 0, best[own], free)
        return result

    def overlaps(self, objects: np.ndarray, count: int) -> np.ndarray:
        """(I, K) IoU of each instance with the projection of each object, as far as no other hides it.

        Args:
            objects: (I,) the object of each instance, 1 to K, 0 for none.
            count: K.
        """
        return self._overlaps(self._voxel_labels(objects, count), count)

    def _overlaps(self, labels: np.ndarray, count: int) -> np.ndarray:
        overlap = np.zeros((len(self.numbers), count))
        for view in np.unique(self.views_of):
            projected = self._projected(view, labels)
            instances = resized_identities(self.images[view], *projected.shape[::-1])
            own = np.flatnonzero(self.views_of == view)
            places = np.searchsorted(own + 1, instances)  # of an instance among the photo's own
            pairs = np.zeros((len(own) + 1, count + 1))
            np.add.at(pairs, (np.where(instances > 0, places + 1, 0), projected), 1)
            common = pairs[1:, 1:]
            either = pairs[1:].sum(axis=1)[:, None] + pairs[:, 1:].sum(axis=0) - common
            overlap[own] = common / np.maximum(either, 1)
        return overlap

    def _behind(self, labels: np.ndarray, count: int) -> np.ndarray:
        """(I, K) the share of each object in the labelled voxels behind each instance, whatever hides them."""
        voxels = np.zeros((len(self.numbers) + 1, count + 1))
        for seen in self.seen.T:
            np.add.at(voxels, (np.maximum(seen, 0), labels), 1)
        voxels = voxels[1:, 1:]
        return voxels / np.maximum(voxels.sum(axis=1, keepdims=True), 1)

    def _shares(self, objects: np.ndarray, identity: int) -> np.ndarray:
        """(P,) in which part of an object's photos each voxel is covered by it; other objects may hide it in some.

        Photos without the object do not count: it may have been missed there.
        """
        own = np.unique(self.views_of[objects == identity])
        seen = self.seen[:, own]
        covered = (np.concatenate([objects, [0, 0]])[seen - 1] == identity).sum(axis=1)
        empty, inside = (seen == 0).sum(axis=1), (seen >= 0).sum(axis=1)
        fitting = (covered >= OWN_LEVEL * (covered + empty)) & (covered > 0)
        return np.where(fitting, covered / np.maximum(inside, 1), 0)

    def _voxel_labels(self, objects: np.ndarray, count: int) -> np.ndarray:
        """(P,) the object whose photos show it best at each voxel, 1 to K; 0 where none do."""
        shares = np.stack([self._shares(objects, identity) for identity in range(1, count + 1)], axis=1)
        return np.where(shares.max(axis=1) > LEAST_SHARE, shares.argmax(axis=1) + 1, 0)

    def _projected(self, view: int, labels: np.ndarray) -> np.ndarray:
        """(h, w) the label of the nearest voxel at each pixel, 0 for none; a pixel is about as large as a voxel."""
        height, width = self.images[view].shape
        shrink = max(1.0, 1.2 * voxel_footprint(self.views, view, self.sphere, RESOLUTION))
        size = max(1, round(height / shrink)), max(1, round(width / shrink))
        uv, depth = self.views.project_one(view, self.points)
        with np.errstate(invalid="ignore"):
            row, column = np.floor(uv[:, 1] * size[0] / height), np.floor(uv[:, 0] * size[1] / width)
            shown = (row >= 0) & (column >= 0) & (row < size[0]) & (column < size[1]) & (labels > 0)
        far_first = np.flatnonzero(shown)[np.argsort(-depth[shown], kind="stable")]
        image = np.zeros(size, np.int64)
        image[row[far_first].astype(np.int64), column[far_first].astype(np.int64)] = labels[far_first]  # nearest last
        holes = (image == 0) & ndimage.binary_closing(image > 0, np.ones((3, 3)))
        return np.where(holes, ndimage.maximum_filter(image, 3), image)

    def confidences(self, objects: np.ndarray, count: int) -> np.ndarray:
        """(I,) of each instance: 1 - the second largest IoU over that with its own object; 0 if it has none."""
        if count == 0:
            return np.zeros(len(objects))
        overlap = self.overlaps(objects, count)
        every, own_place = np.arange(len(objects)), np.maximum(objects, 1) - 1
        own = np.where(objects > 0, overlap[every, own_place], 0)
        overlap[every, own_place] = 0
        return np.clip(1 - overlap.max(axis=1) / np.maximum(own, 1e-9), 0, 1) * (own > 0)

    def same_things(self, objects: np.ndarray, count: int) -> list[tuple[int, int]]:
        """Pairs of objects whose hulls, each voted by its own photos alone, overlap by more than `SAME_THING`."""
        hulls = [self._shares(objects, identity) >= LEVEL for identity in range(1, count + 1)]
        pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
        return [
            (first + 1, second + 1)
            for first, second in pairs
            if (hulls[first] & hulls[second]).sum() > SAME_THING * max((hulls[first] | hulls[second]).sum(), 1)
        ]

    def renumbered(
        self, identities: Sequence[np.ndarray | None], objects: np.ndarray, keep_others: bool
    ) -> list[np.ndarray | None]:
        """The images, with the object's identity in place of each instance's number.

        Args:
            identities: N images as they came, at full size.
            objects: (I,) the object of each instance.
            keep_others: whether numbers stay that are too small to be looked at; they become background else.
        """
        result: list[np.ndarray | None] = []
        for view, image in enumerate(identities):
            own = self.views_of == view
            table = np.arange(256, dtype=np.uint8) if keep_others else np.zeros(256, np.uint8)
            table[self.numbers[own]] = objects[own]
            result.append(None if image is None else table[image])
        return result


def _numbers(image: np.ndarray) -> list[int]:
    return [int(number) for number in np.flatnonzero(np.bincount(image.ravel())) if number > 0]


def _by_number(groups: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(K,) the number that most instances of each group have, each number once; 0 for groups that are left over."""
    count, highest = int(groups.max(initial=0)), int(given.max())
    table = np.zeros((count, max(highest, count)))
    np.add.at(table, (groups[groups > 0] - 1, given[groups > 0] - 1), 1)
    numbers = linear_sum_assignment(-table)[1] + 1
    return np.where(numbers <= highest, numbers, 0)


def _by_size(groups: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(K,) the place of each group, from 1 on, by its part of all pictures, the largest first."""
    total = np.bincount(groups, areas)[1:]
    return np.argsort(np.argsort(-total, kind="stable"), kind="stable") + 1
