"""Reads a capture: nerfstudio's ``transforms.json`` with masks of the object, truth where there is some, and points."""

from __future__ import annotations

import dataclasses
import errno
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import MAX_AUTO_RESOLUTION, NerfstudioDataParserConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from surface_sos_ns.capture import checks
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.downscaled import (
    downscaled_mask,
    downscaled_names,
    downscaled_photo,
    factor_for,
    write_downscaled,
)
from surface_sos_ns.capture.identity_files import check_identity_images
from surface_sos_ns.capture.lookup import downscaled_copy, files_by_name, image_files
from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.capture.names import listed, photo_paths
from surface_sos_ns.capture.object_files import (
    KIND,
    CoarseFile,
    check_different,
    check_shown,
    check_true_identities,
    few_photos_remark,
    files_by_object,
    name_objects,
    read_coarse_mask,
    single_files,
)
from surface_sos_ns.capture.object_names import MAX_OBJECTS, default_object_names
from surface_sos_ns.capture.orientation import orientation_remark
from surface_sos_ns.capture.part_files import KIND as PARTS
from surface_sos_ns.capture.points_file import PointsFile, first_fitting_points
from surface_sos_ns.plugin.cameras import cameras_from_views, has_good_ray, views_from_cameras
from surface_sos_ns.plugin.console import say, warn
from surface_sos_ns.plugin.split import choose_split, few_photos_warning
from surface_sos_ns.plugin.world_frame import OLD_APPLIED_TRANSFORM, ExactDataparserOutputs, WorldFrame, world_frame
from surface_sos_ns.utils.files import WriteError
from surface_sos_ns.utils.image_io import resized

if TYPE_CHECKING:  # these bring pydantic, which no command needs before training
    from surface_sos_ns.capture.files import CaptureFiles
    from surface_sos_ns.capture.transforms import Transforms

T = TypeVar("T")

__all__ = ["ObjectHint", "SurfaceSOSDataParser", "SurfaceSOSDataParserConfig", "surface_sos_data"]

FOLDERS = {
    "coarse_mask": "coarse_masks",
    "gt_mask": "gt_masks",
    "gt_objects": "gt_objects",
    "gt_parts": "gt_parts",
    "clean_plate": "clean_plates",
}
"""Folder of the capture for each kind of file that a photo may have, unless transforms.json names the files."""
TRUTH = ("gt_mask", "gt_objects", "gt_parts", "clean_plate")
"""Kinds of files that are not for training."""
MASKS_CHECKED = 16
MAX_MISSED_SHARE = 0.05
"""Part of a photo's pixels that may go without a ray because nerfstudio cannot undistort them."""


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
    stem), none, or a folder (relative to the capture, or absolute) with one mask per photo of the same stem. Masks of
    several objects are identity images (0 background, 1, 2, ...), or in one folder for each object."""
    objects: int | None = None
    """Without coarse masks: how many objects to look for, 2 to 32; those of the plane that carries them that stand out
    most. With coarse masks, these say."""
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


@dataclass
class SurfaceSOSDataParser(DataParser):
    """Cameras, photos, masks and points of a capture, all checked before any long work.

    ``metadata`` of the outputs gets, besides nerfstudio's entries:
        coarse_mask_filenames: per photo its `capture.object_files.CoarseFile` or None; None when there are no coarse
            masks at all.
        object_names: of the objects, the first of identity 1; empty for one object.
        true_object_names: of those of the truth, which masks that were not used may have named.
        gt_mask_filenames, gt_objects_filenames, gt_parts_filenames, clean_plate_filenames: per photo Path or None; None
            when there are none, and always for the split ``train``.
        part_names: of the object's true parts, the first of identity 1; None if the capture names none.
        file_paths: per photo its path as it stands in transforms.json.
        points_files: ``capture.points_file.PointsFile``, where there may be sparse points, the best first; for
            `capture.points_file.first_fitting_points`, with these paths.
        object_hint: ObjectHint or None, world frame.
        capture_to_world: (4, 4) float64, from the frame of transforms.json to the world frame, scale included.

    Raises:
        CaptureError: whatever is wrong with the capture, with the file, what was expected and what to do.
    """

    config: SurfaceSOSDataParserConfig
    downscale_factor: int | None = None
    """How much smaller than the originals photos are used. nerfstudio sets it where it wants cameras and no file."""
    object_names: tuple[str, ...] | None = None
    """Of the capture's objects, empty for one; None until its masks have been looked for."""
    to_report: bool = False
    """Whether the files have been looked at but the masks not yet, nor the line about the capture printed."""

    @functools.cached_property
    def capture(self) -> Transforms:
        """transforms.json, or the COLMAP model in its place, read and checked."""
        from surface_sos_ns.capture.transforms import capture_source, read_transforms

        return read_transforms(capture_source(Path(self.config.data)))

    @functools.cached_property
    def files(self) -> CaptureFiles:
        """Its files as they are spelt on the disk. Where nerfstudio wants cameras alone, they need not exist."""
        from surface_sos_ns.capture.files import FILE_KEYS, find_files

        if self.downscale_factor is not None:
            return find_files(self.capture, ())
        unused = set() if self.config.coarse_masks == "auto" else {"coarse_mask_path"}
        return find_files(self.capture, set(FILE_KEYS) - unused)

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        capture, files = self.capture, self.files
        if self.downscale_factor is None:
            self._prepare_files()
        photos = self._in_use(files.photos, "images")
        valid = files.masks["mask_path"]
        masks = self._find_coarse_masks()
        if self.object_names is None:
            self.object_names = self._name_objects(masks)
        masks = [file and self._at_used_size(file) for file in masks]
        truth = {kind: self._find_truth(kind) for kind in TRUTH}
        if self.to_report:
            self._check_masks(masks, truth)
        has_truth = any(any(truth[kind]) for kind in ("gt_mask", "gt_objects", "gt_parts"))
        splits, split_words = choose_split(capture, photos, self.config, has_truth)
        world = world_frame(capture, np.argsort(photos), self.config)  # type: ignore[arg-type]
        chosen = splits[split]

        def of(files: Sequence[T | None]) -> list[T | None] | None:
            return [files[index] for index in chosen] if any(files) else None

        cameras = self._cameras(world, chosen)
        points = _points_files(capture, files.points, world)
        outputs = ExactDataparserOutputs(
            image_filenames=[photos[index] for index in chosen],
            cameras=cameras,
            scene_box=SceneBox(aabb=self.config.scene_scale * torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            mask_filenames=of(self._in_use(valid, "masks")) if all(valid) else None,  # type: ignore[arg-type]
            metadata={
                "depth_filenames": None,
                "depth_unit_scale_factor": self.config.depth_unit_scale_factor,
                "mask_color": self.config.mask_color,
                "coarse_mask_filenames": of(masks),
                "object_names": self.object_names,
                "true_object_names": capture.object_names or self.object_names,
                **{f"{kind}_filenames": None if split == "train" else of(files) for kind, files in truth.items()},
                "part_names": capture.part_names,
                "file_paths": [capture.file_paths[index] for index in chosen],
                "points_files": points,
                "object_hint": self._object_hint(world),
                "capture_to_world": world.matrix,
            },
            **world.for_nerfstudio(capture.applied_scale),  # type: ignore[arg-type]
        )
        if self.config.load_3D_points and points:
            outputs.metadata.update(_points_for_nerfstudio(points, outputs))
        if self.to_report:
            self.to_report = False
            self._report(outputs, masks, truth, split_words)
        return outputs

    def _cameras(self, world: WorldFrame, chosen: Sequence[int]) -> Cameras:
        """Cameras of some frames, world frame, of the size that photos are used at."""
        capture = self.capture
        views = dataclasses.replace(capture.views, camera_to_world=world.poses).subset(chosen)
        more: dict[str, Any] = {}
        if capture.fisheye_crop_radius is not None and views.fisheye.any():
            more["metadata"] = {"fisheye_crop_radius": capture.fisheye_crop_radius / (self.downscale_factor or 1)}
        if self.config.times:
            more["times"] = torch.from_numpy(capture.frame_times()[chosen]).float()[:, None]
        cameras = cameras_from_views(views, **more)
        cameras.rescale_output_resolution(scaling_factor=1.0 / (self.downscale_factor or 1))
        return cameras

    def _report(
        self,
        outputs: DataparserOutputs,
        masks: list[CoarseFile | None],
        truth: dict[str, list[Path | None]],
        split_words: str,
    ) -> None:
        """Prints remarks and the line about the capture."""
        if self.capture.ply_file_path and self.files.points is None:
            missing = self.capture.folder / self.capture.ply_file_path
            warn(f"{missing} (ply_file_path in transforms.json) does not exist; going on without it.")
        for remark in [*self.capture.remarks, *self.files.remarks]:
            warn(f"{self.capture.source}: {remark}")
        _warn_if(few_photos_warning(len(outputs.image_filenames)))
        count = sum(mask is not None for mask in masks)
        names = self.object_names or ()
        points = outputs.metadata["points_files"]

        def count_of(kind: str) -> int:
            return sum(path is not None for path in truth[kind])

        say(
            f"Capture {self.capture.folder.resolve().name}: {len(masks)} photos ({split_words}), "
            f"{int(outputs.cameras.width[0])} x {int(outputs.cameras.height[0])}; "
            + (f"coarse masks for {count}, {len(masks) - count} without" if count else "no coarse masks")
            + (f"; {len(names)} objects: {listed(names, 8)}" if names else "")
            + (f"; truth for {count_of('gt_mask')}" if any(truth["gt_mask"]) else "; no truth")
            + (f"; true objects for {count_of('gt_objects')}" if any(truth["gt_objects"]) else "")
            + (f"; true parts for {count_of('gt_parts')}" if any(truth["gt_parts"]) else "")
            + (
                f"; sparse points from {'COLMAP' if points[0].is_colmap else points[0].path.name}"
                if points
                else "; no sparse points"
            )
        )

    def _in_use(self, file_paths: Sequence[str | None], folder: str) -> list[Path]:
        """The files of photos or valid-pixel masks at the size they are used at; none for None."""
        named = [path for path in file_paths if path is not None]
        factor = int(self.downscale_factor or 1)
        if factor == 1:
            return [self.capture.folder / path for path in named]
        return [self.capture.folder / f"{folder}_{factor}" / name for name in downscaled_names(named)]

    def _prepare_files(self) -> None:
        """Look at the photos' headers, choose the downscale factor, and make the smaller photos that it needs."""
        self.to_report = True
        capture = self.capture
        self._check_views()
        with_mask = [path for path in self.files.masks["mask_path"] if path]
        if with_mask and len(with_mask) < len(capture):
            raise CaptureError(
                f"{capture.source}: mask_path is given for {len(with_mask)} of {len(capture)} frames; "
                "nerfstudio wants it for all or none. (Masks of the object belong under coarse_mask_path, "
                "which may be partial.)"
            )
        originals = [capture.folder / path for path in self.files.photos]
        headers = checks.read_headers(originals)
        _warn_if(orientation_remark(originals, headers, self._sizes()))
        _warn_if(checks.transparency_warning(originals, headers))
        self.downscale_factor = self._factor(with_mask)
        paths, sizes = self._in_use(self.files.photos, "images"), self._sizes(self.downscale_factor)
        checks.check_image_sizes(paths, checks.read_headers(paths), sizes)
        if with_mask:
            valid = self._in_use(with_mask, "masks")
            checks.check_mask_sizes(valid, paths, [[size] for size in sizes], "mask (mask_path)")
            _warn_if(
                checks.valid_mask_warning([_small(read_mask(valid[index])) for index in _spread_indices(len(valid))])
            )

    def _sizes(self, factor: int = 1) -> list[tuple[int, int]]:
        """Width and height of each photo at 1/factor of its size."""
        return [(width // factor, height // factor) for width, height in self.capture.views.sizes()]

    def _check_views(self) -> None:
        """Whether the cameras look at something together, through lenses that nerfstudio can follow."""
        capture, views = self.capture, self.capture.views
        half_field = np.stack([views.width / views.fx, views.height / views.fy], axis=1) / 2
        wide = views.fisheye[:, None]
        half_field = np.where(wide, np.tan(np.minimum(half_field, np.radians(80))), half_field)
        poses = np.tile(np.eye(4), (len(views), 1, 1))
        poses[:, :3] = views.camera_to_world
        _warn_if(checks.check_viewing_directions(poses, half_field, capture.source))
        _warn_if(checks.rayless_warning(views, capture.file_paths, capture.source))
        _check_undistortion(capture)

    def _factor(self, with_mask: Sequence[str]) -> int:
        """How much smaller photos are used, after making the smaller files."""
        capture, explicit = self.capture, self.config.downscale_factor
        if explicit is not None and (explicit < 1 or explicit != int(explicit)):
            raise CaptureError(f"The downscale factor is {explicit}; expected a whole number of at least 1.")
        factor = int(explicit) if explicit is not None else factor_for(self._sizes(), MAX_AUTO_RESOLUTION)
        if factor == 1:
            return 1
        smallest = min(min(size) for size in self._sizes())
        if smallest < factor:
            raise CaptureError(
                f"The downscale factor is {factor}, and there are photos of {smallest} pixels; nothing would be left."
            )
        jobs = [(self.files.photos, "images", downscaled_photo)]
        if with_mask:
            jobs.append((list(with_mask), "masks", downscaled_mask))
        try:
            for names, kind, shrink in jobs:
                folder = capture.folder / f"{kind}_{factor}"
                targets = [folder / name for name in downscaled_names(names)]
                files = list(zip((capture.folder / name for name in names), self._sizes(), targets, strict=True))
                write_downscaled(files, folder, factor, shrink, say)
        except WriteError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            _report_read_only(error, capture.folder, factor, explicit is not None)
            return 1
        return factor

    def _find_coarse_masks(self) -> list[CoarseFile | None]:
        """Per frame the coarse mask, or None.

        Where frames map objects to files, folders are not searched.

        Raises:
            CaptureError: a folder was named that does not exist, or that has no file for any photo.
        """
        capture, option = self.capture, self.config.coarse_masks
        auto = option == "auto"
        if auto and any(self.files.object_masks):
            single = self._given("coarse_mask")
            mapped = [{name: capture.folder / path for name, path in of.items()} for of in self.files.object_masks]
            return [one or by_name or None for one, by_name in zip(single, mapped, strict=True)]
        if option != "none" and not (auto and any(self._given("coarse_mask"))):
            photos = photo_paths(self.files.photos, str(capture.folder))
            folder = capture.folder / (FOLDERS["coarse_mask"] if auto else option)
            found = files_by_object(folder, photos, capture.object_names)
            if found is not None:
                if self.to_report:
                    _warn_if(_unused_warning(folder, single_files(found)))
                return found
        return list(self._find_masks("coarse_mask", option))

    def _find_masks(self, kind: str, option: str) -> list[Path | None]:
        """Per frame the file of one kind (coarse_mask, gt_mask, gt_parts, clean_plate), or None.

        Raises:
            CaptureError: a folder was named that does not exist, or that has no file for any photo.
        """
        capture = self.capture
        if option == "none":
            return [None] * len(capture)
        named = option != "auto"
        folder = capture.folder / (option if named else FOLDERS[kind])
        if named and not folder.is_dir():
            raise CaptureError(
                f"The folder of coarse masks {folder} does not exist. --coarse-masks takes auto, none, or a folder "
                "(relative to the capture, or absolute)."
            )
        given = [None] * len(capture) if named else self._given(kind)
        found = files_by_name(folder, photo_paths(self.files.photos, str(capture.folder)), given)
        if named and not any(found):
            raise CaptureError(
                f"No file in {folder} belongs to a photo: expected the photos' names, such as "
                f"{Path(capture.file_paths[0]).stem}.png, found no image files."
            )
        if self.to_report:
            _warn_if(_unused_warning(folder, found))
        return found

    def _find_truth(self, kind: str) -> list[Path | None]:
        """Per frame the file of one kind of truth, or None; true identities are not taken from downscaled copies."""
        found = self._find_masks(kind, "auto")
        return found if kind == "gt_objects" else [path and self._downscaled(path) for path in found]

    def _given(self, kind: str) -> list[Path | None]:
        """Per frame the file of one kind that transforms.json names, or None."""
        return [None if path is None else self.capture.folder / path for path in self.files.masks[f"{kind}_path"]]

    def _downscaled(self, path: Path) -> Path:
        factor = int(self.downscale_factor or 1)
        return path if factor == 1 else downscaled_copy(path, self.capture.folder, factor)

    def _at_used_size(self, file: CoarseFile) -> CoarseFile:
        """A coarse mask, or its downscaled copies; of identities the original, since copies are interpolated mostly."""
        if isinstance(file, dict):
            return {name: self._downscaled(path) for name, path in file.items()}
        return file if self.object_names else self._downscaled(file)

    def _name_objects(self, masks: Sequence[CoarseFile | None]) -> tuple[str, ...]:
        """Names of the objects; see `capture.object_files.name_objects`.

        Raises:
            CaptureError: masks and names do not fit.
        """
        capture = self.capture
        if not self.to_report:  # files may not exist
            return capture.object_names if len(capture.object_names) > 1 else ()
        wanted = self.config.objects
        if any(masks):
            if wanted is not None:
                raise CaptureError(
                    f"--objects {wanted} is for captures without coarse masks, and {capture.source} has some, which "
                    "say how many objects there are. Leave it out, or add --coarse-masks none."
                )
            return name_objects(masks, capture.object_names, capture.source)
        if wanted is None or wanted == 1:
            return ()
        if not 2 <= wanted <= MAX_OBJECTS:
            raise CaptureError(f"--objects is {wanted}; expected 2 to {MAX_OBJECTS}.")
        return default_object_names(wanted)

    def _check_masks(self, masks: Sequence[CoarseFile | None], truth: dict[str, list[Path | None]]) -> None:
        capture, names = self.capture, self.object_names or ()
        originals = [capture.folder / path for path in self.files.photos]
        accepted = list(zip(self._sizes(), self._sizes(self.downscale_factor or 1), strict=True))
        by_object: list[list[Path | None]] = [
            [file[name] if isinstance(file, dict) and name in file else None for file in masks]
            for name in names or ("",)
        ]
        images = [file if isinstance(file, Path) else None for file in masks]
        for paths in by_object if names else [*by_object, images]:
            checks.check_mask_sizes(paths, originals, accepted, "coarse mask")
        if names:
            check_identity_images(images, originals, accepted, KIND)
        for kind, words in (("gt_mask", "true mask"), ("clean_plate", "clean plate")):
            checks.check_mask_sizes(truth[kind], originals, accepted, words)
        check_identity_images(truth["gt_objects"], originals, accepted, f"true {KIND}")
        check_identity_images(truth["gt_parts"], originals, accepted, PARTS)
        if names and any(masks):
            shown = check_shown(masks, names, bool(capture.object_names) or any(map(any, by_object)), capture.source)
            _warn_if(few_photos_remark(shown))
            check_different(masks, capture.source)
        check_true_identities(truth["gt_objects"], capture.object_names or names)
        there = [(file, sizes[-1]) for file, sizes in zip(masks, accepted, strict=True) if file is not None]
        some = (there[index] for index in _spread_indices(len(there)))
        for warning in checks.object_mask_warnings(
            [_small(read_coarse_mask(file, names, size)[0]) for file, size in some]
        ):
            warn(warning)

    def _object_hint(self, world: WorldFrame) -> ObjectHint | None:
        point, radius = self.config.object_point, self.config.object_radius
        if point is None and radius is None:
            return None
        if radius is not None and not radius > 0:
            raise CaptureError(
                f"--object-radius is {radius}; expected a positive length in the units of transforms.json."
            )
        moved: Any = None if point is None else tuple(world.point(np.array(point)).tolist())
        return ObjectHint(moved, None if radius is None else radius * world.scale)


def _check_undistortion(capture: Transforms) -> None:
    """Whether nerfstudio, which undistorts by a few steps of an iteration, gets every lens of the capture right.

    Raises:
        CaptureError: it does not, somewhere where the lens shows something.
    """
    cameras = cameras_from_views(capture.views)
    lost: dict[int, float] = {}
    for index in checks.distinct_lenses(capture.views):
        if not capture.views.fisheye[index] and not capture.views.distortion[index].any():
            continue
        pixels = checks.pixel_grid(*capture.views.sizes()[index])
        pixels = pixels[capture.views.has_ray(index, pixels)]
        missed = float((~has_good_ray(cameras, index, pixels)).mean())
        if missed > MAX_MISSED_SHARE:
            raise CaptureError(
                f"{capture.source}: the lens of {capture.file_paths[index]} distorts too strongly for nerfstudio: "
                f"{missed:.0%} of the rays are wrong. Undistort the photos with the program that calibrated the lens "
                "(COLMAP: image_undistorter), and take its new cameras."
            )
        lost[index] = missed
    worst = max(lost, key=lost.__getitem__, default=None)
    if worst is not None and lost[worst] > 0:
        warn(
            f"{capture.source}: the lens of {capture.file_paths[worst]} distorts too strongly for nerfstudio in "
            f"{lost[worst]:.1%} of the photo. Training leaves these pixels out; pictures are wrong there."
        )


def _points_for_nerfstudio(files: Sequence[PointsFile], outputs: DataparserOutputs) -> dict[str, torch.Tensor]:
    """Sparse points as methods want them that start from some, such as splatfacto."""
    points, remarks = first_fitting_points(files, views_from_cameras(outputs.cameras), outputs.metadata["file_paths"])
    for remark in remarks:
        warn(remark)
    if points is None:
        return {}
    return {"points3D_xyz": torch.from_numpy(points.xyz).float(), "points3D_rgb": torch.from_numpy(points.rgb)}


def _warn_if(message: str | None) -> None:
    if message is not None:
        warn(message)


def _spread_indices(count: int) -> list[int]:
    """A few indices spread over ``range(count)``."""
    return (
        sorted(set(np.linspace(0, count - 1, min(count, MASKS_CHECKED)).round().astype(int).tolist())) if count else []
    )


def _small(mask: np.ndarray) -> np.ndarray:
    """A mask at 200 pixels or less: enough to judge its layout."""
    factor = min(1.0, 200 / max(mask.shape))
    return resized(mask, max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))


def _unused_warning(folder: Path, found: Sequence[Path | None]) -> str | None:
    """A warning about image files in a folder that are no photo's."""
    used = {path for path in found if path is not None}
    left = [file for file in image_files(folder) if folder / file not in used]
    return f"{len(left)} files in {folder} belong to no photo: {listed(left)}." if left else None


def _report_read_only(error: WriteError, data_dir: Path, factor: int, explicit: bool) -> None:
    if explicit:
        raise CaptureError(
            f"The downscale factor {factor} needs the folder {data_dir / f'images_{factor}'}, which does not "
            f"exist and cannot be made ({error}). Make the capture's folder writable, copy it, "
            "or use --downscale-factor 1."
        ) from error
    warn(f"{data_dir} is read-only, so the large photos are used at full size ({error}).")


def _points_files(capture: Transforms, ply: Path | None, world: WorldFrame) -> tuple[PointsFile, ...]:
    """Where the capture's sparse points may be: its COLMAP model (which knows visibility), then its .ply file."""
    files: list[PointsFile] = []
    found = [capture.source] if capture.source.is_dir() else []
    for folder in (*found, capture.folder / "colmap" / "sparse" / "0", capture.folder / "sparse" / "0"):
        if not files and ((folder / "points3D.bin").is_file() or (folder / "points3D.txt").is_file()):
            applied = OLD_APPLIED_TRANSFORM if capture.applied_transform is None else capture.applied_transform
            applied = np.vstack([capture.applied_scale * applied[:3], [0, 0, 0, 1]])
            saved = np.vstack([world.transform, [0, 0, 0, 1]])
            files.append(PointsFile(folder, ((saved @ applied)[:3], world.transform), world.scale))
    if ply is not None:
        files.append(PointsFile(ply, (world.transform,), world.scale))
    return tuple(files)


surface_sos_data = DataParserSpecification(
    config=SurfaceSOSDataParserConfig(),
    description="ns-process-data output with coarse masks of the object, for Surface-SOS.",
)
"""What the entry point group ``nerfstudio.dataparser_configs`` finds, so that other methods can read these captures.

nerfstudio loads it in the middle of its own imports: this module must not import the data manager or the methods.
"""
