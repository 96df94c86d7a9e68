"""Rays of the training cameras, undistorted once instead of in each batch."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

__all__ = ["TabulatedRays"]


class TabulatedRays(RayGenerator):
    """nerfstudio's rays, with the undistorted direction of each pixel computed once.

    Undistorting is iterative and would cost more than the rest of a batch. Views that share intrinsics share a table.
    Where the tables would exceed ``most_pixels``, or cameras carry metadata, nerfstudio's generator is used.

    Args:
        cameras: the training cameras.
        most_pixels: limit of all tables together, 20 bytes each.
    """

    def __init__(self, cameras: Cameras, most_pixels: int = 3_000_000) -> None:
        super().__init__(cameras)
        self.table: Tensor | None = None
        distortion = cameras.distortion_params
        columns = [cameras.fx, cameras.fy, cameras.cx, cameras.cy, cameras.width, cameras.height, cameras.camera_type]
        columns += [] if distortion is None else [distortion]
        rows = torch.cat([column.double() for column in columns], dim=-1)
        distinct, group = torch.unique(rows, dim=0, return_inverse=True)
        pixels = (distinct[:, 4] * distinct[:, 5]).long()
        if int(pixels.sum()) > most_pixels or cameras.metadata:
            return
        firsts = torch.stack([torch.nonzero(group == index)[0, 0] for index in range(len(distinct))])
        self.table = torch.cat([self._tabulate(cameras[int(first)]) for first in firsts])
        starts = torch.cumsum(pixels, 0) - pixels
        self.table_start = starts[group]
        self.table_width = cameras.width.flatten().long()

    @staticmethod
    def _tabulate(camera: Cameras) -> Tensor:
        """(H * W, 5): unit direction in the camera's axes, pixel area, norm of the direction before normalising."""
        still = Cameras(
            camera_to_worlds=torch.eye(4, device=camera.device)[None, :3],
            fx=camera.fx[None],
            fy=camera.fy[None],
            cx=camera.cx[None],
            cy=camera.cy[None],
            width=camera.width[None],
            height=camera.height[None],
            distortion_params=None if camera.distortion_params is None else camera.distortion_params[None],
            camera_type=camera.camera_type[None],
        )
        coords = still.get_image_coords().reshape(-1, 2)
        parts = []
        for chunk in coords.split(200_000):
            rays = still.generate_rays(torch.zeros(len(chunk), 1, dtype=torch.long, device=camera.device), chunk)
            parts.append(torch.cat([rays.directions, rays.pixel_area, rays.metadata["directions_norm"]], dim=-1))
        table = torch.cat(parts)
        # nerfstudio divides 0 by 0 on the axis of a fisheye lens.
        axis = torch.tensor([0.0, 0.0, -1.0, float(table[:, 3].nanmedian()), 1.0], device=table.device)
        return torch.where(torch.isfinite(table).all(dim=-1, keepdim=True), table, axis)

    def forward(self, ray_indices: Tensor) -> RayBundle:
        """Rays of view, row, column (R, 3)."""
        if self.table is None:
            return super().forward(ray_indices)
        view, row, column = ray_indices.to(self.table.device).unbind(-1)
        found = self.table[self.table_start[view] + row * self.table_width[view] + column]
        pose = self.cameras.camera_to_worlds[view]
        return RayBundle(
            origins=pose[:, :, 3],
            directions=(pose[:, :, :3] * found[:, None, :3]).sum(dim=-1),
            pixel_area=found[:, 3:4],
            camera_indices=view[:, None],
            times=None if self.cameras.times is None else self.cameras.times[view],
            metadata={"directions_norm": found[:, 4:5]},
        )
