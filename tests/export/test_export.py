"""What `surface-sos export` writes, against a scene in which every pixel is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from pycocotools import mask as rle

from surface_sos_ns.capture.lens import pinhole, undistorted
from surface_sos_ns.capture.views import Views
from surface_sos_ns.cli import main
from surface_sos_ns.cli.export import Export
from surface_sos_ns.export.clean_plates import completed_photo
from surface_sos_ns.export.coco import coco
from surface_sos_ns.export.error import ExportError
from surface_sos_ns.export.frames import file_names, read_path
from surface_sos_ns.export.mesh import write_mesh, write_points
from surface_sos_ns.export.video import MP4, PRORES, VP9, Format, write_video
from surface_sos_ns.export.writer import write_export
from surface_sos_ns.models.surface_sos.mesh import MeshError
from surface_sos_ns.utils.cutouts import cutout_of_photo, cutout_of_rendering
from tests.helpers.ball_run import (
    CENTRE,
    COLOUR,
    HEIGHT,
    NAMES,
    RADIUS,
    WIDTH,
    BallRun,
    open_ball,
    poses,
    settings,
    true_alpha,
    wall,
)
from tests.helpers.paths import ROOT
from tests.helpers.pictures import read

STEMS = ("left/0001", "left/0002", "right/0001", "right/0002")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ball") / "capture"
    open_ball(folder)
    return folder


@pytest.fixture
def run(capture: Path) -> BallRun:
    return open_ball(capture)


@pytest.fixture
def truth(run: BallRun) -> list[np.ndarray]:
    return [true_alpha(view.camera) for view in run.views]


def files(folder: Path) -> dict[str, int]:
    """All files below a folder, with the time that each was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


# ------------------------------------------------------------------ pictures


def test_masks_and_mattes_have_the_photos_names_and_sizes_and_are_the_objects(
    run: BallRun, truth: list[np.ndarray], tmp_path: Path
) -> None:
    write_export(run, settings(tmp_path, "masks", "mattes"))
    for stem, alpha in zip(STEMS, truth, strict=True):
        mask, matte = read(tmp_path / "masks" / f"{stem}.png"), read(tmp_path / "mattes" / f"{stem}.png")
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255} and mask.shape == (HEIGHT, WIDTH)
        assert matte.dtype == np.uint16 and matte.shape == (HEIGHT, WIDTH)
        assert ((mask > 0) == (alpha > 0.5)).all()
        assert np.abs(matte / 65535 - alpha).max() <= 0.51 / 65535
        assert ((matte > 0) & (matte < 65535)).any(), "soft at the outline"


def test_each_view_is_rendered_once_and_only_as_far_as_needed(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "few", "masks", "mattes", "cutouts"))
    assert run.asked == [["alpha"]] * 4
    run.asked.clear()
    write_export(run, settings(tmp_path / "all", "all"))
    assert run.asked == [["alpha", "background", "background_confidence", "shadow"]] * 4


def test_coco_masks_decode_to_the_masks(run: BallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks"))
    found = json.loads((tmp_path / "masks_coco.json").read_text())
    assert [image["file_name"] for image in found["images"]] == list(NAMES)
    for image, annotation, alpha in zip(found["images"], found["annotations"], truth, strict=True):
        assert annotation["image_id"] == image["id"] and (image["width"], image["height"]) == (WIDTH, HEIGHT)
        assert (rle.decode(annotation["segmentation"]) == (alpha > 0.5)).all()
        rows, columns = np.nonzero(alpha > 0.5)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == box and annotation["area"] == len(rows)


def test_coco_runs_go_down_the_columns_and_an_empty_mask_is_no_object() -> None:
    mask = np.array([[0, 1, 0], [0, 1, 1]], bool)
    found = coco([("a.jpg", mask), ("b.jpg", np.zeros((2, 3), bool))], ["object"])
    assert len(found["images"]) == 2 and len(found["annotations"]) == 1
    # Down the columns: 0 0, 1 1, 0 1. Runs of zeros and ones in turn, the first of zeros.
    by_hand = rle.frPyObjects({"size": [2, 3], "counts": [2, 2, 1, 1]}, 2, 3)
    assert found["annotations"][0]["segmentation"]["counts"] == by_hand["counts"].decode()


def test_cutouts_have_the_objects_colour_up_to_its_rim() -> None:
    y, x = np.mgrid[:80, :100]
    alpha = np.clip((25.3 - np.hypot(x - 50, y - 40)) / 3 + 0.5, 0, 1)
    own = np.stack([0.8 - x * 0.003, 0.3 + y * 0.004, np.full_like(x, 0.2, float)], -1)
    photo = alpha[..., None] * own + (1 - alpha[..., None]) * np.stack([0.1 + 0 * x, 0.2 + 0 * x, 0.9 + 0 * x], -1)
    cut = cutout_of_photo(photo.astype(np.float32), alpha)
    assert cut.dtype == np.float32 and (cut[..., 3] == alpha.astype(np.float32)).all()
    rim = (alpha > 0.02) & (alpha < 0.98)
    over_red = np.array([1.0, 0, 0])

    def error(colours: np.ndarray) -> float:
        return float(np.abs(alpha[..., None] * (colours - own))[rim].mean())

    assert error(cut[..., :3]) < 2 / 255 < 0.08 < error(photo), "the blue behind it is in the photo, not in the cut-out"
    mixed = cut[..., 3:] * cut[..., :3] + (1 - cut[..., 3:]) * over_red
    assert np.abs(mixed - over_red)[alpha == 0].max() == 0
    assert np.abs(mixed - own)[alpha == 1].max() < 2 / 255
    assert (cut[np.hypot(x - 50, y - 40) > 45][:, :3] == 0).all(), "nothing of the photo is left far away"


def test_a_cutout_of_an_empty_or_a_full_matte() -> None:
    photo = np.random.default_rng(0).random((12, 16, 3)).astype(np.float32)
    assert (cutout_of_photo(photo, np.zeros((12, 16), np.float32)) == 0).all()
    assert np.allclose(cutout_of_photo(photo, np.ones((12, 16), np.float32))[..., :3], photo, atol=1e-6)


def test_a_rendered_cutout_is_not_premultiplied() -> None:
    alpha = np.array([[0.0, 0.25, 1.0]], np.float32)
    cut = cutout_of_rendering(alpha[..., None] * np.float32([0.4, 0.8, 0.2]), alpha)
    assert np.allclose(cut[0, 1:, :3], [0.4, 0.8, 0.2], atol=1e-6) and np.allclose(cut[..., 3], alpha)


def test_the_exported_cutout_of_a_photo_is_the_balls_own_colour(
    run: BallRun, truth: list[np.ndarray], tmp_path: Path
) -> None:
    write_export(run, settings(tmp_path, "cutouts"))
    for stem, alpha in zip(STEMS, truth, strict=True):
        cut = read(tmp_path / "cutouts" / f"{stem}.png")[..., [2, 1, 0, 3]] / 255
        assert np.abs(cut[..., 3] - alpha).max() <= 0.51 / 255
        assert np.abs(cut[..., :3] - COLOUR)[alpha == 1].max() < 3 / 255
        assert np.abs(alpha[..., None] * (cut[..., :3] - COLOUR))[(alpha > 0) & (alpha < 1)].mean() < 8 / 255


def test_clean_plates_keep_the_photo_and_show_what_is_behind_the_object_at_its_exposure() -> None:
    rng = np.random.default_rng(0)
    plate = rng.uniform(0.2, 0.7, (120, 160, 3)).astype(np.float32)
    y, x = np.mgrid[:120, :160]
    apart = np.hypot(x - 80, y - 60)
    exposure = np.array([1.1, 1.0, 0.8], np.float32)
    photo = np.where(apart[..., None] < 20, 0.9, plate * exposure)
    none = np.zeros((120, 160), np.float32)
    done = completed_photo(photo, plate, (apart < 20).astype(np.float32), none)
    assert (done[apart > 30] == photo[apart > 30]).all()
    assert np.abs(done - plate * exposure)[apart <= 30].max() < 2e-3, "no object, no seam, no change of colour"
    assert (completed_photo(photo, plate, none, none) == photo).all()
    soft = np.clip(20 - apart, 0, 1).astype(np.float32) * 0.6  # a matte that is soft all over
    assert np.abs(completed_photo(photo, plate, soft, none) - plate * exposure)[apart <= 30].max() < 2e-3


def test_clean_plates_have_no_shadow_inside_or_outside_the_silhouette() -> None:
    y, x = np.mgrid[:120, :160]
    apart = np.hypot(x - 80, y - 60)
    shadow = (0.5 * np.clip(2 - apart / 25, 0, 1)).astype(np.float32)  # beyond 50 pixels there is none
    lit = np.random.default_rng(0).uniform(0.3, 0.9, (120, 160, 3)).astype(np.float32)
    # Light goes with display values nearly as their square.
    light = lit * (lit + 0.1) / 1.1 * (1 - shadow[..., None])
    photo = (np.sqrt(1.1 * light + 0.05**2) - 0.05).astype(np.float32)
    assert np.abs(photo - lit).max() > 0.2
    photo[apart < 20] = 0.05
    done = completed_photo(photo, lit, (apart < 20).astype(np.float32), shadow)
    assert np.abs(done - lit).max() < 2e-3
    assert (done[apart > 52] == photo[apart > 52]).all()


def test_exported_clean_plates_and_their_confidence(run: BallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "clean-plates"))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for stem, alpha in zip(STEMS, truth, strict=True):
        plate = read(tmp_path / "clean_plates" / f"{stem}.png")[..., ::-1] / 255
        assert np.abs(plate - wall(np.stack([x, y], -1))).max() < 1.1 / 255, "no trace of the ball"
        sure = read(tmp_path / "background_confidence" / f"{stem}.png")
        assert sure.dtype == np.uint8 and np.abs(sure / 255 - (0.25 + 0.5 * alpha)).max() < 0.51 / 255


# ------------------------------------------------------------------ lens


def lens(k1: float, k2: float, p1: float = 0.0, p2: float = 0.0) -> Views:
    pose = np.eye(4)[None, :3]
    return Views(pose, 260.0, 250.0, 155.0, 122.0, 320, 240, np.array([[k1, k2, 0, 0, p1, p2]]), False)  # type: ignore[arg-type]


@pytest.mark.parametrize("distortion", [(-0.2, 0.05, 0.001, -0.002), (0.15, 0.01, 0.0, 0.0)])
def test_undistortion_is_opencvs(distortion: tuple[float, float, float, float]) -> None:
    views = lens(*distortion)
    target = pinhole(views)
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.random((24, 32, 3)).astype(np.float32), (320, 240), interpolation=cv2.INTER_CUBIC)
    ours = undistorted(photo, views, target, 0)
    # OpenCV counts pixels from the middle of the first one.
    before, after = (
        np.array([[v.fx[0], 0, v.cx[0] - 0.5], [0, v.fy[0], v.cy[0] - 0.5], [0, 0, 1]]) for v in (views, target)
    )
    maps = cv2.initUndistortRectifyMap(before, np.array(distortion), None, after, (320, 240), cv2.CV_32FC1)
    theirs = cv2.remap(photo, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(ours - theirs).max() < 2e-3
    assert np.abs(ours - photo).max() > 0.1, "something was to be done"
    assert min(maps[0].min(), maps[1].min()) >= -0.51, "nothing is shown that the photo lacks"
    assert maps[0].max() <= 319.51 and maps[1].max() <= 239.51
    assert float(target.fx[0] / target.fy[0]) == pytest.approx(260 / 250), "pixels keep their shape"


def test_an_undistorted_export_has_pinhole_cameras_and_masks_that_fit(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks", lens="undistorted"))
    meta = json.loads((tmp_path / "transforms.json").read_text())
    assert [meta[key] for key in ("k1", "k2", "k3", "k4", "p1", "p2")] == [0.0] * 6
    assert (meta["w"], meta["h"]) == (WIDTH, HEIGHT)
    for frame, stem, view in zip(meta["frames"], STEMS, run.views, strict=True):
        assert frame["file_path"] == f"images/{stem}.jpg" and frame["coarse_mask_path"] == f"masks/{stem}.png"
        camera = run.camera(view, lens="undistorted")
        assert float(camera.fx[0]) == pytest.approx(meta["fl_x"]) and camera.distortion_params is None
        alpha = true_alpha(camera)
        assert ((read(tmp_path / frame["coarse_mask_path"]) > 0) == (alpha > 0.5)).all()
        photo = read(tmp_path / frame["file_path"])[..., ::-1] / 255
        # The photo without its lens shows the ball where a pinhole camera sees it.
        assert np.abs(photo - COLOUR)[alpha == 1].mean() < 0.05
        assert np.abs(photo - COLOUR)[alpha == 0].mean() > 0.3


def test_the_size_that_training_used(run: BallRun, tmp_path: Path) -> None:
    run.factor = 2
    write_export(run, settings(tmp_path / "small", "masks", size="training"))
    write_export(run, settings(tmp_path / "large", "masks"))
    assert read(tmp_path / "large" / "masks" / "left" / "0001.png").shape == (HEIGHT, WIDTH)
    meta = json.loads((tmp_path / "small" / "transforms.json").read_text())
    assert (meta["w"], meta["h"], meta["fl_x"]) == (WIDTH // 2, HEIGHT // 2, 27.5)
    for frame, view in zip(meta["frames"], run.views, strict=True):
        alpha = true_alpha(run.camera(view, size="training"))
        mask, photo = (read(tmp_path / "small" / frame[key]) for key in ("coarse_mask_path", "file_path"))
        assert mask.shape == photo.shape[:2] == (HEIGHT // 2, WIDTH // 2)
        assert ((mask > 0) == (alpha > 0.5)).all()
        assert np.abs(photo[..., ::-1] / 255 - COLOUR)[alpha == 1].mean() < 0.05


# ------------------------------------------------------------------ for other trainers


def test_nerfstudios_parser_takes_every_file_for_trainers(run: BallRun, tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
    from nerfstudio.data.datasets.base_dataset import InputDataset

    write_export(run, settings(tmp_path, "masks", "cutouts", "clean-plates", "mesh"))
    found: dict[str, Any] = {}
    for name in ("transforms", "transforms_object", "transforms_masked", "transforms_background"):
        options: dict[str, Any] = {"downscale_factor": 1, "load_3D_points": True, "center_method": "none"}
        options |= {"orientation_method": "none", "auto_scale_poses": False}
        parser = NerfstudioDataParserConfig(data=tmp_path / f"{name}.json", **options).setup()
        found[name] = (parser.get_dataparser_outputs("train"), parser.get_dataparser_outputs("test"))
    for train, test in found.values():
        assert len(train.image_filenames) == 3 and len(test.image_filenames) == 1, "the run's own split"
        assert all(path.is_file() for path in train.image_filenames)
        wanted = np.stack(poses()[:3])[:, :3]
        assert np.abs(train.cameras.camera_to_worlds.numpy() - wanted).max() < 1e-5, "the capture's own frame"
    masked = found["transforms_masked"][0]
    truth = true_alpha(run.views[0].camera)
    item = InputDataset(masked)[0]
    assert (item["mask"][..., 0].numpy() == (truth > 0.5)).all() and item["image"].shape[-1] == 3
    alone = InputDataset(found["transforms_object"][0])[0]["image"].numpy()
    assert alone.shape == (HEIGHT, WIDTH, 4) and np.abs(alone[..., 3] - truth).max() < 0.51 / 255
    assert found["transforms_object"][0].mask_filenames is None
    points = found["transforms_object"][0].metadata["points3D_xyz"].numpy()
    assert np.abs(np.linalg.norm(points - CENTRE, axis=1) - RADIUS).max() < 0.03, "splats start on the ball"


def test_the_mesh_is_written_in_the_captures_frame_with_colours(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "mesh", mesh_format=("ply", "obj", "glb"), mesh_texture=False))
    assert not (tmp_path / "mesh" / "object.mtl").exists()
    for kind in ("ply", "obj", "glb"):
        mesh: Any = trimesh.load(tmp_path / "mesh" / f"object.{kind}", force="mesh")
        assert np.allclose(mesh.bounds, [CENTRE - RADIUS, CENTRE + RADIUS], atol=1e-4), kind
        assert np.abs(np.asarray(mesh.visual.vertex_colors)[:, :3] - COLOUR * 255).max() <= 1, kind


def test_a_mesh_has_a_texture_where_the_format_has_one(run: BallRun, tmp_path: Path) -> None:
    asked = settings(tmp_path, "mesh", mesh_format=("ply", "obj", "glb"), texture_size=128)
    write_export(run, asked)
    names = {"object.ply", "object.obj", "object.mtl", "object_texture.png", "object.glb", "object_points.ply"}
    assert {path.name for path in (tmp_path / "mesh").iterdir()} == names
    for kind in ("obj", "glb"):
        loaded: Any = trimesh.load(tmp_path / "mesh" / f"object.{kind}", process=False)
        mesh = next(iter(loaded.geometry.values())) if kind == "glb" else loaded
        assert np.allclose(mesh.bounds, [CENTRE - RADIUS, CENTRE + RADIUS], atol=1e-4), kind
        image = mesh.visual.material.image if kind == "obj" else mesh.visual.material.baseColorTexture
        assert image.size == (128, 128)
        pixels = mesh.visual.uv * 128
        shown = np.asarray(image.convert("RGB"))[np.clip(127 - pixels[:, 1].astype(int), 0, 127)]
        assert np.abs(shown - np.rint(COLOUR * 255)).max() <= 1, kind
        outwards = (mesh.vertices - CENTRE) / RADIUS
        assert (mesh.vertex_normals * outwards).sum(1).min() > 0.99, "normals are the whole surface's, also at seams"
    assert "Kd 1.0" in (tmp_path / "mesh" / "object.mtl").read_text(), "nothing darkens the texture"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "mesh").iterdir()}
    lost = tmp_path / "mesh" / "object.mtl"
    lost.unlink()
    write_export(run, asked)
    changed = {path.name for path, before in written.items() if path.stat().st_mtime_ns != before}
    assert changed == {"object.obj", "object.mtl", "object_texture.png"}, "what belongs together is made together"


def test_meshes_and_points_in_map_coordinates_keep_their_shape(run: BallRun, tmp_path: Path) -> None:
    """5000 km from the origin single precision knows no place better than half a metre."""
    place = np.array([441548.4321, 5121947.8765, 2345.1])
    mesh = run.mesh()
    mesh.apply_translation(place)
    files = [tmp_path / f"object.{kind}" for kind in ("ply", "obj", "glb")]
    write_mesh(mesh, files)
    write_points(mesh, tmp_path / "points.ply", 2000)
    for path in [*files, tmp_path / "points.ply"]:
        found: Any = trimesh.load(path, force=None if path.stem == "points" else "mesh", process=False)
        points = np.asarray(found.vertices) - place - CENTRE
        assert np.abs(np.linalg.norm(points, axis=1) - RADIUS).max() < (0.02 if path.stem == "points" else 1e-4), path
        assert np.ptp(points, axis=0) == pytest.approx([2 * RADIUS] * 3, abs=0.05), path


# ------------------------------------------------------------------ videos


def alpha_of(path: Path, form: Format) -> tuple[list[np.ndarray], float]:
    """The frames (H, W, 4) of a video with transparency, and its pictures per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if form is VP9:  # ffmpeg's own decoder leaves alpha out
            decoder: Any = av.codec.CodecContext.create("libvpx-vp9", "r")
            frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
        else:
            frames = list(container.decode(stream))
        return [frame.to_ndarray(format="rgba") for frame in frames], float(stream.average_rate or 0)


@pytest.mark.parametrize(("form", "name"), [(PRORES, "a.mov"), (VP9, "a.webm")])
def test_a_transparent_video_keeps_alpha_and_colour(form: Format, name: str, tmp_path: Path) -> None:
    y, x = np.mgrid[:45, :61]
    pictures = []
    for step in range(5):
        alpha = np.clip((15 - np.hypot(x - 20 - 5 * step, y - 22)) * 60 + 128, 0, 255)
        pictures.append(np.dstack([np.full_like(x, 200), y * 4, x * 3, alpha]).astype(np.uint8))
    write_video(tmp_path / name, pictures, 12, form)
    found, rate = alpha_of(tmp_path / name, form)
    assert len(found) == 5 and rate == 12
    for before, after in zip(pictures, found, strict=True):
        cropped = after[:45, :61].astype(int)
        assert np.abs(cropped[..., 3] - before[..., 3]).max() <= 6
        assert np.abs(cropped[..., :3] - before[..., :3])[before[..., 3] == 255].mean() < 3


@pytest.mark.parametrize(("form", "name"), [(MP4, "a.mp4"), (PRORES, "a.mov"), (VP9, "a.webm")])
def test_equal_pictures_give_equal_videos(form: Format, name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 60, 80, 4 if form is not MP4 else 3), np.uint8)
    pictures = [cv2.GaussianBlur(picture, (0, 0), 2.0) for picture in noise]
    found = set()
    for _ in range(4):
        write_video(tmp_path / name, pictures, 12, form)
        found.add((tmp_path / name).read_bytes())
    assert len(found) == 1


def test_videos_of_an_export(run: BallRun, truth: list[np.ndarray], tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "video", "clean-plates", fps=5))
    assert (tmp_path / "cutouts").is_dir(), "what the videos are made of"
    for name, width in (("mask.mp4", WIDTH), ("side_by_side.mp4", 4 * WIDTH)):
        with av.open(str(tmp_path / "video" / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
        assert len(frames) == 4 and frames[0].shape[:2] == (HEIGHT + 1, width + width % 2), name
        if name == "mask.mp4":
            for frame, alpha in zip(frames, truth, strict=True):
                assert ((frame[:HEIGHT, :WIDTH, 0] > 127) == (alpha > 0.5)).mean() > 0.995
    found, _ = alpha_of(tmp_path / "video" / "cutout.mov", PRORES)
    for frame, alpha in zip(found, truth, strict=True):
        assert np.abs(frame[..., 3] / 255 - alpha).max() < 4 / 255


def test_photos_of_different_sizes_make_no_video(run: BallRun, tmp_path: Path) -> None:
    run.views[1].camera.width = torch.tensor([WIDTH + 2])
    with pytest.raises(ExportError, match="different sizes.*61 x 45, 63 x 45"):
        write_export(run, settings(tmp_path / "out", "video"))
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no_such_codec"):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3), np.uint8)], 5, Format("mp4", "no_such_codec", "yuv420p"))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ paths


def camera_path(file: Path, run: BallRun, count: int = 3) -> Path:
    cameras = [
        {"camera_to_world": np.vstack([run.views[i].camera.camera_to_worlds[0].numpy(), [0, 0, 0, 1]]).ravel().tolist()}
        | {"fov": 50, "aspect": 1.5, "render_time": i / 2}
        for i in range(count)
    ]
    file.write_text(json.dumps({"render_height": 40, "render_width": 60, "camera_path": cameras}))
    return file


def test_a_path_is_rendered_frame_by_frame(run: BallRun, tmp_path: Path) -> None:
    file = camera_path(tmp_path / "path.json", run)
    cameras = read_path(file)
    assert [float(camera.times[0, 0]) for camera in cameras] == [0.0, 0.5, 1.0]  # type: ignore[index]
    write_export(run, settings(tmp_path / "out", "masks", "cutouts", "video", views=("path", str(file))))
    for index, camera in enumerate(cameras):
        alpha = true_alpha(camera)
        assert alpha.shape == (40, 60) and alpha.max() == 1
        assert ((read(tmp_path / "out" / "masks" / f"0000{index}.png") > 0) == (alpha > 0.5)).all()
        cut = read(tmp_path / "out" / "cutouts" / f"0000{index}.png")[..., [2, 1, 0, 3]] / 255
        assert np.abs(cut[..., :3] - COLOUR)[alpha > 0.1].max() < 2 / 255
    assert run.asked == [["alpha", "foreground", "rgb"]] * 3
    assert not (tmp_path / "out" / "transforms.json").exists(), "there are no photos"


@pytest.mark.parametrize("content", ["{}", "no json", '{"render_height": 4, "render_width": 4, "camera_path": [{}]}'])
def test_what_is_no_path_is_said_to_be_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "path.json").write_text(content)
    with pytest.raises(ExportError, match="path.json is not a camera path"):
        read_path(tmp_path / "path.json")


def test_a_path_of_panoramas_is_refused(run: BallRun, tmp_path: Path) -> None:
    file = camera_path(tmp_path / "path.json", run)
    file.write_text(json.dumps({**json.loads(file.read_text()), "camera_type": "equirectangular"}))
    with pytest.raises(ExportError, match="panoramas"):
        read_path(file)


def test_a_run_without_a_surface_says_so_before_anything_is_rendered(
    run: BallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> trimesh.Trimesh:
        raise MeshError("nothing is object")

    monkeypatch.setattr(run, "mesh", none)
    with pytest.raises(ExportError, match="No mesh: nothing is object. Leave mesh out"):
        write_export(run, settings(tmp_path, "all"))
    assert run.asked == []


def test_what_a_method_does_not_have_is_refused_before_anything_is_rendered(
    run: BallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BallRun, "outputs", ("alpha", "foreground", "background", "rgb"))
    with pytest.raises(ExportError, match="without shadow, of which clean-plates are made.*--what masks mattes\\."):
        write_export(run, settings(tmp_path, "masks", "mattes", "clean-plates"))
    assert run.asked == []
    assert write_export(run, settings(tmp_path, "masks", "mattes"))


# ------------------------------------------------------------------ names, interruptions, refusals


def test_file_names_keep_folders_and_differ() -> None:
    assert file_names(NAMES) == list(STEMS)
    assert file_names(["images/a.jpg", "images/b.jpg"]) == ["a", "b"]
    assert file_names(["a.jpg"]) == ["a"]
    assert file_names(["images/a.jpg", "images/a.png", "images/b.png"]) == ["a.jpg", "a.png", "b"]
    assert file_names(["../photos/a.jpg", "../photos/x/b.jpg"]) == ["a", "x/b"]
    assert all(".." not in name for name in file_names(["images/a.jpg", "../x/b.jpg"]))
    # Two photos never have one name, or one export would be written over another.
    assert file_names(["a.jpg", "a.png", "a.jpg.jpg"]) == ["a.jpg", "a.png", "a.jpg.jpg"]
    assert file_names(["../x/a.jpg", "x/a.jpg"], "/data/scene") == ["x/a", "scene/x/a"]


def test_train_and_test_views(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path / "train", "masks", views=("train",)))
    write_export(run, settings(tmp_path / "test", "masks", views=("test",)))
    assert sorted(p.name for p in (tmp_path / "train" / "masks").rglob("*.png")) == ["0001.png", "0001.png", "0002.png"]
    assert [p.parent.name for p in (tmp_path / "test" / "masks").rglob("*.png")] == ["right"]


@pytest.mark.seconds(15)
def test_a_killed_export_is_completed_by_the_same_command(capture: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.ball_run", str(capture), str(output), "0.5"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(output.glob("cutouts/*/*.png"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    before = {name: when for name, when in files(output).items() if name.endswith(".png")}
    assert 6 <= len(before) < 12
    for name in before:
        read(output / name)
    run = open_ball(capture)
    write_export(run, settings(output))
    assert len(run.asked) in (1, 2), "what was there is not rendered again"
    after = files(output)
    assert not list(output.rglob("*.part")), "nothing unfinished is left"
    assert all(after[name] == when for name, when in before.items()), "nor written again"
    assert sum(name.endswith(".png") for name in after) == 12
    whole = tmp_path / "whole"
    write_export(run, settings(whole))
    for name in files(whole):
        if name.endswith(".png"):
            assert (read(whole / name) == read(output / name)).all()


@pytest.mark.seconds(1.5)
def test_more_can_be_asked_of_the_same_export_but_not_something_else(run: BallRun, tmp_path: Path) -> None:
    write_export(run, settings(tmp_path, "masks"))
    before = files(tmp_path)
    run.asked.clear()
    write_export(run, settings(tmp_path, "masks", "clean-plates"))
    assert run.asked == [["alpha", "background", "background_confidence", "shadow"]] * 4
    assert all(files(tmp_path)[name] == when for name, when in before.items() if name.startswith("masks/"))
    with pytest.raises(ExportError, match="lens original, this one is with undistorted.*--overwrite"):
        write_export(run, settings(tmp_path, "masks", lens="undistorted"))
    with pytest.raises(ExportError, match="plates composited, this one is with rendered"):
        write_export(run, settings(tmp_path, "clean-plates", plates="rendered"))
    write_export(run, settings(tmp_path, "masks", lens="undistorted", overwrite=True))
    assert (
        (read(tmp_path / "masks" / "left" / "0001.png") > 0) == (true_alpha(run.camera(0, lens="undistorted")) > 0.5)
    ).all()


@pytest.mark.parametrize(
    "content",
    [
        "[]", "null", '"all"', "{", '{"all": []}', '{"all": 3}', '{"all": {}, "to be replaced": [1]}',
        '{"masks": "size"}', "[" * 100_000, "\x00",
    ],
)  # fmt: skip
def test_a_damaged_note_of_an_export_is_named(run: BallRun, tmp_path: Path, content: str) -> None:
    write_export(run, settings(tmp_path, "masks"))
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(ExportError, match=r"export\.json cannot be read .*--overwrite"):
        write_export(run, settings(tmp_path, "masks"))
    write_export(run, settings(tmp_path, "masks", overwrite=True))
    assert json.loads((tmp_path / "export.json").read_text())["all"]["lens"] == "original"


def test_what_is_not_its_own_is_never_touched(run: BallRun, capture: Path, tmp_path: Path) -> None:
    mine = tmp_path / "masks" / "left" / "0002.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    other = tmp_path / "notes.txt"
    other.write_text("mine too")
    with pytest.raises(ExportError, match="0002.png exists"):
        write_export(run, settings(tmp_path, "masks"))
    assert mine.read_text() == "mine" and not (tmp_path / "export.json").exists()
    write_export(run, settings(tmp_path, "masks", overwrite=True))
    assert read(mine).shape == (HEIGHT, WIDTH) and other.read_text() == "mine too"
    with pytest.raises(ExportError, match="is the capture itself"):
        write_export(run, settings(capture, "masks", overwrite=True))
    assert json.loads((capture / "transforms.json").read_text())["frames"][0]["file_path"] == NAMES[0]


def test_an_interrupted_file_leaves_nothing_behind(
    run: BallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3), np.uint8)] * 3, 5, MP4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--views", "some"], "--views is 'some'"),
        (["--views", "path"], "--views is 'path'"),
        (["--views", "path", "nowhere.json"], "nowhere.json does not exist"),
        (["--fps", "0"], "--fps is 0"),
        (["--mesh-resolution", "4"], "--mesh-resolution is 4"),
        ([], "config.yml does not exist"),
    ],
)
def test_mistakes_in_the_options_are_one_sentence(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["export", "--load-config", str(tmp_path / "config.yml"), "--output-dir", str(tmp_path / "out"), *options]
    assert main(command) == 1
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_all_means_all() -> None:
    assert Export(Path("c"), Path("d"), ("all",)).kinds == (
        *("masks", "mattes", "cutouts", "clean-plates", "video", "mesh", "parts"),
    )
    assert Export(Path("c"), Path("d"), ("video",)).kinds == ("cutouts", "video")


@pytest.mark.parametrize(
    ("mode", "tag", "written"),
    [("RGB", 1, False), ("L", 1, False), ("RGB", 3, True), ("RGB", 6, True), ("P", 1, True), ("I;16", 1, True)],
)
def test_photos_that_other_programs_see_otherwise_are_written(
    tmp_path: Path, mode: str, tag: int, written: bool
) -> None:
    """Turned by a tag, or with a palette or 16 bits: nerfstudio reads none of that as it is seen."""
    from types import SimpleNamespace

    from surface_sos_ns.export.products import writes_photos

    exif = Image.Exif()
    exif[0x0112] = tag
    Image.new(mode, (30, 20)).save(tmp_path / "a.png", exif=exif)
    upright = (20, 30) if tag == 6 else (30, 20)
    run = SimpleNamespace(factor=1, views=[SimpleNamespace(path=tmp_path / "a.png", size=upright)])
    asked = Export(load_config=tmp_path / "config.yml", output_dir=tmp_path / "out")
    assert writes_photos(run, asked) == written  # type: ignore[arg-type]
