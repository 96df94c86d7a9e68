"""Coarse masks that exist already: a folder of image files, or a video, however they are named and coded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from surface_sos_ns.capture.checks import CaptureError, border_and_centre
from surface_sos_ns.capture.lookup import image_files
from surface_sos_ns.capture.mask_files import MAX_LABELS, MaskLayer, label_indices, label_shares, read_layer
from surface_sos_ns.capture.names import IMAGE_SUFFIXES, listed, natural_order
from surface_sos_ns.capture.object_matching import match_objects
from surface_sos_ns.capture.object_names import default_object_names
from surface_sos_ns.masks.folder_objects import (
    AnyObject,
    ObjectLabels,
    folders_of_objects,
    number_objects,
    read_object_labels,
)
from surface_sos_ns.masks.identity_images import merge_objects
from surface_sos_ns.masks.names import Matches, by_name, by_order
from surface_sos_ns.masks.object_choice import check_agree
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos, Progress

__all__ = ["Folder"]

PROPORTIONS = 0.01
"""Largest relative difference of width over height at which a mask counts as the photo's, of another size."""


class _Decoded(Sequence[np.ndarray | None]):
    """Masks (h, w) float32 in [0, 1] that are decoded when they are asked for."""

    def __init__(self, layers: Sequence[MaskLayer | None], decode: Callable[[MaskLayer], np.ndarray]) -> None:
        self._layers, self._decode = layers, decode

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        layer = self._layers[index]
        if isinstance(layer, Sequence):
            return _Decoded(layer, self._decode)
        return None if layer is None else self._decode(layer).astype(np.float32)


class Folder(MaskProvider):
    """Masks from files.

    Read are 8- and 16-bit grey files, 0/1 and 1-bit files, alpha channels, palettes, colours, and instance ids of
    which some are chosen. Every file is read and checked before any mask is returned.

    Args:
        source: a folder (searched with its subfolders), or a video file: frame i belongs to photo i.
        instance: ids of the object where files hold ids of several; a colour's id is 65536 R + 256 G + B.
        invert: the object is black.
        by_order: match files and photos by their sorted names.
        objects: how many objects the masks show, 0 for as many as there are; None for one object, unless there are
            names. See `folder_objects`.
        names: of several objects, in the order of their numbers; or those of folders that hold an object each.

    Raises:
        MaskError: no source is named, or options do not go together.
        CaptureError: a name cannot be an object's.
    """

    name: ClassVar[str] = "folder"
    labels: ClassVar[str] = "those of whoever made the masks"

    def __init__(
        self,
        source: Path | None = None,
        instance: Sequence[int] = (),
        invert: bool = False,
        by_order: bool = False,
        objects: int | None = None,
        names: Sequence[str] = (),
    ) -> None:
        if source is None:
            raise MaskError("--method folder needs --source, a folder of masks or a video.")
        self.several = objects is not None or len(names) > 0
        if self.several and instance:
            raise MaskError("--instance makes one object out of ids, --objects takes each as its own; leave one out.")
        self.objects = objects or 0
        self.names = check_agree(objects, names)
        self.source = source
        self.instance = tuple(instance)
        self.invert = invert
        self.by_order = by_order

    def check(self) -> None:
        """See :meth:`MaskProvider.check`."""
        if not self.source.exists():
            raise MaskError(f"{self.source} does not exist; --source takes a folder of masks or a video.")
        if self.source.is_dir() and not image_files(self.source):
            raise MaskError(f"{self.source} has no image file in it ({', '.join(sorted(IMAGE_SUFFIXES))}).")

    def masks(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """See :meth:`MaskProvider.masks`."""
        if self.several:
            return self._objects(photos, progress)
        if self.source.is_dir():
            files = image_files(self.source)
            matches = self._matches(photos, files)
            wanted = sorted(index for index in matches.files if index is not None)
            progress(f"reading {len(wanted)} masks from {self.source}")
            layers = {index: _read(self.source / files[index], files[index]) for index in wanted}
            unused = [path for index, path in enumerate(files) if index not in layers]
        else:
            progress(f"reading {self.source}")
            frames = list(_frames(self.source))
            matches = by_order(photos.files, len(frames), range(len(frames)), f"frames in {self.source}")
            layers, unused = dict(enumerate(frames)), []
        decode = self._decoder(layers.values())
        _check_proportions(photos, matches, layers)
        masks = _Decoded([None if index is None else layers[index] for index in matches.files], decode)
        confidence = np.array([0.0 if mask is None else 1.0 for mask in masks])
        return CoarseMasks(masks, confidence, self._remarks(photos, masks, matches, unused))

    def _objects(self, photos: Photos, progress: Progress) -> CoarseMasks:
        """Masks of several objects."""
        if not self.source.is_dir():
            raise MaskError(f"{self.source} is a video, which has no numbers for objects; --objects needs a folder.")
        files = image_files(self.source)
        folders = folders_of_objects(files, photos.files, self.names)
        if folders:
            return self._folder_for_each(photos, folders, progress)
        if self.invert:
            raise MaskError("--invert is for masks of one object; the masks of --objects are black where none is.")
        matches = self._matches(photos, files)
        wanted = sorted(index for index in matches.files if index is not None)
        progress(f"reading {len(wanted)} masks of several objects from {self.source}")
        labels = {index: read_object_labels(self.source / files[index], files[index]) for index in wanted}
        _check_proportions(photos, matches, labels)
        by_file, names, line = number_objects(labels, self.names, self.objects, self.source)
        identities = [None if index is None else by_file[index] for index in matches.files]
        identities, names, further = self._matched(identities, names, photos, progress)
        masks = AnyObject(identities)
        confidence = np.array([0.0 if one is None else 1.0 for one in identities])
        unused = [path for index, path in enumerate(files) if index not in labels]
        remarks = [*self._remarks(photos, masks, matches, unused), *(further or [line])]
        return CoarseMasks(masks, confidence, remarks, identities, names)

    def _matched(
        self, identities: list[np.ndarray | None], names: tuple[str, ...], photos: Photos, progress: Progress
    ) -> tuple[list[np.ndarray | None], tuple[str, ...], list[str]]:
        """Identities and names of objects whose numbers mean something else in every photo; else what came in.

        Returns:
            identities, names, and remarks; none where numbers mean the same everywhere.

        Raises:
            MaskError: they show another number of objects than there are names, or than the user says.
        """
        try:
            match = match_objects(identities, photos.views, keep_names=bool(self.names), progress=progress)
        except CaptureError as error:
            return identities, names, [f"whether numbers mean the same in all photos cannot be told: {error}"]
        if not match.renumbered:
            return identities, names, []  # single photos are corrected when a training starts
        remarks = match.remarks([path.name for path in photos.files])
        given = len(self.names) or self.objects
        if given and given != match.count:
            raise MaskError(f"{self.source}: {remarks[0]}; expected {given}. Leave --names and --objects' number out.")
        return match.identities, self.names or default_object_names(match.count), remarks

    def _folder_for_each(self, photos: Photos, folders: Sequence[str], progress: Progress) -> CoarseMasks:
        """Masks of several objects, each in a folder that has its name."""
        if self.objects and self.objects != len(folders):
            raise MaskError(f"--objects says {self.objects}, and {self.source} has {len(folders)} folders.")
        each, lines = [], []
        for name in folders:
            one = Folder(self.source / name, invert=self.invert, by_order=self.by_order).masks(photos, progress)
            each.append(one.masks)
            lines += [f"{name}: {remark}" for remark in one.remarks]
        identities: list[np.ndarray | None] = []
        for of_photo in zip(*each, strict=True):
            identities.append(merge_objects(of_photo)[1])
        confidence = np.array([0.0 if one is None else 1.0 for one in identities])
        return CoarseMasks(AnyObject(identities), confidence, lines, identities, tuple(self.names or folders))

    def _matches(self, photos: Photos, files: Sequence[str]) -> Matches:
        if self.by_order:
            return by_order(photos.files, len(files), natural_order(files), f"image files in {self.source}")
        return by_name(photos.files, files, self.source)

    def _decoder(self, layers: Collection[MaskLayer]) -> Callable[[MaskLayer], np.ndarray]:
        """What turns a layer into a mask; the same for all of them."""
        shares: Counter[int] = Counter()
        for layer in layers:
            shares.update(layer.counts())
        pixels = sum(layer.values.size for layer in layers)
        if self.instance:
            unknown = [value for value in self.instance if value not in shares]
            if unknown:
                raise MaskError(
                    f"--instance {' '.join(map(str, unknown))}: no mask in {self.source} has it; "
                    + (f"they hold {label_shares(shares, pixels)}." if shares else "they hold shades, not ids.")
                )
            chosen = lambda label: np.isin(label, self.instance)  # noqa: E731
        elif _several_objects(layers, shares):
            raise MaskError(
                f"The masks in {self.source} look like ids of several objects: {label_shares(shares, pixels)}. Choose "
                "what the object is made of, with --instance and one id or more."
            )
        else:
            chosen = lambda label: label > 0  # noqa: E731
        # Among files of shades, one of few values is of shades too: nothing was found there but some noise.
        shades = not self.instance and any(layer.labels is None for layer in layers)

        def decode(layer: MaskLayer) -> np.ndarray:
            if layer.labels is None or (shades and len(layer.labels) > 2):
                values = layer.values if layer.labels is None else layer.labels[layer.values]
                mask = np.clip(values.astype(np.float32) / np.float32(layer.white), 0, 1)
            else:
                mask = chosen(layer.labels).astype(np.float32)[layer.values]
            return 1 - mask if self.invert else mask

        return decode

    def _remarks(
        self, photos: Photos, masks: Sequence[np.ndarray | None], matches: Matches, unused: Sequence[str]
    ) -> list[str]:
        count = resized = 0
        covered, white, empty, without = [], [], [], []
        for path, mask, (width, height) in zip(photos.files, masks, photos.sizes, strict=True):
            if mask is None:
                without.append(path.name)
                continue
            count += 1
            resized += mask.shape != (height, width)
            covered.append(float(mask.mean()))
            if (mask >= 0.5).any():
                white.append(border_and_centre(mask)[0] > 0.5)
            else:
                empty.append(path.name)
        remarks = [
            f"{count} of {len(photos)} photos have a mask, matched {matches.how}; they cover "
            f"{np.median(covered):.1%} of a photo (median)"
            + (f"; {resized} were of another size" if resized else "")
            + ("; inverted" if self.invert else "")
        ]
        for some, words in ((empty, "masks are empty"), (without, "photos have no mask")):
            if some:
                remarks.append(f"{len(some)} {words}: {listed(some)}")
        if unused:
            remarks.append(f"{len(unused)} files belong to no photo: {listed(unused)}")
        if sum(white) > len(white) / 2:
            remarks.append(
                f"in {sum(white)} of {len(white)} masks most of the border is white; if the object is black, use "
                + ("no --invert" if self.invert else "--invert")
            )
        return remarks


def _read(path: Path, name: str) -> MaskLayer:
    """The layer of a file, its shades as labels where they may be that.

    Raises:
        ImageError: it is no image, or a photo.
    """
    layer = read_layer(path, name=name)
    labels = _labels(layer.values) if layer.labels is None and layer.exact else None
    return layer if labels is None else replace(layer, values=label_indices(layer.values, labels), labels=labels)


def _labels(values: np.ndarray) -> np.ndarray | None:
    """The different values (sorted) where they are labels: few, whole, and next to all of them in solid areas.

    Shades lie along outlines and fill no area; two values are labels in any case.
    """
    different = np.unique(values)
    if len(different) > MAX_LABELS or (different != np.rint(different)).any() or different[0] < 0:
        return None
    if len(different) > 2:
        corners = [values[row : values.shape[0] - 1 + row, column:][:, : values.shape[1] - 1] for row, column in GRID]
        solid = (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
        if len(np.unique(corners[0][solid])) <= len(different) / 2:
            return None
    return different


GRID = ((0, 0), (0, 1), (1, 0), (1, 1))


def _several_objects(layers: Collection[MaskLayer], shares: Counter[int]) -> bool:
    """Whether the layers hold ids of several objects, rather than one object's mask."""
    coded = [layer for layer in layers if layer.labels is not None]
    if len(coded) < len(layers):
        # Shades in some files: those with few values are of the same kind, unless it is most that have several.
        return sum(len(layer.counts()) > 2 for layer in coded) > len(layers) / 2
    # One value besides 0 is one object, whatever the value; 0/1 files among 0/255 files are the same thing.
    return len(set(shares) - {0}) > 1 and not (
        set(shares) <= {0, 1, 255} and all(len(layer.counts()) <= 2 for layer in coded)
    )


def _check_proportions(
    photos: Photos, matches: Matches, layers: Mapping[int, MaskLayer] | Mapping[int, ObjectLabels]
) -> None:
    wrong = []
    for (width, height), index in zip(photos.sizes, matches.files, strict=True):
        if index is None:
            continue
        tall, wide = layers[index].values.shape
        # A mask of a few pixels cannot have the proportions exactly.
        slack = max(PROPORTIONS, 1 / min(tall, wide))
        if abs((wide / tall) / (width / height) - 1) > slack:
            wrong.append(f"{layers[index].name} is {wide} x {tall}, its photo {width} x {height}")
    if wrong:
        raise MaskError(
            f"{len(wrong)} masks have other proportions than their photos: {listed(wrong, 3)}. Crop or turn them as "
            "the photos are."
        )


def _frames(path: Path) -> Iterator[MaskLayer]:
    """The frames of a video, grey.

    Raises:
        MaskError: it is no video, or is damaged.
    """
    import av

    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise MaskError(f"{path} has no picture in it; --source takes a folder of masks or a video.")
            for number, frame in enumerate(video.decode(video=0)):
                yield MaskLayer(f"frame {number} of {path.name}", frame.to_ndarray(format="gray"), 255)
    except (av.error.FFmpegError, OSError) as error:
        raise MaskError(
            f"{path} cannot be read as a video ({error}); --source takes a folder of masks or a video."
        ) from error
