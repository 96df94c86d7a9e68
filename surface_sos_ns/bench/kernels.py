"""`bench kernels`: the hash grid with its Jacobian, and grid + SDF net + normal, forward and backward.

Points lie on random rays through the unit cube, ray after ray. Weights of the sums below are fixed random numbers.

*Grid.* Features at points x (P, 3), their derivative by the points, and the gradient of both to the table. No loss is
evaluated on either side: both start their backward from the same fixed random gradients A (P, C) and V (P, 3).
- Ours makes features h (P, C) and the full Jacobian J = dh/dx (P, C, 3) in one gather, then the table's gradient from
  A to h and u V^T to J in one scatter, for fixed u (P, C).
- The others have no Jacobian. They make h and the one derivative that an SDF needs, g = J^T u (P, 3), autograd's
  gradient of sum(h * u) with a graph, then the table's gradient from A to h and V to g through that graph (double
  backward). That is less than ours makes, C times 3 numbers a point against 3, and the same gradient to the table.
The product u V^T is made before the clock starts, and gradients lie in memory as their tensors do, as PyTorch's own
elementwise operations would leave them.

*SDF and normal.* The grid, one hidden layer of 64 (softplus, beta 100) on features and position, distance s, geometry
features f (P, 12), and the exact gradient n of s by the point. Then
loss = mean((|n| - 1)^2) + mean(s * a) + mean(f * b), and its gradient to table, hidden and output layer.

All of this is timed: forward, normal, loss, backward.

Before anything is timed both sides get the same entries and weights, and must return the same outputs (for the grid h
and J^T u) and gradients.
Gradients are asked for parameters only, not for points, although nerfstudio's own training also computes those.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from surface_sos_ns.bench import ours
from surface_sos_ns.bench.baselines import (
    NERFSTUDIO_GRID,
    TCNN_GRID,
    TWIN_GRID,
    BaselineGrid,
    BaselineSDF,
    baseline_grids,
    features_and_gradient,
)
from surface_sos_ns.bench.protocol import (
    OURS,
    Side,
    choose_device,
    comparison,
    flush_denormals,
    header,
    take_turns,
    thread_counts,
)
from surface_sos_ns.bench.settings import BenchError, Kernels
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.utils.progress import Stage

TOLERANCE = 1e-3
"""Largest relative difference of outputs and gradients between two sides; in single precision it is about 1e-6."""
SUFFIX = {NERFSTUDIO_GRID: "", TWIN_GRID: "_twin", TCNN_GRID: "_tcnn"}
"""Where a baseline's figures stand in the results: under the task's name and this."""
TASKS = ("grid", "sdf_normal")


def ray_points(rays: int, samples: int, seed: int, layout: GridLayout) -> Tensor:
    """Points in the unit cube, one drawn from each of equal parts of random lines through it, line after line.

    None lies on a face of a cell of the layout: the slope jumps there, each side may take either value, and
    nerfstudio's takes zero.

    Returns:
        (rays * samples, 3), on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    through = torch.rand(rays, 3, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1)
    bounds = torch.stack([-through / direction, (1 - through) / direction])
    enter, leave = bounds.amin(0).amax(-1, keepdim=True), bounds.amax(0).amin(-1, keepdim=True)
    at = (torch.arange(samples) + torch.rand(rays, samples, generator=generator)) / samples
    points = through[:, None] + (enter + (leave - enter) * at)[..., None] * direction[:, None]
    # Multiples of 2^-24 are mapped to [-1, 1] and back, as the fields do, without rounding.
    points = (points.clamp(1e-4, 1 - 1e-4).reshape(-1, 3) * 2.0**24).round() * 2.0**-24
    for resolution in layout.resolutions.tolist() * 2:
        scaled = points * float(resolution)
        points = torch.where(scaled == scaled.floor(), points + 3 * 2.0**-20, points)
    return points


@dataclass(frozen=True)
class Task:
    """One side's work on one task."""

    outputs: Callable[[], tuple[Tensor, ...]]
    gradients: Callable[
        [tuple[Tensor, ...]], tuple[Tensor, ...]
    ]  # of the outputs, to the parameters; the table's first
    compared: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = lambda outputs: outputs  # what both sides have

    def run(self) -> tuple[Tensor, ...]:
        """Forward and backward; returns the gradients to the parameters, the table's first."""
        return self.gradients(self.outputs())


class Problem:
    """A layout, points and weights, and the work of every side on them.

    Args:
        layout: of the grid.
        points: (P, 3) in the unit cube.
        baselines: grids to measure against, by name.
        seed: of entries and weights.
    """

    def __init__(
        self, layout: GridLayout, points: Tensor, baselines: dict[str, Callable[[GridLayout], BaselineGrid]], seed: int
    ):
        device = points.device
        torch.manual_seed(seed)
        self.layout, self.points = layout, points
        self.field = ours.sdf_field(layout, device)
        self.grid = self.field.grid
        torch.nn.init.uniform_(self.grid.table, -1e-2, 1e-2)
        count, width = len(points), layout.width
        self.along, self.on_features = (torch.randn(count, width, device=device) for _ in range(2))
        self.on_slope = torch.randn(count, 3, device=device)
        self.on_sdf = torch.randn(count, device=device)
        self.on_geometry = torch.randn(count, ours.GEOMETRY_WIDTH, device=device)
        self.others = {name: make(layout).to(device) for name, make in baselines.items()}
        for other in self.others.values():
            torch.nn.init.uniform_(other.table, -1e-2, 1e-2)
        self.nets = {name: BaselineSDF(other, self.field).to(device) for name, other in self.others.items()}

    def share_entries(self, name: str) -> None:
        """Our grid and the named one hold the same entries from now on."""
        self.others[name].share_entries(self.grid)

    def _sdf_loss(self, sdf: Tensor, normal: Tensor, geometry: Tensor) -> Tensor:
        eikonal = (normal.norm(dim=-1) - 1).square().mean()
        return eikonal + (sdf * self.on_sdf).mean() + (geometry * self.on_geometry).mean()

    def task(self, name: str, side: str) -> Task:
        """The work of a side (`OURS` or a baseline's name) on a task."""
        return self._grid_task(side) if name == "grid" else self._sdf_task(side)

    def _grid_task(self, side: str) -> Task:
        on_derivative = self.on_slope
        if side == OURS:
            table = self.grid.table
            on_derivative = self.along[..., None] * self.on_slope[:, None]

            def outputs() -> tuple[Tensor, ...]:
                return ours.features_and_jacobian(self.grid, self.points)

            def compared(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return found[0], torch.einsum("pc,pcd->pd", self.along, found[1])
        else:
            other = self.others[side]
            table = other.table

            def outputs() -> tuple[Tensor, ...]:
                return features_and_gradient(other, self.points, self.along)

            def compared(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return found

        given = (self.on_features, on_derivative)
        laid_out = [torch.empty_like(like).copy_(values) for like, values in zip(outputs(), given, strict=True)]

        def gradients(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(found, [table], laid_out)

        return Task(outputs, gradients, compared)

    def _sdf_task(self, side: str) -> Task:
        at = self.points * 2 - 1
        net: Any = self.field if side == OURS else self.nets[side]
        parameters = [net.grid.table, *net.hidden.parameters(), *net.out.parameters()]

        def gradients(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(self._sdf_loss(*found), parameters)

        return Task(partial(ours.sdf_normal, net, at) if side == OURS else partial(net, at), gradients)

    def sides(self, name: str) -> dict[str, Side]:
        """All contenders of a task."""
        sides = {OURS: Side(self.task(name, OURS).run, ours.use_threads)}
        return sides | {other: Side(self.task(name, other).run) for other in self.others}

    def difference(self, name: str, other: str) -> float:
        """Largest relative difference (of norms) between our outputs and gradients and a baseline's."""
        mine, theirs = self.task(name, OURS), self.task(name, other)
        pairs = list(zip(mine.compared(mine.outputs()), theirs.compared(theirs.outputs()), strict=True))
        gradients = mine.run()
        table = self.others[other].converted_gradient(gradients[0], self.layout)
        pairs += zip([table, *gradients[1:]], theirs.run(), strict=True)
        return max(float(((a - b).norm() / b.norm()).detach()) for a, b in pairs)

    def check(self, name: str, other: str) -> float:
        """As `difference`.

        Raises:
            BenchError: the sides do not compute the same, so their times must not be compared.
        """
        difference = self.difference(name, other)
        if not difference <= TOLERANCE:
            raise BenchError(
                f"{name}: ours and {other} differ by {difference:.1e} where {TOLERANCE:.0e} is expected. They do not "
                "compute the same; their times are not compared."
            )
        return difference


def run_kernels(settings: Kernels) -> dict[str, Any]:
    """The benchmark; returns what the JSON file holds.

    Raises:
        BenchError: a setting that cannot work here, or sides that do not compute the same.
    """
    settings.check()
    device = choose_device(settings.device)
    flush_denormals()
    result = header("kernels", settings, device)
    baselines, result["missing"] = baseline_grids(device)
    counts = thread_counts(settings, device)
    comparable = [name for name in baselines if name != TCNN_GRID]
    layouts = [GridLayout(levels=settings.levels, log2_entries=size) for size in settings.log2_entries]
    points = ray_points(settings.rays, settings.samples, settings.seed, layouts[0]).to(device)
    tables: dict[str, list[dict[str, Any]]] = {f"{task}{SUFFIX[name]}": [] for task in TASKS for name in baselines}
    extra = _scaled(settings, device) if settings.scaling else {}
    work = len(layouts) * len(counts) * (settings.repeats + 1) + sum(len(e) for e in extra.values()) * 4
    with Stage("Measuring kernels", float(work * len(TASKS))) as stage:
        result["agreement"] = {task: {} for task in TASKS}
        for layout in layouts:
            entries = layout.log2_entries
            problem = Problem(layout, points, baselines, settings.seed)
            for name in comparable:
                problem.share_entries(name)
                for task in TASKS:
                    result["agreement"][task][f"2^{entries}, {name}"] = problem.check(task, name)
            for task in TASKS:
                by_threads = {}
                for count in counts:
                    stage.describe(f"{task}, 2^{entries} entries, {count} thread(s)")
                    by_threads[count] = take_turns(problem.sides(task), count, settings.repeats, device)
                    stage.advance(settings.repeats + 1)
                for name in baselines:
                    row = {"log2_entries": entries, **comparison(by_threads, name)}
                    tables[f"{task}{SUFFIX[name]}"].append(row)
        for key, rows in tables.items():
            headline = next(row for row in rows if row["log2_entries"] == settings.headline)
            shape = {"points": len(points), "levels": settings.levels}
            result[key] = {**headline, **shape, "by_table_size": rows}
        for task in TASKS:
            if task not in result:  # nerfstudio is missing
                result[task] = _alone(result[f"{task}_twin"], result["missing"][NERFSTUDIO_GRID])
        result["scaling"] = {}
        for axis, problems in extra.items():
            result["scaling"][axis] = []
            for value, (layout, at) in problems.items():
                stage.describe(f"growth with {axis}: {value}")
                problem = Problem(layout, at, baselines, settings.seed)
                grown: dict[str, Any] = {axis: value, "threads": counts[-1]}
                for task in TASKS:
                    runs = take_turns(problem.sides(task), counts[-1], 3, device)
                    grown[task] = {name: statistics.median(taken) for name, taken in runs.items()}
                    stage.advance(4)
                result["scaling"][axis].append(grown)
    return result


def _alone(twin: dict[str, Any], reason: str) -> dict[str, Any]:
    """Our own figures without a ratio, from a comparison with the twin."""
    rows = [{**row, "ratio": None, "baseline_seconds": None, "baseline_runs": []} for row in twin["by_threads"]]
    return {
        **twin,
        "ratio": None,
        "baseline_seconds": None,
        "baseline": None,
        "missing": reason,
        "by_threads": rows,
    } | {"by_table_size": []}


def _scaled(settings: Kernels, device: torch.device) -> dict[str, dict[int, tuple[GridLayout, Tensor]]]:
    """What grows -> its value -> layout and points. Table sizes are measured in full anyway."""
    layout = GridLayout(levels=settings.levels, log2_entries=settings.headline)
    found: dict[str, dict[int, tuple[GridLayout, Tensor]]] = {"points": {}, "levels": {}}
    for factor in (0.25, 0.5, 1.0, 2.0):
        rays = max(1, round(settings.rays * factor))
        points = ray_points(rays, settings.samples, settings.seed, layout).to(device)
        found["points"][len(points)] = (layout, points)
    points = ray_points(settings.rays, settings.samples, settings.seed, layout).to(device)
    for levels in sorted({max(1, settings.levels * part // 4) for part in (1, 2, 4)}):
        found["levels"][levels] = (replace(layout, levels=levels), points)
    return found
