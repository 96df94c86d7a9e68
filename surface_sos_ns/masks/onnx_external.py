"""Which files beside an ONNX file hold its weights, read without onnx or onnxruntime.

An ONNX file may name others that hold its weights, and some versions of onnxruntime (1.23, for one) read them wherever
they lie. A file from elsewhere must not have files outside of its own folder read, so the names are looked at first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from surface_sos_ns.masks.provider import MaskError

__all__ = ["external_files"]

FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
"""Of each message of onnx.proto, the numbers of the fields through which tensors are reached, and their messages."""

KEY, VALUE = 1, 2
"""Fields of an entry: a tensor's external data are entries such as location = weights.bin, offset = 4096."""


def external_files(file: Path) -> list[Path]:
    """The files that an ONNX file reads its weights from, besides itself.

    Args:
        file: an ONNX file.

    Raises:
        MaskError: it is no ONNX file, or names one that is not there or lies outside of its own folder.
        OSError: it cannot be read.
    """
    try:
        names = sorted(set(_locations(memoryview(file.read_bytes()), "Model")))
        targets = [(file.parent / name).resolve() for name in names]
    except (ValueError, RecursionError) as error:
        raise MaskError(f"{file} is no ONNX file, or a damaged one ({error}).") from error
    folders = {file.parent.resolve(), file.resolve().parent}  # they differ where the file is a symbolic link
    for name, target in zip(names, targets, strict=True):
        if not any(target.is_relative_to(folder) for folder in folders):
            raise MaskError(
                f"{file} reads weights from {name}, outside of its own folder, which is not allowed. Save the model as "
                "one file, or with its weights beside it."
            )
        if not target.is_file():
            raise MaskError(f"{file} reads weights from {name}, which is not there; put it into the same folder.")
    return targets


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    """All locations of external data in a message of a kind in `FIELDS`."""
    for number, content in _fields(message):
        inner = FIELDS[kind].get(number)
        if inner == "Entry":
            entry = [(field, bytes(text).decode()) for field, text in _fields(content)]
            if (KEY, "location") in entry:
                yield from (text for field, text in entry if field == VALUE)
        elif inner is not None:
            yield from _locations(content, inner)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields of a protobuf message that have a length: messages, strings, packed numbers.

    Raises:
        ValueError: this is no protobuf message.
    """
    position = 0
    while position < len(message):
        tag, position = _number(message, position)
        if tag >= 2**32:  # protobuf would drop the upper bits
            raise ValueError("a field number that is too large")
        match tag & 7:
            case 0:
                _, position = _number(message, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                length, position = _number(message, position)
                if position + length > len(message):
                    raise ValueError("it ends too early")
                yield tag >> 3, message[position : position + length]
                position += length
            case kind:
                raise ValueError(f"a field of the unknown kind {kind}")
    if position > len(message):
        raise ValueError("it ends too early")


def _number(message: memoryview, position: int) -> tuple[int, int]:
    """A variable-length integer, and the position behind it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends too early")
        byte = message[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
    raise ValueError("a number that is too long")
