"""transforms.json, mutated: what comes of it is a clear refusal, or cameras that look where the file says.

How many mutations are tried is in SURFACE_SOS_FUZZ (by default few, always the same).
"""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.plugin.cameras import has_good_ray
from surface_sos_ns.plugin.dataparser import SurfaceSOSDataParserConfig
from surface_sos_ns.plugin.tabulated_rays import TabulatedRays
from tests.helpers.poses import orbit

COUNT, WIDTH, HEIGHT = 5, 64, 48
MUTATIONS = int(os.environ.get("SURFACE_SOS_FUZZ", "0"))

LENS = {"fl_x": 70.0, "fl_y": 71.0, "cx": 31.0, "cy": 24.5, "w": WIDTH, "h": HEIGHT}
DISTORTION = {"k1": -0.08, "k2": 0.02, "p1": 0.001, "p2": -0.002}
PLAIN = "perspective", "fisheye", "per frame", "list", "map"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and masks of a capture, without its transforms.json."""
    folder = tmp_path_factory.mktemp("fuzz")
    rng = np.random.default_rng(0)
    for kind, channels in (("images", 3), ("coarse_masks", 1)):
        (folder / kind).mkdir()
        for index in range(COUNT):
            pixels = rng.integers(0, 255, (HEIGHT, WIDTH, channels), dtype=np.uint8)
            if channels == 1:
                pixels = np.zeros_like(pixels)
                pixels[10:38, 20:44] = 255
            Image.fromarray(pixels.squeeze()).save(folder / kind / f"{index}.png")
    return folder


def plain(kind: str) -> dict[str, Any]:
    """A file that is right, of some kind."""
    poses = orbit(COUNT)
    if kind == "map":
        poses[:, :3, 3] += [441548.0, 5121947.0, 2345.0]
    frames: list[dict[str, Any]] = [
        {"file_path": f"images/{index}.png", "transform_matrix": pose.tolist()} for index, pose in enumerate(poses)
    ]
    meta: dict[str, Any] = {"camera_model": "OPENCV", **LENS, **DISTORTION}
    if kind == "fisheye":
        meta = {"camera_model": "OPENCV_FISHEYE", **LENS, "k1": 0.05, "k2": -0.01, "k3": 0.002, "k4": 0.0}
    if kind == "list":
        meta = {**LENS, "distortion_params": [-0.1, 0.02, 0.001, -0.001, 0.003]}
    if kind == "per frame":
        for index, frame in enumerate(frames):
            fisheye = {"camera_model": "OPENCV_FISHEYE", "k1": 0.04, "k2": 0.01}
            frame |= {**LENS, **(fisheye if index % 2 else {"camera_model": "PINHOLE"})}
        meta = {}
    meta["frames"] = frames
    meta["applied_transform"] = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    meta["train_filenames"] = [frame["file_path"] for frame in frames[:4]]
    meta["test_filenames"] = [frame["file_path"] for frame in frames[3:]]
    return meta


# ------------------------------------------------------------------ mutations

VALUES: list[Any] = [
    *(None, True, False, "", "1", "OPENCV", "images/1.png", 0, 1, -1, 3.5, 1e-9, 1e6, 1e38, 1e300, 10**400),
    *(math.nan, math.inf, -math.inf, [], [1], [[]], [None], {}, {"a": 1}, "\u0000", "x" * 5000),
]
KEYS = [
    *(*LENS, *DISTORTION, "k3", "k4", "k5", "camera_model", "is_fisheye", "distortion_params", "file_path", "time"),
    *("transform_matrix", "mask_path", "coarse_mask_path", "gt_mask_path", "gt_parts_path", "clean_plate_path"),
    *("depth_file_path", "part_names", "applied_transform", "applied_scale", "ply_file_path", "train_filenames"),
    *("val_filenames", "test_filenames", "orientation_override", "fisheye_crop_radius", "frames", "coarse_mask"),
    "unheard_of",
]
PATHS = [
    "images\\1.png",
    "./images/1.png",
    "images/../images/1.png",
    "/images/1.png",
    "images",
    "IMAGES/1.PNG",
    "no.png",
]


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """The paths of all values inside a value."""
    if isinstance(value, dict):
        return [here, *(place for key, inner in value.items() for place in places(inner, (*here, key)))]
    if isinstance(value, list):
        return [here, *(place for index, inner in enumerate(value) for place in places(inner, (*here, index)))]
    return [here]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A file with one to three changes, and what they were."""
    meta = copy.deepcopy(plain(draw(st.sampled_from(PLAIN))))
    done = []
    for _ in range(draw(st.integers(1, 3))):
        done.append(change(draw, meta))
    return meta, done


def change(draw: st.DrawFn, meta: dict[str, Any]) -> str:
    place = draw(st.sampled_from(places(meta)[1:]))
    holder: Any = meta
    for step in place[:-1]:
        holder = holder[step]
    step = place[-1]
    value = holder[step]
    kinds = ["replace", "delete", "add", "holder"]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > 1e300:
        kinds += ["scale"] * 3 + ["negate", "nudge", "text"]
    if isinstance(value, list):
        kinds += ["reverse", "repeat", "shorten", "transpose"]
    if isinstance(value, str):
        kinds += ["path", "case"]
    kind = draw(st.sampled_from(kinds))
    if kind == "replace":
        holder[step] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif kind == "delete":
        del holder[step]
    elif kind == "scale":
        holder[step] = value * 10.0 ** draw(st.integers(-12, 12))
    elif kind == "negate":
        holder[step] = -value
    elif kind == "nudge":
        holder[step] = value + draw(st.floats(-2, 2))
    elif kind == "text":
        holder[step] = str(value)
    elif kind == "reverse":
        value.reverse()
    elif kind == "repeat":
        value.extend(copy.deepcopy(value[:1]))
    elif kind == "shorten":
        del value[1:]
    elif kind == "transpose" and value and all(isinstance(row, list) and len(row) == len(value) for row in value):
        holder[step] = [list(row) for row in zip(*value, strict=True)]
    elif kind == "path":
        holder[step] = draw(st.sampled_from(PATHS))
    elif kind == "case":
        holder[step] = value.upper()
    else:
        frames = meta.get("frames")
        pool = [meta, *(one for one in frames if isinstance(one, dict))] if isinstance(frames, list) else [meta]
        key = draw(st.sampled_from(KEYS))
        number = st.floats(-3, 200) | st.integers(-3, 200)
        new = draw(number | st.sampled_from(VALUES) | st.lists(st.floats(-0.2, 0.2), max_size=14))
        draw(st.sampled_from(pool))[key] = copy.deepcopy(new)
        return f"{kind}: {key}={str(new)[:40]}"
    return f"{kind}: {place}"


# ------------------------------------------------------------------ what the file says


def lens_of(meta: dict[str, Any], frame: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, bool]:
    """K (3, 3), k1 k2 k3 k4 p1 p2 and whether it is a fisheye, read off the file without any code of the package."""

    def of(key: str, default: Any = None) -> Any:
        return frame[key] if key in frame else meta.get(key, default)

    matrix = np.array([[of("fl_x"), 0, of("cx")], [0, of("fl_y"), of("cy")], [0, 0, 1]], dtype=np.float64)
    kinds = [
        holder["camera_model"].upper() == "OPENCV_FISHEYE" if "camera_model" in holder else holder.get("is_fisheye")
        for holder in (frame, meta)
    ]
    fisheye = bool(next((kind for kind in kinds if kind is not None), False))
    names = ("k1", "k2", "k3", "k4", "p1", "p2")
    found = dict.fromkeys(names, 0.0)
    for holder in (meta, frame):
        values = holder.get("distortion_params")
        if values is not None:
            order: tuple[str, ...] = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
            found |= dict(zip(names if len(values) == 6 else order, values, strict=False))
        found |= {name: holder[name] for name in names if name in holder}
    return matrix, np.array([found[name] for name in names], dtype=np.float64), fisheye


def projected(points: np.ndarray, pose: np.ndarray, matrix: np.ndarray, k: np.ndarray, fisheye: bool) -> np.ndarray:
    """(P, 2) pixels of points (P, 3), frame of the file, by OpenCV where it knows the lens."""
    rotation = scipy.linalg.polar(pose[:3, :3])[0]  # what is a rotation but for a few digits
    local = (points - pose[:3, 3]) @ rotation * [1, -1, -1]
    still = np.zeros(3)
    if fisheye and (local[:, 2] > 0).all():  # OpenCV takes what is behind the camera for what is before it
        return cv2.fisheye.projectPoints(local[:, None], still, still, matrix, k[:4])[0][:, 0]
    if fisheye:
        across = np.hypot(local[:, 0], local[:, 1])
        angle = np.arctan2(across, local[:, 2])
        bent = angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
        return local[:, :2] * (bent / across)[:, None] * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
    if k[3] == 0:
        return cv2.projectPoints(local[:, None], still, still, matrix, k[[0, 1, 4, 5, 2]])[0][:, 0]
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    r = x * x + y * y
    radial = 1 + k[0] * r + k[1] * r**2 + k[2] * r**3 + k[3] * r**4
    u = x * radial + 2 * k[4] * x * y + k[5] * (r + 2 * x * x)
    v = y * radial + k[4] * (r + 2 * y * y) + 2 * k[5] * x * y
    return np.stack([u, v], -1) * matrix[[0, 1], [0, 1]] + matrix[:2, 2]


def check_cameras(meta: dict[str, Any], outputs: Any, parser: Any) -> None:
    """Each training ray, followed and projected by what the file says, comes back to its pixel."""
    cameras = outputs.cameras
    for values in (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.distortion_params):
        assert bool(torch.isfinite(values).all())
    back = np.linalg.inv(outputs.metadata["capture_to_world"])
    generator = TabulatedRays(cameras)
    by_name = {str(outputs.image_filenames[index]): index for index in range(len(cameras))}
    rng = np.random.default_rng(1)
    for place, frame in enumerate(meta["frames"]):
        path = str(parser.capture.folder / frame["file_path"])
        if path not in by_name:
            continue
        view = by_name[path]
        width, height = int(cameras.width[view]), int(cameras.height[view])
        pixels = np.stack([rng.integers(0, width, 12), rng.integers(0, height, 12)], -1)
        pixels = pixels[parser.capture.views.has_ray(place, pixels + 0.5)]
        drawn = has_good_ray(cameras, view, pixels + 0.5)  # training leaves out where nerfstudio cannot undistort
        assert (~drawn).sum() <= 3
        pixels = pixels[drawn]
        rows = torch.tensor([[view, y, x] for x, y in pixels.tolist()]).reshape(-1, 3)
        rays = generator(rows)
        world = (rays.origins + 0.5 * rays.directions).double().numpy()
        points = world @ back[:3, :3].T + back[:3, 3]
        pose = np.array(frame["transform_matrix"], dtype=np.float64)
        uv = projected(points, pose, *lens_of(meta, frame))
        np.testing.assert_allclose(uv, pixels + 0.5, atol=0.3, err_msg=str(frame["file_path"]))


def try_one(folder: Path, meta: dict[str, Any]) -> bool:
    """Whether a file is accepted; asserts that it is accepted rightly, or refused with a sentence."""
    (folder / "transforms.json").write_text(json.dumps(meta))
    parser = SurfaceSOSDataParserConfig(data=folder).setup()
    try:
        outputs = parser.get_dataparser_outputs("train")
        parser.get_dataparser_outputs("test")
    except CaptureError as error:
        words = str(error)
        assert "\n" not in words and ("transforms.json" in words or str(folder) in words), words
        return False
    check_cameras(meta, outputs, parser)
    return True


def test_lenses_that_nerfstudio_undistorts_nearly_everywhere_are_mentioned_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = plain("perspective")
    for index, frame in enumerate(meta["frames"]):
        frame["p2"] = 0.2 + 1e-4 * index  # each photo has a lens of its own
    assert try_one(folder, meta)
    assert capsys.readouterr().out.count("distorts too strongly for nerfstudio in") == 1


def try_many(folder: Path, count: int) -> None:
    """Files that are mutated in so many ways, always the same unless a number of them was asked for."""
    accepted: set[bool] = set()

    @settings(
        max_examples=MUTATIONS or count,
        derandomize=not MUTATIONS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(file=mutated())
    def try_them(file: tuple[dict[str, Any], list[str]]) -> None:
        accepted.add(try_one(folder, file[0]))

    try_them()
    assert accepted == {True, False}, "some are refused and some are read"


@pytest.mark.seconds(8)
def test_mutated_files_are_refused_or_read_as_they_stand(folder: Path) -> None:
    try_many(folder, 100)


@pytest.mark.slow
@pytest.mark.seconds(60)
def test_many_mutated_files_are_refused_or_read_as_they_stand(folder: Path) -> None:
    try_many(folder, 750)


@pytest.mark.parametrize("kind", PLAIN)
def test_files_that_are_right_are_accepted(folder: Path, kind: str) -> None:
    assert try_one(folder, plain(kind))


@pytest.mark.parametrize("kind", PLAIN)
def test_harmless_changes_are_accepted(folder: Path, kind: str) -> None:
    meta = plain(kind)
    meta["frames"].reverse()
    for index, frame in enumerate(meta["frames"]):
        frame |= {"note": [1, None], "sharpness": 12.5}
        if index % 2:
            path = str(folder / frame["file_path"])
            for split in ("train_filenames", "test_filenames"):
                meta[split] = [path if name == frame["file_path"] else name for name in meta[split]]
            frame["file_path"] = path
        if index == 2:
            frame["transform_matrix"] = frame["transform_matrix"][:3]
    meta = dict(reversed(meta.items())) | {"aabb_scale": 4, "comment": "x"}
    for holder in (meta, *meta["frames"]):
        for key in ("w", "h"):
            if key in holder:
                holder[key] = float(holder[key])
    assert try_one(folder, meta)
