"""Names of several objects."""

from __future__ import annotations

import pytest

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.object_names import MAX_OBJECTS, check_object_names, default_object_names


def test_good_names_stay_as_they_are() -> None:
    assert check_object_names(["Cup", "lemon_2", "3"], "x.json") == ("Cup", "lemon_2", "3")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "names 0 objects"),
        ([f"o{i}" for i in range(33)], "names 33 objects"),
        (["my cup"], "'my cup'"),
        (["cup:1"], "'cup:1'"),
        (["../cup"], "letters, digits"),
        (["bg"], "meaning of their own"),
        (["All"], "meaning of their own"),
        (["cup_std"], "meaning of their own"),
        (["Depths"], "as distances"),
        (["cup", "Cup"], "two objects 'cup'"),
    ],
)
def test_names_that_cannot_be_used_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(CaptureError, match=r"^x\.json") as error:
        check_object_names(names, "x.json")
    assert words in str(error.value)


def test_default_names_can_be_used() -> None:
    names = default_object_names(MAX_OBJECTS)
    assert check_object_names(names, "x") == names
    assert names[0] == "object_1"
