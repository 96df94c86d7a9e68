"""A run without a network: a ball before a striped wall, every picture of it computed. Also a command, see `main`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import trimesh
from nerfstudio.cameras.cameras import Cameras, CameraType

from surface_sos_ns.api import Run, View
from surface_sos_ns.cli.export import Export
from surface_sos_ns.export.writer import write_export
from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.plugin.part_results import PartFacts, read_parts, save_parts
from surface_sos_ns.texture.atlas import unwrapped
from surface_sos_ns.texture.bake import textured
from surface_sos_ns.utils.identity_colours import identity_colours
from tests.helpers.poses import look_at

CENTRE, RADIUS = np.array([0.3, -0.2, 0.5]), 0.6  # of the ball, frame of the capture
COLOUR = np.array([0.9, 0.3, 0.1])
WIDTH, HEIGHT, FOCAL = 61, 45, 55.0  # odd on purpose
K1, K2 = -0.12, 0.03
NAMES = ("images/left/0001.png", "images/left/0002.png", "images/right/0001.png", "images/right/0002.png")
HELD_OUT = NAMES[3]
# From transforms.json's frame to nerfstudio's: turned by 90 degrees about z, made smaller, moved.
TO_WORLD = np.array([[0, -0.4, 0, 0.1], [0.4, 0, 0, -0.3], [0, 0, 0.4, 0.2], [0, 0, 0, 1.0]])


def poses() -> list[np.ndarray]:
    """The cameras of the photos, frame of the capture."""
    angles = (0.2, 1.1, 2.4, 4.0)
    eyes = [CENTRE + np.array([2.5 * np.cos(a), 2.5 * np.sin(a), 0.7]) for a in angles]
    return [look_at(eye, CENTRE + np.array([0.2, 0.1, 0])) for eye in eyes]


def wall(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) stripes that go with the pixel (..., 2), not with space."""
    wave = np.sin(pixels[..., 0] * 0.9 + pixels[..., 1] * 0.4)
    return 0.5 + 0.35 * np.stack([-wave, wave, wave], axis=-1)


class BallRun(Run):
    """All of a run but its network.

    Attributes:
        asked: the outputs that each rendering was asked for.
        delay: seconds that a rendering takes.
    """

    asked: list[list[str]]
    delay: float = 0.0
    light_changes = False  # type: ignore[assignment]
    outputs = ("alpha", "foreground", "background", "background_confidence", "shadow", "rgb")  # type: ignore[assignment]

    def render(self, camera: Any, outputs: Iterable[str] = ("rgb",)) -> dict[str, np.ndarray]:
        time.sleep(self.delay)
        names = list(outputs)
        self.asked.append(names)
        one = self._one(camera)
        alpha = true_alpha(one)[..., None]
        y, x = np.mgrid[: alpha.shape[0], : alpha.shape[1]]
        behind = wall(np.stack([x, y], axis=-1))
        images = {
            "alpha": alpha,
            "foreground": alpha * COLOUR,
            "background": behind,
            "background_confidence": 0.25 + 0.5 * alpha,
            "shadow": np.zeros_like(alpha),
            "rgb": alpha * COLOUR + (1 - alpha) * behind,
        } | {f"part_ids_{result.parts}": true_parts(one, result.parts)[..., None] for result in self.part_results}
        return {name: images[name].astype(np.float32) for name in names}

    def textured_mesh(
        self, object: str | None = None, resolution: int = 192, faces: int = 50_000, size: int | None = None
    ) -> trimesh.Trimesh:
        ball, size = self.mesh(object), size or 64
        texture = np.full((size, size, 3), np.rint(COLOUR * 255), np.uint8)
        return textured(ball, unwrapped(ball, size), texture)

    def mesh(
        self,
        object: str | int | None = None,
        resolution: int = 192,
        parts: bool | int = False,
        faces: int | None = None,
    ) -> trimesh.Trimesh:
        ball = trimesh.creation.icosphere(subdivisions=2, radius=RADIUS)
        ball.apply_translation(CENTRE)
        ball.visual.vertex_colors = np.rint(np.append(COLOUR, 1) * 255).astype(np.uint8)
        if parts:
            count = self.part_result(None if parts is True else parts).parts
            ball.vertex_attributes["part"] = bands(ball.vertices, count).astype(np.uint8)
            colours = np.rint(identity_colours(count) * 255).astype(np.uint8)
            ball.visual.vertex_colors = colours[bands(ball.vertices, count) - 1]
        return ball


def bands(points: np.ndarray, parts: int) -> np.ndarray:
    """(...,) the part of points (..., 3) of the ball, frame of the capture: bands of one height, 1 at the bottom."""
    height = (points[..., 2] - CENTRE[2]) / (2 * RADIUS) + 0.5
    return 1 + np.clip(np.floor(height * parts), 0, parts - 1).astype(int)


def give_parts(run: BallRun, folder: Path, parts: int) -> None:
    """The bands of the ball as the run's latest result, kept in a folder."""
    others = run.part_results
    facts = PartFacts("step-1.ckpt", "guesses", 0, (1 / parts,) * parts, (1,) * parts, len(others) + 1)
    file = save_parts(folder, PartHead(parts, TORCH), facts)
    latest: Any = run.model
    latest.part_results = [read_parts(file, TORCH), *(result for result in others if result.parts != parts)]
    run.outputs = tuple(dict.fromkeys([*run.outputs, f"part_ids_{parts}"]))  # type: ignore[misc]


def true_parts(camera: Cameras, parts: int) -> np.ndarray:
    """(H, W) the band of the ball that each pixel's middle sees, 0 for none."""
    origin, directions, middle, missed = _towards_ball(*_numbers(camera), 1)
    near = middle - np.sqrt(np.maximum((RADIUS * 0.4) ** 2 - missed, 0))
    points = np.linalg.inv(TO_WORLD)[:3, :3] @ (origin + near[..., None] * directions - TO_WORLD[:3, 3])[..., None]
    return np.where((middle > 0) & (missed < (RADIUS * 0.4) ** 2), bands(points[..., 0], parts), 0)


def true_alpha(camera: Cameras) -> np.ndarray:
    """(H, W) how much of each pixel of a camera (1,), world frame, is the ball. Not to be written to."""
    return _true_alpha(*_numbers(camera))


def _numbers(camera: Cameras) -> tuple[Any, ...]:
    """Size, projection, lens and pose of a camera (1,), world frame."""
    lens = (0.0, 0.0) if camera.distortion_params is None else camera.distortion_params[0, :2].tolist()
    projection = (float(number[0]) for number in (camera.fx, camera.fy, camera.cx, camera.cy))
    pose = camera.camera_to_worlds[0].double().flatten().tolist()
    return (int(camera.height[0]), int(camera.width[0]), *projection, *lens, tuple(pose))


@cache
def _true_alpha(*numbers: Any, parts: int = 5) -> np.ndarray:
    """From parts x parts rays a pixel; remembered, since every test asks for the same few cameras."""
    _, _, middle, missed = _towards_ball(*numbers, parts)
    hit = (middle > 0) & (missed < (RADIUS * 0.4) ** 2)
    alpha: np.ndarray = hit.reshape(numbers[0], parts, numbers[1], parts).mean(axis=(1, 3))
    alpha.flags.writeable = False
    return alpha


def _towards_ball(
    height: int,
    width: int,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    k1: float,
    k2: float,
    numbers: tuple[float, ...],
    parts: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Parts x parts rays a pixel: origin, directions, distance to where each is nearest to the ball's centre, and the
    squared distance from the centre there; world frame."""
    steps = (np.arange(parts) + 0.5) / parts
    rows, columns = (np.arange(height)[:, None] + steps).ravel(), (np.arange(width)[:, None] + steps).ravel()
    y, x = np.meshgrid(rows, columns, indexing="ij")
    target = np.stack([(x - cx) / fx, (y - cy) / fy], -1)
    seen = target.copy()
    for _ in range(60):  # fixed point: no code of the package
        squared = (seen**2).sum(-1, keepdims=True)
        seen = target / (1 + k1 * squared + k2 * squared**2)
    local = np.concatenate([seen * [1, -1], -np.ones_like(seen[..., :1])], axis=-1)
    pose = np.reshape(numbers, (3, 4))
    direction = local @ pose[:, :3].T
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    centre = TO_WORLD[:3, :3] @ CENTRE + TO_WORLD[:3, 3] - pose[:, 3]
    middle = direction @ centre
    return pose[:, 3], direction, middle, (centre @ centre) - middle**2


def open_ball(folder: Path) -> BallRun:
    """The run, with its capture in a folder, which is made if it is not there."""
    scale = 0.4
    cameras = []
    for pose in poses():
        world = np.concatenate([TO_WORLD[:3, :3] / scale @ pose[:3, :3], (TO_WORLD @ pose[:, 3])[:3, None]], axis=1)
        cameras.append(
            Cameras(
                camera_to_worlds=torch.tensor(world, dtype=torch.float32)[None],
                fx=FOCAL,
                fy=FOCAL,
                cx=WIDTH / 2,
                cy=HEIGHT / 2,
                width=WIDTH,
                height=HEIGHT,
                distortion_params=torch.tensor([[K1, K2, 0, 0, 0, 0]]),
                camera_type=CameraType.PERSPECTIVE,
            )
        )
    views = tuple(
        View(index, name, folder / name, name == HELD_OUT, camera)
        for index, (name, camera) in enumerate(zip(NAMES, cameras, strict=True))
    )
    model: Any = SimpleNamespace(as_trained=lambda camera: camera, device="cpu", part_results=[], object_names=())
    files = (folder / "config.yml", folder / "step-1.ckpt")
    data: Any = SimpleNamespace()
    run = BallRun(*files, model, data, folder / "transforms.json", views, 1, TO_WORLD)
    run.asked = []
    if not run.source.exists():
        lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
        frames = [
            {"file_path": name, "transform_matrix": pose.tolist()} for name, pose in zip(NAMES, poses(), strict=True)
        ]
        for view in views:
            view.path.parent.mkdir(parents=True, exist_ok=True)
            photo = run.render(view, ["rgb"])["rgb"]
            cv2.imwrite(str(view.path), np.rint(photo[..., ::-1] * 255).astype(np.uint8))
        run.asked = []
        meta = {"camera_model": "OPENCV", **lens, "k1": K1, "k2": K2, "p1": 0.0, "p2": 0.0, "frames": frames}
        run.source.write_text(json.dumps(meta))
    return run


def settings(output: Path, *what: Any, **options: Any) -> Export:
    """Settings of an export; of `what` is in it, all masks if nothing is said."""
    return replace(Export(Path("config.yml"), output), **({"what": what} if what else {}), **options)


def main(capture: str, output: str, delay: str) -> None:
    """Exports masks, mattes and cut-outs, slowly."""
    run = open_ball(Path(capture))
    run.delay = float(delay)
    write_export(run, settings(Path(output)))


if __name__ == "__main__":
    main(*sys.argv[1:])
