"""A run takes the room for a picture where it stands still before the camera, and shows it in every view."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import SceneBox

from surface_sos_ns.capture.room import StandingRoom
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.view_rendering import ROOM
from tests.helpers.poses import look_at
from tests.helpers.scene_before_a_room import scene_before_a_room
from tests.helpers.small_scene import TINY
from tests.plugin.test_changing_light import pipeline


def camera_at(angle: float, distance: float = 6.0) -> Cameras:
    """20 x 15 pixels, looking at the ball."""
    ball = np.array([1.0, 2.0, 3.0])
    eye = ball + distance * np.array([np.cos(angle), np.sin(angle), 0.2])
    pose = torch.tensor(look_at(eye, ball)[None, :3], dtype=torch.float32)
    return Cameras(pose, 14.0, 14.0, 10.0, 7.5, 20, 15, camera_type=CameraType.PERSPECTIVE)


@pytest.fixture(scope="module")
def model() -> Any:
    config = SurfaceSOSModelConfig(scene=TINY)
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    found: Any = config.setup(scene_box=box, num_train_data=4, metadata={})
    found.scene = scene_before_a_room(300)
    return found.eval()


def test_the_room_goes_along_with_the_camera(model: Any) -> None:
    pictures = [model.images(camera_at(angle), ["background", "rgb", "alpha"]) for angle in (0.0, 1.3, 4.0)]
    y, x = torch.meshgrid(torch.arange(15) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    directions = torch.stack([(x - 10) / 14, (7.5 - y) / 14, -torch.ones_like(x)], -1).reshape(-1, 3)
    with torch.no_grad():
        expected = model.scene.room(directions).reshape(15, 20, 3)
    known = model.scene.room.confidence(directions).reshape(15, 20) > 0.99
    for found in pictures:
        free = known & (found["alpha"][..., 0] < 1e-3)
        assert free.sum() > 50
        torch.testing.assert_close(found["background"][free], expected[free], atol=5e-3, rtol=0)
        torch.testing.assert_close(found["rgb"][free], expected[free], atol=2e-2, rtol=0)


def test_nerfstudios_own_commands_get_it_too(model: Any) -> None:
    camera = camera_at(0.7)
    theirs = model.get_outputs_for_camera(camera)["rgb"]
    torch.testing.assert_close(theirs, model.images(camera, ["rgb"])["rgb"], atol=1e-4, rtol=0)
    rays = model.rays_of(camera)
    assert rays.metadata[ROOM].shape == (15, 20, 3)
    torch.testing.assert_close(rays.metadata[ROOM].norm(dim=-1), torch.ones(15, 20))


def test_outlines_are_smooth_before_it(model: Any) -> None:
    camera = camera_at(0.7, 3.0)
    smooth, plain = (model.images(camera, ["rgb", "alpha"], smooth_edges=each) for each in (True, False))
    edge = (smooth["alpha"] - plain["alpha"]).abs()[..., 0] > 1e-3
    assert edge.sum() > 3
    assert torch.isfinite(smooth["rgb"]).all() and smooth["rgb"][edge].min() > 0.02, "the room is behind sub-pixels too"


def standing() -> StandingRoom:
    return StandingRoom(0.8, np.full((6, 8, 3), 0.5, np.float32), np.ones((6, 8), np.float32), np.array([-1, 1, -1, 1]))


@pytest.mark.parametrize(
    ("option", "stands", "expected"), [("auto", True, (8, 6)), ("auto", False, None), ("space", True, None)]
)
def test_it_is_learned_where_photos_show_it(option: str, stands: bool, expected: Any, capsys) -> None:
    found = pipeline(residual=0.0)
    found.model.config.room = option  # type: ignore[assignment]
    manager: Any = found.datamanager
    assert isinstance(manager, SimpleNamespace)
    manager.room = lambda folder: standing() if stands else None
    found.adapt(Path())
    assert found.model.scene.config.room == expected
    assert ("behind a turntable" in capsys.readouterr().out) == (expected is not None)
