"""Tensors on a CUDA device that is not there: shapes, types and devices, no numbers."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def fake_cuda() -> FakeTensorMode:
    """The mode in which `device="cuda"` works everywhere. Reading a number on the host raises an error in it."""
    # torch's fused Adam has no fake implementation where the learning rate is a tensor. It only writes in place.
    with suppress(RuntimeError):  # there is one: an earlier call's, or a newer torch's
        torch.library.register_fake("aten::_fused_adam_.tensor_lr", lambda *given, **settings: None)
    return FakeTensorMode()
