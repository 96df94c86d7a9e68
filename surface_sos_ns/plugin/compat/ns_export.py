"""What `ns-export tsdf` makes of space that no photo sees: the object where the model says so, else nothing.

nerfstudio takes such space for solid. Photos from one side alone then leave walls at the edges of what they see, and
all that lies behind the object.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

import torch

from surface_sos_ns.utils.errors import UserError

if TYPE_CHECKING:
    from surface_sos_ns.plugin.model import SurfaceSOSModel

EXPORTER = "nerfstudio.exporter.tsdf_utils"


def fill_unseen_space(model: SurfaceSOSModel) -> None:
    """Have nerfstudio's TSDF ask this model about voxels that no photo sees; a no-op unless ns-export is running.

    It offers no hook, so its `get_mesh` is wrapped, for this process.
    """
    exporter: Any = sys.modules.get(EXPORTER)  # ns-export imports it, no other command does
    if exporter is None:
        return
    mesh_of = getattr(exporter.TSDF.get_mesh, "__wrapped__", exporter.TSDF.get_mesh)

    @functools.wraps(mesh_of)
    def get_mesh(volume: Any) -> Any:
        scene, unseen = model.scene, volume.weights == 0
        points = scene.frame.points(volume.voxel_coords.movedim(0, -1)[unseen])
        # What moves a little is taken as it is in the middle of the clip.
        time = None if scene.deformation is None else torch.full_like(points[:, 0], 0.5)
        volume.values[unseen] = torch.where(scene.object_grid.inside(points, time), -1.0, 1.0).to(volume.values)
        if not bool((volume.values < 0).any()):
            low, high = (" ".join(f"{value:.3f}" for value in corner) for corner in model.object_box())
            raise UserError(
                "ns-export tsdf found no surface in the box it was given. The object lies within "
                f"--bounding-box-min {low} --bounding-box-max {high}: give it these."
            )
        return mesh_of(volume)

    exporter.TSDF.get_mesh = get_mesh
