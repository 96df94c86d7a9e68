"""Silhouettes of the visual hull in the views: splatting, and ray marching at the outline."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from surface_sos_ns.capture.hull import VisualHull, voxel_centres
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views

__all__ = ["outline_band", "project_hull", "voxel_footprint"]


def project_hull(
    hull: VisualHull, sphere: ObjectSphere, views: Views, size: tuple[int, int] | None = None, floor: float = 0.02
) -> np.ndarray | list[np.ndarray]:
    """The hull's soft silhouette: per pixel the largest probability along its ray.

    Voxels are splatted first. Rays near the silhouette's outline are then marched with trilinear interpolation.

    Args:
        hull: the visual hull.
        sphere: defines the object frame of the hull.
        views: N views, world frame.
        size: (height, width) of the result; None takes each view's own size.
        floor: probabilities below this become 0.

    Returns:
        (N, H, W) float32 in [0, 1]; with ``size=None`` and views of different sizes a list of (H, W) arrays.
    """
    images = []
    for view in range(len(views)):
        single = views.subset([view])
        height, width = size if size is not None else (int(single.height[0]), int(single.width[0]))
        images.append(_project_one(hull, sphere, single, height, width, floor))
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    return images


def outline_band(silhouette: np.ndarray, width: float) -> np.ndarray:
    """(H, W) bool: ``silhouette`` (H, W, bool) dilated by ``width`` pixels; empty if it has no outline."""
    if not silhouette.any() or silhouette.all():
        return np.zeros(silhouette.shape, dtype=bool)
    outside = cv2.distanceTransform((~silhouette).astype(np.uint8), cv2.DIST_L2, 5)
    return outside <= width


def voxel_footprint(view: Views, index: int, sphere: ObjectSphere, resolution: int) -> float:
    """Edge length of a voxel in pixels of a view, at the depth of the object's centre (half a radius at least)."""
    depth = float((sphere.centre - view.centres()[index]) @ view.axes()[index])
    depth = max(depth, 0.5 * sphere.radius)
    return float(max(view.fx[index], view.fy[index])) * (2 * sphere.radius / resolution) / depth


def _project_one(
    hull: VisualHull, sphere: ObjectSphere, view: Views, height: int, width: int, floor: float
) -> np.ndarray:
    """(height, width) soft silhouette in ``view``, which holds a single view."""
    resized = Views(
        view.camera_to_world,
        view.fx * width / view.width,
        view.fy * height / view.height,
        view.cx * width / view.width,
        view.cy * height / view.height,
        np.array([width]),
        np.array([height]),
        view.distortion,
        view.fisheye,
    )
    splat = _splat(resized, 0, hull.probability, sphere, floor)
    lowest, highest = ndimage.minimum_filter(splat, 5), ndimage.maximum_filter(splat, 5)
    near_outline = (highest > floor) & (lowest < 0.9)
    rows, columns = np.nonzero(near_outline)
    image = np.where(near_outline, 0.0, splat).astype(np.float32)
    if not len(rows):
        return image
    directions = resized.rays(0, np.stack([columns + 0.5, rows + 0.5], axis=-1))
    origin = (resized.centres()[0] - sphere.centre) / sphere.radius
    image[rows, columns] = _march(hull.probability, origin, directions, floor)
    image[image < floor] = 0.0
    return image


def _march(values: np.ndarray, origin: np.ndarray, directions: np.ndarray, floor: float) -> np.ndarray:
    """(P,) maximum of a grid over [-1, 1]^3 along rays; 0 for rays that miss it.

    Ray marching in steps of one voxel with nearest-neighbour look-ups finds the maximum; trilinear interpolation in
    steps of half a voxel around it gives its value. Only the bounding box of the voxels above ``floor`` is marched.

    Args:
        values: (R, R, R) grid.
        origin: (3,) of all rays, object frame.
        directions: (P, 3), object frame.
        floor: values up to this are empty.
    """
    resolution = values.shape[0]
    occupied = np.argwhere(values > floor)
    # Grid coordinates from here on: voxel (i, j, k) has its centre at (i, j, k).
    lower, upper = occupied.min(axis=0) - 1.0, occupied.max(axis=0) + 1.0
    start = (origin + 1) * (resolution / 2) - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (lower - start) / directions, (upper - start) / directions
    near = np.nanmax(np.minimum(first, second), axis=1).clip(min=0)
    far = np.nanmin(np.maximum(first, second), axis=1)
    result = np.zeros(len(directions), np.float32)
    hit = np.flatnonzero(far > near)
    if not len(hit):
        return result
    padded = np.pad(values, 2).ravel()  # rays step at most one voxel out of the box, so look-ups need no clamp
    stride = resolution + 4
    to_index = np.float32(2.5)  # padding of 2, and rounding by truncation
    for chunk in np.array_split(hit, max(1, len(hit) // 4096)):
        entry = (start + directions[chunk] * near[chunk, None]).astype(np.float32)
        direction = directions[chunk].astype(np.float32)
        length = (far - near)[chunk].astype(np.float32)
        best = np.full(len(chunk), -1.0, np.float32)
        best_along = np.zeros(len(chunk), np.float32)
        for step in np.arange(0.5, float(length.max()) + 0.5, 1.0, dtype=np.float32):
            along = np.minimum(length, step)
            flat = np.zeros(len(chunk), np.int32)
            for axis in range(3):
                flat *= stride
                flat += (entry[:, axis] + direction[:, axis] * along + to_index).astype(np.int32)
            found = padded.take(flat)
            better = found > best
            best = np.where(better, found, best)
            best_along = np.where(better, along, best_along)
        around = best_along[:, None] + np.arange(-1.5, 1.6, 0.5, dtype=np.float32)
        index = entry.T[:, :, None] + direction.T[:, :, None] * around
        exact = ndimage.map_coordinates(values, index.reshape(3, -1), order=1, mode="constant", prefilter=False)
        result[chunk] = exact.reshape(around.shape).max(axis=1)
    return result


def _splat(view: Views, index: int, values: np.ndarray, sphere: ObjectSphere, floor: float) -> np.ndarray:
    """(H, W) largest value of the voxels that project to each pixel.

    Splatted at a resolution at which a voxel covers about one pixel, closed by 3 x 3, then enlarged.
    """
    height, width = int(view.height[index]), int(view.width[index])
    voxels = np.nonzero(values > floor)
    if not len(voxels[0]):
        return np.zeros((height, width), np.float32)
    axis = voxel_centres(values.shape[0]).astype(np.float64)
    points = np.stack([axis[i] for i in voxels], axis=-1) * sphere.radius + sphere.centre
    footprint = voxel_footprint(view, index, sphere, values.shape[0])
    shrink = max(1.0, footprint)
    small_height, small_width = max(1, round(height / shrink)), max(1, round(width / shrink))
    places = view.pixel_places(index, points, (small_height, small_width))
    visible = places >= 0
    image = np.zeros(small_height * small_width, np.float32)
    np.maximum.at(image, places[visible], values[voxels][visible])
    image = ndimage.grey_closing(image.reshape(small_height, small_width), 3)
    if (small_height, small_width) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image
