"""How small networks on hash grids start: every unit can learn, whatever the seed."""

from __future__ import annotations

import pytest
import torch

from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.layers import relu_layer
from surface_sos_ns.ops.layout import GridLayout

GRID = GridLayout(levels=12, features=2, log2_entries=12, base_resolution=8, max_resolution=128)


@pytest.mark.parametrize("seed", range(6))
def test_no_unit_of_a_new_density_is_dead_or_always_on(seed: int) -> None:
    torch.manual_seed(seed)
    density = DensityField(GRID, 7, 2.0, -3.5, 32)
    features, _ = density.grid(torch.rand(4000, 3))
    assert float(features.abs().max()) < 1e-3  # that is how a grid starts
    on = (density.hidden(features) > 0).float().mean(0)
    assert on.min() > 0.05 and on.max() < 0.95


def test_a_layer_keeps_the_size_of_what_goes_through_it() -> None:
    """He et al.: after a ReLU, a layer's outputs have the mean square of its inputs, doubled by its weights."""
    torch.manual_seed(0)
    layer, given = relu_layer(400, 300), torch.randn(200, 400)
    passed = torch.relu(layer(given))
    assert float(passed.square().mean()) == pytest.approx(float(given.square().mean()), rel=0.05)
