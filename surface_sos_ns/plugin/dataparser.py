"""Reads a capture: nerfstudio's ``transforms.json`` with masks of the object, truth where there is some, and points."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, CameraType
from nerfstudio.data.dataparsers import nerfstudio_dataparser
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.io import load_from_json
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.console import Console

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.images import read_mask, resized

if TYPE_CHECKING:  # capture/ brings scipy and more, which no command needs before training
    from surface_sos_ns.capture.points import SparsePoints
    from surface_sos_ns.capture.views import Views

__all__ = ["ObjectHint", "PointsSource", "SurfaceSOSDataParser", "SurfaceSOSDataParserConfig", "surface_sos_data"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
SPLITS = ("train", "val", "test")
MASKS_TO_LOOK_AT = 16
OLD_APPLIED_TRANSFORM = ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, -1, 0))
"""What ns-process-data did to COLMAP's frame before it wrote down what it did."""


@dataclass
class SurfaceSOSDataParserConfig(NerfstudioDataParserConfig):
    """Capture in nerfstudio's layout, with or without masks of the object."""

    _target: type = field(default_factory=lambda: SurfaceSOSDataParser)
    """target class to instantiate"""
    eval_mode: Literal["auto", "fraction", "filename", "interval", "all"] = "auto"  # type: ignore[assignment]
    """Which photos are held out. Auto: the lists train_filenames, val_filenames, test_filenames where the capture has
    them; else every tenth photo where it has truth to score with; else none (all photos are used for training, and
    rendered). The other choices are nerfstudio's and take precedence over the capture's lists."""
    coarse_masks: str = "auto"
    """Coarse masks of the object: auto (coarse_mask_path in transforms.json, else the folder coarse_masks/ by file
    stem), none, or a folder (relative to the capture, or absolute) with one mask per photo of the same stem."""
    object_point: tuple[float, float, float] | None = None
    """A point of the object, in the coordinates of transforms.json, when several objects could be meant."""
    object_radius: float | None = None
    """Radius of a sphere around object_point that holds the object, in the units of transforms.json."""
    times: bool = False
    """Give each photo its time, 0 to 1 over the capture: by time (or timestamp) of the frames in transforms.json, else
    by the order of the file names. Set by the trainer where the object may deform (scene.deformation)."""


@dataclass(frozen=True)
class ObjectHint:
    """Where the user says that the object is, world frame; either may be missing."""

    point: tuple[float, float, float] | None
    radius: float | None


@dataclass(frozen=True, eq=False)
class PointsSource:
    """Where a capture's sparse points are and how they get into the world frame; small, and read only when asked for.

    Attributes:
        path: a .ply file, or the folder of a COLMAP model.
        transforms: candidates (3, 4) from the file's frame to the world frame before scaling. A COLMAP model may be in
            its own frame or in that of transforms.json; the candidate that brings COLMAP's cameras to those of the
            capture is the right one.
        scale: factor after the transform.
    """

    path: Path
    transforms: tuple[np.ndarray, ...]
    scale: float

    @property
    def is_colmap(self) -> bool:
        """Whether the source is a COLMAP model, which knows the photos that saw each point."""
        return self.path.suffix != ".ply"

    def load(self, views: Views, image_names: Sequence[str]) -> SparsePoints | None:
        """The points in the world frame.

        Args:
            views: what visibility and plausibility refer to, world frame.
            image_names: file name of each view.

        Returns:
            ``capture.points.SparsePoints``, or None when they cannot be read or do not fit the cameras, which is said
            on the console: a run can do without them.
        """
        from surface_sos_ns.capture.points import read_colmap_points, read_ply_points

        try:
            points = read_colmap_points(self.path, list(image_names)) if self.is_colmap else read_ply_points(self.path)
        except (ImportError, OSError, ValueError) as error:
            _warn(f"the sparse points in {self.path} are left out: {error}")
            return None
        if points is None or len(points.xyz) == 0:
            return None
        errors = [_centre_error(self._moved(transform), self.path, views, image_names) for transform in self.transforms]
        best = int(np.argmin(errors))
        xyz = self._moved(self.transforms[best])(points.xyz)
        seen = _fraction_seen(views, xyz, points.visibility)
        if errors[best] > 0.05 or seen < (0.5 if points.visibility is not None else 0.02):
            _warn(f"the sparse points in {self.path} do not fit the cameras of the capture; they are left out.")
            return None
        return dataclasses.replace(points, xyz=xyz)

    def _moved(self, transform: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda xyz: self.scale * (xyz @ transform[:, :3].T + transform[:, 3])


@dataclass
class SurfaceSOSDataParser(Nerfstudio):
    """nerfstudio's parser, with the object's masks matched to the photos and checks before any long work.

    ``metadata`` of the outputs gets, besides nerfstudio's entries:
        coarse_mask_filenames: per photo Path or None; None when there are no coarse masks at all.
        gt_mask_filenames, clean_plate_filenames: the same for the truth; always None for the split ``train``.
        points_source: PointsSource or None.
        object_hint: ObjectHint or None, world frame.
        capture_to_world: (4, 4) float64, from the frame of transforms.json to the world frame, scale included.

    Raises:
        CaptureError: whatever is wrong with the capture, with the file, what was expected and what to do.
    """

    config: SurfaceSOSDataParserConfig
    to_report: bool = False
    """Whether the files have been looked at but the masks not yet, nor the line about the capture printed."""

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        source, data_dir = self.source()
        meta = _read_meta(source)
        frames: list[dict] = meta["frames"]
        checks.check_frames(frames, source)
        checks.check_intrinsics(meta, frames, source)
        poses = checks.check_poses(
            [frame["transform_matrix"] for frame in frames], [frame["file_path"] for frame in frames], source
        )
        for frame, pose in zip(frames, poses, strict=True):
            frame["transform_matrix"] = pose.tolist()
        _check_camera_model(meta, source)

        # nerfstudio's host sets the factor itself when it wants cameras only and no image opened (camera-path renders).
        if self.downscale_factor is None:
            self._prepare_files(meta, source, data_dir, poses)
        factor = int(self.downscale_factor or 1)

        masks = self._find_masks("coarse_mask", self.config.coarse_masks, frames, data_dir, factor)
        truth = self._find_masks("gt_mask", "auto", frames, data_dir, factor)
        plates = self._find_masks("clean_plate", "auto", frames, data_dir, factor)
        if self.to_report:
            self._check_masks(meta, data_dir, masks, truth, plates)
        eval_mode, split_words = self._choose_split(meta, source, has_truth=any(truth))

        outputs = self._run_parent(meta, eval_mode, split)
        if len(outputs.image_filenames) == 0:
            raise CaptureError(
                f"{source}: no photo is left for the split '{split}' ({split_words}). "
                "Use --eval-mode all, or hold out more."
            )

        # The parent sorts and filters; a photo's resolved path is what identifies it.
        place = {self._get_fname(Path(frame["file_path"]), data_dir): index for index, frame in enumerate(frames)}
        order = [place[path] for path in outputs.image_filenames]
        metadata = dict(outputs.metadata)
        metadata["coarse_mask_filenames"] = [masks[index] for index in order] if any(masks) else None
        held_truth = split != "train"
        metadata["gt_mask_filenames"] = [truth[index] for index in order] if held_truth and any(truth) else None
        metadata["clean_plate_filenames"] = [plates[index] for index in order] if held_truth and any(plates) else None
        to_world, scale = _saved_to_world(outputs, meta)
        metadata["points_source"] = _find_points(meta, data_dir, outputs, to_world, scale)
        metadata["object_hint"] = self._object_hint(to_world, scale)
        metadata["capture_to_world"] = np.vstack([scale * to_world, [0, 0, 0, 1]])
        outputs.metadata = metadata
        if self.config.times:
            times = torch.from_numpy(_times(frames, source)[order]).float()
            outputs.cameras = dataclasses.replace(outputs.cameras, times=times[:, None])

        if self.to_report:
            self.to_report = False
            self._report(outputs, data_dir, masks, truth, split_words)
        return outputs

    def _report(
        self,
        outputs: DataparserOutputs,
        data_dir: Path,
        masks: list[Path | None],
        truth: list[Path | None],
        split_words: str,
    ) -> None:
        """Prints the line about the capture."""
        count = sum(mask is not None for mask in masks)
        points = outputs.metadata["points_source"]
        CONSOLE.print(
            f"Capture {data_dir.resolve().name}: {len(masks)} photos ({split_words}), "
            f"{int(outputs.cameras.width[0])} x {int(outputs.cameras.height[0])}; "
            + (f"coarse masks for {count}, {len(masks) - count} without" if count else "no coarse masks")
            + (f"; truth for {sum(t is not None for t in truth)}" if any(truth) else "; no truth")
            + (
                f"; sparse points from {points.path.name if points.path.suffix else 'COLMAP'}"
                if points
                else "; no sparse points"
            ),
            soft_wrap=True,
            highlight=False,
            markup=False,
        )

    def source(self) -> tuple[Path, Path]:
        """The json file and the folder that its paths are relative to."""
        data = Path(self.config.data)
        if data.suffix == ".json":
            source, data_dir = data, data.parent
        else:
            source, data_dir = data / "transforms.json", data
        if not data.exists():
            raise CaptureError(f"{data} does not exist; expected a capture's folder (--data FOLDER).")
        if not source.is_file():
            raise CaptureError(f"{source} does not exist. Make it from photos or a video with ns-process-data.")
        return source, data_dir

    # nerfstudio keeps the factor as it was given, and ns-render gives a float: 'images_2.0' would never exist.
    def _get_fname(self, filepath: Path, data_dir: Path, downsample_folder_prefix: str = "images_") -> Path:
        if self.downscale_factor is None:
            self.downscale_factor = int(self.config.downscale_factor or 1)
        return super()._get_fname(filepath, data_dir, downsample_folder_prefix)

    def _run_parent(self, meta: dict, eval_mode: str, split: str) -> DataparserOutputs:
        """nerfstudio's own parsing of ``meta``.

        The parent reads the file by a module-level function and offers no hook, so its method is run with that one name
        (and its console, which repeats every index of a split) bound to ours.
        """
        parent = Nerfstudio._generate_dataparser_outputs
        reads: list[Path] = []

        def prepared(path: Path) -> dict:
            reads.append(path)
            return meta

        console = CONSOLE if self.config.load_3D_points else Console(quiet=True)
        names = {**vars(nerfstudio_dataparser), "load_from_json": prepared, "CONSOLE": console}
        bound = types.FunctionType(parent.__code__, names, parent.__name__, parent.__defaults__, parent.__closure__)
        config = self.config
        self.config = dataclasses.replace(config, eval_mode=eval_mode)  # type: ignore[arg-type]
        try:
            outputs = bound(self, split)
        finally:
            self.config = config
        if not reads:
            raise RuntimeError(
                "nerfstudio's parser no longer reads transforms.json by load_from_json; this needs nerfstudio 1.1."
            )
        return outputs

    def _choose_split(self, meta: dict, source: Path, has_truth: bool) -> tuple[str, str]:
        """Complete the lists of file names in ``meta``; returns nerfstudio's eval mode and words for the console."""
        given = {split: meta.pop(f"{split}_filenames", None) for split in SPLITS}
        count = len(meta["frames"])
        if self.config.eval_mode != "auto":
            ignored = ", the capture's own lists are ignored" if any(given.values()) else ""
            return self.config.eval_mode, f"split by --eval-mode {self.config.eval_mode}{ignored}"
        if not any(given.values()):
            if has_truth and count >= 10:
                return (
                    "fraction",
                    f"{int(np.ceil(count * self.config.train_split_fraction))} for training, the rest held out",
                )
            why = "fewer than ten" if has_truth else "no truth and no split given"
            return "all", f"all for training, none held out: {why}"

        by_name = {Path(frame["file_path"]).as_posix(): frame["file_path"] for frame in meta["frames"]}
        lists: dict[str, list[str]] = {}
        for split, names in given.items():
            unknown = [name for name in names or [] if Path(name).as_posix() not in by_name]
            if unknown:
                raise CaptureError(
                    f"{source}: {split}_filenames lists photos that no frame has: {checks.listed(unknown)}. "
                    "Correct the names; they must equal file_path."
                )
            if names:
                lists[split] = [by_name[Path(name).as_posix()] for name in names]
        everything = list(by_name.values())
        if "train" not in lists:
            held = set(lists.get("val", [])) | set(lists.get("test", []))
            lists["train"] = [name for name in everything if name not in held] or everything
        rest = [name for name in everything if name not in set(lists["train"])] or lists["train"]
        lists.setdefault("val", lists.get("test", rest))
        lists.setdefault("test", lists["val"])
        for split in SPLITS:
            meta[f"{split}_filenames"] = lists[split]
        return "all", f"{len(set(lists['train']))} for training, {len(set(lists['test']))} for testing, as listed"

    def _prepare_files(self, meta: dict, source: Path, data_dir: Path, poses: np.ndarray) -> None:
        """Look at the photos' headers, choose the downscale factor, and make the smaller photos that it needs."""
        self.to_report = True
        frames = meta["frames"]
        half_field = np.array(
            [
                [
                    _value(meta, frame, size) / (2 * _value(meta, frame, focal))
                    for size, focal in (("w", "fl_x"), ("h", "fl_y"))
                ]
                for frame in frames
            ]
        )
        warning = None
        if meta.get("camera_model") != "OPENCV_FISHEYE":
            warning = checks.check_viewing_directions(poses, half_field, source)
        if warning:
            _warn(warning)
        with_mask = [frame for frame in frames if "mask_path" in frame]
        if with_mask and len(with_mask) < len(frames):
            raise CaptureError(
                f"{source}: mask_path is given for {len(with_mask)} of {len(frames)} frames; "
                "nerfstudio wants it for all or none. (Masks of the object belong under coarse_mask_path, "
                "which may be partial.)"
            )
        originals = [data_dir / frame["file_path"] for frame in frames]
        full = [(int(_value(meta, frame, "w")), int(_value(meta, frame, "h"))) for frame in frames]
        explicit = self.config.downscale_factor
        if explicit is not None and (explicit < 1 or explicit != int(explicit)):
            raise CaptureError(f"The downscale factor is {explicit}; expected a whole number of at least 1.")
        factor = int(explicit) if explicit is not None else _auto_factor(full)
        if factor > 1:
            names = [path.name for path in originals]
            if len(set(names)) < len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise CaptureError(
                    f"Photos in different folders share a name ({checks.listed(twice)}), "
                    "and nerfstudio keeps all downscaled photos in one folder. "
                    "Rename them, or use --downscale-factor 1."
                )
            jobs = [(originals, data_dir / f"images_{factor}", Image.Resampling.BOX)]
            if with_mask:
                valid = [data_dir / frame["mask_path"] for frame in frames]
                jobs.append((valid, data_dir / f"masks_{factor}", Image.Resampling.NEAREST))
            try:
                for paths, folder, filter_ in jobs:
                    _make_smaller(paths, folder, factor, filter_)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                _complain_read_only(error, data_dir, factor, explicit is not None)
                factor = 1
        self.downscale_factor = factor
        paths = [self._get_fname(Path(frame["file_path"]), data_dir) for frame in frames]
        sizes = checks.read_image_sizes(paths)
        checks.check_image_sizes(paths, sizes, [(width // factor, height // factor) for width, height in full])
        if with_mask:
            valid = [self._get_fname(Path(frame["mask_path"]), data_dir, "masks_") for frame in frames]
            checks.check_mask_sizes(valid, paths, [[size] for size in sizes], "mask (mask_path)")
            warning = checks.valid_mask_warning([_glance(valid[index]) for index in _sample(len(valid))])
            if warning:
                _warn(warning)

    def _find_masks(
        self, kind: str, option: str, frames: Sequence[dict], data_dir: Path, factor: int
    ) -> list[Path | None]:
        """Per frame the file of one kind (coarse_mask, gt_mask, clean_plate), or None.

        Raises:
            CaptureError: a folder was named that does not exist, or that has no file for any photo.
        """
        if option == "none":
            return [None] * len(frames)
        named = option != "auto"
        folder = data_dir / (option if named else f"{kind}s")
        if named and not folder.is_dir():
            raise CaptureError(
                f"The folder of coarse masks {folder} does not exist. --coarse-masks takes auto, none, or a folder "
                "(relative to the capture, or absolute)."
            )
        by_stem = _files_by_stem(folder)
        found: list[Path | None] = []
        for frame in frames:
            path = Path(frame["file_path"])
            if not named and frame.get(f"{kind}_path"):
                match: Path | None = data_dir / frame[f"{kind}_path"]
            else:
                # 'images/left/0001.jpg' looks for 'left/0001' before '0001'; the first folder is the photos' own.
                keys = [path.with_suffix("").as_posix()]
                parts = path.with_suffix("").parts
                keys += ["/".join(parts[start:]) for start in range(1, len(parts))]
                match = next((by_stem[key] for key in keys if key in by_stem), None)
            if match is not None and factor > 1:
                smaller = match.parent.with_name(f"{match.parent.name}_{factor}") / match.name
                match = smaller if smaller.is_file() else match
            found.append(match)
        if named and not any(found):
            example = next(iter(sorted(by_stem)), None)
            raise CaptureError(
                f"No file in {folder} belongs to a photo: expected the photos' names, such as "
                f"{Path(frames[0]['file_path']).stem}.png"
                + (f", found {by_stem[example].name}." if example else ", found no image files.")
            )
        return found

    def _check_masks(
        self,
        meta: dict,
        data_dir: Path,
        masks: list[Path | None],
        truth: list[Path | None],
        plates: list[Path | None],
    ) -> None:
        frames = meta["frames"]
        factor = int(self.downscale_factor or 1)
        originals = [data_dir / frame["file_path"] for frame in frames]
        accepted = []
        for frame in frames:
            width, height = int(_value(meta, frame, "w")), int(_value(meta, frame, "h"))
            accepted.append([(width, height), (width // factor, height // factor)])
        for kind, paths in (("coarse mask", masks), ("true mask", truth), ("clean plate", plates)):
            checks.check_mask_sizes(paths, originals, accepted, kind)
        there = [path for path in masks if path is not None]
        for warning in checks.object_mask_warnings([_glance(there[index]) for index in _sample(len(there))]):
            _warn(warning)

    def _object_hint(self, to_world: np.ndarray, scale: float) -> ObjectHint | None:
        point, radius = self.config.object_point, self.config.object_radius
        if point is None and radius is None:
            return None
        if radius is not None and not radius > 0:
            raise CaptureError(
                f"--object-radius is {radius}; expected a positive length in the units of transforms.json."
            )
        world = None
        if point is not None:
            moved = scale * (to_world[:, :3] @ np.array(point, dtype=np.float64) + to_world[:, 3])
            world = (float(moved[0]), float(moved[1]), float(moved[2]))
        return ObjectHint(point=world, radius=None if radius is None else radius * scale)


def _read_meta(source: Path) -> dict:
    try:
        meta = load_from_json(source)
    except (OSError, ValueError) as error:
        raise CaptureError(f"{source} cannot be read as JSON ({error}). Run ns-process-data again.") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise CaptureError(f"{source} has no list 'frames'. Run ns-process-data again.")
    # The parent looks for the other distortion keys and would drop a lone k4.
    if "k4" in meta and not {"k1", "k2", "k3", "p1", "p2", "distortion_params"} & set(meta):
        meta["k1"] = 0.0
    return meta


def _times(frames: Sequence[dict], source: Path) -> np.ndarray:
    """(N,) time of each frame, 0 the first and 1 the last."""
    for key in ("time", "timestamp"):
        given = [frame for frame in frames if key in frame]
        if not given:
            continue
        try:
            moments = np.array([float(frame[key]) for frame in frames])
        except (KeyError, TypeError, ValueError) as error:
            raise CaptureError(
                f"{source}: {key} is a number for {len(given)} of {len(frames)} frames at most; expected one for each "
                f"({error}). Complete them, or remove the key: then the order of the file names counts."
            ) from error
        break
    else:
        from surface_sos_ns.capture.names import natural_order

        moments = np.empty(len(frames))
        moments[natural_order([Path(frame["file_path"]).as_posix() for frame in frames])] = np.arange(len(frames))
    return (moments - moments.min()) / max(float(np.ptp(moments)), 1e-12)


def _check_camera_model(meta: dict, source: Path) -> None:
    model = meta.get("camera_model", "OPENCV")
    usable = [
        name for name, kind in CAMERA_MODEL_TO_TYPE.items() if kind in (CameraType.PERSPECTIVE, CameraType.FISHEYE)
    ]
    if model not in usable:
        raise CaptureError(
            f"{source}: the camera model is {model}; expected one of {', '.join(usable)}. "
            "Panoramas can be cut into perspective photos with ns-process-data --camera-type equirectangular."
        )


def _value(meta: dict, frame: dict, key: str) -> float:
    return float(meta[key] if key in meta else frame[key])


def _warn(message: str) -> None:
    CONSOLE.print(f"Warning: {message}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def _sample(count: int) -> list[int]:
    """A few indices spread over ``range(count)``."""
    return (
        sorted(set(np.linspace(0, count - 1, min(count, MASKS_TO_LOOK_AT)).round().astype(int).tolist()))
        if count
        else []
    )


def _glance(path: Path) -> np.ndarray:
    """A mask at 200 pixels or less: enough to judge its layout."""
    mask = read_mask(path)
    factor = min(1.0, 200 / max(mask.shape))
    return resized(mask, max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Image files below ``folder`` by their path relative to it, without suffix ('a/0001'; 'a/0001.jpg.png' too)."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            stem = path.relative_to(folder).with_suffix("")
            if stem.suffix.lower() in IMAGE_SUFFIXES:
                stem = stem.with_suffix("")
            found.setdefault(stem.as_posix(), path)
    return found


def _auto_factor(sizes: Sequence[tuple[int, int]]) -> int:
    """The power of two that brings the largest photo to nerfstudio's limit."""
    factor = 1
    while max(max(size) for size in sizes) / factor > nerfstudio_dataparser.MAX_AUTO_RESOLUTION:
        factor *= 2
    return factor


def _make_smaller(paths: Sequence[Path], folder: Path, factor: int, resampling: Image.Resampling) -> None:
    """Make ``folder`` with the files of ``paths`` at 1/factor of their size, where they are not there yet.

    Whole blocks of ``factor`` pixels are averaged and a remainder is cut off, so that intrinsics divided by ``factor``
    fit exactly. A file appears under its name only when it is complete.
    """
    missing = [path for path in paths if not (folder / path.name).is_file()]
    if not missing:
        return
    checks.read_image_sizes(missing)
    CONSOLE.print(
        f"Making {len(missing)} files at 1/{factor} of their size in {folder}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    new = not folder.exists()
    target = folder.with_name(f".{folder.name}.{os.getpid()}") if new else folder
    target.mkdir(parents=True, exist_ok=True)
    try:
        for path in missing:
            part = target / f".{os.getpid()}.{path.name}"
            try:
                with Image.open(path) as image:
                    width, height = image.width // factor, image.height // factor
                    ready = (
                        image
                        if image.mode in ("L", "RGB", "RGBA") or resampling == Image.Resampling.NEAREST
                        else image.convert("RGB")
                    )
                    small = ready.resize((width, height), resampling, box=(0, 0, width * factor, height * factor))
                    small.save(part, **({"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}))
            except (ValueError, SyntaxError) as error:
                raise CaptureError(f"{path} cannot be read as an image ({error}). Replace the file.") from error
            except OSError as error:
                part.unlink(missing_ok=True)
                # Decoding errors carry no errno; those of the file system do.
                if error.errno is not None:
                    raise
                raise CaptureError(f"{path} cannot be read as an image ({error}). Replace the file.") from error
            os.replace(part, target / path.name)
        if new:
            os.replace(target, folder)
    finally:
        if new:
            shutil.rmtree(target, ignore_errors=True)


def _complain_read_only(error: OSError, data_dir: Path, factor: int, explicit: bool) -> None:
    if explicit:
        raise CaptureError(
            f"The downscale factor {factor} needs the folder {data_dir / f'images_{factor}'}, which does not "
            f"exist and cannot be made ({error}). Make the capture's folder writable, copy it, "
            "or use --downscale-factor 1."
        ) from error
    _warn(f"{data_dir} is read-only, so the large photos are used at full size ({error}).")


def _saved_to_world(outputs: DataparserOutputs, meta: dict) -> tuple[np.ndarray, float]:
    """Transform (3, 4) and scale from the frame of transforms.json to the world frame: ``scale * (T p)``."""
    transform = np.eye(4)
    transform[:3] = outputs.dataparser_transform.double().numpy()[:3]
    if "applied_transform" in meta:  # the parent's transform starts from the frame before it
        applied = np.eye(4)
        applied[:3] = np.array(meta["applied_transform"], dtype=np.float64)[:3]
        transform = transform @ np.linalg.inv(applied)
    return transform[:3], float(outputs.dataparser_scale) / float(meta.get("applied_scale", 1.0))


def _find_points(
    meta: dict, data_dir: Path, outputs: DataparserOutputs, to_world: np.ndarray, scale: float
) -> PointsSource | None:
    """The capture's sparse points: its COLMAP model (which knows visibility), else the file under ply_file_path."""
    applied_scale = float(meta.get("applied_scale", 1.0))
    for folder in (data_dir / "colmap" / "sparse" / "0", data_dir / "sparse" / "0"):
        if (folder / "points3D.bin").is_file() or (folder / "points3D.txt").is_file():
            saved = np.vstack([to_world, [0, 0, 0, 1]])
            applied = np.eye(4)
            applied[:3] = np.array(meta.get("applied_transform", OLD_APPLIED_TRANSFORM), dtype=np.float64)[:3]
            applied[:3] *= applied_scale
            return PointsSource(folder, ((saved @ applied)[:3], to_world), scale)
    if meta.get("ply_file_path"):
        path = data_dir / meta["ply_file_path"]
        if path.is_file():
            return PointsSource(path, (to_world,), scale)
        _warn(f"{path} (ply_file_path in transforms.json) does not exist; going on without it.")
    return None


def _centre_error(
    moved: Callable[[np.ndarray], np.ndarray], path: Path, views: Views, image_names: Sequence[str]
) -> float:
    """How far a COLMAP model's cameras, moved, lie from the capture's: a fraction of the cameras' extent.

    0 for a .ply file or a model without photos of these names, where nothing can be compared.
    """
    if path.suffix == ".ply":
        return 0.0
    from surface_sos_ns.utils.colmap import pycolmap

    model = pycolmap.Reconstruction(str(path))
    theirs = {Path(image.name).name: image.projection_center() for image in model.images.values() if image.has_pose}
    pairs = [
        (theirs[name], centre) for name, centre in zip(image_names, views.centres(), strict=True) if name in theirs
    ]
    if not pairs:
        return 0.0
    found, expected = (np.array(column) for column in zip(*pairs, strict=True))
    extent = float(np.linalg.norm(views.centres() - views.centres().mean(axis=0), axis=1).max())
    return float(np.median(np.linalg.norm(moved(found) - expected, axis=1))) / max(extent, 1e-12)


def _fraction_seen(views: Views, xyz: np.ndarray, visibility: np.ndarray | None) -> float:
    """Fraction of (point, view) pairs where the point lands in the photo: of the seen pairs, or of all pairs."""
    chosen = np.random.default_rng(0).permutation(len(xyz))[:2000]
    uv, _ = views.project(xyz[chosen])
    inside = views.inside(uv)
    if visibility is None:
        return float(inside.mean()) if inside.size else 0.0
    seen = visibility[chosen].T
    return float(inside[seen].mean()) if seen.any() else 1.0


surface_sos_data = DataParserSpecification(
    config=SurfaceSOSDataParserConfig(),
    description="ns-process-data output with coarse masks of the object, for Surface-SOS.",
)
"""What the entry point group ``nerfstudio.dataparser_configs`` finds, so that other methods can read these captures.

nerfstudio loads it in the middle of its own imports: this module must not import the data manager or the methods.
"""
