"""Sharpness and margin as numbers on the device: the same samples, and nothing waits for the host to read them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from surface_sos_ns.ops.cpu.numba_ops import NumbaOps
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.sampling.field_cache import FieldCache, look_up_nearest
from tests.helpers.cached_ball import PLAN, cached_ball, rays
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.no_synchronisation import NoSynchronisation


def test_numbers_on_the_device_give_the_same_samples() -> None:
    given = (*cached_ball(), *rays(333))
    for number, limit in ((12.0, 0.03), (400.0, 0.08)):  # below and above what the cache resolves
        plain = replace(PLAN, sharpness=number, margin=limit)
        on_device = replace(PLAN, sharpness=torch.tensor(number), margin=torch.tensor(limit))
        for ops in (TORCH, NumbaOps()):
            for kind in ({}, {"foreground_only": True}):
                expected, found = (ops.sample_rays(*given, replace(p, **kind), False) for p in (plain, on_device))
                pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
                assert all(torch.equal(one, other) for one, other in pairs if isinstance(one, torch.Tensor))


@pytest.mark.parametrize("stratified", [False, True])
def test_on_cuda_the_host_waits_for_no_edges(stratified: bool) -> None:
    with fake_cuda(), torch.device("cuda"), NoSynchronisation():
        numbers = torch.ones(())
        plan = replace(PLAN, sharpness=numbers, margin=numbers)
        cache = FieldCache(8, 8, splits=True)
        origins = torch.rand(5, 3)
        edges = TORCH.sample_edges(cache, origins, origins, plan, stratified)
        assert edges.shape == (5, PLAN.samples + 1) and edges.device.type == "cuda"
        assert TORCH.look_up_in_cube(cache.gate, origins).shape == (5,)
        assert (look_up_nearest(cache.sdf, origins, 1.0) < plan.margin).shape == (5,)
