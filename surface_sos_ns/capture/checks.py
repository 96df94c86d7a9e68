"""Checks of a capture before any long work: poses, lenses, image sizes, masks.

A check raises a `CaptureError`, or returns warnings, each a line of text. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.capture.names import listed
from surface_sos_ns.capture.views import DISTORTION, Views
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.image_io import ImageError, ImageHeader, Size, read_header

__all__ = [
    "CaptureError",
    "check_frames",
    "check_image_sizes",
    "check_lenses",
    "check_mask_sizes",
    "check_poses",
    "check_viewing_directions",
    "distinct_lenses",
    "matrix_of",
    "object_mask_warnings",
    "pixel_grid",
    "rayless_warning",
    "read_headers",
    "transparency_warning",
    "valid_mask_warning",
]

MAX_COORDINATE = 1e12
"""Largest absolute coordinate of a camera centre, units of the capture."""
ROTATION_TOLERANCE = 1e-5
"""Largest entry of |R^T R - I| at which a rotation R is used as it is; above, the nearest rotation replaces it."""
OUTLIER_DISTANCE = 1000.0
"""Distance of a camera centre from the median of all, over the median distance, above which its pose is wrong."""
MIN_FOCAL, MAX_FOCAL = 0.05, 500.0
"""Range of focal lengths, in multiples of the photo's longer side. A fisheye lens of 220 degrees has 0.26."""
MAX_FOCAL_RATIO = 4.0
"""Largest ratio of fl_x and fl_y. Anamorphic lenses, not desqueezed, have 2."""
MIN_BRIGHTNESS = 0.2
"""Brightest pixel of all masks, as a fraction of white, below which the values are probably labels (1, 2, ...)."""


class CaptureError(UserError):
    """The capture cannot be used as it is. The message names the file, what was expected and what to do."""


def check_frames(names: Sequence[str], source: Path) -> None:
    """Checks that there are at least two frames, and no file twice.

    Args:
        names: file_path of each frame.
        source: the file they come from, for messages.

    Raises:
        CaptureError: there are fewer than two frames, or a file is repeated.
    """
    if len(names) == 0:
        raise CaptureError(f"{source} lists no frames; expected at least two photos. Run ns-process-data again.")
    if len(names) == 1:
        raise CaptureError(
            f"{source} lists one frame only ({names[0]}); a surface needs photos from several places. "
            "Take more photos, or check why COLMAP placed one only."
        )
    seen: set[str] = set()
    for name in (Path(name).as_posix() for name in names):
        if name in seen:
            raise CaptureError(f"{source} lists {name} twice; each photo may have one pose. Remove one of the frames.")
        seen.add(name)


def matrix_of(rows: Sequence[Sequence[float]]) -> np.ndarray | None:
    """(4, 4) float64 of a 4 x 4 or 3 x 4 matrix; None for other shapes, or a last row that is not 0 0 0 1."""
    if len(rows) not in (3, 4) or any(len(row) != 4 for row in rows):
        return None
    values = np.array(rows, dtype=np.float64)
    return None if np.any(values[3:] != [0, 0, 0, 1]) else np.vstack([values[:3], [0, 0, 0, 1]])


def check_poses(matrices: Sequence, names: Sequence[str], source: Path) -> np.ndarray:
    """Checks poses, and returns them as one array.

    Args:
        matrices: per frame a 4 x 4 or 3 x 4 camera-to-world matrix (nested lists).
        names: per frame the photo's file, for messages.
        source: the file they come from, for messages.

    Returns:
        (N, 4, 4) float64. Rotations that were rounded to a few digits are replaced by the nearest rotation.

    Raises:
        CaptureError: a matrix of another shape or with another last row, one with NaN or infinite entries, one whose
            3 x 3 part is not a rotation (scaled, sheared, mirrored); all camera centres coincide, or one is far away
            from the others.
    """
    poses = np.empty((len(matrices), 4, 4))
    for index, (matrix, name) in enumerate(zip(matrices, names, strict=True)):
        values = matrix_of(matrix)
        if values is None:
            transposed = matrix_of([list(row) for row in zip(*matrix, strict=False)]) is not None
            raise CaptureError(
                f"{source}: the transform_matrix of {name} is not a 4 x 4 matrix of numbers whose last row is 0 0 0 1. "
                + ("It is transposed: write it row by row." if transposed else "Estimate its pose again.")
            )
        if not np.isfinite(values).all():
            raise CaptureError(
                f"{source}: the pose of {name} holds NaN or infinite values. "
                "Remove this frame or estimate its pose again."
            )
        rotation = values[:3, :3]
        with np.errstate(over="ignore", invalid="ignore"):
            error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
            mirrored = bool(np.linalg.det(rotation) < 0)
        if mirrored or not error <= 0.01:
            raise CaptureError(
                f"{source}: the pose of {name} is not rigid ({'mirrored' if mirrored else 'scaled or sheared'}); "
                "expected a rotation and a translation. Export the cameras again without scale or axis flips."
            )
        if error > ROTATION_TOLERANCE:
            left, _, right = np.linalg.svd(rotation)
            values[:3, :3] = left @ right
        poses[index] = values
    _check_camera_centres(poses[:, :3, 3], names, source)
    return poses


def _check_camera_centres(centres: np.ndarray, names: Sequence[str], source: Path) -> None:
    """Raises a CaptureError if camera centres (N, 3) coincide, are too far from the origin, or one is an outlier."""
    size = float(np.abs(centres).max())
    if size > MAX_COORDINATE:
        name = names[int(np.abs(centres).max(axis=1).argmax())]
        raise CaptureError(
            f"{source}: the camera of {name} is {size:.3g} units away from the origin; expected at most "
            f"{MAX_COORDINATE:g}. Remove this frame, or write the poses in another unit."
        )
    if np.abs(centres - centres.mean(axis=0)).max() < 1e-9 * max(1.0, size):
        raise CaptureError(
            f"{source}: all {len(centres)} cameras are in the same place, so nothing can be told about depth. "
            "Move the camera between photos instead of turning it on a tripod."
        )
    distance = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
    median, worst = float(np.median(distance)), int(distance.argmax())
    if median > 0 and distance[worst] > OUTLIER_DISTANCE * median:
        raise CaptureError(
            f"{source}: the camera of {names[worst]} stands {distance[worst] / median:.0f} times as far away as the "
            "others, which is a wrong pose. Remove this frame or estimate its pose again."
        )


def check_lenses(views: Views, names: Sequence[str], source: Path) -> None:
    """Checks that focal lengths, principal points and distortion are plausible for the photos' sizes.

    Args:
        views: N cameras.
        names: per view the photo's file, for messages.
        source: the file they come from, for messages.

    Raises:
        CaptureError: a focal length out of range for the photo's size, a principal point far outside of the photo, or a
            distortion that cannot be inverted for most of its pixels.
    """
    for index in distinct_lenses(views):
        width, height = int(views.width[index]), int(views.height[index])
        longest = max(width, height)
        where = f"{source}: %s of {names[index]} is"
        for key, focal in (("fl_x", views.fx[index]), ("fl_y", views.fy[index])):
            if not MIN_FOCAL * longest <= focal <= MAX_FOCAL * longest:
                raise CaptureError(
                    f"{where % key} {focal:g} for a photo of {width} x {height}; expected pixels, about as many as the "
                    "photo is wide. Lengths in millimetres or relative to the width have to be converted."
                )
        if max(views.fx[index], views.fy[index]) > MAX_FOCAL_RATIO * min(views.fx[index], views.fy[index]):
            raise CaptureError(
                f"{where % 'fl_x'} {views.fx[index]:g} and fl_y {views.fy[index]:g}; expected nearly the same, since "
                "pixels are nearly square. Correct the one that is wrong, or calibrate the lens again."
            )
        for key, centre, size in (("cx", views.cx[index], width), ("cy", views.cy[index], height)):
            if not -size <= centre <= 2 * size:
                raise CaptureError(
                    f"{where % key} {centre:g} for a photo of {width} x {height}; expected pixels from the left upper "
                    "corner, about half the photo's size."
                )
        valid = float(views.has_ray(index, pixel_grid(width, height)).mean())
        if valid < 0.5:
            coefficients = " ".join(
                f"{key}={value:g}" for key, value in zip(DISTORTION, views.distortion[index], strict=True) if value
            )
            raise CaptureError(
                f"{source}: the distortion of {names[index]} ({coefficients}) leaves {1 - valid:.0%} of the picture "
                "without a ray; expected coefficients for normalised image coordinates (pixels divided by the focal "
                "length), such as COLMAP's. "
                "Calibrate the lens again, or undistort the photos."
            )


def rayless_warning(views: Views, names: Sequence[str], source: Path) -> str | None:
    """A warning if the distortion of a lens cannot be inverted at some pixels, as in the corners of fisheye photos."""
    for index in distinct_lenses(views):
        valid = float(views.has_ray(index, pixel_grid(int(views.width[index]), int(views.height[index]))).mean())
        if valid < 1:
            return (
                f"{source}: by its distortion {max(1 - valid, 0.001):.1%} of {names[index]} lies where the lens cannot "
                "look (corners, as a rule). These pixels are not used."
            )
    return None


def distinct_lenses(views: Views) -> list[int]:
    """Index of the first view of each distinct lens (intrinsics, distortion and image size)."""
    columns = (views.fx, views.fy, views.cx, views.cy, views.width, views.height, views.fisheye)
    rows = np.column_stack([*columns, views.distortion])
    return sorted(np.unique(rows, axis=0, return_index=True)[1].tolist())


def pixel_grid(width: int, height: int, count: int | None = 33) -> np.ndarray:
    """(P, 2) pixel coordinates, row by row: a grid of ``count`` x ``count`` up to the corners, or all pixels (None)."""
    columns, rows = (width, height) if count is None else (count, count)
    x, y = np.meshgrid(np.linspace(0.5, width - 0.5, columns), np.linspace(0.5, height - 0.5, rows))
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def check_viewing_directions(poses: np.ndarray, half_field: np.ndarray, source: Path) -> str | None:
    """Checks that the fields of view of the cameras overlap.

    Candidate points are sampled along the optical axes, and counted by the cameras whose (undistorted) frustum holds
    them. In a capture of an object, many cameras see the same point.

    Args:
        poses: (N, 4, 4) camera-to-world, OpenGL.
        half_field: (N, 2) tangents of half the field of view, horizontal and vertical.
        source: for messages.

    Returns:
        A warning if the cameras fan out from a common point but their frusta still overlap, else None.

    Raises:
        CaptureError: no point is seen by two cameras or by a tenth of them; of cameras that fan out, by half of them.
    """
    count = len(poses)
    centres, rotations = poses[:, :3, 3], poses[:, :3, :3]
    axes = -rotations[:, :, 2]
    # The point closest to all axes by least squares, regularised because parallel axes make the system singular.
    perpendicular = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = perpendicular.sum(axis=0) + 1e-6 * count * np.eye(3)
    target = (perpendicular @ centres[:, :, None]).sum(axis=0)[:, 0] + 1e-6 * centres.sum(axis=0)
    nearest = np.linalg.solve(normal, target)

    extent = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    chosen = np.unique(np.linspace(0, count - 1, min(count, 40)).round().astype(int))
    depths = extent * np.geomspace(0.1, 30, 32)
    on_axes = (centres[chosen, None] + depths[None, :, None] * axes[chosen, None]).reshape(-1, 3)
    candidates = np.concatenate([nearest[None], on_axes])
    seen = np.zeros(len(candidates), dtype=int)
    for centre, rotation, (half_width, half_height) in zip(centres, rotations, half_field, strict=True):
        local = (candidates - centre) @ rotation
        depth = -local[:, 2]
        seen += (depth > 0) & (np.abs(local[:, 0]) <= half_width * depth) & (np.abs(local[:, 1]) <= half_height * depth)
    most_seen = int(seen.max())
    in_front = float((((nearest - centres) * axes).sum(axis=1) > 0).mean())
    fanning = np.linalg.norm(axes.mean(axis=0)) < 0.9 and in_front < 0.1
    if most_seen < 2 or (fanning and most_seen < 0.5 * count) or most_seen <= 0.1 * count:
        raise CaptureError(
            f"{source}: the cameras look away from each other; no place is seen by more than {most_seen} of {count}. "
            "Expected photos taken around one object. If they were, the poses are in another convention: nerfstudio "
            "wants camera-to-world matrices with x right, y up and the camera looking along -z (COLMAP and OpenCV look "
            "along +z with y down)."
        )
    if fanning:
        return (
            f"{source}: the cameras fan out from a point behind them; the object should be what most photos see. "
            "If you walked around it, the poses may be in another convention (nerfstudio's cameras look along -z)."
        )
    return None


def read_headers(paths: Sequence[Path], kind: str = "image") -> list[ImageHeader]:
    """Headers of image files: sizes, orientations, formats.

    Args:
        paths: N files.
        kind: what the files are called in messages.

    Raises:
        CaptureError: a file does not exist, or is not an image.
    """
    missing = [path for path in paths if _is_missing(path)]
    if missing:
        raise CaptureError(
            f"{len(missing)} of {len(paths)} {kind} files do not exist: {listed(missing)}. "
            "Copy them there or correct the paths in transforms.json."
        )
    try:
        return [read_header(path) for path in paths]
    except ImageError as error:
        raise CaptureError(str(error)) from error


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # no permission for the folder: reading the file raises an error that says so
        return False


def check_image_sizes(
    paths: Sequence[Path], headers: Sequence[ImageHeader], expected: Sequence[Size], tolerance: int = 1
) -> None:
    """Checks that photos have the sizes that their intrinsics are for.

    Args:
        paths: N photos.
        headers: of the photos.
        expected: width and height of each camera, pixels.
        tolerance: allowed difference in pixels, for the rounding of downscaled sizes.

    Raises:
        CaptureError: a photo has another size; the message names the first one.
    """
    for path, header, wanted in zip(paths, headers, expected, strict=True):
        size = header.size_for(wanted)
        if max(abs(size[0] - wanted[0]), abs(size[1] - wanted[1])) > tolerance:
            stored = "" if header.orientation == 1 else f" (by its EXIF tag {header.orientation}, which turns it)"
            raise CaptureError(
                f"{path} is {size[0]} x {size[1]} pixels{stored}, but the cameras in transforms.json are for "
                f"{wanted[0]} x {wanted[1]}. Use the photos that the poses were estimated with, or correct "
                "w, h, fl_x, fl_y, cx and cy."
            )


def check_mask_sizes(
    masks: Sequence[Path | None],
    image_paths: Sequence[Path],
    accepted: Sequence[Sequence[Size]],
    kind: str,
    tolerance: int = 1,
) -> None:
    """Checks that masks have their photo's size.

    Args:
        masks: for each photo its mask file, or None.
        image_paths: photos, for messages.
        accepted: for each photo the accepted sizes (width, height): as used, and as stored.
        kind: what the masks are called in messages.
        tolerance: by how many pixels width and height may differ.

    Raises:
        CaptureError: a mask is missing, unreadable or of another size.
    """
    pairs = [
        (mask, image, sizes)
        for mask, image, sizes in zip(masks, image_paths, accepted, strict=True)
        if mask is not None
    ]
    for (mask, image, wanted), header in zip(pairs, read_headers([pair[0] for pair in pairs], kind), strict=True):
        size = header.size_for(wanted[0])
        if not any(max(abs(size[0] - width), abs(size[1] - height)) <= tolerance for width, height in wanted):
            raise CaptureError(
                f"The {kind} {mask} is {size[0]} x {size[1]} pixels, its photo {image} is "
                f"{wanted[0][0]} x {wanted[0][1]}. Make the mask for this photo, at the photo's size."
            )


def transparency_warning(paths: Sequence[Path], headers: Sequence[ImageHeader]) -> str | None:
    """A warning that the alpha channel of photos is not used; None if no photo has one."""
    names = [path.name for path, header in zip(paths, headers, strict=True) if header.transparent]
    if not names:
        return None
    return (
        f"{len(names)} photos ({listed(names, 3)}) have an opacity channel. It is not used: transparent pixels show "
        "the colours that are stored beneath. Where nothing sensible is, put the photos on a background first. "
        "(Cut-outs may serve as coarse masks, in the folder coarse_masks/.)"
    )


def border_and_centre(mask: np.ndarray) -> tuple[float, float]:
    """Mean of a mask (H, W) along its border (a twentieth of its size wide), and in its middle third in both axes."""
    height, width = mask.shape
    rows, columns = max(1, height // 20), max(1, width // 20)
    border = np.concatenate(
        [mask[:rows].ravel(), mask[-rows:].ravel(), mask[:, :columns].ravel(), mask[:, -columns:].ravel()]
    )
    centre = mask[height // 3 : max(height - height // 3, height // 3 + 1)]
    centre = centre[:, width // 3 : max(width - width // 3, width // 3 + 1)]
    return float(border.mean()), float(centre.mean())


def object_mask_warnings(masks: Sequence[np.ndarray], kind: str = "coarse masks") -> list[str]:
    """Warnings about object masks that look inverted, nearly full, nearly black or empty.

    Args:
        masks: (H, W) float arrays, 0 background .. 1 object; a sample of the capture's masks is enough.
        kind: what the masks are called in messages.
    """
    if not masks:
        return []
    coverage = np.array([mask.mean() for mask in masks])
    if (coverage < 1e-4).all():
        return [f"All {kind} looked at are empty (black); expected the object in white."]
    brightest = max(float(mask.max()) for mask in masks)
    if brightest < MIN_BRIGHTNESS:
        return [
            f"The {kind} looked at are nearly black (brightest pixel: {brightest:.1%} of white) and show no object. "
            "If they hold labels (1, 2, ...), `surface-sos masks --method folder --source FOLDER --instance LABEL` "
            "makes masks of them."
        ]
    used = [mask for mask, covered in zip(masks, coverage, strict=True) if covered >= 1e-4]
    border, centre = np.median([border_and_centre(mask) for mask in used], axis=0)
    covered = float(np.median(coverage[coverage >= 1e-4]))
    if covered > 0.95:
        return [f"The {kind} are nearly full ({covered:.0%} white); expected white on the object only."]
    if border > 0.7 and centre < 0.3:
        return [
            f"The {kind} look inverted (border {border:.0%} white, centre {centre:.0%}); "
            "expected white on the object and black elsewhere. Invert them if so."
        ]
    return []


def valid_mask_warning(masks: Sequence[np.ndarray]) -> str | None:
    """A warning if the masks under ``mask_path`` look like object masks; else None.

    In nerfstudio ``mask_path`` marks valid pixels, and no rays are drawn from black ones. With an object mask there, no
    ray hits the background.

    Args:
        masks: (H, W) float arrays in [0, 1], 1 where the pixel is valid.
    """
    if not masks:
        return None
    border, centre = np.median([border_and_centre(mask) for mask in masks], axis=0)
    covered = float(np.median([mask.mean() for mask in masks]))
    if covered < 0.6 and border < 0.35 and centre > border:
        return (
            f"The masks under 'mask_path' look like object masks ({covered:.0%} white, border black). "
            "'mask_path' means valid pixels: black ones are never seen in training. "
            "An object mask belongs under 'coarse_mask_path' or in a folder coarse_masks/."
        )
    return None
