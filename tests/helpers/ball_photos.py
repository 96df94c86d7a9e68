"""Photos of a ball on a striped floor with a smaller one of the same colour at its side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.provider import Photos


def looking_at_origin(count: int, width: int = 96, height: int = 72) -> Views:
    """Cameras on a circle around the origin, looking at it from three units away, 35 degrees up."""
    poses = np.zeros((count, 3, 4))
    for index, angle in enumerate(np.linspace(0, 2 * np.pi, count, endpoint=False)):
        back = np.array([np.cos(angle) * 0.82, np.sin(angle) * 0.82, 0.574])
        back = back / np.linalg.norm(back)
        right = np.cross([0, 0, 1], back)
        right = right / np.linalg.norm(right)
        poses[index] = np.stack([right, np.cross(back, right), back, 3 * back], axis=-1)
    full = np.ones(count)
    return Views(poses, 100 * full, 100 * full, width / 2 * full, height / 2 * full, width * full, height * full)


def ball_photos(count: int = 12) -> tuple[Photos, list[np.ndarray]]:
    """A red ball of radius 0.35 on a striped floor, and one half as large of the same red at its side."""
    views = looking_at_origin(count)
    generator = np.random.default_rng(0)
    images, truths = [], []
    row, column = np.mgrid[:72, :96] + 0.5
    pixels = np.stack([column.ravel(), row.ravel()], axis=-1)
    for view in range(count):
        rays, start = views.rays(view, pixels), views.centres()[view]
        floor = (-0.35 - start[2]) / rays[:, 2]
        ground = start + rays * floor[:, None]
        stripes = (np.floor(ground[:, 0] * 4).astype(int) % 2)[:, None]
        colour = np.where(stripes == 0, [200, 190, 150], [90, 110, 140]).astype(float)
        colour[floor < 0] = [120, 160, 200]
        hits = {}
        for name, centre, radius in (("twin", np.array([0.9, 0.8, -0.2]), 0.15), ("ball", np.zeros(3), 0.35)):
            along = rays @ (centre - start)
            hits[name] = (np.linalg.norm(start + rays * along[:, None] - centre, axis=1) < radius).reshape(72, 96)
            colour[hits[name].ravel()] = [190, 60, 50]
        image = colour.reshape(72, 96, 3) + 6 * generator.standard_normal((72, 96, 3))
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        truths.append(hits["ball"])
    files = [Path(f"{view:03}.png") for view in range(count)]
    return Photos(files, images, views, [(96, 72)] * count), truths
