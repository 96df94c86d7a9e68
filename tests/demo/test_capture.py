"""The demo capture against truth found another way: OpenCV's camera model, closed-form light and silhouettes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import trimesh

from surface_sos_ns import cli
from surface_sos_ns.demo import capture as capture_module
from surface_sos_ns.demo.capture import held_out, orbit_cameras, write_demo_capture
from surface_sos_ns.demo.path_tracer import Camera, Lighting, Tracer, most_frequent
from surface_sos_ns.demo.run import RENDERED, measure_inputs, write_mask_video
from surface_sos_ns.demo.scene import DemoScene
from surface_sos_ns.demo.shapes import blob, facing, sheet
from surface_sos_ns.demo.textures import Noise
from surface_sos_ns.demo.watering_can import build_can, can_materials
from surface_sos_ns.demo.workbench import Light, Material
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.image_io import ImageError
from surface_sos_ns.utils.overlap import intersection_over_union
from surface_sos_ns.utils.pictures import ViewPictures, contact_sheet, error_map
from tests.helpers.pictures import read

VIEWS, WIDTH, HEIGHT = 32, 100, 75  # of the fixture


@pytest.fixture(scope="module")
def capture(demo_capture: Path) -> Path:
    return demo_capture


@pytest.fixture(scope="module")
def meta(capture: Path) -> dict:
    return json.loads((capture / "transforms.json").read_text())


def opencv_pixels(points: np.ndarray, meta: dict, pose: list, distorted: bool = True) -> np.ndarray:
    """(N, 2) positions by cv2.projectPoints, pixel centres at +0.5; `pose` as in transforms.json."""
    camera_to_world = np.asarray(pose) @ np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL axes to OpenCV's
    world_to_camera = np.linalg.inv(camera_to_world)
    matrix = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1.0]])
    lens = np.array([meta["k1"], meta["k2"], meta["p1"], meta["p2"]]) if distorted else np.zeros(4)
    turn, _ = cv2.Rodrigues(world_to_camera[:3, :3])
    uv, _ = cv2.projectPoints(points.astype(np.float64), turn, world_to_camera[:3, 3], matrix, lens)
    return uv.reshape(-1, 2)


def silhouette(mesh: trimesh.Trimesh, meta: dict, pose: list, distorted: bool = True, fine: int = 8) -> np.ndarray:
    """(H, W) coverage in 0..1 of the mesh's projected triangles, drawn `fine` times larger and averaged."""
    uv = opencv_pixels(mesh.vertices, meta, pose, distorted)[mesh.faces] * fine - 0.5
    canvas = np.zeros((meta["h"] * fine, meta["w"] * fine), np.uint8)
    for triangle in np.round(uv * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, triangle, 1, shift=4)
    return canvas.reshape(meta["h"], fine, meta["w"], fine).mean(axis=(1, 3))


def test_layout_is_that_of_the_reference_captures(capture: Path, meta: dict) -> None:
    assert len(meta["frames"]) == VIEWS and meta["camera_model"] == "OPENCV"
    names = [frame["file_path"] for frame in meta["frames"]]
    expected = [names[i] for i in range(4, VIEWS, 8)]
    assert meta["val_filenames"] == meta["test_filenames"] == expected
    assert sorted(meta["train_filenames"] + expected) == names
    for frame in meta["frames"]:
        for key in ("file_path", "coarse_mask_path", "gt_mask_path", "gt_parts_path", "clean_plate_path"):
            assert read(capture / frame[key]).shape[:2] == (HEIGHT, WIDTH)
    assert (meta["w"], meta["h"]) == (WIDTH, HEIGHT) and meta["k1"] != 0 and meta["k2"] != 0


def test_matte_is_the_silhouette_of_the_mesh_through_the_distorted_lens(capture: Path, meta: dict) -> None:
    mesh = trimesh.load(capture / "gt_object.ply", process=False)
    scores, straight, differences = [], [], []
    for frame in meta["frames"]:
        matte = read(capture / frame["gt_mask_path"]).astype(float) / 255
        drawn = silhouette(mesh, meta, frame["transform_matrix"])
        # Things in front of the object may hide parts of it, nothing may add to it.
        assert (matte - drawn).max() < 0.35 and (matte - drawn).clip(0).sum() < 0.02 * matte.sum()
        scores.append(intersection_over_union(matte > 0.5, drawn > 0.5))
        differences.append(np.abs(matte - drawn).sum() / matte.sum())
        ignored = silhouette(mesh, meta, frame["transform_matrix"], distorted=False)
        straight.append(np.abs(matte - ignored).sum() / matte.sum())
    assert np.median(scores) > 0.97 and np.mean(np.array(scores) > 0.95) > 0.7, scores
    # The same comparison without the lens's distortion is clearly worse, so the capture does exercise it.
    assert np.median(straight) > 1.2 * np.median(differences)


def test_matte_is_soft_at_edges_and_object_is_neither_tiny_nor_cut_off(capture: Path, meta: dict) -> None:
    for frame in meta["frames"]:
        matte = read(capture / frame["gt_mask_path"])
        assert 0.04 < (matte > 127).mean() < 0.3
        assert len(np.unique(matte)) > 8
        rim = np.concatenate([matte[0], matte[-1], matte[:, 0], matte[:, -1]])
        assert (rim > 127).sum() <= 6


PARTS = ["body", "spout", "rose", "arched handle", "back handle", "brace"]


def true_parts(capture: Path) -> tuple[trimesh.Trimesh, np.ndarray]:
    """The true mesh and its property `part` (V,), by trimesh's own reader."""
    mesh = trimesh.load(capture / "gt_object.ply", process=False)
    return mesh, np.ravel(mesh.metadata["_ply_raw"]["vertex"]["data"]["part"])


def test_parts_of_the_mesh_lie_where_those_of_a_watering_can_are(capture: Path, meta: dict) -> None:
    mesh, part = true_parts(capture)
    assert meta["part_names"] == PARTS and set(part) == {1, 2, 3, 4, 5, 6}
    assert (part[mesh.faces] == part[mesh.faces[:, :1]]).all(), "no face joins two parts"
    # In the can's own frame: its axis is z, the spout points along x.
    turned = trimesh.transformations.rotation_matrix(np.radians(-24.0), [0, 0, 1])[:3, :3]
    local = (mesh.vertices - [-0.03, 0.0, 0.75]) @ turned.T
    low, high = (np.array([limit(local[part == k], axis=0) for k in range(1, 7)]) for limit in (np.min, np.max))
    assert np.allclose(low[0], [-0.113, -0.113, 0], atol=0.002) and np.allclose(high[0][:2], 0.113, atol=0.002)
    assert low[1][0] > 0.04 and low[2][0] > high[0][0], "the spout begins within the body, the rose beyond it"
    assert high[3][2] > high[0][2] + 0.1 and abs(high[3][1]) < 0.02, "the arched handle stands above the body"
    assert low[4][0] < -0.19 and high[4][2] < high[0][2], "the back handle is opposite of the spout"
    assert low[5][0] > 0.08 and high[5][0] < 0.24 and low[5][2] > 0.19, "the brace joins the body and the spout"


def test_identities_are_those_of_the_nearest_surface_in_each_pixel(capture: Path, meta: dict) -> None:
    mesh, part = true_parts(capture)
    agree, seen = [], np.zeros(7, int)
    for frame in meta["frames"][::4]:
        identity, matte = read(capture / frame["gt_parts_path"]), read(capture / frame["gt_mask_path"])
        assert identity.dtype == np.uint8 and identity.shape == (HEIGHT, WIDTH)
        assert np.array_equal(identity > 0, matte > 127)
        seen += np.bincount(identity.ravel(), minlength=7)
        rows, columns = np.nonzero(matte == 255)
        matrix = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1]])
        lens = np.array([meta["k1"], meta["k2"], meta["p1"], meta["p2"]])
        pixels = np.stack([columns, rows], axis=1)[:, None] + 0.5
        flat = cv2.undistortPoints(pixels, matrix, lens).reshape(-1, 2)
        pose = np.array(frame["transform_matrix"])
        rays = np.column_stack([flat[:, 0], -flat[:, 1], -np.ones(len(flat))]) @ pose[:3, :3].T
        origins = np.repeat(pose[:3, 3][None], len(rays), axis=0)
        face = mesh.ray.intersects_first(origins, rays)
        agree.append(part[mesh.faces[face, 0]] == identity[rows, columns])
    # The majority of a pixel's rays may differ from the one at its centre along the seams.
    assert np.concatenate(agree).mean() > 0.96
    assert (seen[1:] > 30).all() and seen[1] == seen[1:].max(), seen


def test_the_most_frequent_identity_of_a_pixel() -> None:
    rays = np.array([[0, 0, 0, 2], [1, 2, 2, 0], [3, 1, 1, 3], [0, 0, 0, 0]])
    assert most_frequent(rays, 3).tolist() == [2, 2, 1, 0]


def test_without_paint_every_part_has_one_colour() -> None:
    points, uv = np.random.default_rng(0).uniform(-0.3, 1.1, (2, 50, 3))
    materials = can_materials(Noise(0), painted=False)
    assert set(materials) == set(can_materials(Noise(0))) >= {surface.material for surface in build_can(0.2)}
    colours = np.concatenate([material.colour(points, uv[:, :2]) for material in materials.values()])
    assert np.ptp(colours, axis=0).max() == 0
    assert len({(material.specular, material.roughness, material.emission) for material in materials.values()}) == 1


def test_clean_plate_lacks_the_object_and_its_shadow_only(capture: Path, meta: dict) -> None:
    same, changed, shadow = [], [], []
    for frame in meta["frames"]:
        image = read(capture / frame["file_path"]).astype(float).mean(axis=2)
        plate = read(capture / frame["clean_plate_path"]).astype(float).mean(axis=2)
        matte = read(capture / frame["gt_mask_path"])
        # JPEG spreads the object's edge over its 8-pixel blocks.
        apart = cv2.dilate(matte, np.ones((17, 17))) == 0
        difference = image - plate
        same.append(np.mean(np.abs(difference[apart]) < 12))
        changed.append(np.abs(difference[matte > 250]).mean())
        near = (cv2.dilate(matte, np.ones((25, 25))) > 0) & (cv2.dilate(matte, np.ones((5, 5))) == 0)
        shadow.append(difference[near].mean())
    assert np.mean(same) > 0.95  # its soft shadow reaches far, but faintly
    assert np.mean(changed) > 20
    assert np.mean(shadow) < -0.5  # around the object the photo is darker: its shadow


def test_coarse_masks_are_as_bad_as_promised(capture: Path, meta: dict) -> None:
    scores, empty, false_blobs = [], [], 0
    for frame in meta["frames"]:
        mask, truth = read(capture / frame["coarse_mask_path"]), read(capture / frame["gt_mask_path"]) > 127
        assert set(np.unique(mask)) <= {0, 255}
        mask = mask > 127
        scores.append(intersection_over_union(mask, truth))
        if not mask.any():
            empty.append(frame["file_path"])
        count, labels = cv2.connectedComponents(mask.astype(np.uint8))
        near = cv2.dilate(truth.astype(np.uint8), np.ones((7, 7))) > 0
        false_blobs += any(not near[labels == k].any() for k in range(1, count))
    assert 0.5 < np.mean(scores) < 0.7
    assert 2 <= len(empty) <= 4 and set(empty) <= set(meta["train_filenames"])
    assert false_blobs >= 3


def test_sparse_points_lie_where_three_photos_can_see_them(capture: Path, meta: dict) -> None:
    points = trimesh.load(capture / meta["ply_file_path"]).vertices
    assert len(points) > 500
    seen = np.zeros(len(points))
    for frame in meta["frames"]:
        pose = np.asarray(frame["transform_matrix"])
        ahead = (points - pose[:3, 3]) @ -pose[:3, 2] > 0
        uv = opencv_pixels(points, meta, frame["transform_matrix"])
        seen += ahead & ((uv > 0) & (uv < [meta["w"], meta["h"]])).all(axis=1)
    assert (seen >= 3).mean() > 0.99
    table = (np.abs(points[:, :2]) < 0.6).all(axis=1)
    assert np.mean(np.abs(points[table, 2] - 0.75) < 0.02) > 0.3
    mesh = trimesh.load(capture / "gt_object.ply", process=False)
    low, high = mesh.bounds
    inside = ((points > low) & (points < high)).all(axis=1)
    distance = trimesh.proximity.closest_point_naive(mesh, points[inside][:20])[1]
    assert inside.sum() > 20 and np.median(distance) < 0.015


def test_poses_are_rotations_around_the_object_at_varied_heights_and_distances(meta: dict) -> None:
    poses = np.array([frame["transform_matrix"] for frame in meta["frames"]])
    rotations = poses[:, :3, :3]
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.ptp(poses[:, 2, 3]) > 0.4
    middle = poses[:, :3, 3].mean(axis=0)
    assert np.ptp(np.linalg.norm(poses[:, :2, 3] - middle[:2], axis=1)) > 0.3
    azimuth = np.unwrap(np.arctan2(poses[:, 1, 3], poses[:, 0, 3]))
    assert azimuth[-1] - azimuth[0] > 1.8 * np.pi


def test_rays_invert_the_projection_of_opencv() -> None:
    camera = orbit_cameras(8, 200, 150, np.zeros(3), seed=3)[5]
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 200, 9), np.linspace(0, 150, 7)))
    points = camera.camera_to_world[:, 3] + camera.rays(x, y) * np.linspace(0.5, 3, len(x))[:, None]
    meta = {"fl_x": camera.focal, "fl_y": camera.focal, "cx": camera.cx, "cy": camera.cy}
    meta |= {"k1": camera.k1, "k2": camera.k2, "p1": 0.0, "p2": 0.0}
    pose = np.concatenate([camera.camera_to_world, [[0, 0, 0, 1]]])
    expected = np.stack([x, y], axis=1)
    assert np.allclose(opencv_pixels(points, meta, pose), expected, atol=1e-6)
    assert np.allclose(camera.project(points)[0], expected, atol=1e-6)


def sphere_scene() -> DemoScene:
    """A matt white ball over a matt grey floor under a square lamp."""
    white = Material(lambda points, uv: np.full((len(points), 3), 0.8))
    grey = Material(lambda points, uv: np.full((len(points), 3), 0.5))
    floor = facing(sheet((-2, -2, 0), (4, 0, 0), (0, 4, 0), 0.1, "grey"), np.array([0, 0, -1.0]), away=True)
    ball = blob((0.3, 0.3, 0.3), 60, "white").moved((0, 0, 0.6))
    lamp = Light(np.array([-0.5, 0.5, 2.0]), np.array([1.0, 0, 0]), np.array([0, -1.0, 0]), np.full(3, 5.0))
    return DemoScene([floor], {"ball": [ball]}, {"grey": grey, "white": white}, [lamp])


def test_direct_light_matches_the_closed_form_of_a_rectangle_above_a_plane() -> None:
    tracer = Tracer(sphere_scene(), rays=400)
    middle = int(np.argmin(np.linalg.norm(tracer.back.vertices, axis=1)))
    with_ball, alone = (values[middle] for values in tracer.direct(tracer.vertex_chunks()[0]))
    # A quarter of the lamp, its corner above the point: sides X, Y over the height 2 (Howell's view factor B-3).
    x = y = 0.5 / 2.0
    quarter = x / np.hypot(1, x) * np.arctan(y / np.hypot(1, x)) + y / np.hypot(1, y) * np.arctan(x / np.hypot(1, y))
    expected = np.pi * 5.0 * 4 * quarter / (2 * np.pi)
    assert np.allclose(alone, expected, rtol=0.01)
    assert np.all(with_ball < 0.15 * expected)  # the ball hides nearly the whole lamp


def test_matte_of_a_ball_is_its_analytic_silhouette() -> None:
    tracer = Tracer(sphere_scene(), rays=16)
    tracer.lighting = Lighting(*(np.ones((len(n), 3), np.float32) for n in [tracer.back.vertices] * 2), None)  # type: ignore[arg-type]
    tracer.lighting.object = np.ones((len(tracer.front.vertices), 3), np.float32)
    eye = np.array([0.0, -2.0, 0.7])
    axes = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # columns x right, y up, z backward
    camera = Camera(np.concatenate([axes, eye[:, None]], axis=1), 90.0, 41.0, 29.0, 80, 60, -0.1, 0.03)
    view = tracer.render(camera, 0)
    fine = 12
    x, y = np.meshgrid((np.arange(80 * fine) + 0.5) / fine, (np.arange(60 * fine) + 0.5) / fine)
    matrix = np.array([[90.0, 0, 41.0], [0, 90.0, 29.0], [0, 0, 1]])
    lens = np.array([-0.1, 0.03, 0, 0])
    flat = cv2.undistortPoints(np.stack([x.ravel(), y.ravel()], axis=1)[:, None], matrix, lens).reshape(-1, 2)
    ray = np.stack([flat[:, 0], np.ones(len(flat)), -flat[:, 1]], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    to = np.array([0, 0, 0.6]) - eye
    missed_by = np.linalg.norm(to - (ray @ to)[:, None] * ray, axis=1)
    expected = (missed_by < 0.3).reshape(60, fine, 80, fine).mean(axis=(1, 3))
    error = np.abs(view.matte / 255 - expected)
    assert error.max() < 0.3 and error.sum() < 0.015 * expected.sum()
    # Uniform light: the plate shows the floor everywhere the floor reaches, also behind the ball.
    behind = (expected > 0.99) & (np.arange(60)[:, None] > 45)
    assert np.ptp(view.clean_plate[behind].astype(int)) <= 1 and not np.allclose(
        view.image[behind], view.clean_plate[behind]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.seconds(15)
def test_equal_seeds_give_equal_files_for_any_number_of_workers(tmp_path: Path) -> None:
    options = {"views": 8, "width": 40, "height": 30, "progress": False, "quality": 0.2}
    one = contents(write_demo_capture(tmp_path / "one", workers=1, **options))
    two = contents(write_demo_capture(tmp_path / "two", workers=2, **options))
    assert one == two
    # Without paint the object alone looks otherwise; its shape and parts, and the poses are the same.
    plain = contents(write_demo_capture(tmp_path / "plain", workers=1, painted=False, **options))
    same = {name for name in one if name.split("/")[0] in ("gt_masks", "gt_parts", "coarse_masks", "gt_object.ply")}
    assert len(same) == 25 and all(plain[name] == one[name] for name in {*same, "transforms.json"})
    matte = cv2.imdecode(np.frombuffer(one["gt_masks/frame_00001.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    with_paint, without = (
        cv2.imdecode(np.frombuffer(files["images/frame_00001.jpg"], np.uint8), cv2.IMREAD_COLOR).astype(float)
        for files in (one, plain)
    )
    difference = np.abs(with_paint - without).mean(axis=2)
    assert difference[matte > 250].mean() > 4 * difference[matte == 0].mean() > 0
    other = contents(write_demo_capture(tmp_path / "other", workers=1, seed=1, **options))
    assert other["images/frame_00001.jpg"] != one["images/frame_00001.jpg"]


def test_a_finished_capture_is_left_alone_and_other_files_are_never_overwritten(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = (capture / "transforms.json").stat().st_mtime_ns
    assert write_demo_capture(capture, VIEWS, WIDTH, HEIGHT, progress=False, quality=0.3) == capture
    assert (capture / "transforms.json").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="mine"):
        write_demo_capture(tmp_path / "mine", VIEWS)
    assert cli.main(["capture", "--output", str(tmp_path / "mine")]) == 1
    assert "another folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="8 views"):
        write_demo_capture(tmp_path / "few", views=3)

    def fail(folder: Path, *rest: object) -> None:
        (folder / "images").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(capture_module, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_demo_capture(tmp_path / "new", VIEWS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


def test_held_out_views_are_every_eighth_from_the_fifth() -> None:
    assert held_out(48) == [4, 12, 20, 28, 36, 44]


def test_error_map_and_contact_sheet() -> None:
    truth, mask = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
    truth[1:3, 1:4], mask[1:3, 2:5] = True, True
    picture = error_map(mask, truth)
    assert tuple(picture[1, 4]) == (220, 60, 50) and tuple(picture[1, 1]) == (50, 110, 230)
    assert intersection_over_union(mask, truth) == pytest.approx(4 / 8)
    assert intersection_over_union(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1
    tile = np.zeros((6, 8, 3), np.uint8)
    shown = contact_sheet([ViewPictures("frame", {"photo": tile, "error": picture})], scale=2)
    assert shown.shape == (26 + 12 + 6, 6 + 2 * (16 + 6), 3)
    assert tuple(shown[26 + 3, 6 + 16 + 6 + 9]) == (220, 60, 50), "in the second column, twice as large"


def test_the_video_shows_what_was_rendered(capture: Path, meta: dict, tmp_path: Path) -> None:
    for frame in meta["frames"]:
        split = "test" if frame["file_path"] in meta["test_filenames"] else "train"
        for kind in RENDERED:
            # The truth stands in for a perfect render.
            target = tmp_path / split / kind / f"{Path(frame['file_path']).stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            key = {"mask": "gt_mask_path", "background": "clean_plate_path"}.get(kind, "file_path")
            cv2.imwrite(str(target), read(capture / frame[key], cv2.IMREAD_COLOR))
    video = write_mask_video(capture, tmp_path, tmp_path / "masks.mp4", scale=1)
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == VIEWS and frames[0].shape == (2 * HEIGHT, 2 * WIDTH, 3)
    mask = read(capture / meta["frames"][0]["gt_mask_path"]).astype(float)
    assert np.abs(frames[0][:HEIGHT, WIDTH:].mean(axis=2) - mask).mean() < 8
    shutil.rmtree(tmp_path / "test" / "mask")
    with pytest.raises(ImageError, match="mask.*does not exist"):
        write_mask_video(capture, tmp_path, tmp_path / "again.mp4")


@pytest.mark.slow
@pytest.mark.seconds(25)
def test_voting_the_coarse_masks_beats_them(capture: Path, tmp_path: Path) -> None:
    raw, voted = (float(figure.value) for figure in measure_inputs(capture, tmp_path))
    assert 0.4 < raw < voted
