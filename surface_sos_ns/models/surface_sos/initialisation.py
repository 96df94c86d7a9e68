"""What the fields are fitted to before training: the object's to the voted hull, the background's to sparse points.

Both are regressions of a few seconds. They decide more than their length says: the object must be there before the
background explains it away, and the background's surfaces before fog in front of every camera has become its geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.sampling.contraction import contract, contracted_cell
from surface_sos_ns.sampling.field_cache import look_up

if TYPE_CHECKING:  # capture/ brings scipy
    from surface_sos_ns.capture.points import SparsePoints

RATE = 5e-3
"""Adam's learning rate in both fits."""
SURFACE_DEPTH = 2.0
"""Optical depth of a cell of the cached background at a sparse point."""
EMPTY = -6.0
"""Logarithm of the background's density, per object radius, between a camera and a point it sees."""
NEAR_END = 2.0
"""Cells of the cached background before a point that are not taken for empty: the point may lie that much off."""


def camera_distance(cameras: Tensor) -> float:
    """Median distance of cameras (N, 3), object frame, from the object: where the background's contraction begins."""
    return float(cameras.norm(dim=-1).median())


class SightLines(NamedTuple):
    """Points on surfaces of the background and who saw them, object frame."""

    points: Tensor  # (P, 3)
    cameras: Tensor  # (N, 3)
    seen: Tensor | None  # (P, N) bool, whether camera n sees point p; None where unknown


def sight_lines(
    points: SparsePoints, cameras: Tensor, frame: ObjectFrame, device: torch.device | str = "cpu"
) -> SightLines:
    """Reliable sparse points in the object frame; those of two photos only are often wrong.

    Args:
        points: world frame.
        cameras: (N, 3) centres of the cameras, object frame.
        frame: of the object.
        device: of the result.
    """
    reliable = points.track_length != 2
    xyz = frame.points(torch.as_tensor(points.xyz[reliable], dtype=torch.float32))
    seen = None if points.visibility is None else torch.as_tensor(points.visibility[reliable], device=device)
    return SightLines(xyz.to(device), cameras.to(device), seen)


def fit_to_hull(focor: SDFField, label: LabelField, probability: Tensor, signed_distance: Tensor, steps: int) -> None:
    """Fit FoCoR to the hull's signed distance and the label to its votes.

    Args:
        focor, label: over the object cube.
        probability: (R, R, R) soft visual hull over the object cube, indexed [x, y, z].
        signed_distance: (R, R, R) to the hull, object-frame units, negative inside.
        steps: a few milliseconds each.
    """
    parameters = [*focor.parameters(), *label.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=RATE, eps=1e-15)
    for _ in range(steps):
        points = torch.rand(4096, 3, device=probability.device) * 2 - 1
        target = look_up(signed_distance, points, 1.0)
        surface = focor(points)
        assert surface.normal is not None
        near = torch.exp(-(target / 0.2).square())  # the band around the hull counts most
        loss = ((surface.sdf - target).abs() * (0.2 + near)).mean()
        loss = loss + 0.1 * (surface.normal.norm(dim=-1) - 1).square().mean()
        votes = look_up(probability, points, 1.0)
        loss = loss + F.binary_cross_entropy_with_logits(label(points), votes.clamp(0.02, 0.98))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def surface_density(contracted: Tensor, contraction_radius: float, resolution: int) -> Tensor:
    """Logarithm of the density (P,), per object radius, with which a surface is found where the background is sampled.

    Args:
        contracted: (P, 3) points of contracted space.
        contraction_radius: radius within which the background's space is not contracted, object-frame units.
        resolution: cells per axis of the cached background: one of them stops the light of `SURFACE_DEPTH`.
    """
    return (SURFACE_DEPTH / contracted_cell(contracted, contraction_radius, resolution)).log()


class _Draw(NamedTuple):
    """Places in contracted space at which a step of the fits to sparse points knows something."""

    surfaces: Tensor  # (S, 3) about at sparse points
    dense: Tensor  # (S,) logarithm of the density that is enough there
    empty: Tensor  # (E, 3) between a camera and a point it sees
    gaps: Tensor  # (E,) distance to that point, in contracted space


def _draw(lines: SightLines, sights: Tensor, contraction_radius: float, resolution: int) -> _Draw:
    """Some of the points and, of the sights (P', 2) of points and cameras that see them, places along some."""
    points, device = lines.points, lines.points.device
    surfaces = contract(points[torch.randint(len(points), (1024,), device=device)] / contraction_radius)
    dense = surface_density(surfaces, contraction_radius, resolution)
    surfaces = surfaces + torch.randn_like(surfaces) / resolution
    if len(sights) == 0:
        return _Draw(surfaces, dense, surfaces[:0], dense[:0])
    point, camera = sights[torch.randint(len(sights), (2048,), device=device)].unbind(-1)
    end, eye = points[point], lines.cameras[camera]
    goal = contract(end / contraction_radius)
    known = 1.0 - NEAR_END * contracted_cell(goal, contraction_radius, resolution) / (end - eye).norm(dim=-1)
    share = torch.rand(len(end), 1, device=device) * known.clamp(min=0.1)[:, None]
    empty = contract((eye + (end - eye) * share) / contraction_radius)
    return _Draw(surfaces, dense, empty, (empty - goal).norm(dim=-1))


def fit_density_to_points(
    field: DensityField, lines: SightLines, contraction_radius: float, resolution: int, steps: int
) -> None:
    """Fit a background's density to sparse points: dense there, empty in front of them, elsewhere as it starts.

    Args:
        field: over contracted space.
        lines: what is known.
        contraction_radius: radius within which the background's space is not contracted, object-frame units.
        resolution: cells per axis of the cached background, which says how thick a surface must be to be found.
        steps: a few milliseconds each.
    """
    _fit(field, lambda draw: _density_errors(field, draw), lines, contraction_radius, resolution, steps)


def fit_distance_to_points(
    field: SDFField, lines: SightLines, contraction_radius: float, resolution: int, steps: int
) -> None:
    """Fit a background's signed distance: 0 at sparse points, positive in front of them; arguments as above."""
    _fit(field, lambda draw: _distance_errors(field, draw), lines, contraction_radius, resolution, steps)


def _fit(
    field: nn.Module,
    errors: Callable[[_Draw], Tensor],
    lines: SightLines,
    contraction_radius: float,
    resolution: int,
    steps: int,
) -> None:
    if len(lines.points) == 0:
        return
    sights = torch.zeros(0, 2, dtype=torch.long) if lines.seen is None else lines.seen.nonzero()
    optimiser = torch.optim.Adam(field.parameters(), lr=RATE, eps=1e-15)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        errors(_draw(lines, sights, contraction_radius, resolution)).backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _density_errors(field: DensityField, draw: _Draw) -> Tensor:
    """Squared errors of the logarithm of the density."""
    elsewhere = (torch.rand(1024, 3, device=draw.dense.device) * 2 - 1) * 2
    density, _ = field(torch.cat([draw.surfaces, draw.empty, elsewhere]))
    at_surfaces, in_front, anywhere = (
        density.clamp(min=1e-9).log().split([len(draw.surfaces), len(draw.empty), len(elsewhere)])
    )
    loss = (at_surfaces - draw.dense).square().sum()
    loss = loss + 0.5 * (in_front - EMPTY).square().sum() + 0.1 * (anywhere - field.bias).square().sum()
    return loss / len(density)


def _distance_errors(field: SDFField, draw: _Draw) -> Tensor:
    """Zero at surfaces; in front of them positive, and no farther away than the line of sight is long."""
    surface = field(torch.cat([draw.surfaces, draw.empty]))
    at_surfaces, in_front = surface.sdf.split([len(draw.surfaces), len(draw.empty)])
    loss = at_surfaces.abs().sum() + (torch.relu(-in_front) + torch.relu(in_front - draw.gaps)).sum()
    return loss / len(surface.sdf) + 0.1 * (surface.normal.norm(dim=-1) - 1).square().mean()
