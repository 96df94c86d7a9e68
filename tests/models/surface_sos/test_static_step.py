"""A step with fixed shapes, which evaluates fields at all samples, equals one that lists the samples that matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surface_sos_ns.models.surface_sos.adaptation import Adaptation
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.training.objective import ObjectiveConfig
from surface_sos_ns.training.presets import PRESETS
from tests.helpers.one_step import a_step, compare
from tests.helpers.small_scene import DIRECTIONAL, PAPER, TINY, start

SCENES = {
    "default": (TINY, PRESETS["full"].objective, ()),
    "several objects": (TINY, PRESETS["full"].objective, ("left", "middle", "right")),
    "changing light": (Adaptation(changing_light=True).applied(TINY), PRESETS["full"].objective, ()),
    "a room before the camera": (Adaptation(room=(8, 6)).applied(TINY), PRESETS["full"].objective, ()),
    "paper": (PAPER, PRESETS["paper"].objective, ()),
    "directional": (DIRECTIONAL, PRESETS["full"].objective, ()),
    "density in front": (replace(TINY, foreground="density"), replace(PRESETS["full"].objective, eikonal=0.0), ()),
}
STATIC = TorchOps(static=True)


@pytest.fixture(scope="module", params=SCENES)
def started(request: pytest.FixtureRequest) -> tuple[SurfaceSOS, ObjectiveConfig]:
    config, objective, objects = SCENES[request.param]
    return start(config, steps=60, objects=objects), objective


@pytest.mark.parametrize("progress", [0.0, 0.15, 0.7, 1.0])
def test_it_equals_the_listed_step(started: tuple[SurfaceSOS, ObjectiveConfig], progress: float) -> None:
    truth = a_step(*started, TorchOps(), progress)
    found = a_step(*started, STATIC, progress)
    assert len(truth.losses) >= 5 and max(map(float, truth.losses.values())) > 1e-3
    compare(found, truth, 2e-4)


def test_it_equals_the_compiled_step(started: tuple[SurfaceSOS, ObjectiveConfig]) -> None:
    numba = choose_ops("numba", torch.device("cpu"))
    compare(a_step(*started, STATIC, 0.7), a_step(*started, numba, 0.7), 2e-3)
