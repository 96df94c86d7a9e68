"""A trained run opened from Python, and the examples that say how."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from surface_sos_ns.plugin.cameras import views_from_cameras
from tests.helpers.paths import ROOT
from tests.helpers.terminal import Terminal

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def run(trained: Path) -> Any:
    from surface_sos_ns import load_run

    return load_run(trained / "config.yml")


@pytest.fixture(scope="module")
def meta(demo_capture: Path) -> dict[str, Any]:
    return json.loads((demo_capture / "transforms.json").read_text())


def test_importing_the_package_is_light() -> None:
    heavy = "{'torch', 'nerfstudio', 'scipy', 'cv2', 'numpy'} & set(sys.modules)"
    script = f"import sys, surface_sos_ns; assert not {heavy}"
    subprocess.run([sys.executable, "-c", script], check=True)
    import surface_sos_ns

    with pytest.raises(AttributeError, match="no attribute 'load_ran'"):
        _ = surface_sos_ns.load_ran  # type: ignore[attr-defined]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("name", ["config.yml", ""])
def test_a_run_that_is_not_there(name: str, tmp_path: Path) -> None:
    from surface_sos_ns import RunError, load_run

    with pytest.raises(RunError, match="config.yml does not exist; expected the config.yml of a run"):
        load_run(tmp_path / name)


def test_another_methods_run_and_what_is_none(tmp_path: Path) -> None:
    import yaml
    from nerfstudio.configs.method_configs import all_methods

    from surface_sos_ns import RunError, load_run

    config = tmp_path / "config.yml"
    config.write_text(yaml.dump(all_methods["nerfacto"]))
    with pytest.raises(RunError, match="is of the method nerfacto; expected a run of nerf-sos, "):
        load_run(config)
    config.write_text("just: text")
    with pytest.raises(RunError, match="not the configuration of a training run"):
        load_run(config)
    config.write_text("a: [")
    with pytest.raises(RunError, match="cannot be read as the config.yml"):
        load_run(config)
    config.write_text("!!python/object:no_such_module.Config {}")
    with pytest.raises(RunError, match="cannot be read as the config.yml"):
        load_run(config)


def test_a_run_without_checkpoint_and_one_whose_capture_is_gone(trained: Path, tmp_path: Path) -> None:
    from surface_sos_ns import RunError, load_run
    from surface_sos_ns.plugin.checkpoints import CheckpointError

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(trained / "config.yml", alone)
    with pytest.raises(CheckpointError, match="No checkpoint in .*alone/nerfstudio_models"):
        load_run(alone)
    # A capture that is not where it was in training.
    (alone / "nerfstudio_models").symlink_to(trained / "nerfstudio_models")
    text = (alone / "config.yml").read_text()
    gone = re.sub(r"(?m)^(\s*- )capture$", r"\1moved_away", text)
    assert gone != text
    (alone / "config.yml").write_text(gone)
    with pytest.raises(RunError, match="moved_away.* is not there.*--data FOLDER"):
        load_run(alone)
    with pytest.raises(RunError, match="nowhere does not exist"):
        load_run(alone, data=tmp_path / "nowhere")


@pytest.mark.seconds(90)
def test_a_moved_capture_is_named_and_the_run_opens(trained: Path, demo_capture: Path, tmp_path: Path) -> None:
    from surface_sos_ns import load_run

    moved = tmp_path / "moved"
    moved.symlink_to(demo_capture, target_is_directory=True)
    (tmp_path / "run").mkdir()
    for name in ("config.yml", "nerfstudio_models"):
        (tmp_path / "run" / name).symlink_to(trained / name)
    run = load_run(tmp_path / "run", data=moved)
    assert run.capture == moved and run.views[0].photo().shape == (75, 100, 3)


# ------------------------------------------------------------------ views and cameras


def test_views_are_the_photos_with_their_names_and_split(run: Any, meta: dict[str, Any], demo_capture: Path) -> None:
    assert [view.name for view in run.views] == [frame["file_path"] for frame in meta["frames"]]
    assert {view.name for view in run.views if view.held_out} == set(meta["test_filenames"])
    assert all(view.path == demo_capture / view.name and view.size == (100, 75) for view in run.views)
    assert run.cameras.shape == (len(run.views),)
    assert (run.view(run.views[3].name), run.view(Path(run.views[3].name).stem), run.view(3)) == (run.views[3],) * 3


def test_names_of_views_in_subfolders() -> None:
    from surface_sos_ns import RunError
    from surface_sos_ns.api import Run, View

    names = ["images/left/0001.jpg", "images/right/0001.jpg", "images/cafe\u0301.jpg"]
    nothing: Any = None
    views = tuple(View(index, name, Path(name), False, nothing) for index, name in enumerate(names))
    run = Run(Path(), Path(), nothing, nothing, Path(), views, 1, np.eye(4))
    for name, index in (("left/0001", 0), ("images/right/0001.jpg", 1), ("caf\u00e9", 2), ("images\\CAF\u00c9.JPG", 2)):
        assert run.view(name) is views[index]
    with pytest.raises(RunError, match="'0001.jpg' could be images/left/0001.jpg, images/right/0001.jpg; give more"):
        run.view("0001.jpg")
    with pytest.raises(RunError, match="'caf3.jpg'; there is, for example, images/caf"):
        run.view("caf3.jpg")


def test_views_that_are_not_there(run: Any) -> None:
    from surface_sos_ns import RunError

    with pytest.raises(RunError, match="called .frame_00100.; there is, for example, images/frame_"):
        run.matte("frame_00100")
    with pytest.raises(RunError, match="32 views; there is no view 32"):
        run.matte(32)
    with pytest.raises(RunError, match="no output colour; there are rgb, mask"):
        run.render(0, ["colour"])
    with pytest.raises(RunError, match="One camera at a time"):
        run.matte(run.cameras)


def test_poses_are_those_of_the_capture_and_lead_back(run: Any, meta: dict[str, Any]) -> None:
    for view, frame in zip(run.views, meta["frames"], strict=True):
        pose = run.pose(view)
        assert np.abs(pose - frame["transform_matrix"]).max() < 1e-5
        assert torch.allclose(run.placed(view, pose).camera_to_worlds, view.camera.camera_to_worlds, atol=1e-6)
    point = np.array([0.3, -0.1, 0.2, 1.0])  # seen by a camera at the same place in both frames
    pose, camera = np.array(meta["frames"][2]["transform_matrix"]), run.views[2].camera.camera_to_worlds[0].numpy()
    local = np.linalg.inv(pose) @ point
    world = camera[:, :3].T @ ((run.capture_to_world @ point)[:3] - camera[:, 3])
    assert np.allclose(world / np.linalg.norm(world), local[:3] / np.linalg.norm(local[:3]), atol=1e-5)


# ------------------------------------------------------------------ pictures and mesh


def lies_on_the_true_object(mesh: Any, capture: Path) -> bool:
    """Whether most of a mesh is near the true surface, in the frame of transforms.json."""
    true: Any = trimesh.load(capture / "gt_object.ply", force="mesh")
    apart, _ = cKDTree(true.sample(20000, seed=0)).query(mesh.vertices)
    return bool(np.median(apart) < 0.05 * np.ptp(true.bounds, axis=0).max())


def test_pictures_fit_the_truth(run: Any, meta: dict[str, Any], demo_capture: Path) -> None:
    view = next(view for view in run.views if view.held_out)
    frame = next(frame for frame in meta["frames"] if frame["file_path"] == view.name)
    truth = cv2.imread(str(demo_capture / frame["gt_mask_path"]), cv2.IMREAD_GRAYSCALE) > 127
    alpha, mask, cutout = run.matte(view), run.mask(view), run.cutout(view)
    assert alpha.dtype == np.float32 and alpha.shape == (75, 100) and alpha.min() >= 0 and alpha.max() <= 1
    assert (mask == (alpha > 0.5)).all() and (mask & truth).sum() / (mask | truth).sum() > 0.6
    assert (cutout[..., 3] == alpha).all()
    inside = alpha > 0.95
    assert inside.sum() > 50
    assert np.median(np.abs(cutout[..., :3] - view.photo() / 255)[inside]) < 4 / 255, "the photo's own colours"
    plate = run.clean_plate(view)
    true_plate = cv2.imread(str(demo_capture / frame["clean_plate_path"]))[..., ::-1] / 255
    assert np.square(plate - true_plate)[truth].mean() < 0.3 * np.square(view.photo() / 255 - true_plate)[truth].mean()


def test_any_camera_is_rendered_at_its_own_size(run: Any) -> None:
    camera = run.camera(0)
    camera.rescale_output_resolution(0.5)
    images = run.render(camera, ["alpha", "rgb"])
    assert images["alpha"].shape == (37, 50, 1) and images["rgb"].shape == (37, 50, 3)
    full = cv2.resize(run.matte(0)[:74], (50, 37), interpolation=cv2.INTER_AREA)
    assert np.abs(images["alpha"][..., 0] - full).mean() < 0.02
    assert run.views[0].size == (100, 75), "the view's own camera is not changed"


def test_the_objects_depth_leads_to_its_surface_and_beyond_it_elsewhere(run: Any) -> None:
    images = run.render(0, ["depth", "object_depth", "alpha"])
    inside = images["alpha"] > 0.99
    assert inside.sum() > 100
    apart = np.abs(images["depth"] - images["object_depth"])[inside]
    assert apart.max() < 0.02 * images["depth"][inside].max()
    assert np.quantile(apart / images["object_depth"][inside], 0.95) < 0.005
    camera = run.views[0].camera
    rays = camera.generate_rays(0, keep_shape=True)
    ends = rays.origins + rays.directions * torch.from_numpy(images["object_depth"])
    low, high = run.model.object_box()
    within = ((ends > low) & (ends < high)).all(-1).numpy()
    assert (within == (images["alpha"][..., 0] > 0.5)).mean() > 0.99


def test_the_mesh_is_the_object_in_the_captures_frame_and_in_its_colours(run: Any, demo_capture: Path) -> None:
    mesh = run.mesh(96)
    assert lies_on_the_true_object(mesh, demo_capture)
    # Corners that look at a camera have the colour that its photo has there.
    view = run.views[0]
    pose = run.pose(view)
    to_eye = pose[:3, 3] - mesh.vertices
    facing = (mesh.vertex_normals * to_eye).sum(-1) > 0.7 * np.linalg.norm(to_eye, axis=-1)
    local = (mesh.vertices[facing] - pose[:3, 3]) @ pose[:3, :3]
    x = float(view.camera.fx[0]) * local[:, 0] / -local[:, 2] + float(view.camera.cx[0])
    y = float(view.camera.fy[0]) * -local[:, 1] / -local[:, 2] + float(view.camera.cy[0])
    photo = view.photo()[y.astype(int).clip(0, 74), x.astype(int).clip(0, 99)]
    found = np.asarray(mesh.visual.vertex_colors)[facing, :3]
    assert np.median(np.abs(found.astype(int) - photo)) < 25
    assert np.median(np.abs(found.astype(int) - photo[::-1])) > 1.2 * np.median(np.abs(found.astype(int) - photo))


@pytest.mark.seconds(10)
def test_a_textured_mesh_lies_where_the_mesh_does_and_looks_like_the_photos(run: Any, demo_capture: Path) -> None:
    mesh = run.textured_mesh(resolution=96, faces=2000, size=256)
    assert len(mesh.faces) <= 2000 and lies_on_the_true_object(mesh, demo_capture)
    texture = np.asarray(mesh.visual.material.baseColorTexture)
    assert texture.shape == (256, 256, 3)
    # Vertices that look at a camera have, in the texture, the colour that its photo has there.
    view = next(view for view in run.views if not view.held_out)
    pose = run.pose(view)
    to_eye = pose[:3, 3] - mesh.vertices
    facing = (mesh.vertex_normals * to_eye).sum(-1) > 0.8 * np.linalg.norm(to_eye, axis=-1)
    camera = views_from_cameras(view.camera)
    world = mesh.vertices[facing] @ run.capture_to_world[:3, :3].T + run.capture_to_world[:3, 3]
    x, y = (camera.project_one(0, world)[0] - 0.5).round().astype(int).T
    shown = run.matte(view)[y.clip(0, 74), x.clip(0, 99)] > 0.99
    photo = view.photo()[y.clip(0, 74), x.clip(0, 99)][shown].astype(int)
    u, v = (256 * mesh.visual.uv[facing][shown]).astype(int).clip(0, 255).T
    assert shown.sum() > 50
    apart = np.median(np.abs(texture[255 - v, u] - photo))
    assert apart < 20 and np.median(np.abs(texture[255 - v, u] - photo[::-1])) > 1.5 * apart


# ------------------------------------------------------------------ examples


@pytest.mark.seconds(15)
@pytest.mark.parametrize(
    ("name", "arguments", "results"),
    [
        ("cut_out_a_photo", ["frame_00001"], {"over_green.png"}),
        ("empty_the_scene", [], {"frame_00005_empty.png", "frame_00013_empty.png"}),
        ("mesh_of_the_object", [], {"object.ply"}),
        ("look_from_elsewhere", [], {"elsewhere_rgb.png", "elsewhere_mask.png"}),
    ],
)
def test_an_example_runs(
    name: str,
    arguments: list[str],
    results: set[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(trained / "config.yml"), *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert results <= {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.glob("*.png"):
        picture = cv2.imread(str(path))
        assert picture.shape == (75, 100, 3) and np.ptp(picture) > 100, path


def test_every_example_is_run() -> None:
    marks: list[Any] = test_an_example_runs.pytestmark  # type: ignore[attr-defined]
    cases = next(mark.args[1] for mark in marks if mark.name == "parametrize")
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {case[0] for case in cases}


# ------------------------------------------------------------------ the commands


@pytest.mark.seconds(40)
def test_the_export_command_on_a_trained_run(
    terminal: Terminal, trained: Path, run: Any, meta: dict[str, Any], demo_capture: Path
) -> None:
    output = terminal.folder / "exported"
    command = ("surface_sos_ns.cli", "export", "--load-config", trained / "config.yml", "--output-dir", output)
    what = ("--what", "mattes", "clean-plates", "mesh", "--mesh-resolution", "96")
    said = terminal.run(*command, "--views", "test", *what)
    assert f"{output / 'mattes'}/: {len(meta['test_filenames'])} files" in said and "object.ply" in said
    view = next(view for view in run.views if view.held_out)
    matte = cv2.imread(str(output / "mattes" / f"{Path(view.name).stem}.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(matte / 65535 - run.matte(view)).max() < 1e-3
    assert lies_on_the_true_object(trimesh.load(output / "mesh" / "object.ply", force="mesh"), demo_capture)


@pytest.mark.slow
@pytest.mark.seconds(40)
def test_ns_export_gives_the_object_and_not_the_room(
    terminal: Terminal, trained: Path, run: Any, demo_capture: Path
) -> None:
    true: Any = trimesh.load(demo_capture / "gt_object.ply", force="mesh")
    size = np.ptp(true.bounds, axis=0).max()
    exporter, run_of = "nerfstudio.scripts.exporter", ("--load-config", trained / "config.yml", "--output-dir")
    depth = ("--depth-output-name", "object_depth")
    few = ("--num-points", "3000", "--num-rays-per-batch", "2048", *depth)
    terminal.run(exporter, "pointcloud", *run_of, terminal.folder / "points", *few, "--save-world-frame", "True")
    points = np.asarray(trimesh.load(terminal.folder / "points" / "point_cloud.ply").vertices)
    # It is nerfstudio's own original frame, which for a capture without applied_transform is that of transforms.json.
    outside = np.maximum(true.bounds[0] - points, points - true.bounds[1]).max(axis=1)
    assert (outside > 0.15 * size).mean() < 0.01
    low, high = run.model.object_box().tolist()
    box = ("--bounding-box-min", *map(str, low), "--bounding-box-max", *map(str, high))
    options = (*depth, "--resolution", "48", "--texture-method", "tsdf", *box)
    said = terminal.run(exporter, "tsdf", *run_of, terminal.folder / "tsdf", *options)
    assert "The object lies within" in said
    mesh: Any = trimesh.load(terminal.folder / "tsdf" / "tsdf_mesh.ply", force="mesh")
    mesh.apply_transform(np.linalg.inv(run.capture_to_world))
    outside = np.maximum(true.bounds[0] - mesh.vertices, mesh.vertices - true.bounds[1]).max(axis=1)
    assert (outside > 0.15 * size).mean() < 0.03
