"""Where detectors look for the object: its place in each photo, from cameras and sparse points alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from surface_sos_ns.capture.bounds import find_object_sphere
from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.support_plane import find_support_plane
from surface_sos_ns.capture.triangulation import triangulate_points
from surface_sos_ns.capture.views import Views
from surface_sos_ns.masks.provider import MaskError, Photos, Progress

__all__ = ["ObjectPlace", "choose_device", "object_place", "place_at", "possible_spheres", "with_points"]


@dataclass(frozen=True)
class ObjectPlace:
    """Where the object is expected.

    Attributes:
        sphere: around the object, world frame.
        pixel: (N, 2) its centre in each photo, pixels of the photos' images; nan behind a camera.
        radius: (N,) its radius there, pixels; nan behind a camera.
        points: (P, 3) sparse points that seem to lie on the object, world frame; P may be 0.
        seen: (P, N) bool, photos in which they were matched.
    """

    sphere: ObjectSphere
    pixel: np.ndarray
    radius: np.ndarray
    points: np.ndarray
    seen: np.ndarray


def object_place(photos: Photos) -> ObjectPlace:
    """The place the cameras turn around, or the one the user named.

    Raises:
        MaskError: the cameras look at nothing in common.
    """
    views = photos.views
    try:
        sphere = find_object_sphere(views, None, photos.points, object_point=photos.near)
    except CaptureError as error:
        raise MaskError(f"It is not clear where the object is: {error}") from error
    if photos.radius is not None:
        sphere = ObjectSphere(sphere.centre, photos.radius, "named by the user")
    points, seen = np.zeros((0, 3)), np.zeros((0, len(views)), bool)
    if photos.points is not None and photos.points.visibility is not None:
        near = np.linalg.norm(photos.points.xyz - sphere.centre, axis=1) < 0.7 * sphere.radius
        plane = find_support_plane(views.centres(), photos.points.xyz, sphere)
        if plane is not None:
            near &= plane.height(photos.points.xyz) > 1.5 * plane.tolerance
        points, seen = photos.points.xyz[near], photos.points.visibility[near]
    return place_at(views, sphere, points, seen)


def place_at(views: Views, sphere: ObjectSphere, points: np.ndarray, seen: np.ndarray) -> ObjectPlace:
    """The place of a sphere in each photo; the arguments are as in `ObjectPlace`."""
    pixel, depth = views.project(sphere.centre[None])
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.where(depth[:, 0] > 0, views.fx * sphere.radius / depth[:, 0], np.nan)
    return ObjectPlace(sphere, pixel[:, 0], radius, points, seen)


def with_points(photos: Photos, progress: Progress) -> Photos:
    """The photos, with sparse points triangulated from them where the capture brings none."""
    if photos.points is not None:
        return photos
    points, remarks = triangulate_points(photos.images, photos.views, progress=progress)
    for remark in remarks:
        progress(f"Warning: {remark}")
    return replace(photos, points=points)


def possible_spheres(photos: Photos) -> list[ObjectSphere]:
    """Spheres that may hold the object: by the optical axes alone, which is the smaller one, and by sparse points.

    Raises:
        MaskError: the cameras look at nothing in common, and no points help.
    """
    found = [object_place(photos).sphere]
    if photos.points is not None and photos.radius is None:
        with suppress(CaptureError):  # cameras side by side: then points alone say where it is
            found.insert(0, find_object_sphere(photos.views, None, None, object_point=photos.near))
    return found


def choose_device(name: str) -> str:
    """The torch device that ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` stands for.

    Raises:
        MaskError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit()):
        if torch.cuda.is_available() and int(name[5:] or 0) < torch.cuda.device_count():
            return name
        raise MaskError(f"The device is {name}, but torch sees no such GPU here; expected auto or cpu.")
    raise MaskError(f"The device is {name!r}; expected auto, cpu, cuda or cuda:N.")
