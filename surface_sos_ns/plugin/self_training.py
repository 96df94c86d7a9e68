"""Self-training: during a run, the object's rendered mattes replace the coarse masks that differ from them.

After a part of the run the mattes agree with each other and with the photos better than masks that are bitten, blurred
or missing, and the rest of the run learns from them. This removes errors of single masks; what most masks miss stays
missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nerfstudio.cameras.cameras import Cameras

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
            number: how-manieth refresh of the run this is, from 1.
            say: told one sentence.

        Raises:
            WriteError: the new masks cannot be written.
        """
        if self._all_agree:
            return
        started = time.monotonic()
        mattes = [self._matte(model, view) for view in range(len(self.cache))]
        given = (None if view in self._replaced else self.cache.mask(view) for view in range(len(self.cache)))
        masks = choose_masks(given, mattes)
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

    def _matte(self, model: SurfaceSOSModel, view: int) -> np.ndarray:
        """(H, W) float32 of a training view, `MATTE_SIDE` at most, as precise as the file that a resumed run reads."""
        camera = self.cameras[view : view + 1]
        side = float(max(camera.width.max(), camera.height.max()))
        if side > MATTE_SIDE:
            camera.rescale_output_resolution(MATTE_SIDE / side)
        alpha = model.images(camera, ["alpha"], smooth_edges=False)["alpha"][..., 0].cpu().numpy()
        return np.rint(alpha * 255).astype(np.uint8).astype(np.float32) / 255

    def _path(self, number: int) -> Path:
        return self.folder / f"{MASK_FILES}_{number}.npz"

    def _install(self, model: SurfaceSOSModel, masks: Sequence[np.ndarray | None], resumed: bool = False) -> int:
        views = [view for view, mask in enumerate(masks) if mask is not None]
        self._replaced |= set(views)
        self._all_agree = not self._replaced
        for view in views:
            self.cache.set_mask(view, np.asarray(masks[view]))
        if not resumed:  # else the checkpoint has what has been learned about the new masks since
            model.scene.reliability.forget(views)
        return len(views)


def choose_masks(given: Iterable[np.ndarray | None], mattes: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """The mattes that take the place of masks; None where the mask stays.

    Args:
        given: (H, W) in 0..1 of any size, as the run was started from; None where a view has none any more.
        mattes: (h, w) float32 in 0..1.
    """
    if not any((matte >= 0.5).any() for matte in mattes):
        return [None] * len(mattes)  # the object is lost: only the first masks can bring it back
    chosen: list[np.ndarray | None] = []
    for mask, matte in zip(given, mattes, strict=True):
        solid = matte >= 0.5
        if mask is not None:
            given_solid = resized(mask, solid.shape[1], solid.shape[0]) >= 0.5
            if intersection_over_union(given_solid, solid) >= LEAST_IOU:
                chosen.append(None)
                continue
        chosen.append(matte)
    return chosen


def save_masks(path: Path, masks: Sequence[np.ndarray | None]) -> None:
    """Writes masks (H, W) in 0..1 as an .npz, in 8 bits.

    Raises:
        WriteError: it cannot be written.
    """
    numbers = {str(view): np.rint(mask * 255).astype(np.uint8) for view, mask in enumerate(masks) if mask is not None}
    write_arrays(path, views=np.array(len(masks)), **numbers)


def load_masks(path: Path, count: int) -> list[np.ndarray | None]:
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
        views = [found.get(str(view)) for view in range(count)]
        strange = [mask for mask in views if mask is not None and (mask.ndim != 2 or mask.dtype != np.uint8)]
        if strange:
            raise ValueError(f"a mask has the shape {strange[0].shape} and the type {strange[0].dtype}")
    except Exception as error:  # zip, key and file errors all mean the same to the reader of the message
        raise UserError(
            f"{path}, the masks that the resumed run had made for itself, cannot be read ({error}). Put the file back "
            "from that run's folder, or train anew."
        ) from error
    return [None if mask is None else mask.astype(np.float32) / 255 for mask in views]
