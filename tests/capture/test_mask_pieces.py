"""Pieces that come and go in masks: balls whose silhouettes are known exactly, taken along or left out at will."""

from __future__ import annotations

import numpy as np
import pytest

from surface_sos_ns.capture.mask_pieces import MaskPiece, find_pieces
from surface_sos_ns.capture.piece_evidence import PieceEvidence
from surface_sos_ns.capture.piece_repair import PieceDecision, repair_masks, transfer_repair
from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.capture.sphere import ObjectSphere
from surface_sos_ns.capture.views import Views
from surface_sos_ns.demo.coarse_masks import coarse_mask
from tests.helpers.ball_views import sphere_masks
from tests.helpers.poses import look_at

VIEWS = 24
BODY, BODY_RADIUS = np.array([0.0, 0.0, 0.5]), 0.5
"""Stands on z = 0."""
KNOB, KNOB_RADIUS = np.array([0.62, 0.0, 0.75]), 0.22
"""Grows out of the body, above the table."""
NEIGHBOUR, NEIGHBOUR_RADIUS = np.array([-0.9, 0.3, 0.25]), 0.25
"""Stands beside the body, on the table."""
SPHERE = ObjectSphere(np.array([0.0, 0.0, 0.5]), 1.1)
RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (60, 160, 60)


@pytest.fixture(scope="module")
def views() -> Views:
    """Around the body, from above the table."""
    poses = []
    for index in range(VIEWS):
        angle, height = 2 * np.pi * index / VIEWS, (0.3, 0.6, 0.9)[index % 3]
        direction = np.array([np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height), np.sin(height)])
        poses.append(look_at(BODY + 4 * direction, BODY)[:3])
    one = np.ones(VIEWS)
    sizes = (85 * one, 85 * one, 40 * one, 30 * one, 80 * one, 60 * one)
    return Views(np.array(poses), *sizes, np.zeros((VIEWS, 6)))


@pytest.fixture(scope="module")
def shapes(views: Views) -> dict[str, list[np.ndarray]]:
    return {
        "body": sphere_masks(views, BODY, BODY_RADIUS),
        "knob": sphere_masks(views, KNOB, KNOB_RADIUS),
        "neighbour": sphere_masks(views, NEIGHBOUR, NEIGHBOUR_RADIUS),
    }


def with_piece(shapes: dict[str, list[np.ndarray]], piece: str, holding: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks of the body, of which so many hold the piece as well, and which do: (V,) bool."""
    taken = np.zeros(VIEWS, bool)
    taken[np.random.default_rng(1).permutation(VIEWS)[:holding]] = True
    masks = [body | (extra & held) for body, extra, held in zip(shapes["body"], shapes[piece], taken, strict=True)]
    return [mask.astype(np.float32) for mask in masks], taken


def photos(shapes: dict[str, list[np.ndarray]], knob: tuple[int, int, int] = RED) -> list[np.ndarray]:
    """A red body, its knob and a blue neighbour on green, without regard to which hides which."""
    pictures = []
    for body, extra, other in zip(shapes["body"], shapes["knob"], shapes["neighbour"], strict=True):
        picture = np.full((*body.shape, 3), GREEN, np.uint8)
        picture[other], picture[extra], picture[body] = BLUE, knob, RED
        pictures.append(picture)
    return pictures


def table_points() -> SparsePoints:
    """On z = 0, around the body."""
    xy = np.random.default_rng(0).uniform(-3, 3, (600, 2))
    xyz = np.column_stack([xy, np.zeros(len(xy))])
    return SparsePoints(xyz, np.zeros((600, 3), np.uint8), np.zeros(600, int))


@pytest.mark.parametrize(("piece", "holding"), [("neighbour", 15), ("neighbour", 8), ("knob", 8)])
def test_a_piece_is_found_with_the_masks_that_hold_it(views: Views, shapes: dict, piece: str, holding: int) -> None:
    masks, taken = with_piece(shapes, piece, holding)
    found = find_pieces(views, masks, SPHERE).pieces
    assert len(found) == 1
    told = found[0].taken != 0
    assert told.sum() >= 0.6 * VIEWS
    assert ((found[0].taken > 0) == taken)[told].mean() >= 0.9
    middle = {"knob": KNOB, "neighbour": NEIGHBOUR}[piece]
    assert np.linalg.norm(found[0].voxels.mean(axis=0) - middle) < 0.2


def test_masks_that_agree_or_are_wrong_each_in_its_own_way_have_no_piece(views: Views, shapes: dict) -> None:
    exact = [mask.astype(np.float32) for mask in shapes["body"]]
    assert find_pieces(views, exact, SPHERE).pieces == []
    bad = [
        coarse_mask(mask, np.random.default_rng(seed)).astype(np.float32) for seed, mask in enumerate(shapes["body"])
    ]
    assert find_pieces(views, bad, SPHERE).pieces == []
    assert find_pieces(views, [*exact[:4], *[None] * (VIEWS - 4)], SPHERE).pieces == []


@pytest.mark.parametrize("holding", [8, 14])
def test_a_neighbour_that_is_taken_along_does_not_count(views: Views, shapes: dict, holding: int) -> None:
    masks, taken = with_piece(shapes, "neighbour", holding)
    repaired = repair_masks(views, masks, photos(shapes), table_points(), SPHERE)
    (decision,) = repaired.decisions
    assert not decision.belongs and not decision.doubtful
    evidence = decision.evidence
    assert evidence.joint < 0 and evidence.support < 0 and evidence.colour < 0
    for view in np.flatnonzero(decision.piece.taken > 0):
        mask, body, other = repaired.masks[view], shapes["body"][view], shapes["neighbour"][view]
        assert mask is not None
        if (other & ~body).sum() > 30:
            assert (np.abs(mask[other & ~body] - 0.5) < 0.01).mean() > 0.95, "says nothing of the neighbour"
        assert (mask[body & ~other] == 1).mean() > 0.5, "still says where the body is"
    assert len(set(np.flatnonzero(taken)) - set(repaired.changed)) <= 2


@pytest.mark.parametrize("holding", [8, 14])
def test_a_part_that_many_masks_lack_is_not_voted_away(views: Views, shapes: dict, holding: int) -> None:
    masks, taken = with_piece(shapes, "knob", holding)
    repaired = repair_masks(views, masks, photos(shapes), table_points(), SPHERE)
    (decision,) = repaired.decisions
    assert decision.belongs
    assert decision.evidence.joint > 0 and decision.evidence.support > 0 and decision.evidence.colour > 0
    for view, mask in enumerate(repaired.masks):
        assert mask is not None
        beside = shapes["knob"][view] & ~shapes["body"][view]
        if decision.piece.taken[view] > 0:
            assert taken[view]
            np.testing.assert_array_equal(mask, masks[view])
        elif beside.sum() > 30:
            assert (np.abs(mask[beside] - 0.5) < 0.01).mean() > 0.8


def test_masks_without_a_piece_stay_as_they_are(views: Views, shapes: dict) -> None:
    masks = [mask.astype(np.float32) for mask in shapes["body"]]
    repaired = repair_masks(views, masks, photos(shapes), table_points(), SPHERE)
    assert repaired.changed == () and repaired.decisions == ()
    for before, after in zip(masks, repaired.masks, strict=True):
        np.testing.assert_array_equal(before, after)


def decision(holding: int, lacking: int, joint: float, support: float = 0.0, colour: float = 0.0) -> PieceDecision:
    taken = np.array([1] * holding + [-1] * lacking, np.int8)
    piece = MaskPiece(np.zeros((1, 3), np.float32), taken, 0.12)
    return PieceDecision(piece, PieceEvidence(float(np.log(holding / lacking)), joint, support, colour))


def test_what_most_masks_are_against_is_doubtful() -> None:
    assert not decision(25, 17, -2.0, -1.0).doubtful and not decision(25, 17, -2.0, -1.0).belongs
    assert decision(34, 8, -2.0, -1.0).doubtful, "81 % of the masks hold it"
    assert decision(26, 16, 0.5, -1.0).doubtful, "only the votes are for it"
    rare = decision(4, 38, 1.0, 1.0, 1.0)
    assert not rare.belongs and rare.doubtful, "too few masks show its shape"
    words = decision(34, 8, -2.0, -1.0).advice()
    assert "34 of 42 masks" in words and "12%" in words and "surface-sos masks --method click" in words
    assert "stands apart" in decision(25, 17, -2.0, -1.0).sentence()


def test_a_repair_is_taken_over_at_another_size() -> None:
    mask = np.zeros((8, 12), np.float32)
    mask[2:6, 2:10] = 1
    small = mask[::2, ::2].copy()
    small[1:3, 3:5] = 127 / 255
    found = transfer_repair(mask, small)
    expected = mask.copy()
    expected[2:6, 6:10] = 127 / 255
    np.testing.assert_allclose(found, expected, atol=1e-6)
