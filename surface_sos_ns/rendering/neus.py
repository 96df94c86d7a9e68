"""From signed distances to opacities along a ray (the paper's eq. 6; Wang et al. 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def neus_opacity(
    sdf: Tensor, cosine: Tensor, interval: Tensor, sharpness: Tensor | float, anneal: float | Tensor = 1.0
) -> Tensor:
    """Opacity of the section of a ray around a sample (eq. 6).

    The SDF is extrapolated linearly by half the interval to either side, `f_prev = f - cos dt/2`,
    `f_next = f + cos dt/2`, and the opacity is `max((Phi(f_prev) - Phi(f_next)) / Phi(f_prev), 0)` with
    `Phi(x) = sigmoid(b x)`. Eq. 6 prints `Phi(x) = 1 / (1 + exp(b x))`, which would give 0 where a ray enters the
    surface; the sign here is that of NeuS.

    Args:
        sdf: (...) signed distance at the sample.
        cosine: (...) directional derivative of the SDF along the ray, `n . v`, negative on entry.
        interval: (...) length of the section.
        sharpness: b > 0, inverse width of the surface, in 1 / unit of `sdf`.
        anneal: NeuS' cosine annealing: 0 replaces the cosine by -(1/2 - cos/2), 1 leaves it as it is.

    Returns:
        (...) in [0, 1].
    """
    # Sections that leave the surface have opacity 0; while the cosine is softened, all enter it to some degree.
    annealed_cosine = -(torch.relu(0.5 - 0.5 * cosine) * (1.0 - anneal) + torch.relu(-cosine) * anneal)
    half = annealed_cosine * interval * 0.5
    # The ratio of two sigmoids by logarithms: deep inside both underflow, their ratio does not.
    log_ratio = F.logsigmoid((sdf + half) * sharpness) - F.logsigmoid((sdf - half) * sharpness)
    return -torch.expm1(log_ratio.clamp(max=0.0))


def density_opacity(density: Tensor, interval: Tensor) -> Tensor:
    """`1 - exp(-density * interval)`, the opacity of a homogeneous section of a ray; shapes broadcast."""
    return 1.0 - torch.exp(-density * interval)


def soft_density(sdf: Tensor, sharpness: Tensor) -> Tensor:
    """Volume density (P,), per unit of length, of a surface at signed distances (P,), for rays along the normal.

    It is the limit of eq. 6 for short sections: `b sigmoid(-b f)`.
    """
    return sharpness * torch.sigmoid(-sdf * sharpness)
