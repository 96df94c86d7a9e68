"""Sizes of the scene model that depend on how large the object is in the photos."""

from __future__ import annotations

from dataclasses import replace

import pytest

from surface_sos_ns.models.surface_sos.adaptation import LARGE_RADIUS, Adaptation
from surface_sos_ns.training.presets import FULL, LITE


@pytest.mark.parametrize("pixels", [0.0, 40.0, LARGE_RADIUS])
@pytest.mark.parametrize("scene", [LITE.scene, FULL.scene], ids=["lite", "full"])
def test_presets_fit_objects_up_to_a_size(scene, pixels) -> None:
    assert Adaptation(pixels_per_radius=pixels).applied(scene) == scene


def test_a_large_object_gets_cells_and_an_outline_of_a_pixels_size() -> None:
    found = Adaptation(pixels_per_radius=570.0).applied(LITE.scene)
    assert found.foreground_grid == replace(LITE.scene.foreground_grid, max_resolution=1140)
    assert found.last_sharpness == 855.0
    assert found.cache_resolution == 128, "144 would be 8 pixels a cell, and 160 the multiple of 32"
    assert found.candidates == (24, 128, 32)
    assert not found.sky and found.light_codes == 0


def test_no_size_gets_coarser_than_it_was_chosen() -> None:
    found = Adaptation(pixels_per_radius=570.0).applied(FULL.scene)
    assert found.foreground_grid == FULL.scene.foreground_grid and found.last_sharpness == 855.0
    chosen = replace(FULL.scene, last_sharpness=1000.0, cache_resolution=160, candidates=(24, 200, 32))
    assert Adaptation(pixels_per_radius=570.0).applied(chosen) == chosen
