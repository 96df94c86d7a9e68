"""How good the images of a view are, against its photo and against the truth where there is some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from nerfstudio.utils import colormaps
from torch import Tensor

from surface_sos_ns.plugin.outputs import OBJECT_IDENTITIES
from surface_sos_ns.utils.identity_images import filled_identities
from surface_sos_ns.utils.metrics import THRESHOLD, image_metrics, mask_metrics, object_metrics, region_psnr
from surface_sos_ns.utils.part_metrics import part_metrics

__all__ = ["comparison_images", "perceptual_distance", "view_metrics"]

# In both, what takes most is asked for first: rendering it brings the rest with it (see `ViewImages`).


def view_metrics(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    lpips: bool = False,
    objects: Sequence[str] = (),
    true_objects: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics of a view by name.

    Args:
        outputs: of the view, (H, W, C).
        batch: image (H, W, 3 or 4) 0..1, and where there is truth gt_mask (H, W, 1), gt_parts (H, W, 1) and clean_plate
            (H, W, 3). True parts are compared with those of the latest result, where there is one. With several
            objects also gt_objects (H, W, 1), their true identities.
        lpips: add LPIPS, whose weights are downloaded the first time.
        objects: names of several objects, see `utils.metrics.object_metrics`; empty for one.
        true_objects: names of those of the truth. Objects are compared by name, if they have names in common.
    """
    background = outputs["background"]
    photo = batch["image"][..., :3].to(background.device)
    metrics = image_metrics(outputs["rgb"], photo)
    if "gt_mask" in batch:
        truth = batch["gt_mask"][..., 0].to(photo)
        metrics |= mask_metrics(outputs["alpha"][..., 0], truth)
        if "clean_plate" in batch:
            plate = batch["clean_plate"].to(photo)
            metrics["clean_plate_psnr"] = region_psnr(background, plate, truth > THRESHOLD)
    if "gt_objects" in batch and set(objects) & set(true_objects):
        found = outputs[OBJECT_IDENTITIES][..., 0].cpu().long()
        metrics |= object_metrics(
            _renamed(found, objects, true_objects), batch["gt_objects"][..., 0].cpu(), true_objects
        )
    if "gt_parts" in batch and "part_ids" in outputs:
        parts, alpha = (outputs[name][..., 0].cpu().numpy() for name in ("part_ids", "alpha"))
        metrics |= part_metrics(filled_identities(parts, alpha > THRESHOLD), batch["gt_parts"][..., 0].cpu().numpy())
    if lpips:
        metrics["lpips"] = perceptual_distance(outputs["rgb"], photo)
    return metrics


def _renamed(found: Tensor, names: Sequence[str], others: Sequence[str]) -> Tensor:
    """Identities (H, W) of objects by name, as those of a list of other names; one beyond these where there is none."""
    table = [0, *(others.index(name) + 1 if name in others else len(others) + 1 for name in names)]
    return torch.tensor(table)[found]


def comparison_images(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pictures (H, W', 3) for the log, some of two images side by side; arguments as in `view_metrics`."""
    background = outputs["background"]
    photo = batch["image"][..., :3].to(background.device)
    return {
        "img": torch.cat([photo, outputs["rgb"]], dim=1),
        "mask": torch.cat([outputs["alpha"].expand(-1, -1, 3), outputs["overlay"]], dim=1),
        "background": background,
        "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
    }


def perceptual_distance(image: Tensor, truth: Tensor) -> float:
    """LPIPS of (H, W, 3) images."""
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    a, b = (t.movedim(-1, 0)[None] for t in (image, truth))
    return float(learned_perceptual_image_patch_similarity(a, b, normalize=True))
