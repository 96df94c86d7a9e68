"""Parts as outputs of a view, as commands get them. The object is a ball, its parts bands."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.utils.identity_colours import identity_colours
from tests.helpers.part_heads import bands, save_bands
from tests.helpers.viewer_session import small_model

POSE = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SurfaceSOSModel:
    """With results of 4 and of 2 parts, the latter the latest, and one of another checkpoint."""
    run = tmp_path_factory.mktemp("run")
    save_bands(run, 4, order=1)
    save_bands(run, 2, order=2)
    save_bands(run, 3, order=3, checkpoint="step-0.ckpt")
    model = small_model()
    model.attach_parts(run, "step-1.ckpt")
    return model.eval()


@pytest.fixture
def camera() -> Cameras:
    return Cameras(POSE, fx=60.0, fy=60.0, cx=24.0, cy=18.0, width=48, height=36)


@pytest.mark.seconds(5)
def test_commands_get_colours_and_numbers_of_every_result(model: SurfaceSOSModel, camera: Cameras) -> None:
    images = model.get_outputs_for_camera(camera)
    named = {name for name in images if name.startswith("part")}
    assert named == {"parts", "part_ids", "parts_2", "part_ids_2", "parts_4", "part_ids_4"}
    rays = camera.generate_rays(camera_indices=0, keep_shape=True)
    inside = images["alpha"][..., 0] > 0.8
    assert inside.sum() > 100
    ends = rays.origins + rays.directions * images["object_depth"]
    for parts in (2, 4):
        found = images[f"part_ids_{parts}"][..., 0]
        assert set(found.unique().tolist()) == {0.0, *range(1, parts + 1)}
        assert (found > 0)[inside].all()
        assert (found == bands(ends, parts))[inside].float().mean() > 0.9
    assert torch.equal(images["parts"], images["parts_2"]) and torch.equal(images["part_ids"], images["part_ids_2"])


def test_the_outline_of_parts_is_as_smooth_as_the_objects(model: SurfaceSOSModel, camera: Cameras) -> None:
    images = model.images(camera, ["alpha", "parts", "part_ids"])
    alpha = images["alpha"][..., 0]
    rim = (alpha > 0.05) & (alpha < 0.95)
    assert rim.sum() > 20
    # The colours of both parts have other lengths: a pixel's lies between them, times alpha.
    lengths = torch.as_tensor(identity_colours(2)).norm(dim=-1)
    share = images["parts"].norm(dim=-1)[rim] / alpha[rim]
    assert ((share > 0.85 * lengths.min()) & (share < 1.1 * lengths.max())).float().mean() > 0.95
    assert (images["part_ids"] == images["part_ids"].round()).all(), "numbers are not averaged"
