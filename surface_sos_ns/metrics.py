"""Metrics of masks and images, per image; averages over images are the caller's.

Everything that a kept library defines comes from it (torchmetrics, scikit-learn), imported when first used.
"""

from __future__ import annotations

import torch
from torch import Tensor

THRESHOLD = 0.5


def mask_metrics(matte: Tensor, truth: Tensor) -> dict[str, float]:
    """How well a matte agrees with the true one.

    Args:
        matte, truth: (H, W) in [0, 1].

    Returns:
        mask_iou, mask_iou_bg: intersection over union of object and of background at threshold 0.5; an empty union
        is 1. mask_miou: their mean. mask_acc: share of pixels on the right side. mask_sad: sum of absolute
        differences / 1000. mask_mse: mean squared difference. mask_ari: adjusted Rand index of the two segmentations.

    Raises:
        ValueError: the shapes differ.
    """
    from sklearn.metrics import adjusted_rand_score
    from torchmetrics.functional.classification import binary_accuracy, binary_jaccard_index

    if matte.shape != truth.shape:
        raise ValueError(f"matte and truth must have one shape, got {tuple(matte.shape)} and {tuple(truth.shape)}")
    found, true = matte > THRESHOLD, truth > THRESHOLD

    def iou(a: Tensor, b: Tensor) -> float:
        return float(binary_jaccard_index(a.int(), b.int())) if bool((a | b).any()) else 1.0

    foreground, background = iou(found, true), iou(~found, ~true)
    difference = matte.double() - truth.double()
    return {
        "mask_iou": foreground,
        "mask_iou_bg": background,
        "mask_miou": 0.5 * (foreground + background),
        "mask_acc": float(binary_accuracy(found.int(), true.int())),
        "mask_sad": float(difference.abs().sum() / 1000),
        "mask_mse": float(difference.square().mean()),
        "mask_ari": float(adjusted_rand_score(true.flatten().cpu().numpy(), found.flatten().cpu().numpy())),
    }


def image_metrics(image: Tensor, truth: Tensor) -> dict[str, float]:
    """psnr (dB) and ssim of (H, W, 3) images in [0, 1]."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    a, b = (t.movedim(-1, 0)[None].float() for t in (image, truth))
    ssim = structural_similarity_index_measure(a, b, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return {"psnr": float(peak_signal_noise_ratio(a, b, data_range=1.0)), "ssim": float(ssim)}


def region_psnr(image: Tensor, truth: Tensor, region: Tensor) -> float:
    """PSNR (dB) of (H, W, 3) images inside a region (H, W) bool; NaN where the region is empty."""
    error = (image - truth)[region].square()
    return float(-10 * torch.log10(error.mean().clamp(min=1e-10))) if error.numel() else float("nan")
