"""CO3D (Common Objects in 3D): videos around objects with masks, in PyTorch3D's camera conventions."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surface_sos_ns.capture.convert.conversion import Conversion, ConversionError, Scene, require
from surface_sos_ns.capture.views import Views

MAX_POINTS = 20_000
"""Points that are taken from a sequence's point cloud, at random."""


@dataclass
class Co3d(Conversion):
    """A sequence of CO3D: the folder CATEGORY/SEQUENCE, with CATEGORY/frame_annotations.jgz beside it. Its masks become
    coarse masks."""

    def read(self) -> Scene:
        """See `Conversion.read`."""
        annotations = self.source.resolve().parent / "frame_annotations.jgz"
        frames = _frames(annotations, self.source.resolve().name)
        try:
            return _scene(self.source.resolve(), sorted(frames, key=lambda frame: frame["frame_number"]), annotations)
        except (KeyError, TypeError) as error:
            raise ConversionError(
                f"{annotations}: an entry of {self.source.name} is not as in CO3D ({type(error).__name__}: {error})."
            ) from error


def _scene(source: Path, frames: list[dict[str, Any]], annotations: Path) -> Scene:
    root = source.parents[1]  # base of the paths in the annotations
    images = [root / frame["image"]["path"] for frame in frames]
    masks = [_mask(root, frame) for frame in frames]
    for path in [*images, *filter(None, masks)]:
        require(path.is_file(), f"{path} is missing, and {annotations} names it; download the sequence again.")
    poses, focal, principal = [], [], []
    size = np.array([frame["image"]["size"][::-1] for frame in frames])  # width, height
    for frame, extent in zip(frames, size, strict=True):
        camera = frame["viewpoint"]
        poses.append(_pose(np.array(camera["R"]), np.array(camera["T"])))
        half = _ndc_scale(camera, extent, annotations)
        focal.append(np.array(camera["focal_length"]) * half)
        # NDC's x points left and its y up.
        principal.append(extent / 2 - np.array(camera["principal_point"]) * half)
    fx, fy = np.transpose(focal)
    cx, cy = np.transpose(principal)
    views = Views(np.array(poses), fx, fy, cx, cy, size[:, 0], size[:, 1])
    return Scene(views, images, masks, _points(source / "pointcloud.ply"))


def _frames(annotations: Path, sequence: str) -> list[dict[str, Any]]:
    try:
        with gzip.open(annotations, "rt", encoding="utf-8") as stream:
            entries = json.load(stream)
    except (OSError, ValueError, EOFError) as error:
        raise ConversionError(
            f"{annotations} cannot be read ({error}). Name a sequence's folder, CATEGORY/SEQUENCE, of CO3D."
        ) from error
    found = [entry for entry in entries if entry["sequence_name"] == sequence]
    require(bool(found), f"{annotations} knows no sequence {sequence}.")
    return found


def _mask(root: Path, frame: dict[str, Any]) -> Path | None:
    mask = frame.get("mask") or {}
    return root / mask["path"] if mask.get("path") else None


def _pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(3, 4) OpenGL camera-to-world matrix from PyTorch3D's x_camera = x_world R + T (rows; left, up, forward)."""
    left, up, forward = rotation.T
    return np.stack([-left, up, -forward, -rotation @ translation], axis=-1)


def _ndc_scale(camera: dict[str, Any], size: np.ndarray, annotations: Path) -> np.ndarray:
    """(2,) pixels per unit of normalised device coordinates in x and y, by the format of the intrinsics."""
    kind = str(camera.get("intrinsics_format", "ndc_norm_image_bounds")).lower()
    if kind == "ndc_norm_image_bounds":
        return size / 2
    require(
        kind == "ndc_isotropic",
        f"{annotations}: intrinsics_format is {kind}; expected ndc_norm_image_bounds or ndc_isotropic.",
    )
    return np.full(2, size.min() / 2)


def _points(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions and colours of points of the sequence's point cloud; None if it has none."""
    if not path.is_file():
        return None
    from surface_sos_ns.capture.ply import read_ply_points

    points = read_ply_points(path)
    kept = np.sort(np.random.default_rng(0).permutation(len(points))[:MAX_POINTS])
    return points.xyz[kept], points.rgb[kept]
