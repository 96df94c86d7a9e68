"""The whole numeric model of NeRF-SOS: radiance field, segmentation head and clusters, wired together.

Everything is in the object frame, but for `frame`. It returns the same `Rendering` as surface-sos, so that images,
viewer and exports are made in the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from surface_sos_ns.models.nerf_sos.clusters import Clusters
from surface_sos_ns.models.nerf_sos.config import NerfSOSConfig
from surface_sos_ns.models.nerf_sos.loaded_surfaces import LoadedSurfaces
from surface_sos_ns.models.nerf_sos.object_region import ObjectRegion
from surface_sos_ns.models.nerf_sos.radiance_field import RadianceField, RayRadiance
from surface_sos_ns.models.nerf_sos.segmentation import SegmentationHead
from surface_sos_ns.models.nerf_sos.segmentation_images import SegmentationImages
from surface_sos_ns.models.surface_sos.appearance import Appearance
from surface_sos_ns.models.surface_sos.config import SceneConfig
from surface_sos_ns.models.surface_sos.frame import ObjectFrame
from surface_sos_ns.models.surface_sos.initialisation import SightLines
from surface_sos_ns.models.surface_sos.rendering import Mattes, RegulariserPoints, Rendering
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.torch_ops import TorchOps, use_ops
from surface_sos_ns.rendering.composite import PackedValues

BEHIND_ALL = 1e3
"""Distance, object radii, of the object on rays that miss it."""


class NerfSOS(nn.Module):
    """A radiance field and a segmentation of what it shows. Object frame and object radii unless stated otherwise.

    Args:
        config: sizes and choices.
        views: number of training views.
        clusters: K, into which the segmentation is divided.
        surfaces: of a surface-sos run that takes the radiance field's place; None where a radiance field is trained.

    Attributes:
        settings: as given.
        config: the same sizes in surface-sos' terms.
        frame: between world and object frame.
        field: density and colour, or the surfaces in their place.
        head: segmentation codes.
        clusters: of rendered codes; which of them is the object.
        appearance: of the training views.
        ops: back-end of the numeric operations, chosen again when the model is moved to another device.
    """

    ops: TorchOps
    ready: Tensor
    deformation = None
    """The scene does not move."""
    objects = ()
    """It has one object."""

    field: RadianceField | LoadedSurfaces

    def __init__(self, config: NerfSOSConfig, views: int, clusters: int = 2, surfaces: SceneConfig | None = None):
        super().__init__()
        self.settings, self.config = config, config.radiance()
        ops = self.ops = choose_ops(config.backend, torch.device("cpu"))
        self.frame = ObjectFrame()
        self.field = RadianceField(config, ops) if surfaces is None else LoadedSurfaces(surfaces, views)
        self.head = SegmentationHead(
            self.field.feature_width, config.channels, config.segmentation_hidden, config.frequencies
        )
        self.clusters = Clusters(clusters, config.channels)
        self.appearance = Appearance(views)
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))  # whether `initialise` has been called

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # called by `to`, `cuda`, ...: the new device may need another back-end
        use_ops(self, choose_ops(self.settings.backend, self.clusters.shares.device))
        return self

    def initialise(self, frame: ObjectFrame, contraction_radius: float, lines: SightLines | None, steps: int) -> None:
        """Initialise before training: the density is fitted to sparse points.

        Args:
            frame: of the sphere that the cameras look at.
            contraction_radius: distance from its centre up to which space is not contracted, object radii.
            lines: sparse points and their lines of sight.
            steps: of the regression.
        """
        assert isinstance(self.field, RadianceField)
        self.frame.take(frame)
        self.field.layer.set_contraction_radius(contraction_radius)
        if lines is not None:
            self.field.fit(lines, steps)
        self.field.update_cache()
        self.ready.fill_(True)

    def take_surfaces(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of a surface-sos scene, and its object frame.

        Raises:
            RuntimeError: they are of another scene.
        """
        assert isinstance(self.field, LoadedSurfaces)
        self.field.scene.load_state_dict(state)
        self.frame.take(self.field.scene.frame)
        self.ready.fill_(True)

    def train_radiance(self, origins: Tensor, directions: Tensor, view: Tensor) -> tuple[RayRadiance, Tensor]:
        """Render training rays (R, 3) of views (R,): what is seen, and its colours (R, 3) as the photos show them."""
        found = self.field.render(origins, directions, dense=self.ops.static)
        gain, offset, _ = self.appearance(view)
        return found, found.rgb * gain + offset * found.accumulation[:, None]

    @property
    def painted_heads(self) -> list[SegmentationImages]:
        """What makes further images of a rendering."""
        return [SegmentationImages(self.clusters)]

    @property
    def object_grid(self) -> ObjectRegion:
        """Where the object is."""
        return ObjectRegion(self.field, self.head, self.clusters)

    def describe(self) -> str:
        """One line for the log: the back-end, and how rays are sampled."""
        return f"operations: {self.ops.describe()} | {self.field.describe()}"

    def matte(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Tensor:
        """The alpha (R,) of `render`."""
        found = self.field.render(origins, directions, colours=False)
        codes, _ = self._codes(found)
        return self._alpha(codes, found)

    def mattes(self, origins: Tensor, directions: Tensor, time: Tensor | None = None) -> Mattes:
        """`matte`, in the form that scenes of several objects have it."""
        return Mattes(self.matte(origins, directions, time), None)

    def render(self, origins: Tensor, directions: Tensor, plate: bool = True, time: Tensor | None = None) -> Rendering:
        """Render rays (R, 3) with their segmentation, in evaluation; `plate` and `time` change nothing.

        Before there are clusters, alpha and all that follows from it is zero. Behind the object nothing is known: the
        background stays black there.
        """
        found = self.field.render(origins, directions)
        zero = torch.zeros_like(found.accumulation)
        rendered, of_samples = self._codes(found)
        alpha, object_depth = self._alpha(rendered, found), zero + BEHIND_ALL
        if self.clusters.fitted:
            share = of_samples._replace(values=self.clusters.alpha(of_samples.values))
            weights = found.weights * share.spread(*found.weights.shape)
            depth = (weights * found.middle).sum(-1) / weights.sum(-1).clamp(min=1e-6)
            object_depth = torch.where(alpha > 0.5, depth, object_depth)
        gain, offset, _ = self.appearance(None)
        none = origins.new_zeros(0)
        return Rendering(
            rgb=found.rgb * gain + offset * found.accumulation[:, None],
            alpha=alpha,
            foreground=found.rgb * alpha[:, None],
            background=found.rgb * (1.0 - alpha)[:, None],
            background_confidence=1.0 - alpha,
            background_filled=zero,
            shadow=zero,
            depth=found.depth,
            object_depth=object_depth,
            normal=torch.zeros_like(found.rgb),
            accumulation=found.accumulation,
            head_values={"segmentation": rendered},
            objects=None,
            crosses_hull=zero.bool(),
            crop=zero,
            distortion=found.distortion,
            sdf=none,
            sdf_normals=none.reshape(0, 3),
            sdf_counted=None,
            background_normals=none.reshape(0, 3),
            background_counted=None,
            regularisers=RegulariserPoints(none.reshape(0, 3), none, none.reshape(0, 3), none.reshape(0, 1)),
        )

    def _codes(self, found: RayRadiance) -> tuple[Tensor, PackedValues]:
        """Rendered segmentation codes (R, C), and those of the samples that matter."""
        chosen, seen = self.ops.seen_samples(found.selection, self.config.colour_threshold, found.weights)
        features = found.features[chosen]
        codes = seen.pack(self.head(features[:, :3], features[:, 3:]))
        return self.ops.accumulate_detached(found.weights, codes), codes

    def _alpha(self, codes: Tensor, found: RayRadiance) -> Tensor:
        """The object's matte (R,): soft membership of rendered codes, where the ray is opaque."""
        if not self.clusters.fitted:
            return torch.zeros_like(found.accumulation)
        return self.clusters.alpha(codes) * found.accumulation
