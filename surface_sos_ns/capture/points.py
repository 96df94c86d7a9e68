"""Sparse points of a capture: read from what it brings, or triangulated once from its photos and known poses."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.keypoints import (
    Keypoints,
    camera_from_world,
    essential_matrix,
    find_keypoints,
    pixel_size,
)
from surface_sos_ns.capture.names import listed, match_references
from surface_sos_ns.capture.views import Views
from surface_sos_ns.utils.files import write_arrays

__all__ = [
    "PointsFile",
    "SparsePoints",
    "first_fitting_points",
    "read_colmap_points",
    "read_ply_points",
    "triangulate_points",
]

NEIGHBOURS = 10
"""Photos each photo is matched with."""


@dataclass(frozen=True)
class SparsePoints:
    """Points on surfaces, with who saw them.

    Attributes:
        xyz: (P, 3) float64.
        rgb: (P, 3) uint8.
        track_length: (P,) int, the number of photos a point was triangulated from; 0 where unknown.
        visibility: (P, N) bool, whether photo n was used for point p; None where unknown.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    track_length: np.ndarray
    visibility: np.ndarray | None = None

    def __post_init__(self) -> None:
        xyz = np.asarray(self.xyz, dtype=np.float64).reshape(-1, 3)
        count = len(xyz)
        object.__setattr__(self, "xyz", xyz)
        object.__setattr__(self, "rgb", np.asarray(self.rgb, dtype=np.uint8).reshape(-1, 3))
        object.__setattr__(self, "track_length", np.asarray(self.track_length, dtype=np.int64).reshape(-1))
        lengths = [count, len(self.rgb), len(self.track_length)]
        if self.visibility is not None:
            object.__setattr__(self, "visibility", np.asarray(self.visibility, dtype=bool))
            lengths.append(len(self.visibility))
        if len(set(lengths)) != 1:
            raise ValueError(
                f"Sparse points have {lengths} rows of xyz, rgb, track_length (and visibility); expected equal numbers."
            )

    def __len__(self) -> int:
        return len(self.xyz)

    def transformed(self, transform: np.ndarray, scale: float = 1.0) -> SparsePoints:
        """The points in another frame: ``scale * (transform @ [x, 1])``, transform (3, 4) or (4, 4)."""
        matrix = np.asarray(transform, dtype=np.float64)[:3]
        moved = (self.xyz @ matrix[:, :3].T + matrix[:, 3]) * scale
        return SparsePoints(moved, self.rgb, self.track_length, self.visibility)

    def select(self, chosen: np.ndarray) -> SparsePoints:
        """The points at ``chosen`` (indices or a boolean mask)."""
        visibility = None if self.visibility is None else self.visibility[chosen]
        return SparsePoints(self.xyz[chosen], self.rgb[chosen], self.track_length[chosen], visibility)


_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


def read_ply_points(path: Path) -> SparsePoints:
    """Reads a point cloud such as nerfstudio's ``sparse_pc.ply`` (ascii or binary), in the file's own frame.

    Returns:
        The points; track lengths are 0 and visibility is None, because the file does not tell them. Points that are not
        finite are left out. Without colours in the file they are grey.

    Raises:
        CaptureError: when the file is no PLY file with x, y, z, or ends too early.
    """
    path = Path(path)
    with open(path, "rb") as stream:
        if stream.readline().strip() != b"ply":
            raise CaptureError(f"{path} is not a PLY file; expected its first line to be 'ply'.")
        encoding, count, properties, element = "", 0, [], ""
        elements: list[str] = []
        while True:
            line = stream.readline()
            if not line:
                raise CaptureError(f"{path} ends within its header; the file is damaged, write it again.")
            words = line.decode("ascii", "replace").split()
            try:
                if words[:1] == ["format"]:
                    encoding = words[1]
                elif words[:1] == ["element"]:
                    element = words[1]
                    elements.append(element)
                    if element == "vertex":
                        count = int(words[2])
                elif words[:1] == ["property"] and element == "vertex":
                    if words[1] == "list" or words[1] not in _PLY_TYPES:
                        raise CaptureError(f"{path}: the vertex property '{' '.join(words[1:])}' is not supported.")
                    properties.append((words[2], _PLY_TYPES[words[1]]))
                elif words[:1] == ["end_header"]:
                    break
            except IndexError as error:
                raise CaptureError(f"{path}: the line '{' '.join(words)}' of its header is not complete.") from error
            except CaptureError:
                raise
            except ValueError as error:
                raise CaptureError(
                    f"{path}: the line '{' '.join(words)}' of its header is not right; expected a number of points."
                ) from error
        names = [name for name, _ in properties]
        if elements[:1] != ["vertex"] or not {"x", "y", "z"} <= set(names) or len(set(names)) < len(names):
            raise CaptureError(f"{path}: expected a point cloud whose first element is 'vertex' with x, y, z.")
        if encoding == "ascii":
            try:
                rows = np.loadtxt(stream, max_rows=count, ndmin=2) if count > 0 else np.zeros((0, len(names)))
            except ValueError as error:
                raise CaptureError(f"{path}: its points cannot be read ({error}); it is damaged.") from error
            if len(rows) < count or rows.shape[1] < len(names):
                raise CaptureError(f"{path} ends after {len(rows)} of {count} points; it is damaged.")
            columns = {name: rows[:, i] for i, name in enumerate(names)}
        else:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(encoding)
            if order is None:
                raise CaptureError(f"{path}: unknown PLY format '{encoding}'.")
            layout = np.dtype([(name, order + kind) for name, kind in properties])
            there = (path.stat().st_size - stream.tell()) // layout.itemsize
            if not 0 <= count <= there:
                raise CaptureError(f"{path} ends after {there} of {count} points; it is damaged.")
            structured = np.frombuffer(stream.read(layout.itemsize * count), dtype=layout)
            columns = {name: structured[name] for name in names}
    xyz = np.stack([columns[name] for name in "xyz"], axis=-1).astype(np.float64)
    colours = [columns.get(name, columns.get(f"diffuse_{name}")) for name in ("red", "green", "blue")]
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    if all(colour is not None for colour in colours):
        rgb = np.stack(colours, axis=-1).astype(np.uint8)  # type: ignore[arg-type]
    finite = np.isfinite(xyz).all(axis=1)
    return SparsePoints(xyz[finite], rgb[finite], np.zeros(int(finite.sum()), np.int64))


def write_ply_points(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """Writes points (P, 3) and their colours (P, 3) uint8 as nerfstudio's ``sparse_pc.ply`` is."""
    lines = ["ply", "format ascii 1.0", f"element vertex {len(xyz)}"]
    lines += [f"property float {k}" for k in "xyz"] + [f"property uint8 {k}" for k in ("red", "green", "blue")]
    lines.append("end_header")
    lines += [f"{p[0]:.6f} {p[1]:.6f} {p[2]:.6f} {c[0]} {c[1]} {c[2]}" for p, c in zip(xyz, rgb, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def read_colmap_points(
    sparse_dir: Path, photos: Sequence[str], applied_transform: np.ndarray | None = None
) -> SparsePoints:
    """Reads the points of a COLMAP model with their tracks.

    Args:
        sparse_dir: folder with cameras, images and points3D, binary or text (for example ``colmap/sparse/0``).
        photos: paths of the N photos, in the order of the views, as in transforms.json (``images/a/0001.jpg``): photos
            in different folders may have one name. Matched with COLMAP's names by `names.match_references`; images that
            are no photo of the capture are left out.
        applied_transform: (3, 4) ``applied_transform`` of transforms.json, which takes COLMAP's world to the capture
            frame; None leaves COLMAP's world.

    Raises:
        ImportError: when pycolmap is not installed.
        CaptureError: the folder holds no readable model, none of the photos, or names that could be several photos.
    """
    model = _read_colmap_model(sparse_dir)
    points = _points_of(model, _views_of_images(model, photos, sparse_dir), len(photos))
    return points if applied_transform is None else points.transformed(applied_transform)


def _read_colmap_model(folder: Path) -> Any:
    """A pycolmap reconstruction; see `read_colmap_points` for what is raised."""
    from surface_sos_ns.utils.colmap import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # pycolmap raises different types from version to version
        raise CaptureError(
            f"{folder} holds no readable COLMAP model ({error}); expected cameras, images and points3D."
        ) from error


def _views_of_images(model: Any, photos: Sequence[str], folder: Path) -> dict[int, int]:
    """Of each image of a COLMAP model that is a photo of the capture, by its id: the view's index.

    Raises:
        CaptureError: none is a photo, or it is not clear which photo an image is. Then nobody could tell who has seen a
            point, and a wrong answer would be worse than none.
    """
    ids = sorted(model.images)
    names = [model.images[image_id].name for image_id in ids]
    found = match_references(photos, names)
    count = Counter(index for indices in found for index in indices)
    for indices in found:
        if len(indices) > 1 or any(count[index] > 1 for index in indices):
            could_be = [photo for photo, theirs in zip(photos, found, strict=True) if theirs == indices]
            raise CaptureError(
                f"In the COLMAP model in {folder}, it is not clear which image is which photo: "
                f"{listed([names[index] for index in indices], 2)} could be {listed(could_be, 2)}."
            )
    if ids and not any(found):
        raise CaptureError(
            f"The COLMAP model in {folder} knows none of the photos (it has {listed(names, 1)}, the capture "
            f"{listed(photos, 1) or 'none'})."
        )
    return {ids[indices[0]]: view for view, indices in enumerate(found) if indices}


@dataclass(frozen=True, eq=False)
class PointsFile:
    """Where sparse points of a capture are and how they get into the world frame; small, and read only when asked for.

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
        """Whether it is a COLMAP model, which knows the photos that saw each point."""
        return self.path.suffix.lower() != ".ply"

    @property
    def contents(self) -> list[Path]:
        """The files that the points and their visibility are read from."""
        if not self.is_colmap:
            return [self.path]
        return sorted(path for kind in ("images.*", "points3D.*") for path in self.path.glob(kind))

    def load(self, views: Views, photos: Sequence[str]) -> SparsePoints:
        """The points in the world frame.

        Args:
            views: N views that visibility and plausibility refer to, world frame.
            photos: paths of the N photos, as in transforms.json.

        Raises:
            ImportError: pycolmap is not installed.
            OSError: a file cannot be read.
            CaptureError: there are no points, or they do not fit the cameras.
        """
        if self.is_colmap:
            model = _read_colmap_model(self.path)
            view_of = _views_of_images(model, photos, self.path)
            points = _points_of(model, view_of, len(photos))
            errors = [_centre_error(self._moved(t), model, view_of, views) for t in self.transforms]
        else:
            points = read_ply_points(self.path)
            errors = [0.0] * len(self.transforms)  # a .ply file has no cameras to compare
        if len(points) == 0:
            raise CaptureError("there are none.")
        best = int(np.argmin(errors))
        xyz = self._moved(self.transforms[best])(points.xyz)
        seen = _fraction_seen(views, xyz, points.visibility)
        if errors[best] > 0.05 or seen < (0.5 if points.visibility is not None else 0.02):
            raise CaptureError("they do not fit the cameras of the capture.")
        return replace(points, xyz=xyz)

    def _moved(self, transform: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda xyz: self.scale * (xyz @ transform[:, :3].T + transform[:, 3])


def first_fitting_points(
    files: Sequence[PointsFile], views: Views, photos: Sequence[str]
) -> tuple[SparsePoints | None, list[str]]:
    """The points of the first file that can be read and fits the cameras.

    Args:
        files: best first: a COLMAP model, which knows who saw a point, before a .ply file.
        views: N views, world frame.
        photos: paths of the N photos, as in transforms.json.

    Returns:
        The points, world frame, or None if no file serves; and a sentence for each file that did not.
    """
    remarks: list[str] = []
    for file in files:
        try:
            return file.load(views, photos), remarks
        except (ImportError, OSError, CaptureError) as error:
            remarks.append(f"The sparse points in {file.path} are left out: {error}")
    return None, remarks


def _centre_error(
    moved: Callable[[np.ndarray], np.ndarray], model: Any, view_of: dict[int, int], views: Views
) -> float:
    """How far a COLMAP model's cameras, moved, lie from the capture's: a fraction of the cameras' extent.

    0 for a model without poses, where nothing can be compared.
    """
    posed = {image_id: view for image_id, view in view_of.items() if model.images[image_id].has_pose}
    if not posed:
        return 0.0
    centres = views.centres()
    found = np.array([model.images[image_id].projection_center() for image_id in posed])
    extent = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max())
    return float(np.median(np.linalg.norm(moved(found) - centres[list(posed.values())], axis=1))) / max(extent, 1e-12)


def _fraction_seen(views: Views, xyz: np.ndarray, visibility: np.ndarray | None) -> float:
    """Fraction of (point, view) pairs where the point lands in the photo: of the seen pairs, or of all pairs."""
    chosen = np.random.default_rng(0).permutation(len(xyz))[:2000]
    uv, _ = views.project(xyz[chosen])
    inside = views.inside(uv)
    if visibility is None:
        return float(inside.mean()) if inside.size else 0.0
    seen = visibility[chosen].T
    return float(inside[seen].mean()) if seen.any() else 1.0


def _points_of(model: Any, view_of: dict[int, int], count: int) -> SparsePoints:
    """The points of a pycolmap reconstruction, in order of their ids."""
    ids = sorted(model.points3D.keys())
    xyz = np.zeros((len(ids), 3))
    rgb = np.zeros((len(ids), 3), np.uint8)
    length = np.zeros(len(ids), np.int64)
    visibility = np.zeros((len(ids), count), bool)
    for row, point_id in enumerate(ids):
        point = model.points3D[point_id]
        xyz[row], rgb[row] = point.xyz, point.color
        length[row] = point.track.length()
        for element in point.track.elements:
            if element.image_id in view_of:
                visibility[row, view_of[element.image_id]] = True
    return SparsePoints(xyz, rgb, length, visibility)


def triangulate_points(
    images: Sequence[np.ndarray],
    views: Views,
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[SparsePoints | None, list[str]]:
    """Triangulates feature points of photos whose poses are known.

    SIFT features of neighbouring photos are matched along their epipolar lines; pycolmap joins the matches to tracks,
    triangulates them and filters by reprojection error and angle. Poses stay as they are.

    Args:
        images: N photos (H, W, 3) uint8 RGB.
        views: N views, world frame.
        cache: ``.npz`` that keeps the result; used again when poses and photos are the same.
        progress: called with one line per stage.

    Returns:
        The points, world frame, seen by at least three photos each, or None when pycolmap is missing or the photos give
        too few points; and a sentence for each thing that went wrong, among them why there are none.
    """
    remarks: list[str] = []
    fingerprint = _fingerprint(images, views)
    if cache is not None:
        stored, remarks = _load_cache(Path(cache), fingerprint)
        if stored is not None:
            return stored, remarks
    try:
        from surface_sos_ns.utils.colmap import pycolmap
    except ImportError as error:
        return None, [*remarks, f"No sparse points: pycolmap cannot be imported ({error}); `pip install pycolmap`."]
    if len(views) < 3:
        return None, [*remarks, f"No sparse points: {len(views)} photos are too few to triangulate from."]
    if progress:
        progress(f"triangulating sparse points: features of {len(images)} photos")
    keypoints = [find_keypoints(image, views, index) for index, image in enumerate(images)]
    pairs = _neighbour_pairs(views)
    if progress:
        progress(f"triangulating sparse points: matching {len(pairs)} pairs of photos")
    matches = {pair: _match(keypoints[pair[0]], keypoints[pair[1]], views, *pair) for pair in pairs}
    try:
        points = _triangulate(pycolmap, keypoints, matches, views)
    except Exception as error:  # a library failure must not end a run that masks and axes alone can serve
        return None, [*remarks, f"No sparse points: pycolmap could not triangulate ({error})."]
    if len(points) < 30:
        few = (
            f"No sparse points: only {len(points)} could be triangulated (blurred or textureless photos, or poses that "
            "do not fit the photos)."
        )
        return None, [*remarks, few]
    if progress:
        progress(f"triangulated {len(points)} sparse points")
    if cache is not None:
        _save_cache(Path(cache), fingerprint, points)
    return points, remarks


def _neighbour_pairs(views: Views) -> list[tuple[int, int]]:
    """Pairs of photos that look in similar directions from near places, a fixed number per photo."""
    centres, axes = views.centres(), views.axes()
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    distance = distance / max(float(np.median(distance[distance > 0])), 1e-12) if (distance > 0).any() else distance
    angle = np.arccos(np.clip(axes @ axes.T, -1, 1))
    cost = distance + 2 * angle
    cost[(angle > np.deg2rad(60)) | np.eye(len(views), dtype=bool)] = np.inf
    pairs = set()
    for first in range(len(views)):
        for second in np.argsort(cost[first], kind="stable")[:NEIGHBOURS]:
            if np.isfinite(cost[first, second]):
                pairs.add((min(first, int(second)), max(first, int(second))))
    return sorted(pairs)


def _match(first: Keypoints, second: Keypoints, views: Views, a: int, b: int) -> np.ndarray:
    """(M, 2) uint32 mutual nearest neighbours among the keypoints near each other's epipolar line, ratio-tested."""
    if not len(first.normalised) or not len(second.normalised):
        return np.zeros((0, 2), np.uint32)
    essential = essential_matrix(views, a, b)
    left = np.concatenate([first.normalised, np.ones((len(first.normalised), 1))], axis=1).astype(np.float32)
    right = np.concatenate([second.normalised, np.ones((len(second.normalised), 1))], axis=1).astype(np.float32)
    lines_b, lines_a = left @ essential.T.astype(np.float32), right @ essential.astype(np.float32)
    error = lines_b @ right.T
    scale = (lines_b[:, :2] ** 2).sum(1)[:, None] + (lines_a[:, :2] ** 2).sum(1)[None]
    pixel = pixel_size(views, a)
    near = error**2 <= (2.0 * pixel) ** 2 * scale  # Sampson distance
    similarity = first.descriptors @ second.descriptors.T
    similarity[~near] = -1.0
    best = similarity.argmax(axis=1)
    rows = np.arange(len(best))
    value = similarity[rows, best]
    mutual = similarity.argmax(axis=0)[best] == rows
    # The runner-up is looked for among candidates on the epipolar line that are not the same spot.
    similarity[rows, best] = -1.0
    runner_up = similarity.max(axis=1)
    distance = np.sqrt(np.maximum(2 - 2 * value, 0))
    other = np.sqrt(np.maximum(2 - 2 * np.maximum(runner_up, 0), 0))
    good = mutual & (value > 0.75) & (distance < 0.85 * other)
    return np.stack([rows[good], best[good]], axis=-1).astype(np.uint32)


def _triangulate(
    pycolmap: Any, keypoints: list[Keypoints], matches: dict[tuple[int, int], np.ndarray], views: Views
) -> SparsePoints:
    """Tracks and points by pycolmap, all in memory; keypoints are undistorted, so every camera is a pinhole."""
    model = pycolmap.Reconstruction()
    graph = pycolmap.CorrespondenceGraph()
    for index, found in enumerate(keypoints):
        focal = 1.0 / pixel_size(views, index)
        width, height = (int(2 * focal),) * 2
        camera = pycolmap.Camera(
            model="SIMPLE_PINHOLE",
            width=width,
            height=height,
            params=[focal, width / 2, height / 2],
            camera_id=index + 1,
        )
        model.add_camera_with_trivial_rig(camera)
        places = found.normalised * focal + [width / 2, height / 2]
        image = pycolmap.Image(name=f"{index:06d}", keypoints=places, camera_id=index + 1, image_id=index + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera_from_world(views, index)))
        graph.add_image(index + 1, len(places))
    for (first, second), pairs in matches.items():
        if len(pairs):
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED.value
            geometry.inlier_matches = pairs
            graph.add_two_view_geometry(first + 1, second + 1, geometry)
    graph.finalize()
    manager = pycolmap.ObservationManager(model, graph)
    triangulator = pycolmap.IncrementalTriangulator(graph, model, manager)
    options = pycolmap.IncrementalTriangulatorOptions()
    options.random_seed = 0
    options.complete_max_reproj_error = options.merge_max_reproj_error = 2.0
    for index in range(len(keypoints)):
        triangulator.triangulate_image(options, index + 1)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)
    manager.filter_all_points3D(2.0, 2.0)
    manager.filter_points3D_with_short_tracks(3)
    for point_id in list(model.points3D.keys()):
        point = model.points3D[point_id]
        colours = [keypoints[e.image_id - 1].rgb[e.point2D_idx] for e in point.track.elements]
        point.color = np.mean(colours, axis=0).round().astype(np.uint8)
    return _points_of(model, {index + 1: index for index in range(len(keypoints))}, len(keypoints))


def _fingerprint(images: Sequence[np.ndarray], views: Views) -> str:
    """Changes when poses, intrinsics or photos do."""
    digest = hashlib.sha256(b"points-1")
    for array in (views.camera_to_world, views.fx, views.fy, views.cx, views.cy, views.distortion, views.fisheye):
        digest.update(np.ascontiguousarray(array).tobytes())
    for image in images:
        digest.update(str(image.shape).encode())
        digest.update(np.ascontiguousarray(image[::16, ::16]).tobytes())
    return digest.hexdigest()


def _load_cache(path: Path, fingerprint: str) -> tuple[SparsePoints | None, list[str]]:
    """The points of a cache that is of the same inputs, and a sentence where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None, []
            return SparsePoints(stored["xyz"], stored["rgb"], stored["track_length"], stored["visibility"]), []
    except FileNotFoundError:
        return None, []
    except Exception as error:  # a damaged cache is no reason to stop: it is written again
        return None, [f"The cached sparse points {path} cannot be read ({error}); they were triangulated again."]


def _save_cache(path: Path, fingerprint: str, points: SparsePoints) -> None:
    write_arrays(
        path,
        fingerprint=np.array(fingerprint),
        xyz=points.xyz,
        rgb=points.rgb,
        track_length=points.track_length,
        visibility=points.visibility if points.visibility is not None else np.zeros((len(points), 0), bool),
    )
