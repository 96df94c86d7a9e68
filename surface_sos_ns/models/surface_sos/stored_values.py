"""Small values in a checkpoint, as tensors: JSON in UTF-8."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor


def as_tensor(value: Any) -> Tensor:
    """(N,) uint8 of a value that JSON can hold."""
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def from_tensor(stored: Tensor) -> Any:
    """The value that `as_tensor` was given; tuples have become lists."""
    return json.loads(bytes(stored.tolist()).decode())
