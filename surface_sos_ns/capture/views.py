"""Cameras as plain arrays: projection of points, and rays of pixels, with lens distortion.

Conventions are nerfstudio's: camera-to-world matrices in OpenGL axes (x right, y up, the camera looks along -z),
intrinsics in pixels with pixel centres at +0.5, distortion ``k1, k2, k3, k4, p1, p2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

__all__ = ["DISTORTION", "Views"]

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
"""Names of the distortion coefficients, in nerfstudio's order."""


@dataclass(frozen=True)
class Views:
    """N cameras. The first axis of all arrays is the view; lengths are in world units, image sizes in pixels.

    Attributes:
        camera_to_world: (N, 3, 4) float64, OpenGL cameras.
        fx, fy, cx, cy: (N,) focal lengths and principal points, pixels; pixel centres are at +0.5.
        width, height: (N,) int, pixels.
        distortion: (N, 6) in nerfstudio's order k1, k2, k3, k4, p1, p2; zeros mean none. For pinhole cameras
            ``d = 1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8`` scales the normalised image point at radius r, for fisheye
            cameras the same polynomial scales the angle; p1, p2 are OpenCV's tangential terms.
        fisheye: (N,) bool, equidistant fisheye instead of pinhole.

    Raises:
        ValueError: the arrays' shapes do not agree, or values are not finite.
    """

    camera_to_world: np.ndarray
    fx: np.ndarray
    fy: np.ndarray
    cx: np.ndarray
    cy: np.ndarray
    width: np.ndarray
    height: np.ndarray
    distortion: np.ndarray = None  # type: ignore[assignment]  # None stands for zeros until __post_init__ is done
    fisheye: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        poses = np.asarray(self.camera_to_world, dtype=np.float64)
        if poses.ndim != 3 or poses.shape[1] not in (3, 4) or poses.shape[2] != 4:
            raise ValueError(f"camera_to_world has shape {poses.shape}; expected (N, 3, 4), one pose per view.")
        count = len(poses)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("fx", "fy", "cx", "cy", "width", "height"), (count,))
        shapes |= {"fisheye": (count,), "distortion": (count, 6)}
        values: dict[str, np.ndarray] = {"camera_to_world": poses[:, :3]}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                value = np.zeros(shape)
            dtype = {"width": np.int64, "height": np.int64, "fisheye": np.bool_}.get(name, np.float64)
            try:
                values[name] = np.ascontiguousarray(np.broadcast_to(np.asarray(value), shape)).astype(dtype)
            except ValueError:
                raise ValueError(
                    f"Views.{name} has shape {np.shape(value)}; expected {shape} for {count} views."
                ) from None
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = np.flatnonzero(~np.isfinite(value.reshape(count, -1)).all(axis=1))
                raise ValueError(f"Views.{name} of view(s) {bad.tolist()} is not finite; leave those photos out.")
            object.__setattr__(self, name, value)  # the dataclass is frozen

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Views:
        """The views at ``indices`` (ints or a boolean mask), in that order."""
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        return Views(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def scaled(self, factor: float) -> Views:
        """Cameras of images resized by ``factor``. Sizes are rounded, and intrinsics are scaled to the rounded sizes.

        Raises:
            ValueError: the factor is not positive.
        """
        if not factor > 0:
            raise ValueError(f"The scale factor is {factor}; expected a positive number.")
        width = np.maximum(np.rint(self.width * factor), 1).astype(np.int64)
        height = np.maximum(np.rint(self.height * factor), 1).astype(np.int64)
        across, down = width / self.width, height / self.height
        return Views(
            self.camera_to_world,
            self.fx * across,
            self.fy * down,
            self.cx * across,
            self.cy * down,
            width,
            height,
            self.distortion,
            self.fisheye,
        )

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image, pixels."""
        return [(int(width), int(height)) for width, height in zip(self.width, self.height, strict=True)]

    def centres(self) -> np.ndarray:
        """(N, 3) camera centres, world frame."""
        return self.camera_to_world[:, :, 3]

    def axes(self) -> np.ndarray:
        """(N, 3) unit vectors along the optical axes, forward, world frame."""
        forward = -self.camera_to_world[:, :, 2]
        return forward / np.linalg.norm(forward, axis=1, keepdims=True)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects points into every view.

        Args:
            points: (P, 3), world frame.

        Returns:
            uv: (N, P, 2) pixels (x right, y down, pixel centres at +0.5), distorted. nan for points behind the camera
                (depth <= 0), and for points beyond the radius up to which the distortion polynomial increases. Points
                outside the image have coordinates as well.
            depth: (N, P) distance along the optical axis.
        """
        pairs = [self.project_one(view, points) for view in range(len(self))]
        if not pairs:
            return np.zeros((0, len(points), 2)), np.zeros((0, len(points)))
        return np.stack([uv for uv, _ in pairs]), np.stack([depth for _, depth in pairs])

    def project_one(self, view: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`project` for one view: uv (P, 2), depth (P,). Points in float32 are projected in float32."""
        points = np.asarray(points)
        dtype = np.float32 if points.dtype == np.float32 else np.float64
        rotation = self.camera_to_world[view, :, :3]
        offset = rotation.T @ self.camera_to_world[view, :, 3]
        local = points @ rotation.astype(dtype) - offset.astype(dtype)
        x, y, depth = self.project_camera(view, local[..., 0], local[..., 1], local[..., 2])
        return np.stack([x, y], axis=-1), depth

    def pixel_places(self, view: int, points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """(P,) int64 positions, row by row, of the pixels in which one view sees points; -1 out of the picture.

        Args:
            view: its index.
            points: (P, 3), world frame. Points in float32 are projected in float32.
            size: rows and columns of the picture, which may be smaller or larger than the view's.
        """
        rows, columns = size
        uv, _ = self.project_one(view, points)
        with np.errstate(invalid="ignore"):
            column = np.floor(uv[:, 0] * (columns / int(self.width[view])))
            row = np.floor(uv[:, 1] * (rows / int(self.height[view])))
            inside = (column >= 0) & (row >= 0) & (column < columns) & (row < rows)
        places = np.full(len(points), -1, np.int64)
        places[inside] = (row[inside] * columns + column[inside]).astype(np.int64)
        return places

    def project_camera(
        self, view: int, right: np.ndarray, up: np.ndarray, back: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel coordinates x, y and depth of points in the camera's frame, given by their OpenGL coordinates.

        Args:
            view: index of the view.
            right, up, back: coordinates of the points, arrays of one shape.

        Returns:
            x, y, depth: arrays of that shape; nan as in :meth:`project`.
        """
        depth = -back
        behind = depth <= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.fisheye[view]:
                radius = np.hypot(right, up)
                ratio = np.where(radius > 0, np.arctan2(radius, depth) / np.maximum(radius, 1e-30), 1.0)
                x, y = right * ratio, -up * ratio
            else:
                inverse = 1 / depth
                x, y = right * inverse, -up * inverse
        invalid = behind
        if self.distortion[view].any():
            x, y, folded = self._distort(view, x, y)
            invalid = behind | folded
        with np.errstate(over="ignore", invalid="ignore"):  # points in the plane of the camera go to infinity
            u = x * self.fx[view].astype(x.dtype) + self.cx[view].astype(x.dtype)
            v = y * self.fy[view].astype(y.dtype) + self.cy[view].astype(y.dtype)
        if invalid.any():
            u, v = np.where(invalid, np.nan, u), np.where(invalid, np.nan, v)
        return u, v, depth

    def _distort(self, view: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distorted normalised coordinates, and whether points are beyond the radius of :func:`_max_squared_radius`."""
        k1, k2, k3, k4, p1, p2 = (float(value) for value in self.distortion[view])
        with np.errstate(over="ignore", invalid="ignore"):
            squared = x * x + y * y
            folded = ~(squared < _max_squared_radius(self.distortion[view]))
            scale = 1 + squared * (k1 + squared * (k2 + squared * (k3 + squared * k4)))
            distorted_x, distorted_y = x * scale, y * scale
            if p1 or p2:
                product = 2 * x * y
                distorted_x = distorted_x + p1 * product + p2 * (squared + 2 * x * x)
                distorted_y = distorted_y + p2 * product + p1 * (squared + 2 * y * y)
        return distorted_x, distorted_y, folded

    def _distortion_jacobian(
        self, view: int, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of distorted by undistorted coordinates: dx'/dx, dx'/dy (equal to dy'/dx) and dy'/dy."""
        k1, k2, k3, k4, p1, p2 = (float(value) for value in self.distortion[view])
        squared = x * x + y * y
        scale = 1 + squared * (k1 + squared * (k2 + squared * (k3 + squared * k4)))
        slope = 2 * (k1 + squared * (2 * k2 + squared * (3 * k3 + squared * 4 * k4)))
        xx = scale + slope * x * x + 2 * p1 * y + 6 * p2 * x
        xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
        yy = scale + slope * y * y + 2 * p2 * x + 6 * p1 * y
        return xx, xy, yy

    def rays(self, view: int, uv: np.ndarray) -> np.ndarray:
        """Directions of the rays through pixels, world frame: the inverse of :meth:`project`.

        Args:
            view: index of the view.
            uv: (P, 2) pixels, pixel centres at +0.5.

        Returns:
            (P, 3) unit vectors; the rays start at ``centres()[view]``.
        """
        uv = np.asarray(uv, dtype=np.float64)
        x, y = self.normalised(view, uv).T
        if self.fisheye[view]:
            theta = np.minimum(np.hypot(x, y), np.pi)
            ratio = np.sinc(theta / np.pi)  # sin(theta) / theta, 1 on the axis
            local = np.stack([x * ratio, -y * ratio, -np.cos(theta)], axis=-1)
        else:
            local = np.stack([x, -y, -np.ones_like(x)], axis=-1)
        world = local @ self.camera_to_world[view, :, :3].T
        return world / np.linalg.norm(world, axis=-1, keepdims=True)

    def normalised(self, view: int, uv: np.ndarray) -> np.ndarray:
        """(P, 2) undistorted normalised image coordinates (y down) of pixels ``uv`` (P, 2), by Newton's method.

        For fisheye cameras their length is the angle to the optical axis, as in OpenCV's fisheye model.
        """
        uv = np.asarray(uv, dtype=np.float64)
        target_x = (uv[:, 0] - self.cx[view]) / self.fx[view]
        target_y = (uv[:, 1] - self.cy[view]) / self.fy[view]
        x, y = target_x.copy(), target_y.copy()
        if not self.distortion[view].any():
            return np.stack([x, y], axis=-1)
        limit = np.sqrt(_max_squared_radius(self.distortion[view])) * 0.999
        for _ in range(20):
            distorted_x, distorted_y, _ = self._distort(view, x, y)
            error_x, error_y = distorted_x - target_x, distorted_y - target_y
            xx, xy, yy = self._distortion_jacobian(view, x, y)
            determinant = xx * yy - xy * xy
            determinant = np.where(np.abs(determinant) > 1e-9, determinant, np.inf)
            x, y = x - (error_x * yy - error_y * xy) / determinant, y - (error_y * xx - error_x * xy) / determinant
            radius = np.hypot(x, y)  # stay within the radius up to which the distortion is invertible
            shrink = np.minimum(1, limit / np.maximum(radius, 1e-12))
            x, y = x * shrink, y * shrink
            if max(np.abs(error_x).max(initial=0), np.abs(error_y).max(initial=0)) < 1e-12:
                break
        return np.stack([x, y], axis=-1)

    def has_ray(self, view: int, uv: np.ndarray) -> np.ndarray:
        """(P,) bool: at which pixels ``uv`` (P, 2) the distortion can be inverted.

        It cannot where the distorted radius stops to increase before it reaches the pixel, as in the corners of a
        fisheye photo. There is no ray through these pixels.
        """
        uv = np.asarray(uv, dtype=np.float64)
        x, y = self.normalised(view, uv).T
        distorted_x, distorted_y, folded = self._distort(view, x, y)
        back = np.stack([distorted_x * self.fx[view] + self.cx[view], distorted_y * self.fy[view] + self.cy[view]], -1)
        xx, xy, yy = self._distortion_jacobian(view, x, y)
        with np.errstate(invalid="ignore", over="ignore"):
            found = (np.abs(back - uv).max(axis=-1) < 0.01) & ~folded & (xx * yy > xy * xy)
            return found & (np.hypot(x, y) < np.pi) if self.fisheye[view] else found

    def inside(self, uv: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """(N, P) bool: which pixels ``uv`` (N, P, 2) are in their image, ``margin`` pixels or more from its edge."""
        with np.errstate(invalid="ignore"):
            return (
                (uv[..., 0] >= margin)
                & (uv[..., 1] >= margin)
                & (uv[..., 0] < self.width[:, None] - margin)
                & (uv[..., 1] < self.height[:, None] - margin)
            )


def _max_squared_radius(distortion: np.ndarray) -> float:
    """Squared undistorted radius up to which ``r (1 + k1 r^2 + ...)`` increases; inf if it always does."""
    k1, k2, k3, k4 = distortion[:4]
    coefficients = np.array([9 * k4, 7 * k3, 5 * k2, 3 * k1, 1.0])
    if not coefficients[:4].any():
        return float("inf")
    roots = np.roots(coefficients)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1, np.abs(roots.real))) & (roots.real > 0)]
    return float(real.min()) if len(real) else float("inf")
