"""The metric of colours against differences whose covariance is known because they were made with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from surface_sos_ns.training.losses import colour_loss
from surface_sos_ns.training.objective import ObjectiveConfig
from surface_sos_ns.training.presets import PAPER, paper_objective
from surface_sos_ns.training.residual_metric import AVERAGED_STEPS, VARIANCE_FLOOR, ResidualMetric

DEVIATIONS = torch.tensor([0.01, 0.02, 0.05])  # along the rows of AXES
AXES = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]


def observed(steps: int = 50) -> ResidualMetric:
    generator, noise = torch.Generator().manual_seed(0), ResidualMetric()
    for _ in range(steps):
        noise.observe(torch.randn(2000, 3, generator=generator) * DEVIATIONS @ AXES)
    noise.update()
    return noise


def test_the_covariance_is_that_the_differences_were_made_with() -> None:
    truth = AXES.T @ torch.diag(DEVIATIONS.square()) @ AXES
    torch.testing.assert_close(observed().covariance, truth, atol=3e-5, rtol=0.0)


def test_a_difference_costs_the_more_the_rarer_it_is() -> None:
    precision = observed().precision
    variance = DEVIATIONS.square() + VARIANCE_FLOOR * DEVIATIONS.square().mean()
    costs = [float(axis @ precision @ axis) for axis in AXES]
    assert costs == pytest.approx((variance[-1] / variance).tolist(), rel=0.03)
    assert costs[2] == pytest.approx(1.0, rel=1e-3)  # nothing costs less than in the mean of squares


def test_colours_of_equal_brightness_differ_where_only_brightness_is_noisy() -> None:
    """A green of the brightness of a brown: the metric sees more between them than between two browns further apart."""
    noise, generator = ResidualMetric(), torch.Generator().manual_seed(0)
    brightness = 0.08 * torch.randn(5000, 1, generator=generator)
    noise.observe(brightness + 0.01 * torch.randn(5000, 3, generator=generator))
    noise.update()
    brown, green, dark = torch.tensor([[0.42, 0.34, 0.26], [0.30, 0.40, 0.31], [0.30, 0.22, 0.14]])[:, None]
    assert colour_loss(brown, dark) > colour_loss(brown, green)
    assert 3 * colour_loss(brown, dark, noise.precision) < colour_loss(brown, green, noise.precision)


def test_before_anything_is_known_it_is_the_mean_of_squares() -> None:
    noise, generator = ResidualMetric(), torch.Generator().manual_seed(0)
    noise.update()
    predicted, target = torch.rand(2, 10, 3, generator=generator)
    torch.testing.assert_close(colour_loss(predicted, target, noise.precision), (predicted - target).square().mean())
    noise.observe(torch.zeros(5, 3))  # a perfect rendering says nothing either
    noise.update()
    assert torch.equal(noise.precision, torch.eye(3))


def test_what_was_wrong_at_first_fades() -> None:
    noise = ResidualMetric()
    noise.observe(torch.eye(3))
    for _ in range(int(AVERAGED_STEPS)):
        noise.observe(torch.zeros(4, 3))
    assert float(noise.covariance.trace()) == pytest.approx(math.exp(-1), rel=0.01)


def test_a_checkpoint_brings_it_back() -> None:
    known, new = observed(1), ResidualMetric()
    new.load_state_dict(known.state_dict())
    assert torch.equal(new.precision, known.precision) and torch.equal(new.covariance, known.covariance)


def test_the_paper_s_preset_has_equation_9_as_printed() -> None:
    assert not PAPER.objective.learned_noise
    assert not paper_objective(replace(ObjectiveConfig(), learned_noise=True)).learned_noise
