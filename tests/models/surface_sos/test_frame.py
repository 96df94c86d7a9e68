"""The object frame: a shift and a scale, on whatever device it is."""

from __future__ import annotations

import torch

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from tests.helpers.fake_cuda import fake_cuda

FRAME = ObjectFrame(torch.tensor([1.0, 2.0, 3.0]), 2.0)


def test_there_and_back() -> None:
    world = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 3.0], [1.0, -2.0, 4.0]])
    inside = FRAME.points(world)
    assert torch.allclose(inside, torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, -2.0, 0.5]]))
    assert torch.allclose(FRAME.to_world(inside), world)


def test_points_in_double_precision_stay_so_on_the_way_to_the_world() -> None:
    assert FRAME.to_world(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_points_of_the_host_are_taken_where_the_frame_is_on_a_gpu() -> None:
    """As those that marching cubes finds, of a scene on a GPU."""
    with fake_cuda():
        frame = ObjectFrame().to("cuda")
        for found in (frame.points(torch.zeros(4, 3)), frame.to_world(torch.zeros(4, 3))):
            assert found.device.type == "cuda" and found.shape == (4, 3)
