"""From a capture's own frame to nerfstudio's world frame: turned upright, centred, and scaled to the unit cube."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from surface_sos_ns.capture.checks import CaptureError

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    from surface_sos_ns.capture.transforms import Transforms

__all__ = ["OLD_APPLIED_TRANSFORM", "ExactDataparserOutputs", "WorldFrame", "world_frame"]

FAR_FROM_ORIGIN = 100.0
"""Distance of the cameras from the origin, over their extent, from which on they are centred before nerfstudio gets
them: it computes in single precision, which would then place them badly."""

OLD_APPLIED_TRANSFORM = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
"""ns-process-data's transform of COLMAP's frame, in versions that did not write it to transforms.json."""


@dataclass(frozen=True, eq=False)
class WorldFrame:
    """How a capture lies in nerfstudio's world frame.

    Attributes:
        poses: (N, 3, 4) float32 camera-to-world, in the order of the capture's frames.
        transform: (3, 4) float64, from the frame of transforms.json to the world frame, without the scale.
        scale: factor after it.
        applied: (4, 4) from the frame of the program that found the poses to that of transforms.json.
        offset: (3,) what was taken off before single precision, frame of transforms.json; zeros as a rule.
    """

    poses: np.ndarray
    transform: np.ndarray
    scale: float
    applied: np.ndarray
    offset: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) float64, from the frame of transforms.json to the world frame, scale included."""
        return np.vstack([self.scale * self.transform, [0, 0, 0, 1]])

    def point(self, point: np.ndarray) -> np.ndarray:
        """(3,) of transforms.json's frame in the world frame."""
        return self.scale * (self.transform[:, :3] @ np.asarray(point, dtype=np.float64) + self.transform[:, 3])

    def for_nerfstudio(self, applied_scale: float) -> dict[str, torch.Tensor | float]:
        """``dataparser_transform`` and ``dataparser_scale``: from the frame of the program that found the poses.

        In double precision where the capture is far from its origin, see `ExactDataparserOutputs`.
        """
        transform = torch.from_numpy(self.transform @ self.applied)
        exact = bool(self.offset.any())
        return {
            "dataparser_transform": transform if exact else transform.float(),
            "dataparser_scale": self.scale * applied_scale,
        }


def world_frame(capture: Transforms, order: np.ndarray, config: NerfstudioDataParserConfig) -> WorldFrame:
    """nerfstudio's own way of turning, centring and scaling the cameras.

    Args:
        capture: N frames.
        order: (N,) indices that sort the frames as nerfstudio does, whose sums go in that order.
        config: how to orient, centre and scale.

    Raises:
        CaptureError: the cameras have no common upward direction, or the scale is no positive number.
    """
    if not 0 < config.scale_factor < np.inf:
        raise CaptureError(f"--scale-factor is {config.scale_factor}; expected a positive number.")
    method: Any = capture.orientation or config.orientation_method
    poses = np.tile(np.eye(4), (len(capture), 1, 1))
    poses[:, :3] = capture.views.camera_to_world
    offset = _offset(poses[:, :3, 3])
    poses[:, :3, 3] -= offset
    turned, transform = auto_orient_and_center_poses(
        torch.from_numpy(poses[order].astype(np.float32)), method=method, center_method=config.center_method
    )
    if not bool(torch.isfinite(turned).all()):
        raise CaptureError(
            f"{capture.source}: the cameras' upward directions cancel out, so the scene cannot be turned upright by "
            f"the method '{method}'. Use --orientation-method none or pca."
        )
    scale = 1.0
    if config.auto_scale_poses:
        scale /= float(torch.max(torch.abs(turned[:, :3, 3])))
    scale *= config.scale_factor
    turned[:, :3, 3] *= scale
    unsorted = np.empty((len(capture), 3, 4), dtype=np.float32)
    unsorted[order] = turned[:, :3].numpy()
    exact = transform.double().numpy()
    exact = np.column_stack([exact[:, :3], exact[:, 3] - exact[:, :3] @ offset])
    return WorldFrame(unsorted, exact, scale, _applied(capture), offset)


def _offset(centres: np.ndarray) -> np.ndarray:
    """(3,) middle of the cameras (N, 3) where it is so far from the origin that single precision will not do."""
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    extent = float(np.ptp(centres, axis=0).max())
    return middle if np.abs(middle).max() > FAR_FROM_ORIGIN * extent else np.zeros(3)


def _applied(capture: Transforms) -> np.ndarray:
    if capture.applied_transform is not None:
        return capture.applied_transform
    return OLD_APPLIED_TRANSFORM if (capture.folder / "colmap" / "sparse" / "0").exists() else np.eye(4)


@dataclass
class ExactDataparserOutputs(DataparserOutputs):
    """nerfstudio's outputs, whose transform may be in double precision: for poses in map coordinates."""

    def transform_poses_to_original_space(
        self, poses: torch.Tensor, camera_convention: Literal["opengl", "opencv"] = "opencv"
    ) -> torch.Tensor:
        """Poses (N, 3, 4) in the frame of the program that found the poses, in the precision of the transform."""
        exact = dataclasses.replace(self, dataparser_transform=self.dataparser_transform.double())
        found = DataparserOutputs.transform_poses_to_original_space(exact, poses.double(), camera_convention)
        return found.to(torch.promote_types(poses.dtype, self.dataparser_transform.dtype))
