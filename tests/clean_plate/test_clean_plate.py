"""What a clean plate knows and what it guesses: the record of what training has seen, and filling in the rest."""

from __future__ import annotations

import math

import pytest
import torch

from surface_sos_ns.clean_plate.inpainting import inpaint
from surface_sos_ns.clean_plate.observation_grid import ObservationGrid


def test_confidence_follows_the_light_that_ended_in_a_cell() -> None:
    evidence = ObservationGrid(16, light_scale=2.0, mean_share=1.0)
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
        evidence = ObservationGrid(16)
        evidence.add(torch.cat([bright, dim]), torch.tensor([rays, rays / 30]))
        said[rays] = evidence.confidence(torch.cat([bright, dim, never])).tolist()
        # The average ray ends where 0.97 of the brightest cell's light is; a tenth of that is enough.
        enough = min(3.0, 0.1 * rays * (1 + 1 / 900) / (1 + 1 / 30))
        assert said[rays] == pytest.approx([1 - math.exp(-rays / enough), 1 - math.exp(-rays / 30 / enough), 0.0])
        evidence.add(never, torch.tensor([100 * rays]))  # what is enough is found anew
        assert float(evidence.confidence(dim)) < said[rays][1] or rays == 300.0
    assert said[0.03] == pytest.approx(said[0.3])


def test_far_space_is_counted_where_contraction_puts_it() -> None:
    evidence = ObservationGrid(32, mean_share=1.0)
    contracted = torch.tensor([[0.0625, 0.0625, -1.8125]])  # the centre of a cell
    norm = float(contracted.norm())
    wall = contracted / norm / (2 - norm)  # contract, turned round: beyond the unit ball |c| = 2 - 1 / |p|
    evidence.add(wall, torch.tensor([3.0]))
    assert evidence.light.nonzero().tolist() == [[16, 16, 1]]
    here, nearer, opposite = evidence.confidence(torch.cat([wall, 0.9 * wall, -wall])).tolist()
    assert here == pytest.approx(1 - math.exp(-1.0), rel=1e-3)
    assert 0.0 < nearer < here and opposite == 0.0


def test_light_that_cannot_have_been_seen_is_taken_back() -> None:
    """A wall behind the object and one beside it, far off as well."""
    evidence = ObservationGrid(32, light_scale=2.0, mean_share=1.0)
    places = torch.tensor([[0.0625, 0.0625, -0.9375], [0.9375, 0.0625, 0.0625], [7.0, 7.0, 0.0]])
    evidence.add(places.repeat(4, 1), torch.ones(12))
    asked = []

    def credible(points: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return torch.where(points[:, 2] < -0.5, 0.0, torch.where(points[:, 0] > 2.0, 0.5, 1.0))

    before = evidence.light.sum()
    evidence.discount(credible)
    assert len(asked) == 1 and len(asked[0]) == 3, "only where light was counted"
    # In the object frame: in the cell's middle where it is not contracted, and as far off as the far one.
    asked_at = asked[0][torch.cdist(asked[0], places).argmin(0)]
    torch.testing.assert_close(asked_at[:2], places[:2])
    assert float(asked_at[2].norm()) == pytest.approx(9.9, rel=0.4)
    assert float(torch.nn.functional.cosine_similarity(asked_at[2], places[2], dim=0)) > 0.99
    assert float(evidence.light.sum()) == pytest.approx(float(before) * 1.5 / 3)
    known = evidence.confidence(places)
    assert float(known[0]) == 0.0 and 0.2 < float(known[2]) < float(known[1]), "and what is enough is found anew"


def test_what_was_seen_fades_with_the_run_and_not_with_the_calls() -> None:
    point = torch.zeros(1, 3)
    light = {}
    for calls in (1, 5):
        evidence = ObservationGrid(4, half_life=0.1)
        evidence.add(point, torch.ones(1))
        for call in range(calls):
            evidence.fade(0.3 * (call + 1) / calls)
        light[calls] = float(evidence.light.sum())
    assert light[1] == pytest.approx(0.5**3) and light[5] == pytest.approx(0.5**3)
    resumed = ObservationGrid(4, half_life=0.1)
    resumed.load_state_dict(evidence.state_dict())
    resumed.fade(0.3)  # nothing has passed since
    assert torch.equal(resumed.light, evidence.light)


def test_known_pixels_stay_and_unknown_ones_come_from_around_them() -> None:
    ramp = torch.linspace(0, 1, 37)[None, :, None].expand(29, 37, 3).contiguous()
    confidence = torch.ones(29, 37)
    confidence[10:20, 12:24] = 0.0
    damaged = ramp.clone()
    damaged[10:20, 12:24] = torch.tensor([0.0, 5.0, 0.0])
    filled = inpaint(damaged, confidence)
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
    assert float(inpaint(image, confidence)[3, 3]) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(inpaint(image, nothing), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (6, 8)])
def test_any_size_of_one_colour_keeps_its_colour(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    confidence = torch.rand(size)
    confidence[0, 0] = 1.0
    assert torch.allclose(inpaint(torch.full((*size, 3), 0.3), confidence), torch.tensor(0.3), atol=1e-5)
