"""Part heads whose parts are known: learned from them directly, without a run."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.ops.torch_ops import TORCH
from surface_sos_ns.plugin.part_results import PartFacts, save_parts


def bands(points: Tensor, parts: int) -> Tensor:
    """(...,) the part of points (..., 3) within a ball of radius 0.5: bands of one height along x, from 1."""
    return 1 + ((points[..., 0] + 0.5) * parts).long().clamp(0, parts - 1)


def band_head(parts: int, steps: int = 60) -> PartHead:
    """A head that tells the bands of a ball of radius 0.5 about the origin of the object frame."""
    generator = torch.Generator().manual_seed(0)
    head = PartHead(parts, TORCH)
    adam = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(steps):
        points = 0.5 * F.normalize(torch.randn(1024, 3, generator=generator), dim=-1)
        loss = F.cross_entropy(head.field(points), bands(points, parts) - 1)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return head.requires_grad_(False)


def save_bands(run: Path, parts: int, order: int, checkpoint: str = "step-1.ckpt") -> None:
    """Such a head as a result beside a run."""
    facts = PartFacts(checkpoint, "bands", 0, (1 / parts,) * parts, (1,) * parts, order)
    save_parts(run, band_head(parts), facts)
