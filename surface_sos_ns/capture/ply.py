"""Point clouds in PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surface_sos_ns.capture.checks import CaptureError
from surface_sos_ns.capture.points import SparsePoints

__all__ = ["read_ply_points", "write_ply_points"]

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


def read_ply_points(path: Path) -> SparsePoints:
    """Reads a point cloud such as nerfstudio's ``sparse_pc.ply`` (ascii or binary).

    Returns:
        The points in the frame of the file. Track lengths are 0 and visibility is None, because a PLY file has no
        tracks. Points with NaN or infinite coordinates are dropped. Points without colour are mid-grey (128).

    Raises:
        OSError: the file cannot be read.
        CaptureError: it is not a PLY file whose first element is 'vertex' with x, y, z, or it is truncated.
    """
    path = Path(path)
    with open(path, "rb") as stream:
        if stream.readline().strip() != b"ply":
            raise CaptureError(f"{path} is not a PLY file; expected its first line to be 'ply'.")
        encoding, count, properties, element = "", 0, [], ""
        elements: list[str] = []
        while True:
            line = stream.readline()
            if not line:
                raise CaptureError(f"{path} ends within its header; the file is damaged, write it again.")
            words = line.decode("ascii", "replace").split()
            try:
                if words[:1] == ["format"]:
                    encoding = words[1]
                elif words[:1] == ["element"]:
                    element = words[1]
                    elements.append(element)
                    if element == "vertex":
                        count = int(words[2])
                elif words[:1] == ["property"] and element == "vertex":
                    if words[1] == "list" or words[1] not in _PLY_TYPES:
                        raise CaptureError(f"{path}: the vertex property '{' '.join(words[1:])}' is not supported.")
                    properties.append((words[2], _PLY_TYPES[words[1]]))
                elif words[:1] == ["end_header"]:
                    break
            except IndexError as error:
                raise CaptureError(f"{path}: the line '{' '.join(words)}' of its header is not complete.") from error
            except CaptureError:
                raise
            except ValueError as error:
                raise CaptureError(
                    f"{path}: the line '{' '.join(words)}' of its header is not right; expected a number of points."
                ) from error
        names = [name for name, _ in properties]
        if elements[:1] != ["vertex"] or not {"x", "y", "z"} <= set(names) or len(set(names)) < len(names):
            raise CaptureError(f"{path}: expected a point cloud whose first element is 'vertex' with x, y, z.")
        if encoding == "ascii":
            try:
                rows = np.loadtxt(stream, max_rows=count, ndmin=2) if count > 0 else np.zeros((0, len(names)))
            except ValueError as error:
                raise CaptureError(f"{path}: its points cannot be read ({error}); it is damaged.") from error
            if len(rows) < count or rows.shape[1] < len(names):
                raise CaptureError(f"{path} ends after {len(rows)} of {count} points; it is damaged.")
            columns = {name: rows[:, i] for i, name in enumerate(names)}
        else:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(encoding)
            if order is None:
                raise CaptureError(f"{path}: unknown PLY format '{encoding}'.")
            layout = np.dtype([(name, order + kind) for name, kind in properties])
            stored = (path.stat().st_size - stream.tell()) // layout.itemsize
            if not 0 <= count <= stored:
                raise CaptureError(f"{path} ends after {stored} of {count} points; it is damaged.")
            structured = np.frombuffer(stream.read(layout.itemsize * count), dtype=layout)
            columns = {name: structured[name] for name in names}
    xyz = np.stack([columns[name] for name in "xyz"], axis=-1).astype(np.float64)
    colours = [columns.get(name, columns.get(f"diffuse_{name}")) for name in ("red", "green", "blue")]
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    if all(colour is not None for colour in colours):
        rgb = np.stack(colours, axis=-1).astype(np.uint8)  # type: ignore[arg-type]
    finite = np.isfinite(xyz).all(axis=1)
    return SparsePoints(xyz[finite], rgb[finite], np.zeros(int(finite.sum()), np.int64))


def write_ply_points(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """Writes an ascii PLY file in the layout of nerfstudio's ``sparse_pc.ply``.

    Args:
        path: the file.
        xyz: (P, 3) positions; written with six decimals.
        rgb: (P, 3) uint8 colours.
    """
    lines = ["ply", "format ascii 1.0", f"element vertex {len(xyz)}"]
    lines += [f"property float {k}" for k in "xyz"] + [f"property uint8 {k}" for k in ("red", "green", "blue")]
    lines.append("end_header")
    lines += [f"{p[0]:.6f} {p[1]:.6f} {p[2]:.6f} {c[0]} {c[1]} {c[2]}" for p, c in zip(xyz, rgb, strict=True)]
    path.write_text("\n".join(lines) + "\n")
