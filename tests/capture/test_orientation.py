"""What is said about photos with an orientation tag: what the size tells, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.orientation import orientation_remark
from surface_sos_ns.utils.image_io import ImageHeader


def remark(tags: list[int], camera: tuple[int, int], stored: tuple[int, int] = (30, 20)) -> str | None:
    headers = [ImageHeader(stored, tag, "JPEG", "RGB", False) for tag in tags]
    return orientation_remark(
        [Path(f"images/{place}.jpg") for place in range(len(tags))], headers, [camera] * len(tags)
    )


@pytest.mark.parametrize("scale", [1, 4])
def test_a_quarter_turn_is_told_by_the_size(scale: int) -> None:
    assert remark([1, 1], (30 // scale, 20 // scale)) is None
    assert remark([6, 8, 5, 7], (20 // scale, 30 // scale)) is None  # turned
    said = remark([1, 6, 8], (30 // scale, 20 // scale))
    assert said is not None and said.startswith("2 photos (1.jpg, 2.jpg) are not turned as their EXIF")


@pytest.mark.parametrize(("tag", "stored"), [(2, (30, 20)), (3, (30, 20)), (4, (30, 20)), (6, (20, 20)), (3, (20, 20))])
def test_where_the_size_does_not_tell_it_is_said(tag: int, stored: tuple[int, int]) -> None:
    said = remark([1, tag], stored, stored)
    assert said is not None and said.startswith("1 photos (1.jpg) are turned as their EXIF") and "exiftool" in said


def test_a_program_that_ignored_one_tag_ignored_all() -> None:
    with pytest.raises(
        CaptureError, match=r"1 photos \(2.jpg\) have .* Those of 1 photos \(1.jpg\) are for the stored pixels"
    ):
        remark([1, 6, 3], (30, 20))
    said = remark([1, 6, 3], (20, 30))  # it honoured the quarter turn
    assert said is not None and said.startswith("1 photos (2.jpg) are turned")
