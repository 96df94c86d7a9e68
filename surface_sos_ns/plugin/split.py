"""Which photos are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nerfstudio.data.utils import dataparsers_utils

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import find_photos, listed, similar_names

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    from surface_sos_ns.capture.transforms import Transforms

__all__ = ["choose_split", "few_photos_warning"]

SPLITS = ("train", "val", "test")
FEWEST_TO_HOLD_OUT = 10
"""Photos from which on a tenth can be held out."""
FEWEST_FOR_SHAPE = 8
"""Photos to train on; with fewer, `few_photos_warning` says that they do not determine the object's shape."""


def choose_split(
    capture: Transforms, photos: Sequence[Path], config: NerfstudioDataParserConfig, has_truth: bool
) -> tuple[dict[str, list[int]], str]:
    """The frames of each split, and words for the console.

    Args:
        capture: N frames.
        photos: N files; their sorted order is that in which nerfstudio counts photos.
        config: its `eval_mode`, which may be "auto" as well, and what belongs to it.
        has_truth: whether there is something to score with.

    Returns:
        Under train, val and test indices of frames in the order of the sorted photos; and words.

    Raises:
        CaptureError: a list names a photo that there is not, or the mode leaves a split without photos.
    """
    order = np.argsort(photos)  # type: ignore[arg-type]  # paths have an order
    if config.eval_mode != "auto":
        ignored = ", the capture's own lists are ignored" if any(capture.splits.values()) else ""
        words = f"split by --eval-mode {config.eval_mode}{ignored}"
        trained, held = _by_mode(config.eval_mode, [photos[index] for index in order], config)
    elif any(capture.splits.values()):
        lists = _lists(capture)
        counts = {split: len(members) for split, members in lists.items()}
        return (
            {split: [int(index) for index in order if index in members] for split, members in lists.items()},
            f"{counts['train']} for training, {counts['test']} for testing, as listed",
        )
    elif has_truth and len(photos) >= FEWEST_TO_HOLD_OUT:
        trained, held = _by_mode("fraction", photos, config)
        words = f"{len(trained)} for training, the rest held out"
    else:
        trained = held = np.arange(len(photos))
        why = "fewer than ten" if has_truth else "no truth and no split given"
        words = f"all for training, none held out: {why}"
    for split, members in (("train", trained), ("test", held)):
        if len(members) == 0:
            raise CaptureError(
                f"{capture.source}: no photo is left for the split '{split}' ({words}). "
                "Use --eval-mode all, or hold out fewer or more."
            )
    held_out = order[held].tolist()
    return {"train": order[trained].tolist(), "val": held_out, "test": held_out}, words


def few_photos_warning(count: int) -> str | None:
    """What to expect of a training with so many photos; None where there are enough."""
    if count >= FEWEST_FOR_SHAPE:
        return None
    return (
        f"there are {count} photos to train on, which cannot tell the object's shape: the masks of these photos may "
        "come out, views between them and the mesh will not. Take 30 to 100, from all around."
    )


def _by_mode(mode: str, photos: Sequence[Path], config: NerfstudioDataParserConfig) -> tuple[np.ndarray, np.ndarray]:
    """nerfstudio's ways of dividing sorted photos: places of those trained on and of those held out."""
    names: Any = list(photos)
    if mode == "fraction":
        if not 0 < config.train_split_fraction <= 1:
            raise CaptureError(f"--train-split-fraction is {config.train_split_fraction}; expected over 0, up to 1.")
        return dataparsers_utils.get_train_eval_split_fraction(names, config.train_split_fraction)
    if mode == "interval":
        if config.eval_interval < 2:
            raise CaptureError(f"--eval-interval is {config.eval_interval}; expected at least 2.")
        return dataparsers_utils.get_train_eval_split_interval(names, config.eval_interval)
    if mode == "filename":
        unclear = [photo.name for photo in photos if "train" not in photo.name and "eval" not in photo.name]
        if unclear:
            raise CaptureError(
                f"--eval-mode filename wants 'train' or 'eval' in each photo's name; {listed(unclear)} have neither. "
                "Rename them, or use another mode."
            )
        return dataparsers_utils.get_train_eval_split_filename(names)
    return dataparsers_utils.get_train_eval_split_all(names)


def _lists(capture: Transforms) -> dict[str, set[int]]:
    """The capture's lists as frames; those that are not there follow from the others."""
    lists: dict[str, set[int]] = {}
    for split, names in capture.splits.items():
        found = find_photos(names, capture.file_paths, str(capture.folder))
        unknown = [name for name, photos in zip(names, found, strict=True) if len(photos) != 1]
        if unknown:
            near = similar_names(unknown[0], capture.file_paths)
            raise CaptureError(
                f"{capture.source}: {split}_filenames lists photos that no frame has, or several: {listed(unknown)}. "
                + (f"There is {listed(near)}. " if near else "")
                + "Correct the names; they must equal file_path."
            )
        if names:
            lists[split] = {photos[0] for photos in found}
    everything = set(range(len(capture)))
    if "train" not in lists:
        lists["train"] = everything - lists.get("val", set()) - lists.get("test", set()) or everything
    rest = everything - lists["train"] or lists["train"]
    lists.setdefault("val", lists.get("test", rest))
    lists.setdefault("test", lists["val"])
    return lists
