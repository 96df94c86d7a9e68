"""Appearance codes of photos that training has not seen: known ones are found again from half a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.models.surface_sos.adaptation import Adaptation
from surface_sos_ns.models.surface_sos.appearance_fit import fitted_code, fitted_exposure
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from tests.helpers.light_codes import code_of
from tests.helpers.small_scene import TINY, rays_at, start

CHANGING = Adaptation(changing_light=True).applied(TINY)
GAIN, OFFSET = torch.tensor([0.6, 1.1, 1.5]), torch.tensor([0.05, -0.04, 0.1])


def colours(count: int = 4000) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.1


def test_exposure_is_found_exactly() -> None:
    rgb, opaque = colours(), torch.ones(4000, 1)
    code = fitted_exposure(rgb, opaque, rgb * GAIN + OFFSET)
    torch.testing.assert_close(code[0, :3].exp(), GAIN, atol=2e-3, rtol=0)
    torch.testing.assert_close(code[0, 3:], OFFSET, atol=1e-3, rtol=0)


def test_what_stands_in_the_photo_alone_hardly_changes_the_exposure() -> None:
    rgb, opaque = colours(), torch.ones(4000, 1)
    photo = rgb * GAIN + OFFSET
    photo[:600] = torch.tensor([1.0, 0.0, 0.9])
    code = fitted_exposure(rgb, opaque, photo)
    torch.testing.assert_close(code[0, :3].exp(), GAIN, atol=0.1, rtol=0)


def test_colours_that_the_photo_cuts_off_do_not_count() -> None:
    rgb, opaque = colours(), torch.ones(4000, 1)
    photo = (rgb * 2.5).clamp(0, 1)
    assert (photo == 1).float().mean() > 0.2
    code = fitted_exposure(rgb, opaque, photo)
    torch.testing.assert_close(code[0, :3].exp(), torch.full((3,), 2.5), atol=0.03, rtol=0)


def test_one_colour_alone_leaves_the_exposure_as_it_is_and_black_stays_finite() -> None:
    flat = torch.full((500, 3), 0.4)
    torch.testing.assert_close(fitted_exposure(flat, torch.ones(500, 1), flat), torch.zeros(1, 6), atol=1e-4, rtol=0)
    assert torch.isfinite(fitted_exposure(flat, torch.ones(500, 1), torch.zeros(500, 3))).all()
    assert torch.isfinite(fitted_exposure(torch.zeros(9, 3), torch.zeros(9, 1), torch.ones(9, 3))).all()


def half_planes() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Rays to the left of the ball's middle, and to its right."""
    axis = torch.linspace(-0.9, 0.9, 36)
    points = torch.cartesian_prod(axis, axis)
    return rays_at(points[points[:, 0] < 0]), rays_at(points[points[:, 0] > 0])


@pytest.fixture
def scene() -> SurfaceSOS:
    """A scene whose colours depend on the light, and with two of its training views."""
    found = start(CHANGING, steps=10).eval()
    with torch.no_grad():
        nn.init.normal_(found.appearance.exposure, std=0.1)
        nn.init.normal_(found.appearance.light)
        for name, parameter in found.named_parameters():
            if "colour.net.4.weight" in name:  # colours of more contrast than an untrained net has
                parameter.mul_(6)
    return found


def test_the_light_of_a_photo_is_found_from_one_half_of_it(scene: SurfaceSOS) -> None:
    left, right = half_planes()
    view = code_of(scene.appearance, 1)
    before = {name: value.clone() for name, value in scene.state_dict().items()}
    with torch.no_grad():
        photo = [scene.render(*rays, code=view).rgb for rays in (left, right)]
        mean = scene.render(*right).rgb
    code = fitted_code(scene, *left, photo[0])
    with torch.no_grad():
        found = scene.render(*right, code=code).rgb
    error, unfitted = (float((shown - photo[1]).square().mean().sqrt()) for shown in (found, mean))
    assert unfitted > 0.03
    assert error < 0.2 * unfitted
    assert all(torch.equal(value, before[name]) for name, value in scene.state_dict().items()), "fields stay frozen"
    assert all(parameter.requires_grad and parameter.grad is None for parameter in scene.appearance.parameters())


def test_without_latent_codes_the_exposure_is_found() -> None:
    scene = start(TINY, steps=10).eval()
    left, _ = half_planes()
    with torch.no_grad():
        photo = scene.render(*left, code=torch.cat([GAIN.log(), OFFSET])[None]).rgb
    code = fitted_code(scene, *left, photo)
    with torch.no_grad():
        torch.testing.assert_close(scene.render(*left, code=code).rgb, photo, atol=2e-3, rtol=0)
