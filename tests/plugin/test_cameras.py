"""nerfstudio's cameras made of plain arrays, and where their rays are right."""

from __future__ import annotations

import numpy as np
import torch

from surface_sos_ns.capture.views import Views
from surface_sos_ns.plugin.cameras import cameras_from_views, has_good_ray


def test_a_lens_that_nerfstudio_cannot_undistort_has_no_good_rays() -> None:
    """r (1 + 1e6 r^2) is invertible everywhere, but ten of Newton's steps do not get there: off by many pixels."""
    views = Views(
        np.eye(4)[None, :3],
        *(np.array([value]) for value in (70.0, 70.0, 32.0, 24.0)),
        *(np.array([value]) for value in (64, 48)),
        np.array([[1e6, 0, 0, 0, 0, 0]]),
    )
    pixels = np.array([[1.5, 1.5], [60.5, 40.5], [32.5, 24.5]])
    assert views.has_ray(0, pixels).all()
    cameras = cameras_from_views(views)
    theirs = cameras.generate_rays(
        torch.zeros(3, 1, dtype=torch.long), torch.from_numpy(pixels[:, ::-1].copy()).float()
    )
    x, y = (theirs.directions[:, axis].double() / -theirs.directions[:, 2].double() for axis in (0, 1))
    landed = 70 * (1 + 1e6 * (x * x + y * y)) * torch.stack([x, -y]) + torch.tensor([[32.0], [24.0]])
    off = (landed.T - torch.from_numpy(pixels)).norm(dim=1).numpy()
    assert off.max() > 1, "nerfstudio undistorts better than it did: is has_good_ray still needed?"
    assert has_good_ray(cameras, 0, pixels).tolist() == (off < 0.25).tolist()
