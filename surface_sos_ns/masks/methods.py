"""The sources of masks that `--method` knows. Their modules are imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surface_sos_ns.masks.provider import MaskError, MaskProvider, PlainMaskProvider

__all__ = ["METHODS", "WITHOUT_POSES", "Method", "make_provider", "make_provider_without_poses"]


@dataclass(frozen=True)
class Method:
    """Where a provider is and which options of the command are arguments of its constructor.

    Attributes:
        module: that has it.
        provider: the class.
        options: names of constructor arguments.
    """

    module: str
    provider: str
    options: tuple[str, ...] = ()

    def load(self) -> type[Any]:
        """The class."""
        return getattr(importlib.import_module(f"surface_sos_ns.masks.{self.module}"), self.provider)


METHODS: dict[str, Method] = {
    "auto": Method("auto", "Auto", ("allow_labels", "features", "model", "features_onnx", "objects", "names")),
    "prior": Method("prior", "Prior", ("objects", "names")),
    "selfment": Method("selfment", "Selfment", ("features", "model", "features_onnx", "variant")),
    "cosegment": Method("cosegment", "Cosegment", ("features", "model", "features_onnx", "objects", "names")),
    "maskrcnn": Method("maskrcnn", "MaskRcnn", ("category", "device", "objects")),
    "sam2": Method("sam2", "Sam2", ("device", "objects", "names")),
    "text": Method("text", "Text", ("prompt", "model", "device")),
    "rembg": Method("rembg", "Rembg", ("program",)),
    "folder": Method("folder", "Folder", ("source", "instance", "invert", "by_order", "objects", "names")),
    "click": Method("click", "Click", ("host", "port", "objects", "names")),
}


WITHOUT_POSES: dict[str, Method] = {
    "auto": Method("single_images", "SelfmentWithoutPoses", ("features", "model", "features_onnx")),
    "selfment": Method("single_images", "SelfmentWithoutPoses", ("features", "model", "features_onnx")),
    "maskrcnn": Method("maskrcnn", "MaskRcnn", ("category", "device")),
    "rembg": METHODS["rembg"],
}
"""Those that make masks of photos without cameras. `auto` is selfment there, the only one without labels."""


def make_provider(method: str, options: Mapping[str, Any]) -> MaskProvider:
    """A provider with the options that the user gave; the others keep the provider's own defaults.

    Args:
        method: a key of `METHODS`.
        options: of all methods; what is None, False or empty was not given.

    Raises:
        MaskError: no such method, an option of another method, or a value that the provider refuses.
    """
    if method not in METHODS:
        raise MaskError(f"There is no method {method}; expected one of {', '.join(METHODS)}.")
    given = _given(options)
    for name in given:
        if name not in METHODS[method].options:
            owners = [owner for owner, entry in METHODS.items() if name in entry.options]
            raise MaskError(
                f"--{name.replace('_', '-')} belongs to --method {' and '.join(owners)}; the method is {method}."
            )
    return METHODS[method].load()(**given)


def make_provider_without_poses(method: str, options: Mapping[str, Any]) -> PlainMaskProvider:
    """As `make_provider`, a provider for photos without cameras.

    Raises:
        MaskError: the method needs cameras, an option is of no use without them, or the provider refuses a value.
    """
    if method not in WITHOUT_POSES:
        able = ", ".join(name for name in WITHOUT_POSES if name != "auto")
        raise MaskError(
            f"--method {method} needs the cameras' poses, which --images has not; without poses there are {able}. "
            "`surface-sos process` finds the poses of photos of one scene; then name the scene with --data."
        )
    given = _given(options)
    for name in given:
        if name not in WITHOUT_POSES[method].options:
            raise MaskError(
                f"--{name.replace('_', '-')} does not go with --images and --method {method}; leave it out."
            )
    provider = WITHOUT_POSES[method].load()(**given)
    assert isinstance(provider, PlainMaskProvider)
    return provider


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given: 0 is a value, False is none."""
    return {name: value for name, value in options.items() if value not in (None, (), "") and value is not False}
