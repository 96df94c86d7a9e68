"""How good the colours of a view are once its appearance is known: fitted to the left half of its photo.

A view that is held out has no appearance code of its own: it is rendered at the mean exposure, white balance and light
of the training photos, and its PSNR also measures how far its light is from their mean. So, as in NeRF-W, the code is
fitted to the left half of the photo, with the fields fixed, and the metrics are of the right half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from surface_sos_ns.models.surface_sos.appearance import EXPOSURE_WIDTH
from surface_sos_ns.models.surface_sos.appearance_fit import fitted_code, fitted_exposure
from surface_sos_ns.plugin.view_metrics import perceptual_distance
from surface_sos_ns.plugin.view_rendering import ROOM, ray_times
from surface_sos_ns.utils.metrics import image_metrics

__all__ = ["code_of_photo", "fitted_metrics"]

SMALLEST_HALF = 11
"""Least width and height, in pixels, of the half that is compared with: SSIM's window."""


def fitted_metrics(
    scene: Any,
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    render: Callable[[RayBundle, Tensor], Tensor],
    lpips: bool = False,
) -> dict[str, float]:
    """Metrics of the right half of a view whose appearance code is fitted to the left half of its photo.

    Args:
        scene: the trained model, in evaluation mode.
        outputs: of the view at the mean appearance, (H, W, C), with its rays.
        batch: of the view: image (H, W, 3 or 4) 0..1, and mask (H, W, 1) of the valid pixels where some are not.
        render: the colours (H, W', 3) of rays (H, W') with a code (1, C).
        lpips: add LPIPS.

    Returns:
        psnr_fitted, ssim_fitted and lpips_fitted: with the fitted code. psnr_unfitted: of the same half at the mean
        appearance. Empty for photos that are too small to be halved.
    """
    rgb = outputs["rgb"]
    photo = batch["image"][..., :3].to(rgb)
    middle = rgb.shape[1] // 2
    if min(rgb.shape[0], middle) < SMALLEST_HALF:
        return {}
    left, right = slice(None, middle), slice(middle, None)
    valid = batch["mask"][..., 0].to(rgb.device).bool() if "mask" in batch else torch.ones_like(rgb[..., 0]).bool()
    used = valid[:, left]
    if not used.any():
        return {}
    if scene.appearance.width == EXPOSURE_WIDTH:  # colours at another exposure follow from those at the mean one
        surrounded = any(getattr(scene, name, None) is not None for name in ("sky", "room"))
        opaque = torch.ones_like(rgb[..., :1]) if surrounded else outputs["accumulation"]
        code = fitted_exposure(rgb[:, left][used], opaque[:, left][used], photo[:, left][used])
        gain, offset, _ = scene.appearance(None, code)
        found = (rgb[:, right] * gain + offset * opaque[:, right]).clamp(0, 1)
    else:
        rays: RayBundle = outputs.rays  # type: ignore[attr-defined]
        code = code_of_photo(scene, rays[:, left][used], photo[:, left][used])
        found = render(rays[:, right], code)
    truth = photo[:, right]
    metrics = {f"{name}_fitted": value for name, value in image_metrics(found, truth).items()}
    metrics["psnr_unfitted"] = image_metrics(rgb[:, right], truth)["psnr"]
    if lpips:
        metrics["lpips_fitted"] = perceptual_distance(found, truth)
    return metrics


def code_of_photo(scene: Any, rays: RayBundle, photo: Tensor) -> Tensor:
    """The appearance code (1, C) with which rays (P,), world frame, look like the colours (P, 3) of a photo."""
    rays = rays.to(scene.frame.centre.device)
    origins, directions = scene.frame.rays(rays.origins, rays.directions)
    room = (rays.metadata or {}).get(ROOM)
    return fitted_code(scene, origins, directions, photo.to(origins), ray_times(scene, rays), room=room)
