"""Initialisation of the fields before training: the foreground from the voted hull, the background from sparse points.

Both are regressions of a few seconds, and much depends on them: the object must exist before the background learns its
colours, and the background's surfaces before density in front of the cameras explains the photos.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.sampling.contraction import contract, contracted_cell
from surface_sos_ns.sampling.field_cache import look_up, look_up_nearest
from surface_sos_ns.training.losses import identity_entropy

if TYPE_CHECKING:  # capture/ brings scipy
    from surface_sos_ns.capture.points import SparsePoints

LEARNING_RATE = 5e-3
"""Adam's learning rate in both fits."""
SURFACE_OPTICAL_DEPTH = 2.0
"""Optical depth that a cell of the cached background should have at a sparse point."""
EMPTY_LOG_DENSITY = -6.0
"""Target of the log density (of a density per object radius) between a camera and a sparse point that it sees."""
UNCERTAIN_CELLS = 2.0
"""Length, in cells of the cached background, of the end of a line of sight that is not fitted as empty: sparse points
are this inaccurate."""


def camera_distance(cameras: Tensor) -> float:
    """Median distance of cameras (N, 3), object frame, from the object, object radii: the contraction radius."""
    return float(cameras.norm(dim=-1).median())


class SightLines(NamedTuple):
    """Sparse surface points and the cameras that see them, object frame."""

    points: Tensor  # (P, 3)
    cameras: Tensor  # (N, 3)
    seen: Tensor | None  # (P, N) bool, whether camera n sees point p; None where unknown


def sight_lines(
    points: SparsePoints, cameras: Tensor, frame: ObjectFrame, device: torch.device | str = "cpu"
) -> SightLines:
    """Sparse points in the object frame, without those of two photos only: these are often wrong.

    Args:
        points: world frame.
        cameras: (N, 3) camera centres, object frame.
        frame: of the object.
        device: of the result.
    """
    reliable = points.track_length != 2
    xyz = frame.points(torch.as_tensor(points.xyz[reliable], dtype=torch.float32))
    seen = None if points.visibility is None else torch.as_tensor(points.visibility[reliable], device=device)
    return SightLines(xyz.to(device), cameras.to(device), seen)


def fit_to_hull(
    foreground: SDFField,
    label: LabelField,
    probability: Tensor,
    signed_distance: Tensor,
    steps: int,
    identity: Tensor | None = None,
) -> None:
    """Fit FoCoR to the signed distance of the voted hull, and the label to its probability.

    Args:
        foreground, label: fields over the object cube, changed in place.
        probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
        signed_distance: (R, R, R) to the hull, object radii, negative inside.
        steps: of Adam, a few milliseconds each.
        identity: (N, N, N) uint8, which of several objects' hulls it is, in 1 to K; None with one object.
    """
    parameters = [*foreground.parameters(), *label.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-15)
    for _ in range(steps):
        points = torch.rand(4096, 3, device=probability.device) * 2 - 1
        target = look_up(signed_distance, points, 1.0)
        surface = foreground(points)
        assert surface.normal is not None
        near = torch.exp(-(target / 0.2).square())  # the band around the hull counts most
        loss = ((surface.sdf - target).abs() * (0.2 + near)).mean()
        loss = loss + 0.1 * (surface.normal.norm(dim=-1) - 1).square().mean()
        votes = look_up(probability, points, 1.0)
        owner = None if identity is None else look_up_nearest(identity, points, 1.0).long()
        loss = loss + identity_entropy(label(points), votes.clamp(0.02, 0.98), owner)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def surface_density(contracted: Tensor, contraction_radius: float, resolution: int) -> Tensor:
    """Log density (P,), per object radius, at which a cell of the cached background has `SURFACE_OPTICAL_DEPTH`.

    Importance sampling then places samples in that cell.

    Args:
        contracted: (P, 3) points of contracted space.
        contraction_radius: radius within which space is not contracted, object radii.
        resolution: cells per axis of the cached background.
    """
    return (SURFACE_OPTICAL_DEPTH / contracted_cell(contracted, contraction_radius, resolution)).log()


class _FitBatch(NamedTuple):
    """Points of contracted space, and targets there, for one step of the fits to sparse points."""

    surfaces: Tensor  # (S, 3) sparse points, jittered
    dense: Tensor  # (S,) log density there, of a density per object radius
    empty: Tensor  # (E, 3) between a camera and a sparse point that it sees
    gaps: Tensor  # (E,) distance to that point, in contracted space


def _draw_batch(lines: SightLines, sights: Tensor, contraction_radius: float, resolution: int) -> _FitBatch:
    """Random sparse points, and random points along lines of sight, (V, 2) pairs of indices of point and camera."""
    points, device = lines.points, lines.points.device
    surfaces = contract(points[torch.randint(len(points), (1024,), device=device)] / contraction_radius)
    dense = surface_density(surfaces, contraction_radius, resolution)
    surfaces = surfaces + torch.randn_like(surfaces) / resolution
    if len(sights) == 0:
        return _FitBatch(surfaces, dense, surfaces[:0], dense[:0])
    point, camera = sights[torch.randint(len(sights), (2048,), device=device)].unbind(-1)
    end, eye = points[point], lines.cameras[camera]
    goal = contract(end / contraction_radius)
    known = 1.0 - UNCERTAIN_CELLS * contracted_cell(goal, contraction_radius, resolution) / (end - eye).norm(dim=-1)
    share = torch.rand(len(end), 1, device=device) * known.clamp(min=0.1)[:, None]
    empty = contract((eye + (end - eye) * share) / contraction_radius)
    return _FitBatch(surfaces, dense, empty, (empty - goal).norm(dim=-1))


def fit_density_to_points(
    field: DensityField, lines: SightLines, contraction_radius: float, resolution: int, steps: int
) -> None:
    """Fit a background density to sparse points: dense there, empty along lines of sight, unchanged elsewhere.

    Args:
        field: over contracted space, changed in place.
        lines: sparse points and lines of sight.
        contraction_radius: radius within which space is not contracted, object radii.
        resolution: cells per axis of the cached background, which sets how thick a surface must be.
        steps: of Adam, a few milliseconds each.
    """
    _fit(field, lambda draw: _density_errors(field, draw), lines, contraction_radius, resolution, steps)


def fit_distance_to_points(
    field: SDFField, lines: SightLines, contraction_radius: float, resolution: int, steps: int
) -> None:
    """Fit a background SDF: 0 at sparse points, positive along lines of sight. See `fit_density_to_points`."""
    _fit(field, lambda draw: _distance_errors(field, draw), lines, contraction_radius, resolution, steps)


def _fit(
    field: nn.Module,
    errors: Callable[[_FitBatch], Tensor],
    lines: SightLines,
    contraction_radius: float,
    resolution: int,
    steps: int,
) -> None:
    if len(lines.points) == 0:
        return
    sights = torch.zeros(0, 2, dtype=torch.long) if lines.seen is None else lines.seen.nonzero()
    optimiser = torch.optim.Adam(field.parameters(), lr=LEARNING_RATE, eps=1e-15)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        errors(_draw_batch(lines, sights, contraction_radius, resolution)).backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _density_errors(field: DensityField, draw: _FitBatch) -> Tensor:
    """Squared errors of the log density."""
    elsewhere = (torch.rand(1024, 3, device=draw.dense.device) * 2 - 1) * 2
    density, _ = field(torch.cat([draw.surfaces, draw.empty, elsewhere]))
    at_surfaces, in_front, anywhere = (
        density.clamp(min=1e-9).log().split([len(draw.surfaces), len(draw.empty), len(elsewhere)])
    )
    loss = (at_surfaces - draw.dense).square().sum()
    loss = loss + 0.5 * (in_front - EMPTY_LOG_DENSITY).square().sum() + 0.1 * (anywhere - field.bias).square().sum()
    return loss / len(density)


def _distance_errors(field: SDFField, draw: _FitBatch) -> Tensor:
    """SDF 0 at surfaces, along lines of sight between 0 and the distance to the point; and an eikonal term."""
    surface = field(torch.cat([draw.surfaces, draw.empty]))
    at_surfaces, in_front = surface.sdf.split([len(draw.surfaces), len(draw.empty)])
    loss = at_surfaces.abs().sum() + (torch.relu(-in_front) + torch.relu(in_front - draw.gaps)).sum()
    return loss / len(surface.sdf) + 0.1 * (surface.normal.norm(dim=-1) - 1).square().mean()
