"""Poses, lenses and sparse points from photos: features, matches and incremental mapping, all by pycolmap.

Features and matches are in a database that outlives an interruption; what is in it is not computed again. Work is
handed over in small portions: after each the progress is known, and Ctrl-C takes effect.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surface_sos_ns.process.doubtful import place_doubtful_again
from surface_sos_ns.process.error import ProcessError
from surface_sos_ns.process.pairs import blocks
from surface_sos_ns.utils.files import atomic_file, require_space, temporary_folder

__all__ = [
    "CameraModel",
    "Structure",
    "copy_features",
    "extract_features",
    "map_photos",
    "match_pairs",
    "open_database",
    "require_pycolmap",
]

CameraModel = Literal["opencv", "simple", "pinhole", "fisheye"]

COLMAP_NAMES = {"opencv": "OPENCV", "simple": "SIMPLE_RADIAL", "pinhole": "PINHOLE", "fisheye": "OPENCV_FISHEYE"}

PHOTOS_AT_A_TIME = 4
"""Photos whose features are looked for at a time."""

PHOTOS_PER_CENTRE = 20
"""Photos of one camera from which on its principal point is refined; of fewer it is the middle of the picture."""

SEED = 0

OBJECT_PEAK = 0.002
"""Contrast of the weakest SIFT feature that is taken, 0 to 1, where features are on an object alone: there are few of
them then. COLMAP's own value is 0.0067."""

MAX_ERROR_OF_FEW, MIN_ANGLE_OF_FEW = 1.5, 3.0
"""Largest reprojection error, pixels, and smallest angle between the rays of a point, degrees, where there are few."""

FREE_MB = 64
"""Megabytes that must be free before pycolmap writes the next portion: where it finds the disk full, it aborts."""


@dataclass(frozen=True)
class Structure:
    """What was found out about the photos."""

    model: Any
    """pycolmap's reconstruction: the largest, refined."""
    placed: list[str]
    """Names of the photos that have a pose, sorted."""
    left_out: list[str]
    """Names of the others, sorted."""

    @property
    def error(self) -> float:
        """Mean reprojection error in pixels."""
        return float(self.model.compute_mean_reprojection_error())

    @property
    def points(self) -> int:
        """Number of sparse points."""
        return int(self.model.num_points3D())


def require_pycolmap() -> None:
    """Makes sure that pycolmap is there and can do what is asked of it.

    Raises:
        ProcessError: it is not installed, or too old.
    """
    try:
        from surface_sos_ns.utils.colmap import pycolmap
    except ImportError as error:
        raise ProcessError(f"pycolmap cannot be imported ({error}); `pip install 'pycolmap>=4'`.") from error
    if not hasattr(pycolmap, "match_image_pairs"):
        raise ProcessError(f"pycolmap is {pycolmap.__version__}; expected 4.0 or newer: `pip install 'pycolmap>=4'`.")


def extract_features(
    database: Path,
    images: Path,
    groups: Sequence[Sequence[str]],
    camera_model: CameraModel,
    longest_side: int,
    threads: int,
    advance: Callable[[float], None] = lambda amount: None,
    masks: Path | None = None,
    few: bool = False,
) -> int:
    """SIFT features of all photos, and a camera for each group of them, into the database.

    Args:
        database: the file; it is made where it does not exist.
        images: folder of the photos.
        groups: names of photos that share a camera.
        camera_model: lens of all cameras.
        longest_side: photos are shrunk to this many pixels for it.
        threads: CPU threads.
        advance: called with the number of photos done.
        masks: folder of masks, a photo's name with .png behind; no features where they are black.
        few: take weak features, too: there will be few, on an object alone.

    Returns:
        How many features there are.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.max_image_size = threads, longest_side
    for group in groups:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = COLMAP_NAMES[camera_model]
        if masks is not None:
            reader.mask_path = str(masks)
        if few:
            options.sift.peak_threshold = OBJECT_PEAK
        for start in range(0, len(group), PHOTOS_AT_A_TIME):
            portion = list(group[start : start + PHOTOS_AT_A_TIME])
            camera = _camera_of(database, group)
            if camera is not None:
                reader.existing_camera_id = camera
            require_space(database.parent, FREE_MB)
            pycolmap.extract_features(
                database,
                images,
                image_names=portion,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
            )
            advance(len(portion))
    with open_database(database) as opened:
        return int(opened.num_keypoints())


def copy_features(database: Path, target: Path) -> None:
    """A database with the same cameras, photos and features and no matches; one that is there stays as it is."""
    if target.exists():
        return
    with atomic_file(target) as partial:
        shutil.copyfile(database, partial)
        with open_database(partial) as opened:
            opened.clear_matches()
            opened.clear_two_view_geometries()


def match_pairs(
    database: Path,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    threads: int,
    advance: Callable[[float], None] = lambda amount: None,
    guided: bool = False,
) -> int:
    """Matches features of pairs of photos and keeps those that fit one relative pose (two-view geometry).

    Args:
        database: with the features; it gets the matches.
        names: of the photos.
        pairs: indices into the names.
        threads: CPU threads.
        advance: called with the number of pairs done.
        guided: match again along the epipolar lines of a pair's relative pose: more matches, and less exact ones.

    Returns:
        Number of pairs in the database that were verified.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.guided_matching = threads, guided
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pairs.txt"
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = str(listed)
        for portion in blocks(pairs):
            listed.write_text("".join(f"{names[a]} {names[b]}\n" for a, b in portion), encoding="utf-8")
            require_space(database.parent, FREE_MB)
            pycolmap.match_image_pairs(
                database, matching_options=options, pairing_options=pairing, verification_options=verification
            )
            advance(len(portion))
    with open_database(database) as opened:
        return int(opened.num_verified_image_pairs())


def map_photos(
    database: Path,
    images: Path,
    names: Sequence[str],
    threads: int,
    reach: Callable[[float], None] = lambda done: None,
    few: bool = False,
) -> Structure:
    """Incremental mapping: registers photos one after the other and refines poses, points and lenses together.

    Args:
        database: with the matches.
        images: folder of the photos, for the points' colours.
        names: of all photos.
        threads: CPU threads.
        reach: called with the number of photos placed so far.
        few: there are few features, on an object alone, which fills a part of the photos. Fewer are enough, they have
            to fit better, and the lens stays as the photos say until all are placed: few features cannot separate focal
            length and distance.

    Returns:
        The largest reconstruction.

    Raises:
        ProcessError: fewer than three photos could be placed.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    pycolmap.set_random_seed(SEED)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = threads
    options.random_seed = SEED
    options.ba_global_function_tolerance = 1e-6  # as ns-process-data has it: finer does not show, and takes long
    if few:
        mapper = options.mapper
        mapper.init_min_num_inliers, mapper.abs_pose_min_num_inliers, options.min_num_matches = 30, 15, 12
        mapper.init_min_tri_angle, mapper.abs_pose_min_inlier_ratio = 6.0, 0.2
        mapper.filter_max_reproj_error, mapper.filter_min_tri_angle = MAX_ERROR_OF_FEW, MIN_ANGLE_OF_FEW
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
    placed = 0

    def first_two() -> None:
        nonlocal placed
        placed = 2
        reach(placed)

    def one_more() -> None:
        nonlocal placed
        placed += 1
        reach(placed)

    def mapped(start: Path | None = None) -> Any:
        with temporary_folder(database.parent) as folder:
            require_space(folder, FREE_MB)
            models = pycolmap.incremental_mapping(
                database,
                images,
                folder,
                options,
                input_path="" if start is None else start,
                initial_image_pair_callback=first_two,
                next_image_callback=one_more,
            )
        return max(models.values(), key=lambda one: (one.num_reg_images(), one.num_points3D()), default=None)

    model = mapped()
    if model is not None:
        with temporary_folder(database.parent) as folder:
            model = place_doubtful_again(model, mapped, folder)
    if model is None or model.num_reg_images() < 3:
        raise ProcessError(
            f"No poses were found for these {len(names)} photos: no three of them show enough of the same. Photos must "
            "overlap by two thirds or more, be sharp, and be taken from different places (walk, do not turn on the "
            "spot); the object or what it stands on needs texture; nothing but the camera may move. "
            "Where photos are compared in a row only, try --matching exhaustive."
        )
    _refine(model, threads, few)
    found = {image.name for image in model.images.values() if image.has_pose}
    return Structure(model, sorted(found), sorted(set(names) - found))


def _refine(model: Any, threads: int, few: bool) -> None:
    """One more bundle adjustment, with the principal points where each camera has `PHOTOS_PER_CENTRE` photos or more.

    Where there are `few` features, in a part of the photos, they determine only the focal length of the lens.
    """
    from surface_sos_ns.utils.colmap import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.num_threads = threads
    photos = [sum(image.camera_id == camera for image in model.images.values()) for camera in model.cameras]
    options.refine_principal_point = not few and min(count for count in photos if count) >= PHOTOS_PER_CENTRE
    options.refine_extra_params = not few
    pycolmap.bundle_adjustment(model, options)
    if few:  # the adjustment may have moved points out of these bounds
        pycolmap.ObservationManager(model).filter_all_points3D(MAX_ERROR_OF_FEW, MIN_ANGLE_OF_FEW)
    model.update_point_3d_errors()


def _camera_of(database: Path, group: Sequence[str]) -> int | None:
    """Id of the camera that one of a group's photos has in the database, None where it knows none of them."""
    if not database.exists():
        return None
    wanted = set(group)
    with open_database(database) as opened:
        return next((image.camera_id for image in opened.read_all_images() if image.name in wanted), None)


def open_database(database: Path) -> Any:
    """A context with the database."""
    from contextlib import closing

    from surface_sos_ns.utils.colmap import pycolmap

    return closing(pycolmap.Database.open(database))
