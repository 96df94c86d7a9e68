"""Heads: quantities learned on surfaces besides colour, such as the label. A new one is a file here and a line in
`make_heads`.
"""

from __future__ import annotations

from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.heads.head import Head, Targets
from surface_sos_ns.models.surface_sos.heads.label import LabelHead, LabelObjective
from surface_sos_ns.ops.torch_ops import TorchOps

__all__ = ["Head", "LabelHead", "LabelObjective", "Targets", "make_heads"]


def make_heads(config: SceneConfig, ops: TorchOps) -> list[Head]:
    """The heads that a config asks for, without the label: that also splits the layers, so the scene owns it."""
    del config, ops
    return []
