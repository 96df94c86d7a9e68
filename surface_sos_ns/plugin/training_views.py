"""The training views' poses, which may be refined, and times: kept in the checkpoint, for rendering."""

from __future__ import annotations

import dataclasses

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn

POSE_TOLERANCE = 1e-4
"""Largest difference between the entries of one pose: the data parser's last digits differ between machines."""


class TrainingViews(nn.Module):
    """What must be known of the training views when a view is rendered; a part of the checkpoint.

    Args:
        count: number of training views.
        config: nerfstudio's, of the corrections of their poses.

    Attributes:
        optimizer: nerfstudio's corrections, world frame.
    """

    poses: Tensor
    times: Tensor

    def __init__(self, count: int, config: CameraOptimizerConfig):
        super().__init__()
        self.optimizer: CameraOptimizer = config.setup(num_cameras=count, device="cpu")
        self.register_buffer("poses", torch.full((count, 3, 4), torch.nan))  # until training sets them
        self.register_buffer("times", torch.zeros(count))

    def set(self, cameras: Cameras) -> None:
        """Take over the training cameras, world frame, as the capture has them."""
        self.poses.copy_(cameras.camera_to_worlds[:, :3])
        if cameras.times is not None:
            self.times.copy_(cameras.times[:, 0])

    @torch.no_grad()
    def remove_common_motion(self) -> None:
        """Take out of the corrections what moves, turns or scales all views alike; to be called after each step.

        The colours cannot tell it from a change of the world frame, so it would drift, and the held-out views, which
        have no corrections, would be left behind. First order: the least-squares fit of an infinitesimal similarity.
        """
        if self.optimizer.config.mode == "off":
            return
        corrections = self.optimizer.pose_adjustment  # (N, 6) translations, then rotations (axis times angle)
        centres = self.poses[:, :, 3] - self.poses[:, :, 3].mean(0)
        axes = torch.eye(3, device=centres.device).expand(len(centres), 3, 3)
        moved = torch.cat([axes, torch.zeros_like(axes)], -1)  # (N, kind, 6)
        turned = torch.cat([torch.linalg.cross(axes, centres[:, None].expand_as(axes)), axes], -1)
        scaled = torch.cat([centres, torch.zeros_like(centres)], -1)[:, None]
        common = torch.cat([moved, turned, scaled], 1).transpose(0, 1).reshape(7, -1)
        basis = torch.linalg.qr(common.T).Q
        corrections.sub_((basis @ (basis.T @ corrections.reshape(-1))).reshape(corrections.shape))

    def index_of(self, camera: Cameras) -> int | None:
        """Which training view has this one camera's pose; None where none has."""
        nearest, apart = self._nearest(camera)
        return nearest if apart < POSE_TOLERANCE else None

    def with_time(self, camera: Cameras) -> Cameras:
        """One camera with a time: its own, or that of the training view whose pose is nearest (the first of equals)."""
        if camera.times is not None:
            return camera
        return dataclasses.replace(camera, times=self.times[self._nearest(camera)[0]].reshape(1, 1).to(camera.device))

    def _nearest(self, camera: Cameras) -> tuple[int, float]:
        """The training view whose pose differs least from this one camera's, and by how much in any entry."""
        pose = camera.camera_to_worlds.reshape(-1, 4)[:3].to(self.poses)
        apart = (self.poses - pose).abs().amax((1, 2)).nan_to_num(torch.inf)
        return int(apart.argmin()), float(apart.min())

    def with_refined_pose(self, camera: Cameras) -> Cameras:
        """One camera with its pose corrected, where it is a training view's; held-out views and paths stay as given."""
        view = None if self.optimizer.config.mode == "off" else self.index_of(camera)
        if view is None:
            return camera
        known = dataclasses.replace(camera, metadata={"cam_idx": view})  # how nerfstudio says which one it is
        return dataclasses.replace(camera, camera_to_worlds=self.optimizer.apply_to_camera(known))
