"""Parts of a shape that is known: a ball with a rod on either side."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from surface_sos_ns.models.parts import fit
from surface_sos_ns.models.parts.fit import PartFeatures, describe_surface, fit_parts, part_areas
from surface_sos_ns.models.parts.lifting import lift, view_weights, without_signs
from surface_sos_ns.models.parts.starts import joined, merged_neighbours, with_no_part_empty
from surface_sos_ns.models.parts.surface import surface_of
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.training.parts import PartObjective
from surface_sos_ns.utils.part_metrics import part_metrics
from tests.helpers.ball_views import ring
from tests.helpers.ball_with_handles import BALL, CENTRE, ball_with_handles, distances, true_parts

VIEWS = ring(6, CENTRE, distance=8.0)
POINTS = 2500


@pytest.fixture(scope="module")
def described() -> tuple[SurfaceSOS, PartFeatures]:
    """The scene and its surface; the photos look alike everywhere, so that only the shape tells parts."""
    with pytest.MonkeyPatch.context() as patch:
        scene = ball_with_handles(patch)
        patch.setattr(fit, "RESOLUTION", 80)
        grids = [np.ones((6, 8, 4), dtype=np.float32)] * len(VIEWS)
        yield scene, describe_surface(scene, VIEWS, grids, POINTS)


@pytest.mark.seconds(12)
def test_points_lie_on_the_surface(described):
    scene, data = described
    assert float(distances(torch.as_tensor(data.surface.points)).amin(-1).abs().max()) < 0.02
    assert scene.frame.points(torch.as_tensor(data.mesh.vertices, dtype=torch.float32)).abs().max() < 1


@pytest.mark.seconds(3)
def test_parts_are_found_by_shape_alone_and_each_hangs_together(described):
    scene, data = described
    head = fit_parts(scene, data, 3, PartObjective())
    points = torch.as_tensor(data.surface.points)
    found, true = head.identities(points).numpy(), true_parts(points)
    assert part_metrics(found, true)["parts_ari"] > 0.85
    assert (found[np.linalg.norm(data.surface.points, axis=1) < BALL * 1.02] == 1).mean() > 0.97
    for part in (1, 2, 3):
        chosen = found == part
        _, piece = connected_components(data.surface.graph[chosen][:, chosen])
        assert np.bincount(piece).max() > 0.97 * chosen.sum()  # points at the tips may have no neighbours
    shares = part_areas(head, data)
    assert shares[0] > shares[1] >= shares[2] > 0 and shares.sum() == pytest.approx(1.0)


@pytest.mark.seconds(5)
def test_another_seed_keeps_the_numbers_where_an_earlier_result_had_them(described):
    scene, data = described
    points = torch.as_tensor(data.surface.points)
    first = fit_parts(scene, data, 3, PartObjective(), seed=0)
    with torch.no_grad():  # the earlier result had the rods the other way round
        for parameter in (first.field.out.weight, first.field.out.bias):
            parameter.copy_(parameter[[0, 2, 1]])
    second = fit_parts(scene, data, 3, PartObjective(), seed=1, earlier=first)
    assert (first.identities(points) == second.identities(points)).float().mean() > 0.97


@pytest.mark.seconds(4)
def test_the_same_seed_gives_the_same_head_and_the_run_is_untouched(described):
    scene, data = described
    before = {name: tensor.clone() for name, tensor in scene.state_dict().items()}
    heads = [fit_parts(scene, data, 3, PartObjective(), seed=2) for _ in range(2)]
    for one, other in zip(heads[0].parameters(), heads[1].parameters(), strict=True):
        assert torch.equal(one, other) and not one.requires_grad
    after = scene.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.seconds(4)
def test_without_the_semantics_the_ball_is_cut_into_equal_parts(described):
    """What the features are for."""
    scene, data = described
    head = fit_parts(scene, data, 3, PartObjective(concentration=1.0, semantics=0.0, orthonormality=0.0, coherence=0.0))
    points = torch.as_tensor(data.surface.points)
    assert part_metrics(head.identities(points).numpy(), true_parts(points))["parts_ari"] < 0.5


@pytest.mark.seconds(4)
def test_a_part_that_dissolves_is_empty_and_not_a_speck(described):
    """More parts than there are: each is of some size or is not there."""
    scene, data = described
    head = fit_parts(scene, data, 9, PartObjective(coherence=1.0))
    shares = part_areas(head, data)
    assert ((shares == 0) | (shares > 0.004)).all() and (shares == 0).any()
    assert (np.diff(shares) <= 0).all()


@pytest.mark.gpu
def test_on_a_gpu_the_parts_are_the_same(described):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene, data = described
    there = fit_parts(copy.deepcopy(scene).cuda(), data, 3, PartObjective())
    assert there.field.out.weight.device.type == "cuda"
    points = torch.as_tensor(data.surface.points)
    here = fit_parts(scene, data, 3, PartObjective())
    assert (there.identities(points).cpu() == here.identities(points)).float().mean() > 0.95


# ------------------------------------------------------------------ starts


def test_specks_join_what_they_border_on():
    x = np.linspace(0, 1, 200)
    points = np.stack([x, np.zeros(200), np.zeros(200)], axis=1)
    surface = surface_of(points, np.tile([0.0, 0, 1.0], (200, 1)))
    labels = np.where(x < 0.6, 0, 1)
    labels[20:24] = -1
    labels[190:] = -1
    assert joined(surface, labels, 2).tolist() == np.where(x < 0.6, 0, 1).tolist()


def test_merging_stops_at_parts_that_are_no_specks():
    """Two halves that differ, and one odd point that alone would be the third cluster."""
    x = np.linspace(0, 1, 400)
    points = np.stack([x, np.zeros(400), np.zeros(400)], axis=1)
    surface = surface_of(points, np.tile([0.0, 0, 1.0], (400, 1)))
    values = np.where(x < 0.5, 0.0, 1.0)[:, None]
    values[100] = 50.0
    labels = merged_neighbours(surface, values, 2, "average")
    assert labels is not None and len(np.unique(labels)) == 2
    assert (labels[x < 0.5] == labels[0]).all() and (labels[x >= 0.5] == labels[-1]).all()


def test_a_number_that_is_free_divides_the_part_that_is_least_alike():
    """Of three stretches, of which two are one part, these are told apart; the third has no structure."""
    x = np.linspace(0, 1, 300)
    points = np.stack([x, np.zeros(300), np.zeros(300)], axis=1)
    surface = surface_of(points, np.tile([0.0, 0, 1.0], (300, 1)))
    stretch = (x * 3).astype(int).clip(0, 2)
    labels = np.where(stretch == 2, 1, 0)
    features = np.eye(3)[stretch]
    features += 0.01 * np.random.default_rng(0).normal(size=features.shape).clip(-1, 1)
    found = with_no_part_empty(surface, features, labels, 3, PartObjective())
    assert part_metrics(found + 1, stretch + 1)["parts_ari"] == 1.0
    assert np.array_equal(with_no_part_empty(surface, features, found, 3, PartObjective()), found)


# ------------------------------------------------------------------ lifting


def test_a_photo_shows_what_faces_it_and_nothing_hides(described):
    scene, data = described
    points = torch.tensor([[0.0, 0.0, BALL], [0.0, 0.0, -BALL], [0.8, 0.0, 0.07], [0.8, 0.0, -0.07]])
    normals = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, -1]])
    above = ring(1, CENTRE, distance=8.0)
    eye = scene.frame.to_world(torch.tensor([[0.0, 0.0, 4.0]])).numpy()[0]
    pose = np.concatenate([np.eye(3), eye[:, None]], axis=1)[None]  # looks along -z
    above = type(above)(pose, above.fx, above.fy, above.cx, above.cy, above.width, above.height)
    weights, uv = view_weights(points, normals, data.solid, scene.frame, above, 0)
    assert weights[0] == pytest.approx(1.0, abs=1e-3) and weights[2] > 0.9
    assert weights[1] == 0 and weights[3] == 0
    assert uv[0] == pytest.approx([80.0, 60.0], abs=1e-3)


def test_a_rod_behind_the_ball_is_hidden(described):
    scene, data = described
    points, normals = torch.tensor([[-0.8, 0.0, 0.07]]), torch.tensor([[0.0, 0.0, 1.0]])
    low = scene.frame.to_world(torch.tensor([[3.0, 0.0, 0.3]])).numpy()[0]
    view = ring(1, CENTRE, distance=8.0)
    towards = CENTRE - low
    forward = towards / np.linalg.norm(towards)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, forward), -forward], axis=1)
    view = type(view)(
        np.concatenate([axes, low[:, None]], axis=1)[None], view.fx, view.fy, view.cx, view.cy, view.width, view.height
    )
    assert view_weights(points, normals, data.solid, scene.frame, view, 0)[0][0] == 0
    near = torch.tensor([[0.8, 0.0, 0.07]])
    assert view_weights(near, normals, data.solid, scene.frame, view, 0)[0][0] > 0


def test_lifted_features_are_those_of_the_pixels_that_show_a_point(described):
    """Grids that hold their own pixel coordinates give back where each point is projected."""
    scene, data = described
    row, column = np.mgrid[:60, :80].astype(np.float32)
    grid = np.stack([(column + 0.5) / 80 * 160, (row + 0.5) / 60 * 120], axis=-1)
    view = VIEWS.subset([0])
    lifted = lift(data.surface.points, data.surface.normals, data.solid.numpy(), scene.frame, view, [grid])
    seen = lifted.seen > 0
    world = scene.frame.to_world(torch.as_tensor(data.surface.points)).double().numpy()
    uv, _ = VIEWS.project_one(0, world)
    assert 0.2 < seen.mean() < 0.6
    assert np.abs(lifted.features[seen] - uv[seen]).max() < 0.05
    assert (lifted.features[~seen] == 0).all()


def test_features_lose_their_signs_and_keep_their_differences():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)) @ np.diag([3.0, 1.0, 0.2])
    known = np.arange(200) < 150
    found = without_signs(values, known)
    assert (found >= 0).all() and (found[~known] == 0).all()
    signed = found[known, :3] - found[known, 3:]
    before = np.linalg.norm(values[0] - values[1]) / np.linalg.norm(values[2] - values[3])
    assert np.linalg.norm(signed[0] - signed[1]) / np.linalg.norm(signed[2] - signed[3]) == pytest.approx(before, 1e-3)
    assert (found[known] ** 2).sum(1).mean() == pytest.approx(1.0, rel=1e-3)
