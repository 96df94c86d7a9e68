"""Weights of votes against rates that are known because the masks were made with them."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.training.mask_reliability import PRIOR_RATES, MaskReliability

TRUE, FALSE = (0.6, 0.95, 0.0), (0.02, 0.3, 0.0)  # what three masks cover of the object and of the background


def observed(rounds: int = 200, rays: int = 600) -> MaskReliability:
    generator = torch.Generator().manual_seed(0)
    reliability = MaskReliability(4)  # of the fourth nothing is ever seen
    for _ in range(rounds):
        view = torch.randint(3, (rays,), generator=generator)
        truth = (torch.rand(rays, generator=generator) < 0.4).float()
        rate = torch.where(truth > 0, torch.tensor(TRUE)[view], torch.tensor(FALSE)[view])
        mask = (torch.rand(rays, generator=generator) < rate).float()
        reliability.observe(view, mask, truth)
    return reliability


def test_rates_are_those_the_masks_were_made_with() -> None:
    false, true = observed().rates()
    assert torch.allclose(true[:2], torch.tensor(TRUE[:2]), atol=0.05)
    assert torch.allclose(false[:2], torch.tensor(FALSE[:2]), atol=0.05)
    assert (float(false[3]), float(true[3])) == pytest.approx(PRIOR_RATES)


def test_votes_weigh_their_log_likelihood_ratio() -> None:
    reliability = observed()
    views = torch.tensor([0, 0, 1, 1])
    weights = reliability.vote_weight(views, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    truth = [math.log(0.6 / 0.02), math.log(0.98 / 0.4), math.log(0.95 / 0.3), math.log(0.7 / 0.05)]
    assert weights.tolist() == pytest.approx(truth, rel=0.15)
    assert weights[0] > 2 * weights[1] and weights[3] > 2 * weights[2]  # bitten: believe its yes; bloated: its no


def test_an_empty_mask_has_no_say() -> None:
    """It says background everywhere, and so nothing."""
    assert float(observed().vote_weight(torch.tensor([2]), torch.tensor([0.0]))) < 0.05


def test_weighted_votes_find_what_a_majority_does_not() -> None:
    """Points that bitten masks show three times of eight are object, when masks hardly ever invent anything."""
    reliability = MaskReliability(1)
    for _ in range(50):
        truth = torch.tensor([1.0, 0.0]).repeat(500)
        mask = truth * (torch.arange(1000) % 10 < 7)  # of the object 0.7 or so, nothing else
        reliability.observe(torch.zeros(1000, dtype=torch.long), mask, truth)
    mask = torch.tensor([1.0] * 3 + [0.0] * 5)
    weights = reliability.vote_weight(torch.zeros(8, dtype=torch.long), mask)
    assert float(weights[mask > 0].sum()) > float(weights[mask == 0].sum())


def test_old_votes_fade() -> None:
    reliability = MaskReliability(1, memory=1000.0)
    view, ones = torch.zeros(500, dtype=torch.long), torch.ones(500)
    for _ in range(40):
        reliability.observe(view, ones, ones)
    for _ in range(40):
        reliability.observe(view, 0 * ones, ones)
    assert float(reliability.rates()[1]) < 0.1
