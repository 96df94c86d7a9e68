"""Reads and checks a capture's transforms.json, or the COLMAP model that stands for one; writes transforms.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.colmap_folder import colmap_content, colmap_folder, find_colmap_model
from surface_sos_ns.capture.names import listed, natural_order
from surface_sos_ns.capture.object_names import check_object_names
from surface_sos_ns.capture.schema import TransformsFile, check_content, parse_transforms, unknown_key_remarks
from surface_sos_ns.capture.views import DISTORTION, Views

if TYPE_CHECKING:
    from surface_sos_ns.capture.schema import Frame, Lens

__all__ = [
    "Transforms",
    "capture_content",
    "capture_folder",
    "capture_source",
    "read_transforms",
    "transforms_content",
]

INTRINSICS = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy", "w": "width", "h": "height"}
PERSPECTIVE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
FISHEYE_MODEL = "OPENCV_FISHEYE"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Transforms:
    """The checked content of transforms.json, with N frames in the order of the file.

    Attributes:
        source: the file, or the folder of the COLMAP model.
        file_paths: of the photos, as written.
        views: N cameras in the frame and units of the file.
        masks: for each of ``mask_path``, ``coarse_mask_path``, ``gt_mask_path``, ``gt_objects_path``,
            ``gt_parts_path`` and ``clean_plate_path``, N paths as written, or None.
        object_masks: N mappings from names of objects to paths as written, where ``coarse_mask_path`` is one; else
            empty.
        splits: for each of ``train``, ``val`` and ``test`` that has a list, its file_path entries.
        applied_transform: (4, 4) from the frame of the program that estimated the poses to the file's frame, or None.
        applied_scale: factor applied after it.
        ply_file_path: of the sparse points, as written, or None.
        object_names: of its objects, the first of identity 1; empty if the file has none.
        part_names: of the object's true parts, the first of identity 1; None if the file has none.
        orientation: nerfstudio's orientation method, if the file sets it.
        fisheye_crop_radius: radius of a fisheye lens's image circle, pixels, or None.
        times: for each of ``time`` and ``timestamp`` that occurs, N unchecked values.
        remarks: sentences to be printed once.
    """

    source: Path
    file_paths: list[str]
    views: Views
    masks: dict[str, list[str | None]]
    object_masks: list[dict[str, str]]
    splits: dict[str, list[str]]
    applied_transform: np.ndarray | None = None
    applied_scale: float = 1.0
    ply_file_path: str | None = None
    object_names: tuple[str, ...] = ()
    part_names: list[str] | None = None
    orientation: str | None = None
    fisheye_crop_radius: float | None = None
    times: dict[str, list[Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The base of relative paths in the file."""
        return capture_folder(self.source)

    def __len__(self) -> int:
        return len(self.file_paths)

    def frame_times(self) -> np.ndarray:
        """(N,) times of the frames, scaled to [0, 1]; in the order of the file names if the file has no times.

        Raises:
            CaptureError: some frames have no time, or one that is not a number.
        """
        for key, given in self.times.items():
            moments = np.array([_time(value) for value in given])
            wrong = [name for name, moment in zip(self.file_paths, moments, strict=True) if not np.isfinite(moment)]
            if wrong:
                raise CaptureError(
                    f"{self.source}: {key} is a number for {len(given) - len(wrong)} of {len(given)} frames, not for "
                    f"{listed(wrong)}. Complete it, or remove the key: then the order of the file names counts."
                )
            break
        else:
            moments = np.empty(len(self))
            moments[natural_order([Path(name).as_posix() for name in self.file_paths])] = np.arange(len(self))
        return (moments - moments.min()) / max(float(np.ptp(moments)), 1e-12)


def capture_source(data: Path) -> Path:
    """What says where a capture's cameras are: its json file, or else the folder of its COLMAP model.

    Args:
        data: the folder of the capture, or the json file.

    Raises:
        CaptureError: there is neither.
    """
    if not data.exists():
        raise CaptureError(f"{data} does not exist; expected a capture's folder (--data FOLDER).")
    source = data if data.suffix == ".json" else data / "transforms.json"
    if source.is_file():
        return source
    model = find_colmap_model(data)
    if model is None:
        raise CaptureError(
            f"{source} does not exist, nor a COLMAP model in {data / 'sparse' / '0'}. Make one of them from photos or "
            "a video: surface-sos process, or ns-process-data."
        )
    colmap_folder(model)
    return model


def capture_folder(source: Path) -> Path:
    """The folder of a capture, to which paths are relative.

    Args:
        source: see `capture_source`.
    """
    return colmap_folder(source) if source.is_dir() else source.parent


def capture_content(source: Path) -> dict[str, Any]:
    """The JSON values of transforms.json, or those that would be in it. To be checked by `read_transforms` before.

    Args:
        source: see `capture_source`.
    """
    if source.is_dir():
        return colmap_content(source)[0]
    content: dict[str, Any] = json.loads(source.read_text(encoding="utf-8-sig"))
    return content


def read_transforms(source: Path) -> Transforms:
    """Reads transforms.json and checks all that can be checked without opening other files.

    Intrinsics of a frame override those at the top level.

    Args:
        source: see `capture_source`.

    Raises:
        CaptureError: the file cannot be read, or a value is wrong. The message names file, frame and key.
    """
    file, remarks = _read(source)
    checks.check_frames([frame.file_path for frame in file.frames], source)
    lenses = [_lens(file, frame, source) for frame in file.frames]
    poses = checks.check_poses(
        [frame.transform_matrix for frame in file.frames], [frame.file_path for frame in file.frames], source
    )
    names = [frame.file_path for frame in file.frames]
    columns = {name: np.array([lens[key] for lens in lenses]) for key, name in INTRINSICS.items()}
    views = Views(
        poses[:, :3],
        **columns,
        distortion=np.array([[lens[key] for key in DISTORTION] for lens in lenses]),
        fisheye=np.array([lens["fisheye"] for lens in lenses]),
    )
    checks.check_lenses(views, names, source)
    remarks += unknown_key_remarks(file)
    with_depth = sum("depth_file_path" in frame.model_fields_set for frame in file.frames)
    if with_depth:
        remarks.append(f"depth_file_path of {with_depth} frames: depth is not used here.")
    kinds = ("mask_path", "coarse_mask_path", "gt_mask_path", "gt_objects_path", "gt_parts_path", "clean_plate_path")
    masks = {kind: [getattr(frame, kind) or None for frame in file.frames] for kind in kinds}
    coarse = masks["coarse_mask_path"]
    masks["coarse_mask_path"] = [None if isinstance(paths, dict) else paths for paths in coarse]
    times = {
        key: [getattr(frame, key) for frame in file.frames]
        for key in ("time", "timestamp")
        if any(key in frame.model_fields_set for frame in file.frames)
    }
    return Transforms(
        source=source,
        file_paths=names,
        views=views,
        masks=masks,
        object_masks=[paths if isinstance(paths, dict) else {} for paths in coarse],
        splits=_splits(file, source),
        applied_transform=None
        if file.applied_transform is None
        else _checked_similarity(file.applied_transform, source),
        applied_scale=1.0 if file.applied_scale is None else file.applied_scale,
        ply_file_path=file.ply_file_path or None,
        object_names=check_object_names(file.object_names, f"{source} (object_names)") if file.object_names else (),
        part_names=file.part_names or None,
        orientation=file.orientation_override,
        fisheye_crop_radius=file.fisheye_crop_radius,
        times=times,
        remarks=remarks,
    )


def _read(source: Path) -> tuple[TransformsFile, list[str]]:
    """The values of the file or of the COLMAP model, and remarks about it."""
    if source.is_dir():
        try:
            content, remarks = colmap_content(source)
        except ImportError as error:
            raise CaptureError(
                f"{source} is a COLMAP model, and pycolmap cannot be imported ({error}); `pip install 'pycolmap>=4'`."
            ) from error
        return check_content(content, source), remarks
    try:
        text = source.read_bytes()
    except OSError as error:
        raise CaptureError(f"{source} cannot be read ({error.strerror}).") from error
    return parse_transforms(text, source), []


def _lens(file: TransformsFile, frame: Frame, source: Path) -> dict[str, float]:
    """Intrinsics, distortion and 'fisheye' of a frame, from the frame or else from the top level."""
    lens: dict[str, float] = {}
    for key in INTRINSICS:
        value = getattr(frame, key) if key in frame.model_fields_set else getattr(file, key)
        if value is None:
            raise CaptureError(
                f"{source}: '{key}' is given neither for the capture nor for {frame.file_path}. "
                "Run ns-process-data again, or add fl_x, fl_y, cx, cy, w and h (pixels)."
            )
        lens[key] = value
    fisheye = _is_fisheye(frame, frame.file_path, source)
    if fisheye is None:
        fisheye = bool(_is_fisheye(file, source.name, source))
    distortion = _distortion(file, fisheye, "", source) | _distortion(frame, fisheye, frame.file_path, source)
    if fisheye and (distortion.get("p1") or distortion.get("p2")):
        raise CaptureError(
            f"{source}: p1 and p2 of {frame.file_path} are not 0, and its lens is a fisheye, which has k1 k2 k3 k4 "
            "only. Correct camera_model, or calibrate the lens again."
        )
    return lens | dict.fromkeys(DISTORTION, 0.0) | distortion | {"fisheye": fisheye}


def _is_fisheye(holder: Lens, name: str, source: Path) -> bool | None:
    """Whether the lens of the file or of a frame is a fisheye; None if it is not given there."""
    model, flag = holder.camera_model, holder.is_fisheye
    if model is None:
        return flag
    models = (*PERSPECTIVE_MODELS, FISHEYE_MODEL)
    if model.upper() not in models:
        raise CaptureError(
            f"{source}: the camera model of {name} is {model}; expected one of {', '.join(models)}. "
            "Panoramas can be cut into perspective photos with ns-process-data --camera-type equirectangular; photos "
            "with another lens are undistorted by the program that calibrated it (COLMAP: image_undistorter)."
        )
    fisheye = model.upper() == FISHEYE_MODEL
    if flag is not None and flag != fisheye:
        raise CaptureError(
            f"{source}: is_fisheye of {name} is {str(flag).lower()}, and its camera_model {model}. Correct one of them."
        )
    return fisheye


def _distortion(holder: Lens, fisheye: bool, name: str, source: Path) -> dict[str, float]:
    """Distortion coefficients of the file or of a frame, by key; empty if there are none."""
    keys = {key: getattr(holder, key) for key in DISTORTION if key in holder.model_fields_set}
    values = holder.distortion_params
    if values is None:
        return keys
    where = f"{source}: distortion_params" + (f" of {name}" if name else "")
    orders: dict[int, tuple[str, ...]] = {0: (), 4: ("k1", "k2", "p1", "p2"), 6: DISTORTION}
    if fisheye:
        orders[4] = ("k1", "k2", "k3", "k4")
    else:
        orders |= dict.fromkeys((5, 8, 12, 14), ("k1", "k2", "p1", "p2", "k3"))
    if len(values) not in orders:
        raise CaptureError(
            f"{where} has {len(values)} numbers; expected {'4: k1 k2 k3 k4' if fisheye else '4 or 5: k1 k2 p1 p2 k3'}, "
            "the order of OpenCV, or 6: k1 k2 k3 k4 p1 p2, that of nerfstudio. Correct the list, or give the keys "
            "k1 k2 k3 k4 p1 p2."
        )
    order = orders[len(values)]
    if any(values[len(order) :]):
        raise CaptureError(
            f"{where} has numbers other than 0 after {' '.join(order)}: rational, thin-prism and tilted lenses are not "
            "supported. Undistort the photos with OpenCV or the program that calibrated the lens."
        )
    found = dict(zip(order, values, strict=False))
    different = [key for key in keys if keys[key] != found.get(key, 0.0)]
    if different:
        raise CaptureError(
            f"{where} and the key {different[0]} differ ({found.get(different[0], 0.0):g} and {keys[different[0]]:g}). "
            "Remove one of them."
        )
    return keys | found


def _splits(file: TransformsFile, source: Path) -> dict[str, list[str]]:
    splits = {split: getattr(file, f"{split}_filenames") for split in SPLITS}
    given = {split: names for split, names in splits.items() if names is not None}
    if given.get("train") == []:
        raise CaptureError(f"{source}: train_filenames is empty. List photos there, or remove the key.")
    return given


def _time(value: Any) -> float:
    """A frame's time as a float; nan if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def _checked_similarity(matrix: Sequence[Sequence[float]], source: Path) -> np.ndarray:
    """applied_transform as (4, 4); a CaptureError if it is not a similarity (rotation or reflection, scale, offset)."""
    values = checks.matrix_of(matrix)
    if values is None:
        raise CaptureError(f"{source}: applied_transform is not a 3 x 4 matrix. Correct it, or remove the key.")
    gram = values[:3, :3].T @ values[:3, :3]
    size = np.trace(gram) / 3
    if not size > 1e-12 or np.abs(gram - size * np.eye(3)).max() > 0.01 * size:
        raise CaptureError(
            f"{source}: applied_transform changes shapes; expected a rotation or reflection, one scale and an offset. "
            "Correct it, or remove the key."
        )
    return values


def transforms_content(views: Views, frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a transforms.json.

    Args:
        views: N cameras, frame of the capture.
        frames: the other keys of each frame: file_path, coarse_mask_path ...

    Returns:
        JSON values: frames with poses; intrinsics at the top level if all views share them, else in each frame.
    """
    lenses = [_lens_keys(views, index) for index in range(len(views))]
    shared = all(lens == lenses[0] for lens in lenses)
    posed = []
    for frame, lens, pose in zip(frames, lenses, views.camera_to_world, strict=True):
        matrix = np.concatenate([pose, [[0, 0, 0, 1]]]).tolist()
        posed.append({**frame, "transform_matrix": matrix, **({} if shared else lens)})
    models = {str(lens["camera_model"]) for lens in lenses}
    top = lenses[0] if shared else {}
    if len(models) == 1:  # nerfstudio reads it at the top level only
        top["camera_model"] = models.pop()
    return {**top, "frames": posed}


def _lens_keys(views: Views, index: int) -> dict[str, Any]:
    values = {key: getattr(views, name)[index].item() for key, name in INTRINSICS.items()}
    model = FISHEYE_MODEL if views.fisheye[index] else "OPENCV"
    return {"camera_model": model} | values | dict(zip(DISTORTION, views.distortion[index].tolist(), strict=True))
