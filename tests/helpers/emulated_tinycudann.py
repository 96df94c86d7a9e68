"""A stand-in for the package tinycudann: one level of its grid, in plain torch."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from surface_sos_ns.ops.cuda import grid_tcnn


class EmulatedEncoding(nn.Module):
    """What tiny-cuda-nn documents and its `grid.h` does for one linearly interpolated level."""

    def __init__(self, n_input_dims: int, encoding_config: dict, seed: int = 1337, dtype: torch.dtype | None = None):
        super().__init__()
        config = dict(encoding_config)
        assert n_input_dims == 3 and dtype == torch.float32
        assert config.pop("otype") == "Grid" and config.pop("type") == "Hash"
        assert config.pop("interpolation") == "Linear" and config.pop("n_levels") == 1
        self.features, base = config.pop("n_features_per_level"), config.pop("base_resolution")
        most = 2 ** config.pop("log2_hashmap_size")
        assert not config, f"options that this emulation does not know: {config}"
        self.scale = float(base) - 1.0
        self.resolution = int(np.ceil(self.scale)) + 1
        self.size = min(-(-(self.resolution**3) // 8) * 8, most)
        self.params = nn.Parameter(torch.zeros(self.size * self.features))

    def forward(self, x: Tensor) -> Tensor:
        assert self.params.shape == (self.size * self.features,)
        position = (x.double() * self.scale + 0.5).float()  # fused multiply-add
        cell = position.floor()
        fraction, table = position - cell, self.params.reshape(self.size, self.features)
        result = x.new_zeros(x.shape[0], self.features)
        for corner in range(8):
            offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
            vertex = cell.long() + offset
            dense = (vertex * torch.tensor([1, self.resolution, self.resolution**2])).sum(-1)
            primes = vertex * torch.tensor([1, 2654435761, 805459861])
            hashed = primes[:, 0] ^ primes[:, 1] ^ primes[:, 2]
            index = (hashed if self.size < self.resolution**3 else dense) % 2**32 % self.size
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1, keepdim=True)
            result = result + weight * table[index]
        return result


def emulate_tinycudann(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `import tinycudann` give the emulation until the end of the test."""
    package = types.ModuleType("tinycudann")
    package.Encoding = EmulatedEncoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", package)
    monkeypatch.setattr(grid_tcnn, "_level_encoding", grid_tcnn._level_encoding.__wrapped__)  # not the cached ones
