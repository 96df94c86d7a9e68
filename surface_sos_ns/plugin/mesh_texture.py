"""A texture for a mesh of a trained model, from the photos that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

from surface_sos_ns.capture.views import Views
from surface_sos_ns.models.surface_sos.appearance_fit import fitted_exposure
from surface_sos_ns.models.surface_sos.mesh import surface_colours
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.plugin.cameras import views_from_cameras
from surface_sos_ns.plugin.console import warn
from surface_sos_ns.plugin.model import SurfaceSOSModel
from surface_sos_ns.texture.atlas import unwrapped
from surface_sos_ns.texture.bake import baked, texture_size, textured
from surface_sos_ns.texture.photos import Occluder, Photo, colours_in, sight_of

if TYPE_CHECKING:
    import trimesh

__all__ = ["PosedPhoto", "with_texture"]

MATTE_SIDE = 480
"""Longest side of the mattes that say where a photo shows the object, pixels."""

GOOD_PHOTOS = 80
"""Percentile of the photos, by pixels per area of the surface: a texture of chosen size has a texel for each pixel of
that photo."""


class PosedPhoto(NamedTuple):
    """A training photo."""

    camera: Cameras  # (1,) of the photo's size and lens, world frame, pose as the capture has it
    view: int  # index of the training view
    read: Callable[[], np.ndarray]  # its (H, W, 3) uint8 pixels
    trained: Cameras  # (1,) the same at the size that training used


def with_texture(
    model: SurfaceSOSModel, mesh: trimesh.Trimesh, photos: Sequence[PosedPhoto], alpha: str, size: int | None = None
) -> trimesh.Trimesh:
    """A mesh with a texture from photos, at the mean exposure, white balance and light of all of them.

    What no photo shows has the model's own colours. So has everything where the object deforms, since a photo shows it
    in another shape.

    Args:
        model: trained.
        mesh: of its object, or of one of several, world frame.
        photos: the training photos.
        alpha: name of the output that is the object's matte.
        size: texels along each side; None: about one for each pixel of the better photos.

    Raises:
        ImageError: a photo is missing, or no image.
    """
    scene = model.scene
    if scene.deformation is not None:
        warn("The object deforms, so its texture has the model's colours instead of the photos'.")
        photos = []
    views = [views_from_cameras(model.as_trained(photo.camera)) for photo in photos]
    side = size or texture_size(mesh, _pixels_per_area(mesh, views))
    known = [
        Photo(photo.read, view, _matte(model, photo, alpha), np.ones(3), np.zeros(3))
        for photo, view in zip(photos, views, strict=True)
    ]
    exposed = _with_exposures(model, mesh, photos, known)
    atlas = unwrapped(mesh, side)
    texture = baked(mesh, atlas, side, exposed, lambda points: surface_colours(scene, points))
    return textured(mesh, atlas, texture)


def _pixels_per_area(mesh: trimesh.Trimesh, views: Sequence[Views]) -> float:
    """Pixels per area of the surface, squared world units, in one of the better photos."""
    middle = mesh.bounds.mean(axis=0)
    depth = [float(view.project_one(0, middle[None])[1][0]) for view in views]
    pixels = [float(view.fx[0] * view.fy[0]) / far**2 for view, far in zip(views, depth, strict=True) if far > 0]
    return float(np.percentile(pixels, GOOD_PHOTOS)) if pixels else 0.0


def _matte(model: SurfaceSOSModel, photo: PosedPhoto, alpha: str) -> np.ndarray:
    """(h, w) the object's matte of a photo, small."""
    camera = replace(photo.trained)
    longest = int(max(camera.width[0], camera.height[0]))
    if longest > MATTE_SIDE:
        camera.rescale_output_resolution(MATTE_SIDE / longest)
    return model.images(camera, [alpha], smooth_edges=False)[alpha][..., 0].cpu().numpy()


def _with_exposures(
    model: SurfaceSOSModel, mesh: trimesh.Trimesh, photos: Sequence[PosedPhoto], known: Sequence[Photo]
) -> list[Photo]:
    """The photos with their exposures: those that training has found; where the light differs, what fits best."""
    scene: SurfaceSOS = model.scene
    if scene.config.light_codes == 0:
        return [
            photo._replace(gain=gain, offset=offset)
            for photo, (gain, offset) in zip(known, (_exposure(model, posed) for posed in photos), strict=True)
        ]
    points, normals = np.asarray(mesh.vertices), np.asarray(mesh.vertex_normals)
    colours = torch.from_numpy(surface_colours(scene, points))
    occluder, exposed = Occluder(mesh), []
    for photo in known:
        seen = colours_in(photo, points, sight_of(photo, points, normals, occluder))
        there = torch.from_numpy(seen.colour / np.float32(255))
        code = fitted_exposure(colours[seen.which], torch.ones(len(there), 1), there)[0].numpy()
        exposed.append(photo._replace(gain=np.exp(code[:3]), offset=code[3:]))
    return exposed


@torch.no_grad()
def _exposure(model: SurfaceSOSModel, photo: PosedPhoto) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset (3,) of a training photo."""
    found = model.scene.appearance(torch.tensor([photo.view], device=model.device))
    return found.gain[0].cpu().numpy(), found.offset[0].cpu().numpy()
