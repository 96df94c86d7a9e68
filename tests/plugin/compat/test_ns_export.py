"""nerfstudio's TSDF of an object that is seen from one side alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.exporter.tsdf_utils import TSDF

from surface_sos_ns.plugin.compat.ns_export import fill_unseen_space
from surface_sos_ns.plugin.compat.patching import unpatched

CENTRE, RADIUS = torch.tensor([0.2, -0.1, 0.3]), 0.5  # of the object sphere; the ball has half of its size


def half_seen(size: int = 40) -> TSDF:
    """A volume about the ball in which cameras at x -> -infinity have seen what is before it, and beside it."""
    box = torch.stack([CENTRE - RADIUS, CENTRE + RADIUS])
    volume = TSDF.from_aabb(box, torch.tensor([size, size, size]))
    points = volume.voxel_coords.movedim(0, -1) - CENTRE
    beside = points[..., 1:].norm(dim=-1)
    front = -(0.25**2 - beside.square()).clamp(min=0).sqrt()  # where the ball begins along x
    distance = torch.where(beside < 0.25, front - points[..., 0], torch.ones(()))
    # A camera sees no further than a margin behind a surface, and none looks at the corner of the box.
    seen = (distance > -volume.truncation) & (points[..., 1:].amin(-1) > -0.4)
    volume.values[seen] = (distance[seen] / volume.truncation).clamp(-1, 1)
    volume.weights[seen] = 1.0
    return volume


def test_what_no_photo_sees_is_the_object_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # An earlier test of this process may have loaded a run, and so have wrapped it.
    monkeypatch.setattr(TSDF, "get_mesh", unpatched(TSDF.get_mesh))
    walls = TSDF.get_mesh(half_seen()).vertices
    assert float((walls - CENTRE).norm(dim=-1).max()) > 0.4, "without it there are walls"

    def inside_object(points: torch.Tensor) -> torch.Tensor:
        return (points - CENTRE).norm(dim=-1) < 0.5 * RADIUS

    for _ in range(2):  # a second run that is loaded does not wrap the first one's
        fill_unseen_space(SimpleNamespace(inside_object=inside_object))  # type: ignore[arg-type]
    mesh = TSDF.get_mesh(half_seen())
    away = (mesh.vertices - CENTRE).norm(dim=-1)
    voxel = 2 * RADIUS / 40
    np.testing.assert_allclose(away.numpy(), 0.25, atol=1.5 * voxel)
    assert float((mesh.vertices - CENTRE)[:, 0].max()) > 0.2, "its back is there"


def test_a_box_beside_the_object_is_told_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TSDF, "get_mesh", unpatched(TSDF.get_mesh))
    model: Any = SimpleNamespace(
        inside_object=lambda points: points[:, 0] > 1e6,
        object_box=lambda: torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]]),
    )
    fill_unseen_space(model)
    volume = half_seen()
    volume.values[volume.values < 0] = 1.0
    with pytest.raises(ValueError, match=r"--bounding-box-min 1\.000 2\.000 3\.000 --bounding-box-max 1\.500 2\.500"):
        TSDF.get_mesh(volume)
