"""Several objects in one scene: a ball whose slices are the objects, seen along z."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.fields.label import any_object
from surface_sos_ns.models.surface_sos.mesh import object_mesh
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS, stored_objects
from surface_sos_ns.training.losses import identity_entropy, vote_loss
from surface_sos_ns.training.mask_reliability import class_shares
from surface_sos_ns.training.objective import training_losses
from surface_sos_ns.training.presets import PRESETS
from surface_sos_ns.utils.errors import UserError
from tests.helpers.small_scene import BALL, PAPER, TINY, a_batch, rays_at, slice_of, start

NAMES = ("left", "middle", "right")


@pytest.fixture(scope="module")
def scene() -> SurfaceSOS:
    found = start(TINY, steps=300, objects=NAMES).eval()
    found.set_progress(1.0)
    found.update_cache()
    return found


def pixels(count: int = 2000) -> Tensor:
    """Points (P, 2) of the plane of the picture, a margin away from every outline."""
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    cuts = torch.tensor([-BALL / 3, BALL / 3])
    clear = ((points[:, :1] - cuts).abs() > 0.08).all(1) & ((points.norm(dim=-1) - BALL).abs() > 0.08)
    return points[clear]


def test_mattes_of_all_objects_sum_to_alpha_and_each_shows_its_slice(scene: SurfaceSOS) -> None:
    points = pixels()
    found = scene.mattes(*rays_at(points))
    assert found.objects is not None
    torch.testing.assert_close(found.objects.sum(-1), found.alpha, rtol=1e-4, atol=1e-5)
    truth = slice_of(points, 3) * (points.norm(dim=-1) < BALL)
    identity = (found.objects.argmax(-1) + 1) * (found.alpha > 0.5)
    assert float((identity == truth).float().mean()) > 0.99
    assert set(truth.tolist()) == {0, 1, 2, 3}


def test_a_whole_rendering_has_the_same_mattes(scene: SurfaceSOS) -> None:
    rays = rays_at(pixels(300))
    rendering = scene.render(*rays, plate=False)
    found = scene.mattes(*rays).objects
    assert rendering.objects is not None and found is not None
    torch.testing.assert_close(rendering.objects.sum(-1), rendering.alpha, rtol=1e-4, atol=1e-5)
    assert float((rendering.objects - found).abs().mean()) < 0.01  # samples of the two are not the same ones


def test_the_gate_does_not_depend_on_which_object_it_is(scene: SurfaceSOS) -> None:
    """Other names for the same logits: the split of the layers and alpha stay."""
    turned = SurfaceSOS(scene.config, 3, NAMES)
    turned.load_state_dict(scene.state_dict())
    order = [1, 2, 0]
    with torch.no_grad():
        turned.label.field.out.weight.copy_(scene.label.field.out.weight[order])
        turned.label.field.out.bias.copy_(scene.label.field.out.bias[order])
    one, two = (s.eval().mattes(*rays_at(pixels(300))) for s in (scene, turned))
    torch.testing.assert_close(one.alpha, two.alpha)
    assert one.objects is not None and two.objects is not None
    torch.testing.assert_close(one.objects[:, order], two.objects)


def test_points_know_their_object(scene: SurfaceSOS) -> None:
    points = F.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(2)), dim=-1) * BALL
    clear = ((points[:, :1] - torch.tensor([-BALL / 3, BALL / 3])).abs() > 0.08).all(1)
    assert torch.equal(scene.label.identities(points[clear]), slice_of(points[clear], 3))


def test_one_object_is_the_sigmoid_of_its_logit() -> None:
    logits = torch.randn(50, 1)
    assert torch.equal(any_object(logits), logits[:, 0])
    torch.testing.assert_close(
        identity_entropy(logits, torch.full((50,), 0.3), torch.ones(50, dtype=torch.long)),
        F.binary_cross_entropy_with_logits(logits[:, 0], torch.full((50,), 0.3)),
    )


def test_any_object_and_its_entropy_are_those_of_a_softmax_with_a_background_of_zero() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 0.0]])
    whole = torch.softmax(torch.cat([torch.zeros(2, 1), logits], 1), -1)
    torch.testing.assert_close(torch.sigmoid(any_object(logits)), 1 - whole[:, 0])
    mask, identity = torch.tensor([0.8, 1.0]), torch.tensor([3, 2])
    truth = -(0.8 * whole[0, 3].log() + 0.2 * whole[0, 0].log() + whole[1, 2].log()) / 2
    torch.testing.assert_close(identity_entropy(logits, mask, identity), truth)


def test_votes_for_the_wrong_object_cost_as_much_as_for_none() -> None:
    claimed, none = torch.tensor([0.7, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
    each = [
        float(vote_loss(c[None], n[None], torch.ones(1), torch.ones(1), 1.0))
        for c, n in zip(claimed, none, strict=True)
    ]
    assert each == pytest.approx([0.3, 0.9, 0.9])


def test_shares_of_classes() -> None:
    found = class_shares(torch.tensor([0.0, 0.75, 1.0]), torch.tensor([0, 2, 1]), 2)
    assert found.tolist() == [[1, 0, 0], [0.25, 0, 0.75], [0, 1, 0]]


def test_training_moves_a_point_to_the_object_that_masks_name() -> None:
    """Started with two objects in one order, trained with masks that name them in the other."""
    names = ("one", "two")
    scene = start(TINY, steps=100, objects=names).train()
    objective = replace(PRESETS["full"].objective, label_prior=0.0)
    scene.set_progress(0.3)
    optimiser = torch.optim.Adam(scene.label.parameters(), lr=1e-2)
    (origins, directions), photo, mask, weight = a_batch(256)
    named = (3 - slice_of(origins, 2)) * (mask > 0)
    view = torch.zeros(256, dtype=torch.long)
    for _ in range(60):
        rendering = scene.render(origins, directions, view, regulariser_points=torch.rand(512, 3) * 2 - 1)
        losses = training_losses(scene, objective, rendering, photo, mask, weight, view, None, named)
        optimiser.zero_grad()
        losses["votes"].backward()
        optimiser.step()
    points = pixels()
    found = scene.eval().mattes(*rays_at(points)).objects
    assert found is not None
    on_ball = (points.norm(dim=-1) < BALL) & (points[:, 0].abs() > 0.08)
    agree = (found.argmax(-1) + 1 == 3 - slice_of(points, 2))[on_ball]
    assert float(agree.float().mean()) > 0.97


def test_names_are_stored_with_the_weights() -> None:
    scene = SurfaceSOS(TINY, 2, ("cup", "Zitrone_1"))
    state = {f"_model.scene.{name}": value for name, value in scene.state_dict().items()}
    assert stored_objects(state, "_model.scene.") == ("cup", "Zitrone_1")
    assert json.loads(bytes(scene.object_names.tolist())) == ["cup", "Zitrone_1"]
    one = SurfaceSOS(TINY, 2, ("cup",))
    assert one.objects == () and stored_objects(one.state_dict()) == ()
    assert one.state_dict().keys() == SurfaceSOS(TINY, 2).state_dict().keys()


def test_the_paper_preset_takes_one_object() -> None:
    with pytest.raises(UserError, match=r"2 objects \(cup, lemon\).*one object"):
        SurfaceSOS(PAPER, 2, ("cup", "lemon"))


def test_points_boxes_and_meshes_are_those_of_the_object(scene: SurfaceSOS) -> None:
    points = torch.rand(3000, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    cuts = torch.tensor([-BALL / 3, BALL / 3])
    clear = ((points[:, :1] - cuts).abs() > 0.1).all(1) & ((points.norm(dim=-1) - BALL).abs() > 0.1)
    points = points[clear]
    ball = points.norm(dim=-1) < BALL
    for identity, (low, high) in enumerate(((-BALL, cuts[0]), (*cuts,), (cuts[1], BALL)), start=1):
        assert torch.equal(
            scene.object_grid.inside(points, identity=identity), ball & (slice_of(points, 3) == identity)
        )
        box = scene.object_grid.bounds(identity)[:, 0]
        assert box.tolist() == pytest.approx([float(low), float(high)], abs=0.16)
        mesh = object_mesh(scene, resolution=48, identity=identity)
        assert mesh.is_watertight
        across = scene.frame.points(torch.as_tensor(mesh.vertices, dtype=torch.float32))[:, 0]
        assert [float(across.min()), float(across.max())] == pytest.approx([float(low), float(high)], abs=0.06)


def test_the_mesh_of_all_has_a_piece_each(scene: SurfaceSOS) -> None:
    mesh = object_mesh(scene, resolution=40)
    identities = mesh.vertex_attributes["object"]
    assert sorted(set(identities.tolist())) == [1, 2, 3]
    across = scene.frame.points(torch.as_tensor(mesh.vertices, dtype=torch.float32))[:, :1]
    clear = ((across - torch.tensor([-BALL / 3, BALL / 3])).abs() > 0.1).all(1)
    assert torch.equal(torch.as_tensor(identities)[clear].long(), slice_of(across[clear], 3))


def test_a_removed_object_is_seen_through(scene: SurfaceSOS) -> None:
    """From the side the right slice hides the middle one, which hides the left one."""
    across = torch.rand(200, 2, generator=torch.Generator().manual_seed(5)) * 0.4 - 0.2
    origins = torch.cat([torch.full((200, 1), 3.0), across], -1)
    directions = torch.tensor([-1.0, 0.0, 0.0]).expand(200, 3)

    def seen(identities: list[int]) -> Tensor:
        rendering = scene.render(origins, directions, plate=False, shown=scene.showing(identities))
        assert rendering.objects is not None
        torch.testing.assert_close(rendering.objects.sum(-1), rendering.alpha, rtol=1e-3, atol=1e-3)
        return rendering.objects.mean(0)

    whole = scene.render(origins, directions, plate=False)
    assert whole.objects is not None
    assert whole.objects.mean(0)[2] > 0.95
    for shown, front in (([1, 2, 3], 2), ([1, 2], 1), ([1], 0), ([1, 3], 2)):
        share = seen(shown)
        assert share[front] > 0.9, shown
        assert all(share[k - 1] == 0 for k in (1, 2, 3) if k not in shown)
    assert float(seen([]).sum()) == 0.0
    for identities, surface in (([1, 2, 3], BALL), ([1, 2], BALL / 3), ([1], -BALL / 3)):
        depth = scene.render(origins[:1], directions[:1], plate=False, shown=scene.showing(identities)).object_depth
        expected = 3.0 - (surface if surface != BALL else float((BALL**2 - across[0].square().sum()).sqrt()))
        assert float(depth) == pytest.approx(expected, abs=0.06)
