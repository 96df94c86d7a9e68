"""Interface of a model for the viewer's modules. The model imports these, so they cannot import its class."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from surface_sos_ns.plugin.outputs import Need
from surface_sos_ns.plugin.view_rendering import BeforeChunk

if TYPE_CHECKING:
    from surface_sos_ns.plugin.viewer.display_settings import DisplaySettings

__all__ = ["ViewedModel"]


class ViewedModel(Protocol):
    """A model whose object has a sphere, an inside and images by name; all in the world frame."""

    def display_settings(self) -> DisplaySettings:
        """What the viewer's panel is set to."""

    def part_numbers(self) -> list[str]:
        """How many parts each of the results has that are rendered, the latest first."""

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of several objects, in the order of their identities, which are 1 to K; empty for one object."""

    def object_sphere(self) -> tuple[Tensor, Tensor]:
        """Centre (3,) and radius () of the object sphere."""

    def object_box(self, name: str | None = None) -> Tensor:
        """(2, 3) lowest and highest corner of a box about the object, or about one of several."""

    def object_at(self, points: Tensor, times: Tensor | None = None) -> Tensor:
        """(P,) int64: in which object points (P, 3) lie, 1 to K, or 0 for none, at times (P,) if it may deform."""

    def render_view(
        self, rays: RayBundle, need: Need, smooth_edges: bool = False, before_chunk: BeforeChunk | None = None
    ) -> dict[str, Tensor]:
        """Images (H, W, C) of rays (H, W), as far as `need` says."""

    def render_without(
        self,
        rays: RayBundle,
        names: Collection[str],
        smooth_edges: bool = False,
        before_chunk: BeforeChunk | None = None,
    ) -> dict[str, Tensor]:
        """Images of rays (H, W) without some of several objects; `background` (H, W, 3) is the picture."""

    def without(self, camera: Cameras, names: Collection[str], smooth_edges: bool = True) -> Tensor:
        """The picture (H, W, 3) of one camera (1,) without some of several objects."""

    def output_needs(self) -> dict[str, Need]:
        """Every output by name, and what it takes."""

    def images(
        self,
        camera: Cameras,
        names: Iterable[str],
        smooth_edges: bool = True,
        before_chunk: BeforeChunk | None = None,
    ) -> dict[str, Tensor]:
        """Images (H, W, C) of one camera (1,) by name."""

    def get_rgba_image(self, outputs: Mapping[str, Tensor], output_name: str = "rgb") -> Tensor:
        """(H, W, 4) the object with transparency."""
