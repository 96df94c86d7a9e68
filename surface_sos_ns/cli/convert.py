"""The command `surface-sos convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from surface_sos_ns.capture.convert.blendedmvs import BlendedMvs
from surface_sos_ns.capture.convert.co3d import Co3d
from surface_sos_ns.capture.convert.llff import Llff
from surface_sos_ns.capture.convert.tum import Tum

__all__ = ["Convert"]


@dataclass
class Convert:
    """Write a scene of a public data set as a capture: poses, photos, and masks and points where it has them."""

    what: (
        Annotated[Llff, tyro.conf.subcommand(name="llff")]
        | Annotated[Co3d, tyro.conf.subcommand(name="co3d")]
        | Annotated[BlendedMvs, tyro.conf.subcommand(name="blendedmvs")]
        | Annotated[Tum, tyro.conf.subcommand(name="tum")]
    )

    def main(self) -> None:
        """Runs the command."""
        self.what.main()
