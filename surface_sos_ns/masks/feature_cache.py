"""Features of photos on disk, so that they are computed once: a network takes seconds a photo on a CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.masks.features import FEATURES_VERSION, PatchFeatures, PhotoFeatures, normalised
from surface_sos_ns.masks.provider import Progress
from surface_sos_ns.utils.files import write_arrays

__all__ = ["cached_features"]


def cached_features(
    provider: PatchFeatures, images: Sequence[np.ndarray], folder: Path, progress: Progress | None = None
) -> list[PhotoFeatures]:
    """The features of photos; those that the folder has are read, the others are computed and kept there.

    There is one file a photo, which is written as soon as it is computed, so that what was interrupted goes on where it
    stopped. It is valid for the same pixels, weights and version of this code. The vectors of patches are kept in
    float16, 2 h w D bytes a photo: 1.8 MB for DINOv2-S on 56 x 42 patches, 0.3 MB for the descriptor. They are rounded
    so the first time as well: the result does not depend on what was kept. The folder is for one capture and one
    provider; with another one its files are replaced.

    Args:
        provider: what computes the features.
        images: N photos (H, W, 3) uint8 RGB.
        folder: where the files are; created if it is not there.
        progress: called with a line now and then, and with one if files are damaged or of other photos or weights.

    Returns:
        The features of the N photos.

    Raises:
        WriteError: a file cannot be written.
        MaskError: the provider cannot describe a photo.
    """
    say = progress or (lambda line: None)
    weights = provider.fingerprint()
    keys = [_fingerprint(weights, image) for image in images]
    files = [folder / f"{index:05d}.npz" for index in range(len(images))]
    found = [_read(file, key) for file, key in zip(files, keys, strict=True)]
    missing = [index for index, photo in enumerate(found) if photo is None]
    stale = sum(files[index].exists() for index in missing)
    if stale:
        say(
            f"features: {stale} of {len(files)} files in {folder} are damaged or of other photos or weights; "
            "they are computed again"
        )
    for count, index in enumerate(missing):
        if count % 10 == 0:
            say(f"features: {provider.name}, photo {count + 1} of {len(missing)}")
        photo = provider.describe([images[index]])[0]
        patches = photo.patches.astype(np.float16)
        write_arrays(
            files[index],
            fingerprint=np.array(keys[index]),
            patches=patches,
            whole=photo.whole,
            has_token=np.array(photo.has_token),
        )
        found[index] = _photo(patches, photo.whole, photo.has_token)
    return [photo for photo in found if photo is not None]


def _fingerprint(weights: str, image: np.ndarray) -> str:
    """Digest of all that the features of a photo depend on."""
    digest = hashlib.sha256(repr((FEATURES_VERSION, weights, image.shape, image.dtype.str)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _read(file: Path, fingerprint: str) -> PhotoFeatures | None:
    """What a file holds; None where it is missing, damaged, or of something else."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None
            return _photo(stored["patches"], stored["whole"], bool(stored["has_token"]))
    except Exception:  # numpy, zipfile and zlib raise many types for a damaged file; it is written again
        return None


def _photo(patches: np.ndarray, whole: np.ndarray, has_token: bool) -> PhotoFeatures:
    """The features, from vectors of patches that were rounded to float16."""
    return PhotoFeatures(normalised(patches.astype(np.float32)), whole, has_token)
