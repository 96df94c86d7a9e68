"""The interface of the numeric operations, and their implementation in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surface_sos_ns.ops import adam, hash_grid, networks
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.rendering import composite
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights
from surface_sos_ns.sampling import field_cache, ray_samples
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import SamplePlan, Samples
from surface_sos_ns.sampling.selection import Selection, seen_samples

CHUNK_POINTS, GPU_CHUNK_POINTS = 1 << 15, 1 << 19
"""`chunk_points` on a CPU and on a GPU, where a point takes one or two kilobytes while it is evaluated."""


class TorchOps:
    """All numeric operations in plain torch, on any device. Other back-ends inherit those that they do not override.

    All back-ends give the same results up to rounding. They may raise ValueError or TypeError for shapes, dtypes and
    positions that do not fit, where torch raises errors of its own, and may lack second derivatives.

    Args:
        static: whether training steps have fixed shapes and never wait for the device, so that they can be captured as
            a CUDA graph; see `sampling.selection`.
        chunk_points: points evaluated at once off the rays (cached fields, m^P, meshes). A GPU needs many of them to
            be busy, and waits between two chunks.
        remark: added to `describe`, such as why this back-end is taken and not a faster one.
    """

    description = "torch"
    """What computes what, in a few words."""
    fused_networks = False
    """Whether a hash grid and the network on it are one autograd node."""

    def __init__(self, static: bool = False, chunk_points: int = CHUNK_POINTS, remark: str | None = None):
        self.static, self.chunk_points, self.remark = static, chunk_points, remark

    def describe(self) -> str:
        """What runs, in a few words for the line that is logged at the start."""
        return self.description if self.remark is None else f"{self.description} ({self.remark})"

    def claim_threads(self) -> None:
        """Set up the threads of this process. May be called again."""

    def threads(self) -> int:
        """Number of CPU threads that the operations use."""
        return torch.get_num_threads()

    def set_threads(self, count: int) -> None:
        """Set the number of CPU threads that the operations use."""
        torch.set_num_threads(count)

    # ------------------------------------------------------------------ fields

    def hash_grid(
        self, x: Tensor, table: Tensor, layout: GridLayout, jacobian: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See `ops.hash_grid.encode`."""
        return hash_grid.encode(x, table, layout, jacobian)

    def relu_network(self, points: Tensor, table: Tensor, layout: GridLayout, *parameters: Tensor) -> Tensor:
        """A ReLU network on the features of a hash grid: density, label.

        Args:
            points: (P, 3) in the grid's unit cube.
            table, layout: of the hash grid.
            parameters: weight (N, K) and bias (N,) of each of two or three layers in turn.

        Returns:
            outputs (P, O). Gradients go to points, table and parameters.

        Raises:
            ValueError: numba back-end only, where a point is NaN.
            UserError: numba back-end only, where hidden widths are unequal or no multiple of 4.
        """
        features, _ = self.hash_grid(points, table, layout)
        return networks.relu_layers(features, *parameters)

    def sdf_network(
        self, points: Tensor, table: Tensor, layout: GridLayout, extent: float, normals: bool, *parameters: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """SDF, geometry feature and exact normal (eq. 1) from hash grid and network; see `networks.sdf_and_normal`.

        Args:
            points: (P, 3) in the cube [-extent, extent]^3, which the hash grid covers.
            table, layout: of the hash grid.
            extent: half the side of that cube.
            normals: whether to compute the gradient of the SDF.
            parameters: weight and bias of the hidden layer and of the last one.

        Returns:
            SDF and geometry feature (P, 1 + G), and the gradient (P, 3) of the SDF by the points or None. Gradients go
            to points, table and parameters.

        Raises:
            ValueError: numba back-end only, where a point is NaN.
            UserError: numba back-end only, where the hidden width is no multiple of 4.
        """
        features, jacobian = self.hash_grid((points / extent + 1) * 0.5, table, layout, normals)
        return networks.sdf_and_normal(points, features, jacobian, extent, *parameters)

    def colour_network(self, inputs: Tensor, directions: Tensor, *parameters: Tensor) -> Tensor:
        """`M_C` (eq. 2-4): ReLU layers on inputs and the spherical harmonics of the direction, then a sigmoid.

        Args:
            inputs: (P, I).
            directions: (P, 3) unit vectors.
            parameters: weight (N, K) and bias (N,) of each of two or three layers in turn; the first has I + 16 inputs.

        Returns:
            (P, O) in (0, 1). Gradients go to inputs, directions and parameters.

        Raises:
            UserError: numba back-end only, where hidden widths are unequal or no multiple of 4.
        """
        harmonics = networks.spherical_harmonics(directions)
        return torch.sigmoid(networks.relu_layers(torch.cat([inputs, harmonics], -1), *parameters))

    # ------------------------------------------------------------------ sampling

    def look_up(self, grid: Tensor, points: Tensor, extent: float) -> Tensor:
        """See `sampling.field_cache.look_up`."""
        return field_cache.look_up(grid, points, extent)

    def look_up_in_cube(self, grid: Tensor, points: Tensor) -> Tensor:
        """See `sampling.field_cache.look_up_in_cube`."""
        return self.look_up(grid, points, 1.0) * (points.abs() <= 1.0).all(-1)

    def sample_edges(
        self,
        cache: FieldCache,
        origins: Tensor,
        directions: Tensor,
        plan: SamplePlan,
        stratified: bool,
        jitter: Tensor | None = None,
    ) -> Tensor:
        """See `sampling.ray_samples.sample_edges`."""
        return ray_samples.sample_edges(cache, origins, directions, plan, stratified, jitter)

    def live_rays(self, cache: FieldCache, origins: Tensor, directions: Tensor, plan: SamplePlan) -> Tensor:
        """See `sampling.ray_samples.live_rays`."""
        return ray_samples.live_rays(cache, origins, directions, plan)

    def sample_rays(
        self,
        cache: FieldCache,
        probability: Tensor,
        hull: Tensor | None,
        origins: Tensor,
        directions: Tensor,
        plan: SamplePlan,
        stratified: bool,
        jitter: Tensor | None = None,
    ) -> Samples:
        """See `sampling.ray_samples.sample_rays`."""
        return ray_samples.sample_rays(
            cache,
            probability,
            hull,
            origins,
            directions,
            plan,
            stratified,
            jitter,
            self.sample_edges,
            self.look_up_in_cube,
        )

    # ------------------------------------------------------------------ rendering

    def section_opacity(
        self,
        sdf: Tensor,
        normal: Tensor,
        directions: Tensor,
        interval: Tensor,
        sharpness: Tensor,
        anneal: float | Tensor,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `rendering.composite.section_opacity`."""
        return composite.section_opacity(sdf, normal, directions, interval, sharpness, anneal, index)

    def density_section_opacity(
        self, density: Tensor, crop: Tensor, interval: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """See `rendering.composite.density_section_opacity`."""
        return composite.density_section_opacity(density, crop, interval, index)

    def composite_weights(
        self,
        foreground: PackedValues,
        background: PackedValues,
        gate: PackedValues,
        edges: Tensor,
        to_object: Tensor,
        crop: Tensor,
    ) -> RayWeights:
        """See `rendering.composite.composite_weights`."""
        return composite.composite_weights(foreground, background, gate, edges, to_object, crop)

    def seen_samples(
        self, selection: Selection, threshold: float, weights: Tensor, others: Tensor | None = None
    ) -> tuple[Tensor | slice, Selection]:
        """See `sampling.selection.seen_samples`."""
        return seen_samples(selection, threshold, weights, others)

    def composite_colours(
        self, weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
    ) -> RayColours:
        """See `rendering.composite.composite_colours`."""
        return composite.composite_colours(weights, foreground, background, normal)

    def accumulate_detached(self, weights: Tensor, values: PackedValues) -> Tensor:
        """See `rendering.composite.accumulate_detached`."""
        return composite.accumulate_detached(weights, values)

    # ------------------------------------------------------------------ optimiser

    def sparse_adam_step(
        self,
        value: Tensor,
        gradient: Tensor,
        mean: Tensor,
        square: Tensor,
        rate: float | Tensor,
        betas: tuple[float, float],
        epsilon: float,
        step: int | Tensor,
    ) -> None:
        """See `ops.adam.sparse_adam_step`."""
        adam.sparse_adam_step(value, gradient, mean, square, rate, betas, epsilon, step)


TORCH = TorchOps()
"""The default of fields, until their owner hands them another back-end."""


def use_ops(module: nn.Module, ops: TorchOps) -> None:
    """Set the back-end of a module and of all submodules that have one."""
    for part in module.modules():
        if isinstance(getattr(part, "ops", None), TorchOps):
            part.ops = ops  # type: ignore[assignment]
