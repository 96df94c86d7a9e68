"""Metrics of masks and images, per image (averages are the caller's), and of meshes.

Most come from libraries (torchmetrics, scikit-learn), imported when first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surface_sos_ns.utils.overlap import intersection_over_union

if TYPE_CHECKING:
    import trimesh

THRESHOLD = 0.5
EDGE_SHARE, EDGE_MIN = 0.01, 3
"""Width of the band on either side of the true outline: share of the longer image side, and pixels at least."""


def mask_metrics(matte: Tensor, truth: Tensor) -> dict[str, float]:
    """How well a matte agrees with the true one.

    Args:
        matte, truth: (H, W) in [0, 1].

    Returns:
        mask_iou, mask_iou_bg: intersection over union of object and of background at threshold 0.5; an empty union
        is 1. mask_miou: their mean. mask_acc: share of pixels on the right side. mask_sad: sum of absolute
        differences / 1000. mask_mse: mean squared difference. mask_edge_sad, mask_edge_mse: the same two in the band
        around the true outline (`edge_band`); NaN where the truth has none. mask_ari: adjusted Rand index of the two
        segmentations; NeRF-SOS calls its mean over held-out views NV-ARI.

    Raises:
        ValueError: the shapes differ.
    """
    from sklearn.metrics import adjusted_rand_score
    from torchmetrics.functional.classification import binary_accuracy

    if matte.shape != truth.shape:
        raise ValueError(f"matte and truth must have one shape, got {tuple(matte.shape)} and {tuple(truth.shape)}")
    found, true = matte > THRESHOLD, truth > THRESHOLD

    pixels, true_pixels = found.cpu().numpy(), true.cpu().numpy()
    foreground = intersection_over_union(pixels, true_pixels)
    background = intersection_over_union(~pixels, ~true_pixels)
    difference = matte.double() - truth.double()
    at_edge = difference[edge_band(true)]
    return {
        "mask_iou": foreground,
        "mask_iou_bg": background,
        "mask_miou": 0.5 * (foreground + background),
        "mask_acc": float(binary_accuracy(found.int(), true.int())),
        "mask_sad": float(difference.abs().sum() / 1000),
        "mask_mse": float(difference.square().mean()),
        "mask_edge_sad": float(at_edge.abs().sum() / 1000) if at_edge.numel() else float("nan"),
        "mask_edge_mse": float(at_edge.square().mean()),
        "mask_ari": float(adjusted_rand_score(true_pixels.ravel(), pixels.ravel())),
    }


def object_metrics(found: Tensor, truth: Tensor, names: Sequence[str]) -> dict[str, float]:
    """How well several objects are told from the background and from each other in a view.

    Args:
        found, truth: (H, W) identities, 0 for none, 1 to K.
        names: of the K objects.

    Returns:
        mask_iou: mean over the objects that `found` or `truth` shows, NaN for none; mask_iou_NAME of each of these.
        mask_iou_all: of all objects together. mask_wrong_identity: of the pixels that are an object's in both, the
        share that are of different ones; NaN where there are none.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != truth.shape:
        raise ValueError(f"found and truth must have one shape, got {tuple(found.shape)} and {tuple(truth.shape)}")
    a, b = found.cpu().numpy(), truth.cpu().numpy()
    shown = [identity for identity in range(1, len(names) + 1) if (a == identity).any() or (b == identity).any()]
    each = {names[k - 1]: intersection_over_union(a == k, b == k) for k in shown}
    both = (a > 0) & (b > 0)
    return {
        "mask_iou": sum(each.values()) / len(each) if each else float("nan"),
        **{f"mask_iou_{name}": iou for name, iou in each.items()},
        "mask_iou_all": intersection_over_union(a > 0, b > 0),
        "mask_wrong_identity": float((a != b)[both].mean()) if both.any() else float("nan"),
    }


def edge_band(truth: Tensor) -> Tensor:
    """Pixels (H, W) bool at most 1 % of the longer image side (3 pixels at least) from the other side of the outline.

    Args:
        truth: (H, W) bool. Without an outline, all or nothing the object, the band is empty.
    """
    import cv2
    import numpy as np

    width = max(EDGE_MIN, round(EDGE_SHARE * max(truth.shape)))
    inside = truth.cpu().numpy().astype(np.uint8)
    if inside.min() == inside.max():
        return torch.zeros_like(truth)
    # Each distance is 0 on the far side of the outline, so that the larger one is that to the other side.
    distance = [cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (inside, 1 - inside)]
    return torch.from_numpy(np.maximum(*distance) <= width).to(truth.device)


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


def mesh_metrics(
    found: trimesh.Trimesh, truth: trimesh.Trimesh, samples: int = 100_000, seed: int = 0
) -> dict[str, float]:
    """How far two surfaces lie apart.

    Points are drawn evenly over both, and each is measured to the nearest point of the other surface's. So two equal
    meshes come out at about half the spacing of the points, sqrt(area / samples) / 2, and not at 0.

    Args:
        found, truth: in one frame.
        samples: points on each of them.
        seed: equal seeds give equal figures.

    Returns:
        mesh_chamfer: mean over both directions of the mean distance, in the meshes' units. mesh_chamfer_relative: the
        same as a fraction of the diagonal of the true mesh's bounding box.
    """
    import numpy as np
    from scipy.spatial import cKDTree
    from trimesh.sample import sample_surface

    points = [np.asarray(sample_surface(mesh, samples, seed=seed + i)[0]) for i, mesh in enumerate((found, truth))]
    there, back = (cKDTree(b).query(a)[0].mean() for a, b in (points, points[::-1]))
    chamfer = 0.5 * float(there + back)
    return {"mesh_chamfer": chamfer, "mesh_chamfer_relative": chamfer / float(truth.scale)}
