"""Every operation of every back-end against plain torch in double precision, forward and backward.

`BACKENDS` and `CALLS` are the two tables. A new back-end is a line in the first one. A new operation is a function
under `@calls`, which makes the inputs of one call; a test fails as long as there is none. Inputs are random and
awkward: none, one and as many as fill a block of a kernel, or one more or less; points on the faces and corners of
cells, outside, and far away; rays without samples; opacities of exactly 0 and 1. They are float32 numbers, given to
torch as doubles.

A back-end on a CUDA device runs where there is one. Triton's kernels also run on the CPU, in its interpreter: see
`test_triton_grid.py`, which starts a process for that.
"""

from __future__ import annotations

import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.ops import choose
from surface_sos_ns.ops.cuda.tcnn_ops import TcnnOps
from surface_sos_ns.ops.cuda.triton_ops import TritonOps
from surface_sos_ns.ops.layout import GridLayout
from surface_sos_ns.ops.torch_ops import TORCH, TorchOps
from surface_sos_ns.rendering.composite import PackedValues, RayWeights
from surface_sos_ns.sampling.field_cache import FieldCache
from surface_sos_ns.sampling.ray_samples import Samples
from surface_sos_ns.sampling.selection import Selection
from tests.helpers.cached_ball import PLAN, cached_ball, rays
from tests.helpers.emulated_tinycudann import emulate_tinycudann
from tests.helpers.triton_kernels import INTERPRETED, scan_all_rows_at_once

# ------------------------------------------------------------------ back-ends


class Backend(NamedTuple):
    """How to get a back-end, and what its contract lacks."""

    make: Callable[[], TorchOps]
    device: Literal["cpu", "cuda"] = "cpu"
    problem: Callable[[], str | None] = lambda: None  # why it cannot run
    fixed: Mapping[str, Sequence[str]] = {}  # by operation, arguments to which it has no gradient
    lacks: Sequence[str] = ()  # words in the names of calls that it refuses, or that would take too long
    only: Sequence[str] = ()  # operations to run, where the others are known to be those of another back-end
    emulated: bool = False


def _numba() -> TorchOps:
    return choose.choose_ops("numba", torch.device("cpu"))


NO_LOOK_UP = {"look_up": ("grid", "points"), "look_up_in_cube": ("grid", "points")}
ON_THE_GRID = ("hash_grid", "relu_network", "sdf_network")
ALONG_RAYS = (
    "section_opacity",
    "density_section_opacity",
    "composite_weights",
    "composite_colours",
    "accumulate_detached",
)
NO_POINTS = dict.fromkeys(ON_THE_GRID, ("points",))
ODD_FEATURES = ("three features",)
GPU = torch.device("cuda")

BACKENDS = {
    "torch": Backend(TorchOps),
    "numba": Backend(_numba, "cpu", choose.numba_problem, NO_LOOK_UP),
    "tcnn, emulated": Backend(TcnnOps, "cpu", fixed=NO_POINTS, lacks=ODD_FEATURES, only=ON_THE_GRID, emulated=True),
    "torch on CUDA": Backend(TorchOps, "cuda"),
    "triton": Backend(TritonOps, "cuda", partial(choose.triton_problem, GPU)),
    "tcnn": Backend(TcnnOps, "cuda", choose.tcnn_problem, NO_POINTS, ODD_FEATURES),
}
if INTERPRETED:
    BACKENDS = {
        "triton, interpreted": Backend(
            TritonOps,
            lacks=("jacobian False", "points 127", "points 128", "points 2100", "many rays", "count 333"),
            only=["hash_grid", "sparse_adam_step", "look_up", "look_up_in_cube", "sample_edges", *ALONG_RAYS],
        )
    }


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    found = BACKENDS[request.param]
    if found.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    problem = found.problem()
    if problem is not None:
        pytest.skip(problem)
    if found.emulated:
        emulate_tinycudann(monkeypatch)
    if INTERPRETED:
        scan_all_rows_at_once(monkeypatch)
    return found


# ------------------------------------------------------------------ calls

EPSILON = 2.0**-23
"""Of float32."""


class Call(NamedTuple):
    """One call of an operation."""

    run: Callable[[TorchOps, Any], Any]  # takes operations and the tensors below as attributes
    leaves: dict[str, Tensor]  # those that get a gradient
    fixed: dict[str, Tensor] = {}  # noqa: RUF012  # the others
    rounding: float = 50.0  # by how many times EPSILON results may be off, of the largest number of each
    compare: Callable[[list[Tensor], list[Tensor]], None] | None = None  # of results that rounding may flip


CALLS: dict[str, dict[str, Callable[[], Call]]] = defaultdict(dict)
"""By operation and in words what is special about it."""


def calls(operation: str, **options: Sequence[Any]) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
    """Enter a function that makes a call of an operation into the table, with each combination of its options."""

    def enter(make: Callable[..., Call]) -> Callable[..., Call]:
        for values in itertools.product(*options.values()):
            given = dict(zip(options, values, strict=True))
            words = [f"{name} {value}" if isinstance(value, int | float) else value for name, value in given.items()]
            CALLS[operation][", ".join(words)] = partial(make, **given)
        return make

    return enter


class Numbers:
    """Random float32 numbers."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def opacities(self, count: int, kind: str) -> Tensor:
        found = self.uniform(count)
        return found if kind == "partly opaque" else (found * 3).floor() / 2  # a third each of 0, 0.5 and 1

    def layers(self, *widths: int) -> dict[str, Tensor]:
        """Weights and biases of dense layers, in turn."""
        found = {}
        for i, (k, n) in enumerate(itertools.pairwise(widths)):
            found[f"weight{i}"], found[f"bias{i}"] = self.normal(n, k) * (2 / k) ** 0.5, self.normal(n) * 0.3
        return found


def layers_of(t: Any) -> list[Tensor]:
    return [vars(t)[f"{kind}{i}"] for i in range(3) if f"weight{i}" in vars(t) for kind in ("weight", "bias")]


# ------------------------------------------------------------------ fields

# Points that are multiples of 1/32 lie on faces of cells exactly, whatever the precision.
LAYOUTS = {
    "dense and hashed": GridLayout(levels=4, features=2, log2_entries=10, base_resolution=4, max_resolution=32),
    "one feature": GridLayout(levels=2, features=1, log2_entries=6, base_resolution=9, max_resolution=70),
    "three features": GridLayout(levels=2, features=3, log2_entries=8, base_resolution=4, max_resolution=21),
    "four features": GridLayout(levels=3, features=4, log2_entries=9, base_resolution=5, max_resolution=33),
    "eight features": GridLayout(levels=2, features=8, log2_entries=12, base_resolution=2, max_resolution=8),
}
LAYOUT = LAYOUTS["dense and hashed"]
COUNTS = (0, 1, 127, 128, 129, 2100)
POINTS = (*COUNTS, "on faces of cells", "on faces of the cube", "outside")


def unit_points(points: int | str, infinite: bool = True) -> Tensor:
    numbers = Numbers(1)
    if isinstance(points, int):
        return numbers.uniform(points, 3)
    if points == "outside":
        away = torch.tensor([[-1e6, 0.3, 0.7], [0.2, 3e3, -4.0]])
        far = torch.tensor([[0.3, 0.2, torch.inf], [-torch.inf, 0.6, 0.1]])
        return torch.cat([numbers.uniform(150, 3) * 3 - 1, away, *([far] if infinite else [])])
    faces = numbers.uniform(60, 3) * 31
    lattice = (faces.floor() + 1) / 32 if points == "on faces of cells" else (faces > 15).float()
    one_axis = F.one_hot(torch.arange(60) % 3).bool()
    return torch.cat([lattice, torch.where(one_axis, lattice, numbers.uniform(60, 3))])


def with_points(kind: int | str, points: Tensor, **leaves: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Leaves and other inputs. On a face of the cube the derivative is that from inside or none: versions of torch
    differ in what `clamp` does there."""
    given = {"points": points}
    return (leaves, given) if kind == "on faces of the cube" else (given | leaves, {})


def table(layout: GridLayout) -> Tensor:
    return Numbers(2).normal(int(layout.entries.sum()), layout.features)


def grid_call(layout: str, jacobian: bool, points: int | str) -> Call:
    sizes = LAYOUTS[layout]
    return Call(
        lambda ops, t: ops.hash_grid(t.points, t.table, sizes, jacobian),
        *with_points(points, unit_points(points), table=table(sizes)),
        rounding=5.0 * sizes.max_resolution,  # a point's place in its cell is that many times coarser than the point
    )


calls("hash_grid", layout=["dense and hashed"], jacobian=[False, True], points=POINTS)(grid_call)
calls("hash_grid", layout=list(LAYOUTS)[1:], jacobian=[True], points=[129, "on faces of cells"])(grid_call)


@calls("relu_network", hidden=[1, 2], points=POINTS)
def _(hidden: int, points: int | str) -> Call:
    parameters = Numbers(3).layers(LAYOUT.width, *[16] * hidden, 1 + 6 * (hidden - 1))
    return Call(
        lambda ops, t: ops.relu_network(t.points, t.table, LAYOUT, *layers_of(t)),
        *with_points(points, unit_points(points), table=table(LAYOUT), **parameters),
    )


@calls("sdf_network", normals=[False, True], extent=[1.0, 2.0], points=POINTS)
def _(normals: bool, extent: float, points: int | str) -> Call:
    within = unit_points(points, infinite=False)
    parameters = Numbers(4).layers(3 + LAYOUT.width, 16, 6)
    parameters["weight0"] *= 0.1  # so that the softplus is not saturated everywhere: its sharpness is 100
    parameters["bias0"] *= 0.1
    if points == "outside":
        within = within.clamp(-4, 4)  # unlike features, the layer does not clamp the point
    return Call(
        lambda ops, t: ops.sdf_network(t.points, t.table, LAYOUT, extent, normals, *layers_of(t)),
        *with_points(points, (within * 2 - 1) * extent, table=table(LAYOUT) * 0.3, **parameters),
        rounding=100.0,  # as sharp as the softplus
    )


@calls("colour_network", hidden=[1, 2], directions=["fixed directions", "moving directions"], points=COUNTS)
def _(hidden: int, directions: str, points: int) -> Call:
    numbers = Numbers(5)
    heading = F.normalize(numbers.normal(points, 3), dim=-1)
    heading[:3] = torch.eye(3)[:points]  # along the axes
    moving = directions == "moving directions"
    return Call(
        lambda ops, t: ops.colour_network(t.inputs, t.directions, *layers_of(t)),
        {
            "inputs": numbers.normal(points, 9),
            **numbers.layers(9 + 16, *[16] * hidden, 2 + hidden),
            **({"directions": heading} if moving else {}),
        },
        {} if moving else {"directions": heading},
    )


# ------------------------------------------------------------------ look-ups


def look_up_points(points: str, extent: float) -> Tensor:
    if points == "no points":
        return torch.zeros(0, 3)
    if points == "random":
        return (Numbers(6).uniform(41, 25, 3) * 3 - 1.5) * extent  # a third of each axis beyond the cube
    axis = torch.tensor([-1e30, -1.0, -0.9375, -0.875, 0.0, 0.5, 0.875, 1.0, 1e30])
    return torch.cartesian_prod(axis, axis, axis) * extent


@calls("look_up", size=[2, 8, 32], extent=[1.0, 2.0], points=["no points", "random", "on centres and borders"])
def _(size: int, extent: float, points: str) -> Call:
    return Call(
        lambda ops, t: ops.look_up(t.grid, t.points, extent),
        {"grid": Numbers(7).uniform(size, size, size), "points": look_up_points(points, extent)},
    )


@calls("look_up_in_cube", size=[2, 8], points=["no points", "random", "on centres and borders"])
def _(size: int, points: str) -> Call:
    return Call(
        lambda ops, t: ops.look_up_in_cube(t.grid, t.points),
        {"grid": Numbers(7).uniform(size, size, size), "points": look_up_points(points, 1.0)},
    )


# ------------------------------------------------------------------ samples of rays


def same_distances(ours: Tensor, truth: Tensor) -> None:
    """To what float32 leaves of a cumulative sum, but where a point is rounded into a neighbouring cell of what is
    cached: on one ray in fifty at most."""
    assert ours.shape == truth.shape and (ours.diff(dim=-1) >= 0).all()
    apart = ((ours - truth).abs() > 3e-4 * truth).any(-1)
    assert apart.sum() <= 0.02 * apart.numel()


def same_list(ours: Tensor, truth: Tensor, of: int) -> None:
    """But for a few that lie on the border of what is listed."""
    assert ours.dtype == torch.int64 and (ours.diff() > 0).all()
    assert len(set(ours.tolist()) ^ set(truth.tolist())) <= 0.003 * of


def same_samples(ours: list[Tensor], truth: list[Tensor], samples: int, of: int) -> None:
    found, expected = (
        Samples(*each[:6], *(Selection(samples, positions) for positions in each[6:])) for each in (ours, truth)
    )
    same_list(found.rays, expected.rays, of)
    shared = [torch.isin(one.rays, two.rays) for one, two in ((found, expected), (expected, found))]
    same_distances(found.edges[shared[0]], expected.edges[shared[1]])

    def positions(drawn: Samples, which: str) -> Tensor:
        chosen = getattr(drawn, which)
        return drawn.rays[chosen.rays] * samples + chosen.positions % samples

    for which in ("near_surface", "in_hull", "background"):
        same_list(positions(found, which), positions(expected, which), of * samples)
    assert found.points.shape == (found.rays.numel() * samples, 3) and found.crop.shape == found.points.shape[:1]


PLANS = {
    "all": PLAN,
    "background only": replace(PLAN, background_only=True),
    "foreground only": replace(PLAN, foreground_only=True),
    "wide space": replace(PLAN, contraction_radius=2.5),
    "soft surface": replace(PLAN, sharpness=4.0),
    "one sample, few candidates": replace(PLAN, samples=1, candidates=(1, 1, 1)),
    "many samples": replace(PLAN, samples=70, candidates=(24, 64, 32)),
    "no candidates before": replace(PLAN, candidates=(0, 33, 5)),
}


def cache_of(t: Any, splits: bool) -> FieldCache:
    cache = FieldCache(1, 1, splits)
    cache.resolution, cache.background_resolution = len(t.sdf), len(t.density)
    cache.sdf, cache.gate, cache.density = t.sdf, t.gate, t.density
    return cache


def ray_call(operation: str, plan: str, distance: float, count: int, jitter: str = "middles", label: str = "") -> Call:
    splits = label != "no split"
    cache, probability, hull = cached_ball(splits=splits)
    origins, directions = rays(count, distance, spread=0.8 if plan == "foreground only" else 0.5)
    fixed = {"sdf": cache.sdf, "gate": cache.gate, "density": cache.density}
    fixed |= {"origins": origins, "directions": directions, "probability": probability, "hull": hull}
    chosen = PLANS[plan]
    if jitter == "jittered":
        fixed["jitter"] = Numbers(8).uniform(count, chosen.samples + 1)

    def run(ops: TorchOps, t: Any) -> Any:
        given = (cache_of(t, splits), *([t.probability, None if label == "no label" else t.hull][: 2 * whole]))
        drawn = (False, getattr(t, "jitter", None)) if operation != "live_rays" else ()
        return getattr(ops, operation)(*given, t.origins, t.directions, chosen, *drawn)

    whole = operation == "sample_rays"
    compare = {
        "sample_rays": partial(same_samples, samples=chosen.samples, of=count),
        "sample_edges": lambda ours, truth: same_distances(*ours, *truth),
        "live_rays": lambda ours, truth: same_list(*ours, *truth, of=count),
    }[operation]
    return Call(run, {}, fixed, compare=compare)


calls("sample_rays", plan=list(PLANS), distance=[3.0], count=[0, 1, 333])(partial(ray_call, "sample_rays"))
calls("sample_rays", plan=["all", "foreground only"], distance=[0.0, 0.7, 40.0], count=[333], jitter=["jittered"])(
    partial(ray_call, "sample_rays")
)
calls(
    "sample_rays",
    plan=["all", "foreground only", "background only"],
    distance=[3.0],
    count=[333],
    jitter=["middles"],
    label=["no label", "no split"],
)(partial(ray_call, "sample_rays"))
calls(
    "sample_edges",
    plan=["all", "background only"],
    distance=[3.0],
    count=[0, 1, 333, 20],
    jitter=["middles", "jittered"],
)(partial(ray_call, "sample_edges"))
calls("live_rays", plan=["all", "many samples"], distance=[0.5, 3.0], count=[0, 1, 2000])(
    partial(ray_call, "live_rays")
)


# ------------------------------------------------------------------ compositing

RAYS = {
    "no rays": (0, 5),
    "one ray": (1, 3),
    "one sample a ray": (7, 1),
    "few rays": (40, 9),
    "many rays": (300, 24),
    "many samples a ray": (6, 128),
}
PLACES = ("some samples", "no samples", "all samples", "empty rays")
OPACITIES = ("partly opaque", "exactly 0 and 1")
SAMPLES = (0, 1, 511, 512, 513)


def positions(numbers: Numbers, shape: tuple[int, int], places: str) -> Tensor:
    """(N,) of the samples of rays that have values."""
    share = {"no samples": 0.0, "all samples": 1.0}.get(places, 0.6)
    chosen = numbers.uniform(*shape) < share
    if places == "empty rays":
        chosen[::3] = chosen[1::3] = False
    return chosen.reshape(-1).nonzero()[:, 0]


def ray_edges(numbers: Numbers, shape: tuple[int, int]) -> Tensor:
    return 1.0 + numbers.uniform(shape[0], shape[1] + 1).sort(-1).values * 4


def surface(numbers: Numbers, count: int) -> dict[str, Tensor]:
    """Distances, with some far in and far out, and slopes, with some along and across rays along z."""
    sdf, normal = numbers.uniform(count) * 0.2 - 0.06, numbers.uniform(count, 3) * 2 - 1
    sdf[:5] = torch.tensor([0.0, -3.0, 3.0, -0.5, 0.5])[:count]
    normal[5:9] = torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, 0, 1], [3, 0, -4]])[: max(0, count - 5)]
    return {"sdf": sdf, "normal": normal, "sharpness": torch.tensor(30.0)}


def section_call(anneal: float, moving: str, surfaces: dict[str, Tensor], **fixed: Tensor) -> Call:
    leaves = surfaces | ({"directions": fixed.pop("directions")} if moving == "moving directions" else {})

    def run(ops: TorchOps, t: Any) -> Any:
        index = getattr(t, "index", None)
        return ops.section_opacity(t.sdf, t.normal, t.directions, t.interval, t.sharpness, anneal, index)

    return Call(run, leaves, fixed, rounding=300.0)  # as sharp as the surface, times its largest distance


def headings(numbers: Numbers, count: int) -> Tensor:
    found = F.normalize(numbers.normal(count, 3), dim=-1)
    found[::2] = torch.tensor([0.0, 0.0, 1.0])
    return found


@calls("section_opacity", samples=SAMPLES, anneal=[0.0, 0.4, 1.0], moving=["fixed directions", "moving directions"])
def _(samples: int, anneal: float, moving: str) -> Call:
    numbers = Numbers(10)
    interval = numbers.uniform(samples) * 0.2
    interval[3::7] = 0
    return section_call(
        anneal, moving, surface(numbers, samples), directions=headings(numbers, samples), interval=interval
    )


@calls("section_opacity", shape=list(RAYS), places=PLACES, moving=["fixed directions", "moving directions"])
def _(shape: str, places: str, moving: str) -> Call:
    numbers, sizes = Numbers(11), RAYS[shape]
    index = positions(numbers, sizes, places)
    return section_call(
        0.4,
        moving,
        surface(numbers, len(index)),
        directions=headings(numbers, sizes[0]),
        interval=ray_edges(numbers, sizes).diff(dim=-1),
        index=index,
    )


def all_positions(ops: TorchOps, like: Tensor) -> Tensor | None:
    """Positions of all samples, of which `like` has values; None for kernels that take them in order."""
    return None if isinstance(ops, TritonOps) else torch.arange(len(like), device=like.device)


@calls("section_opacity", shape=list(RAYS), places=["in order"], moving=["fixed directions", "moving directions"])
def _(shape: str, places: str, moving: str) -> Call:
    numbers, (count, samples) = Numbers(19), RAYS[shape]
    surfaces, directions = surface(numbers, count * samples), headings(numbers, count)
    interval, anneal = ray_edges(numbers, (count, samples)).diff(dim=-1), torch.tensor(0.4)
    interval[:, 1::4] = 0
    leaves, fixed = surfaces, {"interval": interval, "anneal": anneal}
    (leaves if moving == "moving directions" else fixed)["directions"] = directions

    def run(ops: TorchOps, t: Any) -> Any:
        index = all_positions(ops, t.sdf)
        return ops.section_opacity(t.sdf, t.normal, t.directions, t.interval, t.sharpness, t.anneal, index)

    return Call(run, leaves, fixed, rounding=300.0)


def density_run(ops: TorchOps, t: Any) -> Any:
    return ops.density_section_opacity(t.density, t.crop, t.interval, getattr(t, "index", None))


@calls("density_section_opacity", samples=SAMPLES)
def _(samples: int) -> Call:
    numbers = Numbers(12)
    density, crop = numbers.uniform(samples) * 3, numbers.opacities(samples, "exactly 0 and 1")
    density[::4], density[1::5] = 0, 1e4  # nothing there, and no light left
    return Call(density_run, {"density": density}, {"crop": crop, "interval": numbers.uniform(samples)})


@calls("density_section_opacity", shape=list(RAYS), places=PLACES)
def _(shape: str, places: str) -> Call:
    numbers, sizes = Numbers(13), RAYS[shape]
    index = positions(numbers, sizes, places)
    crop, interval = numbers.uniform(*sizes), ray_edges(numbers, sizes).diff(dim=-1)
    return Call(
        density_run, {"density": numbers.uniform(len(index)) * 3}, {"crop": crop, "interval": interval, "index": index}
    )


@calls("density_section_opacity", shape=list(RAYS), places=["in order"])
def _(shape: str, places: str) -> Call:
    numbers, sizes = Numbers(20), RAYS[shape]
    count = sizes[0] * sizes[1]
    return Call(
        lambda ops, t: ops.density_section_opacity(t.density, t.crop, t.interval, all_positions(ops, t.density)),
        {"density": numbers.uniform(count) * 3},
        {
            "crop": numbers.opacities(count, "exactly 0 and 1").reshape(sizes),
            "interval": ray_edges(numbers, sizes).diff(dim=-1),
        },
    )


@calls("composite_weights", shape=list(RAYS), places=PLACES, opacity=OPACITIES)
def _(shape: str, places: str, opacity: str) -> Call:
    numbers, sizes = Numbers(14), RAYS[shape]
    names = ("foreground", "background", "gate")
    where = {f"{name}_at": positions(numbers, sizes, places) for name in names}

    def run(ops: TorchOps, t: Any) -> Any:
        packed = (PackedValues(vars(t)[name], vars(t)[f"{name}_at"]) for name in names)
        return ops.composite_weights(*packed, t.edges, t.to_object, t.crop)

    return Call(
        run,
        {name: numbers.opacities(len(where[f"{name}_at"]), opacity) for name in names},
        {
            **where,
            "edges": ray_edges(numbers, sizes),
            "to_object": 1.5 + numbers.uniform(sizes[0]) * 2,
            "crop": numbers.opacities(sizes[0], opacity),
        },
    )


@calls("composite_colours", shape=list(RAYS), places=PLACES)
def _(shape: str, places: str) -> Call:
    numbers, sizes = Numbers(15), RAYS[shape]
    values = ("rgb_f", "rgb_b", "normal")
    where = {f"{name}_at": positions(numbers, sizes, places) for name in values}
    weights = {name: numbers.uniform(*sizes) / sizes[1] for name in ("foreground", "background", "background_only")}
    weights["background_only"][::3] *= 1e-2  # rays that the background hardly covers
    weights["background_only"][1::4] = 0  # or not at all

    def run(ops: TorchOps, t: Any) -> Any:
        given = RayWeights(t.foreground, t.background, t.background_only, t.growth_scale, *[t.sums] * 4)
        return ops.composite_colours(given, *(PackedValues(vars(t)[n], vars(t)[f"{n}_at"]) for n in values))

    return Call(
        run,
        weights | {name: numbers.uniform(len(where[f"{name}_at"]), 3) for name in values},
        where | {"growth_scale": numbers.uniform(*sizes), "sums": numbers.uniform(sizes[0])},
    )


def exactly_equal(ours: list[Tensor], truth: list[Tensor]) -> None:
    assert all(torch.equal(one, two) for one, two in zip(ours, truth, strict=True))


@calls("seen_samples", shape=list(RAYS), places=PLACES, others=["one layer", "two layers"])
def _(shape: str, places: str, others: str) -> Call:
    numbers, sizes = Numbers(16), RAYS[shape]
    weights, more = (numbers.uniform(*sizes) * 0.2 for _ in range(2))
    weights[:, ::2] = 0.125  # not more than the threshold
    return Call(
        lambda ops, t: ops.seen_samples(
            Selection(sizes[1], t.index), 0.125, t.weights, t.others if others == "two layers" else None
        ),
        {"weights": weights, "others": more},
        {"index": positions(numbers, sizes, places)},
        compare=exactly_equal,
    )


@calls("accumulate_detached", shape=list(RAYS), places=PLACES, channels=["no channels", 1, 3, 7])
def _(shape: str, places: str, channels: int | str) -> Call:
    numbers, sizes = Numbers(17), RAYS[shape]
    index = positions(numbers, sizes, places)
    return Call(
        lambda ops, t: ops.accumulate_detached(t.weights, PackedValues(t.values, t.index)),
        {  # the weights' gradient is none at all
            "weights": numbers.uniform(*sizes),
            "values": numbers.normal(len(index), *([channels] if isinstance(channels, int) else [])),
        },
        {"index": index},
    )


# ------------------------------------------------------------------ optimiser


@calls(
    "sparse_adam_step",
    entries=[0, 1, 4095, 4096, 4097],
    step=[1, 900],
    columns=[1, 2],
    rate=["rate and step on the host", "rate and step on the device"],
)
def _(entries: int, step: int, columns: int, rate: str) -> Call:
    numbers = Numbers(18)
    gradient, mean = numbers.normal(entries, columns), numbers.normal(entries, columns) * 0.1
    gradient[::3], mean[1::4] = 0, 0

    def run(ops: TorchOps, t: Any) -> Any:
        state = [x.clone() for x in (t.value, t.mean, t.square)]
        rate_and_step = (t.rate, t.step) if rate.endswith("device") else (1e-2, step)
        ops.sparse_adam_step(state[0], t.gradient, *state[1:], rate_and_step[0], (0.9, 0.99), 1e-15, rate_and_step[1])
        return [after - before for after, before in zip(state, (t.value, t.mean, t.square), strict=True)]

    small = numbers.normal(entries, columns) * 1e-2  # or its rounding would be what changes most
    given = {"value": small, "gradient": gradient, "mean": mean, "square": mean.square() + 1e-2}
    given |= {"rate": torch.tensor(1e-2), "step": torch.tensor(float(step))}
    return Call(run, {}, given, rounding=100.0)  # in single precision 1 - 0.99 is off by 80 times EPSILON


# ------------------------------------------------------------------ the tests


def on_every_backend(words_of: Callable[[str], Sequence[str]]) -> Any:
    """Parametrise a test by back-end, operation and words of a call."""
    return pytest.mark.parametrize(
        ("backend", "operation", "words"),
        [
            pytest.param(
                name, operation, words, id=f"{name}: {operation}: {words}", marks=[pytest.mark.gpu] if gpu else []
            )
            for name, backend in BACKENDS.items()
            for gpu in [backend.device == "cuda"]
            for operation in backend.only or CALLS
            for words in words_of(operation)
            if not any(lacking in words for lacking in backend.lacks)
        ],
        indirect=["backend"],
    )


SET_UP = {"describe", "claim_threads", "threads", "set_threads"}
"""What computes nothing."""


class Results(NamedTuple):
    outputs: list[Tensor]
    gradients: dict[str, Tensor]  # by leaf, and by what the loss is made of: all outputs, or one of them


def tensors_in(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from tensors_in(part)


def evaluate(
    ops: TorchOps, call: Call, without: Sequence[str], dtype: torch.dtype, device: str, strew: bool
) -> Results:
    """Outputs of a call, and gradients of random sums of them."""

    def given(tensor: Tensor) -> Tensor:
        moved = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        return torch.stack([moved, torch.zeros_like(moved)], -1)[..., 0] if strew and moved.ndim else moved

    inputs = {name: given(tensor) for name, tensor in (call.leaves | call.fixed).items()}
    leaves = {name: inputs[name].requires_grad_() for name in call.leaves if name not in without}
    outputs = list(tensors_in(call.run(ops, SimpleNamespace(**inputs))))
    learns = {f"output {i}": output for i, output in enumerate(outputs) if output.requires_grad}
    weighted = {}
    for i, (name, output) in enumerate(learns.items()):
        weights = Numbers(100 + i).normal(*output.shape)
        weights[2::3] = 0  # samples that no loss looks at
        weighted[name] = (output * weights.to(output)).sum()
    losses = ({"all outputs": torch.stack(list(weighted.values())).sum()} if weighted else {}) | weighted
    gradients = {}
    for what, loss in losses.items():
        found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            gradients[f"{name} by {what}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return Results([output.detach().cpu() for output in outputs], {k: v.cpu() for k, v in gradients.items()})


def assert_close(found: Tensor, truth: Tensor, tolerance: float, what: str) -> None:
    """Equal to a tolerance relative to the largest number there is."""
    assert found.shape == truth.shape and found.isfinite().all(), what
    if truth.numel():
        off = float((found.double() - truth).abs().max()) / max(0.1, float(truth.abs().max()))
        assert off <= tolerance, f"{what} is off by {off:.1e} of its largest, more than {tolerance:.1e}"


@cache
def truth_of(operation: str, words: str, without: Sequence[str]) -> Results:
    return evaluate(TORCH, CALLS[operation][words](), without, torch.float64, "cpu", strew=False)


def check(backend: Backend, operation: str, words: str, strew: bool = False) -> None:
    call, without = CALLS[operation][words](), backend.fixed.get(operation, ())
    truth = truth_of(operation, words, without)
    found = evaluate(backend.make(), call, without, torch.float32, backend.device, strew)
    for ours, theirs in zip(found.outputs, truth.outputs, strict=True):
        assert ours.dtype == (torch.float32 if theirs.is_floating_point() else theirs.dtype)
    tolerance = call.rounding * EPSILON
    if call.compare is not None:
        call.compare(found.outputs, truth.outputs)
    else:
        for i, (ours, theirs) in enumerate(zip(found.outputs, truth.outputs, strict=True)):
            assert_close(ours, theirs, tolerance, f"output {i}")
    assert found.gradients.keys() == truth.gradients.keys()
    for name, theirs in truth.gradients.items():
        assert_close(found.gradients[name], theirs, tolerance, f"gradient to {name}")


@on_every_backend(lambda operation: list(CALLS[operation]))
def test_it_equals_torch_in_double_precision(backend: Backend, operation: str, words: str) -> None:
    check(backend, operation, words)


@on_every_backend(lambda operation: list(CALLS[operation])[-1:])
def test_how_tensors_lie_in_memory_does_not_matter(backend: Backend, operation: str, words: str) -> None:
    check(backend, operation, words, strew=True)


def test_no_operation_is_left_out() -> None:
    public = {name for name, _ in inspect.getmembers(TorchOps, inspect.isfunction) if not name.startswith("_")}
    assert set(CALLS) == public - SET_UP


@pytest.mark.skipif(choose.numba_problem() is not None, reason="needs the package numba")
def test_sizes_lie_around_the_borders_of_blocks() -> None:
    from surface_sos_ns.ops.cpu import adam, composite, grid

    assert {grid.BLOCK - 1, grid.BLOCK, grid.BLOCK + 1} < set(COUNTS) and max(COUNTS) > grid._CHUNK
    assert {composite._BLOCK - 1, composite._BLOCK, composite._BLOCK + 1} < set(SAMPLES)
    assert f"entries {adam._BLOCK + 1}, step 1, columns 1, rate and step on the host" in CALLS["sparse_adam_step"]
