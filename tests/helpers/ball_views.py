"""Cameras around a ball, and its silhouettes in them."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views
from tests.helpers.poses import look_at

CENTRE, RADIUS = np.array([0.3, -0.2, 0.5]), 0.6
"""Of the ball."""


def ring(count: int, target=(0.0, 0.0, 0.0), distance=4.0, size=(160, 120), focal=170.0, distortion=None) -> Views:
    """Cameras on three rings around a target."""
    target = np.asarray(target, float)
    poses = []
    for index in range(count):
        angle, height = 2 * np.pi * index / count, [-0.4, 0.4, 1.0][index % 3]
        offset = np.array([np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height), np.sin(height)])
        poses.append(look_at(target + distance * offset, target)[:3])
    one = np.ones(count)
    lens = np.zeros((count, 6)) if distortion is None else np.tile(distortion, (count, 1))
    return Views(
        np.array(poses),
        focal * one,
        focal * one,
        size[0] / 2 * one,
        size[1] / 2 * one,
        size[0] * one,
        size[1] * one,
        lens,
    )


def sphere_masks(views: Views, centre, radius: float) -> list[np.ndarray]:
    """Exact silhouettes of a sphere, by its rays."""
    masks = []
    for index in range(len(views)):
        rows, columns = np.mgrid[: views.height[index], : views.width[index]]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        to_centre = np.asarray(centre) - views.centres()[index]
        along = rays @ to_centre
        masks.append(((along > 0) & ((to_centre**2).sum() - along**2 < radius**2)).reshape(rows.shape))
    return masks


def corrupt(masks: list[np.ndarray], share: float, seed: int = 0) -> list[np.ndarray]:
    """Replaces a share of the masks by empty ones, shifted blobs, or ones with a large bite."""
    generator = np.random.default_rng(seed)
    result = [mask.copy() for mask in masks]
    for turn, index in enumerate(generator.choice(len(masks), round(share * len(masks)), replace=False)):
        mask = result[index]
        if turn % 3 == 0:
            mask[:] = False
        elif turn % 3 == 1:
            mask[:] = np.roll(mask, (35, -40), axis=(0, 1))
        else:
            rows, columns = np.nonzero(mask)
            cv2_mask = mask.astype(np.uint8)
            cv2.circle(cv2_mask, (int(columns.min()) + 5, int(rows.mean())), 18, 0, -1)
            mask[:] = cv2_mask > 0
    return result


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())
