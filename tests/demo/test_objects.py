"""The demo capture of several objects, against its own meshes seen by another ray tracer, and stated error rates."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from surface_sos_ns import cli
from surface_sos_ns.capture.object_names import check_object_names
from surface_sos_ns.demo import capture as capture_module
from surface_sos_ns.demo.capture import SIZE_OF_SEVERAL, write_demo_capture
from surface_sos_ns.demo.coarse_masks import choose_faults, coarse_identities
from surface_sos_ns.demo.path_tracer import Camera, Lighting, Rendered, Tracer
from surface_sos_ns.demo.scene import DemoScene
from surface_sos_ns.demo.shapes import blob, facing, sheet
from surface_sos_ns.demo.workbench import Light, Material
from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.overlap import intersection_over_union
from tests.helpers.pictures import read

VIEWS, WIDTH, HEIGHT = 12, 96, 72  # of the fixture
NAMES = ["can", "mug", "pot", "books", "lemon"]
CAN, MUG, BOOKS = 1, 2, 4


@pytest.fixture(scope="module")
def capture(objects_capture: Path) -> Path:
    return objects_capture


@pytest.fixture(scope="module")
def meta(capture: Path) -> dict:
    return json.loads((capture / "transforms.json").read_text())


def pixel_rays(meta: dict, pose: list) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions (H*W, 3) through the pixels' centres, by OpenCV's model of the lens."""
    x, y = np.meshgrid(np.arange(meta["w"]) + 0.5, np.arange(meta["h"]) + 0.5)
    matrix = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1]])
    lens = np.array([meta["k1"], meta["k2"], meta["p1"], meta["p2"]])
    flat = cv2.undistortPoints(np.stack([x.ravel(), y.ravel()], axis=1)[:, None], matrix, lens).reshape(-1, 2)
    directions = np.column_stack([flat[:, 0], -flat[:, 1], -np.ones(len(flat))]) @ np.array(pose)[:3, :3].T
    return np.broadcast_to(np.array(pose)[:3, 3], directions.shape), directions


def test_a_capture_of_several_objects_has_their_names_and_truth(capture: Path, meta: dict) -> None:
    assert meta["object_names"] == NAMES == list(check_object_names(NAMES, "the demo"))
    assert "part_names" not in meta
    folders = {path.name for path in capture.iterdir() if path.is_dir()}
    truth = {"gt_masks", "gt_objects", "gt_meshes", "clean_plates", "plates_without"}
    assert folders == {"images", "coarse_masks", *truth}
    for frame in meta["frames"]:
        for key in ("file_path", "coarse_mask_path", "gt_mask_path", "gt_objects_path", "clean_plate_path"):
            assert read(capture / frame[key]).shape[:2] == (HEIGHT, WIDTH)
        held = frame["file_path"] in meta["test_filenames"]
        assert set(frame.get("plates_without", {})) == ({"can", "mug"} if held else set())


def test_objects_are_large_enough_to_see_in_half_of_the_photos(capture: Path, meta: dict) -> None:
    identities = np.stack([read(capture / frame["gt_objects_path"]) for frame in meta["frames"]])
    for k, name in enumerate(NAMES, start=1):
        area = (identities == k).sum(axis=(1, 2))
        across = np.sqrt(area[area > 0]) * SIZE_OF_SEVERAL[0] / WIDTH
        assert (area > 0).sum() >= VIEWS / 2 and np.median(across) >= 20, name


def test_identities_are_those_of_the_nearest_mesh_and_fill_the_matte(capture: Path, meta: dict) -> None:
    mesh = trimesh.load(capture / "gt_object.ply", process=False)
    vertex_object = np.ravel(mesh.metadata["_ply_raw"]["vertex"]["data"]["object"])
    assert set(vertex_object) == {1, 2, 3, 4, 5}
    agree, inside = [], []
    for frame in meta["frames"][::3]:
        identity, matte = read(capture / frame["gt_objects_path"]), read(capture / frame["gt_mask_path"])
        assert identity.dtype == np.uint8 and np.array_equal(identity > 0, matte > 127)
        face = mesh.ray.intersects_first(*pixel_rays(meta, frame["transform_matrix"]))
        seen = np.where(face >= 0, vertex_object[mesh.faces[face, 0]], 0).reshape(HEIGHT, WIDTH)
        agree.append((seen == identity)[matte == 255])
        inside.append((seen > 0)[matte == 0])
    assert np.concatenate(agree).mean() > 0.98
    assert np.concatenate(inside).mean() < 0.01


def test_each_object_has_a_mesh_of_its_own(capture: Path) -> None:
    whole = trimesh.load(capture / "gt_object.ply", process=False)
    single = {name: trimesh.load(capture / "gt_meshes" / f"{name}.ply", process=False) for name in NAMES}
    assert np.isclose(sum(mesh.area for mesh in single.values()), whole.area)
    middles = np.array([mesh.bounds.mean(axis=0) for mesh in single.values()])
    assert np.linalg.norm(middles - middles[0], axis=1).max() < 0.5, "one object sphere holds them"
    low = {name: mesh.bounds[0, 2] for name, mesh in single.items()}
    assert all(0.74 < low[name] < 0.77 for name in ("can", "mug", "pot", "books")), "on the table"
    assert abs(low["lemon"] - single["books"].bounds[1, 2]) < 0.002, "and the lemon on the books"
    assert np.allclose(np.ptp(single["mug"].bounds, axis=0)[2], 0.1, atol=0.002)


def instance_numbers(coarse: np.ndarray, truth: np.ndarray) -> dict[int, int]:
    """The number that most of each object's pixels have."""
    return {int(k): int(np.bincount(coarse[truth == k]).argmax()) for k in np.setdiff1d(truth, [0])}


def fault_kinds(coarse: list[np.ndarray], truths: list[np.ndarray]) -> Counter:
    """How many instances have the right number, are missed, swapped with another one, or share a number with one."""
    kinds: Counter = Counter()
    for mask, truth in zip(coarse, truths, strict=True):
        number = instance_numbers(mask, truth)
        for k, given in number.items():
            if given == 0:
                kinds["missed"] += 1
            elif list(number.values()).count(given) > 1:
                kinds["merged"] += 1
            elif given != k:
                assert number[given] == k
                kinds["swapped"] += 1
            else:
                kinds["right"] += 1
    return kinds


def discs(views: int = 48) -> list[np.ndarray]:
    """Identities of five discs well apart; the first two are neighbours."""
    truth = np.zeros((120, 200), np.uint8)
    for k, centre in enumerate([(30, 30), (64, 30), (165, 30), (165, 95), (60, 95)], start=1):
        cv2.circle(truth, centre, 15, (k,), -1)
    return [truth] * views


def test_the_identities_of_a_detector_are_as_wrong_as_stated() -> None:
    truths, training = discs(), [i for i in range(48) if i % 8 != 4]
    coarse = coarse_identities(truths, 0, training)
    empty = [i for i, mask in enumerate(coarse) if not mask.any()]
    assert len(empty) == 3 and set(empty) <= set(training)
    kept = [i for i in range(48) if i not in empty]
    kinds = fault_kinds([coarse[i] for i in kept], [truths[i] for i in kept])
    instances = 5 * len(kept)
    # A bite or a false blob can take most of a single disc as well.
    assert all(0.05 <= kinds[kind] / instances <= 0.08 for kind in ("missed", "swapped", "merged")), kinds
    assert all(np.array_equal(a, b) for a, b in zip(coarse, coarse_identities(truths, 0, training), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(coarse, coarse_identities(truths, 1, training), strict=True))


def test_what_is_merged_is_next_to_each_other() -> None:
    faults = choose_faults(dict(enumerate(discs())), seed=3)
    nearest = {1: 2, 2: 1, 3: 4, 4: 3, 5: 2}
    assert len(faults.merged) == 8 and all(other == nearest[one] for one, other in faults.merged.values())
    assert not set(faults.swapped) & set(faults.merged)
    assert not {view for view, _ in faults.missed} & {*faults.swapped, *faults.merged}


def test_coarse_identities_are_noisy_in_outline_and_empty_in_some_training_views(capture: Path, meta: dict) -> None:
    scores, empty = [], []
    for frame in meta["frames"]:
        coarse, truth = read(capture / frame["coarse_mask_path"]), read(capture / frame["gt_objects_path"])
        assert coarse.dtype == np.uint8 and coarse.ndim == 2 and coarse.max() <= 5
        if not coarse.any():
            empty.append(frame["file_path"])
            continue
        number = instance_numbers(coarse, truth)
        scores += [intersection_over_union(coarse == k, truth == k) for k, given in number.items() if k == given]
    assert 0.45 < np.mean(scores) < 0.75
    assert len(empty) == 2 and set(empty) <= set(meta["train_filenames"])


def test_a_plate_without_one_object_lacks_that_one_only(capture: Path, meta: dict) -> None:
    frame = next(frame for frame in meta["frames"] if "plates_without" in frame)
    photo, plate = (read(capture / frame[key]).astype(float).mean(axis=2) for key in ("file_path", "clean_plate_path"))
    identity = read(capture / frame["gt_objects_path"])
    for name, k in (("can", CAN), ("mug", MUG)):
        without = read(capture / frame["plates_without"][name]).astype(float).mean(axis=2)
        removed = (identity == k).astype(np.uint8)
        # JPEG spreads edges over its 8-pixel blocks; beyond them only the removed one's shadow and reflections differ.
        apart = cv2.dilate(removed, np.ones((17, 17))) == 0
        assert np.mean(np.abs(without - photo)[apart] < 12) > 0.97
        assert np.abs(without - photo)[removed > 0].mean() > 20
        others = cv2.erode(((identity > 0) & apart).astype(np.uint8), np.ones((3, 3))) > 0
        assert others.sum() > 50
        assert np.abs(without - photo)[others].mean() < 4 < np.abs(plate - photo)[others].mean()
    # Where the can hid the books, they are seen.
    books = trimesh.load(capture / "gt_meshes" / "books.ply", process=False)
    hit = books.ray.intersects_any(*pixel_rays(meta, frame["transform_matrix"])).reshape(HEIGHT, WIDTH)
    hidden = hit & (identity == CAN)
    without = read(capture / frame["plates_without"]["can"]).astype(float).mean(axis=2)
    assert hidden.sum() > 30 and np.abs(without - plate)[hidden].mean() > 20


def two_balls() -> DemoScene:
    """A white ball in front of a darker one, over a floor and under a square lamp."""
    materials = {
        name: Material(lambda points, uv, value=value: np.full((len(points), 3), value))
        for name, value in (("grey", 0.5), ("white", 0.8), ("dark", 0.3))
    }
    floor = facing(sheet((-2, -2, 0), (4, 0, 0), (0, 4, 0), 0.1, "grey"), np.array([0, 0, -1.0]), away=True)
    balls = {
        "white": [blob((0.3, 0.3, 0.3), 40, "white").moved((-0.2, -0.2, 0.3))],
        "dark": [blob((0.3, 0.3, 0.3), 40, "dark").moved((0.2, 0.3, 0.3))],
    }
    lamp = Light(np.array([-0.5, 0.5, 2.0]), np.array([1.0, 0, 0]), np.array([0, -1.0, 0]), np.full(3, 5.0))
    return DemoScene([floor], balls, materials, [lamp])


def rendered(tracer: Tracer) -> Rendered:
    chunks = tracer.vertex_chunks()

    def by_layer(results: list) -> dict[str, list]:
        return {
            name: [result for chunk, result in zip(chunks, results, strict=True) if chunk.layer == name]
            for name in ("back", "front")
        }

    direct = by_layer([tracer.direct(chunk) for chunk in chunks])
    radiosity = tracer.radiosity(direct)
    tracer.lighting = tracer.assemble(direct, by_layer([tracer.bounce(chunk, radiosity) for chunk in chunks]))
    assert isinstance(tracer.lighting, Lighting)
    eye, tilt = np.array([0.0, -2.0, 0.7]), np.array([[1.0, 0, 0], [0, 0.2, -0.98], [0, 0.98, 0.2]])
    camera = Camera(np.concatenate([tilt, eye[:, None]], axis=1), 90.0, 41.0, 29.0, 80, 60, -0.1, 0.03)
    return tracer.render(camera, 0)


def test_one_object_is_removed_from_the_scene_as_if_it_had_never_been_there() -> None:
    scene = two_balls()
    both, apart = rendered(Tracer(scene, rays=16)), rendered(Tracer(scene, rays=16, apart=["white"]))
    # The photo is the same, whatever counts as surroundings.
    assert np.abs(both.image.astype(int) - apart.image).max() <= 1
    assert set(np.unique(both.objects)) == {0, 1, 2} and set(np.unique(apart.objects)) == {0, 1}
    assert np.array_equal(apart.objects == 1, both.objects == 1)
    alone = DemoScene(scene.surroundings, {"none": [], "dark": scene.objects["dark"]}, scene.materials, scene.lights)
    expected = rendered(Tracer(alone, rays=16)).image
    assert np.abs(expected.astype(int) - apart.clean_plate).max() <= 1
    shadow = (both.objects == 0) & (expected.astype(int) - both.image > 20).any(axis=2)
    assert shadow.sum() > 50, "the white ball's shadow is gone with it"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.seconds(12)
def test_equal_seeds_give_equal_files_with_several_objects(tmp_path: Path) -> None:
    options = {"views": 8, "width": 40, "height": 30, "progress": False, "quality": 0.2, "objects": True}
    one = contents(write_demo_capture(tmp_path / "one", workers=1, removed=["mug"], **options))
    two = contents(write_demo_capture(tmp_path / "two", workers=2, removed=["mug"], **options))
    assert one == two and "plates_without/mug/frame_00005.jpg" in one
    with pytest.raises(UserError, match="no object 'cup'.*can, mug"):
        write_demo_capture(tmp_path / "three", removed=["cup"], **options)


def test_the_command_renders_larger_photos_of_several_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []
    monkeypatch.setattr(capture_module, "_write", lambda folder, settings, *rest: asked.append(settings))
    for options in ([], ["--objects"], ["--objects", "--width", "64"]):
        assert cli.main(["capture", "--output", str(tmp_path / str(len(asked))), *options]) == 0
    assert [(s["width"], s["height"], s["removed"]) for s in asked] == [
        (200, 150, None),
        (320, 240, NAMES),
        (64, 240, NAMES),
    ]
