"""Parts of pictures and meshes, as identities from 1; 0 is no part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.heads.parts import PartHead
from surface_sos_ns.utils.identity_colours import identity_bytes

if TYPE_CHECKING:
    import trimesh


def part_labels(head: PartHead, frame: ObjectFrame, points: np.ndarray) -> np.ndarray:
    """(P,) int64, from 1: the part of points (P, 3) of the surface, world frame."""
    return head.identities(frame.points(torch.as_tensor(points, dtype=torch.float32))).cpu().numpy()


def set_parts(mesh: trimesh.Trimesh, labels: np.ndarray, parts: int) -> None:
    """Give a mesh the parts of its vertices (V,), from 1, as the attribute `part`, and their colours."""
    import trimesh

    mesh.vertex_attributes["part"] = labels.astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=identity_bytes(parts)[labels - 1])
