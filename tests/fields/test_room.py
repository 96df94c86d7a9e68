"""The picture of a room that stands still before the camera: where its pixels are, and what teaches it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from surface_sos_ns.fields.room import Room


def room(views: int = 2) -> Room:
    """2 x 2 pixels, tangents from -1 to 1 and from -0.5 to 0.5: red, green / blue, white."""
    found = Room(2, 2, views)
    colours = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]])
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x of the camera along y, y along -x
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    found.take(colours, known, torch.tensor([-1.0, 1.0, -0.5, 0.5]), torch.stack([torch.eye(3), turn]))
    return found


def test_directions_look_at_pixels() -> None:
    tangents = torch.tensor([[-0.5, 0.25], [0.5, 0.25], [-0.5, -0.25], [0.0, 0.25], [-9.0, 9.0]])
    directions = F.normalize(torch.cat([tangents, -torch.ones(5, 1)], -1), dim=-1)
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [1, 0, 0]])
    torch.testing.assert_close(room()(directions), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(room().confidence(directions), torch.tensor([1.0, 1, 0, 1, 1]), atol=1e-5, rtol=0)
    backwards = room()(torch.tensor([[0.3, 0.2, 0.93]]))
    assert torch.isfinite(backwards).all(), "behind the camera there is something, and no fault"


def test_directions_of_training_views_in_their_cameras_axes() -> None:
    world = torch.tensor([[0.2, 0.5, -0.8], [0.2, 0.5, -0.8]])
    found = room().directions(world, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.5, -0.8], [0.5, -0.2, -0.8]]))


def test_what_is_seen_is_learned_there_alone() -> None:
    found = room()
    with torch.no_grad():
        found.picture.fill_(0.5)
    found(torch.tensor([[-0.5, 0.25, -1.0]])).sum().backward()
    gradient = found.picture.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]), atol=1e-5, rtol=0)
