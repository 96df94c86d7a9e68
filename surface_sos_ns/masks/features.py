"""Patch features of photos, whose cosines say which parts of a capture look alike.

Features of self-supervised networks (DINO, DINOv2, DINOv3) where their weights are available: they are alike on parts
of one thing even where these differ in colour. Without weights a descriptor of colour and texture.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

import cv2
import numpy as np

from surface_sos_ns.masks.provider import MaskError, MaskProvider, Progress
from surface_sos_ns.utils.extras import missing_package

__all__ = [
    "FEATURES_VERSION",
    "ColourTexture",
    "FeatureChoice",
    "FeatureProvider",
    "LooksAtFeatures",
    "PatchFeatures",
    "PhotoFeatures",
    "SelfSupervised",
    "TransformerFeatures",
    "normalised",
]

FEATURES_VERSION = 1
"""Raised when the same photo and weights would give other features; those that were kept on disk are then outdated."""

DEFAULT_MODEL = "facebook/dinov2-small"
"""The checkpoint that is taken when none is named."""

NETWORK_PATCHES = 56
"""Patches along the longer side of a network's input: more would be finer, and slow on a CPU."""


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of one photo. All vectors have length 1; the cosine of two says how alike they are.

    Attributes:
        patches: (h, w, D) float32, of a grid of patches that tiles the photo.
        whole: (D,) float32, of the photo as a whole: the network's class token where it has one, else the mean of the
            patches' vectors, scaled to length 1.
        has_token: whether `whole` is a class token.
    """

    patches: np.ndarray
    whole: np.ndarray
    has_token: bool

    @classmethod
    def of_patches(cls, patches: np.ndarray) -> PhotoFeatures:
        """Of (h, w, D) vectors of length 1 alone."""
        return cls(patches, normalised(patches.mean(axis=(0, 1))), False)

    @classmethod
    def of_tokens(cls, tokens: np.ndarray, rows: int, columns: int) -> PhotoFeatures:
        """Of a vision transformer's tokens.

        Args:
            tokens: (T, D) of any length: class token, register tokens, then the patches row by row; or patches alone.
            rows, columns: of the grid of patches.
        """
        before = len(tokens) - rows * columns
        patches = normalised(tokens[before:].reshape(rows, columns, -1))
        return cls(patches, normalised(tokens[0]), True) if before else cls.of_patches(patches)


class PatchFeatures(ABC):
    """A way to describe photos and their patches.

    Attributes:
        name: in words, for the user.
        patch: side of a patch in pixels of the image that is described (see :meth:`describe`).
    """

    name: str
    patch: int

    @abstractmethod
    def describe(self, images: Sequence[np.ndarray], progress: Progress | None = None) -> list[PhotoFeatures]:
        """Features of each photo and of a grid of patches that tiles it.

        Args:
            images: photos (H, W, 3) uint8 RGB of any sizes. They are resized first, to what the features are made for.
            progress: called with a line now and then.
        """

    def features(self, images: Sequence[np.ndarray], progress: Progress | None = None) -> list[np.ndarray]:
        """The patches' features alone, one (h, w, D) float32 array a photo; see :meth:`describe`."""
        return [photo.patches for photo in self.describe(images, progress)]

    @abstractmethod
    def fingerprint(self) -> str:
        """Of weights and settings: providers with the same one describe a photo alike (see `FEATURES_VERSION`)."""


class ColourTexture(PatchFeatures):
    """Colour and texture at several scales, and a little of the position; no weights, no network.

    Of a patch: mean Lab colour at three scales, the colours' spread at two, the strength of edges in four directions
    at two, and where it is in the photo. Every entry has a fixed scale, so a photo's features do not depend on the
    other photos. A constant entry is appended before the vector is normalised, so that angles follow the Euclidean
    distances of the entries; plain normalisation would lose the vectors' lengths.

    Invariances: mirroring the photo mirrors the features, but for the diagonal edges, which change places;
    inverting dark and bright keeps all but the lightness; and shifting the photo by a patch changes nothing but the
    position (away from the border).
    """

    name = "colour and texture"

    SIDE: ClassVar[int] = 320
    """Longer side of the photos that are described, pixels."""
    LIFT: ClassVar[float] = 3.0
    """The constant entry: the radius, in units of the entries, at which distances begin to saturate."""

    def __init__(self, patch: int = 4) -> None:
        self.patch = patch

    def describe(self, images: Sequence[np.ndarray], progress: Progress | None = None) -> list[PhotoFeatures]:
        grids = (self._grid(shrunk(image, self.SIDE, self.patch)) for image in images)
        return [PhotoFeatures.of_patches(grid) for grid in grids]

    def fingerprint(self) -> str:
        return repr((self.name, self.SIDE, self.patch, self.LIFT))

    def _grid(self, image: np.ndarray) -> np.ndarray:
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        rows, columns = image.shape[0] // self.patch, image.shape[1] // self.patch
        # Shadows and highlights change the lightness of a thing more than its hue.
        colour = lab * np.array([1 / 30, 1 / 12, 1 / 12], np.float32)

        def pooled(values: np.ndarray, sigma: float) -> np.ndarray:
            blurred = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) if sigma else values
            result = cv2.resize(blurred, (columns, rows), interpolation=cv2.INTER_AREA)
            return result.reshape(rows, columns, -1)

        means = [pooled(colour, 0.0), pooled(colour, self.patch), pooled(colour, 2.5 * self.patch)]
        spreads = []
        for sigma in (0.75 * self.patch, 2.0 * self.patch):
            variance = pooled(colour**2, sigma) - pooled(colour, sigma) ** 2
            spreads.append(np.sqrt(np.maximum(variance, 0)))
        across = cv2.Scharr(lab[..., 0], cv2.CV_32F, 1, 0) / 32
        down = cv2.Scharr(lab[..., 0], cv2.CV_32F, 0, 1) / 32
        angles = np.arange(4) * np.pi / 4
        edges = np.abs(across[..., None] * np.cos(angles) + down[..., None] * np.sin(angles)).astype(np.float32)
        texture = [pooled(edges, sigma * self.patch) / 6 for sigma in (1.0, 2.5)]
        row, column = np.mgrid[:rows, :columns].astype(np.float32)
        position = np.stack([(column + 0.5) / columns - 0.5, (row + 0.5) / rows - 0.5], axis=-1)
        weighted = [1.0 * means[0], 0.7 * means[1], 0.4 * means[2]]
        weighted += [0.7 * spreads[0], 0.7 * spreads[1], 0.5 * texture[0], 0.5 * texture[1], 0.3 * position]
        lift = np.full((rows, columns, 1), self.LIFT, np.float32)
        return normalised(np.concatenate([*weighted, lift], axis=-1))


class TransformerFeatures(PatchFeatures):
    """The last layer of a vision transformer."""

    def describe(self, images: Sequence[np.ndarray], progress: Progress | None = None) -> list[PhotoFeatures]:
        result = []
        for index, image in enumerate(images):
            if progress and index % 10 == 0:
                progress(f"features: {self.name}, photo {index + 1} of {len(images)}")
            image = self._resized(image)
            rows, columns = image.shape[0] // self.patch, image.shape[1] // self.patch
            coloured = (image.astype(np.float32) / 255 - MEAN) / DEVIATION
            tokens = self._tokens(coloured.transpose(2, 0, 1)[None])
            result.append(PhotoFeatures.of_tokens(tokens, rows, columns))
        return result

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """The image in the size in which the network takes it, whole numbers of patches."""
        return shrunk(image, NETWORK_PATCHES * self.patch, self.patch)

    @abstractmethod
    def _tokens(self, pixels: np.ndarray) -> np.ndarray:
        """The network's output.

        Args:
            pixels: (1, 3, H, W) float32 RGB, normalised by :data:`MEAN` and :data:`DEVIATION`.

        Returns:
            (T, D) float32, as :meth:`PhotoFeatures.of_tokens` takes them.
        """


MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
"""Mean and standard deviation of RGB in [0, 1] (ImageNet), with which all DINO networks normalise their input."""


class SelfSupervised(TransformerFeatures):
    """A network that was trained without labels: DINO, DINOv2 or DINOv3.

    Loaded by transformers (nerfstudio pins a timm that takes square photos only); weights come from its own cache or,
    where it may, from the network.

    Args:
        model: "facebook/dinov2-small", "facebook/dino-vits8", "facebook/dinov3-vits16-pretrain-lvd1689m" and the like,
            or a folder written by ``save_pretrained``.
        cached_only: do not look on the network.

    Raises:
        MaskError: the library is missing, the checkpoint cannot be loaded, or has no patches.
    """

    def __init__(self, model: str = DEFAULT_MODEL, cached_only: bool = False) -> None:
        self.name = model
        self._network, self.patch = _load(model, cached_only)

    def fingerprint(self) -> str:
        import torch

        digest = hashlib.sha256(self._network.config.to_json_string().encode())
        for name, values in self._network.state_dict().items():
            digest.update(name.encode())
            digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def _tokens(self, pixels: np.ndarray) -> np.ndarray:
        import torch

        # DINO (1) takes one image size unless its position embeddings are interpolated; later models do it by default.
        stretch = {"interpolate_pos_encoding": True} if self._network.config.model_type == "vit" else {}
        with torch.inference_mode():
            tokens = self._network(pixel_values=torch.from_numpy(pixels), **stretch).last_hidden_state
        return tokens[0].float().cpu().numpy()


def _load(model: str, cached_only: bool) -> tuple[Any, int]:
    """The network, ready to be used, and the side of its patches in pixels."""
    problem = missing_package("transformers", model)
    if problem is not None:
        raise MaskError(f"{problem} Or take the descriptor that needs no weights: `--features descriptor`.")
    from transformers import AutoModel

    try:
        network = AutoModel.from_pretrained(model, local_files_only=cached_only).eval()
    except (OSError, ValueError) as error:
        offline = cached_only or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        where = "in the cache of transformers, and looking on the network is switched off" if offline else "to be had"
        raise MaskError(
            f"The weights {model} are not {where} ({str(error).splitlines()[0]}). Download them once where there is a "
            f"network (`huggingface-cli download {model}`), name a folder that holds them with `--model`, or take the "
            "descriptor that needs no weights: `--features descriptor`."
        ) from error
    patch = getattr(network.config, "patch_size", None)
    if not isinstance(patch, int):
        raise MaskError(f"{model} is no vision transformer with square patches; name a DINO, DINOv2 or DINOv3 model.")
    return network, patch


def shrunk(image: np.ndarray, side: int, patch: int) -> np.ndarray:
    """The image with its longer side near ``side`` pixels, both sides whole numbers of patches."""
    factor = side / max(image.shape[:2])
    height, width = (max(1, round(length * factor / patch)) * patch for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """(..., D) float32 vectors of length 1."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)


class FeatureChoice:
    """Which features a user wants, loaded when they are needed and once.

    Args:
        features: "network" (DINO and its like), "descriptor" (:class:`ColourTexture`), or "auto": the network where its
            weights are in the cache or can be downloaded, else the descriptor.
        model: checkpoint of the network, None for the default. A checkpoint that is named is never replaced.
        onnx: ONNX file of a network, instead of a checkpoint; see :class:`OnnxFeatures`.

    Raises:
        MaskError: none of the three, a model for the descriptor, or an ONNX file besides something else.
    """

    def __init__(self, features: str = "auto", model: str | None = None, onnx: Path | None = None) -> None:
        if features not in ("auto", "network", "descriptor"):
            raise MaskError(f"The features are called {features}; expected auto, network or descriptor.")
        if features == "descriptor" and (model is not None or onnx is not None):
            named = model or onnx
            raise MaskError(f"The descriptor has no model, so {named} would not be used; leave one of the two out.")
        if model is not None and onnx is not None:
            raise MaskError(f"The features are to come from {model} and from {onnx}; leave one of the two out.")
        self.features, self.model, self.onnx = features, model, onnx
        self._loaded: PatchFeatures | None = None

    @property
    def left_to_us(self) -> bool:
        """Whether the user named none of the three, so that any available features may be used."""
        return self.features == "auto" and self.model is None and self.onnx is None

    def load(self) -> PatchFeatures:
        """The features.

        Raises:
            MaskError: a network was asked for and cannot be loaded; the message says what to do.
        """
        if self._loaded is None:
            self._loaded = self._choose()
        return self._loaded

    def _choose(self) -> PatchFeatures:
        if self.features == "descriptor":
            return ColourTexture()
        if self.onnx is not None:
            from surface_sos_ns.masks.onnx_features import OnnxFeatures

            return OnnxFeatures(self.onnx)
        if self.features == "network" or self.model is not None:
            return SelfSupervised(self.model or DEFAULT_MODEL)
        for cached_only in (True, False):
            if missing_package("transformers", DEFAULT_MODEL) or not (cached_only or _hub_answers()):
                continue
            try:
                return SelfSupervised(DEFAULT_MODEL, cached_only)
            except MaskError:
                continue
        return ColourTexture()


class LooksAtFeatures:
    """What providers have in common that look at the features of patches, with cameras or without.

    Args:
        features: "auto", "descriptor" or "network", see :class:`FeatureChoice`.
        model: checkpoint of the network; None for the default.
        features_onnx: ONNX file of a network, instead of a checkpoint.
        seed: equal seeds give equal masks.
    """

    labels: ClassVar[str] = "none"

    def __init__(
        self, features: str = "auto", model: str | None = None, features_onnx: Path | None = None, seed: int = 0
    ) -> None:
        self.seed = seed
        self._features = FeatureChoice(features, model, features_onnx)

    def check(self) -> None:
        """See :meth:`MaskProvider.check`."""
        self._features.load()


class FeatureProvider(LooksAtFeatures, MaskProvider):
    """A provider for captures that looks at the features of patches; see :class:`LooksAtFeatures`."""

    @property
    def features_name(self) -> str:
        """What describes the patches, in words for the user."""
        return self._features.load().name

    @property
    def by_network(self) -> bool:
        """Whether a network describes the patches, and not the descriptor."""
        return not isinstance(self._features.load(), ColourTexture)


def _hub_answers() -> bool:
    """Whether checkpoints can be downloaded; transformers itself retries for a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    from huggingface_hub import constants

    try:
        urlopen(constants.ENDPOINT, timeout=5).close()
    except (OSError, ValueError):
        return False
    return True
