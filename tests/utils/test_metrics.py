"""Metrics by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import trimesh
from torch import Tensor

from surface_sos_ns.utils.metrics import edge_band, image_metrics, mask_metrics, mesh_metrics, region_psnr


def two_masks() -> tuple[Tensor, Tensor]:
    """4 x 5 pixels: 6 found, 8 true, 4 shared."""
    found, truth = torch.zeros(4, 5), torch.zeros(4, 5)
    found.view(-1)[:6] = 1.0
    truth.view(-1)[2:10] = 1.0
    return found, truth


def test_mask_metrics_by_hand():
    values = mask_metrics(*two_masks())
    assert values["mask_iou"] == pytest.approx(4 / 10)
    assert values["mask_iou_bg"] == pytest.approx(10 / 16)
    assert values["mask_miou"] == pytest.approx((0.4 + 0.625) / 2)
    assert values["mask_acc"] == pytest.approx(14 / 20)
    assert values["mask_sad"] == pytest.approx(6 / 1000)
    assert values["mask_mse"] == pytest.approx(6 / 20)


def test_soft_mattes_count_in_sad_and_mse_and_by_threshold_in_iou():
    truth = torch.tensor([[1.0, 0.0]])
    values = mask_metrics(torch.tensor([[0.6, 0.4]]), truth)
    assert values["mask_iou"] == 1.0 and values["mask_acc"] == 1.0
    assert values["mask_sad"] == pytest.approx(0.8 / 1000)
    assert values["mask_mse"] == pytest.approx(0.16)


def adjusted_rand(found: Tensor, truth: Tensor) -> float:
    """By its definition over all pairs of pixels."""
    both = only_found = only_truth = neither = 0
    pixels = list(zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True))
    for (f1, t1), (f2, t2) in itertools.combinations(pixels, 2):
        both += f1 == f2 and t1 == t2
        only_found += f1 == f2 and t1 != t2
        only_truth += f1 != f2 and t1 == t2
        neither += f1 != f2 and t1 != t2
    pairs = both + only_found + only_truth + neither
    expected = (both + only_found) * (both + only_truth) / pairs
    most = 0.5 * ((both + only_found) + (both + only_truth))
    return (both - expected) / (most - expected)


def test_the_rand_index_equals_its_definition():
    assert mask_metrics(*two_masks())["mask_ari"] == pytest.approx(adjusted_rand(*two_masks()))
    found, truth = two_masks()
    # a segmentation has no sides: swapping object and background changes nothing
    assert mask_metrics(1 - found, truth)["mask_ari"] == pytest.approx(adjusted_rand(found, truth))
    assert mask_metrics(truth, truth)["mask_ari"] == 1.0


@pytest.mark.parametrize("seed", range(30))
def test_accuracy_is_at_least_mean_iou(seed):
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(2, generator=generator)
    found = (torch.rand(12, 9, generator=generator) < share[0]).float()
    truth = (torch.rand(12, 9, generator=generator) < share[1]).float()
    values = mask_metrics(found, truth)
    assert values["mask_acc"] >= values["mask_miou"] - 1e-6
    for name in ("mask_iou", "mask_iou_bg", "mask_miou", "mask_acc", "mask_mse"):
        assert 0.0 <= values[name] <= 1.0


def test_an_empty_union_counts_as_one():
    nothing, everything = torch.zeros(3, 4), torch.ones(3, 4)
    values = mask_metrics(nothing, nothing)
    assert values["mask_iou"] == values["mask_iou_bg"] == values["mask_acc"] == 1.0
    values = mask_metrics(everything, everything)
    assert values["mask_iou"] == values["mask_iou_bg"] == 1.0
    values = mask_metrics(nothing, everything)
    assert values["mask_iou"] == values["mask_iou_bg"] == values["mask_acc"] == 0.0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        mask_metrics(torch.zeros(2, 3), torch.zeros(3, 2))


def test_image_metrics():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(32, 40, 3, generator=generator) * 0.8
    assert image_metrics(truth, truth)["ssim"] == pytest.approx(1.0, abs=1e-5)
    values = image_metrics(truth + 0.1, truth)
    assert values["psnr"] == pytest.approx(20.0, abs=1e-3)
    noisy = (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    assert image_metrics(noisy, truth)["ssim"] < values["ssim"] < 1.0


def test_region_psnr_sees_the_region_alone():
    truth = torch.zeros(4, 4, 3)
    image = torch.ones(4, 4, 3)
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[1:3, 1:3] = True
    image[region] = 0.1
    assert region_psnr(image, truth, region) == pytest.approx(20.0, abs=1e-4)
    assert region_psnr(image, truth, ~region) == pytest.approx(0.0, abs=1e-4)
    assert math.isnan(region_psnr(image, truth, torch.zeros_like(region)))
    assert math.isfinite(region_psnr(truth, truth, region))


def test_the_edge_band_is_three_pixels_on_either_side_of_the_outline():
    truth = torch.zeros(9, 20, dtype=torch.bool)
    truth[:, :8] = True
    expected = torch.zeros_like(truth)
    expected[:, 5:11] = True
    assert torch.equal(edge_band(truth), expected)
    assert torch.equal(edge_band(~truth), expected), "the outline has no sides"
    assert not edge_band(torch.zeros(4, 4, dtype=torch.bool)).any() and not edge_band(torch.ones(4, 4).bool()).any()


def test_the_edge_band_grows_with_the_picture():
    truth = torch.zeros(4, 500, dtype=torch.bool)
    truth[:, :200] = True
    assert edge_band(truth)[0].nonzero().flatten().tolist() == list(range(195, 205))  # 1 % of 500 on either side


def test_errors_at_the_edge_are_those_of_the_band():
    truth = torch.zeros(9, 20)
    truth[:, :8] = 1.0
    matte = truth.clone()
    matte[0, 9] = 0.5  # in the band of 9 x 6 pixels
    matte[3, 0] = 0.0  # far from the outline
    values = mask_metrics(matte, truth)
    assert values["mask_edge_sad"] == pytest.approx(0.5 / 1000) and values["mask_sad"] == pytest.approx(1.5 / 1000)
    assert values["mask_edge_mse"] == pytest.approx(0.25 / 54)
    nowhere = mask_metrics(matte, torch.zeros_like(truth))
    assert math.isnan(nowhere["mask_edge_sad"]) and math.isnan(nowhere["mask_edge_mse"])


def test_chamfer_distance_of_two_plates():
    """Two unit squares, one 0.3 above the other and half covering it: what hangs over is nearest to an edge."""
    square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    truth = trimesh.Trimesh(square, [[0, 1, 2], [0, 2, 3]])
    found = truth.copy()
    found.apply_translation([0.5, 0, 0.3])
    # Half of each lies at 0.3 from the other; of the rest the distance is that to an edge, sqrt(0.3^2 + x^2), x to 0.5.
    reach = math.hypot(0.3, 0.5)
    beyond = (0.5 * reach + 0.09 * math.log((0.5 + reach) / 0.3)) / 2 / 0.5
    expected = 0.5 * 0.3 + 0.5 * beyond
    values = mesh_metrics(found, truth, samples=40_000)
    assert values["mesh_chamfer"] == pytest.approx(expected, rel=5e-3)
    assert values["mesh_chamfer_relative"] == pytest.approx(values["mesh_chamfer"] / math.sqrt(2))
    assert values == mesh_metrics(found, truth, samples=40_000), "seeded"
    assert mesh_metrics(truth, truth, samples=40_000)["mesh_chamfer"] == pytest.approx(0.5 / 200, rel=0.05)
