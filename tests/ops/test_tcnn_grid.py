"""The hash grid through tiny-cuda-nn: what it lacks, and that it trains where it is installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.ops.choose import tcnn_problem
from surface_sos_ns.ops.cuda import grid_tcnn
from surface_sos_ns.ops.cuda.tcnn_ops import TcnnOps
from surface_sos_ns.ops.layout import GridLayout

LAYOUT = GridLayout(levels=5, features=2, log2_entries=10, base_resolution=4, max_resolution=37)


def zeros(layout: GridLayout) -> Tensor:
    return torch.zeros(int(layout.entries.sum()), layout.features)


def test_it_refuses_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="no gradient to points"):
        grid_tcnn.encode(torch.rand(2, 3, requires_grad=True), zeros(LAYOUT), LAYOUT)
    odd = GridLayout(levels=2, features=3, log2_entries=8, base_resolution=3, max_resolution=5)
    with pytest.raises(ValueError, match="not 3"):
        grid_tcnn.encode(torch.rand(2, 3), zeros(odd), odd)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_features_and_slopes() -> None:
    if tcnn_problem() is not None:
        pytest.skip(str(tcnn_problem()))
    grid, readout = HashGrid(LAYOUT, TcnnOps()).cuda(), nn.Linear(LAYOUT.width, 1).cuda()
    optimiser = torch.optim.Adam([*grid.parameters(), *readout.parameters()], lr=1e-2)
    losses = []
    for _ in range(60):
        points = torch.rand(1000, 3, device="cuda")
        features, slopes = grid(points, jacobian=True)
        gradient = torch.einsum("o,pod->pd", readout.weight[0], slopes)
        loss = (readout(features)[:, 0] - points[:, 0]).square().mean()
        loss = loss + 0.1 * (gradient - torch.tensor([1.0, 0.0, 0.0], device="cuda")).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
