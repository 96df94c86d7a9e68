"""`ns-export tsdf` takes space that no photo sees for solid.

Photos from one side alone then leave walls at the edges of what they see, and all that lies behind the object. Here
such space is the object where the model says so, and empty elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from surface_sos_ns.plugin.compat.patching import patch
from surface_sos_ns.utils.errors import UserError

__all__ = ["SolidObject", "fill_unseen_space"]

EXPORTER = "nerfstudio.exporter.tsdf_utils"


class SolidObject(Protocol):
    """A model that knows where the object is, world frame."""

    def inside_object(self, points: Tensor) -> Tensor:
        """(P,) bool: which points (P, 3) lie inside the object."""

    def object_box(self) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object."""


def fill_unseen_space(model: SolidObject) -> None:
    """Have nerfstudio's TSDF ask this model about voxels that no photo sees; a no-op unless ns-export is running.

    It offers no hook, so its `get_mesh` is replaced. That raises UserError where the box holds no surface.
    """
    exporter: Any = sys.modules.get(EXPORTER)  # ns-export imports it, no other command does
    if exporter is not None:
        patch(exporter.TSDF, "get_mesh", lambda mesh_of: _filled(mesh_of, model))


def _filled(mesh_of: Callable[..., Any], model: SolidObject) -> Callable[..., Any]:
    def get_mesh(volume: Any) -> Any:
        unseen = volume.weights == 0
        points = volume.voxel_coords.movedim(0, -1)[unseen]
        volume.values[unseen] = torch.where(model.inside_object(points), -1.0, 1.0).to(volume.values)
        if not bool((volume.values < 0).any()):
            low, high = (" ".join(f"{value:.3f}" for value in corner) for corner in model.object_box())
            raise UserError(
                "ns-export tsdf found no surface in the box it was given. The object lies within "
                f"--bounding-box-min {low} --bounding-box-max {high}: give it these."
            )
        return mesh_of(volume)

    return get_mesh
