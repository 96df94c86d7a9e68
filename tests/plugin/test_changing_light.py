"""A run takes up latent codes for the light where photos show that it differs, and keeps them wherever it is opened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from surface_sos_ns.capture.light import MAX_RESIDUAL, LightEvidence
from surface_sos_ns.models.surface_sos.adaptation import LIGHT_CODES
from surface_sos_ns.plugin.model import SurfaceSOSModel, SurfaceSOSModelConfig
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipeline
from surface_sos_ns.training.presets import RATES
from tests.helpers.small_scene import TINY


def pipeline(light: str = "auto", residual: float = 2 * MAX_RESIDUAL, pixels: float = 0.0) -> SurfaceSOSPipeline:
    """Of a small model, and photos that leave this residual."""
    found = SurfaceSOSPipeline.__new__(SurfaceSOSPipeline)
    torch.nn.Module.__init__(found)
    config = SurfaceSOSModelConfig(scene=TINY, light=light)  # type: ignore[arg-type]
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    found._model = config.setup(scene_box=box, num_train_data=3, metadata={})
    found.datamanager = SimpleNamespace(  # type: ignore[assignment]
        light=lambda folder: LightEvidence(residual, 20),
        pixels_per_radius=lambda folder: pixels,
        room=lambda folder: None,
    )
    return found


def light_of(found: SurfaceSOSPipeline) -> tuple[int, bool]:
    assert isinstance(found.model, SurfaceSOSModel)
    return found.model.scene.config.light_codes, found.model.scene.sky is not None


@pytest.mark.parametrize(
    ("light", "residual", "expected"),
    [
        ("auto", 2 * MAX_RESIDUAL, (LIGHT_CODES, True)),
        ("auto", 0.5 * MAX_RESIDUAL, (0, False)),
        ("auto", float("nan"), (0, False)),
        ("exposure", 2 * MAX_RESIDUAL, (0, False)),
        ("codes", 0.0, (LIGHT_CODES, True)),
    ],
)
def test_codes_are_learned_where_the_light_differs(light, residual, expected, capsys) -> None:
    found = pipeline(light, residual)
    found.adapt(Path())
    assert light_of(found) == expected
    assert set(found.model.get_param_groups()) <= set(RATES)
    said = capsys.readouterr().out
    assert ("the light differs from photo to photo" in said) == (light == "auto" and expected[1])


def test_a_run_is_opened_with_the_light_that_it_was_trained_with(capsys) -> None:
    trained = pipeline()
    trained.adapt(Path())
    with torch.no_grad():
        trained.model.scene.appearance.light.normal_()
    opened = pipeline()
    opened.load_pipeline({f"_model.{name}": value for name, value in trained.model.state_dict().items()}, 7)
    assert light_of(opened) == (LIGHT_CODES, True)
    torch.testing.assert_close(opened.model.scene.appearance.light, trained.model.scene.appearance.light)
    plain = pipeline("exposure")
    opened.load_pipeline({f"_model.{name}": value for name, value in plain.model.state_dict().items()}, 7)
    assert light_of(opened) == (0, False)
