"""Boxes about several objects in the viewer's 3D scene."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from surface_sos_ns.utils.identity_colours import identity_bytes

if TYPE_CHECKING:
    import trimesh
    from viser import SceneApi, SceneNodeHandle

__all__ = ["draw_boxes", "frame_of_box"]

BEAM = 0.01
"""Width of the edges, as a fraction of the box's diagonal."""


def frame_of_box(corners: np.ndarray) -> trimesh.Trimesh:
    """The twelve edges of a box as beams; viser's wireframes show a box's triangles as well.

    Args:
        corners: (2, 3) lowest and highest corner.
    """
    import trimesh

    size = corners[1] - corners[0]
    width = BEAM * np.linalg.norm(size)
    beams: list[trimesh.Trimesh] = []
    for axis, corner in itertools.product(range(3), itertools.product((0, 1), repeat=3)):
        if corner[axis] == 0:  # an edge begins here, along the axis
            middle, extents = corners[list(corner), range(3)], np.full(3, width)
            middle[axis] += size[axis] / 2
            extents[axis] += size[axis]
            beams.append(trimesh.creation.box(extents, trimesh.transformations.translation_matrix(middle)))
    return cast("trimesh.Trimesh", trimesh.util.concatenate(beams))


def draw_boxes(scene: SceneApi, boxes: Mapping[str, np.ndarray]) -> list[SceneNodeHandle]:
    """Draws a box about each object in its colour, with its name; returns what is drawn.

    Args:
        scene: of the viewer.
        boxes: (2, 3) lowest and highest corner by name, in the order of the objects' identities.
    """
    drawn: list[SceneNodeHandle] = []
    for (name, corners), colour in zip(boxes.items(), identity_bytes(len(boxes)), strict=True):
        frame = frame_of_box(corners)
        red, green, blue = (int(value) for value in colour)
        vertices, faces = np.asarray(frame.vertices), np.asarray(frame.faces)
        drawn.append(scene.add_mesh_simple(f"/object_boxes/{name}", vertices, faces, (red, green, blue)))
        top = np.append(corners.mean(axis=0)[:2], corners[1, 2])
        drawn.append(scene.add_label(f"/object_names/{name}", name, position=top))
    return drawn
