"""Finds photos that disagree with all others, at the end of a run, by the errors of their rendered colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from surface_sos_ns.capture.names import listed
from surface_sos_ns.plugin.view_rendering import ray_times

if TYPE_CHECKING:
    from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager
    from surface_sos_ns.plugin.model import SurfaceSOSModel

__all__ = ["disagreeing_photos", "photo_errors", "photos_remark"]

PIXELS = 256
"""Pixels of each photo that are looked at."""
LARGEST_RATIO = 5.0
"""Mean squared error of a photo over the median of all from which on it disagrees ..."""
LARGEST_DEVIATION = 4.0
"""... if its logarithm is also as many standard deviations (1.4826 MAD) above the median of the logarithms."""


@torch.no_grad()
def photo_errors(model: SurfaceSOSModel, data: SurfaceSOSDataManager) -> np.ndarray:
    """(V,) mean squared error of the training photos' colours, each at its own exposure and light.

    Args:
        model: trained.
        data: of the same run.
    """
    cache, scene = data.train_cache, model.scene
    generator = torch.Generator().manual_seed(0)  # not the global one, whose state belongs to the run
    starts, valid = cache.starts.cpu(), None if cache.valid is None else cache.valid.cpu().long()
    training = scene.training
    scene.eval()
    errors = []
    try:
        for view in range(len(cache)):
            first, end = int(starts[view]), int(starts[view + 1])
            positions = torch.arange(first, end) if valid is None else _between(valid, first, end)
            if not len(positions):
                errors.append(np.nan)
                continue
            drawn = positions[torch.randint(len(positions), (PIXELS,), generator=generator)]
            batch = cache.gather(drawn.to(cache.images.device))
            rays = data.train_ray_generator(batch["indices"]).to(model.device)
            origins, directions = scene.frame.rays(rays.origins, rays.directions)
            own = torch.full((PIXELS,), view, device=model.device)
            rgb = scene.render(origins, directions, own, plate=False, time=ray_times(scene, rays)).rgb
            errors.append(float((rgb - batch["image"][..., :3].to(rgb)).square().mean()))
    finally:
        scene.train(training)
    return np.array(errors)


def _between(positions: torch.Tensor, first: int, end: int) -> torch.Tensor:
    """Those of ascending positions (P,) that are at least `first` and below `end`."""
    low, high = torch.searchsorted(positions, torch.tensor([first, end]))
    return positions[low:high]


def disagreeing_photos(errors: np.ndarray) -> np.ndarray:
    """Indices of the photos that are far worse than most, the worst first.

    Args:
        errors: (V,) mean squared errors; nan where not known.
    """
    known = np.isfinite(errors) & (errors > 0)
    if known.sum() < 5:
        return np.zeros(0, np.int64)
    logs = np.log(np.where(known, errors, 1.0))
    middle = float(np.median(logs[known]))
    spread = 1.4826 * float(np.median(np.abs(logs[known] - middle)))
    above = np.where(known, logs - middle, -np.inf)
    found = np.flatnonzero((above > np.log(LARGEST_RATIO)) & (above > LARGEST_DEVIATION * spread))
    return found[np.argsort(-above[found], kind="stable")]


def photos_remark(names: Sequence[str], errors: np.ndarray) -> str | None:
    """What to say of photos that disagree with all others; None where none does.

    Args:
        names: (V,) of the photos.
        errors: (V,) mean squared errors.
    """
    found = disagreeing_photos(errors)
    if not len(found):
        return None
    ratio = errors[found] / np.nanmedian(errors)
    shown = [f"{names[view]} ({times:.0f} times)" for view, times in zip(found, ratio, strict=True)]
    count = f"{len(found)} of {len(errors)} photos disagree" if len(found) > 1 else "a photo disagrees"
    return (
        f"{count} with all others, by the error of their colours over that of most: {listed(shown)}. "
        "A wrong pose, another season or something in front of the object looks like this. Look at them, and leave "
        "them out if so."
    )
