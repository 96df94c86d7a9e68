"""From signed distances to opacities along a ray (the paper's eq. 6; Wang et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def neus_opacity(
    sdf: Tensor, cosine: Tensor, interval: Tensor, sharpness: Tensor | float, anneal: float = 1.0
) -> Tensor:
    """Opacity of a section of a ray centred on a sample.

    The SDF is extended linearly by half the interval on either side, `f_prev = f - cos dt/2`, `f_next = f + cos dt/2`,
    and opacity is `max((Phi(f_prev) - Phi(f_next)) / Phi(f_prev), 0)` with `Phi(x) = sigmoid(b x)`. Eq. 6 prints
    `Phi(x) = 1 / (1 + exp(b x))`, which would give zero on entry; the sign here makes a ray opaque where it enters.

    Args:
        sdf: (...) signed distance at the sample.
        cosine: (...) directional derivative of the SDF along the ray, `n . v`, negative on entry.
        interval: (...) length of the section.
        sharpness: b > 0, inverse width of the surface in the units of 1 / sdf.
        anneal: 0 softens the cosine to -(1/2 - cos/2) as at the start of NeuS training, 1 leaves it as it is.

    Returns:
        (...) in [0, 1].
    """
    # Exiting sections count as parallel to the surface; early on every section counts as partly entering.
    true_cosine = -(torch.relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + torch.relu(-cosine) * anneal)
    half = true_cosine * interval * 0.5
    # The ratio of two sigmoids in logarithms: deep inside both vanish, and their ratio must not.
    passed = F.logsigmoid((sdf + half) * sharpness) - F.logsigmoid((sdf - half) * sharpness)
    return -torch.expm1(passed.clamp(max=0.0))


def density_opacity(density: Tensor, interval: Tensor) -> Tensor:
    """`1 - exp(-density * interval)`, the opacity of a homogeneous section of a ray; shapes broadcast."""
    return 1.0 - torch.exp(-density * interval)


def soft_density(sdf: Tensor, sharpness: Tensor) -> Tensor:
    """The density (P,), per unit of distance, that eq. 6 gives a surface at distances (P,), seen along the normal."""
    return sharpness * torch.sigmoid(-sdf * sharpness)
