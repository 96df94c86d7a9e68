"""Metrics of the right half of a view whose appearance is fitted to the left half of its photo."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor, nn

from surface_sos_ns.models.surface_sos import appearance_fit
from surface_sos_ns.models.surface_sos.adaptation import Adaptation
from surface_sos_ns.models.surface_sos.appearance import Appearance
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.plugin.fitted_metrics import fitted_metrics
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig
from surface_sos_ns.plugin.pipeline import METRICS_OF_SOME_PHOTOS
from tests.helpers.light_codes import code_of
from tests.helpers.small_scene import TINY, start

CHANGING = Adaptation(changing_light=True).applied(TINY)
SIZE = 24
GAIN, OFFSET = torch.tensor([0.7, 1.0, 1.4]), torch.tensor([0.1, -0.05, 0.02])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance_fit, "STEPS", 60)
    monkeypatch.setattr(appearance_fit, "RAYS", 256)


def model_of(scene_config: SceneConfig) -> SurfaceSOSModel:
    config = SurfaceSOSModelConfig(scene=scene_config, edge_samples=1)
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    found = config.setup(scene_box=box, num_train_data=3, metadata={})
    found.scene = start(scene_config, steps=10)
    with torch.no_grad():
        nn.init.normal_(found.scene.appearance.exposure, std=0.2)
        if found.scene.appearance.light is not None:
            nn.init.normal_(found.scene.appearance.light)
        for name, parameter in found.scene.named_parameters():
            if "colour.net.4.weight" in name:  # colours of more contrast than an untrained net has
                parameter.mul_(6)
    return found.eval()


def camera() -> Cameras:
    """Two object radii before the ball, world frame."""
    pose = torch.eye(4)[None, :3]
    pose[0, :, 3] = torch.tensor([1.0, 2.0, 3.0 + 6.0])
    return Cameras(pose, fx=20.0, fy=20.0, cx=SIZE / 2, cy=SIZE / 2, width=SIZE, height=SIZE)


EXPOSED = SimpleNamespace(appearance=Appearance(3))
"""All that is asked of a scene without latent codes."""


def batches(rgb: Tensor) -> Iterator[dict[str, Tensor]]:
    photo = rgb * GAIN + OFFSET
    yield {"image": photo.clone()}
    covered = photo.clone()
    covered[:, : SIZE // 4] = 1.0
    yield {"image": covered, "mask": (covered < 1).all(-1, keepdim=True)}


def test_the_exposure_comes_from_the_left_half_and_the_figure_from_the_right() -> None:
    rgb = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.2
    outputs = {"rgb": rgb, "accumulation": torch.ones(SIZE, SIZE, 1)}
    for batch in batches(rgb):
        batch["image"][:, SIZE // 2 :] += 0.01  # 40 dB
        found = fitted_metrics(EXPOSED, outputs, batch, lambda rays, code: rgb)
        assert found["psnr_fitted"] == pytest.approx(40, abs=0.1)
        error = rgb[:, SIZE // 2 :] - batch["image"][:, SIZE // 2 :]
        assert found["psnr_unfitted"] == pytest.approx(float(-10 * error.square().mean().log10()), abs=1e-3)
        assert found["ssim_fitted"] > 0.98
        assert all(name.startswith(METRICS_OF_SOME_PHOTOS) for name in found)


def test_a_photo_too_small_to_be_halved_has_no_such_figures() -> None:
    small = {"rgb": torch.rand(30, 18, 3), "accumulation": torch.ones(30, 18, 1)}
    assert fitted_metrics(EXPOSED, small, {"image": small["rgb"]}, lambda rays, code: rays) == {}


@pytest.mark.parametrize("config", [TINY, CHANGING], ids=["exposure", "light"])
def test_a_view_in_the_light_of_a_photo(config: SceneConfig) -> None:
    model = model_of(config)
    mean = model.images(camera(), ["rgb", "alpha"])
    with model.appearance(code_of(model.scene.appearance, 1)):
        photo = model.images(camera(), ["rgb", "alpha"])
    assert (photo["rgb"] - mean["rgb"]).abs().mean() > 0.03
    torch.testing.assert_close(photo["alpha"], mean["alpha"])
    torch.testing.assert_close(model.images(camera(), ["rgb"])["rgb"], mean["rgb"], msg="no longer than inside")

    outputs = model.get_outputs_for_camera(camera())
    batch = {"image": photo["rgb"]}
    plain, _ = model.get_image_metrics_and_images(outputs, batch)
    assert not any(name.endswith("fitted") for name in plain)
    with model.fitting_appearance():
        metrics, _ = model.get_image_metrics_and_images(outputs, batch)
    assert {name: metrics[name] for name in plain} == plain
    assert metrics["psnr_fitted"] > metrics["psnr_unfitted"] + 10

    code = model.code_of_photo(camera(), photo["rgb"])
    with model.appearance(code):
        fitted = model.images(camera(), ["rgb"])["rgb"]
    assert (fitted - photo["rgb"]).abs().mean() < 0.2 * (mean["rgb"] - photo["rgb"]).abs().mean()
