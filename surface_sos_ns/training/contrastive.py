"""The collaborative contrastive losses of NeRF-SOS (Fan et al. 2023), as pure functions; equations are that paper's.

A *cue* says which pixels belong together: patch features of the photos (appearance) or points on the surfaces that the
pixels see (geometry). The losses draw the rendered segmentation codes of two pixels together where the cues of the two
correspond by more than a bias b, and push them apart elsewhere. Gradients go to the codes alone.

Pairs of pixels come from a patch and itself (identity pairs) and from a patch and the one that is least like it
(negative pairs). Distances are in object radii, so that biases, epsilon and the cap do not depend on a capture's scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

__all__ = [
    "Biases",
    "ContrastiveConfig",
    "appearance_loss",
    "biases_from_quantiles",
    "cosine_correspondence",
    "geometry_loss",
    "inverse_distance",
    "inverse_distance_by_axis",
    "negative_pairs",
    "paper_contrast",
    "points_at_depth",
]

MIN_LENGTH = 1e-6
"""Vectors shorter than this are not brought to length 1: it bounds the gradient of a code that is nearly zero."""

MAX_ENTRIES = 1 << 22
"""Entries of a correspondence volume that are held at once. Beyond it rows are treated in turn, and computed again for
the gradient: a batch of 8 pairs of 64 x 64 pixels has 134 million."""

Correspondence = Callable[[Tensor, Tensor], Tensor]
"""Vectors (B, N, D) and (B, M, D) -> how far each of the first corresponds to each of the second (B, N, M)."""


@dataclass(frozen=True)
class Biases:
    """b of identity and of negative pairs: codes are drawn together where the cues correspond by more."""

    identity: float = 0.18
    negative: float = 0.46


@dataclass(frozen=True)
class ContrastiveConfig:
    """Weights and choices of the losses. The defaults are those of the official code; see `paper_contrast`."""

    appearance: float = 1.0
    """lambda_1 of eq. 10."""
    geometry: float = 0.01
    """lambda_2 of eq. 10."""
    identity: float = 1.0
    """lambda_id of eq. 4 and 9, the weight of a patch with itself."""
    negative: float = 1.0
    """lambda_neg of eq. 4 and 9, the weight of a patch with the one that is least like it."""
    appearance_biases: Biases = field(default_factory=lambda: Biases(0.18, 0.46))
    """b of eq. 4, for the cosines of DINO's features; see `biases_from_quantiles` for others."""
    geometry_biases: Biases = field(default_factory=lambda: Biases(0.5, 3.0))
    """b of eq. 9, in 1 / object radius."""
    points: int | None = 121
    """Pixels of each patch that are drawn for the losses, None for all. (The official code draws for the appearance
    only; for the geometry it takes all.)"""
    centred: bool = True
    """Subtract from each row of the cues' correspondence its mean and add the mean of all, as STEGO does: no pixel
    attracts or repels all others."""
    clamped: bool = True
    """Similarities of codes below 0 count as 0: codes are pushed apart until they are at right angles, not opposite."""
    by_axis: bool = False
    """Sum the inverse distances along the three axes (eq. 7 as printed), instead of inverting the distance's L1 norm:
    by axis, points correspond that share one coordinate only."""
    inverse_code_distance: bool = True
    """In the geometry loss measure the similarity of codes by the inverse L1 distance of their directions, as that of
    points, instead of by their cosine (eq. 8 as printed)."""
    epsilon: float = 0.05
    """epsilon of eq. 7, in object radii; the paper does not print it."""
    cap: float = 15.0
    """Upper bound of inverse distances, in 1 / object radius."""
    summed: bool = False
    """Sum over all pairs of pixels of two patches (eq. 3 and 8 as printed), instead of averaging."""


def paper_contrast(config: ContrastiveConfig) -> ContrastiveConfig:
    """The losses as printed: cosines of codes in both, eq. 7 by axis without a cap, sums over all pairs of pixels."""
    return replace(
        config,
        points=None,
        centred=False,
        clamped=False,
        by_axis=True,
        inverse_code_distance=False,
        cap=math.inf,
        summed=True,
    )


def cosine_correspondence(first: Tensor, second: Tensor) -> Tensor:
    """Eq. 2: cosines (B, N, M) of vectors (B, N, D) and (B, M, D); of a zero vector they are 0."""
    return _directions(first) @ _directions(second).mT


def inverse_distance(first: Tensor, second: Tensor, epsilon: float, cap: float = math.inf) -> Tensor:
    """Eq. 7 as in the official code: 1 / (|p - p'|_1 + epsilon), at most `cap`.

    Args:
        first, second: (B, N, C), (B, M, C) finite vectors.
        epsilon: in the vectors' unit.
        cap: in 1 / the vectors' unit. No gradient comes from what is above.

    Returns:
        (B, N, M).
    """
    return (1.0 / (torch.cdist(first, second, p=1.0) + epsilon)).clamp(max=cap)


def inverse_distance_by_axis(first: Tensor, second: Tensor, epsilon: float, cap: float = math.inf) -> Tensor:
    """Eq. 7 as printed: the sum over axes of 1 / (|p_c - p'_c| + epsilon), at most `cap`; see `inverse_distance`."""
    along = (first[:, :, None] - second[:, None]).abs()
    return (1.0 / (along + epsilon)).sum(-1).clamp(max=cap)


def points_at_depth(origins: Tensor, directions: Tensor, depth: Tensor) -> Tensor:
    """Eq. 5: points (..., 3) on rays (..., 3) at rendered depths (...) (eq. 6), in lengths of the directions."""
    return origins + directions * depth[..., None]


def negative_pairs(descriptors: Tensor) -> Tensor:
    """Of every patch the one that is least like it, by the cosine of the patches' (or their photos') descriptors.

    Args:
        descriptors: (B, D), such as the class tokens of a vision transformer.

    Returns:
        (B,) int64 indices, none of them its own; the first of several that are equally unlike.

    Raises:
        ValueError: there are fewer than two patches.
    """
    if len(descriptors) < 2:
        raise ValueError(f"Negative pairs need two patches at least, got {len(descriptors)}.")
    cosines = cosine_correspondence(descriptors[None], descriptors[None])[0]
    return cosines.fill_diagonal_(math.inf).argmin(-1)


def appearance_loss(features: Tensor, codes: Tensor, negatives: Tensor, config: ContrastiveConfig) -> Tensor:
    """Eq. 4: lambda_id C_app(identity pairs, b_id) + lambda_neg C_app(negative pairs, b_neg), C_app as in eq. 3.

    Args:
        features: (B, ..., D) patch features of the photos at the pixels of B patches, such as (B, P, P, D).
        codes: (B, ..., C) rendered segmentation codes at the same pixels.
        negatives: (B,) int64, the other patch of each negative pair, see `negative_pairs`.
        config: weights and choices; pixels are given as they were drawn.

    Returns:
        (), a mean over patches.
    """
    similarity = partial(_code_cosine, config)
    return _loss_of_pairs(
        features, codes, negatives, config.appearance_biases, config, cosine_correspondence, similarity
    )


def geometry_loss(points: Tensor, codes: Tensor, negatives: Tensor, config: ContrastiveConfig) -> Tensor:
    """Eq. 9: lambda_id C_geo(identity pairs, b_id) + lambda_neg C_geo(negative pairs, b_neg), C_geo as in eq. 8.

    Args:
        points: (B, ..., 3) finite points that the pixels of B patches see (eq. 5), in object radii.
        codes: (B, ..., C) rendered segmentation codes at the same pixels.
        negatives: (B,) int64, the other patch of each negative pair, see `negative_pairs`.
        config: weights and choices; pixels are given as they were drawn.

    Returns:
        (), a mean over patches.
    """
    inverse = inverse_distance_by_axis if config.by_axis else inverse_distance
    closeness = partial(inverse, epsilon=config.epsilon, cap=config.cap)
    similarity = partial(_code_closeness if config.inverse_code_distance else _code_cosine, config)
    return _loss_of_pairs(points, codes, negatives, config.geometry_biases, config, closeness, similarity)


def biases_from_quantiles(features: Tensor, negatives: Tensor, quantiles: Biases, centred: bool = True) -> Biases:
    """Biases of the appearance loss for features whose cosines are spread in another way than DINO's.

    Of DINOv2-S's centred cosines, on three captures, 0.14 to 0.24 of identity pairs are below the official bias, 0.18,
    and 0.42 to 0.58 of negative pairs below theirs, 0.46.

    Args:
        features, negatives: as for `appearance_loss`.
        quantiles: in [0, 1], for identity and for negative pairs: the share of pairs of pixels whose features are to
            correspond by less than the bias, and so push their codes apart.
        centred: as in `ContrastiveConfig`.

    Returns:
        The quantiles of the correspondences of eq. 2.
    """
    features = features.flatten(1, -2)

    def quantile(second: Tensor, share: float) -> float:
        cosines = cosine_correspondence(features, second)
        return float((_centred(cosines, cosines.mean()) if centred else cosines).flatten().quantile(share))

    return Biases(quantile(features, quantiles.identity), quantile(features[negatives], quantiles.negative))


Pixels = tuple[Tensor, Tensor]
"""Cues (B, N, D) and codes (B, N, C) of N pixels of B patches."""


def _loss_of_pairs(
    cues: Tensor,
    codes: Tensor,
    negatives: Tensor,
    biases: Biases,
    config: ContrastiveConfig,
    correspondence: Correspondence,
    similarity: Correspondence,
) -> Tensor:
    """Eq. 4 and 9: the weighted sum of the contrast of identity and of negative pairs."""
    cues, codes = cues.detach().flatten(1, -2), codes.flatten(1, -2)
    first, other = (cues, codes), (cues[negatives], codes[negatives])
    contrast = partial(_contrast, correspondence=correspondence, similarity=similarity, centred=config.centred)
    identity, negative = contrast(first, first, biases.identity), contrast(first, other, biases.negative)
    scale = cues.shape[1] ** 2 if config.summed else 1
    return scale * (config.identity * identity + config.negative * negative)


def _contrast(
    first: Pixels,
    second: Pixels,
    bias: float,
    correspondence: Correspondence,
    similarity: Correspondence,
    centred: bool,
) -> Tensor:
    """Eq. 3 and 8 as a mean over pairs of pixels: -(F - b) S, F the correspondence of cues, S the similarity of codes.

    Not more than `MAX_ENTRIES` of F and S are held at once.
    """
    cues, codes = second
    patches, pixels = cues.shape[:2]
    rows = max(1, MAX_ENTRIES // (patches * pixels))
    chunks = list(zip(*(values.split(rows, 1) for values in first), strict=True))
    entries = first[0].shape[1] * patches * pixels
    mean = torch.stack([correspondence(part, cues).sum() for part, _ in chunks]).sum() / entries if centred else None

    def total(part: Tensor, part_codes: Tensor) -> Tensor:
        pull = correspondence(part, cues)
        pull = pull if mean is None else _centred(pull, mean)
        return -((pull - bias) * similarity(part_codes, codes)).sum()

    if len(chunks) == 1:
        return total(*chunks[0]) / entries
    return torch.stack([checkpoint(total, *chunk, use_reentrant=False) for chunk in chunks]).sum() / entries


def _centred(correspondence: Tensor, mean: Tensor) -> Tensor:
    """Correspondences (B, N, M) with `mean` () as the mean of every row."""
    return correspondence - correspondence.mean(-1, keepdim=True) + mean


def _code_cosine(config: ContrastiveConfig, first: Tensor, second: Tensor) -> Tensor:
    """S of eq. 3: cosines of codes."""
    cosines = cosine_correspondence(first, second)
    return cosines.clamp(min=0.0) if config.clamped else cosines


def _code_closeness(config: ContrastiveConfig, first: Tensor, second: Tensor) -> Tensor:
    """S of the official code's geometry loss: inverse L1 distances of the codes' directions."""
    return inverse_distance(_directions(first), _directions(second), config.epsilon, config.cap)


def _directions(vectors: Tensor) -> Tensor:
    """Vectors (..., D) of length 1; those shorter than `MIN_LENGTH` stay shorter."""
    return normalize(vectors, dim=-1, eps=MIN_LENGTH)
