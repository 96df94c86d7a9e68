"""Operators for opacities, blending of both layers and sums along rays (eq. 3-7), by the kernels of `composite_triton`.

Each is registered with `torch.library`, forward and backward, so that fake tensors and torch.compile know the shapes of
its results without a GPU and without Triton, which is imported where an operator runs. All take values at every one of
the R x S samples, contiguous and float32. None changes its inputs, reads a tensor on the host or has second
derivatives. The functions at the end are those of `rendering/composite.py` for such values.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from surface_sos_ns.ops.cuda.triton_support import compare, scalar
from surface_sos_ns.rendering import composite as twin
from surface_sos_ns.rendering.composite import PackedValues, RayColours, RayWeights


def _kernels() -> Any:
    from surface_sos_ns.ops.cuda import composite_triton  # its import needs the package triton

    return composite_triton


def _optional(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()


# ------------------------------------------------------------------ opacity of sections


@custom_op("surface_sos::section_opacity", mutates_args=())
def _section_opacity(
    sdf: Tensor, normal: Tensor, directions: Tensor, interval: Tensor, sharpness: Tensor, anneal: Tensor
) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _kernels().section_opacity(sdf, normal, directions, interval, sharpness, anneal)
    return result


@custom_op("surface_sos::section_opacity_backward", mutates_args=())
def _section_opacity_backward(
    sdf: Tensor,
    normal: Tensor,
    directions: Tensor,
    interval: Tensor,
    sharpness: Tensor,
    anneal: Tensor,
    by_opacity: Tensor | None,
    by_unit: Tensor | None,
    to_directions: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _kernels().section_opacity_backward(
        sdf, normal, directions, interval, sharpness, anneal, by_opacity, by_unit, to_directions
    )
    return result


@_section_opacity.register_fake
def _(sdf: Tensor, normal: Tensor, *_: Tensor) -> Any:
    return torch.empty_like(sdf), torch.empty_like(normal)


@_section_opacity_backward.register_fake
def _(sdf: Tensor, normal: Tensor, directions: Tensor, *rest: Any) -> Any:
    to_directions = torch.empty_like(directions if rest[-1] else directions[:0])
    return torch.empty_like(sdf), torch.empty_like(normal), to_directions, sdf.new_empty(())


def _save_section(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward_section(ctx: Any, by_opacity: Tensor | None, by_unit: Tensor | None) -> Any:
    to_directions = ctx.needs_input_grad[2]
    to_sdf, to_normal, to_direction, to_sharpness = _section_opacity_backward(
        *ctx.saved_tensors, _optional(by_opacity), _optional(by_unit), to_directions
    )
    return to_sdf, to_normal, to_direction if to_directions else None, None, to_sharpness, None


_section_opacity.register_autograd(_backward_section, setup_context=_save_section)


@custom_op("surface_sos::density_opacity", mutates_args=())
def _density_opacity(density: Tensor, crop: Tensor, interval: Tensor) -> Tensor:
    result: Tensor = _kernels().density_opacity(density, crop, interval)
    return result


@custom_op("surface_sos::density_opacity_backward", mutates_args=())
def _density_opacity_backward(density: Tensor, crop: Tensor, interval: Tensor, by_opacity: Tensor) -> Tensor:
    result: Tensor = _kernels().density_opacity(density, crop, interval, by_opacity)
    return result


@_density_opacity.register_fake
@_density_opacity_backward.register_fake
def _(density: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(density)


def _save_density(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_density(ctx: Any, by_opacity: Tensor) -> Any:
    return _density_opacity_backward(*ctx.saved_tensors, by_opacity.contiguous()), None, None


_density_opacity.register_autograd(_backward_density, setup_context=_save_density)


# ------------------------------------------------------------------ weights along rays


@custom_op("surface_sos::ray_weights", mutates_args=())
def _ray_weights(
    opacity_f: Tensor, opacity_b: Tensor, gate: Tensor, edges: Tensor, to_object: Tensor, crop: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _kernels().ray_weights(
        opacity_f, opacity_b, gate, edges, to_object, crop
    )
    return result


@custom_op("surface_sos::ray_weights_backward", mutates_args=())
def _ray_weights_backward(
    opacity_f: Tensor,
    opacity_b: Tensor,
    gate: Tensor,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
    by_foreground: Tensor | None,
    by_background: Tensor | None,
    by_background_only: Tensor | None,
    by_alpha: Tensor | None,
    by_accumulation: Tensor | None,
    by_depth: Tensor | None,
    by_distortion: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    by_weights = (by_foreground, by_background, by_background_only)
    by_sums = (by_alpha, by_accumulation, by_depth, by_distortion)
    result: tuple[Tensor, Tensor, Tensor] = _kernels().ray_weights_backward(
        opacity_f, opacity_b, gate, edges, to_object, crop, *by_weights, *by_sums
    )
    return result


@_ray_weights.register_fake
def _(opacity_f: Tensor, opacity_b: Tensor, gate: Tensor, edges: Tensor, to_object: Tensor, crop: Tensor) -> Any:
    return *(torch.empty_like(opacity_f) for _ in range(4)), *(torch.empty_like(to_object) for _ in range(4))


@_ray_weights_backward.register_fake
def _(opacity_f: Tensor, *_: Any) -> Any:
    return torch.empty_like(opacity_f), torch.empty_like(opacity_f), torch.empty_like(opacity_f)


def _save_weights(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])  # the growth scale


def _backward_weights(ctx: Any, *by_outputs: Tensor | None) -> Any:
    by_weights, by_sums = by_outputs[:3], by_outputs[4:]
    incoming = (_optional(gradient) for gradient in (*by_weights, *by_sums))
    return *_ray_weights_backward(*ctx.saved_tensors, *incoming), None, None, None


_ray_weights.register_autograd(_backward_weights, setup_context=_save_weights)


# ------------------------------------------------------------------ sums along rays


@custom_op("surface_sos::ray_colours", mutates_args=())
def _ray_colours(
    weights_f: Tensor,
    weights_b: Tensor,
    background_only: Tensor,
    growth_scale: Tensor,
    rgb_f: Tensor,
    rgb_b: Tensor,
    unit: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _kernels().ray_colours(
        weights_f, weights_b, background_only, rgb_f, rgb_b, unit
    )
    return result


@custom_op("surface_sos::ray_colours_backward", mutates_args=())
def _ray_colours_backward(
    weights_f: Tensor,
    weights_b: Tensor,
    background_only: Tensor,
    growth_scale: Tensor,
    rgb_f: Tensor,
    rgb_b: Tensor,
    unit: Tensor,
    by_foreground: Tensor | None,
    by_background: Tensor | None,
    by_both: Tensor | None,
    by_normal: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (weights_f, weights_b, background_only, growth_scale, rgb_f, rgb_b, unit)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _kernels().ray_colours_backward(
        *inputs, by_foreground, by_background, by_both, by_normal
    )
    return result


@_ray_colours.register_fake
def _(weights_f: Tensor, *_: Tensor) -> Any:
    return tuple(weights_f.new_empty(weights_f.shape[0], 3) for _ in range(4))


@_ray_colours_backward.register_fake
def _(*given: Any) -> Any:
    weights_f, weights_b, background_only, _, *values = given[:7]
    return tuple(torch.empty_like(x) for x in (weights_f, weights_b, background_only, *values))


def _save_colours(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward_colours(ctx: Any, *by_outputs: Tensor | None) -> Any:
    incoming = (_optional(gradient) for gradient in by_outputs)
    *to_weights, to_f, to_b, to_unit = _ray_colours_backward(*ctx.saved_tensors, *incoming)
    return *to_weights, None, to_f, to_b, to_unit


_ray_colours.register_autograd(_backward_colours, setup_context=_save_colours)


@custom_op("surface_sos::accumulate", mutates_args=())
def _accumulate(weights: Tensor, values: Tensor) -> Tensor:
    result: Tensor = _kernels().accumulate(weights, values)
    return result


@_accumulate.register_fake
def _(weights: Tensor, values: Tensor) -> Tensor:
    return values.new_empty(weights.shape[0], values.shape[2])


def _save_accumulate(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _backward_accumulate(ctx: Any, by_result: Tensor) -> Any:
    (weights,) = ctx.saved_tensors
    return None, weights[..., None] * by_result[:, None]  # one product, one kernel


_accumulate.register_autograd(_backward_accumulate, setup_context=_save_accumulate)


# ------------------------------------------------------------------ in the terms of `rendering/composite.py`


def _check(name: str, tensor: Tensor, *shape: int) -> None:
    """Check a shape: with another one kernels would read out of bounds."""
    if tensor.shape != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(tensor.shape)}")


def section_opacity(
    sdf: Tensor, normal: Tensor, directions: Tensor, interval: Tensor, sharpness: Tensor, anneal: float | Tensor
) -> tuple[Tensor, Tensor]:
    """See `rendering.composite.section_opacity`; without an index, all in order.

    Args:
        sdf, normal: (R * S,) and (R * S, 3).
        directions: (R, 3).
        interval: (R, S), or (R,) for one sample a ray.
        sharpness: ().
        anneal: a number, or () on the device.

    Raises:
        ValueError: shapes that do not fit.
    """
    lengths = interval.detach()[:, None] if interval.ndim == 1 else interval.detach()
    count = lengths.numel()
    _check("directions", directions, lengths.shape[0], 3)
    _check("sdf", sdf, count)
    _check("normal", normal, count, 3)
    _check("sharpness", sharpness)
    moving = (x.contiguous() for x in (sdf, normal, directions))
    result: tuple[Tensor, Tensor] = _section_opacity(*moving, lengths.contiguous(), sharpness, scalar(anneal, sdf))
    return result


def density_section_opacity(density: Tensor, crop: Tensor, interval: Tensor) -> Tensor:
    """See `rendering.composite.density_section_opacity`; without an index, all in order.

    Raises:
        ValueError: `crop` or `interval` have not as many values as `density` (N,).
    """
    crops, lengths = (x.detach().reshape(-1).contiguous() for x in (crop, interval))
    _check("crop", crops, density.numel())
    _check("interval", lengths, density.numel())
    result: Tensor = _density_opacity(density.contiguous(), crops, lengths)
    return result


def composite_weights(
    foreground: PackedValues,
    background: PackedValues,
    gate: PackedValues,
    edges: Tensor,
    to_object: Tensor,
    crop: Tensor,
) -> RayWeights:
    """See `rendering.composite.composite_weights`.

    Raises:
        ValueError: shapes that do not fit.
    """
    rays, samples = edges.shape[0], edges.shape[1] - 1
    _check("to_object", to_object, rays)
    _check("crop", crop, rays)
    opacities = (values.spread(rays, samples).contiguous() for values in (foreground, background, gate))
    return RayWeights(*_ray_weights(*opacities, *(x.detach().contiguous() for x in (edges, to_object, crop))))


def composite_colours(
    weights: RayWeights, foreground: PackedValues, background: PackedValues, normal: PackedValues
) -> RayColours:
    """See `rendering.composite.composite_colours`.

    Raises:
        ValueError: shapes that do not fit.
    """
    rays, samples = weights.background_only.shape
    per_sample = (weights.foreground, weights.background, weights.background_only, weights.growth_scale)
    values = tuple(packed.spread(rays, samples) for packed in (foreground, background, normal))
    for tensor in per_sample:
        _check("weights and growth scale", tensor, rays, samples)
    for tensor in values:
        _check("colours and normals of all samples", tensor, rays, samples, 3)
    return RayColours(*_ray_colours(*(x.contiguous() for x in (*per_sample, *values))))


def accumulate_detached(weights: Tensor, values: PackedValues) -> Tensor:
    """See `rendering.composite.accumulate_detached`."""
    spread = values.spread(*weights.shape)
    channels = spread if spread.ndim == 3 else spread[..., None]
    found = _accumulate(weights.detach().contiguous(), channels.contiguous())
    result: Tensor = found if spread.ndim == 3 else found[:, 0]
    return result


# ------------------------------------------------------------------ whether they work


def probe(device: torch.device) -> None:
    """Run every kernel once on a CUDA device and compare with torch. The first time on a machine takes seconds.

    Raises:
        Exception: Triton does not work here; its own error, of any type.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # torch on the CPU, where no setting lowers the precision of its products
        compare(_trial(twin, torch.device("cpu"), torch.arange(4 * 32)), _trial(sys.modules[__name__], device))


def _trial(functions: ModuleType, device: torch.device, *index: Tensor) -> list[Tensor]:
    """Results and gradients of all functions for 4 rays of 32 samples; `index` lists all of these."""
    rays, samples = 4, 32
    count = rays * samples
    every = torch.arange(count, device=device)

    def numbers(frequency: float, *shape: int) -> Tensor:
        """Between 0 and 1."""
        found = (torch.arange(1, torch.Size(shape).numel() + 1) * frequency).sin().square()
        return found.reshape(shape).to(device)

    edges = 2.0 + numbers(0.7, rays, samples + 1).cumsum(1) / samples
    interval, to_object, crop = edges.diff(dim=1), 2.0 + numbers(0.9, rays), numbers(1.1, rays)
    leaves = [
        sdf := numbers(1.3, count) - 0.5,
        normal := numbers(1.5, count, 3) - 0.5,
        directions := torch.nn.functional.normalize(numbers(1.7, rays, 3), dim=-1),
        sharpness := 10.0 * numbers(1.9),
        density := numbers(2.1, count),
        gate := numbers(2.3, count),
        rgb := numbers(2.5, count, 3),
    ]
    for leaf in leaves:
        leaf.requires_grad_()
    surface, unit = functions.section_opacity(sdf, normal, directions, interval, sharpness, 0.6, *index)
    fog = functions.density_section_opacity(density, numbers(2.7, count), interval.reshape(-1), *index)
    opacities = (PackedValues(values, every) for values in (surface, fog, gate))
    weights = functions.composite_weights(*opacities, edges, to_object, crop)
    colours = functions.composite_colours(weights, *(PackedValues(values, every) for values in (rgb, rgb, unit)))
    label = functions.accumulate_detached(weights.combined, PackedValues(gate, every))
    results = [surface, unit, fog, *weights, *colours, label]
    loss = torch.stack([result.square().sum() for result in results]).sum()
    return [*results, *torch.autograd.grad(loss, leaves)]
