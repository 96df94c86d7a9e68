"""The training objective: the paper's eq. 8-12, and the further losses of the default preset.

All schedules are fractions of the run. Presets differ by `dataclasses.replace` of `ObjectiveConfig` only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surface_sos_ns.models.surface_sos.heads import LabelObjective, Targets
from surface_sos_ns.models.surface_sos.rendering import RegulariserPoints, Rendering
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.sampling.selection import Selection
from surface_sos_ns.training.losses import (
    colour_cost,
    colour_loss,
    counted_mean,
    deformation_loss,
    eikonal_loss,
    entropy_loss,
    mask_loss,
    sparsity_loss,
    surface_point_loss,
)
from surface_sos_ns.training.mask_reliability import class_shares
from surface_sos_ns.training.schedules import fade_out, ramp

MOTION_TIME_STEP = 0.05
"""Time step, as a fraction of the clip, over which the change of the deformation is penalised."""


@dataclass(frozen=True)
class ObjectiveConfig(LabelObjective):
    """Weights and schedules of the losses, those of the heads among them; schedules are fractions of the run."""

    learned_noise: bool = True
    """Measure differences of colours (eq. 9) by the Mahalanobis distance under the running covariance of the residuals,
    instead of by the plain MSE."""
    eikonal: float = 0.03
    """Weight of eq. 10, on every field that is an SDF. At the usual 0.1 narrow gaps between parts stay closed."""
    sparsity: float = 0.0
    """Weight of eq. 11, on ray samples and on uniform samples. More ray samples lie in front of the surface than behind
    it, so it pushes the surface inwards: it is used in the paper preset only."""
    sparsity_tau: float = 50.0
    """tau of eq. 11, in 1 / object radius."""
    mask: float = 0.03
    """Weight of the initial mask loss, eq. 12. With a large one, the object shrinks to the intersection of all masks in
    the first hundred steps where some masks miss parts."""
    mask_hold: float = 0.1
    """The mask loss keeps its full weight until this fraction of the run ..."""
    mask_end: float = 0.3
    """... and has faded out at this one."""
    learned_reliability: bool = True
    """Weight each vote by the estimated error rates of its mask (Dawid & Skene 1979), instead of all equally."""
    plate: float = 1.0
    """Weight of the colour loss of the background rendered alone, on rays that miss the rendered object."""
    distortion: float = 3e-3
    """Weight of mip-NeRF 360's distortion loss on the background's weights, against floaters and fog."""
    entropy: float = 3e-3
    """Weight of the matte's entropy, rising in the second half of the run; not in the paper."""
    parsimony: float = 1e-3
    """Weight of the mean matte, rising to this in the first half of the run: where object and background explain a ray
    equally well, such as a thin shell in the colour of what is behind it, it becomes background."""
    outside: float = 1.0
    """Weight that keeps FoCoR empty where hardly any mask covers a point."""
    points: float = 0.01
    """Weight of |SDF| at sparse points, which lie on surfaces."""
    surfaces: float = 0.01
    """Weight that keeps a density background opaque at sparse points: otherwise a textureless table sometimes becomes a
    hole, behind which each view gets a table of its own."""
    surfaces_hold: float = 0.2
    """It keeps its full weight until this fraction of the run ..."""
    surfaces_end: float = 0.5
    """... and has faded out at this one: sparse points are inaccurate, and surfaces are stable by then."""
    appearance: float = 1e-3
    """Weight of the mean square of the photos' appearance codes."""
    deformation: float = 1e-3
    """Weight of the deformation's regulariser, where the object may deform (`scene.deformation`)."""
    uniform_points: int = 1024
    """Random points of the object cube in each step, for the regularisers."""
    sparse_points: int = 512
    """Largest number of sparse points in each step, drawn at random."""


def training_losses(
    scene: SurfaceSOS,
    config: ObjectiveConfig,
    rendering: Rendering,
    photo: Tensor,
    mask: Tensor,
    mask_weight: Tensor,
    view: Tensor,
    points: Tensor | None = None,
    identity: Tensor | None = None,
) -> dict[str, Tensor]:
    """All weighted losses of a training step (eq. 8-12). Also updates the scene's `residual_metric` and `reliability`.

    Args:
        scene: the model, for its regularisers and its progress.
        config: weights and schedules.
        rendering: of R rays, in training mode, with the points of `draw_regulariser_points`.
        photo: (R, 3) colours.
        mask: (R,) coarse mask, in [0, 1].
        mask_weight: (R,) confidence in the mask of the ray's view, 0 without one.
        view: (R,) int64, training view of each ray.
        points: (P, 3) sparse points of the whole capture, object frame. Those outside the hull serve `surfaces`.
        identity: (R,) int64, which of several objects the mask shows, 0 for none; None with one object.

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
    label = rendering.head_values.get("label")
    if label is not None and config.learned_reliability:
        near_object = rendering.crosses_hull & (mask_weight > 0)
        votes = class_shares(mask, identity, scene.label.objects)
        scene.reliability.observe(view, votes, _class_probabilities(label.detach()), near_object)
        weight = mask_weight * scene.reliability.vote_weight(view, mask, identity)
    fade = fade_out(progress, config.mask_hold, config.mask_end)
    if scene.dense or fade > 0:
        losses["mask"] = config.mask * fade * mask_loss(rendering.alpha, mask, weight)
    uniform, sdf, normals, _ = (field[: config.uniform_points] for field in rendering.regularisers)
    counted = rendering.sdf_counted
    hull, hull_identity = scene.object_grid.hull_probability(uniform), scene.object_grid.hull_identity(uniform)
    targets = Targets(mask, weight, hull, identity, hull_identity)
    for head in scene.learned_heads:
        losses |= head.losses(rendering, targets, config, progress)
    if config.plate > 0:
        # On rays through the object the photo does not show the background: they are masked by the rendered matte.
        misses = (1.0 - rendering.alpha.detach()).clamp(0, 1).square() * (rendering.crop < 0.5)
        losses["plate"] = config.plate * (colour_cost(rendering.background, photo, precision) * misses).mean()

    every = None if counted is None else torch.cat([counted, torch.ones_like(sdf, dtype=torch.bool)])
    eikonal = eikonal_loss(torch.cat([rendering.sdf_normals, normals]), every)
    if rendering.background_normals.shape[0]:
        eikonal = eikonal + eikonal_loss(rendering.background_normals, rendering.background_counted)
    losses["eikonal"] = config.eikonal * eikonal
    if config.sparsity > 0:
        on_rays = sparsity_loss(rendering.sdf, config.sparsity_tau, counted)
        losses["sparsity"] = config.sparsity * (on_rays + sparsity_loss(sdf, config.sparsity_tau))
    if config.outside > 0:
        losses["outside"] = config.outside * (torch.relu(0.03 - sdf) * (hull < 0.1)).mean()
    if config.distortion > 0:
        losses["distortion"] = config.distortion * rendering.distortion.mean()
    if config.entropy > 0 and (scene.dense or progress > 0.5):
        losses["entropy"] = config.entropy * ramp(progress, 0.5, 1.0) * entropy_loss(rendering.alpha)
    if config.parsimony > 0:
        losses["parsimony"] = config.parsimony * ramp(progress, 0.0, 0.5) * rendering.alpha.mean()
    if config.points > 0 and rendering.regularisers.points.shape[0] > config.uniform_points:
        losses["points"] = config.points * _point_pull(scene, rendering.regularisers, config.uniform_points)
    hold = fade_out(progress, config.surfaces_hold, config.surfaces_end)
    if config.surfaces > 0 and (scene.dense or hold > 0) and points is not None:
        drawn = _random_subset(points, config.sparse_points)
        outside = Selection.of(scene.object_grid.beside_hull(drawn), scene.dense)
        shortfall = None if outside.empty else scene.background.density_shortfall(outside.take(drawn))
        if shortfall is not None:
            losses["surfaces"] = config.surfaces * hold * counted_mean(shortfall, outside.counted)
    if scene.deformation is not None and config.deformation > 0:
        time = torch.rand(len(uniform), device=uniform.device)
        now, later = scene.deformation(uniform, time), scene.deformation(uniform, time + MOTION_TIME_STEP)
        displacements = now.points - uniform, later.points - uniform
        cost = deformation_loss(*displacements, now.jacobian, scene.deformation.config.bound)
        losses["deformation"] = config.deformation * cost
    losses["appearance"] = config.appearance * scene.appearance.regulariser()
    return losses


def draw_regulariser_points(config: ObjectiveConfig, points: Tensor | None, device: torch.device) -> Tensor:
    """Points at which the regularisers of one step evaluate the foreground.

    Args:
        config: numbers of points.
        points: (P, 3) sparse points in the object sphere, object frame.
        device: of the result.

    Returns:
        (uniform_points + K, 3), object frame: random points of the object cube, then some of the sparse points.
    """
    uniform = torch.rand(config.uniform_points, 3, device=device) * 2 - 1
    if points is None or config.points == 0:
        return uniform
    return torch.cat([uniform, _random_subset(points, config.sparse_points)])


def _class_probabilities(label: Tensor) -> Tensor:
    """(R, K + 1) probabilities of the background and the objects, of rendered labels (R,), or (R, K) of several."""
    if label.ndim == 1:
        label = label.clamp(0, 1)
        return torch.stack([1.0 - label, label], -1)
    return torch.cat([(1.0 - label.sum(-1, keepdim=True)).clamp(0, 1), label.clamp(0, 1)], -1)


def _random_subset(points: Tensor, count: int) -> Tensor:
    """`count` random ones of the points (P, 3), with replacement, at most P."""
    return points[torch.randint(max(len(points), 1), (min(count, len(points)),), device=points.device)]


def _point_pull(scene: SurfaceSOS, regularisers: RegulariserPoints, first: int) -> Tensor:
    """Mean |SDF| at the sparse points: FoCoR's where m^P is above 1/2, BaCo's (where it is an SDF) elsewhere."""
    points = regularisers.points[first:]
    is_object = scene.object_grid.crop(points) > 0.5
    on_object, elsewhere = (Selection.of(mask, scene.dense) for mask in (is_object, ~is_object))
    pull = surface_point_loss(on_object.take(regularisers.sdf[first:]), on_object.counted)
    distance = scene.background.signed_distance(elsewhere.take(points))
    return pull if distance is None else pull + surface_point_loss(distance, elsewhere.counted)
