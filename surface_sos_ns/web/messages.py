"""Validation of websocket messages from browsers. Messages that our pages never send are dropped.

viser accepts all of its message types: files of any size, requests to publish the page on the internet, and new values
of any attribute of a control.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "MAX_MESSAGE_BYTES",
    "ViewerCameraMessage",
    "accepted_value",
    "clamped_camera",
    "read_message",
    "sanitised_path",
]

MAX_MESSAGE_BYTES = 1 << 16
"""Longest message; the longest one of our pages has a few hundred bytes."""
ASPECT_RATIOS = (0.1, 10.0)
"""Range of a window's width over height in which it is rendered as it is."""
FIELDS_OF_VIEW = (math.radians(0.1), math.radians(175.0))
"""Range of the vertical field of view, radians, as in nerfstudio's panel."""
MAX_INTEGER = 2**53 - 1
"""Largest integer that JavaScript represents exactly."""
MAX_NAME_LENGTH = 60
"""Characters of a file or folder name: less than 255 bytes in any script."""

Number = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]  # excludes nan and infinities
Vector = tuple[Number, Number, Number]
Rotation = tuple[Number, Number, Number, Number]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class Message(msgspec.Struct, tag_field="type", tag=True):
    """Base of messages; subclasses have the names of viser's message classes."""


class ViewerCameraMessage(Message):
    """The camera of a browser. Field of view and aspect ratio are clamped, see `clamped_camera`."""

    wxyz: Rotation
    position: Vector
    fov: Number
    aspect: Number
    look_at: Vector
    up_direction: Vector

    def __post_init__(self) -> None:
        _check_rotation(self.wxyz)
        self.fov, self.aspect = clamped_camera(self.fov, self.aspect)


class GuiUpdateMessage(Message):
    """A new value of a control. `accepted_value` checks it against the control."""

    id: Name
    updates: Annotated[dict[Literal["value"], Any], msgspec.Meta(min_length=1)]


class TransformControlsUpdateMessage(Message):
    """A transform handle in the scene was moved."""

    name: Name
    wxyz: Rotation
    position: Vector

    def __post_init__(self) -> None:
        _check_rotation(self.wxyz)


class SceneNodeClickMessage(Message):
    """A node of the scene was clicked."""

    name: Name
    instance_index: int | None
    ray_origin: Vector
    ray_direction: Vector
    screen_pos: tuple[Number, Number]


_decoder = msgspec.msgpack.Decoder(
    ViewerCameraMessage | GuiUpdateMessage | TransformControlsUpdateMessage | SceneNodeClickMessage
)


def read_message(content: bytes | str) -> Message | None:
    """Decodes a message; None if it is invalid or of a type that our pages do not send."""
    if not isinstance(content, bytes) or len(content) > MAX_MESSAGE_BYTES:
        return None
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def clamped_camera(fov: float, aspect: float) -> tuple[float, float]:
    """Vertical field of view (radians) and aspect ratio (width / height), clamped to what is rendered; nan too."""
    return _clamped(fov, *FIELDS_OF_VIEW), _clamped(aspect, *ASPECT_RATIOS)


def accepted_value(value: Any, current: Any, limits: Any, options: Sequence[str] | None) -> Any:
    """The value for a control, clamped to its range, from the value that a browser sent.

    Args:
        value: unchecked, of any type.
        current: value of the control, which has the right type.
        limits: object with the attributes `min` and `max` if the control has a range; for vectors, a tuple or one
            number for all components.
        options: of the control; None if it has none.

    Raises:
        ValueError: the value has another type, or is not one of the options.
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
        return sanitised_path(value)
    if value not in options:
        raise ValueError("expected one of the options")
    return value


def sanitised_path(text: str) -> str:
    """Text as a relative path without `..` that a shell reads as one word.

    nerfstudio's panel uses text fields as file names, and in commands that the user copies into a shell.
    """
    names = (re.sub(r"[^\w.-]+", "_", name).lstrip("-.")[:MAX_NAME_LENGTH] for name in text[:1000].split("/"))
    path = "/".join(name for name in names if name)
    return f"{path}/" if path and text.endswith("/") else path


def _check_rotation(wxyz: Rotation) -> None:
    if not 0.5 < math.hypot(*wxyz) < 2.0:
        raise ValueError("expected a unit quaternion")


def _number(value: Any, low: float | None, high: float | None, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("expected a number")
    return kind(_clamped(value, -MAX_INTEGER if low is None else low, MAX_INTEGER if high is None else high))


def _each(limit: Any, count: int) -> Sequence[Any]:
    return limit if isinstance(limit, tuple) else (limit,) * count


def _clamped(value: float, low: float, high: float) -> float:
    """The value clamped to [low, high]; nan becomes ``high``."""
    return max(low, min(high, value))
