"""The contrastive losses of NeRF-SOS against loops written from its equations, by hand, and by finite differences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from surface_sos_ns.training import contrastive
from surface_sos_ns.training.contrastive import (
    Biases,
    ContrastiveConfig,
    appearance_loss,
    biases_from_quantiles,
    cosine_correspondence,
    geometry_loss,
    inverse_distance,
    inverse_distance_by_axis,
    negative_pairs,
    paper_contrast,
    points_at_depth,
)

BATCH, SIDE = 3, 3
NEGATIVES = torch.tensor([2, 0, 1])
OFFICIAL = replace(ContrastiveConfig(), identity=0.7, negative=1.3)  # weights that differ, so that each is seen
PAPER = paper_contrast(OFFICIAL)


def patches(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, P, P, 5), codes (B, P, P, 2), points (B, P, P, 3), in double; points of one patch lie together."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    points = normal(BATCH, 1, 1, 3) + 0.2 * normal(BATCH, SIDE, SIDE, 3)
    return normal(BATCH, SIDE, SIDE, 5), normal(BATCH, SIDE, SIDE, 2), points


# ------------------------------------------------------------------ reference: explicit loops, from the equations


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(sum(x * x for x in vector))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def near(a: np.ndarray, b: np.ndarray) -> float:
    """The official code: 1 / (sum |s - s'| + .05), at most 15."""
    return min(15.0, 1 / (sum(abs(x - y) for x, y in zip(a, b, strict=True)) + 0.05))


def near_by_axis(a: np.ndarray, b: np.ndarray) -> float:
    """Eq. 7, with the same epsilon."""
    return sum(1 / (abs(x - y) + 0.05) for x, y in zip(a, b, strict=True))


def volume(function, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P, P, P, P) of patches (P, P, ...): h, w, h', w'."""
    result = np.zeros((SIDE,) * 4)
    for h, w, i, j in itertools.product(range(SIDE), repeat=4):
        result[h, w, i, j] = function(first[h, w], second[i, j])
    return result


def centred(volumes: list[np.ndarray]) -> list[np.ndarray]:
    """Pointwise centring: from each (h, w) its mean over (h', w'), and the mean of all volumes back."""
    mean = sum(v.sum() for v in volumes) / sum(v.size for v in volumes)
    result = []
    for v in volumes:
        shifted = v.copy()
        for h, w in itertools.product(range(SIDE), repeat=2):
            shifted[h, w] = v[h, w] - v[h, w].sum() / SIDE**2
        result.append(shifted + mean)
    return result


def reference(cues: np.ndarray, codes: np.ndarray, biases: Biases, correspondence, similarity, paper: bool) -> float:
    loss = 0.0
    for others, bias, weight in ((range(BATCH), biases.identity, 0.7), (NEGATIVES.tolist(), biases.negative, 1.3)):
        pulls = [volume(correspondence, cues[n], cues[o]) for n, o in enumerate(others)]
        alike = [volume(similarity, codes[n], codes[o]) for n, o in enumerate(others)]
        if not paper:
            pulls = centred(pulls)
            alike = [np.maximum(s, 0) for s in alike]
        costs = [-float(((f - bias) * s).sum()) for f, s in zip(pulls, alike, strict=True)]
        loss += weight * sum(costs) / BATCH / (1 if paper else SIDE**4)
    return loss


def test_the_official_appearance_loss_equals_its_definition() -> None:
    features, codes, _ = patches()
    truth = reference(features.numpy(), codes.numpy(), Biases(0.18, 0.46), cosine, cosine, paper=False)
    assert float(appearance_loss(features, codes, NEGATIVES, OFFICIAL)) == pytest.approx(truth, rel=1e-9)


def test_the_official_geometry_loss_equals_its_definition() -> None:
    _, codes, points = patches()
    directions = np.apply_along_axis(unit, -1, codes.numpy())
    truth = reference(points.numpy(), directions, Biases(0.5, 3.0), near, near, paper=False)
    assert float(geometry_loss(points, codes, NEGATIVES, OFFICIAL)) == pytest.approx(truth, rel=1e-9)


def test_the_printed_appearance_loss_equals_equations_2_to_4() -> None:
    features, codes, _ = patches()
    truth = reference(features.numpy(), codes.numpy(), Biases(0.18, 0.46), cosine, cosine, paper=True)
    assert float(appearance_loss(features, codes, NEGATIVES, PAPER)) == pytest.approx(truth, rel=1e-9)


def test_the_printed_geometry_loss_equals_equations_7_to_9() -> None:
    _, codes, points = patches()
    truth = reference(points.numpy(), codes.numpy(), Biases(0.5, 3.0), near_by_axis, cosine, paper=True)
    assert float(geometry_loss(points, codes, NEGATIVES, PAPER)) == pytest.approx(truth, rel=1e-9)


def test_both_variants_differ() -> None:
    """Otherwise one of the four tests above would show nothing."""
    features, codes, points = patches()
    mean = replace(PAPER, summed=False)
    for loss, cues in ((appearance_loss, features), (geometry_loss, points)):
        official, printed = (float(loss(cues, codes, NEGATIVES, config)) for config in (OFFICIAL, mean))
        assert abs(official - printed) > 0.01


@pytest.mark.seconds(2)  # torch loads more for a checkpoint
@pytest.mark.parametrize("config", [OFFICIAL, PAPER], ids=["official", "paper"])
def test_long_volumes_are_treated_in_parts_with_the_same_gradient(
    config: ContrastiveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, codes, points = patches()
    codes.requires_grad_(True)

    def value_and_gradient() -> list[Tensor]:
        result = []
        for loss, cues in ((appearance_loss, features), (geometry_loss, points)):
            value = loss(cues, codes, NEGATIVES, config)
            result += [value.detach(), *torch.autograd.grad(value, codes)]
        return result

    whole = value_and_gradient()
    held = []

    def watched(first: Tensor, second: Tensor) -> Tensor:
        held.append(first.shape[0] * first.shape[1] * second.shape[1])
        return cosine_correspondence(first, second)

    monkeypatch.setattr(contrastive, "MAX_ENTRIES", 60)  # of 3 x 9 x 9: two rows of the nine at once
    in_parts = value_and_gradient()
    assert all(torch.allclose(a, b, rtol=1e-10, atol=0) for a, b in zip(whole, in_parts, strict=True))
    monkeypatch.setattr(contrastive, "cosine_correspondence", watched)
    appearance_loss(features, codes, NEGATIVES, config)
    assert held and max(held) <= 60


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("config", [OFFICIAL, PAPER], ids=["official", "paper"])
def test_gradients_equal_finite_differences(config: ContrastiveConfig) -> None:
    features, codes, points = patches(1)
    codes.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda c: appearance_loss(features, c, NEGATIVES, config), codes)
    assert torch.autograd.gradcheck(lambda c: geometry_loss(points, c, NEGATIVES, config), codes)


def test_gradients_go_to_the_codes_alone() -> None:
    inputs = [values.requires_grad_(True) for values in patches()]
    features, codes, points = inputs
    loss = appearance_loss(features, codes, NEGATIVES, OFFICIAL) + geometry_loss(points, codes, NEGATIVES, OFFICIAL)
    loss.backward()
    assert codes.grad is not None and codes.grad.abs().sum() > 0
    assert features.grad is None and points.grad is None


@pytest.mark.parametrize("config", [OFFICIAL, PAPER], ids=["official", "paper"])
def test_rays_that_hit_nothing_have_a_bounded_gradient(config: ContrastiveConfig) -> None:
    features, codes, points = (values.float() for values in patches())
    codes[0, 0] = 0.0
    codes.requires_grad_(True)
    loss = appearance_loss(features, codes, NEGATIVES, replace(config, summed=False))
    (loss + geometry_loss(points, codes, NEGATIVES, replace(config, summed=False))).backward()
    assert codes.grad is not None and codes.grad.isfinite().all() and codes.grad.abs().max() < 1e8


# ------------------------------------------------------------------ by hand


def test_eq_2_by_hand() -> None:
    first = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]])
    second = torch.tensor([[[5.0, 0.0], [-3.0, -4.0]]])
    assert torch.allclose(cosine_correspondence(first, second), torch.tensor([[[0.6, -1.0], [0.0, -0.8], [0.0, 0.0]]]))


def test_eq_5_by_hand() -> None:
    points = points_at_depth(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 0.6, -0.8]]), torch.tensor([10.0]))
    assert torch.allclose(points, torch.tensor([[1.0, 8.0, -5.0]]))


def test_eq_7_by_hand() -> None:
    """Points at (0, 0, 0) and (1, 0, 3): as printed they correspond well, because they share y."""
    first, second = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0.0, 3.0]]])
    assert float(inverse_distance(first, second, 0.05)) == pytest.approx(1 / 4.05)
    assert float(inverse_distance_by_axis(first, second, 0.05)) == pytest.approx(1 / 1.05 + 1 / 0.05 + 1 / 3.05)
    assert float(inverse_distance(first, first, 0.05)) == pytest.approx(20.0)
    assert float(inverse_distance(first, first, 0.05, cap=15.0)) == 15.0
    assert float(inverse_distance_by_axis(first, first, 0.05)) == pytest.approx(60.0)


def two_pixels() -> tuple[Tensor, Tensor]:
    """Two patches of 1 x 2 pixels. Features: x and y; y and y. Codes: x and y; y and -y."""
    x, y = [1.0, 0.0], [0.0, 1.0]
    return torch.tensor([[[x, y]], [[y, y]]]), torch.tensor([[[x, y]], [[y, [0.0, -1.0]]]])


def test_the_printed_appearance_loss_by_hand() -> None:
    """C of patch 0 with itself: F = S = identity; of 1: F = 1, S = 1 and -1. Across, F and S meet in one row."""
    features, codes = two_pixels()
    config = replace(paper_contrast(ContrastiveConfig()), appearance_biases=Biases(0.2, 0.5))
    identity = -(2 * 0.8 + 0.8 * (1 + 1 - 1 - 1)) / 2
    negative = -2 * (0.5 * 1 + 0.5 * -1) / 2
    loss = appearance_loss(features, codes, torch.tensor([1, 0]), config)
    assert float(loss) == pytest.approx(identity + negative)


def test_the_official_appearance_loss_by_hand() -> None:
    """The same with S >= 0, and means. Identity pairs: F of patch 0 has rows of mean 1/2, that of patch 1 of mean 1;
    mean of all 3/4. So it becomes 3/4 +- 1/2 on and off the diagonal, and 3/4. Across, all rows are shifted to 1/2."""
    features, codes = two_pixels()
    config = replace(ContrastiveConfig(), appearance_biases=Biases(0.2, 0.5))
    identity = -(2 * (1.25 - 0.2) + 2 * (0.75 - 0.2)) / 8
    # patch 0 to 1: rows 0, 0 and 1, 1, both centred to 1/2; patch 1 to 0: rows 0, 1 twice, which stay
    negative = -(1 * (0.5 - 0.5) + 1 * (1.0 - 0.5)) / 8
    loss = appearance_loss(features, codes, torch.tensor([1, 0]), config)
    assert float(loss) == pytest.approx(identity + negative)


# ------------------------------------------------------------------ pairs


def test_the_negative_of_a_patch_is_the_least_alike() -> None:
    degrees = torch.tensor([0.0, 10.0, 100.0, 170.0])
    lengths = torch.tensor([1.0, 9.0, 0.1, 3.0])  # which do not matter
    angle = degrees.deg2rad()
    descriptors = lengths[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    assert negative_pairs(descriptors).tolist() == [3, 3, 0, 0]
    assert negative_pairs(descriptors).dtype == torch.int64


def test_no_patch_is_its_own_negative() -> None:
    assert negative_pairs(torch.ones(3, 4)).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="two patches"):
        negative_pairs(torch.ones(1, 4))


def test_pixels_may_be_given_as_a_list() -> None:
    features, codes, points = patches()
    for loss, cues in ((appearance_loss, features), (geometry_loss, points)):
        listed = loss(cues.flatten(1, 2), codes.flatten(1, 2), NEGATIVES, OFFICIAL)
        assert float(listed) == float(loss(cues, codes, NEGATIVES, OFFICIAL))


def test_quantiles_split_the_pairs_of_pixels() -> None:
    features, _, _ = patches()
    flat = features.flatten(1, 2)
    own, other = cosine_correspondence(flat, flat), cosine_correspondence(flat, flat[NEGATIVES])
    biases = biases_from_quantiles(features, NEGATIVES, Biases(0.4, 0.9), centred=False)
    assert float((own < biases.identity).double().mean()) == pytest.approx(0.4, abs=2 / own.numel())
    assert float((other < biases.negative).double().mean()) == pytest.approx(0.9, abs=2 / other.numel())


def test_quantiles_are_those_of_centred_cosines() -> None:
    features, _, _ = patches()
    own = centred([volume(cosine, patch, patch) for patch in features.numpy()])
    other = centred([volume(cosine, features[n].numpy(), features[o].numpy()) for n, o in enumerate(NEGATIVES)])
    biases = biases_from_quantiles(features, NEGATIVES, Biases(0.25, 0.75))
    assert biases.identity == pytest.approx(float(np.quantile(own, 0.25)), rel=1e-9)
    assert biases.negative == pytest.approx(float(np.quantile(other, 0.75)), rel=1e-9)


# ------------------------------------------------------------------ what they do


@pytest.mark.parametrize("config", [ContrastiveConfig(), paper_contrast(ContrastiveConfig())], ids=["code", "paper"])
def test_a_head_learns_the_two_things_that_the_features_tell_apart(config: ContrastiveConfig) -> None:
    """Patches one half of which shows one thing, the other half another: codes end alike within a thing, not across."""
    generator = torch.Generator().manual_seed(0)
    thing = torch.zeros(4, 8, 8, dtype=torch.long)
    thing[:, :, 4:] = 1
    features = torch.eye(2)[thing] + 0.1 * torch.randn(4, 8, 8, 2, generator=generator)
    points = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])[thing]
    points = points + 0.3 * torch.rand(4, 8, 8, 3, generator=generator)
    weight = (0.1 * torch.randn(3, 2, generator=generator)).requires_grad_(True)
    offset = torch.randn(2, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([weight, offset], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        codes = points @ weight + offset
        loss = appearance_loss(features, codes, torch.tensor([1, 2, 3, 0]), config)
        (loss + 0.01 * geometry_loss(points, codes, torch.tensor([1, 2, 3, 0]), config)).backward()
        optimizer.step()
    zero, one = codes.detach()[thing == 0][None], codes.detach()[thing == 1][None]
    assert cosine_correspondence(zero, zero).min() > 0.8 and cosine_correspondence(one, one).min() > 0.8
    assert cosine_correspondence(zero, one).max() < 0.3
