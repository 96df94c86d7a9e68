"""How much memory rays take on a GPU, and how many fit.

Counted for the dense path: every field at every sample. Numbers of floats at a sample are those that torch allocates
for a field with the hash grid as one operation: W features of its grid, H hidden units. In training, what the backward
pass needs of all fields is held at the same time, and gradients of the largest ones beside it; in rendering one field
is done before the next one starts.
"""

from __future__ import annotations

import torch

from surface_sos_ns.fields.label import LABEL_HIDDEN
from surface_sos_ns.models.surface_sos.config import SceneConfig

FLOAT_BYTES = 4
SAMPLE_FLOATS, CANDIDATE_FLOATS = 100, 40
"""Floats at a sample besides the fields' (points, opacities, weights, what is kept for colours), and at a coarse
interval."""
OBJECT_FLOATS = 6
"""Floats at a sample for each object beyond the first: logit, probability, share, and their gradients."""
RAYS_SHARE = 0.5
"""Share of the free memory that rays may take. The rest is for fragmentation, and for a hash grid in torch, which takes
more."""
MIN_TRAINING_RAYS = 256
"""Rays of a step below which a smaller batch is not advised: gradients get too noisy."""
MIN_RAYS_AT_ONCE, MAX_RAYS_AT_ONCE = 1 << 10, 1 << 17
"""Bounds of the rays rendered at once: fewer leave a GPU idle, more gain nothing."""


def training_bytes_per_ray(config: SceneConfig, objects: int = 1) -> int:
    """Bytes of GPU memory that a ray takes in a training step of a number of objects."""
    wide, hidden = config.foreground_grid.width, config.hidden
    back = config.background_grid.width
    surface, density, colour = 10 * wide + 4 * hidden + 44, back + 3 * hidden + 12, 4 * hidden + 38
    if config.background == "sdf":
        density = 10 * back + 4 * hidden + 44
    label = config.label_grid.width + 3 * LABEL_HIDDEN + 4 + OBJECT_FLOATS * (objects - 1)
    return _per_ray(config, config.samples, surface + density + label + 2 * colour)


def rendering_bytes_per_ray(config: SceneConfig, objects: int = 1) -> int:
    """Bytes of GPU memory that a ray takes in rendering of a number of objects."""
    wide, hidden = max(config.foreground_grid.width, config.background_grid.width), config.hidden
    field = max(4 * wide + 3 * hidden + 14, 3 * hidden + 51)
    return _per_ray(config, config.render_samples, field + OBJECT_FLOATS * (objects - 1))


def _per_ray(config: SceneConfig, samples: int, floats: int) -> int:
    return FLOAT_BYTES * (samples * (floats + SAMPLE_FLOATS) + sum(config.candidates) * CANDIDATE_FLOATS)


def rays_that_fit(free_bytes: int, bytes_per_ray: int) -> int:
    """How many rays to render at once: the largest power of two that fits, within the bounds of rays at once."""
    fitting = max(1, int(RAYS_SHARE * free_bytes / bytes_per_ray))
    return min(max(1 << (fitting.bit_length() - 1), MIN_RAYS_AT_ONCE), MAX_RAYS_AT_ONCE)


def rays_at_once(config: SceneConfig, device: torch.device, configured: int, objects: int = 1) -> int:
    """How many rays to render at once on a device: as many as fit on a GPU, elsewhere the number configured."""
    if device.type != "cuda":
        return configured
    return rays_that_fit(free_gpu_bytes(device), rendering_bytes_per_ray(config, objects))


def why_training_does_not_fit(
    config: SceneConfig, parameters: int, rays: int, free_bytes: int, objects: int = 1
) -> str | None:
    """Warning to show before training if a step's rays may not fit on the GPU; None if they fit.

    Args:
        config: of the scene.
        parameters: their number. Gradients and the optimisers' two moments are not allocated yet.
        rays: in a step.
        free_bytes: of the GPU, the parameters being there already.
        objects: their number.
    """
    per_ray = training_bytes_per_ray(config, objects)
    left = RAYS_SHARE * (free_bytes - 3 * FLOAT_BYTES * parameters)
    fitting = max(0, int(left / per_ray))
    if rays <= fitting:
        return None
    needed = (rays * per_ray / RAYS_SHARE + 3 * FLOAT_BYTES * parameters) / 1e9
    advice = "stop other programs on it, or train surface-sos-lite"
    if fitting >= MIN_TRAINING_RAYS:
        advice = f"if it runs out, set --pipeline.datamanager.train-num-rays-per-batch {fitting // 64 * 64}"
    return (
        f"Warning: steps of {rays} rays take up to {needed:.1f} GB of GPU memory, of which {free_bytes / 1e9:.1f} GB "
        f"are free: {advice}."
    )


def free_gpu_bytes(device: torch.device) -> int:
    """Memory that this process can still have on a CUDA device: what is free, and what torch holds without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
