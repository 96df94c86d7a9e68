"""Clusters of codes on blobs that are known, and their memberships by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from surface_sos_ns.models.nerf_sos.clusters import Clusters, fit_clusters

DIRECTIONS = (10.0, 100.0, 220.0)
"""Angles of three blobs of codes, degrees."""
SIZES = (300, 500, 200)


def blobs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes (N, 2) of any length within a few degrees of the blobs' directions, and which blob each belongs to."""
    generator = torch.Generator().manual_seed(seed)
    blob = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    angle = (torch.tensor(DIRECTIONS)[blob] + 4 * torch.randn(len(blob), generator=generator)).deg2rad()
    length = 0.2 + 3 * torch.rand(len(blob), generator=generator)
    return length[:, None] * torch.stack([angle.cos(), angle.sin()], -1), blob


@pytest.mark.seconds(2)  # scikit-learn is loaded
def test_known_blobs_are_found_whatever_the_length_of_their_codes() -> None:
    codes, blob = blobs()
    clusters = fit_clusters(codes, None, 3, seed=0)
    number = torch.tensor([1, 0, 2])  # by size, the largest first
    assert torch.equal(clusters.labels(codes), number[blob])
    assert clusters.shares.tolist() == pytest.approx([0.5, 0.3, 0.2])
    angles = torch.rad2deg(torch.atan2(clusters.centres[:, 1], clusters.centres[:, 0])) % 360
    assert angles.tolist() == pytest.approx([100.0, 10.0, 220.0], abs=1.0)


def test_identities_do_not_depend_on_the_seed_or_the_order_of_the_codes() -> None:
    codes, _ = blobs()
    first = fit_clusters(codes, None, 3, seed=0)
    for seed in range(1, 6):
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(fit_clusters(codes[order], None, 3, seed=0).centres, first.centres)
        other = fit_clusters(codes, None, 3, seed=seed)
        assert torch.allclose(other.centres, first.centres, atol=1e-6)
        assert torch.equal(other.labels(codes), first.labels(codes))


def test_weights_count_as_pixels() -> None:
    codes, blob = blobs()
    weights = torch.tensor([1.0, 0.1, 10.0])[blob]
    clusters = fit_clusters(codes, weights, 3, seed=0)
    assert clusters.shares.tolist() == pytest.approx([2000 / 2350, 300 / 2350, 50 / 2350], rel=1e-5)
    assert torch.equal(clusters.labels(codes), torch.tensor([1, 2, 0])[blob])


def test_equal_shares_are_ordered_all_the_same() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).repeat(10, 1)
    centres = [fit_clusters(codes, None, 3, seed=seed).centres for seed in range(5)]
    assert all(torch.equal(other, centres[0]) for other in centres[1:])


def two_clusters() -> Clusters:
    """Centres at (1, 0) and (0, 1); the second is the object."""
    clusters = Clusters(2, 2)
    clusters.centres.copy_(torch.eye(2))
    clusters.shares.copy_(torch.tensor([0.7, 0.3]))
    clusters.foreground.fill_(1)
    return clusters


def test_membership_by_hand() -> None:
    clusters = two_clusters()
    angle = math.radians(30)  # squared distances from the centres: 2 - 2 cos 30, 2 - 2 cos 60
    codes = torch.tensor([[2.0, 0.0], [3.0, 3.0], [5 * math.cos(angle), 5 * math.sin(angle)]])
    share = (2 - math.sqrt(3)) / (2 - math.sqrt(3) + 1)
    assert clusters.alpha(codes).tolist() == pytest.approx([0.0, 0.5, share], abs=1e-6)
    assert torch.allclose(clusters.membership(codes).sum(-1), torch.ones(3))
    assert clusters.labels(codes[[0, 2]]).tolist() == [0, 0]
    assert clusters.alpha(codes.view(1, 3, 2)).shape == (1, 3)


def test_empty_rays_belong_to_no_cluster_more_than_to_another() -> None:
    assert two_clusters().membership(torch.zeros(1, 2))[0].tolist() == pytest.approx([0.5, 0.5])


def test_the_state_is_kept() -> None:
    codes, _ = blobs()
    fitted = fit_clusters(codes, None, 3, seed=0)
    assert int(fitted.foreground) == -1 and fitted.fitted
    fitted.foreground.fill_(2)
    loaded = Clusters(3, 2)
    assert not loaded.fitted
    loaded.load_state_dict(fitted.state_dict())
    assert loaded.fitted and torch.equal(loaded.alpha(codes), fitted.alpha(codes))


def test_alpha_needs_a_foreground() -> None:
    codes, _ = blobs()
    with pytest.raises(ValueError, match="foreground has not been chosen"):
        fit_clusters(codes, None, 2, seed=0).alpha(codes)


@pytest.mark.parametrize("count", [1, 0, -1])
def test_one_cluster_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"2 clusters at least, got {count}"):
        fit_clusters(blobs()[0], None, count, seed=0)
    with pytest.raises(ValueError, match="2 clusters at least"):
        Clusters(count, 2)


def test_collapsed_codes_are_refused() -> None:
    codes = torch.rand(100, 1) * torch.tensor([[3.0, 4.0]])  # one direction
    with pytest.raises(ValueError, match="1 different segmentation codes, too few for 2"):
        fit_clusters(codes, None, 2, seed=0)


def test_codes_that_are_not_finite_are_refused() -> None:
    codes = blobs()[0]
    codes[3, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        fit_clusters(codes, None, 2, seed=0)


def test_alpha_says_which_cluster_is_nearest_however_many_there_are() -> None:
    clusters = Clusters(3, 2)
    clusters.centres.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    clusters.shares.fill_(1 / 3)
    clusters.foreground.fill_(1)
    angle = torch.linspace(0.05, 3.1, 40)
    codes = torch.stack([angle.cos(), angle.sin()], -1)
    assert torch.equal(clusters.alpha(codes) > 0.5, clusters.labels(codes) == 1)
    # Half-way between two: squared distances 2 - sqrt 2 to both, so 1 / 2.
    assert clusters.alpha(torch.tensor([1.0, 1.0])) == pytest.approx(0.5)
