"""A room that stands still before the camera, behind the layers of a scene."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from surface_sos_ns.models.surface_sos.adaptation import Adaptation, stored_adaptation
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.training.presets import parameter_groups
from tests.helpers.scene_before_a_room import WITH_ROOM, scene_before_a_room
from tests.helpers.small_scene import TINY, rays_at

IN_THE_ROOM = F.normalize(
    torch.tensor([[0.5, 0.1, -1.0], [0.6, -0.3, -1.0], [-0.4, 0.5, -1.0], [0.8, 0.2, -1.0]]), dim=-1
)


def test_it_is_seen_past_all_that_rays_meet() -> None:
    scene = scene_before_a_room(300)
    rays = rays_at(torch.tensor([[0.0, 0.0], [0.1, 0.2], [0.9, 0.0], [-0.8, 0.7]]))
    with torch.no_grad():
        seen = scene.render(*rays, room=IN_THE_ROOM)
        without = scene.render(*rays)
        assert scene.room is not None
        picture = scene.room(IN_THE_ROOM)
    torch.testing.assert_close(seen.rgb[2:], picture[2:], atol=2e-3, rtol=0)
    assert (seen.rgb[0] - picture[0]).abs().max() > 0.02, "the ball hides it"
    torch.testing.assert_close(seen.background, picture, atol=2e-3, rtol=0)
    torch.testing.assert_close(seen.alpha, without.alpha)
    assert without.rgb[2:].max() < 1e-2, "where nobody knows where the camera looks it is black"
    confidence = scene.room.confidence(IN_THE_ROOM)
    torch.testing.assert_close(seen.background_confidence, confidence, atol=5e-3, rtol=0)
    assert confidence[2] < 0.1 and confidence[3] > 0.9


def test_training_views_know_where_they_look() -> None:
    scene = scene_before_a_room()
    origins, directions = rays_at(torch.tensor([[0.9, 0.0], [-0.8, 0.7]]))
    with torch.no_grad():
        assert scene.room is not None
        view = torch.tensor([1, 0])
        seen = scene.render(origins, directions, view=view)
        expected = scene.render(origins, directions, room=scene.room.directions(directions, view))
    torch.testing.assert_close(seen.background, expected.background)


@pytest.mark.parametrize(("place", "learned"), [(0.0, False), (0.9, True)])
def test_rays_through_the_probability_map_do_not_teach_it(place: float, learned: bool) -> None:
    scene = scene_before_a_room().train()
    scene.render(*rays_at(torch.full((8, 2), place)), view=torch.zeros(8, dtype=torch.long)).rgb.sum().backward()
    assert scene.room is not None
    gradient = scene.room.picture.grad
    assert gradient is not None and bool(gradient.abs().max() > 1e-5) == learned


def test_what_a_checkpoint_says_of_the_room() -> None:
    scene = SurfaceSOS(TINY, views=3, adaptation=WITH_ROOM)
    assert scene.room is not None and scene.room.picture.shape == (1, 3, 6, 8) and scene.sky is None
    assert stored_adaptation(scene.state_dict()) == WITH_ROOM
    assert parameter_groups(scene)["room"] == [scene.room.picture]
    both = Adaptation(changing_light=True, room=(8, 6)).applied(TINY)
    assert both.room == (8, 6) and not both.sky
