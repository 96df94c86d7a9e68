"""Metrics of a view's parts against numbers found by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surface_sos_ns.plugin.partial_metrics import averages
from surface_sos_ns.plugin.pipeline import METRICS_OF_SOME_PHOTOS
from surface_sos_ns.plugin.view_metrics import view_metrics


def outputs(identities: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """Of a view (12, 12) whose upper left quarter is given, the rest background."""
    image = torch.rand(12, 12, 3, generator=torch.Generator().manual_seed(0))
    found = {name: torch.zeros(12, 12, 1) for name in ("part_ids", "alpha")}
    found["part_ids"][:2, :2, 0], found["alpha"][:2, :2, 0] = identities, alpha
    return {"background": image, "rgb": image, **found}


def truth(identities: Tensor) -> dict[str, Tensor]:
    known = torch.zeros(12, 12, 1, dtype=torch.int64)
    known[:2, :2, 0] = identities
    return {"image": torch.zeros(12, 12, 3), "gt_parts": known}


def parts(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.startswith("parts_")}


def test_parts_are_compared_whatever_their_numbers() -> None:
    ones, true = torch.ones(2, 2), torch.tensor([[1, 1], [2, 2]])
    same = view_metrics(outputs(torch.tensor([[5.0, 5.0], [3.0, 3.0]]), ones), truth(true))
    assert parts(same) == pytest.approx({"parts_nmi": 1.0, "parts_ari": 1.0, "parts_share": 1.0})
    # Two by two, across each other: 0 pairs together in both, of 6; expected 2 * 2 / 6, at most 2.
    across = view_metrics(outputs(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), ones), truth(true))
    by_hand = {"parts_nmi": 0.0, "parts_ari": (0 - 2 / 3) / (2 - 2 / 3), "parts_share": 1.0}
    assert parts(across) == pytest.approx(by_hand)


def test_a_pixel_of_the_mask_whose_middle_sees_no_part_has_its_neighbours() -> None:
    found = outputs(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.ones(2, 2))
    assert parts(view_metrics(found, truth(torch.ones(2, 2, dtype=torch.int64))))["parts_share"] == 1
    found = outputs(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.3], [1.0, 1.0]]))
    assert parts(view_metrics(found, truth(torch.ones(2, 2, dtype=torch.int64))))["parts_share"] == 0.75


def test_there_are_no_metrics_of_parts_without_parts_or_without_their_truth() -> None:
    found, known = outputs(torch.ones(2, 2), torch.ones(2, 2)), truth(torch.ones(2, 2, dtype=torch.int64))
    without = {name: image for name, image in found.items() if name != "part_ids"}
    assert not parts(view_metrics(without, known))
    assert not parts(view_metrics(found, {"image": known["image"]}))


def test_photos_without_true_parts_do_not_end_an_evaluation() -> None:
    found = view_metrics(outputs(torch.ones(2, 2), torch.ones(2, 2)), truth(torch.ones(2, 2, dtype=torch.int64)))
    assert len(parts(found)) == 3 and all(name.startswith(METRICS_OF_SOME_PHOTOS) for name in parts(found))
    assert averages({"parts_ari": [0.25, 0.75]}, with_std=False) == {"parts_ari": 0.5}
