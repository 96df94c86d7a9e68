"""What photos, masks and sparse points say about the object before training: numpy only, no nerfstudio."""

from __future__ import annotations

from surface_sos_ns.capture.bounds import ObjectSphere, find_object_sphere
from surface_sos_ns.capture.hull import VoteGrid, project_hull, vote_hull
from surface_sos_ns.capture.object_prior import ObjectPrior, build_object_prior
from surface_sos_ns.capture.points import SparsePoints, read_colmap_points, read_ply_points, triangulate_points
from surface_sos_ns.capture.views import Views

__all__ = [
    "ObjectPrior",
    "ObjectSphere",
    "SparsePoints",
    "Views",
    "VoteGrid",
    "build_object_prior",
    "find_object_sphere",
    "project_hull",
    "read_colmap_points",
    "read_ply_points",
    "triangulate_points",
    "vote_hull",
]
