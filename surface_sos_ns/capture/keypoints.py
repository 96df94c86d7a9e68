"""SIFT keypoints in undistorted image coordinates, and the essential matrices between views."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from surface_sos_ns.capture.views import Views

__all__ = ["Keypoints", "camera_from_world", "essential_matrix", "find_keypoints", "match_descriptors", "pixel_size"]

LONGEST_SIDE = 960
"""Longer side in pixels to which photos are downscaled before detection."""
MAX_KEYPOINTS = 2500
"""Keypoints per photo, the strongest ones."""


@dataclass(frozen=True)
class Keypoints:
    """The F keypoints of a photo.

    Attributes:
        normalised: (F, 2) float64, undistorted normalised image coordinates (the image plane at depth 1; x right, y
            down).
        descriptors: (F, 128) float32, RootSIFT (Arandjelovic and Zisserman 2012), unit length.
        rgb: (F, 3) uint8, colour of the pixel.
    """

    normalised: np.ndarray
    descriptors: np.ndarray
    rgb: np.ndarray


def find_keypoints(image: np.ndarray, views: Views, index: int) -> Keypoints:
    """Detects the keypoints of a photo.

    Args:
        image: (H, W, 3) uint8 RGB, of any size with the aspect ratio of the view.
        views: the cameras.
        index: of the photo's view.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    small = image
    if shrink < 1:
        small = cv2.resize(image, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT.create(nfeatures=MAX_KEYPOINTS, contrastThreshold=0.02)
    found, descriptors = detector.detectAndCompute(grey, None)  # type: ignore[call-overload]  # None: no mask
    if descriptors is None or not len(found):
        return Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32), np.zeros((0, 3), np.uint8))
    position = np.array([keypoint.pt for keypoint in found])
    rows, columns = np.clip(np.rint(position[:, ::-1]).astype(int), 0, np.array(small.shape[:2]) - 1).T
    uv = (position + 0.5) * [views.width[index] / small.shape[1], views.height[index] / small.shape[0]]
    local = views.rays(index, uv) @ views.camera_to_world[index, :, :3]
    # More than 80 degrees off axis (fisheye lenses), points have no stable place in a pinhole image plane.
    usable = -local[:, 2] > 0.17
    local = local[usable]
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))[usable]
    plane = np.stack([local[:, 0], -local[:, 1]], axis=-1) / -local[:, 2:]
    return Keypoints(plane, root.astype(np.float32), small[rows, columns][usable])


def match_descriptors(cosine: np.ndarray, max_ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches unit descriptors of two photos: mutual nearest neighbours that pass the ratio test (Lowe 2004).

    Args:
        cosine: (F, G) products of the descriptors; -1 excludes a pair. It is overwritten.
        max_ratio: largest ratio of the distances to the nearest and to the second nearest descriptor.

    Returns:
        Indices (M,) into the first and (M,) into the second photo's descriptors, and the matches' cosines (M,).
    """
    nearest = cosine.argmax(axis=1)
    rows = np.arange(len(nearest))
    best = cosine[rows, nearest]
    mutual = cosine.argmax(axis=0)[nearest] == rows
    cosine[rows, nearest] = -1.0
    second_best = np.maximum(cosine.max(axis=1), 0)
    distance, second_distance = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (best, second_best))
    good = mutual & (distance < max_ratio * second_distance)
    return rows[good], nearest[good], best[good]


def pixel_size(views: Views, index: int) -> float:
    """Size of a pixel in normalised image coordinates, for a photo downscaled to `LONGEST_SIDE`."""
    longest = float(max(views.width[index], views.height[index]))
    return max(1.0, longest / LONGEST_SIDE) / float(views.fx[index])


def camera_from_world(views: Views, index: int) -> np.ndarray:
    """(3, 4) world-to-camera matrix of a view, in OpenCV's axes (x right, y down, z forward), world units."""
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ views.camera_to_world[index, :, :3].T
    return np.concatenate([rotation, -(rotation @ views.camera_to_world[index, :, 3])[:, None]], axis=1)


def essential_matrix(views: Views, first: int, second: int) -> np.ndarray:
    """(3, 3) essential matrix E of two views: matching normalised points x1, x2 (homogeneous) have x2^T E x1 = 0."""
    pose_a, pose_b = camera_from_world(views, first), camera_from_world(views, second)
    rotation = pose_b[:, :3] @ pose_a[:, :3].T
    x, y, z = pose_b[:, 3] - rotation @ pose_a[:, 3]
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
