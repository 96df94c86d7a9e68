"""Anti-aliased outlines against analytic pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surface_sos_ns.rendering.antialiasing import edge_pixels, sub_pixel_directions


def camera_directions(height: int, width: int, focal: float, scale: int = 1) -> Tensor:
    """(H * scale, W * scale, 3) unit directions through the middles of (parts of) pixels."""
    y, x = torch.meshgrid(
        (torch.arange(height * scale) + 0.5) / scale, (torch.arange(width * scale) + 0.5) / scale, indexing="ij"
    )
    rays = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1)
    return torch.nn.functional.normalize(rays, dim=-1)


def test_edges_are_where_neighbours_differ() -> None:
    alpha = torch.zeros(7, 9)
    alpha[:, 5:] = 1.0
    assert edge_pixels(alpha).nonzero()[:, 1].unique().tolist() == [4, 5]
    assert not edge_pixels(torch.full((4, 4), 0.5)).any()


@pytest.mark.parametrize("per_axis", [3, 5])
def test_parts_of_pixels_are_looked_through(per_axis: int) -> None:
    height, width, focal = 12, 16, 14.0
    chosen = torch.zeros(height, width, dtype=torch.bool)
    chosen[4, 5] = chosen[0, 0] = chosen[11, 15] = True
    found = sub_pixel_directions(camera_directions(height, width, focal), chosen, per_axis)
    fine = camera_directions(height, width, focal, per_axis)
    for k, (row, column) in enumerate(chosen.nonzero().tolist()):
        block = fine[row * per_axis : (row + 1) * per_axis, column * per_axis : (column + 1) * per_axis].reshape(-1, 3)
        truth = torch.cat([block[: per_axis**2 // 2], block[per_axis**2 // 2 + 1 :]])
        assert torch.allclose(found[k], truth, atol=0.15 / focal / per_axis)  # a small part of a part of a pixel


def test_averages_come_nearer_to_the_true_coverage() -> None:
    """A disc: its pixels' covered areas against one ray and against nine."""
    height = width = 40
    focal = 40.0

    def inside(directions: Tensor) -> Tensor:
        return ((directions[..., :2] / directions[..., 2:]).norm(dim=-1) < 0.31).float()

    truth = inside(camera_directions(height, width, focal, 40)).reshape(height, 40, width, 40).mean((1, 3))
    directions = camera_directions(height, width, focal)
    alpha = inside(directions)
    chosen = edge_pixels(alpha)
    smooth = alpha.clone()
    smooth[chosen] = (alpha[chosen] + inside(sub_pixel_directions(directions, chosen, 3)).sum(1)) / 9
    assert (smooth - truth).abs().sum() < 0.4 * (alpha - truth).abs().sum()
    assert ((smooth > 0.5) != (truth > 0.5)).sum() <= ((alpha > 0.5) != (truth > 0.5)).sum()


def test_even_numbers_and_single_rows_are_refused() -> None:
    directions = camera_directions(4, 4, 4.0)
    with pytest.raises(ValueError, match="odd"):
        sub_pixel_directions(directions, torch.ones(4, 4, dtype=torch.bool), 2)
    with pytest.raises(ValueError, match="2 x 2"):
        sub_pixel_directions(directions[:1], torch.ones(1, 4, dtype=torch.bool), 3)
