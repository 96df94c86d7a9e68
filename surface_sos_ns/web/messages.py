"""What a browser may say to our pages. The pages say nothing else, so whatever else arrives is dropped.

viser takes any of its messages from anybody: files of any size, requests to publish the page on the internet, and new
values for any attribute of a control.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

__all__ = ["LARGEST_MESSAGE", "ViewerCameraMessage", "accepted_value", "drawable", "plain_path", "read_message"]

LARGEST_MESSAGE = 1 << 16  # bytes; the longest that a page of ours sends is a few hundred
SHAPES = (0.1, 10.0)  # of windows, width over height: the narrowest and the widest that is drawn as it is
FIELDS_OF_VIEW = (math.radians(0.1), math.radians(175.0))  # what nerfstudio's panel offers
LARGEST_INTEGER = 2**53 - 1  # what a browser can count to, and well within what messages can carry
LONGEST_NAME = 60  # characters of one folder or file: under 255 bytes in any script

Number = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]  # nan and infinities are none of these
Vector = tuple[Number, Number, Number]
Rotation = tuple[Number, Number, Number, Number]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class Message(msgspec.Struct, tag_field="type", tag=True):
    """Named as viser names the message that it stands for."""


class ViewerCameraMessage(Message):
    """Where a browser looks from. Its window may have any shape; the nearest that can be drawn is taken."""

    wxyz: Rotation
    position: Vector
    fov: Number
    aspect: Number
    look_at: Vector
    up_direction: Vector

    def __post_init__(self) -> None:
        _check_rotation(self.wxyz)
        self.fov, self.aspect = drawable(self.fov, self.aspect)


class GuiUpdateMessage(Message):
    """A control was used. Whether its value will do depends on the control, see `accepted_value`."""

    id: Name
    updates: Annotated[dict[Literal["value"], Any], msgspec.Meta(min_length=1)]


class TransformControlsUpdateMessage(Message):
    """A handle in the scene was moved."""

    name: Name
    wxyz: Rotation
    position: Vector

    def __post_init__(self) -> None:
        _check_rotation(self.wxyz)


class SceneNodeClickMessage(Message):
    """Something in the scene was clicked."""

    name: Name
    instance_index: int | None
    ray_origin: Vector
    ray_direction: Vector
    screen_pos: tuple[Number, Number]


_decoder = msgspec.msgpack.Decoder(
    ViewerCameraMessage | GuiUpdateMessage | TransformControlsUpdateMessage | SceneNodeClickMessage
)


def read_message(content: bytes | str) -> Message | None:
    """A message of one of our pages; None where it is not, or holds what no page of ours would send."""
    if not isinstance(content, bytes) or len(content) > LARGEST_MESSAGE:
        return None
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def drawable(fov: float, aspect: float) -> tuple[float, float]:
    """The nearest vertical field of view in radians and shape (width over height) that can be drawn; of nan too."""
    return _within(fov, *FIELDS_OF_VIEW), _within(aspect, *SHAPES)


def accepted_value(value: Any, current: Any, limits: Any, options: Sequence[str] | None) -> Any:
    """What a control takes of a value that a browser sends for it: the nearest within its limits.

    Args:
        value: of any type.
        current: the control's value, which has the right type.
        limits: has the attributes `min` and `max` where the control has a range; for vectors one each, or one for all.
        options: that the control offers, if it does.

    Raises:
        ValueError: it is not of the control's kind, or none of the options.
    """
    if isinstance(current, bool):
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if isinstance(current, int | float):
        return _number(value, getattr(limits, "min", None), getattr(limits, "max", None), type(current))
    if isinstance(current, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(current):
            raise ValueError(f"expected {len(current)} numbers")
        low, high = (_each(getattr(limits, name, None), len(current)) for name in ("min", "max"))
        return tuple(map(_number, value, low, high, map(type, current)))
    if not isinstance(value, str):
        raise ValueError("expected text")
    if options is None:
        return plain_path(value)
    if value not in options:
        raise ValueError("expected one of the options")
    return value


def plain_path(text: str) -> str:
    """What was typed, as a relative path that stays in its folder and that a shell takes as one word.

    nerfstudio's panel makes names of files of what is typed, and commands to be copied into a shell.
    """
    names = (re.sub(r"[^\w.-]+", "_", name).lstrip("-.")[:LONGEST_NAME] for name in text[:1000].split("/"))
    path = "/".join(name for name in names if name)
    return f"{path}/" if path and text.endswith("/") else path


def _check_rotation(wxyz: Rotation) -> None:
    if not 0.5 < math.hypot(*wxyz) < 2.0:
        raise ValueError("expected a unit quaternion")


def _number(value: Any, low: float | None, high: float | None, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("expected a number")
    return kind(_within(value, -LARGEST_INTEGER if low is None else low, LARGEST_INTEGER if high is None else high))


def _each(limit: Any, count: int) -> Sequence[Any]:
    return limit if isinstance(limit, tuple) else (limit,) * count


def _within(value: float, low: float, high: float) -> float:
    """The value, or the limit that is nearer; of nan the upper one."""
    return max(low, min(high, value))
