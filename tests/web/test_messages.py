"""What a browser may say: each kind of message with values that are right, wrong and absurd."""

from __future__ import annotations

import math
import shlex
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from surface_sos_ns.utils.text import as_code, printable
from surface_sos_ns.web.messages import (
    MAX_MESSAGE_BYTES,
    accepted_value,
    clamped_camera,
    read_message,
    sanitised_path,
)
from tests.helpers.attacker import CAMERA

CLICK = {
    "type": "SceneNodeClickMessage",
    "name": "/photo_1",
    "instance_index": None,
    "ray_origin": [0.0, 0.0, 1.0],
    "ray_direction": [0, 0, -1],
    "screen_pos": [0.5, 0.5],
}
MOVE = {"type": "TransformControlsUpdateMessage", "name": "Crop", "wxyz": [1, 0, 0, 0], "position": [0, 0, 0]}
FILE = {"source_component_id": "a", "transfer_uuid": "u"}
UPDATE = {"type": "GuiUpdateMessage", "id": "a", "updates": {"value": 1}}


def read(message: Any) -> Any:
    return read_message(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("message", [CAMERA, CLICK, MOVE, UPDATE], ids=lambda message: message["type"])
def test_what_the_page_says_is_understood(message: dict[str, Any]) -> None:
    found = read(message)
    assert type(found).__name__ == message["type"]
    assert msgspec.json.decode(msgspec.json.encode(found)) == message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, 2**62, "1", None, True, [1.0], {}])
def test_numbers_that_are_none_are_dropped(number: Any) -> None:
    for message, names in ((CAMERA, ("fov", "aspect")), (CLICK, ("ray_origin", "screen_pos")), (MOVE, ("position",))):
        for name in names:
            value = message[name]
            assert read({**message, name: [number, *value[1:]] if isinstance(value, list) else number}) is None


@pytest.mark.parametrize("message", [CAMERA, MOVE], ids=lambda message: message["type"])
@pytest.mark.parametrize("wxyz", [[0, 0, 0, 0], [1e5, 0, 0, 0], [1, 0, 0], [1, 0, 0, 0, 0], 1])
def test_rotations_that_are_none_are_dropped(message: dict[str, Any], wxyz: Any) -> None:
    assert read({**message, "wxyz": wxyz}) is None


@pytest.mark.parametrize(
    "updates",
    [
        {},
        {"update_cb": []},
        {"value": 1, "disabled": False},
        {"gui_api": None},
        [],
        "value",
        {"sync_cb": 1},
        {"id": "b"},
    ],
)
def test_of_a_control_only_its_value_is_set(updates: Any) -> None:
    assert read({**UPDATE, "updates": updates}) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ShareUrlRequest"},
        {"type": "ShareUrlDisconnect"},
        {"type": "RunJavascriptMessage", "source": "alert(1)"},
        {**FILE, "type": "FileTransferStart", "filename": "f", "mime_type": "", "part_count": 1, "size_bytes": 10**12},
        {**FILE, "type": "FileTransferPart", "part": 0, "content": b"x" * 1000},
        {"type": "GetRenderResponseMessage", "payload": b"x"},
        *({"type": "nothing"}, {"type": None}, {"type": ["GuiUpdateMessage"]}, {}, [], None, 5, "text", [CAMERA]),
        {**UPDATE, "id": "a" * 1000},
        {**UPDATE, "updates": {"value": "x" * MAX_MESSAGE_BYTES}},
    ],
    ids=lambda message: str(message)[:40],
)
def test_other_messages_are_dropped(message: Any) -> None:
    assert read(message) is None


def test_what_is_no_message_is_dropped() -> None:
    deep = msgspec.msgpack.encode(UPDATE)[:-1] + b"\x91" * 60_000 + b"\xc0"
    for content in (b"", b"\xc1", b"\xff" * 100, b"\x91" * 50_000, deep, "text", msgspec.msgpack.encode(CAMERA) + b"x"):
        assert read_message(content) is None


def test_windows_and_lenses_of_any_shape_can_be_drawn() -> None:
    for aspect in (3000.0, 1 / 3000, 0.0, -1.0):
        for fov in (0.0, -1.0, math.pi, 100.0, 0.8):
            found = read({**CAMERA, "aspect": aspect, "fov": fov})
            assert 0.1 <= found.aspect <= 10 and 0 < found.fov < math.pi
    assert clamped_camera(0.8, 16 / 9) == (0.8, 16 / 9)
    assert all(map(math.isfinite, clamped_camera(math.nan, math.nan)))
    assert read(CAMERA).aspect == pytest.approx(4 / 3)


# ------------------------------------------------------------------ controls

SLIDER = SimpleNamespace(min=64, max=2048)
NOTHING = SimpleNamespace()


@pytest.mark.parametrize(
    ("value", "current", "limits", "expected"),
    [
        *((100, 512, SLIDER, 100), (10**9, 512, SLIDER, 2048), (-5, 512, SLIDER, 64), (99.7, 512, SLIDER, 99)),
        *((0.5, 0.1, SimpleNamespace(min=0.0, max=1.0), 0.5), (1, 0.1, SimpleNamespace(min=0.0, max=None), 1.0)),
        *((1e308, 0.0, NOTHING, 2.0**53 - 1), (-(2**62), 0, NOTHING, 1 - 2**53), (True, False, NOTHING, True)),
        ([10, 300, -4], (0, 0, 0), SimpleNamespace(min=0, max=255), (10, 255, 0)),
        ([1, 2], (1.0, 1.0), SimpleNamespace(min=(5.0, 0.0), max=None), (5.0, 2.0)),
    ],
)
def test_numbers_are_brought_into_the_range_of_their_control(
    value: Any, current: Any, limits: Any, expected: Any
) -> None:
    found = accepted_value(value, current, limits, None)
    assert found == expected and type(found) is type(expected)
    if isinstance(expected, tuple):
        assert list(map(type, found)) == list(map(type, current))


@pytest.mark.parametrize(
    ("value", "current"),
    [
        *((math.nan, 1), (math.inf, 1.0), ("5", 1), (None, 1), ([], 1), (True, 1), ({}, 1), (1, False), ("true", True)),
        *(
            ([1, 2], (1, 2, 3)),
            ([1, math.nan, 2], (1, 2, 3)),
            ("abc", (1, 2, 3)),
            (5, (1, 2, 3)),
            ([1, [2], 3], (1, 2, 3)),
        ),
        *((5, "text"), (["text"], "text"), (None, "text")),
    ],
)
def test_values_of_another_kind_are_refused(value: Any, current: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        accepted_value(value, current, NOTHING, None)


def test_a_choice_is_one_of_those_offered() -> None:
    assert accepted_value("mask", "rgb", NOTHING, ("rgb", "mask")) == "mask"
    for value in ("../../secret.json", "", 1, None):
        with pytest.raises(ValueError, match="expected"):
            accepted_value(value, "rgb", NOTHING, ("rgb", "mask"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *(("2024-05-01-10-00-00", "2024-05-01-10-00-00"), ("exports/pcd/", "exports/pcd/"), ("Küche_2.b", "Küche_2.b")),
        *(
            ("../../etc/passwd", "etc/passwd"),
            ("/etc/passwd", "etc/passwd"),
            ("..", ""),
            ("./a/./b", "a/b"),
            ("a//b", "a/b"),
        ),
        *(("a b", "a_b"), ("..\\..\\x", "_.._x"), ("-rf", "rf"), ("a/--load-config/b", "a/load-config/b"), ("", "")),
        *(
            ("$(touch x); `y` | z\n&", "_touch_x_y_z_"),
            ("x --load-config evil", "x_--load-config_evil"),
            (".ssh", "ssh"),
        ),
        *(("a\0b", "a_b"), ("{alert(1)}", "_alert_1_"), ("💥", "_"), ("'\"", "_")),
    ],
)
def test_what_is_typed_becomes_a_path_that_stays_in_its_folder(typed: str, expected: str) -> None:
    assert sanitised_path(typed) == expected
    assert sanitised_path(expected) == expected
    assert shlex.split(sanitised_path(typed)) == ([expected] if expected else [])


def test_long_names_fit_a_file_system() -> None:
    name = sanitised_path("\U0001d4b3" * 500)
    assert len(f"{name}.json".encode()) <= 255 and name
    assert len(sanitised_path("a/" * 10**6)) < 2000


# ------------------------------------------------------------------ names that others wrote


def test_names_are_inert_in_markdown() -> None:
    for name in (
        "{alert(1)}.jpg",
        "<img src=x onerror=alert(1)>.jpg",
        "a`b{c}`.jpg",
        "x\n\n{alert(1)}\n",
        "a\r\rexport x",
    ):
        code = as_code(name)
        assert code[0] == code[-1] == "`" and "`" not in code[1:-1] and not set(code) & set("\n\r\v\f\u2028\u0085")
    assert "](" not in as_code("![x](/etc/secret.png)")
    assert as_code("images/a 1.jpg") == "`images/a 1.jpg`"


def test_names_are_inert_in_a_terminal() -> None:
    assert printable("a\x1b[2J\x07\x9b31m\x7fb\r") == "a\\x1b[2J\\x07\\x9b31m\\x7fb\\r"
    assert printable("gnp.\u202etxt") == "gnp.\\u202etxt"
    assert printable("caf\udce9").encode() == b"caf\\udce9"
    assert printable("Käse 猫\u00a0👍🏽.jpg\n\tx") == "Käse 猫\u00a0👍🏽.jpg\n\tx"
