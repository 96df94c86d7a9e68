"""What `surface-sos export` writes of a run with several objects, whose every pixel is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image
from pycocotools import mask as rle

from surface_sos_ns.cli import main
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.writer import write_export
from surface_sos_ns.utils.identity_colours import identity_bytes
from tests.helpers.ball_run import CENTRE, COLOUR, HEIGHT, NAMES, RADIUS, WIDTH, bands, open_ball, settings, wall
from tests.helpers.pictures import read
from tests.helpers.sliced_ball_run import OBJECTS, SlicedBallRun, open_sliced_ball, true_shares

STEMS = ("left/0001", "left/0002", "right/0001", "right/0002")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ball") / "capture"
    open_ball(folder)
    return folder


@pytest.fixture
def run(capture: Path) -> SlicedBallRun:
    return open_sliced_ball(capture)


@pytest.fixture
def truth(run: SlicedBallRun) -> list[np.ndarray]:
    return [true_shares(view.camera) for view in run.views]


def identities(shares: np.ndarray) -> np.ndarray:
    return (shares.argmax(-1) + 1) * (shares.sum(-1) > 0.5)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def of_views(folder: str) -> set[str]:
    return {f"{folder}/{stem}.png" for stem in STEMS}


# ------------------------------------------------------------------ pictures


def test_each_object_has_a_folder_of_its_name(run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks", "mattes", "cutouts"))
    assert [len(asked) for asked in run.asked] == [7] * 4, "each view is rendered once"
    for stem, shares in zip(STEMS, truth, strict=True):
        for index, name in enumerate(OBJECTS):
            mask, matte, cut = (read(tmp_path / kind / name / f"{stem}.png") for kind in ("masks", "mattes", "cutouts"))
            assert set(np.unique(mask)) <= {0, 255}
            assert ((mask > 0) == (identities(shares) == index + 1)).all()
            assert np.abs(matte / 65535 - shares[..., index]).max() <= 0.51 / 65535
            assert np.abs(cut[..., 3] / 255 - shares[..., index]).max() <= 0.51 / 255
    made = {name for kind in ("masks", "mattes", "cutouts") for name in OBJECTS for name in of_views(f"{kind}/{name}")}
    captures = {f"transforms_{kind}_{name}.json" for kind in ("masked", "object") for name in OBJECTS}
    rest = of_views("identities") | captures | {"transforms.json", "masks_coco.json", "export.json"}
    assert files(tmp_path) == made | rest


def test_identity_pictures_have_the_numbers_as_palette_index_and_their_colours(
    run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path
) -> None:
    write_export(run, settings(tmp_path, "masks"))
    for stem, shares in zip(STEMS, truth, strict=True):
        with Image.open(tmp_path / "identities" / f"{stem}.png") as image:
            assert image.mode == "P"
            numbers, colours = np.asarray(image), np.asarray(image.convert("RGB"))
        assert (numbers == identities(shares)).all() and numbers.max() == 3
        assert (colours == np.vstack([[0, 0, 0], identity_bytes(3)])[numbers]).all()


def test_chosen_objects_keep_their_numbers(run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks", objects=("knob", "pot")))
    assert not (tmp_path / "masks" / "lid").exists()
    for stem, shares in zip(STEMS, truth, strict=True):
        with Image.open(tmp_path / "identities" / f"{stem}.png") as image:
            found, true = np.asarray(image), identities(shares)
        assert (found == np.where(true == 2, 0, true)).all()
    meta = json.loads((tmp_path / "transforms.json").read_text())
    assert meta["object_names"] == ["pot", "knob"], "in the run's order"
    assert [frame["coarse_mask_path"] for frame in meta["frames"]] == [
        {"pot": f"masks/pot/{stem}.png", "knob": f"masks/knob/{stem}.png"} for stem in STEMS
    ]


def test_coco_has_a_category_for_each_object(run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks"))
    found = json.loads((tmp_path / "masks_coco.json").read_text())
    assert [(kind["id"], kind["name"]) for kind in found["categories"]] == list(enumerate(OBJECTS, start=1))
    assert [image["file_name"] for image in found["images"]] == list(NAMES)
    shown = {(kind["image_id"], kind["category_id"]): rle.decode(kind["segmentation"]) for kind in found["annotations"]}
    for index, shares in enumerate(truth, start=1):
        true = identities(shares)
        for identity in (1, 2, 3):
            assert (shown[index, identity] == (true == identity)).all()
    assert len(shown) == 12


# ------------------------------------------------------------------ without some of them


def test_a_plate_without_one_object_keeps_the_others(
    run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path
) -> None:
    write_export(run, settings(tmp_path, "clean-plates", remove=("knob",)))
    assert run.removed == [("knob",)] * 4 and run.asked == [["alpha_knob"]] * 4
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    behind = wall(np.stack([x, y], axis=-1))
    for stem, shares in zip(STEMS, truth, strict=True):
        plate = read(tmp_path / "clean_plates" / f"{stem}.png")[..., ::-1] / 255
        kept = shares[..., :2].sum(-1)
        assert np.abs(plate - behind)[shares[..., 2] == 1].max() < 0.03, "what the knob hid"
        assert np.abs(plate - COLOUR)[kept == 1].max() < 0.03, "the others stay"
        sure = read(tmp_path / "background_confidence" / f"{stem}.png") / 255
        assert np.abs(sure - (0.5 + 0.5 * kept)).max() < 0.51 / 255


def test_without_remove_all_objects_are_gone(run: SlicedBallRun, tmp_path: Path) -> None:
    for index, remove in enumerate(((), ("all",), OBJECTS)):
        write_export(run, settings(tmp_path / str(index), "clean-plates", remove=remove))
    assert run.removed == [] and run.asked == [["alpha", "background", "background_confidence", "shadow"]] * 12
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plate = read(tmp_path / "0" / "clean_plates" / "left" / "0001.png")[..., ::-1] / 255
    assert np.abs(plate - wall(np.stack([x, y], -1))).max() < 1.1 / 255
    with pytest.raises(ExportError, match="remove pot lid knob, this one is with pot. Choose another --output-dir"):
        write_export(run, settings(tmp_path / "0", "clean-plates", remove=("pot",)))


def test_a_rendered_plate_on_a_path(run: SlicedBallRun, tmp_path: Path) -> None:
    pose = np.vstack([run.views[1].camera.camera_to_worlds[0].numpy(), [0, 0, 0, 1]]).ravel().tolist()
    file = tmp_path / "path.json"
    cameras = [{"camera_to_world": pose, "fov": 50, "aspect": 1.5}]
    file.write_text(json.dumps({"render_height": 40, "render_width": 60, "camera_path": cameras}))
    asked = settings(tmp_path / "out", "clean-plates", "cutouts", views=("path", str(file)), remove=("pot", "lid"))
    write_export(run, asked)
    assert run.removed == [("pot", "lid")]
    plate = read(tmp_path / "out" / "clean_plates" / "00000.png")[..., ::-1] / 255
    assert (np.abs(plate - COLOUR).max(-1) < 0.01).sum() > 20, "the knob"
    cut = read(tmp_path / "out" / "cutouts" / "pot" / "00000.png")
    assert np.abs(cut[..., 2::-1] / 255 - COLOUR)[cut[..., 3] > 25].max() < 2 / 255


# ------------------------------------------------------------------ meshes and points


def test_a_mesh_each_and_one_of_all(run: SlicedBallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "mesh", mesh_format=("ply", "glb")))
    names = {f"mesh/{name}.{kind}" for name in (*OBJECTS, "all") for kind in ("ply", "glb")}
    assert files(tmp_path) == names | {f"points/{name}.ply" for name in (*OBJECTS, "all")} | {"export.json"}
    scene: Any = trimesh.load(tmp_path / "mesh" / "all.glb")
    assert set(scene.graph.nodes_geometry) == set(OBJECTS)
    for index, name in enumerate(OBJECTS):
        low, high = (CENTRE[2] - RADIUS + 2 * RADIUS * k / 3 for k in (index, index + 1))
        _, geometry = scene.graph[name]
        alone: Any = trimesh.load(tmp_path / "mesh" / f"{name}.ply", force="mesh")
        for mesh in (alone, scene.geometry[geometry]):
            height: Any = mesh.triangles_center[:, 2]
            assert low - 1e-4 < height.min() and height.max() < high + 1e-4
        assert np.abs(np.asarray(alone.visual.vertex_colors)[:, :3] - COLOUR * 255).max() <= 1
        painted = np.asarray(scene.geometry[geometry].visual.material.baseColorTexture)
        assert np.abs(painted - np.rint(COLOUR * 255)).max() <= 1
    together: Any = trimesh.load(tmp_path / "mesh" / "all.ply", process=False)
    labels = np.ravel(together.metadata["_ply_raw"]["vertex"]["data"]["object"])[together.faces]
    assert (labels == labels[:, :1]).all() and (labels[:, 0] == bands(together.triangles_center, 3)).all()
    assert together.area == pytest.approx(open_ball(run.capture).mesh().area, rel=1e-5)


def test_one_command_gives_a_labelled_point_cloud(run: SlicedBallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "mesh"))
    cloud: Any = trimesh.load(tmp_path / "points" / "all.ply")
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    labels, points = np.ravel(data["object"]), np.asarray(cloud.vertices)
    assert len(points) == 50_000 and set(labels) == {1, 2, 3}
    assert (labels == bands(points, 3)).mean() > 0.9, "the cut runs along edges of the mesh"
    each = np.bincount(labels)[1:] / len(labels)
    assert each == pytest.approx(np.array([run.mesh(name).area for name in OBJECTS]) / 4.49, abs=0.02)
    alone: Any = trimesh.load(tmp_path / "points" / "lid.ply")
    assert (bands(np.asarray(alone.vertices), 3) == 2).mean() > 0.8
    assert "object" not in (alone.metadata["_ply_raw"]["vertex"]["data"].dtype.names or ())


def test_an_object_without_a_surface_is_named_before_anything_is_rendered(run: SlicedBallRun, tmp_path: Path) -> None:
    run.lost = ("lid",)
    with pytest.raises(ExportError, match="No mesh of lid: no point.* or export the others: --objects pot knob"):
        write_export(run, settings(tmp_path / "all", "masks", "mesh"))
    assert run.asked == []
    write_export(run, settings(tmp_path / "others", "masks", "mesh", objects=("pot", "knob")))
    assert (tmp_path / "others" / "mesh" / "all.ply").is_file()


# ------------------------------------------------------------------ for other trainers, videos


def test_the_capture_of_one_object_is_one_command(run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks", "cutouts", "mesh", objects=("knob",)))
    meta = json.loads((tmp_path / "transforms_object_knob.json").read_text())
    assert [frame["file_path"] for frame in meta["frames"]] == [f"cutouts/knob/{stem}.png" for stem in STEMS]
    cloud: Any = trimesh.load(tmp_path / meta["ply_file_path"])
    assert (np.asarray(cloud.vertices)[:, 2] > CENTRE[2]).all(), "splats start on the knob"
    masked = json.loads((tmp_path / "transforms_masked_knob.json").read_text())
    for frame, shares in zip(masked["frames"], truth, strict=True):
        assert ((read(tmp_path / frame["mask_path"]) > 0) == (identities(shares) == 3)).all()
    whole = json.loads((tmp_path / "transforms.json").read_text())
    assert "object_names" not in whole and whole["frames"][0]["coarse_mask_path"] == "masks/knob/left/0001.png"
    assert not (tmp_path / "mesh" / "all.ply").exists()


def test_a_capture_of_several_is_read_with_their_names(run: SlicedBallRun, tmp_path: Path) -> None:
    from surface_sos_ns.capture.transforms import read_transforms

    write_export(run, settings(tmp_path, "masks"))
    found: Any = read_transforms(tmp_path / "transforms.json")
    assert found.object_names == OBJECTS


@pytest.mark.seconds(3)
def test_videos_of_each_and_of_all(run: SlicedBallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "video", fps=5))
    found = {}
    for name in (*OBJECTS, "all"):
        assert {path.name for path in (tmp_path / "video" / name).iterdir()} == {
            *("mask.mp4", "side_by_side.mp4", "cutout.mov"),
        }
        with av.open(str(tmp_path / "video" / name / "mask.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
        found[name] = [frame[:HEIGHT, :WIDTH].astype(int) for frame in frames]
    for index, shares in enumerate(truth):
        assert ((found["knob"][index][..., 0] > 127) == (shares[..., 2] > 0.5)).mean() > 0.99
        # Colours of videos are coarse: away from the borders.
        sure = cv2.erode((shares[..., 1] == 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert np.abs(found["all"][index][sure] - identity_bytes(3)[1]).max() < 30
    with av.open(str(tmp_path / "video" / "all" / "cutout.mov")) as container:
        alpha = [frame.to_ndarray(format="rgba")[..., 3] for frame in container.decode(container.streams.video[0])]
    for picture, shares in zip(alpha, truth, strict=True):
        assert np.abs(picture / 255 - shares.sum(-1)).max() < 5 / 255


# ------------------------------------------------------------------ mistakes


def test_unknown_names_are_answered_with_those_there_are(run: SlicedBallRun, tmp_path: Path) -> None:
    for option in ("objects", "remove"):
        asked = settings(tmp_path / "out", "clean-plates", **{option: ("pot", "cup")})
        with pytest.raises(ExportError, match=f"--{option}: .* no object 'cup'; its objects are pot, lid, knob"):
            write_export(run, asked)
    assert run.asked == [] and not (tmp_path / "out").exists()


def test_a_run_with_one_object_says_so(capture: Path, tmp_path: Path) -> None:
    run = open_ball(capture)
    for option in ("objects", "remove"):
        asked = settings(tmp_path / "out", "clean-plates", **{option: ("cup",)})
        with pytest.raises(ExportError, match=f"--{option}: .*has one object, without a name; leave 'cup' out"):
            write_export(run, asked)
    assert run.asked == [] and not (tmp_path / "out").exists()
    write_export(run, settings(tmp_path / "out", "clean-plates", objects=("all",)))
    assert json.loads((tmp_path / "out" / "export.json").read_text())["clean-plates"] == {"plates": "composited"}


def test_other_objects_belong_into_another_folder(run: SlicedBallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks", objects=("pot",)))
    with pytest.raises(ExportError, match="an export with objects pot, this one is with pot lid"):
        write_export(run, settings(tmp_path, "masks", objects=("pot", "lid")))


def test_remove_needs_clean_plates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--load-config", str(tmp_path / "config.yml"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--what", "masks", "--remove", "cup"]) == 1
    assert "--remove cup is about clean plates; add clean-plates to --what" in capsys.readouterr().err
