"""A ball on a table whose paint and light are known: found, mapped, completed and lit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from surface_sos_ns.clean_plate.support_map import BackgroundView, SupportMap
from surface_sos_ns.rendering.colour_space import to_display
from tests.helpers.ball_on_table import RADIUS, ball, light_on, paint, passes_ball

SUN, SHARE = torch.tensor([0.6, 0.0, 0.8]), 0.6
SAMPLES = 9


def cameras(count: int = 24, height: float = 1.6) -> Tensor:
    turn = torch.arange(count) / count * 2 * torch.pi
    return torch.stack([3 * turn.cos(), 3 * turn.sin(), torch.full_like(turn, height)], -1)


def plane_view(level: float, colour: Callable[[Tensor], Tensor], sure: Callable[[Tensor], Tensor]):  # type: ignore[no-untyped-def]
    """What rays see of an opaque plane z = level."""

    def look(origins: Tensor, directions: Tensor) -> BackgroundView:
        distance = (level - origins[:, 2]) / directions[:, 2]
        meets = distance > 0
        distance = torch.where(meets, distance, 5.0)
        points = origins + directions * distance[:, None]
        edges = distance[:, None] + torch.linspace(-0.045, 0.045, SAMPLES + 1)
        weights = torch.zeros(len(origins), SAMPLES)
        weights[:, SAMPLES // 2] = meets.float()
        return BackgroundView(colour(points) * meets[:, None], sure(points) * meets, weights, edges)

    return look


def shadowed(points: Tensor) -> Tensor:
    """(P, 3) what the photos show: paint in what light reaches it, and soot where the ball stands."""
    seen = paint(points).T * light_on(points, SUN, SHARE, sky=300)[:, None]
    return torch.where(points[:, :2].norm(dim=-1, keepdim=True) < 0.2, torch.tensor(0.02), seen)


def hidden_disc(points: Tensor) -> Tensor:
    """Within it no photo has seen the table."""
    return (points[:, :2].norm(dim=-1) > 0.2).float()


TABLE = plane_view(-RADIUS, shadowed, hidden_disc)


@pytest.fixture(scope="module")
def made() -> SupportMap:
    support = SupportMap(96)
    assert support.build(TABLE, ball(), ball(radius=RADIUS + 0.03), cameras())
    return support


def rays_to(points: Tensor) -> tuple[Tensor, Tensor]:
    """Rays that look at points from one place."""
    eye = torch.tensor([-0.4, -2.5, 1.2]).expand_as(points)
    return eye, torch.nn.functional.normalize(points - eye, dim=-1)


def grid(extent: float, steps: int = 61) -> Tensor:
    axis = torch.linspace(-extent, extent, steps)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, -RADIUS)], -1).reshape(-1, 3)


def test_the_plane_is_the_tables(made: SupportMap) -> None:
    middle, first, second, normal = made.frame
    torch.testing.assert_close(normal, torch.tensor([0.0, 0.0, 1.0]), atol=5e-3, rtol=0)
    assert float(middle[2]) == pytest.approx(-RADIUS, abs=5e-3)
    assert float(middle[:2].norm()) < 0.02, "beneath the ball"
    assert abs(float(first @ second)) < 1e-5


def test_the_light_that_the_object_keeps_away_is_given_back(made: SupportMap) -> None:
    points = grid(1.2)
    points = points[points[:, :2].norm(dim=-1) > 0.3]
    rays = rays_to(points)
    completed = made.complete(*rays, TABLE(*rays))
    light, truth = light_on(points, SUN, SHARE, sky=300), paint(points).T
    dark = light < 0.75
    before, after = (shadowed(points) - truth).abs(), (completed.colours - truth).abs()
    assert int(dark.sum()) > 150
    assert float(after[dark].mean()) < 0.4 * float(before[dark].mean())
    assert float(after[~dark].mean()) < 0.03
    # The shadow that is told is the one there was.
    error = (completed.shadow - (1 - light)).abs()
    assert float(error[dark].mean()) < 0.12 and float((1 - light)[dark].mean()) > 0.4
    assert float(completed.filled[points[:, :2].norm(dim=-1) > 0.45].max()) < 1e-6, "photos show it, and not too dark"


def test_what_no_photo_shows_is_filled_from_its_surroundings_in_full_light(made: SupportMap) -> None:
    points = grid(0.12, 15)
    rays = rays_to(points)
    view = TABLE(*rays)
    completed = made.complete(*rays, view)
    assert float(completed.filled.min()) > 0.95
    tone = to_display(paint(grid(0.5, 41))).mean(-1)
    assert float((to_display(completed.colours).mean(0) - tone).abs().max()) < 0.1
    assert float(view.colours.max()) <= 0.02, "soot it was"
    # What stands before the plane stays: a lemon, say.
    before = view._replace(edges=view.edges - 1.0)
    kept = made.complete(*rays, before)
    assert float(kept.filled.max()) < 1e-6
    torch.testing.assert_close(kept.colours, before.colours)


def test_what_mirrors_in_the_surface_is_not_lit_twice(made: SupportMap) -> None:
    points = torch.tensor([[-0.75, 0.0, -RADIUS]])  # in the sun's shadow
    assert not bool(passes_ball(points, SUN))
    rays = rays_to(points)
    view = TABLE(*rays)
    gleaming = view._replace(colours=view.colours + 0.4)
    added, more = (made.complete(*rays, one).colours - one.colours for one in (view, gleaming))
    torch.testing.assert_close(more, added, rtol=0.1, atol=1e-3)
    assert float(added.min()) > 0.05


def test_rays_that_miss_the_map_are_left_alone(made: SupportMap) -> None:
    origins = torch.tensor([[0.0, -2.5, 1.0]] * 3)
    directions = torch.nn.functional.normalize(
        torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 0.0], [0.0, 1.0, -0.2]]), dim=-1
    )
    view = BackgroundView(
        torch.full((3, 3), 0.4), torch.ones(3), torch.full((3, 4), 0.25), torch.linspace(1, 9, 5).expand(3, 5)
    )
    completed = made.complete(origins, directions, view)
    torch.testing.assert_close(completed.colours, view.colours)
    assert float(completed.filled.max()) == 0 and float(completed.shadow.abs().max()) < 1e-6


def test_without_a_plane_nothing_changes() -> None:
    support = SupportMap(32)
    rays = rays_to(grid(0.5, 9))
    for look, solid in (
        (plane_view(-1.5, shadowed, hidden_disc), ball()),  # the floor, far beneath
        (plane_view(0.0, shadowed, hidden_disc), ball()),  # through its middle
        (TABLE, torch.zeros(64, 64, 64, dtype=torch.bool)),  # no object
        (plane_view(-RADIUS, shadowed, lambda points: torch.zeros(len(points))), ball()),  # nothing is sure
    ):
        assert not support.build(look, solid, solid, cameras())
        view = look(*rays)
        completed = support.complete(*rays, view)
        assert completed.colours is view.colours and float(completed.filled.max()) == float(completed.shadow.max()) == 0


@pytest.mark.seconds(2)
def test_a_box_on_the_floor_carries_what_stands_on_it() -> None:
    """The floor is the larger plane, but it does not touch the ball."""

    def look(origins: Tensor, directions: Tensor) -> BackgroundView:
        top, floor = (plane_view(level, shadowed, hidden_disc)(origins, directions) for level in (-RADIUS, -1.4))
        distance = (-RADIUS - origins[:, 2]) / directions[:, 2]
        at = origins + directions * distance[:, None]
        on_top = (distance > 0) & (at[:, :2].abs() < 0.9).all(-1)
        pick = [torch.where(on_top.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(top, floor, strict=True)]
        return BackgroundView(*pick)

    support = SupportMap(64)
    assert support.build(look, ball(), ball(radius=RADIUS + 0.03), cameras(height=2.5))
    assert float(support.frame[0, 2]) == pytest.approx(-RADIUS, abs=0.01)


def test_a_checkpoint_brings_the_map_back(made: SupportMap) -> None:
    rays = rays_to(grid(1.0, 21))
    view = TABLE(*rays)
    again = SupportMap(96)
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.complete(*rays, view), made.complete(*rays, view))
