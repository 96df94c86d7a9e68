"""The appearance code of a photo that training has not seen: fitted to its pixels, while the fields stay as they are.

As NeRF-W does it for its test photos: on one half of a photo, so that the other half can be compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from surface_sos_ns.models.surface_sos.appearance import EXPOSURE_WIDTH

if TYPE_CHECKING:
    from surface_sos_ns.models.surface_sos.renderer import RayLayers
    from surface_sos_ns.models.surface_sos.scene import SurfaceSOS

__all__ = ["fitted_code", "fitted_exposure"]

BATCHES, RAYS = 5, 1024
"""Number of batches of rays, drawn once, and rays in each; the samples and weights of their rays are computed once."""
STEPS = 150
"""Steps of Adam for a code with a latent part."""
RATE = 0.1
"""Its learning rate at the start; it falls to 0 as a cosine."""
OUTLIER = 0.1
"""Residual of a colour, 0 to 1, beyond which the loss is linear (Huber): what only this photo shows weighs less."""
SHRINKAGE = 1e-3
"""Weight of the mean square of the latent code, as in training."""
EXPOSURE_PIXELS = 5000
"""Pixels, about, that an exposure is fitted to."""
MIN_GAIN, MAX_GAIN = 0.05, 20.0
"""Bounds of a gain."""
REWEIGHTINGS = 25
"""Iterations of the reweighted least squares."""


def fitted_exposure(rgb: Tensor, opaque: Tensor, photo: Tensor) -> Tensor:
    """The exposure and white balance with which rendered colours look like a photo.

    Reweighted least squares of `rgb * gain + offset * opaque` (Huber); colours that the photo cuts off at 0 or 1 do not
    count where the rendering is beyond.

    Args:
        rgb: (P, 3) rendered at the mean exposure.
        opaque: (P, 1) accumulated opacity of all that is rendered, 0 to 1, a sky or a room included.
        photo: (P, 3) of the same pixels, 0 to 1.

    Returns:
        (1, 6) logarithms of gains, then offsets: an exposure code relative to the mean of the training views'.
    """
    every = max(1, len(rgb) // EXPOSURE_PIXELS)
    rgb, opaque, photo = (values[::every].double() for values in (rgb, opaque.expand_as(rgb), photo))
    known = torch.tensor([[1.0], [0.0]], dtype=torch.float64, device=rgb.device)  # the mean exposure
    system = torch.stack([rgb, opaque], -1).transpose(0, 1)  # (3, P, 2)
    target = photo.T[..., None]
    # A weak prior on the mean exposure: from pixels of one colour, gain and offset cannot be told apart.
    belief = 1e-2 * torch.eye(2, dtype=torch.float64, device=rgb.device)
    weight, found = torch.ones_like(target), known.expand(3, 2, 1)
    for _ in range(REWEIGHTINGS):
        weighted = system * weight
        found = torch.linalg.solve(weighted.mT @ system + belief, weighted.mT @ target + belief @ known)
        shown = system @ found
        left = (target - shown).abs()
        cut_off = ((target >= 1) & (shown > 1)) | ((target <= 0) & (shown < 0))
        weight = (OUTLIER / left.clamp(min=OUTLIER)) * ~cut_off
    gain, offset = found[:, 0, 0].clamp(MIN_GAIN, MAX_GAIN), found[:, 1, 0]
    return torch.cat([gain.log(), offset])[None].float()


def fitted_code(
    scene: SurfaceSOS,
    origins: Tensor,
    directions: Tensor,
    photo: Tensor,
    time: Tensor | None = None,
    seed: int = 0,
    room: Tensor | None = None,
) -> Tensor:
    """The appearance code with which a scene's rays look like a photo.

    The latent part is found by Adam over random rays, the exposure in closed form. Alpha does not depend on it.

    Args:
        scene: in evaluation mode; it stays as it is.
        origins, directions: (P, 3) rays, object frame, unit directions.
        photo: (P, 3) colours of the photo there, 0 to 1.
        time: (P,) in [0, 1], see `SurfaceSOS.render`.
        seed: equal seeds give equal codes.
        room: (P, 3), see `SurfaceSOS.render`.

    Returns:
        (1, C) code, relative to the mean of the training views', for `SurfaceSOS.render`.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = []
    with _frozen(scene):
        for _ in range(BATCHES):
            chosen = torch.randint(len(photo), (RAYS,), generator=generator).to(photo.device)
            layers = scene.layers(origins[chosen], directions[chosen], None if time is None else time[chosen])
            behind = None if room is None else room[chosen]
            batches.append(_Batch(layers, directions[chosen], photo[chosen], behind))
        code = torch.zeros(1, scene.appearance.width, device=photo.device)
        if code.shape[1] > EXPOSURE_WIDTH:
            code = _by_descent(scene, code, batches)
        code[:, :EXPOSURE_WIDTH] = 0
        rgb = torch.cat([scene.recoloured(each.layers, each.directions, code, each.room) for each in batches])
    opaque = torch.cat([each.layers.weights.accumulation for each in batches])
    opaque = opaque if scene.sky is None and room is None else torch.ones_like(opaque)
    exposure = fitted_exposure(rgb, opaque[:, None], torch.cat([each.photo for each in batches]))
    return torch.cat([exposure, code[:, EXPOSURE_WIDTH:]], -1)


class _Batch(NamedTuple):
    """R rays: their layers without colours, directions (R, 3) in the object frame, colours (R, 3) of the photo."""

    layers: RayLayers
    directions: Tensor
    photo: Tensor
    room: Tensor | None  # (R, 3), see `SurfaceSOS.render`


def _by_descent(scene: SurfaceSOS, start: Tensor, batches: Sequence[_Batch]) -> Tensor:
    """The code (1, C) by Adam, a batch a step."""
    with torch.enable_grad():
        code = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([code], lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS):
            batch = batches[step % len(batches)]
            shown = scene.recoloured(batch.layers, batch.directions, code, batch.room)
            error = F.smooth_l1_loss(shown, batch.photo, beta=OUTLIER) * 2 * OUTLIER
            loss = error + SHRINKAGE * code[:, EXPOSURE_WIDTH:].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return code.detach()


@contextmanager
def _frozen(scene: SurfaceSOS) -> Iterator[None]:
    """Inside, autograd is off and the scene's parameters require no gradient."""
    learned = [parameter for parameter in scene.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
