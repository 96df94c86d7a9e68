"""A scene before a room that stands still before the camera."""

from __future__ import annotations

import torch

from surface_sos_ns.models.surface_sos.adaptation import Adaptation
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from tests.helpers.small_scene import TINY, start

WITH_ROOM = Adaptation(room=(8, 6))


def scene_before_a_room(steps: int = 5) -> SurfaceSOS:
    """A ball in empty space, before a picture of noise; the second training view is turned by 90 degrees."""
    scene = start(WITH_ROOM.applied(TINY), steps=steps).eval()
    scene.set_progress(1.0)
    scene.background.field.bias = -20.0  # type: ignore[union-attr]
    scene.cache.density.zero_()
    scene.update_cache()
    assert scene.room is not None
    axes = torch.eye(3).repeat(len(scene.room.axes), 1, 1)
    axes[1] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    known = torch.ones(6, 8)
    known[:, :4] = 0.0
    scene.room.take(torch.rand(6, 8, 3), known, torch.tensor([-1.0, 1.0, -0.8, 0.8]), axes)
    return scene
