"""What one training step costs at least: its arithmetic and the bytes it moves, at the speed of the machine.

Counted from sizes, at the points that a step evaluated, whatever evaluates them:
- arithmetic: interpolation in the grids, the layers of the networks and their activations, forward and backward, with
  the Jacobian and the normal where a field has them;
- look-ups: a cell's eight entries on every level, read forward, read and written backward. A level fits into a core's
  cache, so they are held against a copy inside it;
- tables: values, gradients and Adam's averages, as often as they must be read or written at least. Together they do
  not fit into a cache, so they are held against a copy in main memory.
Sampling, compositing, losses and all that is stored between forward and backward are left out, which leaves a floor.
The three could overlap at best: the largest of them bounds a step, their sum is what to expect if nothing overlaps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surface_sos_ns.bench.ours import Workload
from surface_sos_ns.bench.protocol import seconds
from surface_sos_ns.fields.colour import ColourNet
from surface_sos_ns.fields.density import DensityField
from surface_sos_ns.fields.label import LabelField
from surface_sos_ns.fields.sdf import SDFField
from surface_sos_ns.ops.layout import GridLayout

FLOAT = 4  # bytes
LOCATE = 6  # operations per level: multiplying three coordinates, and what is left of them in the cell
# Operations per level and feature. Forward: seven interpolations a + (b - a) t; for the slopes four more, as some
# differences are shared, and three scales, 15 in all. Backward: the gradient times each
# corner's weight, factor by factor, and eight sums; with slopes two multiplications and a sum more a corner and eight
# to prepare them.
INTERPOLATE, SLOPES, SCATTER, SCATTER_SLOPES = 21, 15, 22, 32
ELEMENTARY = 20  # operations of an exponential, a logarithm or a division
HARMONICS = 50  # operations of the 16 spherical harmonics of a direction
REPEATS = 5


def _grid(layout: GridLayout, slopes: bool) -> int:
    """Operations at a point, forward and backward."""
    per_feature = INTERPOLATE + SCATTER + (SLOPES + SCATTER_SLOPES if slopes else 0)
    return layout.levels * (2 * LOCATE + layout.features * per_feature)


def _layers(layers: list[nn.Linear]) -> int:
    """Operations at a point: a product and a sum a weight, forward, to the inputs and to the weights."""
    return sum(3 * 2 * layer.weight.numel() for layer in layers)


def operations(module: nn.Module) -> int:
    """Additions and multiplications at one point, forward and backward, of a field or colour net.

    Raises:
        TypeError: another kind of module.
    """
    if isinstance(module, SDFField):
        first, width = module.hidden.weight.numel(), module.grid.layout.width
        # The normal takes the first layer once more each: backwards for the normal itself and forwards, and for its
        # weights, in the backward; and the Jacobian (C, 3) from both sides.
        normal = 3 * 2 * first + 2 * 2 * 3 * width
        activation = 2 * ELEMENTARY * module.hidden.out_features
        return _grid(module.grid.layout, True) + _layers([module.hidden, module.out]) + normal + activation
    if isinstance(module, DensityField | LabelField):
        return _grid(module.grid.layout, False) + _layers([module.hidden, module.out])
    if isinstance(module, ColourNet):
        layers = [layer for layer in module.net if isinstance(layer, nn.Linear)]
        return HARMONICS + _layers(layers) + 2 * ELEMENTARY * layers[-1].out_features
    raise TypeError(f"the operations of a {type(module).__name__} are not known")


def step_work(work: Workload) -> dict[str, float]:
    """Operations and bytes of one step, by what limits them; see the top of this file."""
    lookups = 0
    for module, points in work.points.items():
        if isinstance(module, SDFField | DensityField | LabelField):
            layout = module.grid.layout
            lookups += points * layout.levels * layout.features * 8 * FLOAT * 3
    # Gradients are cleared and read whole. What has one: value read by the look-ups, value and two averages read and
    # written by the optimiser.
    tables = (2 * work.entries + 7 * work.touched) * FLOAT
    arithmetic = sum(points * operations(module) for module, points in work.points.items())
    return {"arithmetic": float(arithmetic), "lookups": float(lookups), "tables": float(tables)}


def machine_rates(device: torch.device) -> dict[str, float]:
    """Operations and bytes per second, the best of a few tries, on one thread of a CPU or on a GPU.

    Returns:
        By the names of `step_work`: a single-precision matrix product of torch's; copies inside a core's cache and in
        main memory, bytes read and written both counted.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n = 1024
        a, product = torch.rand(n, n, device=device), torch.empty(n, n, device=device)
        near, far = (torch.rand(bytes_ // FLOAT, device=device) for bytes_ in (1 << 18, 1 << 27))
        near_copy, far_copy = torch.empty_like(near), torch.empty_like(far)

        def copies() -> None:
            for _ in range(200):
                near_copy.copy_(near)

        def rate(run: Any, amount: float) -> float:
            run()
            return amount / min(seconds(run, device) for _ in range(REPEATS))

        return {
            "arithmetic": rate(lambda: torch.mm(a, a, out=product), 2.0 * n**3),
            "lookups": rate(copies, 200 * 2.0 * FLOAT * near.numel()),
            "tables": rate(lambda: far_copy.copy_(far), 2.0 * FLOAT * far.numel()),
        }
    finally:
        torch.set_num_threads(threads)


def step_floor(work: Workload, device: torch.device) -> dict[str, Any]:
    """The least time of a step on one thread.

    Returns:
        "parts": by name amount (operations or bytes), rate per second and seconds; "seconds": the longest of them.
    """
    amounts, rates = step_work(work), machine_rates(device)
    parts = {
        name: {"amount": amount, "per_second": rates[name], "seconds": amount / rates[name]}
        for name, amount in amounts.items()
    }
    return {"parts": parts, "seconds": max(part["seconds"] for part in parts.values())}
