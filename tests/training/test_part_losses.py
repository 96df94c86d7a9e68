"""Losses of parts against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.training.parts import (
    PartObjective,
    coherence_loss,
    concentration_loss,
    orthonormality_loss,
    part_centres,
    part_losses,
    semantic_loss,
)

HARD = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
"""Four points of two parts."""
LINE = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [5.0, 0, 0], [5.0, 4.0, 0]])


def test_centres_are_the_means_of_the_parts():
    assert torch.allclose(part_centres(HARD, LINE), torch.tensor([[1.0, 0, 0], [5.0, 2.0, 0]]))


def test_centres_of_soft_parts_weigh_by_the_shares():
    shares = torch.tensor([[0.25, 0.75], [0.75, 0.25], [0.0, 1.0], [0.0, 1.0]])
    assert torch.allclose(part_centres(shares, LINE)[0], torch.tensor([1.5, 0.0, 0.0]))


def test_concentration_adds_the_mean_squared_distances_of_the_parts():
    assert float(concentration_loss(HARD, LINE)) == pytest.approx(1.0 + 4.0)


def test_concentration_counts_parts_alike_whatever_their_size():
    twice = concentration_loss(torch.cat([HARD, HARD[:2]]), torch.cat([LINE, LINE[:2]]))
    assert float(twice) == pytest.approx(5.0)


def test_an_empty_part_costs_nothing_and_divides_by_nothing():
    shares = torch.cat([HARD, torch.zeros(4, 1)], dim=1).requires_grad_()
    loss = concentration_loss(shares, LINE)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(5.0) and torch.isfinite(shares.grad).all()


def test_semantics_is_the_squared_error_of_the_basis():
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    basis = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(semantic_loss(HARD, features, basis)) == pytest.approx((0 + 1 + 1 + 1) / 4)


def test_orthonormality_looks_at_directions_alone():
    assert float(orthonormality_loss(torch.tensor([[3.0, 0.0], [0.0, 0.1]]))) == pytest.approx(0.0, abs=1e-6)
    # the cosine of 45 degrees, once above and once below the diagonal
    assert float(orthonormality_loss(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))) == pytest.approx(2 * 0.5)


def test_coherence_counts_the_pairs_that_a_border_cuts():
    pairs = torch.tensor([[0, 1], [1, 2], [2, 3]])
    weights = torch.tensor([1.0, 0.5, 1.0])
    # one of three pairs, of weight 0.5; its shares differ by (1, -1), half the square is 1; root of 4 points
    assert float(coherence_loss(HARD, pairs, weights)) == pytest.approx(0.5 / 3 * 2)


def test_coherence_does_not_depend_on_how_densely_points_are_drawn():
    """A border across a square: of n x n points it cuts n of about 2 n^2 pairs."""

    def border(side: int) -> float:
        index = torch.arange(side * side).reshape(side, side)
        pairs = torch.cat(
            [torch.stack([index[:, :-1], index[:, 1:]], -1), torch.stack([index[:-1], index[1:]], -1).transpose(0, 1)]
        ).reshape(-1, 2)
        left = (torch.arange(side) < side // 2).float().expand(side, side).reshape(-1)
        return float(coherence_loss(torch.stack([left, 1 - left], -1), pairs, torch.ones(len(pairs))))

    assert border(80) == pytest.approx(border(20), rel=0.05)


def test_all_losses_have_their_weights():
    features, basis = torch.eye(4)[:, :2], torch.eye(2)
    pairs, weights = torch.tensor([[1, 2]]), torch.ones(1)
    objective = PartObjective(concentration=2.0, semantics=3.0, orthonormality=5.0, coherence=7.0)
    found = part_losses(objective, HARD, LINE, features, basis, pairs, weights)
    assert float(found["concentration"]) == pytest.approx(2 * 5.0)
    assert float(found["semantics"]) == pytest.approx(3 * float(semantic_loss(HARD, features, basis)))
    assert float(found["orthonormality"]) == pytest.approx(0.0, abs=1e-6)
    assert float(found["coherence"]) == pytest.approx(7 * math.sqrt(4))
