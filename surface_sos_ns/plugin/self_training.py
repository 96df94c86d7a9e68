"""Self-training: during a run, the object's rendered mattes replace the coarse masks that differ from them.

After a part of the run the mattes agree with each other and with the photos better than masks that are incomplete,
blurred or missing, and the rest of the run learns from them. This removes errors of single masks; what most masks miss
stays missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from nerfstudio.cameras.cameras import Cameras

from surface_sos_ns.capture.identity_files import resized_identities
from surface_sos_ns.plugin.outputs import OBJECT_IDENTITIES
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import write_arrays
from surface_sos_ns.utils.image_io import resized
from surface_sos_ns.utils.overlap import intersection_over_union

if TYPE_CHECKING:
    from surface_sos_ns.plugin.dataset import PixelCache
    from surface_sos_ns.plugin.model import SurfaceSOSModel

MASK_FILES = "own_masks"
"""How the names of the files begin that keep the new masks; a number and .npz follow."""
MATTE_SIDE = 240
"""Longer side of the rendered mattes in pixels, at most. The photos fix where an outline is, so larger ones led to the
same masks in twice the time."""
LEAST_IOU = 0.9
"""IoU with its matte from which on a mask stays: it may be better than the matte of an unfinished run."""


class Mask(NamedTuple):
    """A mask of a view."""

    alpha: np.ndarray  # (H, W) float32 in 0..1, of all objects together
    identity: np.ndarray | None = None  # (H, W) uint8, which of several objects it is, 0 for none; None with one


class SelfTraining:
    """Replaces masks in a run's training batches by mattes of the run's own model, and remembers which.

    Args:
        cache: of the training photos and their masks.
        cameras: (V,) of the same photos, world frame.
        folder: of the run; the new masks are kept there, so that a resumed run learns from the same ones.
        given: whether the masks came with the capture. Those that were found before training are replaced in any case.
    """

    def __init__(self, cache: PixelCache, cameras: Cameras, folder: Path, given: bool = True):
        self.cache, self.cameras, self.folder = cache, cameras, folder
        self._replaced = set[int]() if given else set(range(len(cache)))  # views whose mask is not the capture's
        self._all_agree = False  # all masks agreed with their mattes once: there is nothing to gain

    def refresh(self, model: SurfaceSOSModel, number: int, say: Callable[[str], None]) -> None:
        """Render the training views' mattes, take over those that differ from their masks, and say how many.

        Args:
            model: as trained so far.
            number: of this refresh in the run, from 1.
            say: told one sentence.

        Raises:
            WriteError: the new masks cannot be written.
        """
        if self._all_agree:
            return
        started = time.monotonic()
        mattes = [self._matte(model, view) for view in range(len(self.cache))]
        masks = choose_masks((self._given(view) for view in range(len(self.cache))), mattes)
        replaced = self._install(model, masks)
        if replaced or number == 1:
            save_masks(self._path(number), masks)
        say(
            f"masks: {replaced or 'none'} of {len(masks)} replaced by the object's own mattes, which they differ from "
            f"({time.monotonic() - started:.0f} s)"
        )

    def restore(self, model: SurfaceSOSModel, number: int) -> None:
        """Take over what the `number`-th refresh did, in a run that is resumed.

        Raises:
            UserError: its file is missing or damaged; the message says what to do.
        """
        # A refresh that changed nothing wrote no file, but for the first.
        newest = next((n for n in range(number, 1, -1) if self._path(n).exists()), 1)
        self._install(model, load_masks(self._path(newest), len(self.cache)), resumed=True)

    def keep_given(self, number: int) -> None:
        """Leave all masks as they are, and note that as what the `number`-th refresh did, for a run that is resumed.

        Raises:
            WriteError: it cannot be noted.
        """
        save_masks(self._path(number), [None] * len(self.cache))

    def _given(self, view: int) -> Mask | None:
        """The mask of a view that the run was started from; None where it has none any more."""
        mask = None if view in self._replaced else self.cache.mask(view)
        return None if mask is None else Mask(mask, self.cache.identity(view))

    def _matte(self, model: SurfaceSOSModel, view: int) -> Mask:
        """Of a training view, `MATTE_SIDE` at most, as precise as the file that a resumed run reads."""
        camera = self.cameras[view : view + 1]
        side = float(max(camera.width.max(), camera.height.max()))
        if side > MATTE_SIDE:
            camera.rescale_output_resolution(MATTE_SIDE / side)
        names = ["alpha", OBJECT_IDENTITIES] if model.object_names else ["alpha"]
        images = model.images(camera, names, smooth_edges=False)
        values = np.rint(images["alpha"][..., 0].cpu().numpy() * 255).astype(np.uint8)
        if not model.object_names:
            return Mask(values.astype(np.float32) / 255)
        return Mask(values.astype(np.float32) / 255, images[OBJECT_IDENTITIES][..., 0].cpu().numpy().astype(np.uint8))

    def _path(self, number: int) -> Path:
        return self.folder / f"{MASK_FILES}_{number}.npz"

    def _install(self, model: SurfaceSOSModel, masks: Sequence[Mask | None], resumed: bool = False) -> int:
        replaced = {view: mask for view, mask in enumerate(masks) if mask is not None}
        views = list(replaced)
        self._replaced |= set(views)
        self._all_agree = not self._replaced
        for view, mask in replaced.items():
            self.cache.set_mask(view, mask.alpha, mask.identity)
        if not resumed:  # else the checkpoint has the learned reliability of the new masks
            model.scene.reliability.forget(views)
        return len(views)


def choose_masks(given: Iterable[Mask | None], mattes: Sequence[Mask]) -> list[Mask | None]:
    """The mattes that take the place of masks; None where the mask stays: where every object agrees with its matte.

    Args:
        given: of any size, as the run was started from; None where a view has none any more.
        mattes: of the run's own model.
    """
    if not any((matte.alpha >= 0.5).any() for matte in mattes):
        return [None] * len(mattes)  # no matte shows the object: only the given masks can restore it
    return [
        None if mask is not None and _least_iou(mask, matte) >= LEAST_IOU else matte
        for mask, matte in zip(given, mattes, strict=True)
    ]


def _least_iou(mask: Mask, matte: Mask) -> float:
    """IoU of a mask and a matte; with several objects the least of those that either shows."""
    solid = matte.alpha >= 0.5
    height, width = solid.shape
    given = resized(mask.alpha, width, height) >= 0.5
    if mask.identity is None or matte.identity is None:
        return intersection_over_union(given, solid)
    named = resized_identities(mask.identity, width, height) * given
    own = matte.identity * solid
    shown = np.union1d(named, own)
    return min((intersection_over_union(named == k, own == k) for k in shown[shown > 0]), default=1.0)


def save_masks(path: Path, masks: Sequence[Mask | None]) -> None:
    """Writes masks as an .npz, alpha in 8 bits.

    Raises:
        WriteError: it cannot be written.
    """
    there = {view: mask for view, mask in enumerate(masks) if mask is not None}
    arrays = {str(view): np.rint(mask.alpha * 255).astype(np.uint8) for view, mask in there.items()}
    arrays |= {f"identity_{view}": mask.identity for view, mask in there.items() if mask.identity is not None}
    write_arrays(path, views=np.array(len(masks)), **arrays)


def load_masks(path: Path, count: int) -> list[Mask | None]:
    """Reads what `save_masks` wrote.

    Args:
        path: the file.
        count: of the masks that there must be, None among them.

    Raises:
        UserError: the file is missing or damaged; the message says what to do.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        if int(found["views"]) != count:
            raise ValueError(f"it is of {int(found['views'])} photos, expected {count}")
        views = [(found.get(str(view)), found.get(f"identity_{view}")) for view in range(count)]
        there = [image for pair in views for image in pair if image is not None]
        strange = [image for image in there if image.ndim != 2 or image.dtype != np.uint8]
        if strange:
            raise ValueError(f"a mask has the shape {strange[0].shape} and the type {strange[0].dtype}")
    except Exception as error:  # zip, key and file errors all mean the same to the reader of the message
        raise UserError(
            f"{path}, the masks that the resumed run had made for itself, cannot be read ({error}). Put the file back "
            "from that run's folder, or train anew."
        ) from error
    return [None if mask is None else Mask(mask.astype(np.float32) / 255, identity) for mask, identity in views]
