"""Photos of a known scene that features are found in: the corner of a room with three patterned sides."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, FOCAL = 400, 300, 340.0
SIDE = 4.0  # metres; the corner is at the origin and its sides lie along the axes
TURNING = 1.6  # metres of each side, where they are on a turntable
TEXTURE = 900  # pixels


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """(TEXTURE, TEXTURE, 3) uint8 with something to see at any distance."""
    layers = [cv2.GaussianBlur(rng.normal(size=(TEXTURE, TEXTURE, 3)), (0, 0), s) * s for s in (6, 12, 25)]
    return np.clip(128 + 55 * np.sum(layers, axis=0), 0, 255).astype(np.uint8)


def cameras(count: int, level: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 3, 3) of OpenCV cameras to the world and centres (N, 3), around the corner, looking into it.

    Args:
        level: on a circle around an upright axis, as a turntable has them; else they go up and down.
    """
    turn = np.linspace(0.1, 0.42, count) * np.pi
    if level:
        middle = np.array([0.8, 0.8, 0.0])
        centres = middle + np.stack([3.4 * np.cos(turn), 3.4 * np.sin(turn), np.full(count, 1.9)], axis=1)
        forward, up = middle + np.array([0.0, 0.0, 0.7]) - centres, [0.0, 0.0, 1.0]
    else:
        centres = np.stack([4.2 * np.cos(turn), 4.2 * np.sin(turn), 1.6 + 0.9 * np.sin(3 * turn)], axis=1)
        forward, up = np.array([0.7, 0.7, 0.8]) - centres, [0.0, 0.1, 1.0]
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=-1), centres


def write_photos(
    folder: Path, count: int, seed: int = 0, turntable: Path | None = None, level: bool = False
) -> list[str]:
    """Writes the photos; their names.

    Args:
        turntable: folder for masks, by the photos' names. The sides are smaller then, and around them is a patterned
            room that stands still in all photos.
        level: see `cameras`.
    """
    rng = np.random.default_rng(seed)
    textures = [_pattern(rng) for _ in range(3)]
    room = _pattern(rng)[: 2 * HEIGHT, : 2 * WIDTH]
    whole = np.full((TEXTURE, TEXTURE), 255, np.uint8)
    if turntable is not None:
        turntable.mkdir(parents=True, exist_ok=True)
        whole[round(TEXTURE * TURNING / SIDE) :] = whole[:, round(TEXTURE * TURNING / SIDE) :] = 0
    folder.mkdir(parents=True, exist_ok=True)
    lens = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    names = []
    for index, (rotation, centre) in enumerate(zip(*cameras(count, level), strict=True)):
        picture = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8) if turntable is None else room.copy()
        mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
        for axis, texture in enumerate(textures):
            # Metres along the side's two edges to pixels: the columns of the pose that these edges pick.
            edges = np.eye(3)[[(axis + 1) % 3, (axis + 2) % 3]].T
            to_pixels = lens @ rotation.T @ np.concatenate([edges, -centre[:, None]], axis=1)
            to_metres = np.diag([SIDE / TEXTURE, SIDE / TEXTURE, 1])
            homography = np.diag([2, 2, 1]) @ to_pixels @ to_metres  # twice the size, then averaged: smooth edges
            # OpenCV counts from pixels' centres, the lens from their corners.
            shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
            homography = np.linalg.inv(shift) @ homography @ shift
            size = (2 * WIDTH, 2 * HEIGHT)
            seen = cv2.warpPerspective(whole, homography, size)
            mask = np.maximum(mask, seen)
            picture[seen > 127] = cv2.warpPerspective(texture, homography, size, flags=cv2.INTER_LINEAR)[seen > 127]
        names.append(f"view {index + 1}.png")
        cv2.imwrite(str(folder / names[-1]), cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
        if turntable is not None:
            cv2.imwrite(str(turntable / names[-1]), cv2.resize(mask, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return names
