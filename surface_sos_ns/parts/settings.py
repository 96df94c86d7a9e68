"""Options of `surface-sos parts`, and what can be wrong with them before a run is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surface_sos_ns.utils.errors import UserError
from surface_sos_ns.utils.files import check_writable

__all__ = ["PartsError", "PartsSettings"]

FEWEST, MOST = 2, 64
"""Numbers of parts that can be asked for."""


class PartsError(UserError):
    """Parts cannot be found; the message says why, and what to do."""


@dataclass
class PartsSettings:
    """What parts are found on, how many, and by which features."""

    load_config: Path
    """The run's config.yml."""
    object: str | None = None
    """Of a run with several objects, the name of the one whose parts are found."""
    parts: int = 6
    """How many parts."""
    features: Literal["auto", "network", "descriptor"] = "auto"
    """What describes the photos: a self-supervised network, or a descriptor of colour and texture, which needs no
    weights. Auto: the network where its weights can be had. The shape of the surface counts in any case."""
    model: str | None = None
    """Another checkpoint of the network (DINO, DINOv2, DINOv3), by name or folder."""
    features_onnx: Path | None = None
    """An ONNX file of the network, such as DINOv2's, instead of a checkpoint."""
    seed: int = 0
    """Of the random start."""
    data: Path | None = None
    """The capture's folder, where it was moved since training."""
    overwrite: bool = False
    """Replace the run's result of as many parts."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.load_config.parent

    def check(self) -> None:
        """Looks at what can be wrong without opening the run.

        Raises:
            PartsError: an option that cannot work.
            WriteError: nothing can be written beside the run.
        """
        if not self.load_config.is_file():
            raise PartsError(
                f"{self.load_config} does not exist; expected the config.yml of a run, "
                "outputs/CAPTURE/METHOD/TIME/config.yml."
            )
        if not FEWEST <= self.parts <= MOST:
            raise PartsError(f"--parts is {self.parts}; expected {FEWEST} to {MOST}.")
        check_writable(self.run)
