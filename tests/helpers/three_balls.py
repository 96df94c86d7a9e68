"""Photos of three mottled balls of different colours on a mottled floor, ray-cast, with true identities and points."""

from __future__ import annotations

import cv2
import numpy as np

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.views import Views
from tests.helpers.ball_views import ring

BALLS = ((np.array([0.0, 0.0, 0.5]), 0.5), (np.array([1.1, 0.5, 0.35]), 0.35), (np.array([-0.6, 1.0, 0.3]), 0.3))
"""Centre and radius of each ball; the floor is at z = 0."""
COLOURS = (((150, 60, 20), (255, 150, 70)), ((20, 110, 30), (110, 220, 100)), ((150, 20, 130), (255, 110, 230)))
"""Darkest and brightest colour of each ball."""
FLOOR = ((60, 80, 100), (150, 170, 190))


def _texture(seed: int, low, high) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (256, 256, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    smooth = (smooth - smooth.min((0, 1))) / np.ptp(smooth, axis=(0, 1))
    return np.asarray(low) + smooth * (np.asarray(high, float) - low)


def cameras_around_balls(count: int = 12, size=(160, 120)) -> Views:
    """Cameras that look at the balls from above the floor."""
    views = ring(count * 3 // 2, (0.2, 0.4, 0.4), distance=4.5, size=size, focal=160.0 * size[0] / 160)
    return views.subset([index for index in range(len(views)) if index % 3])


def three_balls(views: Views) -> tuple[list[np.ndarray], list[np.ndarray], SparsePoints]:
    """N photos (H, W, 3) uint8, N true identities (H, W) uint8 (1 to 3), and points with their visibility."""
    textures = [_texture(number, *colours) for number, colours in enumerate(COLOURS)]
    ground = _texture(9, *FLOOR)
    photos, identities = [], []
    for index in range(len(views)):
        height, width = int(views.height[index]), int(views.width[index])
        rows, columns = np.mgrid[:height, :width]
        rays = views.rays(index, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=-1))
        start = views.centres()[index]
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = (start - rays * (start[2] / rays[:, 2:]))[:, :2]
        floor[(rays[:, 2] >= 0) | (np.abs(floor).max(axis=1) > 5)] = 5
        colour, nearest = _sample(ground, floor / 5), np.full(len(rays), np.inf)
        owner = np.zeros(len(rays), np.uint8)
        for identity, ((centre, radius), texture) in enumerate(zip(BALLS, textures, strict=True), start=1):
            depth = _depth(rays, start, centre, radius)
            ours = depth < nearest
            nearest[ours], owner[ours] = depth[ours], identity
            colour[ours] = _sample(texture, _angles((start + rays[ours] * depth[ours, None] - centre) / radius))
        photos.append(np.clip(colour, 0, 255).astype(np.uint8).reshape(height, width, 3))
        identities.append(owner.reshape(height, width))
    return photos, identities, _points(views, textures, ground)


def _points(views: Views, textures: list[np.ndarray], ground: np.ndarray) -> SparsePoints:
    generator = np.random.default_rng(2)
    flat = np.concatenate([generator.uniform(-3, 3, (900, 2)), generator.normal(0, 0.005, (900, 1))], axis=1)
    xyz, rgb = [flat], [_sample(ground, flat[:, :2] / 5)]
    for (centre, radius), texture in zip(BALLS, textures, strict=True):
        direction = generator.normal(size=(200, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        xyz.append(centre + radius * direction)
        rgb.append(_sample(texture, _angles(direction)))
    points = np.concatenate(xyz)
    seen = np.zeros((len(points), len(views)), bool)
    inside = views.inside(views.project(points)[0])
    for index, start in enumerate(views.centres()):
        sight = points - start
        distance = np.linalg.norm(sight, axis=1)
        hidden = np.zeros(len(points), bool)
        for centre, radius in BALLS:
            hidden |= _depth(sight / distance[:, None], start, centre, radius) < distance - 0.02
        seen[:, index] = ~hidden & inside[index]
    shown = seen.sum(axis=1) >= 2
    return SparsePoints(
        points[shown], np.concatenate(rgb)[shown].astype(np.uint8), seen[shown].sum(axis=1), seen[shown]
    )


def _depth(rays: np.ndarray, start: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """(P,) how far along rays (P, 3) a ball is met; infinite where it is not."""
    along = rays @ (centre - start)
    half = radius**2 - ((centre - start) ** 2).sum() + along**2
    return np.where((half > 0) & (along > 0), along - np.sqrt(np.maximum(half, 0)), np.inf)


def _angles(direction: np.ndarray) -> np.ndarray:
    return np.stack([np.arctan2(direction[:, 1], direction[:, 0]) / np.pi, direction[:, 2]], axis=-1)


def _sample(texture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Texture looked up at (P, 2) coordinates in [-1, 1]."""
    index = np.clip(((place + 1) * 127.5).astype(int), 0, 255)
    return texture[index[:, 1], index[:, 0]]
