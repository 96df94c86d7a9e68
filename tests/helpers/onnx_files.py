"""Small ONNX files, written byte by byte: the package onnx cannot be installed beside nerfstudio's protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

PATCH = 14
"""Side of the patches of `patch_network`, pixels."""


def field(number: int, *values: int | str | bytes) -> bytes:
    """A field of a protobuf message, once for each value."""
    result = b""
    for value in values:
        if isinstance(value, int):
            result += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            result += varint(number << 3 | 2) + varint(len(content)) + content
    return result


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    result = b""
    while value > 127:
        result += bytes([value & 127 | 128])
        value >>= 7
    return result + bytes([value])


def tensor(name: str, values: np.ndarray) -> bytes:
    kind = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}[values.dtype]
    return field(1, *values.shape) + field(2, kind) + field(8, name) + field(9, values.tobytes())


def external_tensor(name: str, shape: Sequence[int], location: str) -> bytes:
    """A float32 tensor whose values are in another file."""
    entry = field(1, "location") + field(2, location)
    return field(1, *shape) + field(2, 1) + field(8, name) + field(13, entry) + field(14, 1)


def node(kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: int | Sequence[int]) -> bytes:
    """An operator with attributes that are integers."""
    result = field(1, *inputs) + field(2, output) + field(4, kind) + field(7, domain)
    for name, value in attributes.items():
        content = field(3, value) + field(20, 2) if isinstance(value, int) else field(8, *value) + field(20, 7)
        result += field(5, field(1, name) + content)
    return result


def value(name: str, shape: Sequence[int | str]) -> bytes:
    """A float32 input or output; axes that are free have a name."""
    axes = field(1, *(field(1, length) if isinstance(length, int) else field(2, length) for length in shape))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, axes)))


def model(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], tensors: Sequence[bytes] = ()
) -> bytes:
    graph = field(1, *nodes) + field(2, "graph") + field(5, *tensors) + field(11, *inputs) + field(12, *outputs)
    opsets = field(8, field(1, "") + field(2, 17), field(1, "theirs") + field(2, 1))
    return field(1, 8) + field(7, graph) + opsets


def patch_network(
    path: Path,
    weights: np.ndarray,
    size: Sequence[int | str] = ("height", "width"),
    before: np.ndarray | None = None,
    positions: int = 0,
    external: str = "",
) -> Path:
    """A network of one layer: patches times weights.

    Args:
        path: of the file to write.
        weights: (D, 3, 14, 14) float32.
        size: of the input, fixed or free.
        before: (K, D) float32 tokens that come before the patches, or none of them; None: the output is a map.
        positions: if not 0, the number of patches that it takes: something is added to each.
        external: the file that holds the weights, if they are not in the file itself.
    """
    depth = len(weights)
    tensors = [external_tensor("weights", weights.shape, external) if external else tensor("weights", weights)]
    nodes = [node("Conv", ["image", "weights"], "map", kernel_shape=(PATCH, PATCH), strides=(PATCH, PATCH))]
    output = value("map", (1, depth, "rows", "columns"))
    if before is not None:
        nodes += [
            node("Reshape", ["map", "shape"], "columns"),
            node("Transpose", ["columns"], "rows", perm=(0, 2, 1)),
            node("Add", ["rows", "positions"], "patches"),
            node("Concat", ["before", "patches"] if len(before) else ["patches"], "tokens", axis=1),
        ]
        tensors += [
            tensor("shape", np.array([1, depth, -1])),
            tensor("positions", np.zeros((1, positions or 1, depth), np.float32)),
            tensor("before", before[None]),
        ]
        output = value("tokens", (1, "count", depth))
    path.write_bytes(model(nodes, [value("image", (1, 3, *size))], [output], tensors))
    return path
