"""A whole training step by Triton's kernels, in its interpreter, against the same step in torch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.torch_ops import TorchOps
from surface_sos_ns.training.presets import PRESETS
from tests.helpers.one_step import a_step, compare
from tests.helpers.small_scene import PAPER, TINY, start
from tests.helpers.triton_kernels import needs_triton, only_interpreted

pytestmark = [needs_triton, only_interpreted]


@pytest.mark.parametrize(("preset", "objects"), [("full", ()), ("full", ("left", "right")), ("paper", ())])
def test_it_equals_the_step_in_torch(preset: str, objects: tuple[str, ...]) -> None:
    scene = start(replace(PAPER if preset == "paper" else TINY, samples=8), steps=20, objects=objects)
    objective = replace(PRESETS[preset].objective, uniform_points=32, sparse_points=16)
    found = a_step(scene, objective, TritonOps(), 0.7, rays=12)
    compare(found, a_step(scene, objective, TorchOps(static=True), 0.7, rays=12), 2e-3, outliers=0.002)
