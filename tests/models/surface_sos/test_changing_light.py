"""Latent codes for the light of each photo, and the sky behind all that rays meet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.adaptation import LIGHT_CODES, Adaptation, stored_adaptation
from surface_sos_ns.models.surface_sos.appearance import Appearance
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.training.presets import parameter_groups
from tests.helpers.light_codes import code_of
from tests.helpers.small_scene import PAPER, TINY, rays_at, start


def with_changing_light(config: SceneConfig) -> SceneConfig:
    return Adaptation(changing_light=True).applied(config)


def points_beside_and_on_the_ball() -> Tensor:
    return torch.tensor([[0.0, 0.0], [0.1, 0.2], [0.9, 0.0], [-0.8, 0.7]])


def test_codes_are_relative_to_their_mean() -> None:
    appearance = Appearance(2, light=2)
    with torch.no_grad():
        appearance.exposure.copy_(torch.tensor([[0.4] * 3 + [0.1] * 3, [0.0] * 6]))
        appearance.light.copy_(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    gain, offset, light = appearance(torch.tensor([1, 0]))
    torch.testing.assert_close(gain, torch.tensor([[-0.2], [0.2]]).exp().expand(2, 3))
    torch.testing.assert_close(offset, torch.tensor([[-0.05], [0.05]]).expand(2, 3))
    torch.testing.assert_close(light, torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
    mean = appearance(None)
    assert bool((mean.gain == 1).all() and (mean.offset == 0).all() and (mean.light == 0).all())
    for found, own in zip(appearance(None, code_of(appearance, 0)), appearance(torch.tensor([0])), strict=True):
        torch.testing.assert_close(found, own)


@pytest.mark.parametrize("config", [TINY, PAPER], ids=["default", "paper"])
def test_a_code_in_place_of_a_view_shows_what_the_view_shows(config) -> None:
    scene = start(with_changing_light(config), steps=5).eval()
    rays = rays_at(points_beside_and_on_the_ball())
    with torch.no_grad():
        nn.init.normal_(scene.appearance.exposure, std=0.1)
        nn.init.normal_(scene.appearance.light)
        mean = scene.render(*rays)
        view = scene.render(*rays, view=torch.full((4,), 2))
        code = scene.render(*rays, code=code_of(scene.appearance, 2))
    torch.testing.assert_close(code.rgb, view.rgb)
    torch.testing.assert_close(code.background, view.background)
    assert (view.rgb - mean.rgb).abs().min() > 1e-4, "colours of object, background and sky depend on the code"
    torch.testing.assert_close(view.alpha, mean.alpha, msg="the light changes no surface")


@pytest.mark.parametrize("blending", ["light", "display"])
def test_the_sky_is_seen_past_all_that_rays_meet(blending) -> None:
    scene = start(replace(with_changing_light(TINY), blending=blending), steps=300).eval()
    scene.set_progress(1.0)
    scene.background.field.bias = -20.0  # empty space around the ball
    scene.cache.density.zero_()
    scene.update_cache()
    code = torch.randn(1, scene.appearance.width)
    code[:, :6] = 0.0
    rays = rays_at(points_beside_and_on_the_ball())
    with torch.no_grad():
        sky = scene.sky(rays[1], code[:, 6:].expand(4, -1))
        seen = scene.render(*rays, code=code)
    assert seen.accumulation[0] > 0.99 and seen.accumulation[2:].max() < 1e-3
    torch.testing.assert_close(seen.rgb[2:], sky[2:], atol=2e-3, rtol=0)
    assert (seen.rgb[0] - sky[0]).abs().max() > 0.02, "the ball hides it"
    torch.testing.assert_close(seen.background, sky, atol=2e-3, rtol=0)
    assert seen.background_confidence.min() > 0.99, "the sky is sure, also behind the ball"


def test_rays_through_the_probability_map_do_not_teach_the_sky() -> None:
    scene = start(with_changing_light(TINY), steps=5).train()
    scene.render(*rays_at(torch.zeros(8, 2)), view=torch.zeros(8, dtype=torch.long)).rgb.sum().backward()
    weights = scene.sky.colour.net[0].weight
    assert weights.grad.abs().max() == 0
    scene.render(*rays_at(torch.full((8, 2), 0.9)), view=torch.zeros(8, dtype=torch.long)).rgb.sum().backward()
    assert weights.grad.abs().max() > 1e-5


def test_what_a_checkpoint_says_of_the_light() -> None:
    plain, changing = SurfaceSOS(TINY, views=3), SurfaceSOS(TINY, views=3, adaptation=Adaptation(changing_light=True))
    assert stored_adaptation(plain.state_dict()) == Adaptation()
    state = {f"a.{name}": value for name, value in changing.state_dict().items()}
    assert stored_adaptation(state, "a.") == Adaptation(changing_light=True)
    assert changing.appearance.width == 6 + LIGHT_CODES and changing.sky is not None
    groups = parameter_groups(changing)
    assert groups["light"] == [changing.appearance.light] and groups["appearance"] == [changing.appearance.exposure]
    assert "light" not in parameter_groups(plain)
