"""Poses of cameras on circles."""

from __future__ import annotations

import numpy as np


def look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world of a camera at ``centre`` that looks at ``target``, z up."""
    back = (centre - target) / np.linalg.norm(centre - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, centre], axis=1)
    return pose


def orbit(count: int, arc: float = 360.0, inward: bool = True) -> np.ndarray:
    """(N, 4, 4) poses on an arc (degrees) around the origin that look at it, or away from it."""
    angles = np.radians(np.linspace(0, arc, count, endpoint=False))
    centres = np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.full(count, 1.0)], axis=1)
    return np.stack([look_at(centre, np.zeros(3) if inward else 2 * centre) for centre in centres])


def orbit_pose(angle: float, radius: float = 3.0, height: float = 1.0) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world on a circle around (0.5, -0.2, 0), looking at it, z up."""
    target = np.array([0.5, -0.2, 0.0])
    return look_at(target + np.array([radius * np.cos(angle), radius * np.sin(angle), height]), target)
