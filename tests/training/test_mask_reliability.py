"""Weights of votes against rates that are known because the masks were made with them."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.training.mask_reliability import PRIOR_RATES, MaskReliability, class_shares

TRUE, FALSE = (0.6, 0.95, 0.0), (0.02, 0.3, 0.0)  # what three masks cover of the object and of the background


def observed(rounds: int = 200, rays: int = 600) -> MaskReliability:
    generator = torch.Generator().manual_seed(0)
    reliability = MaskReliability(4)  # of the fourth nothing is ever seen
    for _ in range(rounds):
        view = torch.randint(3, (rays,), generator=generator)
        truth = (torch.rand(rays, generator=generator) < 0.4).float()
        rate = torch.where(truth > 0, torch.tensor(TRUE)[view], torch.tensor(FALSE)[view])
        mask = (torch.rand(rays, generator=generator) < rate).float()
        reliability.observe(view, shares(mask), shares(truth))
    return reliability


def shares(mask: torch.Tensor) -> torch.Tensor:
    return class_shares(mask, None, 1)


def test_rates_are_those_the_masks_were_made_with() -> None:
    false, true = observed().rates()[:, :, 1].T
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
        reliability.observe(torch.zeros(1000, dtype=torch.long), shares(mask), shares(truth))
    mask = torch.tensor([1.0] * 3 + [0.0] * 5)
    weights = reliability.vote_weight(torch.zeros(8, dtype=torch.long), mask)
    assert float(weights[mask > 0].sum()) > float(weights[mask == 0].sum())


def test_old_votes_fade() -> None:
    reliability = MaskReliability(1, memory=1000.0)
    view, ones = torch.zeros(500, dtype=torch.long), torch.ones(500)
    for _ in range(40):
        reliability.observe(view, shares(ones), shares(ones))
    for _ in range(40):
        reliability.observe(view, shares(0 * ones), shares(ones))
    assert float(reliability.rates()[0, 1, 1]) < 0.1


CONFUSION = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.7, 0.2], [0.25, 0.05, 0.7]])
"""What a mask says, by what is there: background, cup, lemon. It takes the cup for the lemon, hardly the reverse."""


def observed_pair() -> MaskReliability:
    """Two masks of two objects: the first errs by `CONFUSION`, the second takes each object for the other."""
    generator = torch.Generator().manual_seed(0)
    reliability = MaskReliability(2, objects=2)
    swapped = torch.tensor([0, 2, 1])
    for _ in range(200):
        truth = torch.randint(3, (600,), generator=generator)
        said = torch.multinomial(CONFUSION[truth], 1, generator=generator)[:, 0]
        for view, vote in ((0, said), (1, swapped[truth])):
            both = [class_shares((of > 0).float(), of, 2) for of in (vote, truth)]
            reliability.observe(torch.full((600,), view), *both)
    return reliability


def test_the_confusion_of_several_objects_is_found() -> None:
    assert torch.allclose(observed_pair().rates()[0], CONFUSION, atol=0.04)


def test_a_vote_weighs_by_what_it_is_most_easily_mistaken_for() -> None:
    view, one = torch.zeros(3, dtype=torch.long), torch.ones(3)
    weights = observed_pair().vote_weight(view, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 1, 2]))
    truth = [math.log(0.9 / 0.25), math.log(0.7 / 0.05), math.log(0.7 / 0.2)]
    assert weights.tolist() == pytest.approx(truth, rel=0.15)
    assert (observed_pair().vote_weight(view + 1, one, torch.tensor([1, 2, 1])) == 0).all()  # swapped: no say


def test_priors_of_several_objects_are_probabilities() -> None:
    for objects in (1, 2, 5, 32):
        rates = MaskReliability(1, objects).rates()[0]
        assert torch.allclose(rates.sum(1), torch.ones(objects + 1), atol=0.02 * objects)
        assert float(rates[1:, 1:].diagonal().min()) == pytest.approx(PRIOR_RATES[1])
