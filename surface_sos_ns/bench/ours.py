"""This package's side of the benchmarks; of the benchmarks, only this module calls the model."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from surface_sos_ns.bench.protocol import synchronise
from surface_sos_ns.bench.scene_data import Batch, SceneData
from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.plugin.training_step import CapturedStep, Graphs
from surface_sos_ns.training.objective import draw_regulariser_points, training_losses
from surface_sos_ns.training.optimizer import SparseAdam, make_capturable
from surface_sos_ns.training.presets import RATES, TABLE_BETAS, Preset, parameter_groups
from surface_sos_ns.training.schedules import ramp

GEOMETRY_WIDTH = 12  # FoCoR's


def use_threads(count: int) -> None:
    """Run our operations with this many threads of the CPU, as training does.

    Compiled kernels have threads of their own and torch's operations then get one. Other packages compute in torch's
    operations and get `count` threads there (`Side.use_threads`).
    """
    choose_ops("auto", torch.device("cpu")).set_threads(count)


# --- kernels -----------------------------------------------------------------------------------------------------
def features_and_jacobian(grid: HashGrid, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (P, C) at x (P, 3) of the unit cube and their whole Jacobian (P, C, 3)."""
    features, jacobian = grid(x, jacobian=True)
    assert jacobian is not None
    return features, jacobian


def sdf_field(layout: GridLayout, device: torch.device) -> SDFField:
    """FoCoR's field over [-1, 1]^3: grid, one hidden layer of 64, geometry features."""
    return SDFField(layout, GEOMETRY_WIDTH, ops=choose_ops("auto", device)).to(device)


def sdf_normal(field: SDFField, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SDF values (P,), their gradients (P, 3) and geometry features (P, G) at points (P, 3)."""
    surface = field(points)
    assert surface.normal is not None
    return surface.sdf, surface.normal, surface.geometry


# --- the whole model ---------------------------------------------------------------------------------------------
def optimisers(scene: SurfaceSOS) -> list[torch.optim.Optimizer]:
    """An optimiser for each parameter group, as in a run: a sparse one for hash tables, and on a GPU such as a CUDA
    graph can hold."""
    found: list[torch.optim.Optimizer] = []
    for name, parameters in parameter_groups(scene).items():
        rate = RATES[name]
        if rate.betas == TABLE_BETAS:
            found.append(SparseAdam(parameters, rate.lr, rate.betas, rate.eps, ops=scene.ops))
        else:
            found.append(torch.optim.Adam(parameters, lr=rate.lr, betas=rate.betas, eps=rate.eps))
    if scene.ops.static:
        make_capturable(found)
    return found


class BatchesInTurns:
    """Batches of equally many rays in fixed memory, of which a replayed step takes the next one by itself.

    Args:
        batches: at least one, on one device.
    """

    def __init__(self, batches: list[Batch]):
        columns = zip(*(vars(batch).values() for batch in batches), strict=True)
        self._batches = Batch(*(torch.stack(column) for column in columns))
        self._count = len(batches)
        self._next = torch.zeros(1, dtype=torch.int64, device=self._batches.view.device)

    def take(self) -> Batch:
        """The next batch, the first one after the last. The host does not know which one it is."""
        batch = Batch(*(values.index_select(0, self._next)[0] for values in vars(self._batches).values()))
        self._next.add_(1).remainder_(self._count)
        return batch

    def tensors(self) -> list[Tensor]:
        """All batches, and which one is next: what a replay reads."""
        return [*vars(self._batches).values(), self._next]


class Clock:
    """A profiler: seconds spent in named parts. The time of a nested part does not count for the outer one."""

    def __init__(self, device: torch.device):
        self.device = device
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = 0.0

    def enter(self, name: str) -> None:
        """Starts a part."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """Ends the current part, and resumes the outer one."""
        self._count()
        self._open.pop()

    def _count(self) -> None:
        synchronise(self.device)
        now = time.perf_counter()
        if self._open:
            self.spent[self._open[-1]] += now - self._last
        self._last = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context manager: a part."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def watch(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Context manager: all calls of a function of a module, or of a method of an object, are a part."""
        original, attributes = getattr(owner, name), vars(owner)
        own = name in attributes  # else it is an attribute of the class, visible again once ours is deleted

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(part):
                return original(*arguments, **options)

        attributes[name] = timed
        try:
            yield
        finally:
            if own:
                attributes[name] = original
            else:
                del attributes[name]


SAMPLING, FOCOR, BACO, LABEL, COLOURS = "sampling", "FoCoR", "BaCo", "label", "colours"
COMPOSITING, REST = "compositing", "rest of rendering"
LOSSES, BACKWARD, OPTIMISER = "losses", "backward", "optimiser"


class Workload(NamedTuple):
    """Numbers of evaluations in a training step."""

    points: dict[nn.Module, int]
    """Points evaluated, by field or colour network."""
    entries: int
    """Parameters in all hash tables."""
    touched: int
    """Of these, the number with a gradient other than 0."""


class Run:
    """A training run on the demo scene, without nerfstudio.

    Args:
        preset: sizes, losses and learning rates.
        data: rays, and the initial state of training.
        device: to train on.
    """

    def __init__(self, preset: Preset, data: SceneData, device: torch.device):
        self.preset, self.device = preset, device
        self.scene = SurfaceSOS(preset.scene, data.view_count, data.objects).to(device)
        self.points = data.lines.points
        self.points_inside = self.points[self.points.norm(dim=-1) < 1]
        start = (data.frame, data.contraction_radius, data.hull, data.signed_distance, data.lines)
        self.scene.initialise(*start, preset.initial_fit_steps, data.hull_identity)
        self.optimisers = optimisers(self.scene)

    def fit(self, batches: Iterator[Batch], steps: int, until: float, advance: Callable[[], None]) -> None:
        """Trains for some steps, with schedules from 0 to ``until``, a fraction of a whole run."""

        def warm_up(index: int) -> float:
            return max(float(ramp(index, 0, 0.1 * steps)), 0.01)

        schedules = [LambdaLR(optimiser, warm_up) for optimiser in self.optimisers]
        for index in range(steps):
            self.scene.set_progress(until * index / steps)
            if index % self.preset.cache_interval == 0:
                self.refresh_cache()
            self.step(next(batches))
            for schedule in schedules:
                schedule.step()
            advance()
        self.scene.set_progress(until)
        self.scene.update_cache()

    def step(
        self,
        batch: Batch,
        part: Callable[[str], AbstractContextManager[Any]] = nullcontext,
        before_backward: Callable[[Tensor], None] = lambda loss: None,
    ) -> dict[str, Tensor]:
        """Does a training step, launched operation by operation.

        Args:
            batch: rays.
            part: makes the context manager of a named part of the step, see `Clock.part`.
            before_backward: called with the loss.

        Returns:
            The weighted losses, () each.
        """
        with part(OPTIMISER):
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
        losses = self.losses(batch, part)
        with part(LOSSES):
            loss = torch.stack(list(losses.values())).sum()
        before_backward(loss)
        with part(BACKWARD):
            loss.backward()
        with part(OPTIMISER):
            for optimiser in self.optimisers:
                optimiser.step()
        return {name: value.detach() for name, value in losses.items()}

    def losses(
        self, batch: Batch, part: Callable[[str], AbstractContextManager[Any]] = nullcontext
    ) -> dict[str, Tensor]:
        """The weighted losses of a batch, () each; see `step`."""
        scene, objective = self.scene.train(), self.preset.objective
        with part(REST):
            points = draw_regulariser_points(objective, self.points_inside, self.device)
            rendering = scene.render(batch.origins, batch.directions, batch.view, regulariser_points=points)
        with part(LOSSES):
            return training_losses(
                scene,
                objective,
                rendering,
                batch.photo,
                batch.mask,
                batch.mask_weight,
                batch.view,
                self.points,
                batch.identity if scene.objects else None,
            )

    def why_not_captured(self) -> str | None:
        """Why a step cannot be a CUDA graph here; None where it can."""
        if self.device.type != "cuda":
            return "it needs CUDA"
        if not self.scene.ops.static:
            return f"these operations may wait for the host: {self.scene.ops.describe()}"
        return None

    def captured_step(self, batches: BatchesInTurns, graphs: Graphs) -> CapturedStep:
        """The step that a run takes on a GPU, captured already after a few steps, see `CapturedStep`.

        Args:
            batches: of which each call takes the next one.
            graphs: how to capture; `CudaGraphs` on a GPU.

        Raises:
            CaptureError: it could not be captured.
        """

        def fixed() -> tuple[int, ...]:
            tensors = itertools.chain(self.scene.parameters(), self.scene.buffers(), batches.tensors())
            return tuple(tensor.data_ptr() for tensor in tensors)

        step = CapturedStep(lambda: (self.losses(batches.take()), {}), self.optimisers, fixed, graphs)
        while not step.captures:
            step()
        return step

    def refresh_cache(self) -> None:
        """Updates the sampling caches, as a run does every `cache_interval` steps."""
        self.scene.update_cache(self.preset.cache_share)

    def use_samples(self, samples: int) -> None:
        """Sets the number of samples per ray."""
        self.scene.renderer.config = replace(self.scene.renderer.config, samples=samples)

    def phases(self, batches: list[Batch]) -> list[dict[str, float]]:
        """Seconds of each part of a training step, for each batch.

        Parts of rendering are separate; so are, in the backward pass, compiled fields and colour networks.
        """
        scene, found = self.scene, []
        watched = [
            (scene.renderer, "sample", SAMPLING),
            (scene.foreground, "evaluate", FOCOR),
            (scene.background, "evaluate", BACO),
            (scene.label, "evaluate", LABEL),
            (scene.foreground.colour, "forward", COLOURS),
            (scene.background.colour, "forward", COLOURS),
            (scene.ops, "composite_weights", COMPOSITING),
            (scene.ops, "seen_samples", COMPOSITING),
            (scene.ops, "composite_colours", COMPOSITING),
            (scene.ops, "accumulate_detached", COMPOSITING),
        ]
        for batch in batches:
            clock = Clock(self.device)
            with ExitStack() as stack:
                for owner, name, part in watched:
                    stack.enter_context(clock.watch(owner, name, part))
                self.step(batch, clock.part, partial(self._watch_backward, clock))
            found.append(dict(clock.spent))
        return found

    def _watch_backward(self, clock: Clock, loss: Tensor) -> None:
        """Makes the backward pass of each field a part: the graph node that computes its parameters' gradient.

        A compiled field is one such node.
        """
        scene = self.scene
        if not scene.ops.fused_networks:
            return
        front, back = scene.foreground, scene.background
        modules: list[tuple[str, nn.Module]] = [(FOCOR, front.field), (BACO, back.field), (LABEL, scene.label)]
        modules += [(COLOURS, front.colour), (COLOURS, back.colour)]
        parts = {parameter: f"{BACKWARD}: {name}" for name, module in modules for parameter in module.parameters()}
        seen: set[Any] = set()
        left: list[Any] = [loss.grad_fn]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            following = [node for node, _ in node.next_functions if node is not None]
            left += following
            # Leaf nodes (AccumulateGrad) have their parameter as `variable`.
            leaves = (getattr(node, "variable", None) for node in following)
            part = next((parts[leaf] for leaf in leaves if leaf in parts), None)
            if part is not None:
                node.register_prehook(lambda _, part=part: clock.enter(part))
                node.register_hook(lambda *_: clock.leave())

    def workload(self, batch: Batch) -> Workload:
        """Does a training step and counts its evaluations."""
        scene = self.scene
        points: defaultdict[nn.Module, int] = defaultdict(int)

        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            points[module] += len(inputs[0])

        fields = (scene.foreground.field, scene.background.field, scene.label.field)
        modules = (*fields, scene.foreground.colour, scene.background.colour)
        hooks = [module.register_forward_pre_hook(count) for module in modules]
        try:
            self.step(batch)
        finally:
            for hook in hooks:
                hook.remove()
        tables = [field.grid.table for field in fields]
        touched = sum(int(table.grad.count_nonzero()) for table in tables if table.grad is not None)
        return Workload(dict(points), sum(table.numel() for table in tables), touched)


# --- pictures ----------------------------------------------------------------------------------------------------
@torch.no_grad()
def alpha(scene: SurfaceSOS, origins: Tensor, directions: Tensor, chunk: int) -> Tensor:
    """(R,) alpha alone, of R rays in the object frame."""
    scene.eval()
    parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
    return torch.cat([scene.matte(o, d) for o, d in parts])


@torch.no_grad()
def all_outputs(scene: SurfaceSOS, origins: Tensor, directions: Tensor, chunk: int) -> list[Rendering]:
    """All outputs of R rays in the object frame, one `Rendering` per chunk."""
    scene.eval()
    parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
    return [scene.render(o, d) for o, d in parts]
