"""transforms.json: what is read from it, what is refused and with which words, and that what is written is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.transforms import Transforms, capture_source, read_transforms, transforms_content
from surface_sos_ns.capture.views import Views
from tests.helpers.poses import orbit

LENS = {"fl_x": 110.0, "fl_y": 112.0, "cx": 51.0, "cy": 39.0, "w": 100, "h": 80}


def content(count: int = 4, **more: Any) -> dict[str, Any]:
    frames = [
        {"file_path": f"images/{index}.jpg", "transform_matrix": pose.tolist()}
        for index, pose in enumerate(orbit(count))
    ]
    return {"camera_model": "OPENCV", **LENS, "frames": frames, **more}


def read(tmp_path: Path, meta: Any) -> Transforms:
    source = tmp_path / "transforms.json"
    source.write_text(meta if isinstance(meta, str) else json.dumps(meta))
    return read_transforms(source)


def refusal(tmp_path: Path, meta: Any) -> str:
    with pytest.raises(CaptureError) as caught:
        read(tmp_path, meta)
    message = str(caught.value)
    assert str(tmp_path / "transforms.json") in message and "\n" not in message
    return message


def test_a_usual_file(tmp_path: Path) -> None:
    found = read(tmp_path, content(k1=0.1, p2=-0.01, applied_scale=2))
    assert found.file_paths == [f"images/{index}.jpg" for index in range(4)]
    np.testing.assert_array_equal(found.views.camera_to_world, orbit(4)[:, :3])
    assert found.views.fx.tolist() == [110.0] * 4 and found.views.sizes() == [(100, 80)] * 4
    assert found.views.distortion[2].tolist() == [0.1, 0, 0, 0, 0, -0.01]
    assert not found.views.fisheye.any() and found.applied_scale == 2 and found.remarks == []
    assert found.masks["coarse_mask_path"] == [None] * 4 and found.splits == {} and found.applied_transform is None


def test_what_a_frame_says_counts_before_what_stands_on_top(tmp_path: Path) -> None:
    meta = content(k1=0.1, k2=0.02)
    meta["frames"][1] |= {"fl_x": 200.0, "w": 60, "cx": 30.0, "k1": 0.0}
    meta["frames"][2] |= {"camera_model": "OPENCV_FISHEYE", "distortion_params": [0.01, 0.02, 0.03, 0.04]}
    views = read(tmp_path, meta).views
    assert views.fx.tolist() == [110, 200, 110, 110] and views.width.tolist() == [100, 60, 100, 100]
    assert views.cx.tolist() == [51, 30, 51, 51] and views.fisheye.tolist() == [False, False, True, False]
    assert views.distortion[:, 0].tolist() == [0.1, 0.0, 0.01, 0.1]
    assert views.distortion[:, 1].tolist() == [0.02, 0.02, 0.02, 0.02]
    assert views.distortion[2].tolist() == [0.01, 0.02, 0.03, 0.04, 0, 0]


def test_lenses_may_stand_with_the_frames_alone(tmp_path: Path) -> None:
    meta = content()
    lens = {key: meta.pop(key) for key in [*LENS, "camera_model"]}
    for frame in meta["frames"]:
        frame |= lens
    assert read(tmp_path, meta).views.fy.tolist() == [112.0] * 4
    del meta["frames"][3]["cy"]
    assert "'cy' is given neither for the capture nor for images/3.jpg" in refusal(tmp_path, meta)


@pytest.mark.parametrize(
    ("fisheye", "values", "expected"),
    [
        (False, [0.1, 0.2, 0.01, 0.02], [0.1, 0.2, 0, 0, 0.01, 0.02]),
        (False, [0.1, 0.2, 0.01, 0.02, 0.3], [0.1, 0.2, 0.3, 0, 0.01, 0.02]),
        (False, [0.1, 0.2, 0.3, 0.04, 0.01, 0.02], [0.1, 0.2, 0.3, 0.04, 0.01, 0.02]),
        (False, [0.1, 0.2, 0.01, 0.02, 0.3, 0, 0, 0], [0.1, 0.2, 0.3, 0, 0.01, 0.02]),
        (True, [0.1, 0.02, 0.03, 0.04], [0.1, 0.02, 0.03, 0.04, 0, 0]),
        (False, [], [0] * 6),
    ],
)
def test_lists_of_distortion_have_the_order_of_opencv_or_of_nerfstudio(
    tmp_path: Path, fisheye: bool, values: list[float], expected: list[float]
) -> None:
    meta = content(distortion_params=values, camera_model="OPENCV_FISHEYE" if fisheye else "OPENCV")
    assert read(tmp_path, meta).views.distortion[0].tolist() == expected


def test_lists_of_distortion_that_cannot_be_meant(tmp_path: Path) -> None:
    words = "has 3 numbers; expected 4 or 5: k1 k2 p1 p2 k3, the order of OpenCV, or 6: k1 k2 k3 k4 p1 p2"
    assert words in refusal(tmp_path, content(distortion_params=[0.1, 0.2, 0.3]))
    fisheye = content(camera_model="OPENCV_FISHEYE", distortion_params=[0.1, 0.2, 0.3, 0.0, 0.0])
    assert "has 5 numbers; expected 4: k1 k2 k3 k4" in refusal(tmp_path, fisheye)
    rational = content(distortion_params=[0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0, 0])
    assert "rational" in refusal(tmp_path, rational)
    twice = content(distortion_params=[0.1, 0.2, 0.0, 0.0], k1=0.3)
    assert "distortion_params and the key k1 differ (0.1 and 0.3)" in refusal(tmp_path, twice)
    read(tmp_path, content(distortion_params=[0.1, 0.2, 0.0, 0.0], k1=0.1))


def test_fisheyes_have_no_tangential_distortion(tmp_path: Path) -> None:
    meta = content(camera_model="OPENCV_FISHEYE", p1=0.01)
    assert "p1 and p2 of images/0.jpg" in refusal(tmp_path, meta)


def test_kinds_of_lenses(tmp_path: Path) -> None:
    assert read(tmp_path, content(camera_model="opencv_fisheye")).views.fisheye.all()
    meta = content(is_fisheye=True)
    assert "is_fisheye of transforms.json is true, and its camera_model OPENCV" in refusal(tmp_path, meta)
    del meta["camera_model"]
    assert read(tmp_path, meta).views.fisheye.all()
    assert "EQUIRECTANGULAR; expected one of OPENCV, PINHOLE" in refusal(
        tmp_path, content(camera_model="EQUIRECTANGULAR")
    )
    meta = content()
    meta["frames"][1]["camera_model"] = "THIN_PRISM_FISHEYE"
    assert "camera model of images/1.jpg is THIN_PRISM_FISHEYE" in refusal(tmp_path, meta)
    assert "'k5'" in refusal(tmp_path, content(k5=0.1))
    read(tmp_path, content(k5=0.0))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fl_x", "110", "'fl_x' is the text '110'; expected a focal length in pixels"),
        ("fl_x", None, "'fl_x' is null"),
        ("fl_y", True, "'fl_y' is true"),
        ("fl_y", -110, "'fl_y' is -110"),
        ("fl_y", 1.1, "'fl_y' is 1.1; expected a focal length in pixels, at least 2"),
        ("w", 100.5, "'w' is 100.5; expected a whole number of pixels"),
        ("h", 10**400, "'h' is 1000"),
        ("cx", float("nan"), "'cx' is nan"),
        ("k1", float("inf"), "'k1' is inf; expected a number (the distortion is k1 k2 k3 k4 p1 p2"),
        ("k1", None, "'k1' is null; expected a number (the distortion is k1 k2 k3 k4 p1 p2"),
        ("distortion_params", [0.1, None], "'distortion_params'[1] is null"),
        ("distortion_params", 0.1, "'distortion_params' is 0.1"),
        ("camera_model", 3, "'camera_model' is 3"),
        ("train_filenames", ["images/0.jpg", 4], "'train_filenames'[1] is 4"),
        ("train_filenames", "images/0.jpg", "'train_filenames' is the text 'images/0.jpg'; expected a list"),
        ("train_filenames", [], "train_filenames is empty"),
        ("applied_scale", 0, "'applied_scale' is 0; expected a positive number"),
        ("applied_scale", -1.0, "'applied_scale' is -1; expected a positive number"),
        ("applied_transform", [[1, 0], [0, 1]], "applied_transform is not a 3 x 4 matrix"),
        ("applied_transform", [[1, 0, 0, 0]] * 3, "applied_transform changes shapes"),
        ("applied_transform", np.zeros((3, 4)).tolist(), "applied_transform changes shapes"),
        ("ply_file_path", 7, "'ply_file_path' is 7; expected the path of a file"),
        ("orientation_override", "sideways", "'orientation_override' is the text 'sideways'; expected one of pca"),
        ("fisheye_crop_radius", 0, "'fisheye_crop_radius' is 0; expected a positive number of pixels"),
        ("frames", {}, "no list 'frames'"),
        ("frames", [], "lists no frames"),
    ],
)
def test_values_that_do_not_fit_are_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    assert words in refusal(tmp_path, content() | {key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("transform_matrix", "eye", "frame images/2.jpg: 'transform_matrix' is the text 'eye'"),
        ("transform_matrix", [[1, 2, 3, "4"]] * 4, "frame images/2.jpg: 'transform_matrix'[0][3] is the text '4'"),
        ("transform_matrix", [], "transform_matrix of images/2.jpg is not a 4 x 4 matrix"),
        ("file_path", 3, "frame number 2: 'file_path' is 3"),
        ("file_path", "", "frame number 2: 'file_path' is the text ''"),
        ("coarse_mask_path", ["a"], "frame images/2.jpg: 'coarse_mask_path' is a list of 1"),
        ("h", {}, "frame images/2.jpg: 'h' is an object"),
    ],
)
def test_values_of_frames_that_do_not_fit_are_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    meta = content()
    meta["frames"][2][key] = value
    assert words in refusal(tmp_path, meta)


def test_frames_that_lack_something(tmp_path: Path) -> None:
    meta = content()
    del meta["frames"][1]["transform_matrix"]
    assert "frame images/1.jpg: it has no 'transform_matrix'" in refusal(tmp_path, meta)
    meta["frames"][1] = "images/1.jpg"
    assert "frame number 1: it is the text 'images/1.jpg'; expected an object" in refusal(tmp_path, meta)


def test_what_is_no_json(tmp_path: Path) -> None:
    assert "cannot be read as JSON" in refusal(tmp_path, "{")
    assert "cannot be read as JSON" in refusal(tmp_path, "[" * 100_000)
    assert "no list 'frames'" in refusal(tmp_path, "[]")
    assert "the key 'w' stands twice" in refusal(tmp_path, json.dumps(content()).replace('"h": 80', '"w": 80'))
    source = tmp_path / "transforms.json"
    source.write_bytes(json.dumps(content()).encode("utf-16"))
    with pytest.raises(CaptureError, match="cannot be read as JSON"):
        read_transforms(source)
    source.write_bytes(json.dumps(content()).encode("utf-8-sig"))
    assert len(read_transforms(source)) == 4


def test_harmless_differences_are_accepted(tmp_path: Path) -> None:
    meta = content(5, aabb_scale=16, note="a word", k1=0)
    meta["frames"] = [{**frame, "sharpness": 3.2, "mask_path": ""} for frame in reversed(meta["frames"])]
    meta |= {"w": 100.0, "fl_x": 110}
    meta["frames"][0]["transform_matrix"] = meta["frames"][0]["transform_matrix"][:3]
    found = read(tmp_path, meta)
    assert found.file_paths[0] == "images/4.jpg" and found.remarks == []
    np.testing.assert_array_equal(found.views.camera_to_world, orbit(5)[::-1, :3])


def test_keys_that_look_like_known_ones_are_mentioned(tmp_path: Path) -> None:
    meta = content(mask_file="m.png", distortion_parameters=[0.1])
    for frame in meta["frames"]:
        frame |= {"coarse_mask": "a.png", "depth_file_path": "d.png"}
    remarks = " | ".join(read(tmp_path, meta).remarks)
    for words in (
        "'mask_file' on top is not read; did you mean coarse_mask_path",
        "'coarse_mask' in its frames is not read",
        "'distortion_parameters' on top is not read; did you mean distortion_params",
        "depth_file_path of 4 frames: depth is not used here",
    ):
        assert words in remarks


def test_times_are_the_frames_own_or_the_order_of_their_names(tmp_path: Path) -> None:
    meta = content(3)
    for frame, number in zip(meta["frames"], (10, 2, 1), strict=True):
        frame["file_path"] = f"images/frame_{number}.png"
    assert read(tmp_path, meta).frame_times().tolist() == [1.0, 0.5, 0.0]
    for frame, time in zip(meta["frames"], (3.0, 1, 5), strict=True):
        frame["time"] = time
    assert read(tmp_path, meta).frame_times().tolist() == [0.5, 0.0, 1.0]
    for wrong in ("12:30", None, float("nan"), True, 10**400):
        meta["frames"][1]["time"] = wrong
        with pytest.raises(CaptureError, match=r"time is a number for 2 of 3 frames, not for images/frame_2.png"):
            read(tmp_path, meta).frame_times()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    count = 3
    lenses = np.arange(6 * count).reshape(count, 6) * 1e-3
    lenses[1, 4:] = 0
    views = Views(
        orbit(count)[:, :3],
        fx=np.array([110.0, 120, 130]),
        fy=np.full(count, 111.0),
        cx=np.array([50.0, 51, 49]),
        cy=np.full(count, 40.0),
        width=np.array([100, 101, 102]),
        height=np.full(count, 80),
        distortion=lenses,
        fisheye=np.array([False, True, False]),
    )
    written = transforms_content(views, [{"file_path": f"{index}.png"} for index in range(count)])
    assert "camera_model" not in written, "nerfstudio would take it for all frames"
    found = read(tmp_path, written)
    for name, value in vars(views).items():
        np.testing.assert_array_equal(getattr(found.views, name), value, err_msg=name)
    alike = transforms_content(views.subset([0, 0]), [{"file_path": "a.png"}, {"file_path": "b.png"}])
    assert alike["camera_model"] == "OPENCV" and alike["fl_x"] == 110 and "fl_x" not in alike["frames"][0]


def test_the_file_of_a_capture(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nowhere does not exist; expected a capture's folder"):
        capture_source(tmp_path / "nowhere")
    with pytest.raises(
        CaptureError, match=r"transforms.json does not exist, nor a COLMAP model in .*sparse.*: surface-sos process, or"
    ):
        capture_source(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    assert capture_source(tmp_path / "other.json") == tmp_path / "other.json"
