"""The demo scene as training data: rays, colours, masks, and the object prior."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from surface_sos_ns.bench.settings import BenchError
from surface_sos_ns.capture.object_names import default_object_names
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.initialisation import SightLines, camera_distance, sight_lines
from surface_sos_ns.sampling.field_cache import cell_centres
from surface_sos_ns.utils.extras import missing_package

if TYPE_CHECKING:
    from surface_sos_ns.capture.object_prior import ObjectPrior
    from surface_sos_ns.capture.views import Views

CAPTURE: dict[str, Any] = {"views": 32, "width": 128, "height": 96, "quality": 0.3}
"""Settings of the small capture that is rendered if none is given."""
BAND_FRACTION = 0.5
"""Fraction of the rays that are drawn in and around the hull's silhouettes, as in training."""
BAND_WIDTH = 0.03
"""Width of the band around a silhouette, as a fraction of the photo's longer side."""


@dataclass(frozen=True)
class Batch:
    """R rays with their training targets, object frame."""

    origins: Tensor  # (R, 3)
    directions: Tensor  # (R, 3) unit
    view: Tensor  # (R,) index of the training view
    photo: Tensor  # (R, 3) in [0, 1]
    mask: Tensor  # (R,) coarse mask, 0 or 1
    mask_weight: Tensor  # (R,) weight of the view's mask in [0, 1]
    identity: Tensor  # (R,) int64, which object the mask shows, 0 for none


@dataclass(frozen=True)
class SceneData:
    """All pixels of the N training views as rays, and the object prior; object frame unless stated otherwise."""

    pixels: Batch  # of all views
    band: Tensor  # (B,) indices of pixels in and around the hull's silhouettes
    frame: ObjectFrame  # of the object
    contraction_radius: float  # distance of the cameras from the centre, object radii, see `camera_distance`
    hull: Tensor  # (V, V, V) probability
    signed_distance: Tensor  # (V, V, V) to the hull
    lines: SightLines  # sparse points
    view_count: int
    held_out: Views  # world frame
    held_out_masks: list[np.ndarray]  # (H, W) bool, true masks
    objects: tuple[str, ...] = ()  # names of several objects; empty for one
    hull_identity: Tensor | None = None  # (V, V, V) uint8 in 1 to K, whose hull it is; None with one object

    def in_bands(self, count: int) -> SceneData:
        """The same, with the object taken for several: bands of one height of its hull, the lowest the first.

        A pixel shows the band of that point of its ray that is nearest to the object's centre.
        """
        size = self.hull.shape[0]
        heights = cell_centres(torch.arange(size), size, 1.0)[:, 2]
        solid = heights[(self.hull > 0.5).any(0).any(0)] if bool((self.hull > 0.5).any()) else heights
        low, high = float(solid.min()), float(solid.max())

        def band(z: Tensor) -> Tensor:
            return ((z - low) / (high - low) * count).floor().long().clamp(0, count - 1) + 1

        origins, directions = self.pixels.origins, self.pixels.directions
        nearest = origins[:, 2] - (origins * directions).sum(-1) * directions[:, 2]
        identity = band(nearest) * (self.pixels.mask > 0)
        return replace(
            self,
            pixels=replace(self.pixels, identity=identity),
            objects=default_object_names(count),
            hull_identity=band(heights).to(torch.uint8).expand(size, size, size),
        )

    def batches(self, rays: int, seed: int) -> Iterator[Batch]:
        """Endless random batches: half of the rays in the band around the object, half from all pixels."""
        device = self.pixels.origins.device
        generator = torch.Generator().manual_seed(seed)
        near = round(rays * BAND_FRACTION) if len(self.band) else 0
        total = len(self.pixels.view)
        while True:
            in_band = self.band[torch.randint(max(len(self.band), 1), (near,), generator=generator).to(device)]
            anywhere = torch.randint(total, (rays - near,), generator=generator).to(device)
            chosen = torch.cat([in_band, anywhere])
            yield Batch(*(values[chosen] for values in vars(self.pixels).values()))

    def view_rays(self, index: int, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Origins and directions (H * W, 3) of the rays of a held-out view resized to width x height, object frame."""
        view = self.held_out.subset([index])
        scale = np.array([view.width[0] / width, view.height[0] / height])
        directions = view.rays(0, _pixel_centres(width, height) * scale)
        device = self.pixels.origins.device
        origin = self.frame.points(torch.as_tensor(view.centres()[0], dtype=torch.float32))
        rays = torch.as_tensor(directions, dtype=torch.float32, device=device)
        return origin.to(device).expand_as(rays).contiguous(), rays


def capture_folder() -> Path:
    """The cache folder of the small capture; its name has a digest of the capture's settings."""
    from surface_sos_ns.demo.capture import capture_settings

    cache = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(cache) if cache else Path.home() / ".cache"
    digest = hashlib.sha256(json.dumps(capture_settings(seed=0, **CAPTURE), sort_keys=True).encode()).hexdigest()
    return root / "surface-sos" / f"bench-capture-{digest[:12]}"


def find_capture(folder: Path | None) -> Path:
    """The capture to measure on; rendered where there is none yet (10 to 20 seconds).

    Args:
        folder: one that `surface-sos capture` wrote, or where to render; None: the user's cache folder.

    Raises:
        BenchError: there is none to read, and embreex, which renders it, is not installed.
    """
    if folder is None:
        folder = capture_folder()
    if not (folder / "transforms.json").is_file():
        problem = missing_package("embreex", "Rendering the demo capture")
        if problem is not None:
            raise BenchError(
                f"{problem} Or name a capture that `surface-sos capture` rendered elsewhere: --capture FOLDER."
            )
        from surface_sos_ns.demo.capture import write_demo_capture

        write_demo_capture(folder, seed=0, **CAPTURE)
    return folder


def load_scene(folder: Path, hull_slack: float, device: torch.device) -> SceneData:
    """Reads a demo capture and makes its object prior.

    Args:
        folder: a capture as `surface-sos capture` writes it.
        hull_slack: see `Preset.hull_slack`.
        device: of the tensors.

    Raises:
        BenchError: the folder holds another kind of capture.
        ImageError: a photo or a mask cannot be read.
    """
    from surface_sos_ns.capture.mask_files import read_mask
    from surface_sos_ns.capture.object_files import read_coarse_mask
    from surface_sos_ns.capture.object_prior import build_object_prior
    from surface_sos_ns.capture.ply import read_ply_points
    from surface_sos_ns.utils.image_io import read_image

    description = json.loads((folder / "transforms.json").read_text())
    needed = ("train_filenames", "test_filenames", "ply_file_path", "fl_x", "k1")
    if any(key not in description for key in needed) or "coarse_mask_path" not in description["frames"][0]:
        raise BenchError(f"{folder} is not a demo capture; name one that `surface-sos capture` wrote.")
    frames = {frame["file_path"]: frame for frame in description["frames"]}
    training = [frames[name] for name in description["train_filenames"]]
    held_out = [frames[name] for name in description["test_filenames"]]

    def mask(path: str) -> np.ndarray:
        return read_mask(folder / path) >= 0.5

    views = _views(description, training)
    images = [read_image(folder / frame["file_path"]) for frame in training]
    names, size = description.get("object_names", ()), (description["w"], description["h"])
    coarse = [read_coarse_mask(folder / frame["coarse_mask_path"], names, size)[0] for frame in training]
    masks = [found >= 0.5 for found in coarse]
    prior = build_object_prior(views, masks, read_ply_points(folder / description["ply_file_path"]))
    assert prior.points is not None
    hull = prior.initial_hull(hull_slack)
    frame = ObjectFrame(prior.sphere.centre, prior.sphere.radius)
    width, height = description["w"], description["h"]
    coords = _pixel_centres(width, height)
    count = len(coords)

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32, device=device)

    cameras = frame.points(torch.as_tensor(views.centres(), dtype=torch.float32))
    pixels = Batch(
        origins=cameras.repeat_interleave(count, 0).to(device),
        directions=tensor(np.concatenate([views.rays(index, coords) for index in range(len(views))])),
        view=torch.arange(len(views), device=device).repeat_interleave(count),
        photo=tensor(np.stack(images).reshape(-1, 3) / 255.0),
        mask=tensor(np.stack(masks).reshape(-1)),
        mask_weight=tensor(np.repeat(prior.hull.view_weights, count)),
        identity=tensor(np.stack(masks).reshape(-1)).long(),
    )
    return SceneData(
        pixels=pixels,
        band=torch.as_tensor(_band(prior, views, width, height), device=device),
        frame=frame,
        contraction_radius=camera_distance(cameras),
        hull=torch.as_tensor(hull.probability),
        signed_distance=torch.as_tensor(hull.signed_distance()),
        lines=sight_lines(prior.points, cameras, frame, device),
        view_count=len(views),
        held_out=_views(description, held_out),
        held_out_masks=[mask(frame["gt_mask_path"]) for frame in held_out],
    )


def _views(description: dict[str, Any], frames: list[dict[str, Any]]) -> Views:
    from surface_sos_ns.capture.views import Views

    count = len(frames)
    keys = {"fx": "fl_x", "fy": "fl_y", "cx": "cx", "cy": "cy", "width": "w", "height": "h"}
    lens = [float(description.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")]
    return Views(
        camera_to_world=np.array([frame["transform_matrix"] for frame in frames])[:, :3],
        distortion=np.tile(lens, (count, 1)),
        **{name: np.full(count, description[key]) for name, key in keys.items()},
    )


def _pixel_centres(width: int, height: int) -> np.ndarray:
    """(W * H, 2) pixel centres (x, y), row by row."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _band(prior: ObjectPrior, views: Views, width: int, height: int) -> np.ndarray:
    """(B,) indices, over the pixels of all views, of those in the hull's silhouettes or within `BAND_WIDTH`."""
    from surface_sos_ns.capture.hull_projection import outline_band, project_hull

    shown = project_hull(prior.hull, prior.sphere, views, (height, width))
    bands = [outline_band(np.asarray(view) > 0.5, BAND_WIDTH * max(width, height)) for view in shown]
    return np.flatnonzero(np.stack(bands))
