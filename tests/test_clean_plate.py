"""What a clean plate knows and what it guesses: the record of what training has seen, and filling in the rest."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.rendering.completion import complete
from surface_sos_ns.sampling.evidence import Evidence


def test_confidence_follows_the_light_that_ended_in_a_cell() -> None:
    evidence = Evidence(16, enough=2.0, share=1.0)
    seen, never = torch.tensor([[0.125, 0.125, 0.125]]), torch.tensor([[-0.625, -0.625, -0.625]])
    evidence.add(seen.expand(8, 3), torch.full((8,), 0.5))  # four rays' light in one cell of side 1/4
    at_centre = float(evidence.confidence(seen))
    assert at_centre == pytest.approx(1 - math.exp(-4.0 / 2.0), rel=1e-5)
    assert float(evidence.confidence(never)) == 0.0


def test_a_short_run_knows_what_a_long_one_knows() -> None:
    """Two walls, of which one gets 30 times the light of the other, and a place with none."""
    bright, dim, never = torch.tensor([[0.125] * 3]), torch.tensor([[-0.375, 0.125, 0.125]]), torch.full((1, 3), -0.625)
    said = {}
    for rays in (0.03, 0.3, 300.0):
        evidence = Evidence(16)
        evidence.add(torch.cat([bright, dim]), torch.tensor([rays, rays / 30]))
        said[rays] = evidence.confidence(torch.cat([bright, dim, never])).tolist()
        # The average ray ends where 0.97 of the brightest cell's light is; a tenth of that is enough.
        enough = min(3.0, 0.1 * rays * (1 + 1 / 900) / (1 + 1 / 30))
        assert said[rays] == pytest.approx([1 - math.exp(-rays / enough), 1 - math.exp(-rays / 30 / enough), 0.0])
        evidence.add(never, torch.tensor([100 * rays]))  # what is enough is found anew
        assert float(evidence.confidence(dim)) < said[rays][1] or rays == 300.0
    assert said[0.03] == pytest.approx(said[0.3])


def test_far_space_is_counted_where_contraction_puts_it() -> None:
    evidence = Evidence(32, share=1.0)
    contracted = torch.tensor([[0.0625, 0.0625, -1.8125]])  # the centre of a cell
    norm = float(contracted.norm())
    wall = contracted / norm / (2 - norm)  # contract, turned round: beyond the unit ball |c| = 2 - 1 / |p|
    evidence.add(wall, torch.tensor([3.0]))
    assert evidence.light.nonzero().tolist() == [[16, 16, 1]]
    here, nearer, opposite = evidence.confidence(torch.cat([wall, 0.9 * wall, -wall])).tolist()
    assert here == pytest.approx(1 - math.exp(-1.0), rel=1e-3)
    assert 0.0 < nearer < here and opposite == 0.0


def test_what_was_seen_fades_with_the_run_and_not_with_the_calls() -> None:
    point = torch.zeros(1, 3)
    light = {}
    for calls in (1, 5):
        evidence = Evidence(4, memory=0.1)
        evidence.add(point, torch.ones(1))
        for call in range(calls):
            evidence.forget(0.3 * (call + 1) / calls)
        light[calls] = float(evidence.light.sum())
    assert light[1] == pytest.approx(0.5**3) and light[5] == pytest.approx(0.5**3)
    resumed = Evidence(4, memory=0.1)
    resumed.load_state_dict(evidence.state_dict())
    resumed.forget(0.3)  # nothing has passed since
    assert torch.equal(resumed.light, evidence.light)


def test_known_pixels_stay_and_unknown_ones_come_from_around_them() -> None:
    ramp = torch.linspace(0, 1, 37)[None, :, None].expand(29, 37, 3).contiguous()
    confidence = torch.ones(29, 37)
    confidence[10:20, 12:24] = 0.0
    damaged = ramp.clone()
    damaged[10:20, 12:24] = torch.tensor([0.0, 5.0, 0.0])
    filled, _ = complete(damaged, confidence, torch.zeros(29, 37))
    known = confidence > 0
    assert torch.allclose(filled[known], ramp[known], atol=1e-6)
    assert float((filled - ramp)[~known].abs().max()) < 0.2  # of a hole a third as wide as the ramp; unfilled, it is 5
    assert float((filled - ramp)[~known].mean().abs()) < 0.05


def test_a_half_known_pixel_is_mixed_and_an_unknown_picture_is_left_alone() -> None:
    image = torch.zeros(8, 8, 1)
    image[3, 3] = 1.0
    confidence = torch.ones(8, 8)
    confidence[3, 3] = 0.45  # half way from a guess to known
    nothing = torch.zeros(8, 8)
    mixed, said = complete(image, confidence, nothing)
    assert float(mixed[3, 3]) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(said, confidence)
    assert torch.equal(complete(image, nothing, nothing)[0], image)


def test_contact_is_filled_in_from_further_off_and_said_to_be_a_guess() -> None:
    """A dark ring about a hidden disc, of which the object covers all but the front; a hole elsewhere has no ring."""
    size, rows, columns = 200, *torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    away = ((rows - 100) ** 2 + (columns - 80) ** 2).sqrt()
    other = ((rows - 100) ** 2 + (columns - 160) ** 2).sqrt()
    image = torch.full((size, size, 3), 0.6)
    image[away < 13] = 0.1  # the ring, and what was made up inside it
    image[other < 15] = 0.1
    confidence = torch.ones(size, size)
    confidence[(away < 8) | (other < 8)] = 0.0
    alpha = ((rows < 105) & (columns < 140)).float()  # the lower parts of the first ring are in view
    filled, said = complete(image, confidence, alpha)
    shown = (rows > 110) & (away < 13)  # further than the silhouette's reach below the object
    assert torch.allclose(filled[shown], image[shown]) and bool((said[shown] == 1).all())
    upper = (rows < 95) & (away < 13)
    assert float((filled - 0.6)[upper].abs().max()) < 0.15  # unfilled it is 0.5
    assert bool((said[upper] == 0).all())
    beside = (other > 11) & (other < 15)
    assert torch.allclose(filled[beside], image[beside]) and bool((said[beside] == 1).all())
    # A large object: from a twentieth of the picture outside what it hides all is left as it is.
    confidence[away < 60] = 0.0
    filled, said = complete(image, confidence, torch.ones(size, size))
    assert bool((said[(away > 71) & (other > 20)] == 1).all()) and bool((said[away < 68] == 0).all())


def test_a_stain_amid_a_hidden_part_goes_with_it_and_what_is_seen_through_it_stays() -> None:
    """Two rings that hide all about their middles: one's middle is half known, the other's is seen."""
    rows, columns = torch.meshgrid(torch.arange(120.0), torch.arange(240.0), indexing="ij")
    image, confidence = torch.full((120, 240, 3), 0.6), torch.ones(120, 240)
    for column, middle in ((60, 0.7), (180, 1.0)):
        away = ((rows - 60) ** 2 + (columns - column) ** 2).sqrt()
        image[away < 14] = 0.1
        confidence[away < 14] = 0.0
        confidence[away < 6] = middle
    filled, said = complete(image, confidence, torch.ones(120, 240))
    assert float((filled - 0.6)[60, 60].abs().max()) < 0.02 and float(said[60, 60]) == 0
    assert torch.allclose(filled[60, 180], image[60, 180], atol=1e-3) and float(said[60, 180]) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (6, 8)])
def test_any_size_of_one_colour_keeps_its_colour(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    confidence = torch.rand(size)
    confidence[0, 0] = 1.0
    assert torch.allclose(
        complete(torch.full((*size, 3), 0.3), confidence, torch.rand(size))[0], torch.tensor(0.3), atol=1e-5
    )
