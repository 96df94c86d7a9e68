"""`bench render`: time to render a view of the demo scene after a short training: alpha alone, and all outputs.

The view is a resized held-out view of the demo capture. The schedules of the training run to their end. The IoU of the
rendered mask is reported as well, to show that the object was rendered.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.fit import fit_scene
from surface_sos_ns.bench.protocol import Side, take_turns
from surface_sos_ns.bench.settings import Render
from surface_sos_ns.models.surface_sos.gpu_memory import rays_at_once
from surface_sos_ns.utils.overlap import intersection_over_union
from surface_sos_ns.utils.progress import Stage

OUTPUTS: dict[str, Callable[..., Any]] = {"alpha": ours.alpha, "all_outputs": ours.all_outputs}


def run_render(settings: Render) -> dict[str, Any]:
    """The benchmark; returns what the JSON file holds.

    Raises:
        BenchError: a setting that cannot work here.
    """
    device, preset, counts, result, data, run = fit_scene("render", settings, None, 1.0)

    result["rays_at_once"] = chunk = rays_at_once(preset.scene, device, preset.rays_per_chunk)

    def sides(width: int, height: int) -> dict[str, Side]:
        rays = data.view_rays(0, width, height)
        return {name: Side(partial(draw, run.scene, *rays, chunk), ours.use_threads) for name, draw in OUTPUTS.items()}

    width, height = settings.width, settings.height
    factors = (0.25, 0.5, 1.0, 2.0) if settings.scaling else ()
    sizes = [(max(4, round(width * factor)), max(4, round(height * factor))) for factor in factors]
    pixels = sum(w * h for w, h in sizes) + width * height * (settings.repeats + 1) * len(counts)
    with Stage("Measuring pictures", float(pixels)) as stage:
        rows: list[dict[str, Any]] = []
        for count in counts:
            stage.describe(f"{width} x {height}, {count} thread(s)")
            runs = take_turns(sides(width, height), count, settings.repeats, device)
            rows.append({"threads": count} | {f"{name}_runs": taken for name, taken in runs.items()})
            rows[-1] |= {f"{name}_seconds": statistics.median(taken) for name, taken in runs.items()}
            stage.advance(width * height * (settings.repeats + 1))
        headline = {key: rows[-1][key] for key in ("alpha_seconds", "all_outputs_seconds", "threads")}
        result |= {**headline, "width": width, "height": height, "preset": settings.preset, "by_threads": rows}
        matte = ours.alpha(run.scene, *data.view_rays(0, width, height), chunk).reshape(height, width)
        result["mask_iou"] = _mask_iou(matte.cpu().numpy(), data.held_out_masks[0])
        result["scaling"] = {"pixels": []}
        for w, h in sizes:
            stage.describe(f"growth with image size: {w} x {h}")
            runs = take_turns(sides(w, h), counts[-1], 1, device, warm_up=0)
            taken = {f"{name}_seconds": value for name, (value,) in runs.items()}
            row = {"pixels": w * h, "width": w, "height": h, "threads": counts[-1], **taken}
            result["scaling"]["pixels"].append(row)
            stage.advance(w * h)
    return result


def _mask_iou(matte: np.ndarray, truth: np.ndarray) -> float:
    """IoU of the mask of a rendered matte (H, W) with the true one (h, w), at the rendered size."""
    import cv2

    true = cv2.resize(truth.astype(np.float32), matte.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    return intersection_over_union(matte > 0.5, true)
