"""At which samples of rays (or which points) a field is evaluated.

On a CPU the time goes into evaluations, so it lists the samples that matter. On a GPU waiting costs more: the length of
a list is known only when all that was launched before is done, and a CUDA graph needs fixed shapes. There the field is
evaluated at all samples, and values count as zero where the list would leave them out. Both give the same results.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from surface_sos_ns.rendering.composite import PackedValues


class Selection(NamedTuple):
    """N of the R * S samples of rays: listed by their positions, or all of them (N = R * S) with a mask."""

    samples: int
    """S, samples per ray; 1 for points that are on no rays."""
    positions: Tensor | None
    """(N,) int64, ray * S + sample, ascending; None where all samples are evaluated."""
    counted: Tensor | None = None
    """(R * S,) bool, which samples count where all are evaluated; None where they are listed."""

    @classmethod
    def of(cls, mask: Tensor, dense: bool) -> Selection:
        """Those of a mask (R, S) or (P,), listed or, with `dense`, without waiting for the device."""
        samples, flat = (1 if mask.ndim == 1 else mask.shape[1]), mask.reshape(-1)
        return cls(samples, None, flat) if dense else cls(samples, flat.nonzero()[:, 0])

    @property
    def rays(self) -> Tensor | None:
        """(N,) int64, the ray of each; None where all samples are evaluated."""
        return None if self.positions is None else self.positions // self.samples

    @property
    def empty(self) -> bool:
        """Whether there is known to be nothing to evaluate; never where all samples are evaluated."""
        return self.positions is not None and self.positions.shape[0] == 0

    def take(self, values: Tensor) -> Tensor:
        """Values (R * S, ...) of all samples -> those of the N samples, (N, ...)."""
        return values if self.positions is None else values[self.positions]

    def take_of_rays(self, values: Tensor) -> Tensor:
        """Values (R, ...) of rays -> those of the rays of the N samples, (N, ...)."""
        rays = self.rays
        if rays is not None:
            return values[rays]
        shape = values.shape
        return values[:, None].expand(shape[0], self.samples, *shape[1:]).reshape(-1, *shape[1:])

    def pack(self, values: Tensor) -> PackedValues:
        """Values (N, ...) at the samples, zero at all others."""
        if self.counted is None:
            return PackedValues(values, self.positions)
        counted = self.counted.reshape(-1, *[1] * (values.ndim - 1))
        return PackedValues(torch.where(counted, values, torch.zeros_like(values)), None)

    def crossed_rays(self, rays: int) -> Tensor:
        """(R,) bool: rays that have one of the samples."""
        if self.counted is not None:
            return self.counted.reshape(rays, self.samples).any(-1)
        index = self.rays
        assert index is not None
        return torch.zeros(rays, dtype=torch.bool, device=index.device).index_fill_(0, index, True)


def seen_samples(
    selection: Selection, threshold: float, weights: Tensor, others: Tensor | None = None
) -> tuple[Tensor | slice, Selection]:
    """Which of the selected samples have a weight above `threshold`, in `weights` or in `others`. No gradient.

    Args:
        selection: N samples.
        threshold: on a sample's weight, a fraction of the ray's light.
        weights, others: (R, S).

    Returns:
        what indexes values (N, ...) of the selected samples, and the selection of these K.

    Raises:
        ValueError, TypeError: numba back-end only, for shapes, positions or dtypes that do not fit.
    """
    largest = weights.detach() if others is None else torch.maximum(weights.detach(), others.detach())
    above = largest.reshape(-1) > threshold
    if selection.counted is not None:
        return slice(None), selection._replace(counted=selection.counted & above)
    assert selection.positions is not None
    chosen = above[selection.positions].nonzero()[:, 0]
    return chosen, selection._replace(positions=selection.positions[chosen])
