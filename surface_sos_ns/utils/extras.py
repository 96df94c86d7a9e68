"""Packages that only some commands need. They are extras of this package: pip install 'surface-sos-ns[export]'."""

from __future__ import annotations

import importlib.util
import platform

from surface_sos_ns.utils.errors import UserError

__all__ = ["MissingPackageError", "missing_package", "require_package"]

EXTRA = {
    "embreex": "demo",
    "onnxruntime": "onnx",
    "pymatting": "export",
    "pycocotools": "export",
    "pysodmetrics": "saliency",
    "ray": "batch",
    "transformers": "masks",
}
"""The extra, in pyproject.toml, that installs each of them."""

MODULE = {"pysodmetrics": "py_sod_metrics"}
"""The name by which a package is imported, where it is another one."""

NO_WHEEL = {"embreex": "aarch64"}
"""Machines, by `platform.machine`, that a package has no wheel for; there its extra does not install it."""


class MissingPackageError(UserError):
    """A command needs a package that is not installed; the message says how to install it."""


def missing_package(package: str, purpose: str) -> str | None:
    """What to say where a package is not installed; None where it is. Does not import it.

    Args:
        package: its name, a key of `EXTRA`.
        purpose: what needs it, as the subject of a sentence: "surface-sos report".
    """
    if importlib.util.find_spec(MODULE.get(package, package)) is not None:
        return None
    if platform.machine() == NO_WHEEL.get(package):
        return (
            f"{purpose} needs the package {package}, which has no wheel for this kind of machine ({NO_WHEEL[package]})."
        )
    return (
        f"{purpose} needs the package {package}, which is not installed: "
        f"pip install 'surface-sos-ns[{EXTRA[package]}]'."
    )


def require_package(package: str, purpose: str) -> None:
    """Makes sure that a package is installed; commands call it before any long work.

    Args:
        package, purpose: see `missing_package`.

    Raises:
        MissingPackageError: it is not.
    """
    problem = missing_package(package, purpose)
    if problem is not None:
        raise MissingPackageError(problem)
