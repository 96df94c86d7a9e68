"""One training step of a small scene, with given operations, and how two of them are compared."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.training.objective import ObjectiveConfig, draw_regulariser_points, training_losses
from tests.helpers.small_scene import a_batch, slice_of


class Step(NamedTuple):
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    state: dict[str, Tensor]  # what a step counts: rays in the background, errors of the masks, residuals


def a_step(scene: SurfaceSOS, objective: ObjectiveConfig, ops: TorchOps, progress: float, rays: int = 96) -> Step:
    """One step of a copy of the scene, from the same random numbers each time."""
    twin = SurfaceSOS(scene.config, views=3, objects=scene.objects)
    twin.load_state_dict(scene.state_dict())
    use_ops(twin, ops)
    twin.train()
    twin.set_progress(progress)
    torch.manual_seed(7)
    (origins, directions), photo, mask, weight = a_batch(rays)
    view = torch.arange(rays) % 3
    sparse = torch.nn.functional.normalize(torch.randn(700, 3), dim=-1) * torch.rand(700, 1) * 0.9
    mask = torch.where(torch.rand(rays) < 0.1, 1 - mask, mask)
    several, count = bool(scene.objects), len(scene.objects)
    identity = slice_of(origins, count) * (mask > 0) if several else None  # rays are parallel: x as on the ball
    points = draw_regulariser_points(objective, sparse, torch.device("cpu"))
    rendering = twin.render(origins, directions, view, regulariser_points=points)
    losses = training_losses(twin, objective, rendering, photo, mask, weight * (view > 0), view, sparse * 1.5, identity)
    torch.stack(list(losses.values())).sum().backward()
    return Step(
        {name: loss.detach() for name, loss in losses.items()},
        {name: parameter.grad for name, parameter in twin.named_parameters()},
        {name: value.clone() for name, value in twin.named_buffers()},
    )


def compare(found: Step, truth: Step, tolerance: float, outliers: float = 0.0) -> None:
    """Equal up to rounding, but for a share of a gradient's entries: rounding may take a sample to the next cell."""
    for name in found.losses | truth.losses:  # a loss that is off may be missing
        one, two = (float(step.losses.get(name, torch.zeros(()))) for step in (found, truth))
        assert one == pytest.approx(two, rel=tolerance, abs=1e-7), name
    for name, expected in truth.gradients.items():
        got = found.gradients[name]
        if expected is None or got is None:
            nothing = got if expected is None else expected
            assert nothing is None or not nothing.any(), name
            continue
        off = (got - expected).abs() > tolerance * float(expected.abs().max()) + 1e-9
        assert float(off.float().mean()) <= outliers, name
    for name, expected in truth.state.items():
        got, expected = found.state[name].float(), expected.float()
        if name.endswith("light"):
            got, expected = (light.sum((1, 2)).cumsum(0) for light in (got, expected))
        assert torch.allclose(got, expected, rtol=tolerance, atol=1e-5), name
