"""Parts in an export, against a ball whose parts are bands one above the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from pycocotools import mask as rle

from surface_sos_ns.capture.part_files import read_part_mesh
from surface_sos_ns.cli import main
from surface_sos_ns.export.coco import coco
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import read_path
from surface_sos_ns.export.mesh import glb_file
from surface_sos_ns.export.writer import write_export
from surface_sos_ns.utils.identity_colours import identity_colours
from tests.helpers.ball_run import (
    CENTRE,
    NAMES,
    RADIUS,
    BallRun,
    bands,
    give_parts,
    open_ball,
    settings,
    true_alpha,
    true_parts,
)

STEMS = ("left/0001", "left/0002", "right/0001", "right/0002")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ball") / "capture"
    open_ball(folder)
    return folder


@pytest.fixture
def run(capture: Path, tmp_path: Path) -> BallRun:
    """With results of 5 and of 3 parts, the latter the latest."""
    run = open_ball(capture)
    give_parts(run, tmp_path / "run", 5)
    give_parts(run, tmp_path / "run", 3)
    return run


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "L", "8 bits, grey"
        return np.asarray(image)


def written(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


def test_every_view_gets_the_numbers_of_its_parts(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts", "masks"))
    assert run.asked == [["alpha", "part_ids_3"]] * 4, "each view is rendered once"
    for stem, view in zip(STEMS, run.views, strict=True):
        found = read(tmp_path / "out" / "parts" / f"{stem}.png")
        truth, mask = true_parts(view.camera, 3), true_alpha(view.camera) > 0.5
        assert set(np.unique(truth[mask])) >= {1, 2}
        assert ((found > 0) == mask).all(), "a part wherever the mask is"
        assert (found == truth)[mask & (truth > 0)].all()
        assert (found == run.parts(view, 3)).all()


def test_a_result_is_chosen_by_its_number_of_parts(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts", parts=5))
    seen = [read(tmp_path / "out" / "parts" / f"{stem}.png") for stem in STEMS]
    assert max(image.max() for image in seen) == 5
    assert len(json.loads((tmp_path / "out" / "parts.json").read_text())["parts"]) == 5
    with pytest.raises(ExportError, match="no result of 4 parts; there are 3, 5.*surface-sos parts .* --parts 4"):
        write_export(run, settings(tmp_path / "other", "parts", parts=4))
    assert not (tmp_path / "other").exists()


def test_coco_has_a_category_for_each_part(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts"))
    found = json.loads((tmp_path / "out" / "parts_coco.json").read_text())
    assert [(kind["id"], kind["name"]) for kind in found["categories"]] == [(k, f"part_{k}") for k in (1, 2, 3)]
    assert [image["file_name"] for image in found["images"]] == list(NAMES)
    joined = {image["id"]: np.zeros((image["height"], image["width"]), int) for image in found["images"]}
    for annotation in found["annotations"]:
        mask = rle.decode(annotation["segmentation"]).astype(bool)
        assert annotation["area"] == mask.sum() > 0 and not joined[annotation["image_id"]][mask].any()
        joined[annotation["image_id"]][mask] = annotation["category_id"]
    for stem, identities in zip(STEMS, joined.values(), strict=True):
        assert (identities == read(tmp_path / "out" / "parts" / f"{stem}.png")).all()
    assert len({annotation["id"] for annotation in found["annotations"]}) == len(found["annotations"])


def test_coco_leaves_out_what_an_image_does_not_show() -> None:
    found = coco([("a.png", np.array([[0, 3], [1, 1]])), ("b.png", np.array([[0, 0]]))], ["x", "y", "z"])
    shown = [(kind["image_id"], kind["category_id"], kind["area"], kind["bbox"]) for kind in found["annotations"]]
    assert shown == [(1, 1, 2, [0, 1, 2, 1]), (1, 3, 1, [1, 0, 1, 1])]


def test_the_mesh_has_its_parts_as_a_property_and_in_colours(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts"))
    file = tmp_path / "out" / "mesh" / "parts.ply"
    mesh: Any = trimesh.load(file, process=False)
    parts = np.ravel(mesh.metadata["_ply_raw"]["vertex"]["data"]["part"])
    assert (parts == bands(mesh.vertices, 3)).mean() > 0.99, "but for those at a border, rounded to single precision"
    colours = np.rint(identity_colours(3) * 255)[parts - 1]
    assert (np.asarray(mesh.visual.vertex_colors)[:, :3] == colours).all()
    again = read_part_mesh(file)  # as a capture's true parts
    assert again is not None and set(again.labels) == {1, 2, 3}
    assert (again.labels == bands(again.vertices[again.faces].mean(axis=1), 3)).mean() > 0.9


def test_the_glb_has_a_node_for_each_part(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts"))
    scene: Any = trimesh.load(tmp_path / "out" / "mesh" / "parts.glb")
    assert set(scene.graph.nodes_geometry) == {"part_1", "part_2", "part_3"}
    edge = 0.35 * RADIUS  # longer than any of the icosphere's
    area = 0.0
    for number in (1, 2, 3):
        transform, geometry = scene.graph[f"part_{number}"]
        piece = scene.geometry[geometry].copy()
        piece.apply_transform(transform)
        low, high = (CENTRE[2] - RADIUS + 2 * RADIUS * k / 3 for k in (number - 1, number))
        assert low - edge < piece.vertices[:, 2].min() and piece.vertices[:, 2].max() < high + edge
        shade = np.rint(identity_colours(3)[number - 1] * 255)
        assert (np.asarray(piece.visual.vertex_colors)[:, :3] == shade).all(), "no colour of its neighbours"
        area += piece.area
    assert area == pytest.approx(run.mesh().area, rel=1e-5), "every face is in one of them"


def test_meshes_in_map_coordinates_keep_their_shape_in_one_file() -> None:
    place = np.array([441548.4321, 5121947.8765, 2345.1])
    balls = {name: trimesh.creation.icosphere(subdivisions=2, radius=0.5) for name in ("a", "b")}
    for index, ball in enumerate(balls.values()):
        ball.apply_translation(place + np.array([index, 0, 0]))
    scene: Any = trimesh.load(trimesh.util.wrap_as_stream(glb_file(balls)), file_type="glb")
    for index, name in enumerate("ab"):
        transform, geometry = scene.graph[name]
        points = scene.geometry[geometry].vertices + (transform[:3, 3] - place - [index, 0, 0])
        assert np.abs(np.linalg.norm(points, axis=1) - 0.5).max() < 1e-4


def test_a_short_file_says_what_the_parts_are(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "out", "parts"))
    found = json.loads((tmp_path / "out" / "parts.json").read_text())
    assert found["features"] == "guesses"
    assert [(part["id"], part["name"], part["share_of_surface"], part["pieces"]) for part in found["parts"]] == [
        (k, f"part_{k}", 0.3333, 1) for k in (1, 2, 3)
    ]
    assert [part["colour"] for part in found["parts"]] == np.rint(identity_colours(3) * 255).tolist()


@pytest.mark.seconds(2)
def test_a_run_without_parts_says_how_to_find_them_or_leaves_them_out_of_all(capture: Path, tmp_path: Path) -> None:
    run = open_ball(capture)
    for asked in (settings(tmp_path / "out", "masks", "parts"), settings(tmp_path / "out", "all", parts=3)):
        with pytest.raises(ExportError, match="config.yml has no .*parts.*surface-sos parts --load-config"):
            write_export(run, asked)
    assert run.asked == [] and not (tmp_path / "out").exists()
    write_export(run, settings(tmp_path / "out", "all"))
    assert not [name for name in written(tmp_path / "out") if "parts" in name]
    assert "parts" not in json.loads((tmp_path / "out" / "export.json").read_text())
    give_parts(run, tmp_path / "run", 3)
    run.asked.clear()
    write_export(run, settings(tmp_path / "out", "all"))
    assert run.asked == [["alpha", "part_ids_3"]] * 4, "all else is there"
    assert (tmp_path / "out" / "mesh" / "parts.glb").is_file()


def test_an_export_goes_on_with_the_same_result_only(run: BallRun, tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_export(run, settings(output, "parts"))
    before = written(output)
    (output / "parts" / "left" / "0002.png").unlink()
    run.asked.clear()
    write_export(run, settings(output, "parts"))
    assert run.asked == [["alpha", "part_ids_3"]], "what is there is not made again"
    with pytest.raises(ExportError, match="an export with parts 3, this one is with 5.*--overwrite"):
        write_export(run, settings(output, "parts", parts=5))
    with pytest.raises(ExportError, match="an export with mesh-resolution 192, this one is with 64"):
        write_export(run, settings(output, "parts", mesh_resolution=64))
    give_parts(run, tmp_path / "run", 3)  # found anew
    with pytest.raises(ExportError, match="an export with part-result parts_3.npz .*, this one is with parts_3.npz"):
        write_export(run, settings(output, "parts"))
    after = written(output)
    assert all(after[name] == when for name, when in before.items() if name.endswith((".ply", ".glb")))
    write_export(run, settings(output, "parts", overwrite=True))
    replaced = written(output)
    assert all(replaced[name] > when for name, when in after.items() if name.endswith((".png", ".ply", ".glb")))


def test_the_parts_of_a_camera_path(run: BallRun, tmp_path: Path) -> None:
    pose = np.vstack([run.views[1].camera.camera_to_worlds[0].numpy(), [0, 0, 0, 1]]).ravel().tolist()
    cameras = [{"camera_to_world": pose, "fov": 50, "aspect": 1.5}]
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"render_height": 40, "render_width": 60, "camera_path": cameras}))
    write_export(run, settings(tmp_path / "out", "parts", views=("path", str(file))))
    (camera,) = read_path(file)
    found, truth = read(tmp_path / "out" / "parts" / "00000.png"), true_parts(camera, 3)
    assert found.shape == (40, 60) and ((found > 0) == (true_alpha(camera) > 0.5)).all()
    assert (found == truth)[(found > 0) & (truth > 0)].all()
    assert json.loads((tmp_path / "out" / "parts_coco.json").read_text())["images"][0]["file_name"] == "00000"


def test_photos_without_distortion_are_written_with_them_and_kept(run: BallRun, tmp_path: Path) -> None:
    for kind in ("parts", "mattes"):
        asked = settings(tmp_path / kind, kind, lens="undistorted")
        write_export(run, asked)
        before = written(tmp_path / kind)
        assert "images/left/0001.jpg" in before
        write_export(run, asked)
        assert written(tmp_path / kind)["images/left/0001.jpg"] == before["images/left/0001.jpg"]


def test_a_number_of_parts_that_nothing_is_made_of_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--load-config", str(tmp_path / "config.yml"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--what", "masks", "--parts", "3"]) == 1
    assert "--parts 3 chooses a result of parts; add parts to --what" in capsys.readouterr().err
