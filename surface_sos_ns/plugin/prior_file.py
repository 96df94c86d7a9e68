"""The object prior in a run's folder: what training starts from, kept so that a resumed run starts from the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surface_sos_ns.plugin.console import warn
from surface_sos_ns.plugin.dataset import PixelCache, SurfaceSOSDataset
from surface_sos_ns.utils.files import write_text

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.views import Views

__all__ = ["PRIOR_FILE", "fingerprint_of", "load_prior", "read_prior", "save_prior"]

PRIOR_FILE = "object_prior.npz"
PRIOR_VERSION = 7
"""Raised when the object prior of the same photos would come out differently."""


def fingerprint_of(dataset: SurfaceSOSDataset, cache: PixelCache, views: Views, image_size: int, repair: bool) -> str:
    """Digest of everything that the prior depends on.

    Args:
        dataset: the training photos.
        cache: of the same photos and the capture's masks.
        views: of the same photos, world frame.
        image_size: longer side, in pixels, of the photos from which the object is found.
        repair: whether masks are repaired.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((PRIOR_VERSION, image_size, repair)).encode())
    for tensor in (cache.images, cache.masks, cache.mask_weights):
        digest.update(b"none" if tensor is None else tensor.cpu().numpy().reshape(-1).data)
    if cache.identities is not None:
        digest.update(repr(dataset.metadata["object_names"]).encode())
        digest.update(cache.identities.cpu().numpy().data)
    for name in sorted(vars(views)):
        # Poses come from a matrix decomposition, whose last bits differ between machines.
        digest.update(np.round(np.asarray(getattr(views, name), dtype=np.float64), 4).tobytes())
    for points in dataset.metadata["points_files"]:
        for file in points.contents:
            digest.update(file.read_bytes())
    digest.update(repr(dataset.metadata.get("object_hint")).encode())
    return digest.hexdigest()


def read_prior(path: Path) -> ObjectPrior | None:
    """What a run started from that keeps it at `path`; None where there is no such file.

    Raises:
        CaptureError: the file is damaged.
    """
    if not path.is_file():
        return None
    from surface_sos_ns.capture.object_prior import ObjectPrior

    return ObjectPrior.load(path)


def load_prior(path: Path, fingerprint: str) -> ObjectPrior | None:
    """The prior at `path` if it is of the inputs with this fingerprint and whole; a damaged one is warned about."""
    mark = _fingerprint_file(path)
    if not path.is_file() or not mark.is_file() or mark.read_bytes() != fingerprint.encode():
        return None
    try:
        return read_prior(path)
    except (OSError, ValueError) as error:
        warn(str(error))
        return None


def save_prior(prior: ObjectPrior, path: Path, fingerprint: str) -> ObjectPrior:
    """Write the prior, then its fingerprint: a crash in between leaves a prior that is not used.

    Returns:
        The prior as it was written, rounded to the file's precision: a resumed run reads the same values.

    Raises:
        WriteError: it cannot be written. A training that cannot keep what it starts from could not be resumed.
    """
    _fingerprint_file(path).unlink(missing_ok=True)
    prior.save(path)
    write_text(_fingerprint_file(path), fingerprint)
    return prior.load(path)


def _fingerprint_file(path: Path) -> Path:
    """The file that says of which inputs the prior at `path` is."""
    return path.with_suffix(".fingerprint")
