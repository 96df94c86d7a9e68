"""The schema of transforms.json: keys, types and ranges of single values, and messages about values that do not fit.

`capture/transforms.py` and `capture/checks.py` check poses, lenses and files together. Other keys are allowed, see
`unknown_key_remarks`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.names import listed

__all__ = ["Frame", "Lens", "TransformsFile", "check_content", "parse_transforms", "unknown_key_remarks"]

MAX_IMAGE_SIDE = 200_000
"""Largest width or height of a photo, pixels."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Coefficient = Annotated[
    Finite, Field(description="a number (the distortion is k1 k2 k3 k4 p1 p2, or distortion_params in OpenCV's order)")
]
UnsupportedCoefficient = Annotated[
    Finite, Field(ge=0, le=0, description="0: rational lenses are not supported; undistort the photos")
]
Focal = Annotated[Finite, Field(ge=2, description="a focal length in pixels, at least 2")]
PrincipalPoint = Annotated[Finite, Field(description="a place in the picture in pixels")]
Pixels = Annotated[
    Finite,
    annotated_types.MultipleOf(1),
    Field(ge=1, le=MAX_IMAGE_SIDE, description=f"a whole number of pixels from 1 to {MAX_IMAGE_SIDE}"),
]
Name = pydantic.InstanceOf[str]
"""A path. pydantic's str rejects the lone surrogates that stand for bytes that are not UTF-8."""
File = Annotated[Name | None, Field(description="the path of a file")]
Names = Annotated[list[Name], Field(description="a list of file_path entries")]


def _paths_by_name(value: Any) -> Any:
    """The value, if it is null or an object of JSON that holds a path for each name."""
    named = isinstance(value, dict) and all(isinstance(path, str) and path for path in value.values())
    if value is not None and not named:
        raise ValueError("not a path for each name")
    return value


def _path_or_paths_by_name(value: Any) -> Any:
    return value if isinstance(value, str) else _paths_by_name(value)


FileByName = Annotated[
    Any,
    pydantic.AfterValidator(_paths_by_name),
    Field(description='the path of a file for each object: {"cup": "PATH", ...}'),
]
FileOrFileByName = Annotated[
    Any,
    pydantic.AfterValidator(_path_or_paths_by_name),
    Field(description='the path of a file, or of a file for each object: {"cup": "PATH", ...}'),
]
Matrix = Annotated[list[list[Finite]], Field(description="a matrix of numbers")]

_MISSING: Any = None
"""Default of a key that is absent. A null in the file is an error where a number is expected."""


class Lens(BaseModel):
    """Intrinsics, at the top level for all frames, or in a frame for that one."""

    model_config = ConfigDict(strict=True, extra="allow")

    camera_model: Annotated[str, Field(description="the name of a camera model, such as OPENCV")] = _MISSING
    is_fisheye: Annotated[bool, Field(description="true or false")] = _MISSING
    fl_x: Focal = _MISSING
    fl_y: Focal = _MISSING
    cx: PrincipalPoint = _MISSING
    cy: PrincipalPoint = _MISSING
    w: Pixels = _MISSING
    h: Pixels = _MISSING
    k1: Coefficient = _MISSING
    k2: Coefficient = _MISSING
    k3: Coefficient = _MISSING
    k4: Coefficient = _MISSING
    p1: Coefficient = _MISSING
    p2: Coefficient = _MISSING
    k5: UnsupportedCoefficient = _MISSING
    k6: UnsupportedCoefficient = _MISSING
    distortion_params: Annotated[
        list[Finite],
        Field(description="a list of numbers: k1 k2 p1 p2, and k3 as the fifth (fisheye: k1 k2 k3 k4), as in OpenCV"),
    ] = _MISSING


class Frame(Lens):
    """An entry of the list of frames: a photo."""

    file_path: Annotated[Name, Field(min_length=1, description="the path of a photo")]
    transform_matrix: Annotated[Matrix, Field(description="a 4 x 4 matrix of numbers, camera to world")]
    mask_path: File = None
    coarse_mask_path: FileOrFileByName = None
    gt_mask_path: File = None
    gt_objects_path: File = None
    gt_parts_path: File = None
    clean_plate_path: File = None
    plates_without: FileByName = None
    # Any value is allowed: times are only used for deforming objects, and checked then.
    time: Any = _MISSING
    timestamp: Any = _MISSING
    depth_file_path: Any = _MISSING


class TransformsFile(Lens):
    """The whole file."""

    frames: Annotated[list[Frame], Field(description="a list with one entry for each photo")]
    train_filenames: Names = _MISSING
    val_filenames: Names = _MISSING
    test_filenames: Names = _MISSING
    applied_transform: Annotated[Matrix, Field(description="a 3 x 4 matrix of numbers")] = _MISSING
    applied_scale: Annotated[Finite, Field(gt=0, description="a positive number")] = _MISSING
    ply_file_path: File = None
    object_names: Annotated[list[str], Field(description="a list of names, one for each object")] = _MISSING
    part_names: Annotated[list[str], Field(description="a list of names, one for each part of the object")] = _MISSING
    orientation_override: Annotated[
        Literal["pca", "up", "vertical", "none"], Field(description="one of pca, up, vertical, none")
    ] = _MISSING
    fisheye_crop_radius: Annotated[Finite, Field(gt=0, description="a positive number of pixels")] = _MISSING


IGNORED_KEYS = {
    *("camera_angle_x", "camera_angle_y", "aabb_scale", "aabb", "scale", "offset", "up", "sharpness"),
    *("colmap_im_id", "id", "n_extra_learnable_dims", "enable_depth_loading", "integer_depth_scale"),
    *("depth_unit_scale_factor", "image_id", "camera_id", "near", "far"),
}
"""Keys of other programs that are not used here, and that no remark is made about."""


def parse_transforms(text: bytes, source: Path) -> TransformsFile:
    """Parses transforms.json.

    Args:
        text: content of the file, UTF-8.
        source: the file, for messages.

    Raises:
        CaptureError: the text is not JSON, a key is repeated, or a value has the wrong type or is out of range.
    """
    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{source} cannot be read as JSON ({error}). Run ns-process-data again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise CaptureError(f"{source} has no list 'frames'. Run ns-process-data again.")
    return check_content(content, source)


def check_content(content: Mapping[str, Any], source: Path) -> TransformsFile:
    """Checks keys, types and ranges of the JSON values of a transforms.json, which has a list 'frames'.

    Raises:
        CaptureError: a value has the wrong type or is out of range.
    """
    try:
        return TransformsFile.model_validate(content)
    except pydantic.ValidationError as error:
        raise CaptureError(_error_message(error, content, source)) from None


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' stands twice")
    return keys


def _error_message(error: pydantic.ValidationError, content: Mapping[str, Any], source: Path) -> str:
    """A message about the first error, and the number of the others."""
    problems = error.errors(include_url=False)
    place, found, missing = problems[0]["loc"], problems[0]["input"], problems[0]["type"] == "missing"
    whose: type[Lens] = TransformsFile
    where = f"{source}: "
    if place[0] == "frames" and len(place) > 1:
        frame = content["frames"][place[1]]
        name = frame.get("file_path") if isinstance(frame, dict) else None
        where += f"frame {name}: " if isinstance(name, str) and name else f"frame number {place[1]}: "
        whose, place = Frame, place[2:]
    more = f" ({len(problems) - 1} more values do not fit.)" if len(problems) > 1 else ""
    if not place:
        return f"{where}it is {_described(found)}; expected an object with file_path and transform_matrix.{more}"
    key = str(place[0])
    if missing:
        return f"{where}it has no '{key}'. Run ns-process-data again or add it.{more}"
    expected = whose.model_fields[key].description or "something else"
    inside = "".join(f"[{step}]" for step in place[1:])
    return f"{where}'{key}'{inside} is {_described(found)}; expected {expected}. Correct it.{more}"


def _described(value: Any) -> str:
    """A JSON value as short text for a message."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text '{value[:40]}{'...' if len(value) > 40 else ''}'"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]


def unknown_key_remarks(file: TransformsFile) -> list[str]:
    """Remarks about unknown keys that look like misspelt ones."""
    top = set(file.model_extra or {})
    frames = {key for frame in file.frames for key in frame.model_extra or {}}
    remarks = []
    for keys, holder, known in ((top, "on top", TransformsFile), (frames, "in its frames", Frame)):
        for key in sorted(keys - IGNORED_KEYS):
            likely = _intended_keys(key, known.model_fields)
            if likely:
                remarks.append(f"the key '{key}' {holder} is not read; did you mean {listed(likely, 3)}?")
    return remarks


def _intended_keys(key: str, known: Iterable[str]) -> list[str]:
    """Keys that may be meant by an unknown key."""
    if "mask" in key.lower():
        return ["coarse_mask_path (masks of the object)", "mask_path (pixels that may be used)"]
    return difflib.get_close_matches(key.lower(), list(known), n=1, cutoff=0.75)
