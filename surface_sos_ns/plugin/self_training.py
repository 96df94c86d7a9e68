"""Amid a run, the object's own mattes take the place of the coarse masks that it was started from.

A third of a run makes, of masks that are bitten, blurred or missing, others that agree with each other and with the
photos. What follows learns from those. Errors of single masks are gone then; what most of them miss stays missing.
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

OWN_MASKS = "own_masks"
"""How the names of the files begin that keep them; a number and .npz follow."""
MATTE_SIDE = 240
"""Longer side of the mattes in pixels, at most. Where an outline is, the photos say: mattes of 0.6 times their size led
to the same masks in half of the time."""
AGREES = 0.9
"""IoU with its matte from which on a mask stays: it may be better than what a part of a run knows."""


class OwnMasks:
    """Replaces the masks of a run's training batches by what the run has made of them, and remembers which.

    Args:
        cache: of the training photos and their masks.
        cameras: of the same photos, world frame.
        directory: the run's folder, for a resumed run to learn from the same masks; None keeps nothing.
        given: whether the masks came with the capture; those that the run was started from otherwise are worth no more
            than their agreement with each other, and none stays.
    """

    def __init__(self, cache: PixelCache, cameras: Cameras, directory: Path | None, given: bool = True):
        self.cache, self.cameras, self.directory = cache, cameras, directory
        self._own = set[int]() if given else set(range(len(cache)))  # views whose masks are the run's own
        self._settled = False  # all masks agreed with their mattes: they are good ones, and there is nothing to gain

    def refresh(self, model: SurfaceSOSModel, number: int, say: Callable[[str], None]) -> None:
        """Take over the mattes of the object as it is, for the `number`-th time, and say so."""
        if self._settled:
            return
        started = time.monotonic()
        mattes = [self._matte(model, view) for view in range(len(self.cache))]
        given = (None if view in self._own else self.cache.mask(view) for view in range(len(self.cache)))
        masks = choose_masks(given, mattes)
        replaced = self._install(model, masks)
        if self.directory is not None and (replaced or number == 1):
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
        if self.directory is not None:
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
        assert self.directory is not None
        return self.directory / f"{OWN_MASKS}_{number}.npz"

    def _install(self, model: SurfaceSOSModel, masks: Sequence[np.ndarray | None], resumed: bool = False) -> int:
        views = [view for view, mask in enumerate(masks) if mask is not None]
        self._own |= set(views)
        self._settled = not self._own
        for view in views:
            self.cache.set_mask(view, np.asarray(masks[view]))
        if not resumed:  # a checkpoint knows what has been found out of them since
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
            here = resized(mask, solid.shape[1], solid.shape[0]) >= 0.5
            if intersection_over_union(here, solid) >= AGREES:
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
