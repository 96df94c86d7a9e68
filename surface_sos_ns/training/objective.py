"""What training minimises: the paper's eq. 8-12, and in the default preset the votes that keep the split honest.

Every schedule is a fraction of the run. The two presets differ by `dataclasses.replace` of `ObjectiveConfig` only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.heads import LabelObjective, Targets
from surface_sos_ns.models.surface_sos.rendering import RegulariserPoints, Rendering
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.training.losses import (
    colour_cost,
    colour_loss,
    deformation_loss,
    eikonal_loss,
    entropy_loss,
    mask_loss,
    sparsity_loss,
    surface_point_loss,
)
from surface_sos_ns.training.schedules import fade_out, ramp

LATER = 0.05
"""Part of a clip over which motion should be smooth."""


@dataclass(frozen=True)
class ObjectiveConfig(LabelObjective):
    """Weights and schedules of the losses, those of the heads among them; schedules are fractions of the run."""

    learned_noise: bool = True
    """Measure differences of colours (eq. 9) by the covariance that they are found to have, not all alike."""
    eikonal: float = 0.03
    """Weight of eq. 10, on every field that is an SDF. At the usual 0.1 narrow gaps between parts stay closed."""
    sparsity: float = 0.0
    """Weight of eq. 11, on ray samples and on uniform samples. Ray samples lie before the surface more often than
    behind it, so this pushes it inwards: it is for the paper's preset."""
    sparsity_tau: float = 50.0
    """tau of eq. 11, in 1 / object radius."""
    mask: float = 0.03
    """Weight of the initial mask loss, eq. 12. It must stay below the colours' say: where some masks are bitten, a
    large one carves to the intersection of all in the first hundred steps."""
    mask_hold: float = 0.1
    """The mask loss keeps its full weight until this fraction of the run ..."""
    mask_end: float = 0.3
    """... and has faded out at this one."""
    learned_reliability: bool = True
    """Weigh each vote by what its mask's errors are found to be (Dawid & Skene 1979), not all alike."""
    plate: float = 1.0
    """Weight of the background rendered alone against the photo, where a ray misses the rendered object."""
    distortion: float = 3e-3
    """Weight of the spread along rays of the light the background stops: fog in front of the cameras costs."""
    entropy: float = 3e-3
    """Weight of the matte's entropy in the second half of the run; not in the paper."""
    parsimony: float = 1e-3
    """Weight of the mean matte, rising to this in the first half: where object and background can paint a ray equally
    well, as on a thin shell in the colour of what is behind it, it is background."""
    outside: float = 1.0
    """Weight that keeps FoCoR empty where nearly no mask puts the object."""
    points: float = 0.01
    """Weight of the pull of the SDFs to zero at sparse points."""
    surfaces: float = 0.01
    """Weight that keeps a background of density opaque at sparse points: a bare table else becomes a hole now and then,
    through which another table, further away, is painted for each view."""
    surfaces_hold: float = 0.2
    """It keeps its full weight until this fraction of the run ..."""
    surfaces_end: float = 0.5
    """... and has faded out at this one: points lie a little off, and what they hold by then holds itself."""
    appearance: float = 1e-3
    """Weight of the size of the per-view exposure and white-balance codes."""
    deformation: float = 1e-3
    """Weight of the cost of motion, where the object may deform (`scene.deformation`)."""
    uniform_points: int = 1024
    """Points drawn in the object cube in each step for the regularisers."""
    sparse_points: int = 512
    """Sparse points taken in each step, at most."""


def training_losses(
    scene: SurfaceSOS,
    config: ObjectiveConfig,
    rendering: Rendering,
    photo: Tensor,
    mask: Tensor,
    mask_weight: Tensor,
    view: Tensor,
    points: Tensor | None = None,
) -> dict[str, Tensor]:
    """All weighted losses of a step. Also notes in the scene how masks agree with the label, and colours with photos.

    Args:
        scene: the model, for the regularisers and its progress.
        rendering: of R rays, in training mode, with the points that `draw_regulariser_points` chose.
        photo: (R, 3) colours.
        mask, mask_weight: (R,) coarse mask and how far its view is trusted.
        view: (R,) int64, training view of each ray.
        points: (P, 3) sparse points of the whole capture, object frame; of some, those beside the hull are taken.

    Returns:
        Loss name -> scalar; their sum is eq. 8.
    """
    progress = scene.done
    precision = None
    if config.learned_noise:
        scene.residual_metric.observe(rendering.rgb.detach() - photo)
        precision = scene.residual_metric.precision
    losses = {"colour": colour_loss(rendering.rgb, photo, precision)}
    weight = mask_weight
    label = rendering.carried.get("label")
    if label is not None and config.learned_reliability:
        asked = rendering.crosses_hull & (mask_weight > 0)
        scene.reliability.observe(view[asked], mask[asked], label.detach()[asked].clamp(0, 1))
        weight = mask_weight * scene.reliability.vote_weight(view, mask)
    fade = fade_out(progress, config.mask_hold, config.mask_end)
    if fade > 0:
        losses["mask"] = config.mask * fade * mask_loss(rendering.alpha, mask, weight)
    uniform, sdf, normals, _ = (field[: config.uniform_points] for field in rendering.regularisers)
    hull = scene.object_grid.hull_probability(uniform)
    for head in scene.learned_heads:
        losses |= head.losses(rendering, Targets(mask, weight, hull), config, progress)
    if config.plate > 0:
        # Rays through the object must not teach the background the object's colours: gate by the rendered matte.
        misses = (1.0 - rendering.alpha.detach()).clamp(0, 1).square() * (rendering.crop < 0.5)
        losses["plate"] = config.plate * (colour_cost(rendering.background, photo, precision) * misses).mean()

    eikonal = eikonal_loss(torch.cat([rendering.sdf_normals, normals]))
    if rendering.background_normals.shape[0]:
        eikonal = eikonal + eikonal_loss(rendering.background_normals)
    losses["eikonal"] = config.eikonal * eikonal
    if config.sparsity > 0:
        sparsity = sparsity_loss(rendering.sdf, config.sparsity_tau) + sparsity_loss(sdf, config.sparsity_tau)
        losses["sparsity"] = config.sparsity * sparsity
    if config.outside > 0:
        losses["outside"] = config.outside * (torch.relu(0.03 - sdf) * (hull < 0.1)).mean()
    if config.distortion > 0:
        losses["distortion"] = config.distortion * rendering.distortion.mean()
    if config.entropy > 0 and progress > 0.5:
        losses["entropy"] = config.entropy * ramp(progress, 0.5, 1.0) * entropy_loss(rendering.alpha)
    if config.parsimony > 0:
        losses["parsimony"] = config.parsimony * ramp(progress, 0.0, 0.5) * rendering.alpha.mean()
    if config.points > 0 and rendering.regularisers.points.shape[0] > config.uniform_points:
        losses["points"] = config.points * _point_pull(scene, rendering.regularisers, config.uniform_points)
    held = fade_out(progress, config.surfaces_hold, config.surfaces_end)
    if config.surfaces > 0 and held > 0 and points is not None:
        chosen = _some(points, config.sparse_points)
        chosen = chosen[scene.object_grid.beside_hull(chosen)]
        shortfall = scene.background.density_shortfall(chosen) if len(chosen) else None
        if shortfall is not None:
            losses["surfaces"] = config.surfaces * held * shortfall.mean()
    if scene.deformation is not None and config.deformation > 0:
        time = torch.rand(len(uniform), device=uniform.device)
        now, later = scene.deformation(uniform, time), scene.deformation(uniform, time + LATER)
        moved = (now.points - uniform, later.points - uniform, now.jacobian, scene.deformation.config.bound)
        losses["deformation"] = config.deformation * deformation_loss(*moved)
    losses["appearance"] = config.appearance * scene.exposure.codes.square().mean()
    return losses


def draw_regulariser_points(config: ObjectiveConfig, points: Tensor | None, device: torch.device) -> Tensor:
    """Points of the object frame at which the losses of one step want the foreground.

    Args:
        points: (P, 3) sparse surface points in the object sphere, object frame.

    Returns:
        (uniform_points + K, 3): random ones of the object cube, then some of the sparse ones.
    """
    uniform = torch.rand(config.uniform_points, 3, device=device) * 2 - 1
    if points is None or config.points == 0:
        return uniform
    return torch.cat([uniform, _some(points, config.sparse_points)])


def _some(points: Tensor, most: int) -> Tensor:
    """Some of the points (P, 3), drawn anew each time; none of none."""
    return points[torch.randint(max(len(points), 1), (min(most, len(points)),), device=points.device)]


def _point_pull(scene: SurfaceSOS, regularisers: RegulariserPoints, first: int) -> Tensor:
    """Pull the SDF that m^P assigns each sparse point to towards zero there."""
    points = regularisers.points[first:]
    is_object = scene.object_grid.crop(points) > 0.5
    pull = surface_point_loss(regularisers.sdf[first:][is_object])
    distance = scene.background.signed_distance(points[~is_object])
    return pull if distance is None else pull + surface_point_loss(distance)
