"""Shadows of a ball in known light: what is blocked, and which lights are found from what they leave on a table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from surface_sos_ns.clean_plate.shadow import blocked, fit_light, hemisphere, tangents, visible_past
from tests.helpers.ball_on_table import RADIUS, ball, light_on, paint, passes_ball, table


def test_directions_are_as_dense_as_lamberts_law_weighs_them() -> None:
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    first, second = tangents(normal)
    frame = torch.stack([first, second, normal])
    torch.testing.assert_close(frame @ frame.T, torch.eye(3), atol=1e-6, rtol=0)
    directions = hemisphere(normal, 400)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(400))
    cosine = directions @ normal
    assert float(cosine.min()) > 0
    # The density cos / pi has the moments 2/3 and 1/2, and no direction across is preferred.
    assert float(cosine.mean()) == pytest.approx(2 / 3, abs=2e-3)
    assert float(cosine.square().mean()) == pytest.approx(1 / 2, abs=2e-3)
    assert float((directions @ torch.stack([first, second]).T).mean(0).abs().max()) < 0.01


def test_rays_are_blocked_by_what_they_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(4000, 3, generator=generator)
    origins = origins / origins.norm(dim=-1, keepdim=True) * (0.7 + 3 * torch.rand(4000, 1, generator=generator))
    target = torch.randn(4000, 3, generator=generator) * 0.6
    directions = torch.nn.functional.normalize(target - origins, dim=-1)
    directions[:3] = torch.eye(3)  # along the axes too
    found = blocked(ball(), origins, directions)
    cell = 2 / 64
    surely, possibly = (
        ~passes_ball(origins, directions, RADIUS - cell),
        ~passes_ball(origins, directions, RADIUS + cell),
    )
    assert bool(found[surely].all()) and not bool(found[~possibly].any())
    assert 1000 < int(surely.sum()) < 3000
    # From the middle outwards: blocked, but not from beyond the surface on.
    inside = torch.zeros(1, 3), torch.tensor([[0.0, 0.6, 0.8]])
    assert bool(blocked(ball(), *inside)) and not bool(blocked(ball(), *inside, start=RADIUS + cell))
    assert not bool(blocked(torch.zeros(8, 8, 8, dtype=torch.bool), *inside))


def test_what_the_object_hides_in_all_views_is_not_seen_past_it() -> None:
    turn = torch.arange(50) / 50 * 2 * math.pi
    ring = torch.stack([3 * turn.cos(), 3 * turn.sin(), torch.full_like(turn, 1.5)], -1)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -RADIUS - 0.02], [0.0, 0.0, -4.0], [0.9, 0.0, 0.0]])
    assert visible_past(ball(), points, ring).tolist() == [0.0, 0.0, 1.0, 1.0]
    # With one camera of them all on one side, the other side of the ball is seen by hardly any.
    one = torch.cat([torch.tensor([[-3.0, 0.0, 0.0]]).expand(46, 3), torch.tensor([[3.0, 0.0, 0.0]]).expand(4, 3)])
    assert float(visible_past(ball(), points[3:], one)) == pytest.approx((4 / 50 - 0.04) / 0.08)


@pytest.mark.seconds(1.5)
@pytest.mark.parametrize(("elevation", "share"), [(50.0, 0.6), (35.0, 0.3), (90.0, 0.0)])
def test_the_shadow_is_found_beneath_the_paint(elevation: float, share: float) -> None:
    points = table()
    sun = torch.tensor([math.cos(math.radians(elevation)), 0.0, math.sin(math.radians(elevation))])
    light = light_on(points, sun, share)
    noise = 1 + 0.05 * torch.randn(3, *light.shape, generator=torch.Generator().manual_seed(1))
    lights = hemisphere(torch.tensor([0.0, 0.0, 1.0]), 128)
    visible = torch.stack([passes_ball(points, direction) for direction in lights])
    known = (points[..., :2].norm(dim=-1) > 0.25).float()
    shares = fit_light(paint(points) * light * noise, known, visible)
    assert float(shares.sum()) <= 1 + 1e-5 and float(shares.min()) >= 0
    found = 1 - torch.tensordot(shares, (~visible).float(), 1)
    error, dark = (found - light).abs()[known > 0], light[known > 0] < 0.8
    assert int(dark.sum()) > 150
    # Not to compensate for it would be off by 0.3 and more there.
    assert float(error[dark].mean()) < 0.1 and float((1 - light[known > 0])[dark].mean()) > 0.28
    assert float(error[~dark].mean()) < 0.04
    assert np.corrcoef(found[known > 0], light[known > 0])[0, 1] > 0.9


@pytest.mark.seconds(1.5)
def test_where_there_is_no_shadow_hardly_any_is_found() -> None:
    """A ball of glass, say: what the object would keep away in any light arrives."""
    points = table()
    lights = hemisphere(torch.tensor([0.0, 0.0, 1.0]), 128)
    visible = torch.stack([passes_ball(points, direction) for direction in lights])
    known = (points[..., :2].norm(dim=-1) > 0.25).float()
    shares = fit_light(paint(points), known, visible)
    shade = torch.tensordot(shares, (~visible).float(), 1)[known > 0]
    even = (~visible).float().mean(0)[known > 0]  # what an even sky would leave
    dark = even > 0.2
    # Paint that happens to be brighter further off is taken for a little of it; mere guessing would find all.
    assert float(shade[dark].mean()) < 0.5 * float(even[dark].mean())
    assert float((shade > 0.15).float().mean()) < 0.1
