"""A run with a small model of several objects: a ball in slices along x, started from their hulls and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox

from surface_sos_ns.api import Run, View
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig
from tests.helpers.ball_views import ring
from tests.helpers.small_scene import TINY, start

NAMES = ("left", "middle", "right")
CENTRE, RADIUS = np.array([1.0, 2.0, 3.0]), 1.0
"""Of the ball, world frame."""
WIDTH, HEIGHT, FOCAL = 60, 46, 90.0
TO_WORLD = np.array([[0.5, 0, 0, 1.0], [0, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1.0]])
"""From the capture's frame."""


def sliced_model(names: Sequence[str] = NAMES) -> SurfaceSOSModel:
    """The model, in evaluation; with no names, of the whole ball."""
    config = SurfaceSOSModelConfig(scene=TINY, eval_num_rays_per_chunk=4096)
    model: SurfaceSOSModel = config.setup(
        scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=3, metadata={"object_names": names}
    )
    model.scene = start(TINY, objects=names)
    model.scene.set_progress(1.0)
    model.scene.update_cache()
    return model.eval()


def sliced_run(folder: Path, names: Sequence[str] = NAMES) -> Run:
    """The run, with 4 photos of noise around the ball, the last of them held out."""
    ring_of = ring(4, CENTRE, distance=5.0)
    views = []
    for index in range(4):
        path = folder / "images" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 2.0))
        pose = torch.tensor(ring_of.camera_to_world[index], dtype=torch.float32)[None]
        camera = Cameras(pose, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
        views.append(View(index, f"images/{index:02}.png", path, index == 3, camera))
    files = folder / "config.yml", folder / "step-1.ckpt"
    data: Any = SimpleNamespace()
    return Run(*files, sliced_model(names), data, folder / "transforms.json", tuple(views), 1, TO_WORLD)
