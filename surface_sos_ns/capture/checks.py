"""Checks on a capture before any long work: pure functions on paths, sizes, poses and masks.

Each check either raises :class:`CaptureError`, whose message names the file, what was expected and what to do, or
returns warnings as single lines of text. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.image_io import ImageError, ImageHeader, Size, read_header

__all__ = [
    "CaptureError",
    "check_frames",
    "check_image_sizes",
    "check_intrinsics",
    "check_mask_sizes",
    "check_poses",
    "check_viewing_directions",
    "object_mask_warnings",
    "read_headers",
    "read_image_sizes",
    "transparency_warning",
    "valid_mask_warning",
]

INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


NEARLY_BLACK = 0.2
"""Part of white under which the brightest pixel of all masks is more likely a label than a shade."""


class CaptureError(UserError):
    """The capture cannot be used as it is; the message names the file, what was expected and what to do."""


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first few names and how many more there are, for a message."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def check_frames(frames: Sequence[Mapping], source: Path) -> None:
    """A capture needs at least two frames, each with a file and a pose, and no file twice.

    Raises:
        CaptureError: no frames, one frame, a frame without ``file_path`` or ``transform_matrix``, or a repeated file.
    """
    if len(frames) == 0:
        raise CaptureError(f"{source} lists no frames; expected at least two photos. Run ns-process-data again.")
    for index, frame in enumerate(frames):
        for key in ("file_path", "transform_matrix"):
            if key not in frame:
                name = frame.get("file_path", f"number {index}")
                raise CaptureError(f"{source}: frame {name} has no '{key}'. Run ns-process-data again or add it.")
    if len(frames) == 1:
        raise CaptureError(
            f"{source} lists one frame only ({frames[0]['file_path']}); a surface needs photos from several places. "
            "Take more photos, or check why COLMAP placed one only."
        )
    seen: set[str] = set()
    for frame in frames:
        name = Path(frame["file_path"]).as_posix()
        if name in seen:
            raise CaptureError(f"{source} lists {name} twice; each photo may have one pose. Remove one of the frames.")
        seen.add(name)


def check_poses(matrices: Sequence, names: Sequence[str], source: Path) -> np.ndarray:
    """Poses as one array, after making sure that each is a finite rotation and translation.

    Args:
        matrices: per frame a 4 x 4 or 3 x 4 camera-to-world matrix (nested lists).
        names: per frame the photo's file, for messages.
        source: the file they come from, for messages.

    Returns:
        (N, 4, 4) float64.

    Raises:
        CaptureError: a matrix of another shape, one with NaN or infinite entries, one whose 3 x 3 part is not a
            rotation (scaled, sheared, mirrored), or all cameras in one place.
    """
    poses = np.tile(np.eye(4), (len(matrices), 1, 1))
    for index, (matrix, name) in enumerate(zip(matrices, names, strict=True)):
        try:
            values = np.array(matrix, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape not in ((4, 4), (3, 4)):
            raise CaptureError(f"{source}: the transform_matrix of {name} is not a 4 x 4 matrix of numbers.")
        if not np.isfinite(values).all():
            raise CaptureError(
                f"{source}: the pose of {name} holds NaN or infinite values. "
                "Remove this frame or estimate its pose again."
            )
        rotation = values[:3, :3]
        if np.abs(rotation.T @ rotation - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0:
            kind = "mirrored" if np.linalg.det(rotation) < 0 else "scaled or sheared"
            raise CaptureError(
                f"{source}: the pose of {name} is not rigid ({kind}); expected a rotation and a translation. "
                "Export the cameras again without scale or axis flips."
            )
        poses[index, :3] = values[:3]
    centres = poses[:, :3, 3]
    if np.abs(centres - centres.mean(axis=0)).max() < 1e-9 * max(1.0, float(np.abs(centres).max())):
        raise CaptureError(
            f"{source}: all {len(poses)} cameras are in the same place, so nothing can be told about depth. "
            "Move the camera between photos instead of turning it on a tripod."
        )
    return poses


def check_intrinsics(meta: Mapping, frames: Sequence[Mapping], source: Path) -> None:
    """Focal lengths, principal point and image size are there, for the capture or for each frame, and make sense.

    Raises:
        CaptureError: one is missing, not a number, or a focal length or size is not positive.
    """
    for key in INTRINSICS:
        holders = [(source.name, meta)] if key in meta else [(frame["file_path"], frame) for frame in frames]
        for name, holder in holders:
            if key not in holder:
                raise CaptureError(
                    f"{source}: '{key}' is given neither for the capture nor for {name}. "
                    "Run ns-process-data again, or add fl_x, fl_y, cx, cy, w and h (pixels)."
                )
            value = holder[key]
            if not isinstance(value, (int, float)) or not np.isfinite(value):
                raise CaptureError(f"{source}: '{key}' of {name} is {value!r}; expected a number of pixels.")
            if key not in ("cx", "cy") and value <= 0:
                raise CaptureError(f"{source}: '{key}' of {name} is {value}; expected a positive number of pixels.")


def check_viewing_directions(poses: np.ndarray, half_field: np.ndarray, source: Path) -> str | None:
    """Whether the cameras look at something together.

    A capture of an object has places that many cameras see. Candidates are points along all optical axes at many
    distances; a place counts as seen by a camera when it lies within its (undistorted) field of view.

    Args:
        poses: (N, 4, 4) camera-to-world, OpenGL.
        half_field: (N, 2) tangent of half the field of view, horizontal and vertical.
        source: for messages.

    Returns:
        A warning when the cameras fan out from a common point but still share a view, else None.

    Raises:
        CaptureError: the cameras all look away from each other, so that no place is seen by half of them.
    """
    count = len(poses)
    centres, rotations = poses[:, :3, 3], poses[:, :3, :3]
    axes = -rotations[:, :, 2]
    # The point nearest to all axes in the least-squares sense; the small ridge keeps parallel axes solvable.
    across_axis = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = across_axis.sum(axis=0) + 1e-6 * count * np.eye(3)
    target = (across_axis @ centres[:, :, None]).sum(axis=0)[:, 0] + 1e-6 * centres.sum(axis=0)
    nearest = np.linalg.solve(normal, target)

    extent = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    chosen = np.unique(np.linspace(0, count - 1, min(count, 40)).round().astype(int))
    depths = extent * np.geomspace(0.1, 30, 32)
    along = (centres[chosen, None] + depths[None, :, None] * axes[chosen, None]).reshape(-1, 3)
    places = np.concatenate([nearest[None], along])
    seen = np.zeros(len(places), dtype=int)
    for centre, rotation, (half_width, half_height) in zip(centres, rotations, half_field, strict=True):
        local = (places - centre) @ rotation
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


def read_image_sizes(paths: Sequence[Path], kind: str = "image") -> list[Size]:
    """Width and height of image files, upright, from their headers.

    Raises:
        CaptureError: files that do not exist, or one that is not an image.
    """
    return [header.upright for header in read_headers(paths, kind)]


def read_headers(paths: Sequence[Path], kind: str = "image") -> list[ImageHeader]:
    """Sizes and orientations of image files.

    Raises:
        CaptureError: files that do not exist, or one that is not an image.
    """
    missing = [path for path in paths if _absent(path)]
    if missing:
        raise CaptureError(
            f"{len(missing)} of {len(paths)} {kind} files do not exist: {listed(missing)}. "
            "Copy them there or correct the paths in transforms.json."
        )
    try:
        return [read_header(path) for path in paths]
    except ImageError as error:
        raise CaptureError(str(error)) from error


def _absent(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # a folder that may not be looked into: reading says so
        return False


def check_image_sizes(
    paths: Sequence[Path], sizes: Sequence[Size], expected: Sequence[Size], tolerance: int = 1
) -> None:
    """Each photo has the size that the intrinsics are for, within ``tolerance`` pixels (rounding of a downscale).

    Raises:
        CaptureError: names the first photo that differs.
    """
    for path, size, wanted in zip(paths, sizes, expected, strict=True):
        if max(abs(size[0] - wanted[0]), abs(size[1] - wanted[1])) > tolerance:
            raise CaptureError(
                f"{path} is {size[0]} x {size[1]} pixels, but the cameras in transforms.json are for "
                f"{wanted[0]} x {wanted[1]}. Use the photos that the poses were estimated with, or correct "
                "w, h, fl_x, fl_y, cx and cy."
            )


def check_mask_sizes(
    masks: Sequence[Path | None], image_paths: Sequence[Path], accepted: Sequence[Sequence[Size]], kind: str
) -> None:
    """Each mask has its photo's size: at the resolution in use or at the original one.

    Args:
        masks: per photo its mask file or None.
        image_paths: per photo its file, for messages.
        accepted: per photo the sizes that are right.
        kind: what the masks are called, for messages.

    Raises:
        CaptureError: a mask is missing, unreadable or of another size.
    """
    pairs = [
        (mask, image, sizes)
        for mask, image, sizes in zip(masks, image_paths, accepted, strict=True)
        if mask is not None
    ]
    for (mask, image, wanted), size in zip(pairs, read_image_sizes([pair[0] for pair in pairs], kind), strict=True):
        if not any(max(abs(size[0] - width), abs(size[1] - height)) <= 1 for width, height in wanted):
            raise CaptureError(
                f"The {kind} {mask} is {size[0]} x {size[1]} pixels, its photo {image} is "
                f"{wanted[0][0]} x {wanted[0][1]}. Make the mask for this photo, at the photo's size."
            )


def transparency_warning(paths: Sequence[Path], headers: Sequence[ImageHeader]) -> str | None:
    """What is to be said about photos with an opacity channel: it is not used."""
    names = [path.name for path, header in zip(paths, headers, strict=True) if header.transparent]
    if not names:
        return None
    return (
        f"{len(names)} photos ({listed(names, 3)}) have an opacity channel. It is not used: transparent pixels show "
        "the colours that are stored beneath. Where nothing sensible is, put the photos on a background first. "
        "(Cut-outs may serve as coarse masks, in the folder coarse_masks/.)"
    )


def border_and_centre(mask: np.ndarray) -> tuple[float, float]:
    """Mean of a mask (H, W) along its outermost twentieth, and in the middle third of its height and width."""
    height, width = mask.shape
    rows, columns = max(1, height // 20), max(1, width // 20)
    border = np.concatenate(
        [mask[:rows].ravel(), mask[-rows:].ravel(), mask[:, :columns].ravel(), mask[:, -columns:].ravel()]
    )
    centre = mask[height // 3 : max(height - height // 3, height // 3 + 1)]
    centre = centre[:, width // 3 : max(width - width // 3, width // 3 + 1)]
    return float(border.mean()), float(centre.mean())


def object_mask_warnings(masks: Sequence[np.ndarray], kind: str = "coarse masks") -> list[str]:
    """Warnings about object masks that are inverted, nearly full, or all empty.

    Args:
        masks: (H, W) float arrays, 0 background .. 1 object; a sample of the capture's masks is enough.
        kind: what they are called.
    """
    if not masks:
        return []
    coverage = np.array([mask.mean() for mask in masks])
    if (coverage < 1e-4).all():
        return [f"All {kind} looked at are empty (black), so they say nothing; expected the object in white."]
    brightest = max(float(mask.max()) for mask in masks)
    if brightest < NEARLY_BLACK:
        return [
            f"The {kind} looked at are nearly black (brightest pixel: {brightest:.1%} of white) and show no object. "
            "If they hold labels (1, 2, ...), `surface-sos masks --method folder --source FOLDER --instance LABEL` "
            "makes masks of them."
        ]
    shown = [mask for mask, covered in zip(masks, coverage, strict=True) if covered >= 1e-4]
    border, centre = np.median([border_and_centre(mask) for mask in shown], axis=0)
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
    """A warning when the masks under ``mask_path`` look like masks of an object.

    nerfstudio reads ``mask_path`` as 'valid pixel': black pixels are never used. An object mask there leaves the
    background without a single ray.

    Args:
        masks: (H, W) float arrays, 1 where the pixel is valid.
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
