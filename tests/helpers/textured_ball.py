"""Photos of a mottled ball on a mottled floor, ray-cast, with true masks and points."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import ring, sphere_masks

BALL = np.array([0.0, 0.0, 0.6])
"""The ball's centre; the floor is at z = 0."""


def _texture(seed: int, low, high) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (256, 256, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    smooth = (smooth - smooth.min((0, 1))) / np.ptp(smooth, axis=(0, 1))
    return np.asarray(low) + smooth * (np.asarray(high, float) - low)


def textured_ball(views: Views) -> tuple[list[np.ndarray], list[np.ndarray], SparsePoints]:
    """A mottled orange ball on a mottled blue-grey floor, ray-cast; its true masks; points on both."""
    orange, grey = _texture(0, [150, 60, 20], [255, 150, 70]), _texture(1, [60, 80, 100], [150, 170, 190])
    photos, masks = [], sphere_masks(views, BALL, 0.6)
    for index, mask in enumerate(masks):
        height, width = mask.shape
        rows, columns = np.mgrid[:height, :width]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        centre = views.centres()[index]
        along = rays @ (BALL - centre)
        depth = along - np.sqrt(np.maximum(0.36 - ((BALL - centre) ** 2).sum() + along**2, 0))
        on_ball = (centre + rays * depth[:, None] - BALL) / 0.6
        angles = np.stack([np.arctan2(on_ball[:, 1], on_ball[:, 0]) / np.pi, on_ball[:, 2]], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = (centre - rays * (centre[2] / rays[:, 2:]))[:, :2]
        floor[(rays[:, 2] >= 0) | (np.abs(floor).max(axis=1) > 5)] = 5
        colour = np.where(mask.ravel()[:, None], _sample(orange, angles), _sample(grey, floor / 5))
        photos.append(np.clip(colour, 0, 255).astype(np.uint8).reshape(height, width, 3))
    generator = np.random.default_rng(2)
    direction = generator.normal(size=(300, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ground = np.concatenate([generator.uniform(-3, 3, (900, 2)), generator.normal(0, 0.005, (900, 1))], axis=1)
    ball_angles = np.stack([np.arctan2(direction[:, 1], direction[:, 0]) / np.pi, direction[:, 2]], axis=-1)
    rgb = np.concatenate([_sample(orange, ball_angles), _sample(grey, ground[:, :2] / 5)])
    xyz = np.concatenate([BALL + 0.6 * direction, ground])
    return photos, masks, SparsePoints(xyz, rgb.astype(np.uint8), np.full(len(xyz), 4))


def _sample(texture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Texture looked up at (P, 2) coordinates in [-1, 1]."""
    index = np.clip(((place + 1) * 127.5).astype(int), 0, 255)
    return texture[index[:, 1], index[:, 0]]


def cameras_above(count: int = 18) -> Views:
    """Cameras that look at the ball from above the floor."""
    views = ring(count * 3, BALL)
    return views.subset([index for index in range(len(views)) if index % 3])
