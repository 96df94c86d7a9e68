"""The mean of weights over the last part of a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surface_sos_ns.training.weight_average import WeightAverage


def test_the_mean_of_what_was_added_replaces_the_weights() -> None:
    layer = nn.Linear(2, 1)
    average = WeightAverage(layer.parameters())
    for value in (1.0, 2.0, 6.0):
        for parameter in layer.parameters():
            parameter.data.fill_(value)
        average.add()
    average.apply()
    assert all(torch.allclose(parameter, torch.full_like(parameter, 3.0)) for parameter in layer.parameters())
    layer.weight.data.fill_(7.0)
    average.apply()
    assert layer.weight[0, 0].item() == 7.0, "nothing is left to apply"


def test_it_goes_on_from_what_was_saved() -> None:
    layer = nn.Linear(1, 1)
    first = WeightAverage(layer.parameters())
    layer.weight.data.fill_(2.0)
    first.add()
    second = WeightAverage(layer.parameters())
    second.load_state_dict(first.state_dict())
    layer.weight.data.fill_(4.0)
    second.add()
    second.apply()
    assert layer.weight.item() == pytest.approx(3.0)


def test_weights_of_another_model_are_refused() -> None:
    first = WeightAverage(nn.Linear(1, 1).parameters())
    first.add()
    with pytest.raises(ValueError, match="another model"):
        WeightAverage(nn.Linear(2, 1).parameters()).load_state_dict(first.state_dict())
