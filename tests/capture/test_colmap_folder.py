"""Captures that are a folder of COLMAP's: cameras of all its models, against pycolmap's own projection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.transforms import capture_content, capture_folder, capture_source, read_transforms
from surface_sos_ns.capture.views import Views
from tests.helpers.colmap_model import colmap_model
from tests.helpers.poses import orbit

WIDTH, HEIGHT = 640, 480
LENSES = {
    "SIMPLE_PINHOLE": (500, 322, 238),
    "PINHOLE": (500, 510, 322, 238),
    "SIMPLE_RADIAL": (500, 322, 238, -0.05),
    "RADIAL": (500, 322, 238, -0.05, 0.02),
    "OPENCV": (500, 510, 322, 238, -0.1, 0.05, 0.002, -0.001),
    "FULL_OPENCV": (500, 510, 322, 238, -0.3, 0.12, 0.001, -0.002, 0.01, 0.05, 0.02, 0.001),
    "FOV": (500, 500, 322, 238, 0.9),
    "SIMPLE_FISHEYE": (400, 322, 238),
    "FISHEYE": (400, 410, 322, 238),
    "SIMPLE_RADIAL_FISHEYE": (400, 322, 238, 0.03),
    "RADIAL_FISHEYE": (400, 322, 238, 0.03, -0.01),
    "OPENCV_FISHEYE": (400, 410, 322, 238, 0.03, -0.01, 0.002, -0.001),
    "THIN_PRISM_FISHEYE": (400, 400, 322, 238, 0.02, -0.01, 1e-4, -2e-4, 0.003, 0.0, 2e-4, 1e-4),
    "RAD_TAN_THIN_PRISM_FISHEYE": (400, 400, 322, 238, 0.02, -0.01, 0.001, 0, 0, 0, 1e-4, 2e-4, 1e-4, 0, 1e-4, 0),
    "SIMPLE_DIVISION": (500, 322, 238, -0.2),
    "DIVISION": (500, 505, 322, 238, -0.1),
    "EUCM": (400, 405, 322, 238, 0.6, 1.1),
}
TOLERANCE = {"THIN_PRISM_FISHEYE": 0.64, "RAD_TAN_THIN_PRISM_FISHEYE": 0.64}
"""Pixels; 0.02 for the others. Prisms and tangential terms of a fisheye have no counterpart."""

POINTS = np.random.default_rng(0).uniform(-1, 1, (40, 3))


def folder_with(tmp_path: Path, model: str = "sparse/0", **options) -> Path:
    """A folder of twelve photos in images/a and their model."""
    poses = orbit(12)
    views = Views(poses[:, :3], 500, 500, 320, 240, WIDTH, HEIGHT)  # type: ignore[arg-type]
    names = [f"a/{index:02d}.png" for index in range(12)]
    (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name)
    colmap_model(tmp_path / model, views, names, POINTS, **options)
    return tmp_path


def test_every_camera_model_of_colmap_is_here() -> None:
    known = set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"}
    assert known <= set(LENSES)


@pytest.mark.parametrize("kind", LENSES)
def test_points_come_where_colmap_has_them(tmp_path: Path, kind: str) -> None:
    data = folder_with(tmp_path, cameras=[(kind, LENSES[kind])] * 12)
    found = read_transforms(capture_source(data))
    assert found.file_paths == [f"images/a/{index:02d}.png" for index in range(12)]
    model = pycolmap.Reconstruction(str(data / "sparse" / "0"))
    uv, _ = found.views.project(POINTS)
    for image in model.images.values():
        view = int(Path(image.name).stem)
        theirs = np.array([image.project_point(point) for point in POINTS])
        inside = ((theirs > 0) & (theirs < (WIDTH, HEIGHT))).all(axis=1)
        assert inside.sum() > 20
        assert np.abs(uv[view] - theirs)[inside].max() < TOLERANCE.get(kind, 0.02)
    np.testing.assert_allclose(found.views.camera_to_world, orbit(12)[:, :3], atol=1e-9)


def test_each_photo_has_its_own_lens(tmp_path: Path) -> None:
    lenses = [("PINHOLE", LENSES["PINHOLE"])] * 5 + [("OPENCV_FISHEYE", LENSES["OPENCV_FISHEYE"])] * 7
    views = read_transforms(capture_source(folder_with(tmp_path, cameras=lenses))).views
    assert views.fisheye.tolist() == [False] * 5 + [True] * 7
    assert views.fy.tolist() == [510.0] * 5 + [410.0] * 7


def test_a_lens_that_cannot_be_followed(tmp_path: Path) -> None:
    strong = (400, 400, 322, 238, 0.02, -0.01, 0.01, -0.02, 0.003, 0.0, 0.02, 0.01)
    data = folder_with(tmp_path, cameras=[("THIN_PRISM_FISHEYE", strong)] * 12)
    with pytest.raises(CaptureError, match=r"sparse/0, a lens of COLMAP's model THIN_PRISM_FISHEYE differs by .* 0.6"):
        read_transforms(capture_source(data))
    panorama = folder_with(tmp_path / "p", cameras=[("EQUIRECTANGULAR", (WIDTH, HEIGHT))] * 12)
    with pytest.raises(CaptureError, match=r"is a panorama .* --camera-type equirectangular"):
        read_transforms(capture_source(panorama))


def test_an_approximated_lens_and_other_models_are_said(tmp_path: Path) -> None:
    kind = "RAD_TAN_THIN_PRISM_FISHEYE"
    data = folder_with(tmp_path, cameras=[(kind, LENSES[kind])] * 12)
    colmap_model(data / "sparse" / "1", read_transforms(capture_source(data)).views, ["a/00.png"], POINTS)
    remarks = read_transforms(capture_source(data)).remarks
    assert any(f"the lens {kind} of 12 photos is read as" in remark for remark in remarks)
    assert any("2 models of parts of the photos; 0 with 12 photos is used" in remark for remark in remarks)


@pytest.mark.parametrize("model", ["sparse/0", "sparse", "colmap/sparse/0"])
def test_where_the_model_is_found(tmp_path: Path, model: str) -> None:
    source = capture_source(folder_with(tmp_path, model))
    assert source == tmp_path / model and capture_folder(source) == tmp_path


def test_a_json_file_goes_before_the_model(tmp_path: Path) -> None:
    data = folder_with(tmp_path)
    (data / "transforms.json").write_text("{}")
    assert capture_source(data) == data / "transforms.json"


def test_a_model_without_photos_or_that_cannot_be_read(tmp_path: Path) -> None:
    data = folder_with(tmp_path)
    (data / "images").rename(data / "input")
    with pytest.raises(CaptureError, match="there is no folder images/ beside sparse/"):
        capture_source(data)
    (data / "input").rename(data / "images")
    (data / "sparse" / "0" / "images.bin").write_bytes(b"nothing")
    with pytest.raises(CaptureError, match="sparse/0 holds no readable COLMAP model"):
        read_transforms(capture_source(data))


def test_it_is_the_capture_that_the_same_cameras_in_a_json_file_make(tmp_path: Path) -> None:
    """Photos, cameras and points, in nerfstudio's world frame."""
    import json

    from surface_sos_ns.capture.points_file import first_fitting_points
    from surface_sos_ns.plugin.cameras import views_from_cameras
    from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig

    data = folder_with(tmp_path / "colmap")
    outputs = SurfaceSOSDataParserConfig(data=data).setup().get_dataparser_outputs("train")
    written = folder_with(tmp_path / "json")
    (written / "transforms.json").write_text(json.dumps(capture_content(data / "sparse" / "0")))
    other = SurfaceSOSDataParserConfig(data=written).setup().get_dataparser_outputs("train")
    assert [path.relative_to(data) for path in outputs.image_filenames] == [
        path.relative_to(written) for path in other.image_filenames
    ]
    np.testing.assert_array_equal(outputs.cameras.camera_to_worlds, other.cameras.camera_to_worlds)
    for found in (outputs, other):
        points, remarks = first_fitting_points(
            found.metadata["points_files"], views_from_cameras(found.cameras), found.metadata["file_paths"]
        )
        assert points is not None and points.visibility is not None and not remarks
        assert points.visibility.all() and len(points) == len(POINTS)
    assert not list(data.glob("*.json")), "nothing is written into a folder of COLMAP's"
