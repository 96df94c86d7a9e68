"""A run of several objects without a network: the ball of `ball_run`, cut into slices that are the objects."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from surface_sos_ns.models.surface_sos.mesh import MeshError
from tests.helpers.ball_run import (
    CENTRE,
    COLOUR,
    RADIUS,
    TO_WORLD,
    BallRun,
    _numbers,
    _towards_ball,
    bands,
    open_ball,
    wall,
)

OBJECTS = ("pot", "lid", "knob")
"""From the bottom to the top."""


class SlicedBallRun(BallRun):
    """All of a run of several objects but its network. What a removed one hides is taken to be wall.

    Attributes:
        removed: the names that each plate was asked to be without.
        lost: names of objects that have no surface.
    """

    removed: list[tuple[str, ...]]
    lost: tuple[str, ...] = ()

    def render(self, camera: Any, outputs: Iterable[str] = ("rgb",)) -> dict[str, np.ndarray]:
        names = list(outputs)
        known = {"object_ids"} | {f"{kind}_{name}" for kind in ("alpha", "mask", "foreground") for name in OBJECTS}
        parts = {result.identities: result for result in self.part_results}
        images = super().render(camera, [name for name in names if name not in known | set(parts)])
        self.asked[-1] = names
        one = self._one(camera)
        shares = true_shares(one)
        found = (shares.argmax(-1) + 1) * (shares.sum(-1) > 0.5)
        for index, name in enumerate(OBJECTS):
            alpha = shares[..., index : index + 1]
            images |= {f"alpha_{name}": alpha, f"foreground_{name}": alpha * COLOUR}
            images[f"mask_{name}"] = np.repeat(found[..., None] == index + 1, 3, axis=-1)
        images["object_ids"] = found[..., None]
        for output, result in parts.items():
            images[output] = (
                halves(one)[..., None] * (found == self.objects.index(str(result.facts.object)) + 1)[..., None]
            )
        return {name: images[name].astype(np.float32) for name in names}

    def images_without(self, camera: Any, objects: str | Iterable[str] = ()) -> dict[str, np.ndarray]:
        removed = self.check_objects([objects] if isinstance(objects, str) else objects) or self.objects
        self.removed.append(removed)
        shares = true_shares(self._one(camera))
        kept = sum(shares[..., self.objects.index(name)] for name in self.objects if name not in removed)
        alpha = (np.zeros(shares.shape[:2]) + kept)[..., None]
        y, x = np.mgrid[: alpha.shape[0], : alpha.shape[1]]
        picture = alpha * COLOUR + (1 - alpha) * wall(np.stack([x, y], axis=-1))
        images = {"background": picture, "background_confidence": 0.5 + 0.5 * alpha, "shadow": np.zeros_like(alpha)}
        return {name: image.astype(np.float32) for name, image in images.items()}

    def mesh(
        self,
        object: str | int | None = None,
        resolution: int = 192,
        parts: bool | int = False,
        faces: int | None = None,
    ) -> trimesh.Trimesh:
        if object in self.lost:
            raise MeshError("no point of the object sphere lies inside the object: there is no surface")
        ball = super().mesh()
        own = bands(ball.triangles_center, len(OBJECTS)) == self.objects.index(str(object)) + 1
        ball.update_faces(own)
        ball.remove_unreferenced_vertices()
        if parts:
            ball.vertex_attributes["part"] = (1 + (ball.vertices[:, 0] > CENTRE[0])).astype(np.uint8)
        return ball


def true_shares(camera: Any) -> np.ndarray:
    """(H, W, K) how much of each pixel of a camera (1,), world frame, is each object."""
    return _true_shares(*_numbers(camera))


@cache
def _true_shares(*numbers: Any, steps: int = 5) -> np.ndarray:
    hit, points = _seen(numbers, steps)
    found = np.where(hit, bands(points, len(OBJECTS)), 0)
    each = [
        (found == identity).reshape(numbers[0], steps, numbers[1], steps).mean(axis=(1, 3))
        for identity in range(1, len(OBJECTS) + 1)
    ]
    return np.stack(each, axis=-1)


def halves(camera: Any) -> np.ndarray:
    """(H, W) the part of any object that each pixel's middle sees: 1 at lower x, 2 at higher, 0 for none."""
    hit, points = _seen(_numbers(camera), 1)
    return np.where(hit, 1 + (points[..., 0] > CENTRE[0]), 0)


def _seen(numbers: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rays meet the ball, and where: frame of the capture."""
    origin, directions, middle, missed = _towards_ball(*numbers, steps)
    hit = (middle > 0) & (missed < (RADIUS * 0.4) ** 2)
    near = middle - np.sqrt(np.maximum((RADIUS * 0.4) ** 2 - missed, 0))
    points = np.linalg.inv(TO_WORLD)[:3, :3] @ (origin + near[..., None] * directions - TO_WORLD[:3, 3])[..., None]
    return hit, points[..., 0]


def open_sliced_ball(folder: Path) -> SlicedBallRun:
    """The run, with its capture in a folder, which is made if it is not there."""
    ball = open_ball(folder)
    model: Any = ball.model
    model.object_names = OBJECTS
    run = SlicedBallRun(
        ball.config, ball.checkpoint, model, ball.data, ball.source, ball.views, ball.factor, ball.capture_to_world
    )
    run.asked, run.removed = [], []
    several = [f"{kind}_{name}" for kind in ("alpha", "mask", "foreground") for name in OBJECTS]
    run.outputs = (*run.outputs, "object_ids", *several)  # type: ignore[misc]
    return run
