"""Adam over a hash table on CUDA, as an operator of torch's: fake tensors take it without Triton. See `ops.adam`."""

from __future__ import annotations

import torch
from torch import Tensor

from surface_sos_ns.ops import adam as twin
from surface_sos_ns.ops.cuda.triton_support import compare, scalar


@torch.library.custom_op("surface_sos::sparse_adam_step", mutates_args=("value", "mean", "square"))
def _step(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rate: Tensor,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: Tensor,
) -> None:
    from surface_sos_ns.ops.cuda import adam_triton  # its import needs the package

    adam_triton.launch(value, gradient, mean, square, rate, (beta1, beta2), epsilon, step)


@_step.register_fake
def _(*given: Tensor | float) -> None:
    """It only writes in place."""


def sparse_adam_step(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rate: float | Tensor,
    betas: tuple[float, float],
    epsilon: float,
    step: int | Tensor,
) -> None:
    """See `ops.adam.sparse_adam_step`. Rate and step count are read on the device, also where they are numbers here.

    Args:
        value, mean, square: contiguous, float32, of one shape, on one CUDA device.
        gradient: float32, of the same shape.
        rate, betas, epsilon, step: as there; float32 where they are tensors.
    """
    _step(value, gradient.contiguous(), mean, square, scalar(rate, value), *betas, epsilon, scalar(step, value))


def probe(device: torch.device) -> None:
    """Run the kernel once on a CUDA device and compare with torch. The first time on a machine takes seconds.

    Raises:
        Exception: Triton does not work here; its own error, of any type.
    """
    results = []
    with torch.inference_mode(False), torch.no_grad():
        for step, where in ((twin.sparse_adam_step, torch.device("cpu")), (sparse_adam_step, device)):
            numbers = torch.arange(3000.0).sin()
            state = [part.to(where) for part in (numbers, numbers * 0.1, numbers.square())]
            gradient = torch.where(numbers > 0.3, numbers, 0.0).to(where)
            step(state[0], gradient, state[1], state[2], 0.1, (0.9, 0.99), 1e-15, 3)
            results.append(state)
    compare(*results)
