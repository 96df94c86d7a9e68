"""Which photos are compared with which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, groupby
from typing import Literal

__all__ = ["Matching", "blocks", "choose_matching", "photo_pairs"]

Matching = Literal["exhaustive", "sequential", "circle"]

MAX_EXHAUSTIVE = 200
"""Photos up to which all pairs are compared; the time goes with the square."""

NEIGHBOURS = 10
"""Photos before and after that each is compared with, where they were taken in a row."""

CIRCLE_NEIGHBOURS = 6
"""The same on a circle, where the last photo is the first one's neighbour. Photos of opposite sides of an object share
no points, and with few features wrong matches between look-alikes are not recognised."""

KEYFRAME = 5
"""Photos of a row whose index is a multiple of this are all compared with each other: that closes loops."""

BLOCK = 8
"""Photos by photos that are compared at a time."""


def choose_matching(count: int, in_a_row: bool, turns: bool = False) -> Matching:
    """How a capture is matched where the user did not say.

    Args:
        count: number of photos.
        in_a_row: they are frames of a video.
        turns: the object turns before a camera that stands.
    """
    if turns and count > 2 * CIRCLE_NEIGHBOURS:
        return "circle"
    return "sequential" if in_a_row or count > MAX_EXHAUSTIVE else "exhaustive"


def photo_pairs(count: int, matching: Matching) -> list[tuple[int, int]]:
    """Pairs (first < second) of photos to compare, sorted.

    ``sequential`` takes near neighbours, ever more distant ones (2, 4, 8 ... apart), and all pairs of keyframes;
    ``circle`` near neighbours, the first photo and the last being neighbours.
    """
    pairs = combinations(range(count), 2)
    if matching == "circle":
        return [(a, b) for a, b in pairs if min(b - a, count - (b - a)) <= CIRCLE_NEIGHBOURS]
    if matching == "exhaustive":
        return list(pairs)
    return [(a, b) for a, b in pairs if _worth_it(a, b)]


def _worth_it(first: int, second: int) -> bool:
    apart = second - first
    keyframes = first % KEYFRAME == 0 and second % KEYFRAME == 0
    return apart <= NEIGHBOURS or apart & (apart - 1) == 0 or keyframes


def blocks(pairs: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The same pairs in portions that have few photos in them, so that each photo's features are loaded a few times."""

    def block(pair: tuple[int, int]) -> tuple[int, int]:
        return pair[0] // BLOCK, pair[1] // BLOCK

    return [list(portion) for _, portion in groupby(sorted(pairs, key=block), key=block)]
