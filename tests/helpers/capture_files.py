"""Captures written to disk: one of grey photos, and one of a ball."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from PIL import Image

from surface_sos_ns.plugin.datamanager import SurfaceSOSDataManager, SurfaceSOSDataManagerConfig
from tests.helpers.poses import orbit_pose

CENTRE, RADIUS = np.array([0.5, -0.2, 0.0]), 0.6
"""Of the ball."""


@dataclass
class Capture:
    """A capture on disk; the photo and masks of view i have the grey value ``10 + 5 i``."""

    folder: Path
    count: int = 12
    size: tuple[int, int] = (32, 24)
    suffix: str = ".png"
    meta: dict = field(default_factory=dict)
    frames: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        width, height = self.size
        self.folder.mkdir(parents=True, exist_ok=True)
        self.meta = {
            "camera_model": "OPENCV",
            "fl_x": 1.1 * width,
            "fl_y": 1.1 * width,
            "cx": width / 2,
            "cy": height / 2,
            "w": width,
            "h": height,
            "k1": 0.0,
            "k2": 0.0,
            "p1": 0.0,
            "p2": 0.0,
        }
        for index in range(self.count):
            pose = orbit_pose(2 * np.pi * index / self.count)
            self.frames.append(
                {"file_path": f"images/{self.stem(index)}{self.suffix}", "transform_matrix": pose.tolist()}
            )
            self.write("images", index, self.suffix, colour=True)

    @staticmethod
    def stem(index: int) -> str:
        return f"frame_{index:03d}"

    @staticmethod
    def value(index: int) -> int:
        return 10 + 5 * index

    def write(self, folder: str, index: int, suffix: str = ".png", colour: bool = False) -> Path:
        path = self.folder / folder / f"{self.stem(index)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (self.size[1], self.size[0], 3) if colour else (self.size[1], self.size[0])
        Image.fromarray(np.full(shape, self.value(index), np.uint8)).save(path)
        return path

    def add_masks(self, key: str, folder: str, indices: Sequence[int] | None = None, keyed: bool = True) -> None:
        for index in range(self.count) if indices is None else indices:
            path = self.write(folder, index)
            if keyed:
                self.frames[index][key] = path.relative_to(self.folder).as_posix()

    def save(self, shuffled: bool = True) -> Path:
        frames = list(self.frames)
        if shuffled:
            np.random.default_rng(0).shuffle(frames)  # type: ignore[arg-type]
        (self.folder / "transforms.json").write_text(json.dumps({**self.meta, "frames": frames}))
        return self.folder


def ball_mask(pose: np.ndarray, size: tuple[int, int], focal: float) -> np.ndarray:
    """(H, W) bool: pixels whose rays meet the ball, for a pinhole camera with its principal point in the middle."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    local = np.stack([(columns - size[0] / 2) / focal, -(rows - size[1] / 2) / focal, -np.ones_like(rows)], axis=-1)
    rays = local @ pose[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    offset = CENTRE - pose[:3, 3]
    return np.linalg.norm(offset - (rays @ offset)[..., None] * rays, axis=-1) < RADIUS


def ball_capture(folder: Path, count: int = 12, size: tuple[int, int] = (64, 48), masks: bool = True) -> Capture:
    """Photos of noise with a bright ball, its coarse masks, its true masks for the last two views, and a split."""
    capture = Capture(folder, count=count, size=size)
    noise = np.random.default_rng(0)
    for index in range(count):
        truth = ball_mask(orbit_pose(2 * np.pi * index / count), size, capture.meta["fl_x"])
        photo = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        photo[truth] //= 4
        Image.fromarray(photo).save(folder / "images" / f"{capture.stem(index)}.png")
        if masks:
            soft = np.where(truth, noise.integers(180, 256, truth.shape), noise.integers(0, 60, truth.shape))
            path = capture.write("coarse_masks", index)
            Image.fromarray(soft.astype(np.uint8)).save(path)
            capture.frames[index]["coarse_mask_path"] = f"coarse_masks/{path.name}"
        path = capture.write("gt_masks", index)
        Image.fromarray(truth.astype(np.uint8) * 255).save(path)
        capture.frames[index]["gt_mask_path"] = f"gt_masks/{path.name}"
    capture.meta["test_filenames"] = [f"images/{capture.stem(i)}.png" for i in (count - 2, count - 1)]
    return capture


def manager(folder: Path, **options) -> SurfaceSOSDataManager:
    test_mode, device = options.pop("test_mode", "val"), options.pop("device", "cpu")
    config = SurfaceSOSDataManagerConfig(data=folder, **{"train_num_rays_per_batch": 512, **options})
    result = config.setup(device=device, test_mode=test_mode)
    assert isinstance(result, SurfaceSOSDataManager) and isinstance(result, VanillaDataManager)
    return result


def keep_half_of_the_training_photos(folder: Path) -> None:
    """Every second one, in a capture that names its splits: for what takes its time for each photo."""
    source = folder / "transforms.json"
    meta = json.loads(source.read_text())
    train = meta["train_filenames"][1::2]
    frames = [frame for frame in meta["frames"] if frame["file_path"] in {*train, *meta["test_filenames"]}]
    source.write_text(json.dumps({**meta, "train_filenames": train, "frames": frames}))
