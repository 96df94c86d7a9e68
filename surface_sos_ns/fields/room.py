"""A room that is static in the camera's frame while the object turns: a picture behind everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Room(nn.Module):
    """Colour of the room by direction in the camera's axes, relative to which the object's frame turns.

    On a turntable the camera moves around the object in the object's frame, and the room moves along with the camera.
    A density in the object's frame cannot represent that: it becomes fog. In the camera's axes the room is a picture.

    Args:
        width, height: of the picture.
        views: number of training views.

    Attributes:
        picture: (1, 3, H, W) colours, display space, learned from what `take` gives.
        known: (1, 1, H, W) how surely photos show the room there, 0 to 1: not where the object is in all of them.
        extent: (4,) tangents of the angles at the picture's left, right, lower and upper border.
        axes: (V, 3, 3) of the training cameras: their x, y and z in the object frame are the columns.
    """

    known: Tensor
    extent: Tensor
    axes: Tensor

    def __init__(self, width: int, height: int, views: int):
        super().__init__()
        self.picture = nn.Parameter(torch.full((1, 3, height, width), 0.5))
        self.register_buffer("known", torch.ones(1, 1, height, width))
        self.register_buffer("extent", torch.tensor([-1.0, 1.0, -1.0, 1.0]))
        self.register_buffer("axes", torch.eye(3).repeat(max(views, 1), 1, 1))

    @torch.no_grad()
    def take(self, picture: Tensor, known: Tensor, extent: Tensor, axes: Tensor) -> None:
        """Start from a picture (H, W, 3), what is known of it (H, W), its extent (4,), and camera axes (V, 3, 3)."""
        self.picture.copy_(picture.permute(2, 0, 1)[None])
        self.known.copy_(known[None, None])
        self.extent.copy_(extent)
        self.axes.copy_(axes)

    def directions(self, directions: Tensor, view: Tensor) -> Tensor:
        """Directions (R, 3) of the object frame in the axes of the training cameras (R,) that they are of."""
        return torch.einsum("rij,ri->rj", self.axes[view], directions)

    def forward(self, directions: Tensor) -> Tensor:
        """Colours (R, 3), display space, of unit directions (R, 3): x right, y up, the camera looks along -z.

        Beyond its border the picture goes on with the colours of the border.
        """
        return self._at(self.picture, directions).clamp(0.0, 1.0)

    def confidence(self, directions: Tensor) -> Tensor:
        """(R,) how surely photos show the room in these directions, 0 to 1."""
        return self._at(self.known, directions)[:, 0]

    def _at(self, picture: Tensor, directions: Tensor) -> Tensor:
        """(R, C) values of a picture (1, C, H, W), bilinear."""
        left, right, lower, upper = self.extent.unbind()
        forward = (-directions[:, 2]).clamp(min=1e-3)
        across = (directions[:, 0] / forward - left) / (right - left) * 2 - 1
        down = (upper - directions[:, 1] / forward) / (upper - lower) * 2 - 1
        places = torch.stack([across, down], dim=-1).clamp(-1.0, 1.0)[None, None]
        found = F.grid_sample(picture, places, mode="bilinear", padding_mode="border", align_corners=False)
        return found[0, :, 0].T
