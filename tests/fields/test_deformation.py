"""Small motion over time: Jacobian and normals against finite differences, and a swaying ball whose masks are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from surface_sos_ns.fields.deformation import Deformation, DeformationConfig, spline_weights
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.plugin.methods import surface_sos_lite
from surface_sos_ns.plugin.tabulated_rays import TabulatedRays
from surface_sos_ns.plugin.training_views import TrainingViews
from surface_sos_ns.sampling.field_cache import grid_centres
from surface_sos_ns.training.losses import deformation_loss
from surface_sos_ns.training.objective import ObjectiveConfig, draw_regulariser_points, training_losses
from surface_sos_ns.training.presets import RATES, parameter_groups
from tests.helpers.small_scene import TINY, rays_at, start, tensors
from tests.helpers.swaying_ball import RADIUS, SMALL, SwayingBall

CPU = torch.device("cpu")


def moving(bound: float = 0.2, kind: torch.dtype = torch.float64) -> Deformation:
    """A deformation that has learned something."""
    torch.manual_seed(0)
    field = Deformation(DeformationConfig(bound=bound)).to(kind)
    with torch.no_grad():
        field.out.weight.normal_(0, 0.5)
        field.out.bias.normal_(0, 0.5)
    return field


def some_points(count: int = 50, kind: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(count, 3, generator=generator, dtype=kind) * 2 - 1
    return points, torch.rand(count, generator=generator, dtype=kind)


def test_it_starts_as_no_motion_and_stays_within_its_bound() -> None:
    points, time = some_points(500, torch.float32)
    still = Deformation(DeformationConfig(bound=0.1))(points, time)
    assert torch.equal(still.points, points) and torch.equal(still.jacobian, torch.eye(3).expand(500, 3, 3))
    nothing = Deformation(DeformationConfig(bound=0.1))(points[:0], time[:0])
    assert nothing.points.shape == (0, 3) and nothing.jacobian.shape == (0, 3, 3)
    wild = moving(0.1)
    with torch.no_grad():
        wild.out.bias += 100.0
        apart = (wild(points.double(), time.double()).points - points).norm(dim=-1)
    assert 0.05 < apart.max() <= 0.1 + 1e-6


def test_the_spline_is_a_partition_of_one_and_smooth() -> None:
    time = torch.linspace(0, 1, 401, dtype=torch.float64)
    weights = spline_weights(time, 7)
    assert torch.allclose(weights.sum(-1), torch.ones_like(time)) and (weights >= 0).all()
    assert torch.allclose(weights[0, :4], torch.tensor([1, 4, 1, 0]).double() / 6)
    assert torch.allclose(weights[-1, 3:], torch.tensor([0, 1, 4, 1]).double() / 6)
    # It takes over straight lines: control points at (-1, 0, 1, ...) quarters of the clip.
    assert torch.allclose(weights @ (torch.arange(7).double() - 1), time * 4)
    with pytest.raises(ValueError, match="knots"):
        Deformation(DeformationConfig(bound=0.1, knots=3))


def test_the_jacobian_is_that_of_finite_differences() -> None:
    field, (points, time), step = moving(), some_points(), 1e-6
    with torch.no_grad():
        found = field(points, time).jacobian
        for axis in range(3):
            offset = torch.zeros(3, dtype=points.dtype)
            offset[axis] = step
            slope = (field(points + offset, time).points - field(points - offset, time).points) / (2 * step)
            assert torch.allclose(found[:, :, axis], slope, atol=1e-7)
    assert (found - torch.eye(3)).abs().max() > 0.05


@pytest.mark.seconds(2)
def test_the_normal_is_the_slope_of_the_distance_that_is_seen() -> None:
    """FoCoR's SDF at displaced points, differentiated in the observed frame."""
    scene = start(replace(TINY, backend="torch"), steps=60).double()
    field, (points, time), step = moving(), some_points(), 1e-7
    with torch.no_grad():
        displaced = field(points * 0.6, time)
        normal = scene.foreground.field(displaced.points).normal
        assert normal is not None
        seen = displaced.observed_normal(normal)
        for axis in range(3):
            offset = torch.zeros(3, dtype=points.dtype)
            offset[axis] = step
            ends = [scene.foreground.field(field(points * 0.6 + way, time).points).sdf for way in (offset, -offset)]
            assert torch.allclose(seen[:, axis], (ends[0] - ends[1]) / (2 * step), atol=1e-4)
    assert (seen - normal).abs().max() > 0.05


def test_the_cost_of_motion() -> None:
    still, moved = torch.zeros(4, 3), torch.tensor([[0.0, 0.0, 0.1]]).expand(4, 3)
    rigid = torch.eye(3).expand(4, 3, 3)
    assert deformation_loss(still, still, rigid, 0.1) == 0
    assert deformation_loss(moved, moved, rigid, 0.1) == pytest.approx(1.0)
    assert deformation_loss(still, moved, rigid, 0.1) == pytest.approx(1.0)
    assert deformation_loss(still, still, rigid * 2, 0.1) == pytest.approx(27.0)  # 3 axes, (2^2 - 1)^2 each


def test_switched_off_it_changes_nothing_and_switched_on_it_starts_as_nothing() -> None:
    off = start(TINY, steps=30).eval()
    on = SurfaceSOS(replace(TINY, deformation=DeformationConfig(bound=0.1)), views=3).eval()
    assert not any("deformation" in name or "grown" in name for name in off.state_dict())
    assert "deformation" not in parameter_groups(off) and "deformation" in parameter_groups(on)
    on.load_state_dict({**on.state_dict(), **off.state_dict()})
    on.object_grid.grown.copy_(on.object_grid.hull)
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(3)) - 0.5
    with torch.no_grad():
        drawn = off.renderer.sample(*rays_at(points), off.renderer.plan(off._state()), off._state())
        off.renderer.sample = on.renderer.sample = lambda *_: drawn  # type: ignore[method-assign]
        expected, found = (scene.render(*rays_at(points), plate=False, time=torch.rand(40)) for scene in (off, on))
    for (name, one), (_, two) in zip(tensors(expected), tensors(found), strict=True):
        assert torch.allclose(one, two, atol=1e-5), name


def test_sampling_looks_as_far_as_the_object_moves() -> None:
    scene = start(replace(TINY, deformation=DeformationConfig(bound=0.2)), steps=30)
    still = scene.renderer.plan(scene._state())
    assert scene.deformation is not None
    with torch.no_grad():
        scene.deformation.out.bias += 0.3
    scene.update_cache()
    points, time = some_points(2000, torch.float32)
    moved = (scene.deformation(points * 0.5, time).points - points * 0.5).norm(dim=-1).max().item()
    plan = scene.renderer.plan(scene._state())
    assert moved < plan.margin - still.margin + scene.config.deformation.bound * 0.11 < 0.2
    assert (
        plan.sharpness == pytest.approx(1 / scene.deformation.displacement.item())
        and moved < scene.deformation.displacement < 0.2 + 1e-6
    )
    twin = SurfaceSOS(scene.config, views=3)
    twin.load_state_dict(scene.state_dict())
    assert twin.renderer.plan(twin._state()) == plan


def test_what_it_cannot_do_is_said() -> None:
    config = replace(TINY, deformation=DeformationConfig(bound=0.1))
    with pytest.raises(ValueError, match=r"deformation.bound.*votes"):
        SurfaceSOS(replace(config, split="predicted"), views=1)
    scene = start(config, steps=5)
    with pytest.raises(ValueError, match="times"):
        scene.render(*rays_at(torch.zeros(2, 2)))


@pytest.mark.seconds(3)
def test_the_object_probability_is_what_the_object_sweeps() -> None:
    """A ball that is pushed along z by up to the bound, to one side, over the clip."""
    bound = 0.2
    scene = start(replace(TINY, deformation=DeformationConfig(bound=bound)))
    deformation = scene.deformation
    assert deformation is not None
    with torch.no_grad():
        deformation.control[:, 0] = torch.linspace(0, 1, 12)
        deformation.out.bias.reshape(3, -1)[2, 0] = 3.0  # from a quarter of it to nearly all
    scene.object_grid.refresh_probability(0.0)
    centres, push = grid_centres(32, 1.0), bound / 3**0.5
    swept = (centres - torch.tensor([0.0, 0.0, 1.0]) * centres[:, 2:].clamp(-push, 0)).norm(dim=-1) - RADIUS
    found = scene.object_grid.probability.reshape(-1)
    assert (found[swept < -0.12] > 0.5).all() and (found[swept > 0.12] < 0.1).all()
    below = (centres - torch.tensor([0.0, 0.0, -RADIUS - 0.3 * push])).norm(dim=-1) < 0.06
    assert below.any() and (found[below] > 0.5).all()  # not in the ball at rest


def masks_of_a_swaying_ball(bound: float) -> tuple[Tensor, Tensor]:
    """IoU (F,) of the masks of the training frames and of held-out frames between them."""
    config = replace(SMALL, last_sharpness=150.0, deformation=DeformationConfig(bound=bound))
    capture = SwayingBall(frames=33, sway=0.12, arc=2.0)
    torch.manual_seed(0)
    scene = SurfaceSOS(config, capture.frames)
    n = 32
    # What voting finds: the places that most frames mark.
    at = capture.centre(capture.times)
    inside = ((grid_centres(n, 1.0)[:, None] - at).norm(dim=-1) < RADIUS).float().mean(1).reshape(n, n, n)
    hull = grid_centres(n, 1.0).norm(dim=-1).reshape(n, n, n) - RADIUS - 0.05
    scene.initialise(ObjectFrame(), 1.0, inside, hull, steps=60)
    optimisers = [
        torch.optim.Adam(group, RATES[name].lr, RATES[name].betas, 1e-15)
        for name, group in parameter_groups(scene).items()
    ]
    objective, steps, rays = ObjectiveConfig(uniform_points=128), 400, 384
    train = torch.arange(0, capture.frames, 2)
    for step in range(steps):
        scene.set_progress(step / steps)
        if step in (steps // 4, steps // 2):
            scene.object_grid.refresh_probability(0.02)
        if step % 25 == 0:
            scene.update_cache(0.5)
        frame = train[torch.randint(len(train), (rays,))]
        pixel = torch.randint(capture.size**2, (rays,))
        photo, mask = capture.look(frame, pixel)
        times = {"time": capture.times[frame]} if bound > 0 else {}
        rendering = scene.render(
            *capture.rays(frame, pixel),
            frame,
            regulariser_points=draw_regulariser_points(objective, None, CPU),
            **times,
        )
        losses = training_losses(scene, objective, rendering, photo, mask, torch.ones(rays), frame)
        torch.stack(list(losses.values())).sum().backward()
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] *= 0.1 ** (1 / steps)
            optimiser.step()
            optimiser.zero_grad()
    scene.set_progress(1.0)
    scene.update_cache()
    scene.eval()
    agreement = []
    pixel = torch.arange(capture.size**2).reshape(capture.size, capture.size)[::2, ::2].reshape(-1)
    for index in range(capture.frames):
        frame = torch.full_like(pixel, index)
        with torch.no_grad():
            times = {"time": capture.times[frame]} if bound > 0 else {}
            found = scene.matte(*capture.rays(frame, pixel), **times) > 0.5
        truth = capture.look(frame, pixel)[1] > 0.5
        agreement.append(((found & truth).sum() / (found | truth).sum()).item())
    held_out = torch.arange(capture.frames) % 2 == 1
    return torch.tensor(agreement)[~held_out], torch.tensor(agreement)[held_out]


def a_camera(pose: Tensor, time: float | None) -> Cameras:
    times = None if time is None else torch.tensor([[time]])
    return Cameras(pose[None], fx=50.0, fy=50.0, cx=20.0, cy=20.0, width=40, height=40, times=times)


def test_a_view_has_its_own_time_or_that_of_the_nearest_training_view() -> None:
    capture = SwayingBall(frames=5)
    views = TrainingViews(5, CameraOptimizerConfig())
    every = Cameras(capture.poses, fx=50.0, fy=50.0, cx=20.0, cy=20.0, width=40, height=40, times=capture.times)
    views.set(every)
    near = capture.poses[3] + 0.02
    assert views.with_time(a_camera(near, 0.1)).times.item() == pytest.approx(0.1)
    found = views.with_time(a_camera(near, None))
    assert found.times.item() == pytest.approx(0.75)
    rays = found.generate_rays(camera_indices=0, keep_shape=True)
    assert rays.times is not None and (rays.times == 0.75).all()
    table = TabulatedRays(every)
    assert table.table is not None  # not the slow generator
    assert table(torch.tensor([[1, 2, 3], [4, 5, 6]])).times.flatten().tolist() == [0.25, 1.0]


def test_times_are_asked_for_where_the_object_may_deform() -> None:
    pipeline = surface_sos_lite.config.pipeline
    assert not pipeline.for_training().datamanager.dataparser.times
    scene = replace(pipeline.model.scene, deformation=DeformationConfig(bound=0.1))
    moving = replace(pipeline, model=replace(pipeline.model, scene=scene))
    assert moving.for_training().datamanager.dataparser.times and not pipeline.datamanager.dataparser.times


@pytest.mark.slow
@pytest.mark.seconds(15)
def test_masks_of_a_swaying_ball_are_better_with_the_deformation() -> None:
    still, moved = masks_of_a_swaying_ball(0.0), masks_of_a_swaying_ball(0.25)
    for without, with_motion in zip(still, moved, strict=True):
        assert with_motion.mean() > without.mean() + 0.05
        assert with_motion.min() > without.min() + 0.05
