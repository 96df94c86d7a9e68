"""Features of a vision transformer in an ONNX file, by onnxruntime: no torch, transformers or download is needed.

An ONNX file is a graph of onnxruntime's own operators. It cannot bring code: libraries of custom operators are never
loaded, and weights outside of the file's folder are refused (see `onnx_external.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from surface_sos_ns.masks.features import TransformerFeatures
from surface_sos_ns.masks.onnx_external import external_files
from surface_sos_ns.masks.provider import MaskError
from surface_sos_ns.utils.cores import usable_cores
from surface_sos_ns.utils.extras import missing_package

__all__ = ["OnnxFeatures", "patch_layout"]

PROBE, SQUARE = (224, 448), (224, 224)
"""Height and width that a network of free input size is tried with: multiples of all usual patches (8, 14, 16, 32). One
that takes the square alone was exported without interpolation of its positions; then photos are stretched to it."""

TOKENS_BEFORE = (1, 0, 5)
"""Numbers of tokens that may come before the patches: a class token, none, a class token and four registers."""

PIXEL_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""Element types of the input."""


class OnnxFeatures(TransformerFeatures):
    """Patch features of a network in an ONNX file, computed on the CPU.

    The network takes one RGB image (1, 3, H, W), normalised with ImageNet's mean and standard deviation. H and W are
    fixed, and photos are stretched to that size, or free, and photos keep their proportions. The first output that is
    one of these is taken: tokens (1, 1 + h w, D) with the class token first, (1, 5 + h w, D) with four registers
    behind it, (1, h w, D), or a map (1, D, h, w). The side of a patch follows from their number.

    Args:
        file: the ONNX file.

    Raises:
        MaskError: onnxruntime is missing, the file is missing, is no ONNX file, reads weights from outside of its
            folder, needs operators that onnxruntime has not, or has other inputs or outputs than these.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, file.name
        if not file.is_file():
            raise MaskError(f"{file} is not there; name an ONNX file of a vision transformer.")
        problem = missing_package("onnxruntime", f"Reading {file}")
        if problem is not None:
            raise MaskError(problem)
        self._weights = [file, *external_files(file)]
        self._session = _open(file)
        self._input, self._pixel_type, self._size = _image_input(file, self._session)
        size, outputs = self._probe()
        shapes = {
            entry.name: np.shape(values) for entry, values in zip(self._session.get_outputs(), outputs, strict=True)
        }
        layouts = [(name, layout) for name, shape in shapes.items() if (layout := patch_layout(shape, *size))]
        if not layouts:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise MaskError(
                f"{file} has no features of patches: for an image of {size[1]} x {size[0]} pixels it gives {found}; "
                "expected tokens (1, 1 + h*w, D) or a map (1, D, h, w) of h x w square patches."
            )
        self._output, (self.patch, self._before) = layouts[0]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in self._weights:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def _probe(self) -> tuple[tuple[int, int], list[Any]]:
        """Height and width of a black image that the network takes, and its outputs for it. May fix the input size."""
        if self._size is None:
            try:
                return PROBE, self._run(None, np.zeros((1, 3, *PROBE), np.float32))
            except MaskError:
                self._size = SQUARE
        return self._size, self._run(None, np.zeros((1, 3, *self._size), np.float32))

    def _run(self, outputs: list[str] | None, pixels: np.ndarray) -> list[Any]:
        """Outputs by name (None: all) for an image (1, 3, H, W)."""
        try:
            return self._session.run(outputs, {self._input: pixels.astype(self._pixel_type)})
        except Exception as error:  # onnxruntime's errors have no common class
            height, width = pixels.shape[2:]
            raise MaskError(
                f"{self.file} cannot be run on an image of {width} x {height} pixels ({_first_line(error)})."
            ) from error

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self._size is None:
            return super()._resized(image)
        height, width = self._size
        smaller = height * width < image.shape[0] * image.shape[1]
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def _tokens(self, pixels: np.ndarray) -> np.ndarray:
        values = np.asarray(self._run([self._output], pixels)[0], np.float32)
        height, width = pixels.shape[2:]
        tokens = values[0].reshape(len(values[0]), -1).T if values.ndim == 4 else values[0]
        expected = self._before + (height // self.patch) * (width // self.patch)
        if len(tokens) != expected or not np.isfinite(tokens).all():
            found = f"{len(tokens)} vectors" if len(tokens) != expected else "numbers that are not finite"
            raise MaskError(
                f"{self.file} gives {found} for an image of {width} x {height} pixels; expected {expected} finite "
                f"vectors, for patches of {self.patch} pixels."
            )
        return tokens


def patch_layout(shape: Sequence[int], height: int, width: int) -> tuple[int, int] | None:
    """What an output says of the patches of an image.

    Args:
        shape: of the output.
        height, width: of the image, pixels.

    Returns:
        Side of the square patches in pixels and number of tokens before them; None where the output is no features of
        patches.
    """
    if len(shape) not in (3, 4) or shape[0] != 1:
        return None
    for patch in range(2, min(height, width) // 2 + 1):
        if height % patch or width % patch:
            continue
        rows, columns = height // patch, width // patch
        if len(shape) == 4 and tuple(shape[2:]) == (rows, columns):
            return patch, 0
        if len(shape) == 3 and shape[1] - rows * columns in TOKENS_BEFORE:
            return patch, shape[1] - rows * columns
    return None


def _open(file: Path) -> Any:
    """An onnxruntime session that runs the file's graph on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise MaskError(f"{file} cannot be loaded by onnxruntime ({_first_line(error)}).") from error


def _image_input(file: Path, session: Any) -> tuple[str, type, tuple[int, int] | None]:
    """Name and element type of the image input, and its height and width if they are fixed.

    Raises:
        MaskError: the network has other inputs.
    """
    inputs = session.get_inputs()
    if len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].type in PIXEL_TYPES:
        # An axis that is free has a name or None.
        batch, channels, height, width = (length if isinstance(length, int) else None for length in inputs[0].shape)
        if batch in (1, None) and channels in (3, None) and (height is None) == (width is None):
            size = None if height is None or width is None else (height, width)
            return inputs[0].name, PIXEL_TYPES[inputs[0].type], size
    found = ", ".join(f"{entry.name} {entry.shape} {entry.type}" for entry in inputs)
    raise MaskError(
        f"{file} takes {found or 'nothing'}; expected one input, an image (1, 3, H, W) of floats with H and W both "
        "fixed or both free."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
