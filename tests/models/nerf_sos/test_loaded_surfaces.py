"""The surfaces of a surface-sos run in NeRF-SOS' place of a radiance field, against that run's own rendering."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surface_sos_ns.fields.deformation import DeformationConfig
from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.models.nerf_sos.loaded_surfaces import LoadedSurfaces
from surface_sos_ns.models.nerf_sos.scene import NerfSOS
from surface_sos_ns.models.nerf_sos.surfaces import seen_surfaces
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.sampling.contraction import contract
from surface_sos_ns.utils.errors import UserError
from tests.helpers.small_scene import BALL, PAPER, TINY, rays_at, start

RAYS = rays_at(torch.rand(60, 2, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8)


@pytest.fixture(scope="module", params=[TINY, PAPER], ids=["default", "paper"])
def run(request: pytest.FixtureRequest) -> SurfaceSOS:
    return start(request.param, steps=150).eval()


@pytest.fixture(scope="module")
def scene(run: SurfaceSOS) -> NerfSOS:
    loaded = NerfSOS(NerfSOSConfig(), 3, 2, run.config)
    loaded.take_surfaces(run.state_dict())
    return loaded


def test_it_renders_what_the_run_renders(run: SurfaceSOS, scene: NerfSOS) -> None:
    scene.train()  # the loaded scene stays in evaluation mode
    found = scene.field.render(*RAYS)
    with torch.no_grad():
        expected = run.render(*RAYS, plate=False)
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.depth, expected.depth)
    assert torch.allclose(found.weights.sum(-1), expected.accumulation, atol=1e-6)
    assert torch.equal(scene.frame.centre, run.frame.centre) and bool(scene.ready)


@pytest.mark.usefixtures("run")
def test_features_of_samples_are_those_of_their_points(scene: NerfSOS) -> None:
    origins, directions = RAYS
    assert isinstance(scene.field, LoadedSurfaces)
    found = scene.field.render(origins, directions)
    points = (origins[:, None] + directions[:, None] * found.middle[..., None]).reshape(-1, 3)
    assert torch.allclose(found.features[:, :3], contract(points), atol=1e-6)  # its contraction radius is 1
    of_points = scene.field.features_at(points)
    seen = found.weights.reshape(-1) > 1e-2
    alike = (found.features - of_points).abs().amax(-1) < 1e-4
    assert seen.sum() > 50 and alike[seen].float().mean() > 0.98  # the cache of distances is coarser than the distance


def test_the_ball_is_solid(run: SurfaceSOS, scene: NerfSOS) -> None:
    if not run.object_grid.votes_split:
        pytest.skip("before training, a predicted alpha says nothing of what is in the object")
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.9 * BALL, 0.0], [0.0, 1.3 * BALL, 0.0]])
    assert scene.field.solid(points).tolist() == [True, True, False]


def test_only_the_head_learns(scene: NerfSOS) -> None:
    surfaces = seen_surfaces(scene.field, *RAYS)
    codes = surfaces.codes(scene.head)
    assert torch.allclose(codes, surfaces.all_codes(scene.head, chunk=7), atol=1e-6)
    codes.square().sum().backward()
    learned = {name.split(".")[0] for name, value in scene.named_parameters() if value.grad is not None}
    assert learned == {"head"}
    assert not any(value.requires_grad for value in scene.field.parameters())


def test_an_object_that_deforms_is_refused() -> None:
    with pytest.raises(UserError, match="may deform"):
        LoadedSurfaces(replace(TINY, deformation=DeformationConfig(bound=0.1)), 3)
