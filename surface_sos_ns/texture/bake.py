"""The texture of a mesh, from photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from surface_sos_ns.texture.atlas import Atlas, Texels, texels_of
from surface_sos_ns.texture.blend import KEPT, best_of, blended
from surface_sos_ns.texture.photos import Occluder, Photo, colours_in, sight_of

if TYPE_CHECKING:
    import trimesh

__all__ = ["MAX_SIZE", "MIN_SIZE", "baked", "texture_size", "textured"]

MIN_SIZE, MAX_SIZE = 512, 4096
"""Bounds of a texture's side that is chosen by what photos show, texels."""

FILLED = 0.6
"""Share of the texture that charts cover, about."""


def texture_size(mesh: trimesh.Trimesh, pixels_per_area: float) -> int:
    """Texels along each side of the texture, a power of two, for about one texel a pixel.

    Args:
        mesh: its area is in the units of the next.
        pixels_per_area: of the photos that see the surface best.
    """
    side = np.sqrt(mesh.area * pixels_per_area / FILLED)
    return int(np.clip(2 ** np.ceil(np.log2(max(side, 1.0))), MIN_SIZE, MAX_SIZE))


def baked(
    mesh: trimesh.Trimesh,
    atlas: Atlas,
    size: int,
    photos: Sequence[Photo],
    reference: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The texture (size, size, 3) uint8 of a mesh.

    Args:
        mesh: closed, normals outwards.
        atlas: of the mesh.
        size: texels along each side.
        photos: views in the mesh's frame; their images are read one after another.
        reference: colours (P, 3), 0 to 1, of points (P, 3): for what no photo sees.
    """
    texels = texels_of(atlas, size)
    points, normals = _places(mesh, texels)
    occluder = Occluder(mesh)
    sights = [sight_of(photo, points, normals, occluder) for photo in photos]
    best = best_of(sights, len(points))
    seen = [
        colours_in(photo, points, sight.better_than(KEPT * best)) for photo, sight in zip(photos, sights, strict=True)
    ]
    exposures = [(photo.gain, photo.offset) for photo in photos]
    colours = blended(seen, exposures, best, reference(points).astype(np.float32))
    image = np.zeros((size, size, 3), np.uint8)
    image[texels.row, texels.column] = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)
    covered = np.zeros((size, size), bool)
    covered[texels.row, texels.column] = True
    # Between charts the nearest chart's colour: renderers that filter or shrink the texture look there.
    rows, columns = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return np.asarray(image[rows, columns])


def _places(mesh: trimesh.Trimesh, texels: Texels) -> tuple[np.ndarray, np.ndarray]:
    """Points and unit normals (T, 3) of texels."""
    points = texels.interpolated(mesh.faces, np.asarray(mesh.vertices))
    normals = texels.interpolated(mesh.faces, np.asarray(mesh.vertex_normals))
    return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def textured(mesh: trimesh.Trimesh, atlas: Atlas, texture: np.ndarray) -> trimesh.Trimesh:
    """A mesh with a texture: vertices occur once a chart, normals are those of the whole surface.

    Args:
        mesh: without texture.
        atlas: of the mesh.
        texture: (S, S, 3) uint8.
    """
    import trimesh
    from PIL import Image

    material = trimesh.visual.material.PBRMaterial(
        name="photos",
        baseColorTexture=Image.fromarray(texture),
        baseColorFactor=[255, 255, 255, 255],  # without it, .obj files get a grey that darkens the texture
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    return trimesh.Trimesh(
        np.asarray(mesh.vertices)[atlas.source],
        atlas.faces,
        vertex_normals=np.asarray(mesh.vertex_normals)[atlas.source],
        visual=trimesh.visual.TextureVisuals(uv=atlas.uv, material=material),
        process=False,
    )
