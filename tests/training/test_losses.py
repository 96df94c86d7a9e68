"""Losses by hand, their bounds, and where the vote loss settles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from surface_sos_ns.training.losses import (
    colour_loss,
    eikonal_loss,
    entropy_loss,
    mask_loss,
    sparsity_loss,
    surface_point_loss,
    vote_loss,
)


def test_colour_loss_by_hand():
    predicted, target = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert float(colour_loss(predicted, target)) == pytest.approx((1 + 0.25) / 3)


def test_eikonal_loss_by_hand():
    assert float(eikonal_loss(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]]))) == pytest.approx(16 / 2)


def test_sparsity_loss_by_hand():
    sdf = torch.tensor([0.0, 0.1, -0.1])
    assert float(sparsity_loss(sdf, 20.0)) == pytest.approx((1 + 2 * math.exp(-2)) / 3)


def test_surface_point_loss_by_hand():
    assert float(surface_point_loss(torch.tensor([0.2, -0.4]))) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "loss", [eikonal_loss, lambda sdf: sparsity_loss(sdf[:, 0], 10.0), lambda sdf: surface_point_loss(sdf[:, 0])]
)
def test_nothing_to_measure_costs_nothing(loss):
    empty = torch.zeros(0, 3, requires_grad=True)
    value = loss(empty)
    assert value.item() == 0.0
    value.backward()


def test_mask_loss_by_hand():
    alpha, mask = torch.tensor([0.8, 0.4, 0.5]), torch.tensor([1.0, 0.0, 0.25])
    weight = torch.tensor([1.0, 3.0, 0.0])
    assert float(mask_loss(alpha, mask, weight)) == pytest.approx((-math.log(0.8) - 3 * math.log(0.6)) / 4, rel=1e-5)
    soft = mask_loss(alpha[2:], mask[2:], torch.ones(1))
    assert float(soft) == pytest.approx(-math.log(0.5), rel=1e-5)


def test_mask_loss_is_bounded():
    worst = mask_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.ones(2))
    assert float(worst) == pytest.approx(-math.log(1e-3), rel=1e-3)


def test_views_without_trust_cost_nothing():
    alpha, mask, none = torch.tensor([0.3]), torch.tensor([1.0]), torch.zeros(1)
    assert float(mask_loss(alpha, mask, none)) == 0.0
    assert float(vote_loss(alpha, 1 - alpha, mask, none, 0.5)) == 0.0


def test_vote_loss_by_hand():
    alpha, mask = torch.tensor([0.64, 0.36]), torch.tensor([1.0, 0.0])
    assert float(vote_loss(alpha, 1 - alpha, mask, torch.ones(2), 0.5)) == pytest.approx((1 - 0.8) / 0.5)
    assert float(vote_loss(alpha, 1 - alpha, mask, torch.ones(2), 1.0)) == pytest.approx(0.36)  # L1
    near_entropy = vote_loss(alpha, 1 - alpha, mask, torch.ones(2), 1e-4)
    assert float(near_entropy) == pytest.approx(-math.log(0.64), abs=2e-3)


@pytest.mark.parametrize("robustness", [0.1, 0.5, 1.0])
def test_vote_loss_is_bounded_by_one_over_q(robustness):
    alpha, mask = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    worst = float(vote_loss(alpha, 1 - alpha, mask, torch.ones(2), robustness))
    assert 0 < worst <= 1 / robustness
    assert float(vote_loss(mask, 1 - mask, mask, torch.ones(2), robustness)) == pytest.approx(0.0, abs=1e-6)


def settled_at(votes: Tensor, robustness: float) -> float:
    """The one label that minimises the loss over all votes."""
    labels = torch.linspace(0.001, 0.999, 999)
    losses = [
        float(vote_loss(a.expand(len(votes)), 1 - a.expand(len(votes)), votes, torch.ones(len(votes)), robustness))
        for a in labels
    ]
    return float(labels[int(torch.tensor(losses).argmin())])


def test_votes_settle_at_their_mean_or_their_majority():
    votes = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert settled_at(votes, 0.01) == pytest.approx(0.75, abs=0.01)
    assert settled_at(votes, 1.0) == pytest.approx(1.0, abs=0.01)
    assert settled_at(1 - votes, 1.0) == pytest.approx(0.0, abs=0.01)
    # between the two: a / (1 - a) = (p / (1 - p)) ** (1 / (1 - q)), where the derivative vanishes
    for q in (0.3, 0.5, 0.7):
        odds = 3.0 ** (1 / (1 - q))
        assert settled_at(votes, q) == pytest.approx(odds / (1 + odds), abs=0.01)


def test_entropy_loss_pushes_to_the_ends():
    assert float(entropy_loss(torch.tensor([0.5]))) == pytest.approx(math.log(2))
    assert float(entropy_loss(torch.tensor([0.0, 1.0]))) < 2e-3
    alpha = torch.tensor([0.3, 0.7], requires_grad=True)
    entropy_loss(alpha).backward()
    assert alpha.grad is not None and alpha.grad[0] > 0 > alpha.grad[1]


def test_gradients_are_finite_at_the_ends():
    alpha = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    mask = torch.tensor([0.0, 1.0, 1.0, 0.0])
    loss = (
        mask_loss(alpha, mask, torch.ones(4))
        + vote_loss(alpha, 1 - alpha, mask, torch.ones(4), 0.3)
        + entropy_loss(alpha)
    )
    loss.backward()
    assert alpha.grad is not None and alpha.grad.isfinite().all()
