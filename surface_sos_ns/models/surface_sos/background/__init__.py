"""BaCo, the background: one interface (`background.Background`), three geometries."""

from __future__ import annotations

from surface_sos_ns.models.surface_sos.background.background import Background, BackgroundSamples
from surface_sos_ns.models.surface_sos.background.density import DensityBackground
from surface_sos_ns.models.surface_sos.background.directional import DirectionalBackground
from surface_sos_ns.models.surface_sos.background.sdf import SDFBackground
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.ops.torch_ops import TorchOps

BACKGROUNDS: dict[str, type[Background]] = {
    "density": DensityBackground,
    "sdf": SDFBackground,
    "directional": DirectionalBackground,
}
"""Classes by their names in `SceneConfig.background`."""

__all__ = ["BACKGROUNDS", "Background", "BackgroundSamples", "make_background"]


def make_background(config: SceneConfig, ops: TorchOps) -> Background:
    """The background that a config asks for."""
    return BACKGROUNDS[config.background](config, ops)
