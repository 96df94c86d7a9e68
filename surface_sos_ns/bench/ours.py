"""Our side: the only file here that calls the model. A change of its interfaces ends here."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from surface_sos_ns.bench.protocol import synchronise
from surface_sos_ns.bench.scene_data import Batch, SceneData
from surface_sos_ns.fields.hash_grid import HashGrid
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.models.surface_sos.rendering import Rendering
from surface_sos_ns.models.surface_sos.scene import SurfaceSOS
from surface_sos_ns.ops.choose import choose_ops
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.training.objective import draw_regulariser_points, training_losses
from surface_sos_ns.training.optimizer import SparseAdam
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
    """Distance (P,), its gradient (P, 3) and geometry features (P, G) at points (P, 3)."""
    surface = field(points)
    assert surface.normal is not None
    return surface.sdf, surface.normal, surface.geometry


# --- the whole model ---------------------------------------------------------------------------------------------
def optimisers(scene: SurfaceSOS) -> list[torch.optim.Optimizer]:
    """One optimiser a parameter group, as in a run: the sparse one for those with hash tables."""
    found: list[torch.optim.Optimizer] = []
    for name, parameters in parameter_groups(scene).items():
        rate = RATES[name]
        if rate.betas == TABLE_BETAS:
            found.append(SparseAdam(parameters, rate.lr, rate.betas, rate.eps, ops=scene.ops))
        else:
            found.append(torch.optim.Adam(parameters, lr=rate.lr, betas=rate.betas, eps=rate.eps))
    return found


class Clock:
    """Seconds spent in named parts of the work; a part that lies inside another counts for itself only."""

    def __init__(self, device: torch.device):
        self.device = device
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = 0.0

    def enter(self, name: str) -> None:
        """Count for this part from now on."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """Count for the part around this one again."""
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
        """Count what runs inside for this part."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def watch(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Count all calls of a function of a module, or of an object's method, for a part."""
        original, attributes = getattr(owner, name), vars(owner)
        own = name in attributes  # else it is the class's, and is found again when ours is gone

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
    """What one training step evaluated."""

    points: dict[nn.Module, int]  # by field or colour net
    entries: int  # numbers in all hash tables
    touched: int  # of these, how many had a gradient


class Run:
    """A training run on the demo scene, without the host.

    Args:
        preset: whose sizes, losses and learning rates.
        data: the scene's rays and what training starts from.
        device: where to train.
    """

    def __init__(self, preset: Preset, data: SceneData, device: torch.device):
        self.preset, self.device = preset, device
        self.scene = SurfaceSOS(preset.scene, data.view_count).to(device)
        self.points = data.lines.points
        self.points_inside = self.points[self.points.norm(dim=-1) < 1]
        start = (data.centre, data.radius, data.reach, data.hull, data.signed_distance, data.lines)
        self.scene.initialise(*start, preset.initial_fit_steps)
        self.optimisers = optimisers(self.scene)

    def fit(self, batches: Iterator[Batch], steps: int, until: float, advance: Callable[[], None]) -> None:
        """Train for some steps whose schedules run as far as a whole run's fraction `until`."""
        full = [optimiser.param_groups[0]["lr"] for optimiser in self.optimisers]
        for index in range(steps):
            self.scene.set_progress(until * index / steps)
            if index % self.preset.cache_interval == 0:
                self.refresh_cache()
            warm_up = max(ramp(index, 0, 0.1 * steps), 0.01)
            for optimiser, rate in zip(self.optimisers, full, strict=True):
                optimiser.param_groups[0]["lr"] = rate * warm_up
            self.step(next(batches))
            advance()
        self.scene.set_progress(until)
        self.scene.update_cache()

    def step(
        self,
        batch: Batch,
        part: Callable[[str], AbstractContextManager[Any]] = nullcontext,
        before_backward: Callable[[Tensor], None] = lambda loss: None,
    ) -> None:
        """One training step; `part` is entered with the name of each of its parts, and left at its end."""
        scene, objective = self.scene.train(), self.preset.objective
        with part(OPTIMISER):
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
        with part(REST):
            points = draw_regulariser_points(objective, self.points_inside, self.device)
            rendering = scene.render(batch.origins, batch.directions, batch.view, regulariser_points=points)
        with part(LOSSES):
            losses = training_losses(
                scene,
                objective,
                rendering,
                batch.photo,
                batch.mask,
                batch.mask_weight,
                batch.view,
                self.points,
            )
            loss = torch.stack(list(losses.values())).sum()
        before_backward(loss)
        with part(BACKWARD):
            loss.backward()
        with part(OPTIMISER):
            for optimiser in self.optimisers:
                optimiser.step()

    def refresh_cache(self) -> None:
        """What a run does every `cache_interval` steps."""
        self.scene.update_cache(self.preset.cache_share)

    def use_samples(self, samples: int) -> None:
        """Draw this many samples a ray from now on."""
        self.scene.renderer.config = replace(self.scene.renderer.config, samples=samples)

    def phases(self, batches: list[Batch]) -> list[dict[str, float]]:
        """Seconds of each part of a step, for each batch.

        Rendering is divided into its own parts, and compiled fields and colour nets are told apart in the backward.
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
        """Count those nodes of the graph for a field that give the gradient to its parameters: compiled, it is one."""
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
            # Leaves of the graph have the parameter they add to as `variable`.
            leaves = (getattr(node, "variable", None) for node in following)
            part = next((parts[leaf] for leaf in leaves if leaf in parts), None)
            if part is not None:
                node.register_prehook(lambda _, part=part: clock.enter(part))
                node.register_hook(lambda *_: clock.leave())

    def workload(self, batch: Batch) -> Workload:
        """Take one step and count what it evaluates."""
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
    """(R,) the matte alone, for rays of the object frame."""
    scene.eval()
    parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
    return torch.cat([scene.matte(o, d) for o, d in parts])


@torch.no_grad()
def all_outputs(scene: SurfaceSOS, origins: Tensor, directions: Tensor, chunk: int) -> list[Rendering]:
    """Everything a host can show, for rays of the object frame, chunk by chunk."""
    scene.eval()
    parts = zip(origins.split(chunk), directions.split(chunk), strict=True)
    return [scene.render(o, d) for o, d in parts]
