"""Miniatures of public data sets: what their own camera conventions project stays where it was after conversion."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.ply import read_ply_points, write_ply_points
from surface_sos_ns.cli import main

VIEWS, WIDTH, HEIGHT = 4, 64, 48
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.5, 0.5, (30, 3))
EYES = np.array([[3, 0, 1], [1, 2.5, 0.5], [-2, 2, 1.5], [0.5, -3, -1.0]])


def axes() -> np.ndarray:
    """(V, 3, 3) right, down and forward of each camera as columns, world frame; cameras that lean a little."""
    found = []
    for eye, lean in zip(EYES, (0.1, -0.3, 0.2, 0.0), strict=True):
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [np.sin(lean), 0, np.cos(lean)])
        right /= np.linalg.norm(right)
        found.append(np.stack([right, np.cross(forward, right), forward], axis=1))
    return np.array(found)


def in_camera() -> np.ndarray:
    """(V, P, 3) the points along each camera's right, down and forward."""
    return np.einsum("vpi,vij->vpj", POINTS - EYES[:, None], axes())


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT, blur: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.GaussianBlur(picture, (0, 0), 3) if blur else picture)
    return path


@dataclass(frozen=True)
class Miniature:
    """A scene in a data set's own format, and where its own convention puts the points."""

    kind: str
    source: Path
    pixels: np.ndarray  # (V, P, 2), corner of the picture at 0
    options: tuple[str, ...] = ()


def llff(folder: Path) -> Miniature:
    """Poses are down, right, back, centre; the intrinsics those of photos four times as large."""
    right, down, forward = np.moveaxis(axes(), -1, 0)
    focal = 280.0
    numbers = np.tile([[HEIGHT * 4.0], [WIDTH * 4.0], [focal]], (VIEWS, 1, 1))
    pose = np.concatenate([np.stack([down, right, -forward, EYES], axis=-1), numbers], axis=-1)
    bounds = np.tile([1.0, 9.0], (VIEWS, 1))
    folder.mkdir(parents=True)
    np.save(folder / "poses_bounds.npy", np.concatenate([pose.reshape(VIEWS, 15), bounds], axis=1))
    for index in range(VIEWS):
        write_image(folder / "images_4" / f"image{index:03d}.png")
    away = POINTS - EYES[:, None]
    along = {name: np.einsum("vpi,vi->vp", away, axis) for name, axis in (("d", down), ("r", right), ("b", -forward))}
    full = [WIDTH * 2 + focal * along["r"] / -along["b"], HEIGHT * 2 + focal * along["d"] / -along["b"]]
    return Miniature("llff", folder, np.stack(full, axis=-1) / 4)


def co3d(folder: Path, kind: str) -> Miniature:
    """PyTorch3D: row vectors, axes left, up, forward; NDC grows to the left and up."""
    right, down, forward = np.moveaxis(axes(), -1, 0)
    source = folder / "bicycle" / "123_45_6"
    focal, centre = np.array([2.1, 2.3]), np.array([0.05, -0.08])
    half = np.array([WIDTH, HEIGHT]) / 2 if kind == "ndc_norm_image_bounds" else np.full(2, min(WIDTH, HEIGHT) / 2)
    entries, pixels = [], []
    for index in range(VIEWS):
        rotation = np.stack([-right[index], -down[index], forward[index]], axis=1)
        translation = -EYES[index] @ rotation
        seen = POINTS @ rotation + translation
        ndc = focal * seen[:, :2] / seen[:, 2:] + centre
        pixels.append(np.array([WIDTH, HEIGHT]) / 2 - half * ndc)
        name = f"frame{index:06d}"
        write_image(source / "images" / f"{name}.jpg")
        mask = None if index == 2 else {"path": f"bicycle/123_45_6/masks/{name}.png"}
        if mask:
            path = write_image(source / "masks" / f"{name}.png")
            cv2.imwrite(str(path), np.kron([[0, 255]], np.ones((HEIGHT, WIDTH // 2))).astype(np.uint8))
        view = {"R": rotation.tolist(), "T": translation.tolist(), "focal_length": focal.tolist()}
        view |= {"principal_point": centre.tolist(), "intrinsics_format": kind}
        image = {"path": f"bicycle/123_45_6/images/{name}.jpg", "size": [HEIGHT, WIDTH]}
        entries.append(
            {"sequence_name": "123_45_6", "frame_number": index, "image": image, "viewpoint": view, "mask": mask}
        )
    others = [{**entries[0], "sequence_name": "9_9_9"}]
    with gzip.open(source.parent / "frame_annotations.jgz", "wt") as stream:
        json.dump(others + entries[::-1], stream)
    write_ply_points(source / "pointcloud.ply", POINTS, np.full((len(POINTS), 3), 7, np.uint8))
    return Miniature("co3d", source, np.array(pixels))


def blendedmvs(folder: Path) -> Miniature:
    """World to camera in OpenCV's axes, and an intrinsic matrix."""
    matrix = np.array([[90.0, 0, 31.0], [0, 92.0, 25.0], [0, 0, 1]])
    seen = in_camera()
    (folder / "cams").mkdir(parents=True)
    (folder / "cams" / "pair.txt").write_text("0\n")
    for index, rotation in enumerate(axes()):
        extrinsic = np.eye(4)
        extrinsic[:3, :3], extrinsic[:3, 3] = rotation.T, -rotation.T @ EYES[index]
        blocks = [["extrinsic"], *extrinsic.tolist(), [], ["intrinsic"], *matrix.tolist(), [], [1.0, 0.01, 128, 2.0]]
        text = "\n".join(" ".join(map(str, line)) for line in blocks)
        (folder / "cams" / f"{index:08d}_cam.txt").write_text(text + "\n")
        write_image(folder / "blended_images" / f"{index:08d}.jpg")
        write_image(folder / "blended_images" / f"{index:08d}_masked.jpg")
    image = seen @ matrix.T
    return Miniature("blendedmvs", folder, image[..., :2] / image[..., 2:])


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """qx qy qz qw of a rotation matrix by its axis and angle."""
    turn, _ = cv2.Rodrigues(rotation)
    angle = float(np.linalg.norm(turn))
    return np.append(turn.ravel() / angle * np.sin(angle / 2), np.cos(angle / 2))


def tum(folder: Path) -> Miniature:
    """Camera to world by quaternions, at times of their own; a lens that bends; pixel centres at whole numbers."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = 517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633
    source = folder / "rgbd_dataset_freiburg1_teddy"
    source.mkdir(parents=True)
    photos, poses = ["# color images"], ["# ground truth trajectory"]
    for index, rotation in enumerate(axes()):
        at = 100.0 + index
        words = [f"{value:.8f}" for value in [*EYES[index], *quaternion(rotation)]]
        far = " ".join(["9", "9", "9", "0", "0", "0", "1"])
        poses += [f"{at + 0.008:.4f} {' '.join(words)}", f"{at - 0.015:.4f} {far}"]
        for offset, blur in ((0.0, False), (0.05, True)):  # the second one has no pose
            path = f"rgb/{at + offset:.6f}.png"
            write_image(source / path, blur=blur)
            photos.append(f"{at + offset:.6f} {path}")
    (source / "rgb.txt").write_text("\n".join(photos) + "\n")
    (source / "groundtruth.txt").write_text("\n".join(poses) + "\n")
    x, y = (in_camera()[..., axis] / in_camera()[..., 2] for axis in (0, 1))
    r = x**2 + y**2
    bend = 1 + k1 * r + k2 * r**2 + k3 * r**3
    u = x * bend + 2 * p1 * x * y + p2 * (r + 2 * x**2)
    v = y * bend + p1 * (r + 2 * y**2) + 2 * p2 * x * y
    return Miniature("tum", source, np.stack([fx * u + cx, fy * v + cy], axis=-1) + 0.5)


MINIATURES: dict[str, Callable[[Path], Miniature]] = {
    "llff": llff,
    "co3d, isotropic": lambda folder: co3d(folder, "ndc_isotropic"),
    "co3d, image bounds": lambda folder: co3d(folder, "ndc_norm_image_bounds"),
    "blendedmvs": blendedmvs,
    "tum": tum,
}


def convert(scene: Miniature, output: Path, *options: str) -> dict:
    assert main(["convert", scene.kind, str(scene.source), str(output), *scene.options, *options]) == 0
    return json.loads((output / "transforms.json").read_text())


@pytest.mark.parametrize("name", MINIATURES)
def test_points_land_on_the_same_pixels(name: str, tmp_path: Path) -> None:
    scene = MINIATURES[name](tmp_path / "set")
    meta = convert(scene, tmp_path / "captures" / "scene")
    assert len(meta["frames"]) == VIEWS
    for frame, expected in zip(meta["frames"], scene.pixels, strict=True):
        lens = {**meta, **frame}
        world_to_camera = np.linalg.inv(np.array(frame["transform_matrix"]) @ np.diag([1.0, -1.0, -1.0, 1.0]))
        matrix = np.array([[lens["fl_x"], 0, lens["cx"]], [0, lens["fl_y"], lens["cy"]], [0, 0, 1.0]])
        turn, _ = cv2.Rodrigues(world_to_camera[:3, :3])
        bend = np.array([lens[key] for key in ("k1", "k2", "p1", "p2", "k3")])
        found, _ = cv2.projectPoints(POINTS, turn, world_to_camera[:3, 3], matrix, bend)
        np.testing.assert_allclose(found[:, 0], expected, atol=1e-3)
        assert np.linalg.det(world_to_camera[:3, :3]) == pytest.approx(1.0), "a rotation, not a mirror"
        picture = cv2.imread(str(tmp_path / "captures" / "scene" / frame["file_path"]))
        assert picture is not None and picture.shape == (lens["h"], lens["w"], 3) == (HEIGHT, WIDTH, 3)
    assert sorted(path.name for path in (tmp_path / "captures").iterdir()) == ["scene"], "nothing is left beside it"


def test_masks_and_points_of_co3d_come_along_and_nerfstudio_reads_the_capture(tmp_path: Path) -> None:
    from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig

    scene = co3d(tmp_path / "set", "ndc_isotropic")
    meta = convert(scene, tmp_path / "scene")
    has_mask = ["coarse_mask_path" in frame for frame in meta["frames"]]
    assert has_mask == [True, True, False, True]
    mask = meta["frames"][3]["coarse_mask_path"]
    assert (tmp_path / "scene" / mask).read_bytes() == (scene.source / "masks" / Path(mask).name).read_bytes()
    np.testing.assert_allclose(read_ply_points(tmp_path / "scene" / "sparse_pc.ply").xyz, POINTS, atol=1e-6)
    outputs = SurfaceSOSDataParserConfig(data=tmp_path / "scene").setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == VIEWS
    assert [path is not None for path in outputs.metadata["coarse_mask_filenames"]] == has_mask


def test_points_of_llff_are_those_of_its_colmap_model(tmp_path: Path) -> None:
    import pycolmap

    scene = llff(tmp_path / "set")
    model = pycolmap.Reconstruction()
    for point in POINTS:
        model.add_point3D(point, pycolmap.Track(), np.array([1, 2, 3], np.uint8))
    (scene.source / "sparse" / "0").mkdir(parents=True)
    model.write_binary(str(scene.source / "sparse" / "0"))
    convert(scene, tmp_path / "scene")
    points = read_ply_points(tmp_path / "scene" / "sparse_pc.ply")
    np.testing.assert_allclose(points.xyz[np.lexsort(points.xyz.T)], POINTS[np.lexsort(POINTS.T)], atol=1e-6)
    assert (points.rgb == [1, 2, 3]).all()


def test_tum_takes_the_sharpest_photo_of_each_stretch(tmp_path: Path) -> None:
    scene = tum(tmp_path / "set")
    blurred = sorted((scene.source / "rgb").glob("*.050000.png"))
    poses = (scene.source / "groundtruth.txt").read_text().splitlines()
    for path in blurred:  # now they have a pose
        poses.append(f"{path.stem} 0 0 0 0 0 0 1")
    (scene.source / "groundtruth.txt").write_text("\n".join(poses) + "\n")
    meta = convert(scene, tmp_path / "two", "--frames", "4")
    assert [Path(frame["file_path"]).stem for frame in meta["frames"]] == [f"{100 + i}_000000" for i in range(4)]


def test_photos_can_be_linked(tmp_path: Path) -> None:
    scene = blendedmvs(tmp_path / "set")
    meta = convert(scene, tmp_path / "scene", "--link")
    photo = tmp_path / "scene" / meta["frames"][0]["file_path"]
    assert photo.is_symlink() and photo.resolve() == (scene.source / "blended_images" / "00000000.jpg").resolve()


def test_an_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = blendedmvs(tmp_path / "set")
    output = tmp_path / "scene"
    output.mkdir()
    assert main(["convert", "blendedmvs", str(scene.source), str(output)]) == 1
    assert f"{output} exists" in capsys.readouterr().err and not list(output.iterdir())


def damage_size(scene: Miniature) -> None:
    next((scene.source / "images_4").iterdir()).unlink()


def damage_array(scene: Miniature) -> None:
    np.save(scene.source / "poses_bounds.npy", np.zeros((4, 12)))


def damage_image(scene: Miniature) -> None:
    (scene.source / "blended_images" / "00000001.jpg").write_text("no picture")


def damage_camera(scene: Miniature) -> None:
    (scene.source / "cams" / "00000001_cam.txt").write_text("extrinsic 1 2 3")


def damage_mask(scene: Miniature) -> None:
    (scene.source / "masks" / "frame000001.png").unlink()


def damage_entry(scene: Miniature) -> None:
    entry = {"sequence_name": "123_45_6", "frame_number": 0, "viewpoint": {}}
    with gzip.open(scene.source.parent / "frame_annotations.jgz", "wt") as stream:
        json.dump([entry], stream)


def damage_format(scene: Miniature) -> None:
    path = scene.source.parent / "frame_annotations.jgz"
    with gzip.open(path, "rt") as stream:
        text = stream.read().replace("ndc_isotropic", "pixels")
    with gzip.open(path, "wt") as stream:
        stream.write(text)


def damage_times(scene: Miniature) -> None:
    path = scene.source / "rgb.txt"
    path.write_text("\n".join("9" + line for line in path.read_text().splitlines()[1:]))


@pytest.mark.parametrize(
    "name, damage, words",
    [
        ("llff", damage_size, ["poses_bounds.npy has 4 poses", "3 photos"]),
        ("llff", damage_array, ["poses_bounds.npy is an array of 4x12", "Nx17"]),
        ("blendedmvs", damage_image, ["00000001.jpg cannot be read"]),
        ("blendedmvs", damage_camera, ["00000001_cam.txt is no camera file"]),
        ("co3d, isotropic", damage_mask, ["frame000001.png is missing", "frame_annotations.jgz"]),
        ("co3d, isotropic", damage_entry, ["frame_annotations.jgz", "KeyError: 'image'"]),
        ("co3d, isotropic", damage_format, ["intrinsics_format is pixels"]),
        ("tum", damage_times, ["No photo of", "rgb.txt", "0.02 s"]),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    name: str,
    damage: Callable[[Miniature], None],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene = MINIATURES[name](tmp_path / "set")
    damage(scene)
    assert main(["convert", scene.kind, str(scene.source), str(tmp_path / "scene")]) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_the_folder_of_another_data_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = blendedmvs(tmp_path / "set")
    for kind, word in (("llff", "poses_bounds.npy"), ("co3d", "frame_annotations.jgz"), ("tum", "tells no camera")):
        assert main(["convert", kind, str(scene.source), str(tmp_path / "scene")]) == 1
        assert word in capsys.readouterr().err
    assert main(["convert", "llff", str(tmp_path / "absent"), str(tmp_path / "scene")]) == 1
    assert "absent is no folder" in capsys.readouterr().err
